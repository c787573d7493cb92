"""Differentiable digital signal processing.

The submodules load when they are first used: `import ddsp` alone imports neither Keras nor a backend, so that
the workers of a pipeline (`ddsp.io`, `ddsp.analysis`, `ddsp.f0`) stay small and start quickly.
"""

from __future__ import annotations

import importlib
from types import ModuleType

from ddsp.version import __version__

_SUBMODULES = (
    'analysis', 'core', 'dags', 'effects', 'errors', 'export', 'f0', 'inference', 'io', 'losses',
    'processors', 'spectral_ops', 'synths', 'training',
)  # fmt: skip

__all__ = ['__version__', *_SUBMODULES]


def __getattr__(name: str) -> ModuleType:
    if name in _SUBMODULES:
        return importlib.import_module(f'ddsp.{name}')
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')


def __dir__() -> list[str]:
    return sorted({*globals(), *_SUBMODULES})
