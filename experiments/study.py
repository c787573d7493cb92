"""An Optuna study as a queue of numbered slots that any number of workers empty, none lost and none done
twice.

A sweep of N trials is N waiting Optuna trials, each with the user attribute `slot`. A worker takes one, sends
heartbeats while it trains, and tells the result. When a worker dies, its trial becomes stale and the slot is
queued again with the same parameters. Should two workers queue the same slot at the same moment, the later
copy is discarded when it is taken: a slot belongs to its lowest trial that has not failed.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import pathlib
import platform
import threading
import warnings
import zlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from ddsp.errors import DDSPError, require
from experiments.sweep_spec import SweepSpec

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

SLOT, ERROR, WORKER = 'slot', 'error', 'worker'
HEARTBEAT_SECS = 15
_MAX_ATTEMPTS = 3  # of a slot whose worker dies; parameters that kill every worker must not do so for ever
_SQLITE, _POSTGRES = 'sqlite:///', 'postgresql+psycopg://'


class SweepError(DDSPError):
    """A sweep that cannot go on."""


class TrialQueue:
    """The trials of a sweep; opening it creates the study and queues what is missing.

    Args:
      spec: The sweep.
      storage: Address of a database: `sqlite:///PATH` or `postgresql://...`.
      heartbeat_secs: Seconds between signs of life; a trial without any for twice as long is taken over.
      dataset: Digest of what is trained on.

    Raises:
      SweepError: The database cannot be used, or holds another sweep of this name.
    """

    def __init__(
        self, spec: SweepSpec, storage: str, heartbeat_secs: int = HEARTBEAT_SECS, dataset: str = ''
    ):
        self.spec = spec
        self._storage = _with_driver(storage)
        self._heartbeat_secs = heartbeat_secs
        optuna = require('optuna', 'to run sweeps')
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        try:
            if storage.startswith(_SQLITE):
                pathlib.Path(storage.removeprefix(_SQLITE)).parent.mkdir(parents=True, exist_ok=True)
            with self.alone():
                self.study = self._open()
                self._same_sweep(dataset)
                self._fill()
        except (OSError, ImportError, optuna.exceptions.StorageInternalError) as error:
            raise SweepError(f'the database {storage} cannot be used: {error}') from error

    def _open(self) -> optuna.Study:
        """Opens or creates the study."""
        import optuna

        with warnings.catch_warnings():
            warnings.simplefilter('ignore')  # heartbeats are marked experimental in Optuna
            database = optuna.storages.RDBStorage(
                self._storage, heartbeat_interval=self._heartbeat_secs, grace_period=2 * self._heartbeat_secs
            )
        study = optuna.create_study(
            study_name=self.spec.name, storage=database, pruner=_pruner(self.spec),
            direction='minimize' if self.spec.minimize else 'maximize', load_if_exists=True,
        )  # fmt: skip
        study.sampler = _sampler(self.spec, first='signature' not in study.user_attrs)
        return study

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Lets one worker at a time make the tables, take a trial, queue one again or write the summary."""
        if self._storage.startswith(_SQLITE):  # it does not lock what it has only read
            with open(self._storage.removeprefix(_SQLITE) + '.lock', 'w') as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                yield
        elif self._storage.startswith(_POSTGRES):  # Optuna makes its tables without looking twice
            psycopg = require('psycopg', 'for studies on PostgreSQL')
            try:
                lock = psycopg.connect(self._storage.replace(_POSTGRES, 'postgresql://'), autocommit=True)
            except psycopg.Error as error:
                raise SweepError(f'the database {self._storage} cannot be used: {error}') from error
            with contextlib.closing(lock):  # which gives the lock back
                lock.execute('SELECT pg_advisory_lock(%s)', [zlib.crc32(self.spec.name.encode())])
                yield
        else:
            yield

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
                    f'{self._storage} holds a sweep {spec.name!r} that was begun with {key} {known[key]}, '
                    f'not {value}. Give the changed sweep another name.'
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
        return [trial for trial in self.study.get_trials(deepcopy=False) if SLOT in trial.user_attrs]

    def take(self) -> optuna.Trial | None:
        """The next trial of the queue; None when nothing waits."""
        from optuna.trial import TrialState

        with self.alone():
            while self.study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
                with warnings.catch_warnings():
                    warnings.simplefilter('ignore')  # Optuna expects heartbeats in optimize() only
                    trial = self.study.ask()
                slot = trial.user_attrs.get(SLOT)
                if slot is not None and self._owner(slot) == trial.number:
                    self._beat(trial)
                    trial.set_user_attr(WORKER, [platform.node(), os.getpid()])
                    return trial
                # A copy, or a new one because another machine has just taken the last that waited.
                self.study.tell(trial, state=TrialState.FAIL)
        return None

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
        from optuna.trial import TrialState

        with self.alone():
            self._fail_dead()
            by_slot: dict[int, list[FrozenTrial]] = {}
            for trial in self.trials():
                by_slot.setdefault(trial.user_attrs[SLOT], []).append(trial)
            for slot, trials in by_slot.items():
                lost = all(
                    trial.state == TrialState.FAIL and ERROR not in trial.user_attrs for trial in trials
                )
                if lost and len(trials) < _MAX_ATTEMPTS:
                    self.study.enqueue_trial(trials[-1].params, user_attrs={SLOT: slot})
            return len(self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)))

    def _fail_dead(self) -> None:
        """Marks the trials of workers that are gone."""
        import optuna
        from optuna.trial import TrialState

        for trial in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if _worker_is_gone(trial):
                with contextlib.suppress(RuntimeError, ValueError):  # another machine has seen it too
                    self.study.tell(trial.number, state=TrialState.FAIL)
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            optuna.storages.fail_stale_trials(self.study)

    def given_up(self) -> int:
        """Number of slots that will not be tried again: their training failed, or killed every worker."""
        from optuna.trial import TrialState

        by_slot: dict[int, list[FrozenTrial]] = {}
        for trial in self.trials():
            by_slot.setdefault(trial.user_attrs[SLOT], []).append(trial)
        failed = [trials for trials in by_slot.values() if all(t.state == TrialState.FAIL for t in trials)]
        return sum(
            len(trials) >= _MAX_ATTEMPTS or any(ERROR in t.user_attrs for t in trials) for trials in failed
        )

    def _beat(self, trial: optuna.Trial) -> None:
        """One sign of life."""
        storage: Any = self.study._storage
        getattr(storage, '_backend', storage).record_heartbeat(trial._trial_id)  # Optuna wraps it in a cache

    @contextlib.contextmanager
    def heartbeat(self, trial: optuna.Trial) -> Iterator[None]:
        """Tells the other workers that this one lives, from a thread, while a trial runs."""
        stop = threading.Event()

        def beat() -> None:
            while not stop.wait(self._heartbeat_secs / 2):
                with contextlib.suppress(Exception):  # the database is away: the next beat may reach it
                    self._beat(trial)

        thread = threading.Thread(target=beat, name='heartbeat', daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join(timeout=5.0)


def _with_driver(storage: str) -> str:
    """An address with PostgreSQL's driver named: which one is meant without a name depends on SQLAlchemy."""
    return storage.replace('postgresql://', _POSTGRES, 1)


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
    """Whether a trial's worker was a process of this machine that no longer exists."""
    from experiments.listing import process_exists

    host, pid = trial.user_attrs.get(WORKER, (None, 0))
    return host == platform.node() and pid != os.getpid() and not process_exists(pid)
