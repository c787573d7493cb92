"""An Optuna study as a queue of numbered slots that any number of workers empty, none lost and none done
twice.

A sweep of N trials is N waiting Optuna trials, each with the user attribute `slot`. Optuna gives each to one
worker, records signs of life while it runs, and queues the trial of a worker that gives none any more again,
with the same parameters and the same slot.
"""

from __future__ import annotations

import contextlib
import time
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from ddsp.errors import require
from experiments import crash, masking
from experiments.sweeps.spec import SweepSpec
from experiments.sweeps.study_database import (
    HEARTBEAT_SECS,
    MAX_ATTEMPTS,
    PATIENCE_SECS,
    DatabaseAwayError,
    StudyDatabase,
    SweepError,
)

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

__all__ = ['ERROR', 'SLOT', 'DatabaseAwayError', 'SweepError', 'TrialLost', 'TrialQueue']

T = TypeVar('T')

SLOT, ERROR, GIVEN_BACK = 'slot', 'error', 'given_back'
POLL_SECS = 2.0


class TrialLost(Exception):
    """Another worker has taken over this trial, as when this machine was out of reach for long."""


class NotQueuedError(Exception):
    """Optuna made a new trial, for another worker has just taken the last one that waited."""


class TrialQueue:
    """The trials of a sweep; opening it creates the study and queues what is missing.

    Args:
      spec: The sweep.
      storage: Address of a database: `sqlite:///PATH` or `postgresql://...`.
      heartbeat_secs: Seconds between signs of life; a trial without any for four times as long is taken over.
      dataset: Digest of what is trained on.
      patience_secs: How long a database that is away is waited for.
      patient_start: Wait for it also now. Who begins a sweep has rather mistyped the address.

    Raises:
      SweepError: The database cannot be used, or holds another sweep of this name.
    """

    def __init__(
        self,
        spec: SweepSpec,
        storage: str,
        heartbeat_secs: int = HEARTBEAT_SECS,
        dataset: str = '',
        *,
        patience_secs: float = PATIENCE_SECS,
        patient_start: bool = False,
    ):
        self.spec = spec
        self.database = StudyDatabase(storage, heartbeat_secs, patience_secs)
        optuna = require('optuna', 'to run sweeps')
        optuna.logging.set_verbosity(optuna.logging.CRITICAL)

        def begin() -> None:
            with self.alone():  # makes the tables, the study and its slots: one process at a time
                self.study = self._open()
                self._same_sweep(dataset)
                self._fill()

        try:
            self.database.patiently(begin, None if patient_start else 0.0)
        except (OSError, ImportError, DatabaseAwayError, optuna.exceptions.StorageInternalError) as error:
            cause = masking.clean(str(error.__cause__ or error))
            raise SweepError(f'the database {self.database.shown} cannot be used: {cause}') from error

    def _open(self) -> optuna.Study:
        """Opens or creates the study."""
        import optuna

        study = optuna.create_study(
            study_name=self.spec.name, storage=self.database.open(), pruner=_pruner(self.spec),
            direction='minimize' if self.spec.minimize else 'maximize', load_if_exists=True,
        )  # fmt: skip
        study.sampler = _sampler(self.spec, first='signature' not in study.user_attrs)
        return study

    def alone(self) -> contextlib.AbstractContextManager[None]:
        """The lock of the sweep, which only one process has at a time."""
        return self.database.alone(self.spec.name)

    def _same_sweep(self, dataset: str) -> None:
        """A name stands for one sweep; only its budget and its pruning may change."""
        spec = self.spec
        signature = {**spec.signature(), **({'dataset': dataset} if dataset else {})}
        known = self.study.user_attrs.get('signature')
        if known is None:
            self.study.set_user_attr('signature', signature)
            return
        for key, value in signature.items():
            if key in known and known[key] != value:
                raise SweepError(
                    f'{self.database.shown} holds a sweep {spec.name!r} that was begun with {key} '
                    f'{known[key]}, not {value}. Give the changed sweep another name.'
                )

    def _fill(self) -> None:
        """Queues the slots that are missing: all of a new sweep, more of one whose budget has grown, and one
        whose worker died while it queued the slot again."""
        by_slot = self._by_slot()
        for slot in range(len(self)):
            trials = by_slot.get(slot, [])
            if _all_failed(trials) and not _is_given_up(trials):
                self._queue(slot, trials[-1].params if trials else {})

    def _queue(self, slot: int, params: dict[str, Any]) -> None:
        point = self.spec.grid()[slot] if self.spec.sampler == 'grid' else {}
        self.study.enqueue_trial({**point, **params}, user_attrs={SLOT: slot})

    def __len__(self) -> int:
        """How many trials the sweep has."""
        trials = self.spec.trials
        return min(trials, len(self.spec.grid())) if self.spec.sampler == 'grid' else trials

    def trials(self) -> list[FrozenTrial]:
        """All trials that belong to a slot."""
        found = self.database.patiently(lambda: self.study.get_trials(deepcopy=False))
        return [trial for trial in found if SLOT in trial.user_attrs]

    def _by_slot(self) -> dict[int, list[FrozenTrial]]:
        """Each slot's trials."""
        by_slot: dict[int, list[FrozenTrial]] = {}
        for trial in self.trials():
            by_slot.setdefault(trial.user_attrs[SLOT], []).append(trial)
        return by_slot

    def given_up(self) -> int:
        """Number of slots that will not be tried again: their training failed, or killed every worker."""
        return sum(_all_failed(trials) and _is_given_up(trials) for trials in self._by_slot().values())

    def work(
        self, objective: Callable[[optuna.Trial], float], idle: Callable[[], None] = lambda: None
    ) -> None:
        """Runs trials until none waits and none is in hand anywhere.

        Args:
          objective: Gives a trial's value. A trial whose objective raises `SweepError` is the last one; after
            an OSError or an interruption it is queued again, and the error goes on.
          idle: Called between trials, and every few seconds while other workers have the last ones.
        """
        from optuna.trial import TrialState

        while True:
            idle()
            states = [trial.state for trial in self.database.patiently(self._look)]
            if TrialState.WAITING in states and self._is_steady():
                self._run_one(objective)
            elif TrialState.WAITING in states or TrialState.RUNNING in states:
                time.sleep(min(POLL_SECS, self.database.heartbeat_secs / 2))
            else:
                return

    def _is_steady(self) -> bool:
        """False just after the database was away: the living, too, have not given signs of life."""
        return self.database.steady_secs >= 2 * self.database.heartbeat_secs

    def _look(self) -> list[FrozenTrial]:
        """All trials, after those of dead workers have been queued again."""
        import optuna

        if self._is_steady():
            with warnings.catch_warnings():
                warnings.simplefilter('ignore')  # marked experimental in Optuna
                optuna.storages.fail_stale_trials(self.study)
        return self.trials()

    def _run_one(self, objective: Callable[[optuna.Trial], float]) -> None:
        """Lets Optuna run the next trial."""
        turn = _Turn(self, objective)
        ended = True  # otherwise others find the trial when it gives no sign of life any more
        try:
            self.study.optimize(turn, n_trials=1, catch=(Exception,))
        except KeyboardInterrupt as error:
            turn.stop, ended = turn.stop or error, error is turn.stop
        except DatabaseAwayError as error:  # which has been waited for
            turn.stop, ended = turn.stop or error, False
        except Exception as error:  # Optuna's own, before or after the objective
            ended = False
            comes_again = self.database.notice(error) or not self._is_mine(turn.trial)
            if turn.stop is None and not comes_again:
                raise
        if turn.stop is None:
            return
        if ended and turn.trial is not None and not isinstance(turn.stop, SweepError):
            with contextlib.suppress(Exception):  # whoever opens the sweep next finds what is missing
                self._queue(turn.trial.user_attrs[SLOT], turn.trial.params)
        raise turn.stop

    def _is_mine(self, trial: optuna.Trial | None) -> bool:
        """Whether a trial has neither ended nor been taken over."""
        running = [found.number for found in self.trials() if not found.state.is_finished()]
        return trial is None or trial.number in running

    def suggest(self, trial: optuna.Trial) -> dict[str, Any]:
        """Values of all parameters for a trial."""
        return self.database.patiently(lambda: self.spec.suggest(trial))

    def note(self, trial: optuna.Trial, name: str, value: Any) -> None:
        """Writes something beside a trial.

        Raises:
          TrialLost: Another worker has taken it over.
        """
        import optuna

        try:
            self.database.patiently(lambda: trial.set_user_attr(name, value))
        except optuna.exceptions.UpdateFinishedTrialError as error:
            raise TrialLost from error


