"""An Optuna study as a queue of numbered slots that any number of workers empty; none is lost or run twice.

A sweep of N trials is N waiting Optuna trials, each with the user attribute `slot`. Optuna hands each to one
worker and records heartbeats while it runs. When a worker dies or gives a trial back, its slot is queued
again with the same parameters.
"""

from __future__ import annotations

import contextlib
import time
import warnings
from collections.abc import Callable
from typing import Any

from ddsp.errors import DDSPError
from experiments import crash, masking
from experiments.sweeps.spec import SweepSpec
from experiments.sweeps.study_storage import DatabaseAwayError, StudyDatabase, StudyStorage, is_away, optuna
from experiments.tracking.store import AccessError

SLOT, ERROR, GIVEN_BACK = 'slot', 'error', 'given_back'  # user attributes of a trial
HEARTBEAT_SECS = 15
PATIENCE_SECS = 300.0
POLL_SECS = 2.0
_MAX_ATTEMPTS = 3  # of a slot whose workers die; parameters that kill every worker must not do so for ever


class SweepError(DDSPError):
    """A sweep that cannot go on."""


class TrialLost(Exception):
    """The trial is not this worker's: another one has taken it."""


class TrialQueue:
    """The trials of a sweep; opening it creates the study and queues what is missing.

    Args:
      spec: The sweep.
      storage: Address of a database: `sqlite:///PATH` or `postgresql://...`.
      heartbeat_secs: Seconds between heartbeats; a trial without one for four times as long is taken over.
      dataset: Digest of the dataset.
      patience_secs: How long to wait for a database that goes away later.

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
    ):
        optuna.logging.set_verbosity(optuna.logging.CRITICAL)
        self.spec = spec
        self.database = StudyDatabase(storage, spec.name, heartbeat_secs, patience_secs)
        try:
            self._open(dataset)
        except SweepError:
            raise
        except Exception as error:
            known = (OSError, DDSPError, optuna.exceptions.StorageInternalError)
            if not isinstance(error, known) and not is_away(error):
                raise
            cause = masking.clean(str(error.__cause__ or error))
            raise SweepError(f'the database {self.database.shown} cannot be used: {cause}') from error

    def _open(self, dataset: str) -> None:
        """Opens or creates the study, its tables and its slots: one process at a time."""
        with self.database.alone():
            self.study = optuna.create_study(
                study_name=self.spec.name, storage=StudyStorage(self.database), pruner=_pruner(self.spec),
                direction='minimize' if self.spec.minimize else 'maximize', load_if_exists=True,
            )  # fmt: skip
            self.study.sampler = _sampler(self.spec, first='signature' not in self.study.user_attrs)
            self._check_signature(dataset)
            self._queue_missing()

    def _check_signature(self, dataset: str) -> None:
        """A name stands for one sweep; only its budget and its pruning may change."""
        signature = {**self.spec.signature(), **({'dataset': dataset} if dataset else {})}
        known = self.study.user_attrs.get('signature')
        if known is None:
            self.study.set_user_attr('signature', signature)
            return
        for key, value in signature.items():
            if key in known and known[key] != value:
                raise SweepError(
                    f'{self.database.shown} holds a sweep {self.spec.name!r} that was begun with {key} '
                    f'{known[key]}, not {value}. Give the changed sweep another name.'
                )

    def _missing(self) -> dict[int, list[optuna.trial.FrozenTrial]]:
        """Slots that nobody has in hand and that should be tried (again), with their failed trials."""
        by_slot = self._by_slot()
        tried = ((slot, by_slot.get(slot, [])) for slot in range(len(self)))
        return {slot: trials for slot, trials in tried if _all_failed(trials) and not _given_up(trials)}

    def _queue_missing(self) -> None:
        """Queues the slots that are missing; to be called under the lock."""
        for slot, trials in self._missing().items():
            grid_point = self.spec.grid()[slot] if self.spec.sampler == 'grid' else {}
            params = next((trial.params for trial in reversed(trials) if trial.params), {})
            self.study.enqueue_trial({**grid_point, **params}, user_attrs={SLOT: slot})

    def __len__(self) -> int:
        """Number of trials of the sweep."""
        trials = self.spec.trials
        return min(trials, len(self.spec.grid())) if self.spec.sampler == 'grid' else trials

    def trials(self) -> list[optuna.trial.FrozenTrial]:
        """All trials that belong to a slot."""
        found = self.database.patiently(lambda: self.study.get_trials(deepcopy=False))
        return [trial for trial in found if SLOT in trial.user_attrs]

    def _by_slot(self) -> dict[int, list[optuna.trial.FrozenTrial]]:
        by_slot: dict[int, list[optuna.trial.FrozenTrial]] = {}
        for trial in self.trials():
            by_slot.setdefault(trial.user_attrs[SLOT], []).append(trial)
        return by_slot

    def given_up(self) -> int:
        """Number of slots that will not be tried again: their training failed, or killed every worker."""
        return sum(_all_failed(trials) and _given_up(trials) for trials in self._by_slot().values())

    def work(
        self, objective: Callable[[optuna.Trial], float], idle: Callable[[], None] = lambda: None
    ) -> None:
        """Runs trials until none waits and none is running anywhere.

        Args:
          objective: Returns a trial's value. After a `SweepError` the worker stops; after an OSError, an
            AccessError or an interruption, too, and the trial is queued again. Any other error fails the
            trial alone.
          idle: Called between trials, and every few seconds while other workers run the last ones.
        """
        while True:
            idle()
            self.database.patiently(self._take_over)
            states = {trial.state.name for trial in self.trials()}
            if 'WAITING' in states and self.database.is_steady:
                self._run_one(objective)
            elif states & {'WAITING', 'RUNNING'} or self._missing():
                # Also where a trial was given back since `_take_over` looked.
                time.sleep(min(POLL_SECS, self.database.heartbeat_secs / 2))
            else:
                return

    def _take_over(self) -> None:
        """Queues the slots of dead workers again."""
        if not self.database.is_steady:
            return
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')  # marked experimental in Optuna
            optuna.storages.fail_stale_trials(self.study)
        if self._missing():
            with self.database.alone():
                self._queue_missing()

    def _run_one(self, objective: Callable[[optuna.Trial], float]) -> None:
        """Lets Optuna run the next trial."""
        mine: optuna.Trial | None = None
        stop: BaseException | None = None

        def run(trial: optuna.Trial) -> float:
            nonlocal mine, stop
            if SLOT not in trial.user_attrs:  # Optuna made it: another worker took the last one that waited
                raise TrialLost
            mine = trial
            try:
                return objective(trial)
            except (optuna.TrialPruned, TrialLost):
                raise
            except (KeyboardInterrupt, OSError, DatabaseAwayError, SweepError, AccessError) as error:
                stop = error
                self.database.patience_secs = 0.0  # a worker that leaves does not wait
                mark = (ERROR, _told(error)) if isinstance(error, SweepError) else (GIVEN_BACK, True)
                with contextlib.suppress(TrialLost, DatabaseAwayError):
                    self.note(trial, *mark)
                raise
            except Exception as error:
                self.note(trial, ERROR, _told(error))
                raise

        try:
            self.study.optimize(run, n_trials=1, catch=(Exception,))
        except DatabaseAwayError as error:  # which has been waited for
            stop = stop or error
        except Exception as error:  # Optuna's own; a trial that has ended already cannot be ended
            if stop is None and not self.database.notice(error):
                running = [found.number for found in self.trials() if not found.state.is_finished()]
                if mine is None or mine.number in running:
                    raise
        if stop is not None:
            raise stop

    def suggest(self, trial: optuna.Trial) -> dict[str, Any]:
        """Values of all parameters for a trial."""
        return self.database.patiently(lambda: self.spec.suggest(trial))

    def note(self, trial: optuna.Trial, name: str, value: Any) -> None:
        """Sets a user attribute of a trial.

        Raises:
          TrialLost: Another worker has taken it over.
        """
        try:
            self.database.patiently(lambda: trial.set_user_attr(name, value))
        except optuna.exceptions.UpdateFinishedTrialError as error:
            raise TrialLost from error


def _told(error: BaseException) -> str:
    log = crash.log_of(error)
    return f'{type(error).__name__}: {error}' + (f' (details: {log})' if log else '')


def _all_failed(trials: list[optuna.trial.FrozenTrial]) -> bool:
    """Whether none of a slot's trials waits, runs or has come to an end."""
    return all(trial.state.name == 'FAIL' for trial in trials)


def _given_up(trials: list[optuna.trial.FrozenTrial]) -> bool:
    """Whether a slot's training failed, or killed every worker that tried it."""
    deaths = sum(GIVEN_BACK not in trial.user_attrs for trial in trials)
    return deaths >= _MAX_ATTEMPTS or any(ERROR in trial.user_attrs for trial in trials)


def _sampler(spec: SweepSpec, first: bool) -> optuna.samplers.BaseSampler:
    """What proposes parameters; the first worker follows the sweep's seed, others must not repeat it."""
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
    if spec.pruner == 'median':
        return optuna.pruners.MedianPruner(n_startup_trials=4)
    if spec.pruner == 'hyperband':
        return optuna.pruners.HyperbandPruner(max_resource=spec.steps or 'auto')
    if spec.pruner == 'asha':
        return optuna.pruners.SuccessiveHalvingPruner()
    return optuna.pruners.NopPruner()
