"""`python -m benchmarks.tracking`: what recording costs, on SQLite and on PostgreSQL.

Fifty trials record 200 metrics each, five times, as a training does (`MLflowTracker`), and report to an
Optuna study in the same database. PostgreSQL is a cluster of the benchmark's own and is left out where its
programs are not installed.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import os
import pathlib
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.__main__ import HERE, describe_machine
from benchmarks.postgres import PostgresCluster, find_program

SUMMARIES = 5
COLUMNS = {
    'waited_ms': 'trainer waits, ms',
    'recorded_s': 'until all is recorded, s',
    'cpu_s': 'CPU here, s',
    'study_s': 'Optuna, s',
}


def record_trials(folder: pathlib.Path, trials: int, metrics: int) -> dict[str, float]:
    """Records trials in the store in use.

    Args:
      folder: For the training folders.
      trials: How many.
      metrics: Different metrics of each; every one is recorded `SUMMARIES` times.

    Returns:
      Per trial: `waited_ms` in the calls that a training makes, `recorded_s` from its first call until the
      store holds all of it, `cpu_s` of this process.
    """
    from experiments.track import MLflowTracker

    values = {f'losses/loss_{index}': 1.0 / (index + 1) for index in range(metrics)}
    waited, start, cpu = 0.0, time.perf_counter(), _cpu_seconds()
    for trial in range(trials):
        tracker = MLflowTracker(
            folder / f'trial-{trial}', experiment='benchmark', run_name=f'trial-{trial}', metrics_every=0
        )
        before = time.perf_counter()
        for step in range(1, SUMMARIES + 1):
            tracker.on_summary(step, values)
        waited += time.perf_counter() - before
        problem = tracker.close('FINISHED')
        if problem:
            raise SystemExit(problem)
    return {
        'waited_ms': 1000 * waited / trials,
        'recorded_s': (time.perf_counter() - start) / trials,
        'cpu_s': (_cpu_seconds() - cpu) / trials,
    }


def study_seconds(storage: str, trials: int) -> float:
    """Seconds that a trial spends on its Optuna study: taken, reported `SUMMARIES` times, told."""
    from experiments.study import TrialQueue
    from experiments.sweep_spec import parse_spec

    spec = parse_spec({'parameters': {'x': {'low': 0.0, 'high': 1.0}}, 'trials': trials, 'name': 'benchmark'})
    queue = TrialQueue(spec, storage)
    start = time.perf_counter()
    while (trial := queue.take()) is not None:
        value = spec.suggest(trial)['x']
        for step in range(1, SUMMARIES + 1):
            trial.report(value, step)
        queue.study.tell(trial, value)
    return (time.perf_counter() - start) / trials


@contextlib.contextmanager
def _store(uri: str, through_server: bool) -> Iterator[None]:
    """Makes a database, or a server on it, the store in use."""
    from experiments import store
    from experiments.ui import UIServer

    if not through_server:
        store.client(uri)  # making the tables is no part of a trial
        os.environ['MLFLOW_TRACKING_URI'] = uri
        yield
        return
    with UIServer(uri) as server:
        server.wait_until_ready()
        os.environ['MLFLOW_TRACKING_URI'] = server.address
        yield


def measure(
    name: str, uri: str, storage: str, through_server: bool, args: argparse.Namespace
) -> dict[str, Any]:
    """One line of the table."""
    with tempfile.TemporaryDirectory() as folder, _store(uri, through_server):
        from experiments import quiet

        with quiet.terminal():
            record_trials(pathlib.Path(folder, 'warm'), 1, args.metrics)  # imports and first connections
            row = record_trials(pathlib.Path(folder, 'measured'), args.trials, args.metrics)
            row['study_s'] = study_seconds(storage, args.trials)
    return {'store': name, **{key: round(value, 4) for key, value in row.items()}}


def measure_all(args: argparse.Namespace, root: pathlib.Path) -> list[dict[str, Any]]:
    """All stores that can be had here."""
    rows = []
    with contextlib.ExitStack() as stack:
        databases = {'SQLite': lambda name: f'sqlite:///{root / name}.db'}
        if find_program('postgres'):
            databases['PostgreSQL'] = stack.enter_context(PostgresCluster()).create_database
        else:
            print('left out PostgreSQL: postgres is not installed (package postgresql)')
        for name, create in databases.items():
            for through_server in (False, True):
                number = len(rows)
                title = f'server on {name}' if through_server else name
                uri, storage = create(f'runs_{number}'), create(f'study_{number}')
                rows.append(measure(title, uri, storage, through_server, args))
                print(rows[-1], file=sys.stderr)
    return rows


def _cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def main() -> int:
    """Measures, prints the table, writes the JSON."""
    parser = argparse.ArgumentParser(
        prog='python -m benchmarks.tracking', description=__doc__.splitlines()[0]
    )
    parser.add_argument('--trials', type=int, default=50)
    parser.add_argument('--metrics', type=int, default=200, help='different metrics of a trial')
    args = parser.parse_args()
    here = pathlib.Path.cwd()
    with tempfile.TemporaryDirectory() as root:
        os.chdir(root)  # for the artefacts
        try:
            rows = measure_all(args, pathlib.Path(root))
        finally:
            os.chdir(here)
    table = Table(title=f'A trial of {args.metrics} metrics, {SUMMARIES} values each; means of {args.trials}')
    table.add_column('store')
    for title in COLUMNS.values():
        table.add_column(title, justify='right')
    for row in rows:
        table.add_row(row['store'], *(f'{row[key]:.3g}' for key in COLUMNS))
    Console(width=110).print(table)
    now = datetime.datetime.now(datetime.timezone.utc)
    output = HERE / 'results' / f'tracking-{now:%Y%m%dT%H%M%SZ}.json'
    report = {'time': now.isoformat(timespec='seconds'), 'machine': describe_machine(), 'rows': rows}
    output.write_text(json.dumps(report, indent=1) + '\n')
    print(f'written to {output}')
    return 0


if __name__ == '__main__':
    sys.exit(main())
