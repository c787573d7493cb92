"""Lines over steps as a drawing inside a page: sharp at every size, and small."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from markupsafe import Markup

from experiments.reports import page

_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _TOP = 760, 300, 60, 36, 12
# Okabe and Ito's colours, which differ for every kind of colour vision.
_COLORS = ('#0072b2', '#d55e00', '#009e73', '#cc79a7', '#e69f00', '#56b4e9', '#7f7f7f')
_DASHES = ('', '7 3', '2 3')
_TICKS = 5


def line_chart(title: str, series: Mapping[str, Sequence[tuple[float, float]]]) -> Markup:
    """Draws one line per name, on a logarithmic axis where all values are above 0.

    Args:
      title: What is drawn, such as `'losses/spectral_loss'`.
      series: Names to their (step, value) pairs; what is not finite breaks no line but is left out.

    Returns:
      An `<svg>` element with its legend; '' when there is nothing to draw.
    """
    finite = {
        name: [(x, y) for x, y in points if math.isfinite(x) and math.isfinite(y)]
        for name, points in series.items()
    }
    drawn = {name: points for name, points in finite.items() if points}
    if not drawn:
        return Markup('')
    values = [y for points in drawn.values() for _, y in points]
    scale = math.log10 if min(values) > 0 else float
    low, high = _spread(min(map(scale, values)), max(map(scale, values)))
    first, last = _spread(*_ends([x for points in drawn.values() for x, _ in points]))

    def place(x: float, y: float) -> tuple[float, float]:
        right = _LEFT + (x - first) / (last - first) * (_WIDTH - _LEFT - 10)
        return right, _TOP + (high - y) / (high - low) * (_HEIGHT - _TOP - _BOTTOM)

    lines = [
        {
            'name': name,
            'color': _COLORS[index % len(_COLORS)],
            'dashes': _DASHES[index // len(_COLORS) % len(_DASHES)],
            'points': ' '.join('{:.1f},{:.1f}'.format(*place(x, scale(y))) for x, y in points),
        }
        for index, (name, points) in enumerate(drawn.items())
    ]
    levels = [low + (high - low) * tick / (_TICKS - 1) for tick in range(_TICKS)]
    ticks = [
        {
            'y': round(place(first, level)[1], 1),
            'text': f'{10**level if scale is math.log10 else level:.3g}',
        }
        for level in levels
    ]
    ends = [
        {'x': round(place(x, low)[0], 1), 'step': f'{x:.0f}', 'anchor': anchor}
        for x, anchor in ((first, 'start'), (last, 'end'))
    ]
    text = page.render(
        'curves.html',
        title=title,
        lines=lines,
        ticks=ticks,
        ends=ends,
        width=_WIDTH,
        height=_HEIGHT,
        left=_LEFT,
    )
    return Markup(text)


def _ends(values: Sequence[float]) -> tuple[float, float]:
    return min(values), max(values)


def _spread(low: float, high: float) -> tuple[float, float]:
    """Limits that differ, so that one value alone has a place."""
    return (low, high) if high > low else (low - 0.5, high + 0.5)
