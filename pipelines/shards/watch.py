"""What workers and driver on one machine tell each other, by small files in a folder that both see.

Each worker keeps a file named after its process: what it works on and what it has done, so that the driver
can show progress and name the recording on which a worker died. A file called `cancel` stops the workers.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import pathlib
import time
from collections import Counter, defaultdict
from typing import Any

from ddsp.errors import DDSPError

_SUFFIX = '.at'
_CANCEL = 'cancel'
_EVERY_SECS = 0.1


class Cancelled(DDSPError):
    """The preparation was interrupted."""


@functools.cache
def of(folder: str) -> Watch:
    """The watch of this process on a folder: its steps add to the same counts, for they share one file."""
    return Watch(folder)


class Watch:
    """The worker's side; with `folder=''` nothing is told and nothing is asked (workers of an engine)."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._counts: dict[str, float] = defaultdict(float)
        self._path, self._written = '', 0.0

    def at(self, path: str) -> None:
        """Tells which recording is worked on."""
        self._path = path
        self._write()

    def count(self, name: str, amount: float) -> None:
        """Tells that so much more of something is done."""
        self._counts[name] += amount
        if time.monotonic() - self._written > _EVERY_SECS:
            self._write()

    def check(self) -> None:
        """Raises Cancelled where the preparation is to stop."""
        if self._folder and os.path.exists(os.path.join(self._folder, _CANCEL)):
            raise Cancelled('interrupted')

    def _write(self) -> None:
        if not self._folder:
            return
        row = {'path': self._path, 'counts': self._counts}
        # Not worth more than a try: the shard itself says what is wrong with the disk.
        with contextlib.suppress(OSError):
            target = pathlib.Path(self._folder, f'{os.getpid()}{_SUFFIX}')
            part = target.with_suffix('.at.part')
            part.write_text(json.dumps(row), encoding='ascii')
            part.replace(target)
        self._written = time.monotonic()


def cancel(folder: str | os.PathLike[str]) -> None:
    """Asks all workers to stop."""
    with contextlib.suppress(OSError):
        pathlib.Path(folder, _CANCEL).touch()


def counts(folder: pathlib.Path) -> Counter[str]:
    """What all workers have counted."""
    total: Counter[str] = Counter()
    for _, row in _rows(folder):
        total.update(row['counts'])
    return total


def left_by_the_dead(folder: pathlib.Path) -> list[str]:
    """The recordings on which workers that have died were working."""
    left = []
    for process, row in _rows(folder):
        try:
            os.kill(process, 0)  # only asks
        except OSError:
            left.append(row['path'])
    return left


def _rows(folder: pathlib.Path) -> list[tuple[int, dict[str, Any]]]:
    rows = []
    for file in folder.glob(f'*{_SUFFIX}'):
        with contextlib.suppress(OSError, ValueError):
            rows.append((int(file.stem), json.loads(file.read_text(encoding='ascii'))))
    return rows
