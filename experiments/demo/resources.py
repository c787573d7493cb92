"""Peak memory and CPU time of this process and its children, while something runs."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterator

from ddsp.errors import require

_INTERVAL_SECS = 0.5


@contextlib.contextmanager
def measured() -> Iterator[dict[str, float]]:
    """Measures a block, Beam's workers included.

    Yields:
      What holds `wall_s`, `cpu_s` and `peak_mb` when the block has ended.
    """
    used: dict[str, float] = {}
    peaks, stop = [0.0], threading.Event()

    def sample() -> None:
        while True:
            peaks.append(max(peaks.pop(), _tree_mb()))
            if stop.wait(_INTERVAL_SECS):
                return

    thread = threading.Thread(target=sample, daemon=True)
    start, start_cpu = time.monotonic(), _cpu_seconds()
    thread.start()
    try:
        yield used
    finally:
        stop.set()
        thread.join()
    used['wall_s'] = round(time.monotonic() - start, 1)
    used['cpu_s'] = round(_cpu_seconds() - start_cpu, 1)
    used['peak_mb'] = round(peaks[0])


def _tree_mb() -> float:
    """Proportional set size of the process tree in MB: pages that processes share are counted once."""
    psutil = require('psutil', 'to measure memory')
    total = 0
    for process in [psutil.Process(), *psutil.Process().children(recursive=True)]:
        with contextlib.suppress(psutil.Error):  # it ended between the listing and the look
            memory = process.memory_full_info()
            total += getattr(memory, 'pss', memory.rss)
    return total / 2**20


def _cpu_seconds() -> float:
    """User and system seconds of this process and of its finished children."""
    return sum(os.times()[:4])
