"""The page of a comparison: the runs' players of each example side by side, then figures and pictures."""

from __future__ import annotations

import os
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from experiments.reports import curves, page
from experiments.tracking import store

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

    from experiments.reports.comparison import Comparison

_EXAMPLES = 3
_DRAWN = ('losses/spectral_loss', 'held_out/spectral_loss')
_RUNS_DRAWN = 20
_PARAMS_BESIDE = 6

Media = Mapping[str, pathlib.Path]


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
    media = [_download_media(client, run.info.run_id) for run in runs]
    examples = sorted(
        {match[1] for files in media for n in files if (match := re.match(r'(.+)_target\.wav$', n))}
    )
    examples = examples[:_EXAMPLES]
    same_data = not comparison.warnings
    text = page.render(
        'compare.html', title=title, comparison=comparison, significance=significance,
        examples=[_example(name, comparison.names, media, same_data) for name in examples],
        silent=[name for name, files in zip(comparison.names, media, strict=True) if not _sounds(files)],
        charts=[curves.line_chart(metric, _histories(client, runs, metric)) for metric in _DRAWN],
        runs=[
            {
                'id': run_id, 'name': comparison.names[i], 'numbers': _numbers(comparison, i),
                'pictures': [media[i][n] for e in examples if (n := f'{e}_spectrogram.png') in media[i]],
            }
            for i, run_id in enumerate(comparison.run_ids)
        ],
    )  # fmt: skip
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding='utf-8')
    return path


def _example(name: str, runs: Sequence[str], media: Sequence[Media], same_data: bool) -> page.Example:
    """Players of one example: what was to be played, once where all runs had the same, and the runs' own."""
    clips: list[page.Clip] = []
    for number, (run, files) in enumerate(zip(runs, media, strict=True), 1):
        target, own = files.get(f'{name}_target.wav'), files.get(f'{name}_synthesized.wav')
        if target is not None and (not clips or not same_data):
            clips.append(page.Clip.of('Target' if same_data else f'Target of {number}. {run}', target))
        if own is not None:
            clips.append(page.Clip.of(f'{number}. {run}', own))
    return page.Example(name.replace('_', ' ').capitalize(), clips)


def _sounds(files: Media) -> bool:
    return any(name.endswith('_synthesized.wav') for name in files)


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


def _numbers(comparison: Comparison, index: int) -> list[tuple[str, str]]:
    """What tells a run from the others: its own parameters and the metrics that people look at first."""
    cells = [(name, values[index]) for name, values in comparison.params.items()][:_PARAMS_BESIDE]
    for row in comparison.metrics:
        value = row.values[index]
        if row.name.startswith(('eval/', 'losses/spectral_loss')) and value is not None:
            cells.append((row.name, page.format_number(value) + (' *' if index in row.best else '')))
    return cells


def _download_media(client: MlflowClient, run_id: str) -> dict[str, pathlib.Path]:
    """The files of a run's `media` folder on this disk, by name."""
    try:
        folder = pathlib.Path(client.download_artifacts(run_id, 'media'))
        return {path.name: path for path in sorted(folder.iterdir())}
    except (*store.refusals(), OSError):
        return {}
