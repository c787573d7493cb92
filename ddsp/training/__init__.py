"""Models and their training. Submodules are loaded when they are first used."""

import importlib
from typing import Any

from ddsp.training import gin_errors as _gin_errors  # noqa: F401

_MODULES = (
    'checkpoints',
    'config',
    'data',
    'decoders',
    'encoders',
    'eval_util',
    'evaluators',
    'metrics',
    'models',
    'nn',
    'postprocessing',
    'preprocessing',
    'train_util',
    'trainers',
)

__all__ = list(_MODULES)


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f'ddsp.training.{name}')
    raise AttributeError(f"module 'ddsp.training' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES})
