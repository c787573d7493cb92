"""Runs side by side: what differs, which metrics are better, whether by more than chance, and the page.

Whether two runs differ by more than chance is tested over recordings: examples of one recording overlap and
sound alike, so they are not independent observations. The signs of the recordings' mean differences are
flipped in every possible way (Fisher's exact randomisation test), or in many random ways where there are too
many.
"""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from experiments.metrics import best_of, is_shown, shown
from experiments.reports import figures, page
from experiments.tracking import store
from experiments.tracking.runs import title as run_title

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

_OF_THE_MACHINE = ('speed/', 'system/')
EVALUATION_FILE = 'evaluation/examples.json'
_FLIPS = 20000  # of signs; all 2^n are tried where there are fewer
_LEVEL = 0.05
_UNKNOWN = (
    'Whether the difference is chance cannot be told: the runs were not evaluated on the same recordings, or '
    'without noting them. `ddsp evaluate` on one dataset notes them.'
)
_EXAMPLES = 3
_RUNS_DRAWN = 20
_PARAMS_BESIDE = 6

Media = Mapping[str, pathlib.Path]
Row = Mapping[str, Any]  # measures of an example


@dataclasses.dataclass(frozen=True)
class ComparedRun:
    """A run that is compared with others."""

    run_id: str
    name: str
    status: str


@dataclasses.dataclass(frozen=True)
class MetricRow:
    """One metric over the runs; `best` holds the indices of the best runs, none where no order is known."""

    values: tuple[float | None, ...]
    best: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Runs side by side, each tuple in the order of `runs`; `warnings` say why figures do not compare."""

    runs: tuple[ComparedRun, ...]
    params: dict[str, tuple[str, ...]]
    metrics: dict[str, MetricRow]
    warnings: tuple[str, ...] = ()


def compare(runs: Sequence[Run], *, all_params: bool = False, system: bool = False) -> Comparison:
    """Puts runs side by side.

    Args:
      runs: Two or more runs.
      all_params: True keeps parameters in which the runs do not differ.
      system: True keeps the machine's load.

    Returns:
      Parameters that differ and all metrics, each with the best runs marked. Runs on different datasets are
      not ranked: what is better on one says nothing about the other.
    """
    names = sorted({name for run in runs for name in run.data.params})
    params = {name: tuple(run.data.params.get(name, '') for run in runs) for name in names}
    if not all_params:
        params = {name: values for name, values in params.items() if len(set(values)) > 1}
    metrics = sorted(
        {name for run in runs for name in run.data.metrics if system or not name.startswith('system/')}
    )
    warnings = dataset_warnings(runs)
    rows = {}
    for name in metrics:
        values = tuple(run.data.metrics.get(name) for run in runs)
        comparable = not warnings or name.startswith(_OF_THE_MACHINE)
        rows[name] = MetricRow(values, tuple(sorted(best_of(name, values))) if comparable else ())
    compared = tuple(ComparedRun(run.info.run_id, run_title(run), run.info.status) for run in runs)
    return Comparison(compared, params, rows, warnings)


def dataset_warnings(runs: Sequence[Run]) -> tuple[str, ...]:
    """A sentence where runs tell that they were trained on different datasets."""
    names: dict[str, set[str]] = {}
    for run in runs:
        digest = run.data.tags.get('ddsp.dataset_digest')
        if digest:
            names.setdefault(digest, set()).add(run.data.tags.get('ddsp.dataset', ''))
    if len(names) < 2:
        return ()
    shown = ', '.join(f'{min(paths)} (digest {digest[:8]})' for digest, paths in sorted(names.items()))
    return (
        f'These runs were trained on different datasets: {shown}. Their losses do not compare, so none is '
        'marked as the best. `ddsp evaluate` measures models on one dataset.',
    )


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
      runs: Runs in the order in which they are shown.
      comparison: The same runs side by side.
      path: HTML file to write.
      significance: As `significance` returns it.
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
    names = [run.name for run in comparison.runs]
    silent = [
        name for name, files in zip(names, media, strict=True)
        if not any(file.endswith('_synthesized.wav') for file in files)
    ]  # fmt: skip
    text = page.render(
        'compare.html', title=title, comparison=comparison, significance=significance,
        examples=[_example(name, names, media, same_data) for name in examples], silent=silent,
        charts=_charts(client, runs),
        runs=[
            {
                'id': run.run_id, 'name': run.name, 'numbers': _numbers(comparison, i),
                'pictures': [media[i][n] for e in examples if (n := f'{e}_spectrogram.png') in media[i]],
            }
            for i, run in enumerate(comparison.runs)
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


def _charts(client: MlflowClient, runs: Sequence[Run]) -> dict[str, str]:
    """The courses of the metrics that are looked at first, as pictures."""
    charts = {}
    for metric in shown('curve'):
        courses: dict[str, list[tuple[float, float]]] = {}
        for run in [run for run in runs if metric in run.data.metrics][:_RUNS_DRAWN]:
            points = client.get_metric_history(run.info.run_id, metric)
            name = run.info.run_id[:8] if run_title(run) in courses else run_title(run)
            courses[name] = [(float(point.step), point.value) for point in points]
        if courses:
            charts[metric] = page.png_source(figures.png(figures.losses(courses, metric)))
    return charts


def _numbers(comparison: Comparison, index: int) -> list[tuple[str, str]]:
    """What tells a run from the others: its own parameters and the metrics that people look at first."""
    cells = [(name, values[index]) for name, values in comparison.params.items()][:_PARAMS_BESIDE]
    for name, row in comparison.metrics.items():
        value = row.values[index]
        if is_shown(name, 'page') and value is not None:
            cells.append((name, page.format_number(value) + (' *' if index in row.best else '')))
    return cells


def _download_media(client: MlflowClient, run_id: str) -> dict[str, pathlib.Path]:
    """The files of a run's `media` folder on this disk, by name."""
    try:
        folder = pathlib.Path(client.download_artifacts(run_id, 'media'))
        return {path.name: path for path in sorted(folder.iterdir())}
    except (store.refusals(), OSError):
        return {}


