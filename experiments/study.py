"""An Optuna study as a queue of numbered slots that any number of workers empty, none lost and none done
twice.

A sweep of N trials is N waiting Optuna trials, each with the user attribute `slot`. A worker takes one, sends
heartbeats while it trains, and tells the result. When a worker dies, its trial becomes stale and the slot is
queued again with the same parameters. Should two workers queue the same slot at the same moment, the later
copy is discarded when it is taken: a slot belongs to its lowest trial that has not failed.
"""

from __future__ import annotations

import contextlib
import os
import platform
import threading
import uuid
import warnings
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

from ddsp.errors import require
from experiments.study_database import (
    HEARTBEAT_SECS,
    PATIENCE_SECS,
    DatabaseAwayError,
    StudyDatabase,
    SweepError,
)
from experiments.sweep_spec import SweepSpec

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial, TrialState

__all__ = ['ERROR', 'SLOT', 'WORKER', 'DatabaseAwayError', 'SweepError', 'TrialLost', 'TrialQueue']

T = TypeVar('T')

SLOT, ERROR, WORKER = 'slot', 'error', 'worker'
_MAX_ATTEMPTS = 3  # of a slot whose worker dies; parameters that kill every worker must not do so for ever


class TrialLost(Exception):
    """Another worker has taken over this trial, as when this machine was out of reach for long."""


