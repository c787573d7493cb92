"""Lists of runs: filtering, ordering, export and signs of life."""

from __future__ import annotations

import datetime
import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ddsp.errors import DDSPError
from experiments.metrics import lower_is_better
from experiments.tracking import run_tags, store

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run


def list_runs(
    client: MlflowClient,
    *,
    experiments: Sequence[str] | None = None,
    condition: str = '',
    best: str = '',
    limit: int | None = None,
) -> list[Run]:
    """Runs, newest first or best first.

    Args:
      client: Client of the store.
      experiments: Names; None for all.
      condition: Filter in MLflow's grammar.
      best: Metric to order by, better first; runs without it come last.
      limit: Most runs to return.
    """
    order = None
    if best:
        order = [f'metrics.`{best}` {"DESC" if lower_is_better(best) is False else "ASC"}']
    return store.search(client, condition, experiments=list(experiments or []), order=order, limit=limit)


def of_sweep(name: str, role: str = 'trial') -> str:
    """Filter, in MLflow's grammar, for the trials of a sweep, or for its `'summary'`."""
    return f"tags.sweep_id = '{name}' AND tags.sweep_role = '{role}'"


def title(run: Run) -> str:
    """What people call a run: its name, or the beginning of its id."""
    return run.info.run_name or run.info.run_id[:8]


def row(run: Run) -> dict[str, Any]:
    """One run as a flat dictionary for JSON."""
    return {
        'run_id': run.info.run_id,
        'name': run.info.run_name,
        'experiment_id': run.info.experiment_id,
        'status': run.info.status,
        'start_time': run.info.start_time,
        'end_time': run.info.end_time,
        'silent_since': run_tags.silent_since(run.info.status, run.data.tags),
        'sweep_id': run.data.tags.get('sweep_id', ''),
        'save_dir': run.data.tags.get('ddsp.save_dir', ''),
        'params': run.data.params,
        'metrics': run.data.metrics,
    }


def export(runs: Sequence[Run], path: pathlib.Path) -> None:
    """Writes runs as a table, one row each, by the path's ending (.csv or .parquet).

    Raises:
      DDSPError: Another ending.
    """
    if path.suffix not in ('.csv', '.parquet'):
        raise DDSPError(f'{path}: the ending must be .csv or .parquet.')
    import pandas as pd  # comes with MLflow

    table = pd.json_normalize([row(run) for run in runs])
    table = table[sorted(table, key=lambda name: ('.' in name, name if '.' in name else ''))]
    table = table.astype({name: 'Int64' for name in ('end_time', 'silent_since') if name in table})
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == '.csv':
        table.to_csv(path, index=False)
    else:
        table.to_parquet(path, index=False)


def end_run(client: MlflowClient, reference: str, force: bool = False) -> str:
    """Marks a run as KILLED whose training is gone, as after SIGKILL or a power cut.

    Args:
      client: Client of the store.
      reference: The run: see `store.find_run`.
      force: End it although it gives signs of life.

    Returns:
      Its id.

    Raises:
      TrackingError: No such run, it has ended, or it lives.
    """
    run = store.find_run(client, reference)
    if run.info.status != 'RUNNING':
        raise store.TrackingError(f'the run {run.info.run_name} has ended: it is {run.info.status}.')
    last = run_tags.last_sign(run.data.tags)
    if not force and last is not None and run_tags.silent_since('RUNNING', run.data.tags) is None:
        raise store.TrackingError(
            f'the run {run.info.run_name} lives: its last sign of life came at {clock(last)}, less than '
            f'{run_tags.LEASE_SECS / 60:g} minutes ago. Stop its training, or add --force.'
        )
    client.set_terminated(run.info.run_id, 'KILLED')
    return run.info.run_id


def clock(milliseconds: int) -> str:
    """Time of day, with the date when it is not today's."""
    moment = datetime.datetime.fromtimestamp(milliseconds / 1000)
    today = moment.date() == datetime.date.today()
    return moment.strftime('%H:%M' if today else '%Y-%m-%d %H:%M')


def state(run: Run) -> str:
    """A run's status for people, with the time of its last sign of life when there is none any more."""
    since = run_tags.silent_since(run.info.status, run.data.tags)
    return run.info.status if since is None else f'no sign of life since {clock(since)}'
