"""What an engine that runs jobs has to provide."""

from __future__ import annotations

import abc
import enum
from collections.abc import Iterator
from typing import ClassVar

from experiments.launch.job import Job


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