class _Turn:
    """One trial as Optuna runs it; remembers the trial, and the error after which the worker must stop."""

    def __init__(self, queue: TrialQueue, objective: Callable[[optuna.Trial], float]) -> None:
        self.trial: optuna.Trial | None = None
        self.stop: BaseException | None = None
        self._queue = queue
        self._objective = objective

    def __call__(self, trial: optuna.Trial) -> float:
        import optuna

        if SLOT not in trial.user_attrs:
            raise NotQueuedError
        self.trial = trial
        try:
            return self._objective(trial)
        except (optuna.TrialPruned, TrialLost):
            raise
        except (KeyboardInterrupt, OSError, DatabaseAwayError) as error:
            self._stop(error, GIVEN_BACK, True)
            raise
        except SweepError as error:  # the next trial would fail for the same cause
            self._stop(error, ERROR, _told(error))
            raise
        except Exception as error:
            self._queue.note(trial, ERROR, _told(error))
            raise

    def _stop(self, error: BaseException, name: str, value: Any) -> None:
        """Leaves the trial without waiting for a database that is away."""
        self.stop = error
        self._queue.database.patience_secs = 0.0
        assert self.trial is not None
        with contextlib.suppress(TrialLost, DatabaseAwayError):
            self._queue.note(self.trial, name, value)


