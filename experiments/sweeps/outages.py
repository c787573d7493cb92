"""Databases that go away and come back: recognising it, and waiting."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable
from typing import TypeVar

from ddsp.errors import DDSPError

T = TypeVar('T')

_PAUSES_SECS = (0.25, 0.5, 1.0, 2.0, 4.0)
_LONGEST_PAUSE_SECS = 8.0


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
    """Repeats an operation, with growing pauses, until it succeeds or patience runs out.

    Args:
      operation: May fail at any point and is then run again from the start.
      may_pass: Whether an error is worth another try; others are raised at once.
      patience_secs: How long to keep trying after the first error.
      on_wait: Called with the first error before the waiting begins.

    Returns:
      What the operation returns. Its last error is raised when the time is up.
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
