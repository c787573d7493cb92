"""What is to run: one description for all engines."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping

from ddsp.errors import ConfigError, DDSPError

COMMANDS = ('train', 'sweep', 'evaluate', 'prepare')
# Exit status of what a repetition does not mend: an error that the message explains, wrong usage.
MISTAKES = (1, 2)
_NAME = re.compile(r'[a-z]([a-z0-9-]{0,38}[a-z0-9])?')


class LaunchError(DDSPError):
    """An engine refused a job, does not answer, or cannot do what was asked for."""


@dataclasses.dataclass(frozen=True)
class Job:
    """A `ddsp` command, where it runs, and what it may use there.

    Attributes:
      name: Lower-case letters, digits and dashes, 40 at most: a name that every engine takes.
      command: The words after `ddsp`, such as `('train', 'gs://bucket/data/violin', '--save-dir', ...)`.
      replicas: Processes. Those of `train` train one model together; others are independent of each other.
      image: Container image; `''`: the engine runs what is installed here.
      cpus: Processor cores of a process.
      memory_gb: Memory of a process in GB.
      gpus: Accelerators of a process.
      accelerator: Their kind, in the engine's words, such as `'nvidia-l4'`; `''`: any.
      time_limit_minutes: The engine ends the job after this; None: its own limit.
      env: Further variables of the environment, none of them secret.
      secrets: Names of variables whose values the engine keeps: they are never written into a description.
      retries: How often a job that failed or lost a process starts again, to go on from its last checkpoint.
      spot: Whether the engine may take machines away.
      options: Settings of one engine, such as `{'partition': 'gpu'}`; an unknown one is an error.
    """

    name: str
    command: tuple[str, ...]
    replicas: int = 1
    image: str = ''
    cpus: int = 4
    memory_gb: int = 8
    gpus: int = 0
    accelerator: str = ''
    time_limit_minutes: int | None = None
    env: Mapping[str, str] = dataclasses.field(default_factory=dict)
    secrets: tuple[str, ...] = ()
    retries: int = 3
    spot: bool = False
    options: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ConfigError(
                f'the name of the job is {self.name!r}; it must consist of lower-case letters, digits and '
                'dashes, begin with a letter, and have 40 characters at most'
            )
        if not self.command or self.command[0] not in COMMANDS:
            raise ConfigError(
                f'a job runs {", ".join(COMMANDS)}; {" ".join(self.command[:1]) or "nothing"} was given'
            )

    @property
    def trains_together(self) -> bool:
        """Whether the processes are the workers of one training."""
        return self.command[0] == 'train' and self.replicas > 1
