"""Optuna's storage in a database, made to outlive the moments in which the database is away."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from optuna.storages import RDBStorage, RetryHeartbeatStaleTrialCallback
from optuna.trial import FrozenTrial, TrialState

from experiments.sweeps.study_database import MAX_ATTEMPTS

if TYPE_CHECKING:
    from experiments.sweeps.study_database import StudyDatabase


class StudyStorage(RDBStorage):
    """What a running trial needs waits for its database; what comes again soon does not.

    Optuna's thread of signs of life ends with the first one that does not arrive, and its trial would be
    another's although it lives.

    Args:
      database: Address, seconds between signs of life, and patience.
      options: Options of SQLAlchemy's engine.
    """

    def __init__(self, database: StudyDatabase, options: dict[str, Any]) -> None:
        self._database = database
        super().__init__(
            database.address, engine_kwargs=options, heartbeat_interval=database.heartbeat_secs,
            grace_period=4 * database.heartbeat_secs,
            heartbeat_stale_trial_callback=RetryHeartbeatStaleTrialCallback(max_retry=MAX_ATTEMPTS - 1),
        )  # fmt: skip

    def record_heartbeat(self, trial_id: int) -> None:
        """A sign of life; one that does not arrive is followed by the next."""
        try:
            super().record_heartbeat(trial_id)
        except Exception as error:
            if not self._database.notice(error):
                raise

    def set_trial_state_values(
        self, trial_id: int, state: TrialState, values: Sequence[float] | None = None
    ) -> bool:
        """Begins or ends a trial. The first sign of life comes before the beginning: Optuna never takes a
        trial for dead that has given none."""
        if state == TrialState.RUNNING:
            self.record_heartbeat(trial_id)
        change = super().set_trial_state_values

        def alone() -> bool:
            with self._database.one_writer():
                return change(trial_id, state, values)

        return self._database.patiently(alone)

    def get_trial(self, trial_id: int) -> FrozenTrial:
        """A trial, which Optuna looks at before it ends one."""
        read = super().get_trial
        return self._database.patiently(lambda: read(trial_id))
