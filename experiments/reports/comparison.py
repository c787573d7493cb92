"""Runs side by side: what differs in their parameters, which metrics are better."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlflow.entities import Run

_LOWER = re.compile(r'loss|_l1_|l1$|outlier|cents|error|data_wait|distance')
_HIGHER = re.compile(r'per_sec|accuracy|voiced')
_OF_THE_MACHINE = ('speed/', 'system/')
_NO_ORDER = ('energy/', 'system/', 'optimizer/')


@dataclasses.dataclass(frozen=True)
class MetricRow:
    """One metric over the runs; `best` holds the indices of the best runs, none where no order is known."""

    name: str
    values: tuple[float | None, ...]
    best: frozenset[int]


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Runs side by side, each tuple in the order of `run_ids`; `warnings` say why figures do not compare."""

    run_ids: tuple[str, ...]
    names: tuple[str, ...]
    statuses: tuple[str, ...]
    params: dict[str, tuple[str, ...]]
    metrics: tuple[MetricRow, ...]
    warnings: tuple[str, ...] = ()

    def as_dict(self) -> dict:
        """For JSON."""
        return {
            'runs': [
                {'run_id': run_id, 'name': name, 'status': status}
                for run_id, name, status in zip(self.run_ids, self.names, self.statuses, strict=True)
            ],
            'params': {name: list(values) for name, values in self.params.items()},
            'metrics': {
                row.name: {'values': list(row.values), 'best': sorted(row.best)} for row in self.metrics
            },
            'warnings': list(self.warnings),
        }


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
    rows = []
    for name in metrics:
        values = tuple(run.data.metrics.get(name) for run in runs)
        comparable = not warnings or name.startswith(_OF_THE_MACHINE)
        rows.append(MetricRow(name, values, best_of(name, values) if comparable else frozenset()))
    return Comparison(
        run_ids=tuple(run.info.run_id for run in runs),
        names=tuple(run.info.run_name or run.info.run_id[:8] for run in runs),
        statuses=tuple(run.info.status for run in runs),
        params=params,
        metrics=tuple(rows),
        warnings=warnings,
    )


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


def lower_is_better(name: str) -> bool | None:
    """Whether less of a metric is better; None where neither is (energies, learning rate, load)."""
    if name.startswith(_NO_ORDER):
        return None
    if _LOWER.search(name):
        return True
    return False if _HIGHER.search(name) else None


def best_of(name: str, values: Sequence[float | None]) -> frozenset[int]:
    """Indices of the best values; none when there is nothing to choose between."""
    lower = lower_is_better(name)
    known = [value for value in values if value is not None and not math.isnan(value)]
    if lower is None or len(known) < 2 or min(known) == max(known):
        return frozenset()
    best = min(known) if lower else max(known)
    return frozenset(index for index, value in enumerate(values) if value == best)
