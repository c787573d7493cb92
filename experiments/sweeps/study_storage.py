"""Optuna, imported in one place, and its storage, made to outlive the moments when the database is away."""

from __future__ import annotations

import contextlib
import itertools
import math
import pathlib
import re
import sys
import time
import warnings
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import optuna
from optuna.storages import RDBStorage
from optuna.storages._rdb.models import BaseModel
from optuna.trial import FrozenTrial, TrialState

from ddsp.errors import ConfigError, DDSPError, require
from ddsp.io.files import locked
from experiments import masking

__all__ = ['DatabaseAwayError', 'StudyDatabase', 'StudyStorage', 'is_away', 'optuna', 'patiently', 'reason']

T = TypeVar('T')

_PAUSES_SECS = (0.25, 0.5, 1.0, 2.0, 4.0)
_LONGEST_PAUSE_SECS = 8.0
_SQLITE, _POSTGRES = 'sqlite:///', 'postgresql+psycopg://'
# Without these a connection to a machine that has vanished hangs for many minutes: libpq's names and units.
_LIMITS = {'connect_timeout': 10, 'tcp_user_timeout': 30_000}
_LOCK_SECS = 600.0


class DatabaseAwayError(DDSPError):
    """The database of a study stayed away for longer than a sweep waits."""


def is_away(error: BaseException) -> bool:
    """Whether an error of Optuna, SQLAlchemy or psycopg means that the database is out of reach or busy."""
    cause: BaseException | None = error
    while cause is not None:
        module, names = type(cause).__module__.split('.')[0], {kind.__name__ for kind in type(cause).__mro__}
        if module in ('sqlalchemy', 'psycopg') and names & {'OperationalError', 'InterfaceError'}:
            return 'sqlite3' not in str(cause) or 'locked' in str(cause)
        cause = cause.__cause__ or cause.__context__
    return False


def patiently(
    operation: Callable[[], T],
    may_pass: Callable[[BaseException], bool],
    patience_secs: float,
    on_wait: Callable[[BaseException], None],
) -> T:
    """Repeats an operation from its start, with growing pauses, until it succeeds or time is up.

    Args:
      operation: May fail at any point.
      may_pass: Whether an error is worth another try; others are raised at once.
      patience_secs: How long to keep trying after the first error; then the last one is raised.
      on_wait: Called with the first error before the waiting begins.
    """
    deadline = math.inf
    for pause in itertools.chain(_PAUSES_SECS, itertools.repeat(_LONGEST_PAUSE_SECS)):
        try:
            return operation()
        except Exception as error:
            if not may_pass(error):
                raise
            if deadline == math.inf:
                deadline = time.monotonic() + patience_secs
                if patience_secs > 0:
                    on_wait(error)
            if time.monotonic() >= deadline:
                raise
        time.sleep(min(pause, max(0.0, deadline - time.monotonic())))
    raise AssertionError('the pauses never end')


