"""Doing something again while what it needs is away for a moment."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar('T')

_FIRST_PAUSE_SECS, _LONGEST_PAUSE_SECS = 0.25, 8.0


class OutOfPatienceError(Exception):
    """What was waited for did not come back; `__cause__` is the last error."""


def patiently(
    operation: Callable[[], T],
    is_away: Callable[[BaseException], bool],
    patience_secs: float,
    on_wait: Callable[[BaseException], None],
) -> T:
    """Does what can be done twice again and again, with growing pauses.

    Args:
      operation: May be interrupted anywhere and begun anew.
      is_away: Whether an error is worth another try.
      patience_secs: For how long it is tried again, counted from the first error.
      on_wait: Told about the first error before the waiting begins.

    Returns:
      What the operation returns.

    Raises:
      OutOfPatienceError: The time is over.
    """
    pause, deadline = _FIRST_PAUSE_SECS, math.inf
    while True:
        try:
            return operation()
        except Exception as error:
            if not is_away(error):
                raise
            now = time.monotonic()
            if deadline == math.inf:
                deadline = now + patience_secs
                if patience_secs > 0:
                    on_wait(error)
            if now >= deadline:
                raise OutOfPatienceError from error
        time.sleep(min(pause, max(0.0, deadline - now)))
        pause = min(2 * pause, _LONGEST_PAUSE_SECS)


def reason(error: BaseException) -> str:
    """The innermost cause of an error, its first line."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__)[:200]
