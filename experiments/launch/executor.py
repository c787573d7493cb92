"""What an engine that runs jobs has to provide, and the engines by name."""

from __future__ import annotations

import abc
import difflib
import enum
import importlib
from collections.abc import Iterator
from typing import ClassVar

from ddsp.errors import ConfigError
from experiments.launch.job import Job

NAMES = ('local', 'slurm', 'kubernetes', 'vertex', 'skypilot')
_CLASSES = {
    'local': 'Local', 'slurm': 'Slurm', 'kubernetes': 'Kubernetes', 'vertex': 'Vertex', 'skypilot': 'SkyPilot'
}  # fmt: skip


class State(enum.Enum):
    """Where a job stands."""

    WAITING = 'waiting'
    RUNNING = 'running'
    DONE = 'done'
    FAILED = 'failed'
    CANCELLED = 'cancelled'
    UNKNOWN = 'unknown'  # the engine has forgotten it

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen."""
        return self in (State.DONE, State.FAILED, State.CANCELLED)

    @property
    def going_on(self) -> bool:
        """Whether the engine has it, and it has not ended."""
        return self in (State.WAITING, State.RUNNING)


class Executor(abc.ABC):
    """An engine that runs jobs. It keeps nothing: `handle` is the engine's own name of a job.

    All methods raise a `LaunchError` that says what the engine answered and what to do.
    """

    name: ClassVar[str]
    # Settings in `Job.options`, and what each is for.
    options: ClassVar[dict[str, str]] = {}

    @abc.abstractmethod
    def describe(self, job: Job) -> str:
        """Exactly what `submit` sends, as text (a script, YAML or JSON), without any secret."""

    @abc.abstractmethod
    def submit(self, job: Job) -> str:
        """Submits a job; returns its handle."""

    @abc.abstractmethod
    def state(self, handle: str) -> State:
        """Where a job stands."""

    @abc.abstractmethod
    def logs(self, handle: str, follow: bool = False) -> Iterator[str]:
        """Lines of the logs of all processes, those of process N beginning with `[N] `; `follow` waits for
        more until the job has ended."""

    @abc.abstractmethod
    def cancel(self, handle: str) -> None:
        """Ends a job; one that has ended stays as it is."""

    def address(self, handle: str) -> str:
        """Page of a job in the engine's own console; `''`: there is none."""
        return ''


def get_executor(name: str) -> Executor:
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
