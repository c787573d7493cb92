"""Whether two runs differ by more than chance: paired tests over recordings.

Examples of one recording overlap and sound alike, so they are not independent observations: the unit is the
recording. The signs of the recordings' mean differences are flipped in every possible way (Fisher's exact
randomisation test), or in many random ways where there are too many.
"""

from __future__ import annotations

import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from experiments.tracking import store

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

EVALUATION_FILE = 'evaluation/examples.json'
_FLIPS = 20000  # of signs; all 2^n are tried where there are fewer
_LEVEL = 0.05
_UNKNOWN = (
    'Whether the difference is chance cannot be told: the runs were not evaluated on the same recordings, or '
    'without noting them. `ddsp evaluate` on one dataset notes them.'
)

Row = Mapping[str, Any]


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
    for metric in sorted(_numbers(first[shared[0]]) & _numbers(second[shared[0]])):
        pairs = [
            (first[name][metric], second[name][metric], recording)
            for name, recording in zip(shared, recordings, strict=True)
            if metric in _numbers(first[name]) & _numbers(second[name])
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


def _numbers(row: Row) -> set[str]:
    """Names of the measures of an example."""
    return {name for name, value in row.items() if isinstance(value, float) and value == value}
