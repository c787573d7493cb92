"""Sweeps: trainings over a space of parameters, shared between any number of workers."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ddsp.io.dataset import Dataset, open_dataset
from ddsp.io.files import FolderInUseError
from ddsp.io.progress import Progress
from experiments.files import local_folder
from experiments.sweeps.patience import OutOfPatienceError, patiently, reason
from experiments.sweeps.spec import SweepSpec
from experiments.sweeps.study import ERROR, SLOT, SweepError, TrialQueue
from experiments.sweeps.study_database import HEARTBEAT_SECS, PATIENCE_SECS, is_away
from experiments.tracking import store

if TYPE_CHECKING:
    import optuna


_POLL_SECS = 2.0
STORAGE = 'DDSP_SWEEP_STORAGE'  # variable for the address of the study's database
_WORKER = 'DDSP_SWEEP_WORKER'  # tells a process that `--workers` has started it


@dataclasses.dataclass(frozen=True)
class SweepPlace:
    """Where a sweep lives: its training folders, its study, its MLflow experiment."""

    dataset: str
    folder: pathlib.Path
    storage: str
    experiment: str
    spec_path: pathlib.Path
    heartbeat_secs: int = HEARTBEAT_SECS
    patience_secs: float = PATIENCE_SECS

    @classmethod
    def at(
        cls,
        spec: SweepSpec,
        spec_path: str | os.PathLike[str],
        dataset: str,
        *,
        folder: str | os.PathLike[str] | None = None,
        storage: str = '',
        experiment: str = store.EXPERIMENT,
    ) -> SweepPlace:
        """Fills in what was not given: `sweeps/NAME` and an SQLite file in it."""
        root = local_folder(folder or pathlib.Path('sweeps') / spec.name, '--save-dir')
        storage = storage or f'sqlite:///{root.resolve() / "study.db"}'
        heartbeat_secs = int(os.environ.get('DDSP_SWEEP_HEARTBEAT_SECS', HEARTBEAT_SECS))
        patience_secs = float(os.environ.get('DDSP_SWEEP_PATIENCE_SECS', PATIENCE_SECS))
        return cls(dataset, root, storage, experiment, pathlib.Path(spec_path), heartbeat_secs, patience_secs)


@dataclasses.dataclass(frozen=True)
class SweepResult:
    """What a sweep has come to."""

    finished: int
    pruned: int
    failed: int
    total: int
    best_value: float | None
    best_params: Mapping[str, Any]
    best_run_id: str
    command: str

    @property
    def done(self) -> bool:
        """Whether every trial has ended."""
        return self.finished + self.pruned + self.failed >= self.total


def run_sweep(
    spec: SweepSpec, place: SweepPlace, *, workers: int = 1, progress: Progress | None = None
) -> SweepResult:
    """Works on a sweep until nothing is left to do; more workers may join with the same command.

    Args:
      spec: The sweep.
      place: Where it lives.
      workers: Processes on this machine; 1 works in this process.
      progress: Called with (trials ended, trials, text).

    Returns:
      The state of the whole sweep, other workers' trials included.

    Raises:
      SweepError: All trials failed, or the database cannot be used.
    """
    dataset = open_dataset(place.dataset)
    if _WORKER not in os.environ:
        _check_names(spec, dataset)
    place.folder.mkdir(parents=True, exist_ok=True)
    queue = TrialQueue(
        spec, place.storage, place.heartbeat_secs, dataset.digest, patience_secs=place.patience_secs,
        patient_start=_WORKER in os.environ,
    )  # fmt: skip
    report = progress or (lambda done, total, text: None)
    if _WORKER in os.environ:
        _work(queue, place, report)
        return outcome(queue, place)  # what follows is done by the process that waits for this one
    if workers > 1:
        _run_workers(queue, place, workers, report)
    else:
        _work(queue, place, report)
    _record_the_rest(queue, place)
    result = outcome(queue, place)
    if result.done and result.best_value is None:
        raise SweepError(
            f'all {result.total} trials of {spec.name!r} failed; the first: {_first_error(queue)}'
        )
    return result


def _check_names(spec: SweepSpec, dataset: Dataset) -> None:
    """Finds a misspelt name, or a choice that cannot be, before any trial."""
    from experiments.run.training import configure

    for values in spec.samples():
        configure(dataset, spec.preset, spec.gin_files, spec.gin_params(values))


def _record_the_rest(queue: TrialQueue, place: SweepPlace) -> None:
    """Records what trials of this machine had to keep because the tracking server was away, and the summary
    of a sweep that is done."""
    from experiments.sweeps.summary import record_summary
    from experiments.tracking.delivery import sync

    def record() -> None:
        for run_file in sorted(place.folder.glob('trial-*/run.json')):
            sync(run_file.parent)
        result = outcome(queue, place)  # which knows the runs now
        if result.done and result.best_value is not None:
            with queue.alone():  # workers that end at the same moment write one summary run
                record_summary(queue, place, result)

    def warn(error: BaseException) -> None:
        text = f'Warning: the sweep cannot be recorded yet ({reason(error)}); trying again for'
        print(f'{text} {place.patience_secs:g} s.', file=sys.stderr, flush=True)

    try:
        patiently(record, lambda error: is_away(error) or store.is_away(error), place.patience_secs, warn)
    except OutOfPatienceError as end:
        raise SweepError(
            f'{_ended(queue)} of {len(queue)} trials have ended, but not all could be recorded '
            f'({reason(end)}). The same command records the rest.'
        ) from end


def _run_workers(queue: TrialQueue, place: SweepPlace, workers: int, report: Progress) -> None:
    """Starts worker processes and watches them; one that dies leaves its trial to the others."""
    command = [
        sys.executable, '-m', 'experiments.cli', 'sweep', str(place.spec_path), place.dataset,
        '--save-dir', str(place.folder), '--experiment', place.experiment,
        '--trials', str(queue.spec.trials), '--json',
    ]  # fmt: skip
    logs = [(place.folder / f'worker-{number}.log').open('ab') for number in range(workers)]
    # Command lines are seen by everybody on the machine; the address may hold a password.
    environment = {**os.environ, _WORKER: 'yes', STORAGE: place.storage}
    processes = [
        subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment) for log in logs
    ]
    try:
        while any(process.poll() is None for process in processes):
            _report_state(queue, report)
            time.sleep(_POLL_SECS)
    finally:
        for process in processes:
            if process.poll() is None:
                process.terminate()
        for process in processes:
            process.wait()
        for log in logs:
            log.close()
    _report_state(queue, report)
    codes = [process.returncode for process in processes]
    if all(codes):
        last = pathlib.Path(logs[0].name).read_text(errors='replace').strip().splitlines()[-3:]
        raise SweepError(
            f'all {workers} workers ended early ({codes}); see {logs[0].name}:\n' + '\n'.join(last)
        )


def _work(queue: TrialQueue, place: SweepPlace, report: Progress) -> None:
    """Takes trials until none waits and none is in hand anywhere."""
    queue.work(lambda trial: _run_trial(queue, trial, place, report), lambda: _report_state(queue, report))


def _run_trial(queue: TrialQueue, trial: optuna.Trial, place: SweepPlace, report: Progress) -> float:
    """Trains one trial; returns its value."""
    import optuna

    from experiments.run.training import train_run
    from experiments.run.watchers import PruningWatcher

    spec, slot = queue.spec, trial.user_attrs[SLOT]
    values = queue.suggest(trial)
    tags = {'sweep_id': spec.name, 'sweep_role': 'trial', 'sweep_trial': str(slot)}
    ended, total = _ended(queue), len(queue)
    folder = place.folder / f'trial-{slot:04d}'

    def tell(text: str) -> None:
        report(ended, total, f'trial {slot}: {text}')

    def train() -> float:
        result = train_run(
            place.dataset, preset=spec.preset, gin_files=list(spec.gin_files),
            gin_params=spec.gin_params(values), save_dir=folder,
            experiment=place.experiment, run_name=f'{spec.name}-{slot:04d}', num_steps=spec.steps,
            batch_size=spec.batch_size, tags=tags, buffer=True,
            callbacks=[PruningWatcher(trial, spec, tell, queue.database.notice)],
        )  # fmt: skip
        queue.note(trial, 'run_id', result.run_id)
        return _objective(spec, result.metrics)

    def is_in_use(error: BaseException) -> bool:
        return isinstance(error, FolderInUseError)

    try:  # a worker whose trial this was leaves the folder at its next summary
        return patiently(train, is_in_use, place.patience_secs, lambda error: tell(str(error)))
    except OutOfPatienceError as end:
        raise FolderInUseError(reason(end)) from None
    except optuna.TrialPruned:
        queue.note(trial, 'run_id', store.run_id_of(folder))
        raise


def _objective(spec: SweepSpec, metrics: Mapping[str, float]) -> float:
    """The figure that a sweep goes by."""
    if spec.objective not in metrics:
        raise SweepError(
            f'the objective {spec.objective!r} is not a metric of a run: {", ".join(sorted(metrics))}'
        )
    return metrics[spec.objective]


def outcome(queue: TrialQueue, place: SweepPlace) -> SweepResult:
    """The state of a sweep, with the best trial's parameters and the command that repeats it."""
    from optuna.trial import TrialState

    spec, trials = queue.spec, queue.trials()
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE and trial.value is not None]
    best = _best(complete, spec)
    values = spec.decode(best.params) if best else {}
    return SweepResult(
        finished=len(complete),
        pruned=sum(trial.state == TrialState.PRUNED for trial in trials),
        failed=queue.given_up(),
        total=len(queue),
        best_value=best.value if best else None,
        best_params=values,
        best_run_id=_run_id(best, place) if best else '',
        command=train_command(spec, place, values) if best else '',
    )


