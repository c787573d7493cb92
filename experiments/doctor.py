"""What is installed and usable on this machine: the checks behind `ddsp doctor`."""

from __future__ import annotations

import ctypes.util
import dataclasses
import importlib
import importlib.metadata
import importlib.util
import os
import pathlib
import platform
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable

from experiments.files import read_json

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
_NATIVE_SECS = 120.0
# Says what it loads, and leaves without the destructors, which TensorFlow's libraries do not survive alone.
_LOAD_NATIVE = """
import ctypes, glob, importlib.util, os
for name in ('numpy', 'scipy.linalg', 'soundfile', 'soxr'):
    print(name, flush=True)
    importlib.import_module(name)
found = importlib.util.find_spec('tensorflow')
root = os.path.dirname(found.origin) if found and found.origin else ''
for name in ('libtensorflow_framework.so*', 'libtensorflow_cc.so*', 'python/_pywrap_tensorflow_internal.so'):
    for path in sorted(glob.glob(os.path.join(root, name))) if root else ():
        print(os.path.basename(path), flush=True)
        ctypes.CDLL(path)
os._exit(0)
"""


@dataclasses.dataclass(frozen=True)
class Check:
    """One line: `state` is 'ok', 'warning' (something optional) or 'missing' (something required)."""

    name: str
    state: str
    found: str
    advice: str = ''


def run_checks() -> list[Check]:
    """Looks at this machine.

    TensorFlow alone takes ten CPU seconds to import. So packages are not imported: their versions are
    compared with what they ask of each other, and the native libraries are loaded by a process of their own,
    which may crash.

    Returns:
      The checks in the order in which they are shown; none raises, whatever is broken.
    """
    checks = [_python(), *_packages(), *_guarded('native libraries', _native)]
    checks += [*_guarded('keras backend', _backend), *_guarded('cores', _machine)]
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
    """Versions of what is installed, what they lack, and what the absence of the rest means."""
    checks = []
    for name, extra in _PACKAGES.items():
        try:
            found = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            advice = f'pip install {name}' + (f' (extra: {extra})' if extra else '')
            checks.append(Check(name, WARNING if extra else MISSING, 'not installed', advice))
            continue
        wrong = unmet_requirements(name)
        advice = f'needs {", ".join(wrong)}: make setup, or pip install again' if wrong else ''
        checks.append(Check(name, WARNING if wrong else OK, found, advice))
    return checks


def unmet_requirements(name: str) -> list[str]:
    """What an installed distribution asks of others that is not so, such as `'numpy<2 (2.4.6 is here)'`."""
    try:
        from packaging.requirements import Requirement
    except ImportError:  # comes with Keras
        return []
    wrong = []
    for line in importlib.metadata.requires(name) or ():
        wanted = Requirement(line)
        if wanted.marker and not wanted.marker.evaluate({'extra': ''}):
            continue
        try:
            there = importlib.metadata.version(wanted.name)
        except importlib.metadata.PackageNotFoundError:
            there = ''
        if not there or not wanted.specifier.contains(there, prereleases=True):
            wrong.append(f'{wanted.name}{wanted.specifier} ({there or "nothing"} is here)')
    return wrong


def _native() -> list[Check]:
    """Whether the compiled parts work on this processor with these system libraries."""
    done = subprocess.run(
        [sys.executable, '-c', _LOAD_NATIVE],
        capture_output=True,
        text=True,
        timeout=_NATIVE_SECS,
        check=False,
    )
    if done.returncode == 0:
        return [Check('native libraries', OK, 'load')]
    if done.returncode < 0:
        last = done.stdout.split()[-1:] or ['nothing']
        found = f'loading {last[0]} ends by {signal.Signals(-done.returncode).name}'
        return [Check('native libraries', MISSING, found, 'another build of it may suit this processor')]
    lines = done.stderr.strip().splitlines() or [f'status {done.returncode}']
    return [Check('native libraries', MISSING, lines[-1], 'make setup, or pip install again')]


def _backend() -> list[Check]:
    """Keras's backend, and the devices of this machine that it can use."""
    name = _backend_name()
    if importlib.util.find_spec(name) is None:
        return [Check('keras backend', MISSING, f'{name} is not installed', f'pip install {name}')]
    return [Check('keras backend', OK, name), _devices(name)]


def _backend_name() -> str:
    """What Keras will take: KERAS_BACKEND, else its file of settings, else TensorFlow."""
    folder = pathlib.Path(os.environ.get('KERAS_HOME') or pathlib.Path.home() / '.keras')
    settings = read_json(folder / 'keras.json')
    return os.environ.get('KERAS_BACKEND') or settings.get('backend') or 'tensorflow'


def _devices(backend: str) -> Check:
    """Processors that a training can use. TensorFlow's GPU libraries are packages of their own."""
    gpus = _gpus()
    if not gpus:
        return Check('devices', OK, 'CPU')
    found = f'CPU, {", ".join(gpus)}'
    installed = {(found.metadata['Name'] or '').lower() for found in importlib.metadata.distributions()}
    here = any(name.startswith('nvidia-cudnn') for name in installed)
    if backend == 'tensorflow' and not here and ctypes.util.find_library('cudnn') is None:
        return Check('devices', WARNING, found, "for the GPU: pip install 'tensorflow[and-cuda]'")
    return Check('devices', OK, found)


def _gpus() -> list[str]:
    """Names of NVIDIA's GPUs, by their own tool."""
    tool = shutil.which('nvidia-smi')
    if tool is None or os.environ.get('CUDA_VISIBLE_DEVICES') in ('', '-1'):
        return []
    asked = [tool, '--query-gpu=name', '--format=csv,noheader']
    done = subprocess.run(asked, capture_output=True, text=True, timeout=_NATIVE_SECS, check=False)
    return [f'GPU {line.strip()}' for line in done.stdout.splitlines()] if done.returncode == 0 else []


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
    """Which pitch estimators can be used here, and why the others cannot; sizes that are all missing for the
    same reason are one line."""
    f0 = importlib.import_module('ddsp.f0')
    found = f0.available_estimators()
    checks = []
    for name, problem in found.items():
        family = name.split('-')[0]
        sizes = [other for other in found if other.split('-')[0] == family]
        if family in found and name != family and all(found[other] for other in sizes):
            continue
        checks.append(Check(f'f0: {name}', WARNING if problem else OK, problem or 'usable'))
    if not any(check.state == OK for check in checks):
        checks.append(Check('f0', MISSING, 'no estimator is usable', 'make setup, or pip install again'))
    return checks


def _tracking() -> list[Check]:
    """Where runs are recorded, and whether it can be used."""
    from experiments.tracking import database, store

    uri, shown = store.tracking_uri(), store.shown_uri()
    if uri.startswith('http'):
        problem, advice = store.server_problem(uri), 'start the server, or unset MLFLOW_TRACKING_URI'
        return [
            Check('tracking', WARNING, f'{shown}: {problem}', advice)
            if problem
            else Check('tracking', OK, f'{shown} answers')
        ]
    problem = database.problem(uri)
    if not problem:
        return [Check('tracking', OK, shown)]
    found = problem if shown in problem else f'{shown}: {problem}'
    return [Check('tracking', WARNING, found, 'docs/experiments.md')]
