"""Peak memory and CPU time of this process and its children, while something runs."""

from __future__ import annotations

import os
import threading
import time

from ddsp.errors import require


class ResourceMonitor:
    """Samples the memory of the whole process tree (Beam workers included) in a thread.

    Example:
      with ResourceMonitor() as used:
        work()
      print(used.peak_mb, used.cpu_s, used.wall_s)
    """

    def __init__(self, interval_s: float = 0.5):
        self._psutil = require('psutil', 'to measure memory')
        self._interval_s = interval_s
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self.peak_mb = 0.0
        self.wall_s = 0.0
        self.cpu_s = 0.0

    def __enter__(self) -> ResourceMonitor:
        self._start, self._start_cpu = time.monotonic(), _cpu_seconds()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *unused) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        self.wall_s = time.monotonic() - self._start
        self.cpu_s = _cpu_seconds() - self._start_cpu

    def _sample(self) -> None:
        while True:
            self.peak_mb = max(self.peak_mb, self._tree_mb())
            if self._stop.wait(self._interval_s):
                return

    def _tree_mb(self) -> float:
        """Proportional set size of the tree in MB: pages that processes share are counted once."""
        root = self._psutil.Process()
        total = 0
        for process in [root, *root.children(recursive=True)]:
            try:
                memory = process.memory_full_info()
                total += getattr(memory, 'pss', memory.rss)
            except self._psutil.Error:  # it ended between the listing and the look
                continue
        return total / 2**20


def _cpu_seconds() -> float:
    """User and system seconds of this process and of its finished children."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system
