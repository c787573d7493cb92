"""Sweeps: trainings over a space of parameters, shared between any number of workers."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import subprocess
import sys
import time
from collections.abc import Callable, Mapping

from ddsp.io.dataset import Dataset, open_dataset
from ddsp.io.files import FolderInUseError
from ddsp.io.progress import Progress
from ddsp.training.train_util import TrainingCallback
from experiments.sweeps import machine, study
from experiments.sweeps.result import (
    SweepPlace,
    SweepResult,
    end_lost_runs,
    first_error,
    progress_of,
    record_summary,
)
from experiments.sweeps.spec import SweepSpec
from experiments.sweeps.study import SLOT, SweepError, TrialLost, TrialQueue
from experiments.sweeps.study_storage import is_away, optuna, patiently, reason
from experiments.tracking import store
from pipelines.options import cores

STORAGE = 'DDSP_SWEEP_STORAGE'  # variable for the address of the study's database
_WORKER = 'DDSP_SWEEP_WORKER'  # tells a process that `--workers` has started it


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
    dataset, report = open_dataset(place.dataset), progress or (lambda done, total, text: None)
    is_worker = _WORKER in os.environ
    if not is_worker:
        _check_names(spec, dataset)
        _check_login()
    place.folder.mkdir(parents=True, exist_ok=True)
    heartbeat_secs = int(os.environ.get('DDSP_SWEEP_HEARTBEAT_SECS', study.HEARTBEAT_SECS))
    patience_secs = float(os.environ.get('DDSP_SWEEP_PATIENCE_SECS', study.PATIENCE_SECS))
    queue = TrialQueue(spec, place.storage, heartbeat_secs, dataset.digest, patience_secs=patience_secs)
    if workers > 1:
        _run_workers(queue, place, workers, report)
    else:
        queue.work(lambda trial: _run_trial(queue, trial, place, report), lambda: report(*progress_of(queue)))
    if is_worker:
        return SweepResult.of(queue, place)  # the process that waits for this one does the rest
    _record_the_rest(queue, place)
    result = SweepResult.of(queue, place)
    if result.done and result.best_value is None:
        raise SweepError(
            f'all {result.total} trials of {spec.name!r} failed; the first: {first_error(queue)}'
        )
    return result


def _check_names(spec: SweepSpec, dataset: Dataset) -> None:
    """Finds a misspelt name or an impossible choice before any trial."""
    from experiments.run.training import configure

    for values in spec.samples():
        configure(dataset, spec.preset, spec.gin_files, spec.gin_params(values))


def _check_login() -> None:
    """Refuses to begin with a login that the tracking server refuses; a server that is away may come back.

    Raises:
      AccessError: The login is refused.
    """
    if store.tracking_uri().startswith('http'):
        try:
            store.client()
        except store.AccessError:
            raise
        except store.TrackingError:
            return


def _record_the_rest(queue: TrialQueue, place: SweepPlace) -> None:
    """Records what trials of this machine kept while the tracking server was away, and the summary of a sweep
    that is done."""
    from experiments.tracking.delivery import sync

    def record() -> None:
        for run_file in sorted(place.folder.glob('trial-*/run.json')):
            sync(run_file.parent)
        result = SweepResult.of(queue, place)  # which knows the runs now
        if not result.done:
            return
        with queue.database.alone():  # workers that end at the same moment write one summary run
            end_lost_runs(queue, place)
            if result.best_value is not None:
                record_summary(queue, place, result)

    def may_pass(error: BaseException) -> bool:
        return is_away(error) or store.is_away(error)

    def warn(error: BaseException) -> None:
        text = f'Warning: the sweep cannot be recorded yet ({reason(error)}); trying again for'
        print(f'{text} {queue.database.patience_secs:g} s.', file=sys.stderr, flush=True)

    try:
        patiently(record, may_pass, queue.database.patience_secs, warn)
    except Exception as error:
        if not may_pass(error):
            raise
        ended, total, _ = progress_of(queue)
        raise SweepError(
            f'{ended} of {total} trials have ended, but not all could be recorded ({reason(error)}). The '
            'same command records the rest.'
        ) from error


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
    devices, n_cores = machine.gpus(), cores()
    processes = [
        subprocess.Popen(
            command, stdout=log, stderr=subprocess.STDOUT,
            env=environment | machine.share(number, workers, devices, n_cores),
        )
        for number, log in enumerate(logs)
    ]  # fmt: skip
    try:
        while any(process.poll() is None for process in processes):
            report(*progress_of(queue))
            time.sleep(study.POLL_SECS)
    finally:
        for process in processes:
            if process.poll() is None:
                process.terminate()
        for process, log in zip(processes, logs, strict=True):
            process.wait()
            log.close()
    report(*progress_of(queue))
    codes = [process.returncode for process in processes]
    if all(codes):
        last = pathlib.Path(logs[0].name).read_text(errors='replace').strip().splitlines()[-3:]
        raise SweepError(
            f'all {workers} workers ended early ({codes}); see {logs[0].name}:\n' + '\n'.join(last)
        )


def _run_trial(queue: TrialQueue, trial: optuna.Trial, place: SweepPlace, report: Progress) -> float:
    """Trains one trial; returns its value."""
    from experiments.run.training import train_run

    spec, slot = queue.spec, trial.user_attrs[SLOT]
    values = queue.suggest(trial)
    tags = {'sweep_id': spec.name, 'sweep_role': 'trial', 'sweep_trial': str(slot)}
    ended, total, _ = progress_of(queue)
    folder = place.trial_folder(slot)

    def tell(text: str) -> None:
        report(ended, total, f'trial {slot}: {text}')

    def train() -> float:
        result = train_run(
            place.dataset, preset=spec.preset, gin_files=list(spec.gin_files),
            gin_params=spec.gin_params(values), save_dir=folder,
            experiment=place.experiment, run_name=f'{spec.name}-{slot:04d}', num_steps=spec.steps,
            batch_size=spec.batch_size, tags=tags, buffer=True,
            callbacks=[PruningWatcher(queue, trial, tell)],
        )  # fmt: skip
        queue.note(trial, 'run_id', result.run_id)
        if spec.objective not in result.metrics:
            raise SweepError(
                f'the objective {spec.objective!r} is not a metric of a run: '
                f'{", ".join(sorted(result.metrics))}'
            )
        return result.metrics[spec.objective]

    def is_in_use(error: BaseException) -> bool:
        return isinstance(error, FolderInUseError)

    try:  # a worker that has lost this trial leaves the folder at its next summary
        return patiently(train, is_in_use, queue.database.patience_secs, lambda error: tell(str(error)))
    except optuna.TrialPruned:
        queue.note(trial, 'run_id', store.run_id_of(folder))
        raise


@dataclasses.dataclass(eq=False)
class PruningWatcher(TrainingCallback):
    """Reports a training to its Optuna trial, and ends it when it is not worth continuing.

    While the study's database is away the training goes on; the reports follow.
    """

    queue: TrialQueue
    trial: optuna.Trial
    tell: Callable[[str], None]  # called with the progress as text
    _waiting: list[tuple[int, float]] = dataclasses.field(default_factory=list)

    def on_summary(self, step: int, metrics: Mapping[str, float]) -> None:
        """Ends the training by `optuna.TrialPruned` when the pruner says so, and by `TrialLost` when another
        worker has taken the trial over."""
        spec = self.queue.spec
        value = metrics.get(spec.prune_on)
        self.tell(f'step {step}' + ('' if value is None else f', {spec.prune_on} {value:.4g}'))
        if value is None:
            return
        self._waiting.append((step, value if spec.minimize else -value))
        try:
            while self._waiting:
                self.trial.report(self._waiting[0][1], self._waiting[0][0])
                del self._waiting[0]
            pruned = self.trial.should_prune()
        except optuna.exceptions.UpdateFinishedTrialError as error:
            raise TrialLost from error
        except Exception as error:
            if not self.queue.database.notice(error):
                raise
            return
        if pruned:
            raise optuna.TrialPruned(f'pruned at step {step}')
