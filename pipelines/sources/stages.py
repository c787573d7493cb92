"""The stages of an input: Found, then Probed, at last Accepted or Rejected.

Each is frozen: a function takes one stage and returns the next, and whatever is wrong makes a Rejected of it
at once. `finding.expand` gives Found, `probing.look_into` Probed, `pipelines.publish.outcomes` Accepted.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any, ClassVar

from ddsp.errors import DDSPError
from ddsp.io.audio import AudioInfo
from ddsp.io.decoding import shown


class ChangedError(DDSPError):
    """An input is no longer the one that was looked into, which its shard is named after."""

    @classmethod
    def of(cls, path: str) -> ChangedError:
        """That of an input."""
        return cls(
            f'{shown(path)} was changed or removed while the dataset was being made. Run the same command '
            'again: finished shards are kept.'
        )


@dataclasses.dataclass(frozen=True)
class Found:
    """An input that was listed; nothing of it was read.

    Attributes:
      path: Absolute path, or address.
      stamp: Changes with its content; `''` where only reading it can tell.
      seconds: Its length, where listing tells that; 0 where only the header does.
      record: Where it is, for a record of TensorFlow Datasets (see `pipelines.sources.tfds_source`).
      split: The split that it belongs to; `''`: a hash of its content decides.
    """

    path: str
    stamp: str = ''
    seconds: float = 0.0
    record: dict[str, Any] | None = None
    split: str = ''


@dataclasses.dataclass(frozen=True)
class Probed:
    """A recording whose header makes sense.

    `sha256` is that of its bytes; `head` that of its first samples, where duplicates were looked for.
    """

    found: Found
    sha256: str
    info: AudioInfo
    head: str = ''
    outcome: ClassVar[str] = ''
    reason: ClassVar[str] = ''

    @property
    def path(self) -> str:
        """Absolute path, or address."""
        return self.found.path

    @property
    def seconds(self) -> float:
        """Its length as the header has it; 0 where that does not say."""
        return self.info.duration_s or 0.0


@dataclasses.dataclass(frozen=True)
class Accepted:
    """A recording that is in the dataset, with what is odd about it."""

    probed: Probed
    warnings: tuple[str, ...] = ()
    outcome: ClassVar[str] = 'accepted'

    @property
    def path(self) -> str:
        """Absolute path, or address."""
        return self.probed.path


@dataclasses.dataclass(frozen=True)
class Rejected:
    """An input that is not in the dataset.

    Attributes:
      path: Absolute path, or address.
      reason: One word for a machine.
      message: One sentence for a person.
      outcome: `'rejected'`; `'skipped'` where it was not meant as a recording, `'duplicate'` where another
        input holds the same sound.
      probed: The recording, where its header made sense.
      warnings: What is odd about it otherwise.
    """

    path: str
    reason: str
    message: str
    outcome: str = 'rejected'
    probed: Probed | None = None
    warnings: tuple[str, ...] = ()

    @property
    def sha256(self) -> str:
        """SHA-256 of its bytes, where they could be read."""
        return self.probed.sha256 if self.probed else ''


Outcome = Accepted | Rejected


def unusable(rows: Iterable[object]) -> list[Rejected]:
    """The inputs that were meant to be used and cannot be: neither skipped nor duplicates."""
    return [row for row in rows if isinstance(row, Rejected) and row.outcome == 'rejected']
