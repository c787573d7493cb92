"""Lines over steps as a drawing inside a page: sharp at every size, and small."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence

_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _TOP = 760, 300, 60, 36, 12
# Okabe and Ito's colours, which differ for every kind of colour vision.
_COLORS = ('#0072b2', '#d55e00', '#009e73', '#cc79a7', '#e69f00', '#56b4e9', '#7f7f7f')
_DASHES = ('', '7 3', '2 3')
_TICKS = 5


def line_chart(title: str, series: Mapping[str, Sequence[tuple[float, float]]]) -> str:
    """Draws one line per name, on a logarithmic axis where all values are above 0.

    Args:
      title: What is drawn, such as `'losses/spectral_loss'`.
      series: Names to their (step, value) pairs; what is not finite breaks no line but is left out.

    Returns:
      An `<svg>` element; '' when there is nothing to draw.
    """
    finite = {
        name: [(x, y) for x, y in points if math.isfinite(x) and math.isfinite(y)]
        for name, points in series.items()
    }
    drawn = {name: points for name, points in finite.items() if points}
    if not drawn:
        return ''
    values = [y for points in drawn.values() for _, y in points]
    scale = math.log10 if min(values) > 0 else float
    low, high = _spread(min(map(scale, values)), max(map(scale, values)))
    first, last = _spread(*_ends([x for points in drawn.values() for x, _ in points]))

    def place(x: float, y: float) -> tuple[float, float]:
        right = _LEFT + (x - first) / (last - first) * (_WIDTH - _LEFT - 10)
        return right, _TOP + (high - y) / (high - low) * (_HEIGHT - _TOP - _BOTTOM)

    parts = [f'<title>{html.escape(title)}</title>']
    for tick in range(_TICKS):
        level = low + (high - low) * tick / (_TICKS - 1)
        y = place(first, level)[1]
        shown = 10**level if scale is math.log10 else level
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - 10}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{shown:.3g}</text>')
    for x, anchor in ((first, 'start'), (last, 'end')):
        right = place(x, low)[0]
        parts.append(f'<text x="{right:.1f}" y="{_HEIGHT - 12}" text-anchor="{anchor}">step {x:.0f}</text>')
    legend = []
    for index, (name, points) in enumerate(drawn.items()):
        color, dashes = _COLORS[index % len(_COLORS)], _DASHES[index // len(_COLORS) % len(_DASHES)]
        line = ' '.join('{:.1f},{:.1f}'.format(*place(x, scale(y))) for x, y in points)
        style = f'fill="none" stroke="{color}" stroke-width="2" stroke-dasharray="{dashes}"'
        parts.append(f'<polyline {style} points="{line}"><title>{html.escape(name)}</title></polyline>')
        legend.append(f'<span style="color:{color}">&#9632;</span> {html.escape(name)}')
    drawing = f'<svg class="curves" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img">{"".join(parts)}</svg>'
    return f'<figure><figcaption>{html.escape(title)}: {" ".join(legend)}</figcaption>{drawing}</figure>'


STYLE = (
    '<style>.curves { max-width: 48rem; width: 100%; } .curves text { font-size: 11px; fill: currentColor; } '
    '.curves .grid { stroke: currentColor; opacity: .2; }</style>'
)


def _ends(values: Sequence[float]) -> tuple[float, float]:
    return min(values), max(values)


def _spread(low: float, high: float) -> tuple[float, float]:
    """Limits that differ, so that one value alone has a place."""
    return (low, high) if high > low else (low - 0.5, high + 0.5)