def significance(client: MlflowClient, runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Tests two runs on the examples that both were evaluated on.

    Returns:
      One dictionary per metric with `metric`, `text` and what `paired_test` gives; one with `text` only where
      nothing can be tested, which says why; none unless there are two runs.
    """
    if len(runs) != 2:
        return []
    first, second = (evaluation_rows(client, run.info.run_id) for run in runs)
    shared = [name for name in first if name in second]
    if not shared:
        return []
    recordings = [first[name].get('recording') for name in shared]
    if None in recordings or recordings != [second[name].get('recording') for name in shared]:
        return [{'text': _UNKNOWN}]
    found: list[dict[str, Any]] = []
    for metric in sorted(_measures(first[shared[0]]) & _measures(second[shared[0]])):
        pairs = [
            (first[name][metric], second[name][metric], recording)
            for name, recording in zip(shared, recordings, strict=True)
            if metric in _measures(first[name]) & _measures(second[name])
        ]
        entry = paired_test(*map(list, zip(*pairs, strict=True)))
        found.append({'metric': metric, **entry, 'text': f'{metric}: {_words(entry)}'})
    return found


def paired_test(first: Sequence[float], second: Sequence[float], recordings: Sequence[str]) -> dict[str, Any]:
    """Paired randomisation test of a mean difference, over recordings.

    Args:
      first: A measure of each example.
      second: The same for the other run.
      recordings: The recording that each example comes from.

    Returns:
      `difference` (second minus first: mean over recordings of their mean), `low` and `high` of its 95 %
      interval (Student's t over recordings; None with one), two-sided `p` (None with one), `exact` (all signs
      were tried), `examples`, `recordings`.
    """
    names = np.asarray(recordings)
    differences = np.asarray(second, float) - np.asarray(first, float)
    means = np.array([differences[names == name].mean() for name in sorted(set(recordings))])
    result: dict[str, Any] = {
        'difference': float(means.mean()), 'low': None, 'high': None, 'p': None, 'exact': True,
        'examples': len(differences), 'recordings': len(means),
    }  # fmt: skip
    if len(means) > 1:
        from scipy import stats

        half = stats.t.ppf(1 - _LEVEL / 2, len(means) - 1) * means.std(ddof=1) / np.sqrt(len(means))
        result |= {'low': float(means.mean() - half), 'high': float(means.mean() + half)}
        flipped = stats.permutation_test(
            (means,), np.mean, permutation_type='samples', n_resamples=_FLIPS, rng=0
        )
        result |= {'p': float(flipped.pvalue), 'exact': 2 ** len(means) <= _FLIPS}
    return result


def _words(entry: Mapping[str, Any]) -> str:
    """Verdict and numbers in one line."""
    n = entry['recordings']
    counts = f'{entry["examples"]} examples of {n} recording{"s" if n > 1 else ""}'
    if n < 2:
        return f'second minus first {entry["difference"]:+.3g}; {counts}: too few to tell it from chance'
    interval = (
        f'second minus first {entry["difference"]:+.3g} [{entry["low"]:+.3g}, {entry["high"]:+.3g}] at 95 %'
    )
    p = f'p = {entry["p"]:.3f}' if entry['p'] >= 0.001 else 'p < 0.001'
    p += ' (exact)' if entry['exact'] else ''
    verdict = 'differs' if entry['p'] < _LEVEL else 'no clear difference'
    few = f': too few to tell, p cannot go below {2 / 2**n:g}' if 2 / 2**n >= _LEVEL else ''
    return f'{verdict}; {interval}, {p}, {counts}{few}'


def evaluation_rows(client: MlflowClient, run_id: str) -> dict[str, dict[str, Any]]:
    """Measures of each held-out example of a run; empty when it was not evaluated by example."""
    try:
        path = client.download_artifacts(run_id, EVALUATION_FILE)
        rows = json.loads(pathlib.Path(path).read_text())
        return {str(entry['example']): dict(entry) for entry in rows}
    except (store.refusals(), OSError, ValueError, TypeError, KeyError):
        return {}


def _measures(row: Row) -> set[str]:
    """Names of the measures of an example."""
    return {name for name, value in row.items() if isinstance(value, float) and value == value}
