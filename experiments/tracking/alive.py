"""Signs of life: a running training renews a tag of its run, and whoever lists runs reads when it last did.

Nothing else tells whether a run lives. Names of machines and numbers of processes do not: containers share
the one and cannot see the other.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Mapping

TAG = 'ddsp.alive'
EVERY_SECS = 30.0
# Ten signs may be missing: a store may be away for a moment, and clocks of two machines may differ.
LEASE_SECS = 300.0


class Heartbeat:
    """Gives a sign of life at regular intervals, from a thread that the training never waits for.

    `beat` is called with the tag; its errors are ignored, for the next sign may reach the store.
    """

    def __init__(self, beat: Callable[[dict[str, str]], None], every_secs: float = EVERY_SECS):
        self._beat = beat
        self._every_secs = every_secs
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, name='sign-of-life', daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Gives no more signs."""
        self._stop.set()
        self._thread.join(timeout=2.0)

    def _work(self) -> None:
        while not self._stop.wait(self._every_secs):
            with contextlib.suppress(Exception):
                self._beat(sign())


def sign() -> dict[str, str]:
    """The tag of a run that lives now."""
    return {TAG: str(int(time.time() * 1000))}


def last_sign(tags: Mapping[str, str]) -> int | None:
    """When a run last gave a sign of life, in milliseconds since 1970; None when it never did."""
    text = tags.get(TAG, '')
    return int(text) if text.isdigit() else None


def silent_since(status: str, tags: Mapping[str, str], now: float | None = None) -> int | None:
    """Since when a run that has not ended gives no sign of life, in milliseconds since 1970.

    None for a run that has ended, that lives, or that never gave a sign. A sign from the future comes from a
    clock that is ahead: that run lives. `now` is in seconds; None takes the present.
    """
    last = last_sign(tags) if status == 'RUNNING' else None
    seconds = (time.time() if now is None else now) - (last or 0) / 1000
    return last if last is not None and seconds > LEASE_SECS else None
