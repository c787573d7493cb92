"""What goes on beside a training, in threads that it never waits for: signs of life and the machine's load.

MLflow's own `SystemMetricsMonitor` needs a run to start with, and gives up when the server is away.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable


class Repeated:
    """Calls a function at regular intervals; its errors are ignored, for the next call may succeed."""

    def __init__(self, work: Callable[[], None], every_secs: float):
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._repeat, args=(work, every_secs), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Calls it no more."""
        self._stop.set()
        self._thread.join(timeout=2.0)

    def _repeat(self, work: Callable[[], None], every_secs: float) -> None:
        while not self._stop.wait(every_secs):
            with contextlib.suppress(Exception):
                work()


def load_sampler(record: Callable[[dict[str, float], int], None], step: int) -> Callable[[], None]:
    """A function that records the load of cores, memory, disk, network and GPUs since its last call.

    Args:
      record: Called with (metrics, step).
      step: Number of the first sample; a resumed run goes on counting.
    """
    monitors = _monitors()

    def sample() -> None:
        nonlocal step
        metrics: dict[str, float] = {}
        for monitor in monitors:
            monitor.collect_metrics()
            metrics |= {f'system/{name}': float(value) for name, value in monitor.aggregate_metrics().items()}
            monitor.clear_metrics()
        if metrics:
            record(metrics, step)
            step += 1

    return sample


def _monitors() -> list:
    """MLflow's monitors that work on this machine; none without psutil. None of them stops a training."""
    try:
        from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor
        from mlflow.system_metrics.metrics.disk_monitor import DiskMonitor
        from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor
        from mlflow.system_metrics.metrics.network_monitor import NetworkMonitor
    except ImportError:
        return []
    monitors: list = []
    for kind in (CPUMonitor, DiskMonitor, NetworkMonitor, GPUMonitor):
        with contextlib.suppress(Exception):  # no NVIDIA driver, no counters, each with its own exception
            monitors.append(kind())
    return monitors
