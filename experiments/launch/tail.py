"""Logs that are files, one for each process."""

from __future__ import annotations

import pathlib
import time
from collections.abc import Callable, Iterator

_POLL_SECS = 0.5


def lines(folder: pathlib.Path, replicas: int, follow: bool, ended: Callable[[], bool]) -> Iterator[str]:
    """Whole lines of `0.log`, `1.log`, ..., those of process N beginning with `[N] `.

    Args:
      folder: Where the files are, or will be.
      replicas: Number of processes.
      follow: Wait for more until the job has ended.
      ended: Whether it has.
    """
    read = [0] * replicas
    while True:
        last = not follow or ended()  # asked before reading, so that nothing written until then is missed
        for number in range(replicas):
            path = folder / f'{number}.log'
            if not path.exists():
                continue
            with path.open('rb') as file:
                file.seek(read[number])
                content = file.read()
            whole = len(content) if last else content.rfind(b'\n') + 1
            read[number] += whole
            for line in content[:whole].decode(errors='replace').splitlines():
                yield f'[{number}] {line}'
        if last:
            return
        time.sleep(_POLL_SECS)