class TrialQueue:
    """The trials of a sweep; opening it creates the study and queues what is missing.

    A database that goes away is waited for. What is done under the lock is then done anew, for the lock is
    gone with the database and another worker may have been at work.

    Args:
      spec: The sweep.
      storage: Address of a database: `sqlite:///PATH` or `postgresql://...`.
      heartbeat_secs: Seconds between signs of life; a trial without any for twice as long is taken over.
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
        self._me = [platform.node(), os.getpid(), uuid.uuid4().hex]
        optuna = require('optuna', 'to run sweeps')
        optuna.logging.set_verbosity(optuna.logging.ERROR)

        def begin() -> None:
            self.study = self._open()
            self._same_sweep(dataset)
            self._fill()

        try:
            self._exclusively(begin, None if patient_start else 0.0)
        except (OSError, ImportError, DatabaseAwayError, optuna.exceptions.StorageInternalError) as error:
            cause = error.__cause__ or error
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

    def _exclusively(self, operation: Callable[[], T], patience_secs: float | None = None) -> T:
        """Lets one worker at a time make the tables, take a trial or queue one again."""

        def locked() -> T:
            with self.alone():
                return operation()

        return self.database.patiently(locked, patience_secs)

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
        """Queues the slots that are missing: all of a new sweep, more of one whose budget has grown."""
        known = {trial.user_attrs.get(SLOT) for trial in self.study.get_trials(deepcopy=False)}
        grid = self.spec.sampler == 'grid'
        points: list[dict[str, Any]] = self.spec.grid() if grid else [{}] * self.spec.trials
        for slot, params in enumerate(points[: self.spec.trials]):
            if slot not in known:
                self.study.enqueue_trial(params, user_attrs={SLOT: slot})

    def __len__(self) -> int:
        """How many trials the sweep has."""
        trials = self.spec.trials
        return min(trials, len(self.spec.grid())) if self.spec.sampler == 'grid' else trials

    def trials(self) -> list[FrozenTrial]:
        """All trials that belong to a slot."""
        found = self.database.patiently(lambda: self.study.get_trials(deepcopy=False))
        return [trial for trial in found if SLOT in trial.user_attrs]

    def take(self) -> optuna.Trial | None:
        """The next trial of the queue; None when nothing waits."""
        return self._exclusively(self._take)

    def _take(self) -> optuna.Trial | None:
        import optuna
        from optuna.trial import TrialState

        for found in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if found.user_attrs.get(WORKER) == self._me:  # taken when the database went away
                return optuna.Trial(self.study, found._trial_id)
        while self.study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
            with warnings.catch_warnings():
                warnings.simplefilter('ignore')  # Optuna expects heartbeats in optimize() only
                trial = self.study.ask()
            slot = trial.user_attrs.get(SLOT)
            if slot is not None and self._owner(slot) == trial.number:
                self._beat(trial)
                trial.set_user_attr(WORKER, self._me)
                return trial
            # A copy, or a new one because another machine has just taken the last that waited.
            self.study.tell(trial, state=TrialState.FAIL)
        return None

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

    def tell(self, trial: optuna.Trial, value: float | None = None, state: TrialState | None = None) -> None:
        """Ends a trial, with its value or with a state.

        Raises:
          TrialLost: Another worker has taken it over.
        """
        from optuna.trial import TrialState

        told = self.database.patiently(
            lambda: self.study.tell(trial, value, state=state, skip_if_finished=True)
        )
        if told.state != (state or TrialState.COMPLETE):
            raise TrialLost

    def fail(self, trial: optuna.Trial, error: str) -> None:
        """Ends a trial whose training failed; it is not tried again."""
        from optuna.trial import TrialState

        with contextlib.suppress(TrialLost):
            self.note(trial, ERROR, error)
            self.tell(trial, state=TrialState.FAIL)

    def give_back(self, trial: optuna.Trial) -> None:
        """Queues a trial again that its worker leaves in the middle; does not wait for a database."""
        from optuna.trial import TrialState

        self.database.patience_secs = 0.0
        with contextlib.suppress(DatabaseAwayError, TrialLost):  # others will find that this worker is gone
            self.tell(trial, state=TrialState.FAIL)
            self.recover()

    def _owner(self, slot: int) -> int | None:
        """Number of the trial that a slot belongs to: the lowest that has not failed."""
        from optuna.trial import TrialState

        numbers = [
            trial.number
            for trial in self.trials()
            if trial.user_attrs[SLOT] == slot and trial.state != TrialState.FAIL
        ]
        return min(numbers, default=None)

    def recover(self) -> int:
        """Queues again what dead workers had taken.

        Returns:
          Number of trials that living workers have in hand.
        """
        return self._exclusively(self._recover)

    def _recover(self) -> int:
        from optuna.trial import TrialState

        self._fail_dead()
        for slot, trials in self._by_slot().items():
            lost = all(trial.state == TrialState.FAIL and ERROR not in trial.user_attrs for trial in trials)
            if lost and len(trials) < _MAX_ATTEMPTS:
                self.study.enqueue_trial(trials[-1].params, user_attrs={SLOT: slot})
        return len(self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)))

    def _by_slot(self) -> dict[int, list[FrozenTrial]]:
        """Each slot's trials."""
        by_slot: dict[int, list[FrozenTrial]] = {}
        for trial in self.trials():
            by_slot.setdefault(trial.user_attrs[SLOT], []).append(trial)
        return by_slot

    def _fail_dead(self) -> None:
        """Marks the trials of workers that are gone."""
        import optuna
        from optuna.trial import TrialState

        for trial in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if _worker_is_gone(trial):
                with contextlib.suppress(RuntimeError, ValueError):  # another machine has seen it too
                    self.study.tell(trial.number, state=TrialState.FAIL)
        if self.database.steady_secs < 2 * self.database.heartbeat_secs:
            return  # the living, too, have only just been able to give a sign of life again
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            optuna.storages.fail_stale_trials(self.study)

    def given_up(self) -> int:
        """Number of slots that will not be tried again: their training failed, or killed every worker."""
        from optuna.trial import TrialState

        slots = self._by_slot().values()
        failed = [trials for trials in slots if all(t.state == TrialState.FAIL for t in trials)]
        return sum(
            len(trials) >= _MAX_ATTEMPTS or any(ERROR in t.user_attrs for t in trials) for trials in failed
        )

    def _beat(self, trial: optuna.Trial) -> None:
        """One sign of life."""
        storage: Any = self.study._storage
        getattr(storage, '_backend', storage).record_heartbeat(trial._trial_id)  # Optuna wraps it in a cache

    @contextlib.contextmanager
    def heartbeat(self, trial: optuna.Trial) -> Iterator[threading.Event]:
        """Tells the other workers that this one lives, from a thread, while a trial runs.

        Yields:
          An event that is set when another worker has taken the trial over all the same.
        """
        from optuna.trial import TrialState

        stop, lost = threading.Event(), threading.Event()

        def beat() -> None:
            while not stop.wait(self.database.heartbeat_secs / 2):
                try:
                    self._beat(trial)
                    if self.study._storage.get_trial(trial._trial_id).state != TrialState.RUNNING:
                        lost.set()
                except Exception as error:  # the next beat may reach the database
                    self.database.notice(error)

        thread = threading.Thread(target=beat, name='heartbeat', daemon=True)
        thread.start()
        try:
            yield lost
        finally:
            stop.set()
            thread.join(timeout=5.0)


def _sampler(spec: SweepSpec, first: bool) -> optuna.samplers.BaseSampler:
    """What proposes parameters; who begins a sweep follows its seed, others must not repeat it."""
    import optuna

    seed = spec.seed if first else hash((spec.seed, platform.node(), os.getpid())) % 2**32
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


def _worker_is_gone(trial: FrozenTrial) -> bool:
    """Whether a trial's worker was a process of this machine that no longer exists, or died while it took the
    trial."""
    from experiments.listing import process_exists

    if WORKER not in trial.user_attrs:
        return True  # it is written under the lock that the caller holds
    host, pid = trial.user_attrs[WORKER][:2]
    return host == platform.node() and pid != os.getpid() and not process_exists(pid)