def _run_id(trial: Any, place: SweepPlace) -> str:
    """MLflow run of a trial; one that began without its server got it later."""
    folder = place.folder / f'trial-{trial.user_attrs[SLOT]:04d}'
    return trial.user_attrs.get('run_id') or store.run_id_of(folder)


def _best(complete: Sequence[Any], spec: SweepSpec) -> Any:
    """The best of the finished trials; None when there is none."""
    choose = min if spec.minimize else max
    return choose(complete, key=lambda trial: trial.value, default=None)


def train_command(spec: SweepSpec, place: SweepPlace, values: Mapping[str, Any]) -> str:
    """The `ddsp train` command that repeats a trial."""
    words = ['ddsp', 'train', place.dataset]
    words += ['--preset', spec.preset] if spec.preset else []
    for path in spec.gin_files:
        words += ['--gin-file', str(path)]
    for binding in spec.gin_params(values):
        words += ['--gin-param', binding]
    words += ['--steps', str(spec.steps)] if spec.steps else []
    words += ['--batch-size', str(spec.batch_size)] if spec.batch_size else []
    return shlex.join([*words, '--save-dir', f'{spec.name}-best'])


def _ended(queue: TrialQueue) -> int:
    """Trials that have ended, one way or the other."""
    from optuna.trial import TrialState

    over = {TrialState.COMPLETE, TrialState.PRUNED}
    return sum(trial.state in over for trial in queue.trials()) + queue.given_up()


def _report_state(queue: TrialQueue, report: Progress) -> None:
    """How far the sweep is, and its best value."""
    from optuna.trial import TrialState

    complete = [trial for trial in queue.trials() if trial.state == TrialState.COMPLETE]
    best = _best(complete, queue.spec)
    report(_ended(queue), len(queue), '' if best is None else f'best {queue.spec.objective} {best.value:.4g}')


def _first_error(queue: TrialQueue) -> str:
    """What the first failed trial said."""
    errors = [trial.user_attrs[ERROR] for trial in queue.trials() if ERROR in trial.user_attrs]
    return errors[0] if errors else 'their workers ended without a word'
