"""Crash logs: what an unexpected error leaves for whoever looks for its cause later."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import pathlib
import platform
import shlex
import sys
import time
import traceback
from collections.abc import Iterator

from ddsp.errors import DDSPError
from ddsp.io.files import write_bytes
from ddsp.version import __version__
from experiments import masking

_PACKAGES = (
    'keras', 'tensorflow', 'jax', 'numpy', 'gin-config', 'mlflow', 'optuna', 'sqlalchemy', 'apache-beam',
)  # fmt: skip
_LOG = '_ddsp_crash_log'  # attribute of an error that has its log


@contextlib.contextmanager
def logged(folder: str | os.PathLike[str], *expected: str) -> Iterator[None]:
    """Writes a crash log into `folder` when the block ends with an unexpected error, which goes on its way.

    Errors for users (`DDSPError`) and those with one of the `expected` names need no log.
    """
    try:
        yield
    except DDSPError:
        raise
    except Exception as error:
        if type(error).__name__ not in expected:
            write(folder, error)
        raise


def log_of(error: BaseException) -> pathlib.Path | None:
    """The crash log of an error; None when it has none."""
    return getattr(error, _LOG, None)


def write(folder: str | os.PathLike[str], error: BaseException) -> pathlib.Path | None:
    """Writes `crash-TIME.log`: traceback, command, versions and configuration, without passwords.

    Returns the log, or None when it cannot be written. An error has one log: the first that was written.
    """
    if (known := log_of(error)) is not None:
        return known
    path = pathlib.Path(folder) / f'crash-{time.strftime("%Y%m%d-%H%M%S")}-{os.getpid()}.log'
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(path, masking.clean(_text(error)).encode(errors='backslashreplace'))
        setattr(error, _LOG, path)
    except (OSError, AttributeError):  # nothing may hide the error itself
        return path if path.exists() else None
    return path


def _text(error: BaseException) -> str:
    """All that a log holds."""
    parts = {
        'Command': shlex.join(sys.argv),
        'Traceback': ''.join(traceback.format_exception(error)),
        'Versions': '\n'.join(_versions()),
        'Configuration': _configuration(),
    }
    return '\n\n'.join(f'{title}\n{"-" * len(title)}\n{text.strip()}' for title, text in parts.items()) + '\n'


def _versions() -> list[str]:
    """One line for each package that matters, the system first."""
    lines = [f'ddsp {__version__}', f'Python {platform.python_version()}', platform.platform()]
    lines.append(f'KERAS_BACKEND {os.environ.get("KERAS_BACKEND", "")}')
    for name in _PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            lines.append(f'{name} {importlib.metadata.version(name)}')
    return lines


def _configuration() -> str:
    """The gin configuration in force; empty when gin is not in use."""
    gin = sys.modules.get('gin')
    try:
        return gin.config_str() if gin is not None else ''
    except Exception as error:  # a log without a configuration is better than none
        return f'not available: {error}'
