"""The page of a comparison: a ranked table, and the runs' players and pictures below each other."""

from __future__ import annotations

import html
import os
import pathlib
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from experiments import curves, page, store

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

    from experiments.compare import Comparison

_EXAMPLES_PER_RUN = 3
_DRAWN = ('losses/spectral_loss', 'held_out/spectral_loss')
_RUNS_DRAWN = 20
_PARAMS_BESIDE = 6


def write_page(
    client: MlflowClient,
    runs: Sequence[Run],
    comparison: Comparison,
    path: str | os.PathLike[str],
    significance: Sequence[dict[str, Any]] = (),
    title: str = 'Comparison of runs',
) -> pathlib.Path:
    """Writes a self-contained page.

    Args:
      client: Client of the store, which the runs' audio and pictures come from.
      runs: In the order in which they are shown.
      comparison: Of the same runs.
      path: HTML file to write.
      significance: As `significance.significance` returns it.
      title: Heading.

    Returns:
      The path.
    """
    body = [curves.STYLE, f'<h1>{html.escape(title)}</h1>', _table(comparison)]
    body += [curves.line_chart(metric, _histories(client, runs, metric)) for metric in _DRAWN]
    body += [f'<p>{html.escape(entry["text"])}</p>' for entry in significance]
    body += [
        _run_section(client, run, _numbers(comparison, index), index + 1) for index, run in enumerate(runs)
    ]
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page.document(title, '\n'.join(body)), encoding='utf-8')
    return path


def _histories(
    client: MlflowClient, runs: Sequence[Run], metric: str
) -> dict[str, list[tuple[float, float]]]:
    """Name of each run to the course of a metric."""
    found: dict[str, list[tuple[float, float]]] = {}
    for run in [run for run in runs if metric in run.data.metrics][:_RUNS_DRAWN]:
        points = client.get_metric_history(run.info.run_id, metric)
        name = run.info.run_name or run.info.run_id[:8]
        found[name if name not in found else run.info.run_id[:8]] = [(float(p.step), p.value) for p in points]
    return found


def _table(comparison: Comparison) -> str:
    """Parameters that differ and metrics; the best value of a row is marked."""
    headings = ''.join(f'<th><a href="#{run_id}">{html.escape(name)}</a></th>' for name, run_id in zip(
        comparison.names, comparison.run_ids, strict=True))  # fmt: skip
    rows = [f'<tr><th></th>{headings}</tr>']
    for name, values in comparison.params.items():
        cells = ''.join(f'<td>{html.escape(value)}</td>' for value in values)
        rows.append(f'<tr><td>{html.escape(name)}</td>{cells}</tr>')
    for row in comparison.metrics:
        cells = ''.join(
            f'<td class="number{" best" if index in row.best else ""}">'
            f'{"" if value is None else page.format_number(value)}</td>'
            for index, value in enumerate(row.values)
        )
        rows.append(f'<tr><td>{html.escape(row.name)}</td>{cells}</tr>')
    return f'<div class="scroll"><table>{"".join(rows)}</table></div>'


def _numbers(comparison: Comparison, index: int) -> str:
    """What tells a run from the others: its own parameters and the metrics that people look at first."""
    cells = [(name, values[index]) for name, values in comparison.params.items()][:_PARAMS_BESIDE]
    for row in comparison.metrics:
        value = row.values[index]
        if row.name.startswith(('eval/', 'losses/spectral_loss')) and value is not None:
            cells.append((row.name, page.format_number(value) + (' *' if index in row.best else '')))
    rows = ''.join(
        f'<tr><td>{html.escape(name)}</td><td class="number">{html.escape(text)}</td></tr>'
        for name, text in cells
    )
    return f'<table>{rows}</table>'


def _run_section(client: MlflowClient, run: Run, numbers: str, rank: int) -> str:
    """One run: its numbers with players and pictures beside them, from its `media` artefacts."""
    media = _download_media(client, run.info.run_id)
    name = html.escape(run.info.run_name or run.info.run_id)
    examples = sorted({match[1] for path in media if (match := re.match(r'(.+)_target\.wav$', path.name))})
    parts = [] if examples else ['<p>This run has no audio.</p>']
    by_name = {path.name: path for path in media}
    for example in examples[:_EXAMPLES_PER_RUN]:
        clips = [(part, by_name.get(f'{example}_{part}.wav')) for part in ('target', 'synthesized')]
        players = ''.join(_player(f'{example} {part}', path) for part, path in clips if path is not None)
        parts.append(f'<div class="players">{players}</div>')
        picture = by_name.get(f'{example}_spectrogram.png')
        if picture is not None:
            parts.append(page.picture(picture))
    beside = f'<div style="flex: 1 1 30rem; min-width: 0">{"".join(parts)}</div>'
    return f'<h2 id="{run.info.run_id}">{rank}. {name}</h2><div class="players">{numbers}{beside}</div>'


def _player(label: str, path: pathlib.Path) -> str:
    import soundfile

    audio, sample_rate = soundfile.read(path, dtype='float32')
    return page.audio_player(page.Clip(label, audio, sample_rate))


def _download_media(client: MlflowClient, run_id: str) -> list[pathlib.Path]:
    """The files of a run's `media` folder on this disk."""
    try:
        return sorted(pathlib.Path(client.download_artifacts(run_id, 'media')).iterdir())
    except (*store.refusals(), OSError):
        return []