def _told(error: BaseException) -> str:
    log = crash.log_of(error)
    return f'{type(error).__name__}: {error}' + (f' (details: {log})' if log else '')


def _all_failed(trials: list[FrozenTrial]) -> bool:
    """Whether none of a slot's trials waits, runs or has come to an end."""
    return all(trial.state.name == 'FAIL' for trial in trials)


def _is_given_up(trials: list[FrozenTrial]) -> bool:
    """Whether a slot's training failed, or killed every worker that tried it."""
    deaths = sum(GIVEN_BACK not in trial.user_attrs for trial in trials)
    return deaths >= MAX_ATTEMPTS or any(ERROR in trial.user_attrs for trial in trials)


def _sampler(spec: SweepSpec, first: bool) -> optuna.samplers.BaseSampler:
    """What proposes parameters; who begins a sweep follows its seed, others must not repeat it."""
    import optuna

    seed = spec.seed if first else None
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # options marked experimental in Optuna
        if spec.sampler == 'cmaes':
            return optuna.samplers.CmaEsSampler(seed=seed)
        if spec.sampler == 'tpe':
            return optuna.samplers.TPESampler(seed=seed, constant_liar=True)
    return optuna.samplers.RandomSampler(seed=seed)  # a grid's points are queued with their parameters


def _pruner(spec: SweepSpec) -> optuna.pruners.BasePruner:
    """What stops a trial early."""
    import optuna

    if spec.pruner == 'median':
        return optuna.pruners.MedianPruner(n_startup_trials=4)
    if spec.pruner == 'hyperband':
        return optuna.pruners.HyperbandPruner(max_resource=spec.steps or 'auto')
    if spec.pruner == 'asha':
        return optuna.pruners.SuccessiveHalvingPruner()
    return optuna.pruners.NopPruner()
