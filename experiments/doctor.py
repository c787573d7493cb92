"""What is installed and usable on this machine: the checks behind `ddsp doctor`."""

from __future__ import annotations

import dataclasses
import importlib
import importlib.metadata
import os
import pathlib
import platform
import shutil
import sys
from collections.abc import Callable

OK, WARNING, MISSING = 'ok', 'warning', 'missing'

# Distribution -> what needs it; '' is required for everything.
_PACKAGES = {
    'keras': '',
    'tensorflow': '',
    'numpy': '',
    'scipy': '',
    'gin-config': '',
    'soundfile': '',
    'soxr': '',
    'apache-beam': 'pipelines',
    'tensorflow-datasets': 'pipelines',
    'swift-f0': 'pipelines',
    'mlflow': 'tracking',
    'optuna': 'tracking',
    'matplotlib': 'tracking',
    'psutil': 'tracking',
    'google-cloud-storage': 'cloud',
    'crepe': 'crepe',
    'jax': 'jax',
}
_MINIMUM_DISK_GB = 2.0
_MINIMUM_MEMORY_GB = 3.0


@dataclasses.dataclass(frozen=True)
class Check:
    """One line: `state` is 'ok', 'warning' (something optional) or 'missing' (something required)."""

    name: str
    state: str
    found: str
    advice: str = ''


def run_checks() -> list[Check]:
    """Looks at this machine.

    Returns:
      The checks in the order in which they are shown; none raises, whatever is broken.
    """
    checks = [_python(), *_packages(), *_guarded('keras backend', _backend), *_guarded('cores', _machine)]
    checks += [_ffmpeg(), *_guarded('f0 estimators', _f0_estimators), *_guarded('tracking', _tracking)]
    return checks


def _guarded(name: str, check: Callable[[], list[Check]]) -> list[Check]:
    """A check that reports its own failure instead of ending the report."""
    try:
        return check()
    except Exception as error:
        return [Check(name, MISSING, f'{type(error).__name__}: {error}', 'make setup, or pip install again')]


def _python() -> Check:
    """The interpreter, against the range that setup.py allows."""
    found = f'{platform.python_version()} ({sys.executable})'
    if (3, 11) <= sys.version_info[:2] < (3, 14):
        return Check('python', OK, found)
    return Check('python', MISSING, found, 'use Python 3.11 to 3.13')


def _packages() -> list[Check]:
    """Versions of what is installed, and what the absence of the rest means."""
    checks = []
    for name, extra in _PACKAGES.items():
        try:
            checks.append(Check(name, OK, importlib.metadata.version(name)))
        except importlib.metadata.PackageNotFoundError:
            if extra:
                advice = f'pip install {name} (extra: {extra})'
                checks.append(Check(name, WARNING, 'not installed', advice))
            else:
                checks.append(Check(name, MISSING, 'not installed', f'pip install {name}'))
    return checks


def _backend() -> list[Check]:
    """Keras's backend and the devices that it sees."""
    from experiments import quiet

    quiet.load_keras()
    keras = importlib.import_module('keras')
    checks = [Check('keras backend', OK, keras.backend.backend())]
    if keras.backend.backend() == 'tensorflow':
        import tensorflow as tf

        devices = [device.name.split('physical_device:')[-1] for device in tf.config.list_physical_devices()]
    else:
        devices = [str(device) for device in keras.distribution.list_devices()]
    return [*checks, Check('devices', OK, ', '.join(devices))]


def _machine() -> list[Check]:
    """Cores that this process may use, memory and disk."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1
    checks = [Check('cores', OK, f'{cores} usable of {os.cpu_count()}')]
    memory = available_memory_gb()
    if memory is not None:
        state = OK if memory >= _MINIMUM_MEMORY_GB else WARNING
        advice = '' if state == OK else f'training on the defaults needs {_MINIMUM_MEMORY_GB:.0f} GB'
        checks.append(Check('memory', state, f'{memory:.1f} GB available', advice))
    free = shutil.disk_usage('.').free / 1e9
    state = OK if free >= _MINIMUM_DISK_GB else WARNING
    advice = '' if state == OK else 'datasets, checkpoints and artefacts need room'
    checks.append(Check('disk', state, f'{free:.1f} GB free in {pathlib.Path.cwd()}', advice))
    return checks


def available_memory_gb() -> float | None:
    """Memory that a new process can use, in GB; None where the system does not tell."""
    try:
        import psutil

        return psutil.virtual_memory().available / 1e9
    except ImportError:
        pass
    try:
        rows = pathlib.Path('/proc/meminfo').read_text().splitlines()
        return next(int(row.split()[1]) * 1024 / 1e9 for row in rows if row.startswith('MemAvailable'))
    except (OSError, StopIteration):
        return None


def _ffmpeg() -> Check:
    """Decoder for compressed formats that libsndfile does not read."""
    found = shutil.which('ffmpeg')
    if found:
        return Check('ffmpeg', OK, found)
    return Check(
        'ffmpeg',
        WARNING,
        'not found',
        'only for formats beyond WAV, FLAC, OGG, MP3, AIFF; install the package ffmpeg',
    )


def _f0_estimators() -> list[Check]:
    """Which pitch estimators can be used here, and why the others cannot."""
    f0 = importlib.import_module('ddsp.f0')
    checks = []
    for name, problem in f0.available_estimators().items():
        checks.append(Check(f'f0: {name}', WARNING if problem else OK, problem or 'usable'))
    if not any(check.state == OK for check in checks):
        checks.append(Check('f0', MISSING, 'no estimator is usable', 'make setup, or pip install again'))
    return checks


def _tracking() -> list[Check]:
    """Where runs are recorded, and whether a server there answers."""
    from experiments import store

    uri = store.tracking_uri()
    if not uri.startswith('http'):
        return [Check('tracking', OK, uri)]
    problem = store.server_problem(uri)
    if problem:
        return [
            Check('tracking', WARNING, f'{uri}: {problem}', 'start the server, or unset MLFLOW_TRACKING_URI')
        ]
    return [Check('tracking', OK, f'{uri} answers')]
