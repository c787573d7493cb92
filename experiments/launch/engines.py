"""The executors by name."""

from __future__ import annotations

import difflib
import importlib

from ddsp.errors import ConfigError
from experiments.launch.executor import Executor
from experiments.launch.job import Job

NAMES = ('local', 'slurm', 'kubernetes', 'vertex', 'skypilot')
_CLASSES = {
    'local': 'Local', 'slurm': 'Slurm', 'kubernetes': 'Kubernetes', 'vertex': 'Vertex', 'skypilot': 'SkyPilot'
}  # fmt: skip


def executor(name: str) -> Executor:
    """The executor of a name among `NAMES`."""
    made: Executor = getattr(importlib.import_module(f'experiments.launch.{name}'), _CLASSES[name])()
    return made


def check_options(engine: Executor, job: Job) -> None:
    """Raises a ConfigError for a setting that the engine does not have."""
    for key in job.options:
        if key not in engine.options:
            near = difflib.get_close_matches(key, engine.options, 1)
            hint = f' Did you mean {near[0]!r}?' if near else ''
            known = ', '.join(engine.options) or 'none'
            raise ConfigError(f'{engine.name} has no setting {key!r} (--set); it has {known}.{hint}')
