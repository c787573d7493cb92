"""A journal on disk between a training and a tracking server.

What is to be recorded is appended to `outbox.jsonl` in the training folder and delivered in order by a
background thread; `outbox.sent` says how far that has come. Training never waits for it and never fails
because of it: while the server is away the rows stay on disk, and whoever opens the folder next (the same
training resumed, or `ddsp runs sync`) delivers the rest. One process at a time has a journal.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import json
import os
import pathlib
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

from ddsp.io.files import FolderInUseError, inside, write_bytes

Row = dict[str, Any]
Deliver = Callable[[list[Row]], None]

JOURNAL, _SENT = 'outbox.jsonl', 'outbox.sent'
_LONGEST_REASON = 300  # characters
_FIRST_RETRY_SECS = 1.0
_LONGEST_RETRY_SECS = 30.0


class Rejected(Exception):
    """A row that can never be delivered, such as a file that no longer exists; trying again is no use."""


class Postponed(Exception):
    """A row that cannot be delivered now though others can, as when the disk for artefacts is full."""


class Journal:
    """Rows delivered by a background thread, each at least once, in order but for those that are put off.

    Args:
      folder: Training folder.

    Raises:
      FolderInUseError: Another process has the journal.
      UnsafeNameError: The journal is a link to a file elsewhere.
    """

    def __init__(self, folder: str | os.PathLike[str]):
        self.problem = ''  # why the last delivery failed; '' when all is well
        self.rejected: list[str] = []
        self._folder = pathlib.Path(folder)
        self._file = self._open()
        self._rows = read_rows(self._folder)
        self._sent, self._left = _read_sent(self._folder)
        self._next = 1 + max([self._sent, *(row['n'] for row in self._rows)])
        self._waiting: dict[int, Row] = {}
        self._put_off: set[int] = set()
        self._rounds = 0  # how often what was put off has been tried again
        self._again_at, self._pause = 0.0, _FIRST_RETRY_SECS
        self._away = self._closing = False
        self._changed = threading.Condition()
        # A daemon: a hanging request does not keep the process alive.
        self._thread = threading.Thread(target=self._work, name='journal', daemon=True)

    def _open(self) -> Any:
        """The file, locked; None when it cannot be written, and rows are delivered from memory alone."""
        path = inside(self._folder, JOURNAL, str(self._folder))
        try:
            file = open(path, 'ab+', buffering=0)  # noqa: SIM115 (closed by `close`, which gives up the lock)
        except OSError as error:
            self.problem = f'{path}: {error.strerror}'
            return None
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            raise FolderInUseError(f'{self._folder} is being recorded by another process.') from None
        size = file.seek(0, os.SEEK_END)
        self._torn = bool(size) and os.pread(file.fileno(), 1, size - 1) != b'\n'  # cut off by a crash
        return file

    def start(self, deliver: Deliver, *, resend: bool = False) -> Journal:
        """Begins to deliver.

        Args:
          deliver: Called with one row, or several of the kind 'metrics'; raises `Rejected` for good,
            `Postponed` to be tried again after the others, anything else to be tried again before them.
          resend: Also what has been delivered before, as when the run was lost with its server.
        """
        self._deliver = deliver
        if resend:
            self._sent, self._left = 0, set()
        self._waiting = {row['n']: row for row in _unsent(self._rows, self._sent, self._left)}
        self._rows = []
        self._thread.start()
        return self

    def put(self, row: Row) -> None:
        """Adds one row; takes microseconds and never raises for a full disk or an absent server."""
        with self._changed:
            row = {'n': self._next, **row}
            self._next += 1
            self._waiting[row['n']] = row
            if self._file is not None:  # a line that a full disk cuts off is ended before the next
                line = ('\n' if self._torn else '') + json.dumps(row) + '\n'
                try:
                    self._torn = self._file.write(line.encode()) < len(line)
                except OSError as error:  # it is still delivered from memory
                    self.problem = f'{self._folder / JOURNAL}: {error.strerror}'
            self._changed.notify_all()

    @property
    def waiting(self) -> int:
        """Rows that are not delivered yet."""
        return len(self._waiting)

    def flush(self, timeout: float) -> bool:
        """Waits until everything is delivered, or only rows are left that were put off once more.

        Returns False when rows are left, also after `timeout` seconds.
        """
        deadline = time.monotonic() + timeout
        with self._changed:
            rounds = self._rounds
            self._again_at, self._pause = 0.0, _FIRST_RETRY_SECS  # a long pause is not sat out
            self._changed.notify_all()
            while self._waiting and time.monotonic() < deadline:
                if len(self._put_off) == len(self._waiting) and self._rounds > rounds:
                    break
                self._changed.wait(0.1)
            return not self._waiting

    def close(self, timeout: float = 30.0) -> int:
        """Delivers what can be delivered within `timeout` seconds and ends the thread.

        Returns the number of rows that are left on disk.
        """
        deadline = time.monotonic() + timeout
        self.flush(timeout)
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        if self._thread.ident is not None:  # what is on its way may arrive
            self._thread.join(timeout=max(1.0, deadline - time.monotonic()))
        if self._file is not None and not self._thread.is_alive():
            self._file.close()
            self._file = None
        return len(self._waiting)

    def _work(self) -> None:
        """Delivers in order, with growing pauses after a failure."""
        while rows := self._due():
            try:
                self._deliver_or_split(rows)
            except Exception as error:
                self.problem = f'{type(error).__name__}: {error}'[:_LONGEST_REASON]
                self._away = True
                self._again_at = time.monotonic() + self._pause
                self._pause = min(2 * self._pause, _LONGEST_RETRY_SECS)
            else:
                self._away = False
                if not self._put_off:
                    self.problem, self._pause = '', _FIRST_RETRY_SECS

    def _due(self) -> list[Row]:
        """The rows to deliver next, as soon as there are some; none when the journal closes."""
        with self._changed:
            while not self._closing:
                fresh = [row for n, row in self._waiting.items() if n not in self._put_off]
                pause = self._again_at - time.monotonic()
                if fresh and (pause <= 0 or not self._away):
                    return batches(fresh)[0]
                if not fresh and self._put_off and pause <= 0:
                    self._put_off.clear()
                    self._rounds += 1
                    self._pause = min(2 * self._pause, _LONGEST_RETRY_SECS)
                    continue
                self._changed.wait(pause if self._waiting and pause > 0 else None)
            return []

    def _deliver_or_split(self, rows: list[Row]) -> None:
        """Delivers rows of one batch; when one of them is refused, one by one without it."""
        try:
            self._deliver(rows)
        except (Rejected, Postponed) as refusal:
            if len(rows) > 1:
                for row in rows:
                    self._deliver_or_split([row])
                return
            if isinstance(refusal, Postponed):
                with self._changed:
                    self.problem = str(refusal)
                    self._put_off.add(rows[0]['n'])
                    self._again_at = time.monotonic() + self._pause
                    self._changed.notify_all()
                return
            self.rejected.append(f'{refusal}'[:_LONGEST_REASON])
        self._done(rows)

    def _done(self, rows: list[Row]) -> None:
        """Takes delivered rows off the list and notes on disk how far it has come."""
        with self._changed:
            for row in rows:
                self._sent = max(self._sent, row['n'])
                del self._waiting[row['n']]
            left = ' '.join(str(n) for n in self._waiting if n < self._sent)
            # A row that is sent twice after a restart is one for MLflow.
            with contextlib.suppress(OSError):
                write_bytes(self._folder / _SENT, f'{self._sent} {left}'.encode())
            self._changed.notify_all()


def _read_sent(folder: pathlib.Path) -> tuple[int, set[int]]:
    """Number of the last row that earlier processes have delivered, and which before it they have not."""
    try:
        last, *left = map(int, inside(folder, _SENT, str(folder)).read_text().split())
        return last, set(left)
    except (OSError, ValueError):
        return 0, set()


def _unsent(rows: list[Row], sent: int, left: set[int]) -> list[Row]:
    return [row for row in rows if row['n'] > sent or row['n'] in left]


def count_unsent(folder: pathlib.Path) -> int:
    """How many rows of a training folder were not delivered."""
    return len(_unsent(read_rows(folder), *_read_sent(folder)))


def batches(rows: Iterable[Row]) -> list[list[Row]]:
    """Rows as they travel: neighbouring metrics together, anything else alone."""
    return [
        batch
        for metrics, group in itertools.groupby(rows, key=lambda row: row.get('kind') == 'metrics')
        for batch in ([list(group)] if metrics else [[row] for row in group])
    ]


def read_rows(folder: pathlib.Path) -> list[Row]:
    """The rows of a folder's journal; a line that a crash has cut off is left out."""
    rows = []
    try:
        with inside(folder, JOURNAL, str(folder)).open('rb') as file:
            for line in file:
                try:
                    row = json.loads(line)
                except (ValueError, RecursionError):
                    continue
                if isinstance(row, dict) and isinstance(row.get('n'), int):
                    rows.append(row)
    except FileNotFoundError:
        pass
    return rows
