"""Load of the machine beside a training, measured by MLflow's monitors.

MLflow's own `SystemMetricsMonitor` needs a run to start with, and gives up when the server is away.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable


class SystemMetrics:
    """Samples cores, memory, disk, network and GPUs in a daemon thread.

    Args:
      record: Called with (metrics, step); step counts the samples.
      first_step: Number of the first sample; a resumed run goes on counting.
      interval: Seconds between samples.
    """

    def __init__(
        self, record: Callable[[dict[str, float], int], None], first_step: int = 0, interval: float = 10.0
    ):
        self._record = record
        self._step = first_step
        self._interval = interval
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, name='system-metrics', daemon=True)

    def start(self) -> None:
        """Starts sampling."""
        self._thread.start()

    def stop(self) -> None:
        """Stops sampling."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout=2.0)

    def _sample(self) -> None:
        try:
            monitors = _monitors()
        except ImportError:  # without MLflow or psutil a training has no figures of the machine
            return
        while not self._stop.wait(self._interval):
            metrics: dict[str, float] = {}
            for monitor in monitors:
                monitor.collect_metrics()
                metrics |= {
                    f'system/{name}': float(value) for name, value in monitor.aggregate_metrics().items()
                }
                monitor.clear_metrics()
            self._record(metrics, self._step)
            self._step += 1


def _monitors() -> list:
    """MLflow's monitors that work on this machine."""
    from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor
    from mlflow.system_metrics.metrics.disk_monitor import DiskMonitor
    from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor
    from mlflow.system_metrics.metrics.network_monitor import NetworkMonitor

    monitors: list = [CPUMonitor(), DiskMonitor(), NetworkMonitor()]
    with contextlib.suppress(Exception):  # no NVIDIA driver or no pynvml, each with its own exception
        monitors.append(GPUMonitor())
    return monitors