def reason(error: BaseException) -> str:
    """First line of the innermost cause of an error."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__)[:200]


class StudyDatabase:
    """A database that may go away and come back.

    Args:
      storage: `sqlite:///PATH` or `postgresql://...`.
      lock: Name of the lock on it.
      heartbeat_secs: Seconds between heartbeats of a trial.
      patience_secs: How long an operation is tried again.

    Raises:
      ConfigError: Another kind of database.
    """

    def __init__(self, storage: str, lock: str, heartbeat_secs: int, patience_secs: float):
        # Which driver of PostgreSQL an address without one means depends on SQLAlchemy.
        self.address = re.sub(r'^postgres(ql)?://', _POSTGRES, storage)
        self.shown = masking.shown(storage)
        self.heartbeat_secs = heartbeat_secs
        self.patience_secs = patience_secs
        self._lock = lock
        self._last_outage = -math.inf
        if not self.address.startswith((_SQLITE, _POSTGRES)):
            raise ConfigError(
                f'the database {self.shown} is of a kind that a sweep cannot use: give sqlite:///PATH or '
                'postgresql://USER@HOST/NAME.'
            )

    @property
    def is_steady(self) -> bool:
        """False just after an outage, when the living have not sent heartbeats either."""
        return time.monotonic() - self._last_outage >= 2 * self.heartbeat_secs

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Holds the sweep's lock, which only one process has at a time.

        When the lock is lost with the database, an error that `is_away` knows ends the block.
        """
        if self.address.startswith(_SQLITE):
            path = pathlib.Path(self.address.removeprefix(_SQLITE))
            busy = f'another process has locked {path} for {_LOCK_SECS:g} s.'
            with locked(path.parent, busy, name=f'{path.name}.lock', wait_secs=_LOCK_SECS):
                yield
            return
        psycopg = require('psycopg', 'for studies on PostgreSQL')
        server = self.address.replace(_POSTGRES, 'postgresql://')
        with contextlib.closing(psycopg.connect(server, autocommit=True, **_LIMITS)) as connection:
            connection.execute('SELECT pg_advisory_lock(%s)', [zlib.crc32(self._lock.encode())])
            yield
            connection.execute('SELECT 1')  # closing releases the lock; a server that restarted has done so

    def one_writer(self) -> contextlib.AbstractContextManager[None]:
        """Makes up for SQLite, which does not lock what it has only read: two workers that see a trial wait
        would both take it. PostgreSQL locks the row."""
        return self.alone() if self.address.startswith(_SQLITE) else contextlib.nullcontext()

    def patiently(self, operation: Callable[[], T]) -> T:
        """Repeats an operation, from its start, while the database is away.

        Raises:
          DatabaseAwayError: It did not come back in time.
        """

        def warn(error: BaseException) -> None:
            text = f'the database {self.shown} is away ({reason(error)})'
            print(f'Warning: {text}; waiting up to {self.patience_secs:g} s.', file=sys.stderr, flush=True)

        try:
            return patiently(operation, self.notice, self.patience_secs, warn)
        except Exception as error:
            if not self.notice(error):
                raise
            raise DatabaseAwayError(
                f'the database {self.shown} is away ({reason(error)}). Nothing is lost: the same command '
                'continues when it is back.'
            ) from error

    def notice(self, error: BaseException) -> bool:
        """Whether an error means that the database is away; if so, remembers when."""
        away = is_away(error) and not isinstance(error, DatabaseAwayError)  # which has waited already
        if away:
            self._last_outage = time.monotonic()
        return away


class StudyStorage(RDBStorage):
    """Beginning and ending a trial waits for the database; a heartbeat that fails is followed by the next.

    Optuna's heartbeat thread ends with the first error, and another worker would take the trial although its
    own is alive.
    """

    def __init__(self, database: StudyDatabase) -> None:
        self._database = database
        options: dict[str, Any] = {}
        if database.address.startswith(_POSTGRES):
            # A connection that the server has closed is replaced when it is taken from the pool.
            options = {'pool_pre_ping': True, 'connect_args': _LIMITS}
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')  # heartbeats are marked experimental in Optuna
            super().__init__(
                database.address, engine_kwargs=options, heartbeat_interval=database.heartbeat_secs,
                grace_period=4 * database.heartbeat_secs,
            )  # fmt: skip
        for table in BaseModel.metadata.tables.values() if database.address.startswith(_SQLITE) else ():
            for index in table.indexes:  # a process that is killed in between leaves a table without them
                index.create(self.engine, checkfirst=True)

    def record_heartbeat(self, trial_id: int) -> None:
        """Records that the trial's worker is alive, if the database can be reached."""
        try:
            super().record_heartbeat(trial_id)
        except Exception as error:
            if not self._database.notice(error):
                raise

    def set_trial_state_values(
        self, trial_id: int, state: TrialState, values: Sequence[float] | None = None
    ) -> bool:
        """Begins or ends a trial. The first heartbeat comes before the beginning: Optuna never takes a trial
        for dead that has had none."""
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
