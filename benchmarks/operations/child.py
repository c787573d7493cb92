"""Measures one case in a process of its own, and prints the figures as one line of JSON.

Run as a file (`python child.py CASE BATCH MODE RUNS`) by any interpreter that has a `ddsp`; the
folder of this file must be the only one of the repository on its path when that is another `ddsp`.
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import statistics
import sys
import time

os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')
os.environ['CUDA_VISIBLE_DEVICES'] = ''  # the table compares CPU seconds

MODULES = ('core', 'dags', 'effects', 'losses', 'processors', 'spectral_ops', 'synths')
_RSS_UNIT = 2**20 if sys.platform == 'darwin' else 2**10  # ru_maxrss: bytes on macOS, KiB on Linux


def cpu_seconds() -> float:
    """User and system CPU seconds of this process, all threads."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def peak_mb() -> float:
    """Largest resident memory so far, MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / _RSS_UNIT


def wait_for(result) -> None:
    """Fetches a value, so that all work is done."""
    while isinstance(result, (list, tuple)):
        result = result[0]
    if hasattr(result, 'numpy'):
        result.numpy()


def measure_import() -> dict:
    """What `import ddsp` and its modules cost over the import of the backend."""
    importlib.import_module('tensorflow').keras.layers.Layer  # noqa: B018 (loads Keras, which is lazy in TensorFlow)
    base, cpu, wall = peak_mb(), cpu_seconds(), time.perf_counter()
    ddsp = importlib.import_module('ddsp')
    for name in MODULES:
        getattr(ddsp, name)
    return {
        'cpu_s': cpu_seconds() - cpu, 'wall_s': time.perf_counter() - wall, 'peak_mb': peak_mb() - base,
        'runs': 1, 'version': ddsp.__version__,
    }  # fmt: skip


def measure(name: str, batch: int, mode: str, runs: int) -> dict:
    """Median cost of a call after two calls that compile and warm up."""
    tensorflow = importlib.import_module('tensorflow')
    ddsp = importlib.import_module('ddsp')
    if name.startswith('train_step'):
        importlib.import_module('ddsp.training')
    base = peak_mb()
    tensorflow.random.set_seed(0)
    cases = importlib.import_module('cases')
    function = cases.build(name, batch)
    if mode != 'eager' and name not in cases.NOT_A_GRAPH:
        function = tensorflow.function(function, jit_compile=mode == 'xla')
    start = time.perf_counter()
    wait_for(function())
    first = time.perf_counter() - start
    wait_for(function())
    cpu, wall = [], []
    for _ in range(runs):
        before, start = cpu_seconds(), time.perf_counter()
        wait_for(function())
        wall.append(time.perf_counter() - start)
        cpu.append(cpu_seconds() - before)
    return {
        'cpu_s': statistics.median(cpu), 'cpu_min_s': min(cpu), 'wall_s': statistics.median(wall),
        'first_call_s': first, 'peak_mb': peak_mb() - base, 'import_mb': base, 'runs': runs,
        'version': ddsp.__version__, 'tensorflow': tensorflow.__version__,
    }  # fmt: skip


if __name__ == '__main__':
    case, batch, mode, runs = sys.argv[1:]
    row = measure_import() if case == 'import' else measure(case, int(batch), mode, int(runs))
    print('RESULT ' + json.dumps({key: round(v, 5) if isinstance(v, float) else v for key, v in row.items()}))
