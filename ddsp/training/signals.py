"""Stopping between two steps when a signal asks for it."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any


class Interrupted(KeyboardInterrupt):
    """A signal ended the training; its state is saved.

    Attributes:
      exit_code: What a command should exit with: 130 after Ctrl-C, 143 after SIGTERM.
      step: Steps done.
      save_dir: Where the state was saved; `''`: nowhere.
    """

    def __init__(self, signal_number: int, step: int, save_dir: str) -> None:
        self.exit_code = 128 + signal_number
        self.step = step
        self.save_dir = save_dir
        where = f'saved in {save_dir}; the same command goes on from there' if save_dir else 'not saved'
        super().__init__(f'interrupted after {step} steps: {where}')


class StopRequest:
    """Makes the first Ctrl-C or SIGTERM only set `requested`; a second Ctrl-C interrupts at once."""

    def __init__(self) -> None:
        self.requested = False
        self.signal = int(signal.SIGINT)
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: Any) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.requested and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.requested = True
        self.signal = number
