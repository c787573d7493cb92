"""A training that reports to its Optuna trial and ends when that is pruned."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from ddsp.training.train_util import TrainingCallback
from experiments.sweeps.study import TrialLost, TrialQueue

if TYPE_CHECKING:
    import optuna


class PruningWatcher(TrainingCallback):
    """Reports a sweep's trial to Optuna, and ends it when it is not worth continuing.

    While the study's database is away the training goes on; the reports follow.

    Args:
      queue: The sweep's trials.
      trial: Optuna's trial.
      tell: Called with the progress as text.
    """

    def __init__(self, queue: TrialQueue, trial: optuna.Trial, tell: Callable[[str], None]):
        self._queue = queue
        self._trial = trial
        self._tell = tell
        self._waiting: list[tuple[int, float]] = []

    def on_summary(self, step: int, metrics: Mapping[str, float]) -> None:
        """Ends the training by `optuna.TrialPruned` when the pruner says so, and by `TrialLost` when another
        worker has taken the trial over."""
        import optuna

        spec = self._queue.spec
        value = metrics.get(spec.prune_on)
        self._tell(f'step {step}' + ('' if value is None else f', {spec.prune_on} {value:.4g}'))
        if value is None:
            return
        self._waiting.append((step, value if spec.minimize else -value))
        try:
            while self._waiting:
                self._trial.report(self._waiting[0][1], self._waiting[0][0])
                del self._waiting[0]
            pruned = self._trial.should_prune()
        except optuna.exceptions.UpdateFinishedTrialError as error:
            raise TrialLost from error
        except Exception as error:
            if not self._queue.database.notice(error):
                raise
            return
        if pruned:
            raise optuna.TrialPruned(f'pruned at step {step}')
