"""What is installed and usable on this machine: the checks behind `ddsp doctor`."""

from __future__ import annotations

import contextlib
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
from collections.abc import Iterator

from ddsp.errors import MissingDependencyError
from experiments.files import read_json
from pipelines.options import cores

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
_INSTALL_AGAIN = 'make setup, or pip install again'
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


def _judged(name: str, good: bool, found: str, advice: str, otherwise: str = WARNING) -> Check:
    """A check with its advice where it is needed."""
    return Check(name, OK, found) if good else Check(name, otherwise, found, advice)


def run_checks() -> list[Check]:
    """Looks at this machine; no check raises, whatever is broken.

    TensorFlow alone takes ten CPU seconds to import. So packages are not imported: their versions are
    compared with what they ask of each other, and the native libraries are loaded by a process of their own,
    which may crash.
    """
    checks: list[Check] = []
    for name, look in _CHECKS.items():
        try:
            checks += look()
        except Exception as error:
            found = f'{type(error).__name__}: {error}'
            checks.append(Check(name, MISSING, found, _INSTALL_AGAIN))
    return checks


def _python() -> Iterator[Check]:
    """The interpreter, against the range that setup.py allows."""
    right = (3, 11) <= sys.version_info[:2] < (3, 14)
    found = f'{platform.python_version()} ({sys.executable})'
    yield _judged('python', right, found, 'use Python 3.11 to 3.13', MISSING)


def _packages() -> Iterator[Check]:
    """Versions of what is installed, what they lack, and what the absence of the rest means."""
    for name, extra in _PACKAGES.items():
        try:
            found = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            advice = f'pip install {name}' + (f' (extra: {extra})' if extra else '')
            yield Check(name, WARNING if extra else MISSING, 'not installed', advice)
            continue
        wrong = unmet_requirements(name)
        yield _judged(name, not wrong, found, f'needs {", ".join(wrong)}: {_INSTALL_AGAIN}')


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


def _native() -> Iterator[Check]:
    """Whether the compiled parts work on this processor with these system libraries."""
    command = [sys.executable, '-c', _LOAD_NATIVE]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_NATIVE_SECS, check=False)
    name = 'native libraries'
    if done.returncode == 0:
        yield Check(name, OK, 'load')
    elif done.returncode < 0:
        last = done.stdout.split()[-1:] or ['nothing']
        found = f'loading {last[0]} ends by {signal.Signals(-done.returncode).name}'
        yield Check(name, MISSING, found, 'another build of it may suit this processor')
    else:
        lines = done.stderr.strip().splitlines() or [f'status {done.returncode}']
        yield Check(name, MISSING, lines[-1], _INSTALL_AGAIN)


def _backend() -> Iterator[Check]:
    """Keras's backend, and the devices of this machine that it can use."""
    name = _backend_name()
    if importlib.util.find_spec(name) is None:
        yield Check('keras backend', MISSING, f'{name} is not installed', f'pip install {name}')
        return
    yield Check('keras backend', OK, name)
    yield _devices(name)


def _backend_name() -> str:
    """What Keras will take: KERAS_BACKEND, else its file of settings, else TensorFlow."""
    folder = pathlib.Path(os.environ.get('KERAS_HOME') or pathlib.Path.home() / '.keras')
    settings = read_json(folder / 'keras.json')
    return os.environ.get('KERAS_BACKEND') or settings.get('backend') or 'tensorflow'


def _devices(backend: str) -> Check:
    """Processors that a training can use. TensorFlow's GPU libraries are packages of their own."""
    gpus = _gpus()
    installed = {(found.metadata['Name'] or '').lower() for found in importlib.metadata.distributions()}
    here = any(name.startswith('nvidia-cudnn') for name in installed)
    usable = not gpus or backend != 'tensorflow' or here or ctypes.util.find_library('cudnn') is not None
    return _judged(
        'devices', usable, ', '.join(['CPU', *gpus]), "for the GPU: pip install 'tensorflow[and-cuda]'"
    )


def _gpus() -> list[str]:
    """Names of NVIDIA's GPUs, by their own tool."""
    tool = shutil.which('nvidia-smi')
    if tool is None or os.environ.get('CUDA_VISIBLE_DEVICES') in ('', '-1'):
        return []
    asked = [tool, '--query-gpu=name', '--format=csv,noheader']
    done = subprocess.run(asked, capture_output=True, text=True, timeout=_NATIVE_SECS, check=False)
    return [f'GPU {line.strip()}' for line in done.stdout.splitlines()] if done.returncode == 0 else []


def _machine() -> Iterator[Check]:
    """Cores that this process may use, memory and disk."""
    yield Check('cores', OK, f'{cores()} usable of {os.cpu_count()}')
    if (memory := _available_memory_gb()) is not None:
        advice = f'training on the defaults needs {_MINIMUM_MEMORY_GB:.0f} GB'
        yield _judged('memory', memory >= _MINIMUM_MEMORY_GB, f'{memory:.1f} GB available', advice)
    free, where = shutil.disk_usage('.').free / 1e9, pathlib.Path.cwd()
    advice = 'datasets, checkpoints and artefacts need room'
    yield _judged('disk', free >= _MINIMUM_DISK_GB, f'{free:.1f} GB free in {where}', advice)


def _available_memory_gb() -> float | None:
    """Memory that a new process can use, in GB; None where the system does not tell."""
    try:
        rows = pathlib.Path('/proc/meminfo').read_text().splitlines()
        return next(int(row.split()[1]) * 1024 / 1e9 for row in rows if row.startswith('MemAvailable'))
    except (OSError, StopIteration):
        return None


def _ffmpeg() -> Iterator[Check]:
    """Decoder for compressed formats that libsndfile does not read."""
    found = shutil.which('ffmpeg')
    advice = 'only for formats beyond WAV, FLAC, OGG, MP3, AIFF; install the package ffmpeg'
    yield _judged('ffmpeg', bool(found), found or 'not found', advice)


def _f0_estimators() -> Iterator[Check]:
    """Which pitch estimators can be used here, and why the others cannot; sizes that are all missing for the
    same reason are one line."""
    found = importlib.import_module('ddsp.f0').available_estimators()
    for name, problem in found.items():
        family = name.split('-')[0]
        sizes = [other for other in found if other.split('-')[0] == family]
        if name == family or family not in found or not all(found[other] for other in sizes):
            yield Check(f'f0: {name}', WARNING if problem else OK, problem or 'usable')
    if all(found.values()):
        yield Check('f0', MISSING, 'no estimator is usable', _INSTALL_AGAIN)


def _tracking() -> Iterator[Check]:
    """Where runs are recorded, and whether it can be used."""
    from experiments.tracking import database, store

    uri, shown = store.tracking_uri(), store.shown_uri()
    if uri.startswith('http'):
        problem, advice = store.server_problem(uri), 'start the server, or unset MLFLOW_TRACKING_URI'
        if not problem:
            with contextlib.suppress(MissingDependencyError):  # which is reported above
                problem, advice = store.client_problem(uri), 'docs/experiments.md'
    else:
        problem, advice = database.problem(uri), 'docs/experiments.md'
    if problem:
        yield Check('tracking', WARNING, problem if shown in problem else f'{shown}: {problem}', advice)
    else:
        yield Check('tracking', OK, f'{shown} answers' if uri.startswith('http') else shown)


_CHECKS = {
    'python': _python,
    'packages': _packages,
    'native libraries': _native,
    'keras backend': _backend,
    'cores': _machine,
    'ffmpeg': _ffmpeg,
    'f0 estimators': _f0_estimators,
    'tracking': _tracking,
}
