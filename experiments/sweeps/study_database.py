"""The database of a sweep's study: opening it, its lock, and waiting for it while it is away."""

from __future__ import annotations

import contextlib
import fcntl
import math
import pathlib
import re
import sys
import time
import warnings
import zlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

from ddsp.errors import DDSPError, require
from experiments import masking
from experiments.sweeps.patience import OutOfPatienceError, patiently, reason

if TYPE_CHECKING:
    from experiments.sweeps.study_storage import StudyStorage

T = TypeVar('T')

HEARTBEAT_SECS = 15
PATIENCE_SECS = 300.0
MAX_ATTEMPTS = 3  # of a trial whose worker dies; parameters that kill every worker must not do so for ever
_SQLITE, _POSTGRES = 'sqlite:///', 'postgresql+psycopg://'
# Without these a connection to a machine that has vanished hangs for many minutes: libpq's names and units.
_LIMITS = {'connect_timeout': 10, 'tcp_user_timeout': 30_000}


class SweepError(DDSPError):
    """A sweep that cannot go on."""


class DatabaseAwayError(SweepError):
    """The database of a study has been away for longer than a sweep waits."""


class StudyDatabase:
    """A database that may go away and come back.

    Args:
      storage: `sqlite:///PATH` or `postgresql://...`.
      heartbeat_secs: Seconds between signs of life of a trial.
      patience_secs: How long an operation is tried again.
      warn: Called with a sentence when waiting begins.

    Raises:
      SweepError: Another kind of database.
    """

    def __init__(
        self,
        storage: str,
        heartbeat_secs: int = HEARTBEAT_SECS,
        patience_secs: float = PATIENCE_SECS,
        warn: Callable[[str], None] | None = None,
    ):
        self.address = _with_driver(storage)
        self.shown = masking.shown(storage)
        self.heartbeat_secs = heartbeat_secs
        self.patience_secs = patience_secs
        self._warn = warn or (lambda text: print(f'Warning: {text}', file=sys.stderr, flush=True))
        self._steady_since = -math.inf

    @property
    def steady_secs(self) -> float:
        """For how long the database has answered this process without a gap."""
        return time.monotonic() - self._steady_since

    def open(self) -> StudyStorage:
        """Optuna's storage; its tables are made when they are missing."""
        from experiments.sweeps.study_storage import StudyStorage

        options: dict[str, Any] = {}
        if self.address.startswith(_POSTGRES):
            # A connection that the server has closed meanwhile is replaced when it is taken from the pool.
            options = {'pool_pre_ping': True, 'connect_args': _LIMITS}
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')  # heartbeats are marked experimental in Optuna
            return StudyStorage(self, options)

    @contextlib.contextmanager
    def alone(self, name: str) -> Iterator[None]:
        """Holds the lock of a name; only one process has it at a time.

        Raises:
          Exception: The lock was lost with the database: `is_away` knows it, and what was done under the lock
            is to be done again.
        """
        if self.address.startswith(_SQLITE):
            with self.one_writer():
                yield
            return
        psycopg = require('psycopg', 'for studies on PostgreSQL')
        server = self.address.replace(_POSTGRES, 'postgresql://')
        with contextlib.closing(psycopg.connect(server, autocommit=True, **_LIMITS)) as connection:
            connection.execute('SELECT pg_advisory_lock(%s)', [zlib.crc32(name.encode())])
            yield
            connection.execute('SELECT 1')  # closing gives the lock back; a server that restarted has done so

    @contextlib.contextmanager
    def one_writer(self) -> Iterator[None]:
        """Makes up for SQLite, which does not lock what it has only read: two processes that see a trial wait
        would both take it. Other databases lock the row."""
        if not self.address.startswith(_SQLITE):
            yield
            return
        path = pathlib.Path(self.address.removeprefix(_SQLITE) + '.lock')
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open('w') as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def patiently(self, operation: Callable[[], T], patience_secs: float | None = None) -> T:
        """Does what can be done twice, again and again while the database is away.

        Args:
          operation: May be interrupted anywhere and begun anew.
          patience_secs: None for the database's own.

        Raises:
          DatabaseAwayError: It did not come back in time.
        """
        patience = self.patience_secs if patience_secs is None else patience_secs

        def tell(error: BaseException) -> None:
            self._warn(
                f'the database {self.shown} is away ({reason(error)}); waiting up to {patience:g} s for it.'
            )

        try:
            return patiently(operation, self.notice, patience, tell)
        except OutOfPatienceError as end:
            error = end.__cause__ or end
            raise DatabaseAwayError(
                f'the database {self.shown} is away ({reason(error)}). Nothing is lost: the same command '
                'goes on when it is back.'
            ) from error

    def notice(self, error: BaseException) -> bool:
        """Whether an error means that the database is away; if so, remembers when."""
        away = is_away(error) and not isinstance(error, DatabaseAwayError)  # which has waited already
        if away:
            self._steady_since = time.monotonic()
        return away


def is_away(error: BaseException) -> bool:
    """Whether an error of Optuna, SQLAlchemy or psycopg means that the database cannot be reached or is
    busy."""
    cause: BaseException | None = error
    while cause is not None:
        module, name = type(cause).__module__.split('.')[0], {kind.__name__ for kind in type(cause).__mro__}
        if module in ('sqlalchemy', 'psycopg') and name & {'OperationalError', 'InterfaceError'}:
            return 'sqlite3' not in str(cause) or 'locked' in str(cause)
        cause = cause.__cause__ or cause.__context__
    return False


def _with_driver(storage: str) -> str:
    """An address with PostgreSQL's driver named: which one is meant without a name depends on SQLAlchemy."""
    address = re.sub(r'^postgres(ql)?://', _POSTGRES, storage)
    if not address.startswith((_SQLITE, _POSTGRES)):
        raise SweepError(
            f'the database {masking.shown(storage)} is of a kind that a sweep cannot use: give '
            'sqlite:///PATH or postgresql://USER@HOST/NAME.'
        )
    return address
