"""What each worker of one machine gets of its GPUs and cores, as variables of its environment.

A library that finds all of them takes all of them: several workers would starve each other.
"""

from __future__ import annotations

import os
import shutil
import subprocess

_GPUS = 'CUDA_VISIBLE_DEVICES'
_QUERY_SECS = 60.0
_SHARED_MEMORY = 0.9  # of a GPU that several workers of JAX divide; the rest is for the drivers
# How many threads compute: of BLAS and PyTorch, of TensorFlow, and of JAX on the CPU.
_THREADS = ('OMP_NUM_THREADS', 'TF_NUM_INTRAOP_THREADS', 'TF_NUM_INTEROP_THREADS', 'NPROC')


def gpus() -> list[str]:
    """Names of the GPUs that this process may use: what `CUDA_VISIBLE_DEVICES` holds, or all that the driver
    lists."""
    given = os.environ.get(_GPUS)
    if given is not None:
        return [] if given.strip() == '-1' else [name.strip() for name in given.split(',') if name.strip()]
    tool = shutil.which('nvidia-smi')
    if tool is None:
        return []
    asked = [tool, '--query-gpu=index', '--format=csv,noheader']
    done = subprocess.run(asked, capture_output=True, text=True, timeout=_QUERY_SECS, check=False)
    return done.stdout.split() if done.returncode == 0 else []


def share(worker: int, workers: int, devices: list[str], n_cores: int) -> dict[str, str]:
    """The variables that give a worker its part of the machine.

    GPUs go round: with fewer of them than workers, several workers share one and grow in its memory as they
    need it, or, on JAX, take equal parts of it.

    Args:
      worker: Number of the worker, from 0.
      workers: How many there are.
      devices: Names of the GPUs, as `gpus` gives them.
      n_cores: Cores of the machine.

    Example:
      >>> share(2, 4, ['0', '1'], 16)['CUDA_VISIBLE_DEVICES']
      '0'
    """
    # What the user has set stays.
    mine = {name: os.environ.get(name) or str(max(1, n_cores // workers)) for name in _THREADS}
    if not devices:
        return mine
    if workers <= len(devices):
        return mine | {_GPUS: ','.join(devices[worker::workers])}
    slot = worker % len(devices)
    sharing = len(range(slot, workers, len(devices)))
    mine[_GPUS] = devices[slot]
    if sharing > 1:
        mine['TF_FORCE_GPU_ALLOW_GROWTH'] = 'true'
        mine['XLA_PYTHON_CLIENT_MEM_FRACTION'] = f'{_SHARED_MEMORY / sharing:.3f}'
    return mine
