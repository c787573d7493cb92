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
import pathlib
import platform
import threading
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from ddsp.errors import DDSPError, require
from experiments.sweep_spec import SweepSpec

if TYPE_CHECKING:
    import optuna

SLOT, ERROR, WORKER = 'slot', 'error', 'worker'
HEARTBEAT_SECS = 15
_MAX_ATTEMPTS = 3  # of a slot whose worker dies; parameters that kill every worker must not do so for ever


class SweepError(DDSPError):
    """A sweep that cannot go on."""


def open_study(spec: SweepSpec, storage: str, heartbeat_secs: int = HEARTBEAT_SECS) -> optuna.Study:
    """Opens or creates the study of a sweep and fills its queue up to `spec.trials` slots.

    Args:
      spec: The sweep.
      storage: Address of a database: `sqlite:///PATH` or `postgresql://...`.
      heartbeat_secs: Seconds between signs of life; a trial without any for twice as long is taken over.

    Raises:
      SweepError: The database cannot be used, or holds a sweep of this name over other parameters.
    """
    optuna = require('optuna', 'to run sweeps')
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    if storage.startswith('sqlite:///'):
        pathlib.Path(storage.removeprefix('sqlite:///')).parent.mkdir(parents=True, exist_ok=True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')  # heartbeats are marked experimental in Optuna
            database = optuna.storages.RDBStorage(
                storage, heartbeat_interval=heartbeat_secs, grace_period=2 * heartbeat_secs
            )
        study = optuna.create_study(
            study_name=spec.name, storage=database, pruner=_pruner(spec), direction=spec.direction,
            load_if_exists=True,
        )  # fmt: skip
        study.sampler = _sampler(spec, first='signature' not in study.user_attrs)
    except (OSError, ImportError, optuna.exceptions.StorageInternalError) as error:
        raise SweepError(f'the database {storage} cannot be used: {error}') from error
    _same_sweep(study, spec, storage)
    fill(study, spec)
    return study


def _same_sweep(study: optuna.Study, spec: SweepSpec, storage: str) -> None:
    """A name stands for one set of parameters; only the budget may change."""
    signature = {'parameters': sorted(spec.parameters), 'objective': spec.objective, 'sampler': spec.sampler}
    known = study.user_attrs.get('signature')
    if known is None:
        study.set_user_attr('signature', signature)
    elif known != signature:
        changed = next(key for key in signature if known.get(key) != signature[key])
        raise SweepError(
            f'{storage} holds a sweep {spec.name!r} with {changed} {known[changed]}, the file says '
            f'{signature[changed]}. Give the changed sweep another name.'
        )


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


def fill(study: optuna.Study, spec: SweepSpec) -> None:
    """Queues the slots that are missing: all of a new sweep, more of one whose budget has grown."""
    known = {trial.user_attrs.get(SLOT) for trial in study.get_trials(deepcopy=False)}
    points: list[dict[str, Any]] = spec.grid() if spec.sampler == 'grid' else [{}] * spec.trials
    for slot, params in enumerate(points[: spec.trials]):
        if slot not in known:
            study.enqueue_trial(params, user_attrs={SLOT: slot})


def slots(spec: SweepSpec) -> int:
    """How many trials a sweep has."""
    return min(spec.trials, len(spec.grid())) if spec.sampler == 'grid' else spec.trials


def take(study: optuna.Study) -> optuna.Trial | None:
    """The next trial of the queue; None when nothing waits."""
    from optuna.trial import TrialState

    while True:
        if not study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
            return None
        trial = study.ask()
        slot = trial.user_attrs.get(SLOT)
        if slot is not None and owner(study, slot) == trial.number:
            _beat(study, trial)
            trial.set_user_attr(WORKER, [platform.node(), os.getpid()])
            return trial
        # Another worker was quicker: this one is a copy, or was made because the queue had just become empty.
        study.tell(trial, state=TrialState.FAIL)


def owner(study: optuna.Study, slot: int) -> int | None:
    """Number of the trial that a slot belongs to: the lowest that has not failed."""
    from optuna.trial import TrialState

    numbers = [
        trial.number
        for trial in study.get_trials(deepcopy=False)
        if trial.user_attrs.get(SLOT) == slot and trial.state != TrialState.FAIL
    ]
    return min(numbers, default=None)


def recover(study: optuna.Study) -> int:
    """Queues again what dead workers had taken.

    Returns:
      Number of trials that living workers have in hand.
    """
    import optuna
    from optuna.trial import TrialState

    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        if _worker_is_gone(trial):
            with contextlib.suppress(RuntimeError, ValueError):  # another worker has seen it too
                study.tell(trial.number, state=TrialState.FAIL)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        optuna.storages.fail_stale_trials(study)
    by_slot: dict[int, list] = {}
    for trial in study.get_trials(deepcopy=False):
        if SLOT in trial.user_attrs:
            by_slot.setdefault(trial.user_attrs[SLOT], []).append(trial)
    for slot, trials in by_slot.items():
        lost = all(trial.state == TrialState.FAIL and ERROR not in trial.user_attrs for trial in trials)
        if lost and len(trials) < _MAX_ATTEMPTS:
            study.enqueue_trial(trials[-1].params, user_attrs={SLOT: slot})
    return len(study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)))


def _worker_is_gone(trial: optuna.trial.FrozenTrial) -> bool:
    """Whether a trial's worker was a process of this machine that no longer exists."""
    from experiments.listing import process_exists

    host, pid = trial.user_attrs.get(WORKER, (None, 0))
    return host == platform.node() and pid != os.getpid() and not process_exists(pid)


def _beat(study: optuna.Study, trial: optuna.Trial) -> None:
    """One sign of life."""
    storage: Any = study._storage
    getattr(storage, '_backend', storage).record_heartbeat(trial._trial_id)  # Optuna wraps it in a cache


@contextlib.contextmanager
def heartbeat(study: optuna.Study, trial: optuna.Trial, every_secs: float = HEARTBEAT_SECS) -> Iterator[None]:
    """Tells the other workers that this one lives, from a thread, while a trial runs."""
    stop = threading.Event()

    def beat() -> None:
        while not stop.wait(every_secs):
            with contextlib.suppress(Exception):  # the database is away: the next beat may reach it
                _beat(study, trial)

    thread = threading.Thread(target=beat, name='heartbeat', daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(timeout=5.0)
