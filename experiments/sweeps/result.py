"""Where a sweep lives, and what it has come to."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import shlex
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from experiments.files import local_folder
from experiments.sweeps.spec import SweepSpec
from experiments.sweeps.study import ERROR, SLOT, TrialQueue
from experiments.tracking import store

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial


@dataclasses.dataclass(frozen=True)
class SweepPlace:
    """Where a sweep lives: its training folders, its study, its MLflow experiment."""

    dataset: str
    folder: pathlib.Path
    storage: str
    experiment: str
    spec_path: pathlib.Path

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
        return cls(dataset, root, storage, experiment, pathlib.Path(spec_path))

    def trial_folder(self, slot: int) -> pathlib.Path:
        """Training folder of a trial."""
        return self.folder / f'trial-{slot:04d}'


@dataclasses.dataclass(frozen=True)
class SweepResult:
    """The state of a sweep, with the best trial's parameters and the command that repeats it."""

    finished: int
    pruned: int
    failed: int
    total: int
    best_value: float | None
    best_params: Mapping[str, Any]
    best_run_id: str
    command: str

    @classmethod
    def of(cls, queue: TrialQueue, place: SweepPlace) -> SweepResult:
        """The result so far, other workers' trials included."""
        spec, trials = queue.spec, queue.trials()
        best = best_trial(trials, spec)
        values = spec.decode(best.params) if best else {}
        return cls(
            finished=len(_complete(trials)),
            pruned=sum(trial.state.name == 'PRUNED' for trial in trials),
            failed=queue.given_up(),
            total=len(queue),
            best_value=best.value if best else None,
            best_params=values,
            best_run_id=_run_id(best, place) if best else '',
            command=train_command(spec, place, values) if best else '',
        )

    @property
    def done(self) -> bool:
        """Whether every trial has ended."""
        return self.finished + self.pruned + self.failed >= self.total


def progress_of(queue: TrialQueue) -> tuple[int, int, str]:
    """Trials that have ended, all trials, and the best value as text."""
    trials = queue.trials()
    ended = sum(trial.state.name in ('COMPLETE', 'PRUNED') for trial in trials) + queue.given_up()
    best = best_trial(trials, queue.spec)
    return ended, len(queue), '' if best is None else f'best {queue.spec.objective} {best.value:.4g}'


def first_error(queue: TrialQueue) -> str:
    """What the first failed trial reported."""
    errors = (trial.user_attrs[ERROR] for trial in queue.trials() if ERROR in trial.user_attrs)
    return next(errors, 'its workers were killed')


def best_trial(trials: list[FrozenTrial], spec: SweepSpec) -> FrozenTrial | None:
    """The best of the finished trials; None when there is none."""
    choose = min if spec.minimize else max
    return choose(_complete(trials), key=lambda trial: trial.values[0], default=None)


def _complete(trials: list[FrozenTrial]) -> list[FrozenTrial]:
    return [trial for trial in trials if trial.state.name == 'COMPLETE' and trial.value is not None]


def _run_id(trial: FrozenTrial, place: SweepPlace) -> str:
    """MLflow run of a trial; one that began while the tracking server was away got it later."""
    return trial.user_attrs.get('run_id') or store.run_id_of(place.trial_folder(trial.user_attrs[SLOT]))


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
