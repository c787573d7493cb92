"""`python -m benchmarks.tracking`: what recording costs, on SQLite and on PostgreSQL.

Fifty trials record 200 metrics each, five times, as a training does (`MLflowTracker`), and report to an
Optuna study in the same database. PostgreSQL is a cluster of the benchmark's own and is left out where its
programs are not installed.

`python -m benchmarks.tracking --overhead` trains the laptop preset instead, and gives the share of a step
that recording takes: in the trainer's thread, and in the threads that send metrics and sample the machine.
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
    from experiments.tracking.tracker import MLflowTracker

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
    from experiments.sweeps.spec import parse_spec
    from experiments.sweeps.study import TrialQueue

    spec = parse_spec({'parameters': {'x': {'low': 0.0, 'high': 1.0}}, 'trials': trials, 'name': 'benchmark'})
    queue = TrialQueue(spec, storage)

    def objective(trial: Any) -> float:
        value = spec.suggest(trial)['x']
        for step in range(1, SUMMARIES + 1):
            trial.report(value, step)
        return value

    start = time.perf_counter()
    queue.work(objective)
    return (time.perf_counter() - start) / trials


@contextlib.contextmanager
def _store(uri: str, through_server: bool) -> Iterator[None]:
    """Makes a database, or a server on it, the store in use."""
    from experiments.tracking import store
    from experiments.tracking.ui import UIServer

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


def measure_overhead(folder: pathlib.Path, steps: int) -> dict[str, float]:
    """Trains the laptop preset, tracked, on a synthetic corpus, with a clock on everything that records.

    Returns:
      `step_s` wall and `step_cpu_s` CPU seconds of a step after the first summary; `waited_share` of the wall
      time in the trainer's calls, `threads_share` of the CPU time in the threads that record.
    """
    from experiments import quiet

    with quiet.terminal():
        quiet.load_keras()
        from experiments.run.training import train_run
        from pipelines.options import PrepareOptions
        from pipelines.prepare import prepare_dataset
        from pipelines.synthetic.corpus import synthesize_corpus

        corpus = synthesize_corpus(folder / 'corpus', seconds=60)
        options = PrepareOptions(f0='yin', workers=1)
        dataset = prepare_dataset([str(corpus.audio_dir)], folder / 'data', 'overhead', options=options)
        clock = _Clock(first_step=20)
        with clock:
            train_run(
                dataset.path, preset='laptop', save_dir=folder / 'run', num_steps=steps, evaluate=False,
                callbacks=[clock.callback()],
            )  # fmt: skip
    return clock.result()


class _Clock:
    """Counts seconds in the tracker's methods and in its threads, from a step on, until the last step."""

    METHODS = ('on_step', 'on_summary', 'on_save')

    def __init__(self, first_step: int):
        self._first = first_step
        self._waited = 0.0
        self._marks: list[tuple[int, float, float, float, float]] = []  # step, wall, CPU, threads, waited
        self._tracker: Any = None

    def __enter__(self) -> None:
        from experiments.tracking.tracker import MLflowTracker

        self._class, self._kept = MLflowTracker, {}
        for name in self.METHODS:
            self._kept[name] = getattr(MLflowTracker, name)
            setattr(MLflowTracker, name, self._timed(self._kept[name]))

    def __exit__(self, *_: object) -> None:
        for name, method in self._kept.items():
            setattr(self._class, name, method)

    def _timed(self, method: Any) -> Any:
        def call(tracker: Any, *args: Any, **kwargs: Any) -> Any:
            self._tracker = tracker
            start = time.perf_counter()
            try:
                return method(tracker, *args, **kwargs)
            finally:
                self._waited += time.perf_counter() - start

        return call

    def callback(self) -> Any:
        """Notes the clocks at every step."""
        from ddsp.training.train_util import TrainingCallback

        class Notes(TrainingCallback):
            """Told of each step, after the tracker."""

            def on_step(_, step: int) -> None:
                if step >= self._first:
                    threads = (self._tracker._journal._thread, self._tracker._system._thread)
                    spent = sum(
                        time.clock_gettime(time.pthread_getcpuclockid(thread.ident)) for thread in threads
                    )
                    self._marks.append((step, time.perf_counter(), _cpu_seconds(), spent, self._waited))

        return Notes()

    def result(self) -> dict[str, float]:
        """Means over the noted steps."""
        (first, *begin), (last, *end) = self._marks[0], self._marks[-1]
        wall, cpu, threads, waited = (after - before for before, after in zip(begin, end, strict=True))
        steps = last - first
        return {
            'steps': steps, 'step_s': wall / steps, 'step_cpu_s': cpu / steps, 'waited_share': waited / wall,
            'threads_share': threads / cpu,
        }  # fmt: skip


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
    parser.add_argument('--overhead', action='store_true', help='the share of a training step instead')
    parser.add_argument('--steps', type=int, default=200, help='of the training of --overhead')
    args = parser.parse_args()
    here = pathlib.Path.cwd()
    with tempfile.TemporaryDirectory() as root:
        os.chdir(root)  # for the artefacts
        try:
            if args.overhead:
                rows = [measure_overhead(pathlib.Path(root), args.steps)]
            else:
                rows = measure_all(args, pathlib.Path(root))
        finally:
            os.chdir(here)
    if args.overhead:
        found = rows[0]
        print(
            f'a step: {found["step_s"]:.3f} s, {found["step_cpu_s"]:.3f} CPU s (mean of {found["steps"]}); '
            f'recording: {found["waited_share"]:.3%} of the time in the trainer, '
            f'{found["threads_share"]:.3%} of the CPU time beside it'
        )
    else:
        _print_table(rows, args)
    now = datetime.datetime.now(datetime.UTC)
    kind = 'overhead' if args.overhead else 'tracking'
    output = HERE / 'results' / f'{kind}-{now:%Y%m%dT%H%M%SZ}.json'
    report = {'time': now.isoformat(timespec='seconds'), 'machine': describe_machine(), 'rows': rows}
    output.write_text(json.dumps(report, indent=1) + '\n')
    print(f'written to {output}')
    return 0


def _print_table(rows: list[dict[str, Any]], args: argparse.Namespace) -> None:
    """The stores as a table."""
    table = Table(title=f'A trial of {args.metrics} metrics, {SUMMARIES} values each; means of {args.trials}')
    table.add_column('store')
    for title in COLUMNS.values():
        table.add_column(title, justify='right')
    for row in rows:
        table.add_row(row['store'], *(f'{row[key]:.3g}' for key in COLUMNS))
    Console(width=110).print(table)


if __name__ == '__main__':
    sys.exit(main())
