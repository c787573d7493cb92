"""A queue on disk between training and a tracking server.

What is to be recorded is appended to `outbox.jsonl` in the training folder and delivered in order by a
background thread. Training never waits for it and never fails because of it: while the server is away the
rows stay on disk, and whoever opens the same folder next (the same training resumed, or `ddsp runs --sync`)
delivers the rest.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import pathlib
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

Row = dict[str, Any]

_FIRST_RETRY_SECS = 1.0
_LONGEST_RETRY_SECS = 30.0


class Rejected(Exception):
    """A row that can never be delivered, such as a file that no longer exists; trying again is no use."""


class Postponed(Exception):
    """A row that cannot be delivered now though others can, as when the disk for artefacts is full."""


class Outbox:
    """Rows delivered by a background thread, each at least once, in order but for those that are postponed.

    Args:
      folder: Training folder; holds `outbox.jsonl` and `outbox.sent`.
      deliver: Called with one row, or several of the kind 'metrics'; raises `Rejected` for good, `Postponed`
        to be tried again after the others, anything else to be tried again before them.
      resend: True delivers what an earlier process has delivered too, as when the run was lost with its
        server.
    """

    def __init__(
        self, folder: str | os.PathLike[str], deliver: Callable[[list[Row]], None], *, resend: bool = False
    ):
        self._journal = pathlib.Path(folder) / 'outbox.jsonl'
        self._sent_file = pathlib.Path(folder) / 'outbox.sent'
        self._deliver = deliver
        self._condition = threading.Condition()
        self._closing = False
        self._hurry = False
        self._tries = 0
        self.problem = ''  # why the last delivery failed; '' when all is well
        self.rejected: list[str] = []
        _end_last_line(self._journal)
        rows = read_rows(self._journal)
        done, left = (0, set()) if resend else _read_sent(self._sent_file)
        self._sent = done
        self._next = max([row['n'] for row in rows], default=0) + 1
        self._pending = {row['n']: row for row in rows if row['n'] > done or row['n'] in left}
        self._postponed: set[int] = set()
        self._thread = threading.Thread(target=self._work, name='outbox', daemon=True)
        self._thread.start()

    def put(self, row: Row) -> None:
        """Queues one row; takes microseconds and never raises for a full disk or an absent server."""
        with self._condition:
            row = {'n': self._next, **row}
            self._next += 1
            try:
                with self._journal.open('a') as file:
                    file.write(json.dumps(row) + '\n')
            except OSError as error:  # it is still delivered from memory
                self.problem = f'{self._journal}: {error.strerror}'
            self._pending[row['n']] = row
            self._condition.notify_all()

    def flush(self, timeout: float) -> bool:
        """Waits until everything is delivered, or only postponed rows are left that were tried once more.

        Args:
          timeout: Seconds to wait at most.

        Returns:
          False when rows are left.
        """
        deadline = time.monotonic() + timeout
        with self._condition:
            tried = self._tries
            self._hurry = True  # do not sleep out a long retry interval
            self._condition.notify_all()
            while self._pending and time.monotonic() < deadline:
                if len(self._postponed) == len(self._pending) and self._tries > tried:
                    break
                self._condition.wait(0.1)
            self._hurry = False
            return not self._pending

    @property
    def waiting(self) -> int:
        """Rows that are not delivered yet."""
        return len(self._pending)

    def close(self, timeout: float = 30.0) -> int:
        """Delivers what can be delivered within `timeout` seconds and ends the thread.

        Returns:
          Rows that are left on disk.
        """
        deadline = time.monotonic() + timeout
        self.flush(timeout)
        with self._condition:
            self._closing = True
            self._condition.notify_all()
        # What is on its way may arrive. A daemon: a hanging request does not keep the process alive.
        self._thread.join(timeout=max(1.0, deadline - time.monotonic()))
        return len(self._pending)

    def _work(self) -> None:
        """Delivers in order, with growing pauses after a failure."""
        pause = _FIRST_RETRY_SECS
        while True:
            with self._condition:
                while not self._pending and not self._closing:
                    self._condition.wait()
            if not self._fresh():  # nothing but what was postponed
                self._sleep(pause)
            if self._closing:
                return
            rows = self._fresh()
            again = not rows
            try:
                for batch in batches(rows or list(self._pending.values())):
                    self._deliver_or_reject(batch)
                    if self._closing:
                        break
            except Exception as error:
                self.problem = f'{type(error).__name__}: {error}'
                self._sleep(pause)
                pause = min(2 * pause, _LONGEST_RETRY_SECS)
                continue
            self._tries += again
            if not self._postponed:
                self.problem, pause = '', _FIRST_RETRY_SECS
            elif again:
                pause = min(2 * pause, _LONGEST_RETRY_SECS)

    def _fresh(self) -> list[Row]:
        """The rows that are not postponed."""
        with self._condition:
            return [row for n, row in self._pending.items() if n not in self._postponed]

    def _sleep(self, seconds: float) -> None:
        """Waits before the next try, less when somebody waits in `flush` or new rows can be delivered."""
        deadline = time.monotonic() + seconds
        with self._condition:
            newest = self._next
            while not self._closing and time.monotonic() < deadline:
                if self._postponed and self._next > newest:
                    return
                if self._hurry:
                    deadline = min(deadline, time.monotonic() + _FIRST_RETRY_SECS)
                    self._hurry = False
                self._condition.wait(0.1)

    def _deliver_or_reject(self, rows: list[Row]) -> None:
        """Delivers rows of one batch; when one of them is refused, one by one without it."""
        try:
            self._deliver(rows)
        except (Rejected, Postponed) as refusal:
            if len(rows) > 1:
                for row in rows:
                    self._deliver_or_reject([row])
                return
            if isinstance(refusal, Postponed):
                self.problem = str(refusal)
                self._postponed.add(rows[0]['n'])
                return
            self.rejected.append(str(refusal))
        self._done(rows)

    def _done(self, rows: list[Row]) -> None:
        """Takes delivered rows off the queue and notes on disk how far it has come."""
        with self._condition:
            for row in rows:
                self._sent = max(self._sent, row['n'])
                self._postponed.discard(row['n'])
                del self._pending[row['n']]
            left = ' '.join(str(n) for n in self._pending if n < self._sent)
            # A row that is sent twice after a restart is one for MLflow.
            with contextlib.suppress(OSError):
                temporary = self._sent_file.with_suffix('.tmp')
                temporary.write_text(f'{self._sent} {left}')
                os.replace(temporary, self._sent_file)
            self._condition.notify_all()


def _read_sent(sent_file: pathlib.Path) -> tuple[int, set[int]]:
    """Number of the last row that earlier processes have delivered, and which before it they have not."""
    try:
        last, *left = map(int, sent_file.read_text().split())
        return last, set(left)
    except (OSError, ValueError):
        return 0, set()


def has_unsent(folder: pathlib.Path) -> bool:
    """Whether a training folder holds rows that were not delivered."""
    done, left = _read_sent(folder / 'outbox.sent')
    return any(row['n'] > done or row['n'] in left for row in read_rows(folder / 'outbox.jsonl'))


def batches(rows: Iterable[Row]) -> list[list[Row]]:
    """Rows as they travel: neighbouring metrics together, anything else alone."""
    return [
        batch
        for metrics, group in itertools.groupby(rows, key=lambda row: row.get('kind') == 'metrics')
        for batch in ([list(group)] if metrics else [[row] for row in group])
    ]


def _end_last_line(journal: pathlib.Path) -> None:
    """Ends a line that a crash has cut off, so that the next row does not become a part of it."""
    with contextlib.suppress(OSError), journal.open('rb+') as file:
        if file.seek(0, os.SEEK_END) and file.seek(-1, os.SEEK_END) >= 0 and file.read(1) != b'\n':
            file.write(b'\n')


def read_rows(journal: pathlib.Path) -> list[Row]:
    """The rows of a journal; a last line that a crash has cut off is left out."""
    rows = []
    try:
        with journal.open() as file:
            for line in file:
                try:
                    rows.append(json.loads(line))
                except ValueError:
                    continue
    except FileNotFoundError:
        pass
    return rows
