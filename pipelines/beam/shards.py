"""One call makes one whole shard: decode, analyse, cut, write. What runs in the workers of a pipeline.

A shard is named after its fingerprint, written under a temporary name and renamed; its .json beside it,
written last, holds what the manifest and the statistics need. A shard that is there is not made again.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import json
import os
import pathlib
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

from ddsp.errors import DDSPError
from ddsp.f0 import get_estimator
from ddsp.io.audio import AudioError
from ddsp.io.files import write_bytes
from ddsp.io.json_types import COUNT, NUMBER, TEXT, fault
from ddsp.version import __version__
from pipelines.analysis.recording import Recording
from pipelines.analysis.statistics import STATISTICS_SHAPE, Statistics
from pipelines.beam.counters import count_failure, count_shard
from pipelines.beam.sdk import beam
from pipelines.options import PrepareOptions
from pipelines.records import RecordWriter
from pipelines.sources.splits import Piece

FEATURES_VERSION = 2  # raise it when the same input would give other records
CANCEL_FILE = 'cancel'  # in the folder of the shards: the workers stop when it appears
# What is kept of a shard: beside it, and in shards.jsonl of a published version.
_CONTENT = {
    'fingerprint': TEXT, 'split': TEXT, 'examples': COUNT, 'bytes': COUNT, 'sha256': TEXT,
    'statistics': STATISTICS_SHAPE,
    'rows': [{
        'seconds': NUMBER, 'examples': COUNT, 'warnings': [TEXT], 'reason?': TEXT, 'message?': TEXT,
        'gain_db?': NUMBER, 'dropped?': {TEXT: COUNT},
    }],
}  # fmt: skip
SHARD_ROW = {'name': TEXT, **_CONTENT}


class Cancelled(DDSPError):
    """The preparation was interrupted."""


@dataclasses.dataclass(frozen=True)
class ShardPlan:
    """What goes into one shard.

    Attributes:
      split: Its split.
      index: Its number, from 0.
      count: Number of shards of the split.
      pieces: What it holds, in order.
      estimator: Name of the f0 estimator.
      estimator_sha256: Of its weights; `''` where it has none.
      options: The options as JSON.
    """

    split: str
    index: int
    count: int
    pieces: tuple[Piece, ...]
    estimator: str
    estimator_sha256: str
    options: str

    @property
    def stem(self) -> str:
        """Its name without that of the dataset."""
        return f'{self.split}.tfrecord-{self.index:05d}-of-{self.count:05d}'

    @property
    def seconds(self) -> float:
        """Length of its recordings."""
        return sum(piece.seconds for piece in self.pieces)

    @functools.cached_property
    def fingerprint(self) -> str:
        """A hash of all that decides its bytes: not of names, nor of the other shards."""
        options = PrepareOptions.from_json(self.options).record()
        for name in ('f0', 'splits', 'num_shards'):  # what they mean for this shard is in the rest
            del options[name]
        recipe = {
            'version': [FEATURES_VERSION, __version__.split('.')[0]],
            'split': self.split,
            'pieces': [[piece.sha256, piece.start_s, piece.end_s] for piece in self.pieces],
            'estimator': [self.estimator, self.estimator_sha256],
            'options': options,
        }
        return hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()

    @property
    def key(self) -> str:
        """Its name while it is not published."""
        return f'{self.split}-{self.fingerprint[:32]}'

    def to_json(self) -> str:
        """As an element of the pipeline: a short string, with names that are not UTF-8 escaped."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> ShardPlan:
        """Reads what `to_json` gave."""
        content = json.loads(text)
        content['pieces'] = tuple(Piece(**piece) for piece in content['pieces'])
        return cls(**content)


@dataclasses.dataclass(frozen=True)
class Shard:
    """A finished shard.

    Attributes:
      plan: What it holds.
      content: What its .json says.
      origin: `VERSION/NAME` where it is one of a published version; `''`: it is in the staging folder.
    """

    plan: ShardPlan
    content: dict[str, Any]
    origin: str = ''

    def name(self, dataset: str) -> str:
        """Its file name in a dataset of that name."""
        return f'{dataset}-{self.plan.stem}'

    def rows(self) -> Iterator[tuple[Piece, dict[str, Any]]]:
        """Each piece with what became of it."""
        return zip(self.plan.pieces, self.content['rows'], strict=True)


def finished_shard(folder: pathlib.Path, plan: ShardPlan) -> dict[str, Any] | None:
    """What the .json of a shard says, or None where the shard must be made."""
    try:
        row = json.loads((folder / f'{plan.key}.json').read_text())
        size = (folder / plan.key).stat().st_size
    except (OSError, ValueError):
        return None
    same = not fault(row, _CONTENT) and row['fingerprint'] == plan.fingerprint and row['bytes'] == size
    return row if same and len(row['rows']) == len(plan.pieces) else None


class MakeShard(beam.DoFn):
    """Makes the shards whose plans it is given, unless they are there.

    What goes wrong is counted as a failure, which the driver raises; the other shards are left then.

    Args:
      folder: Where to write; all workers see it.
    """

    def __init__(self, folder: str) -> None:
        self._folder = folder

    def process(self, element: str) -> Iterator[str]:
        """Takes a `ShardPlan` as JSON and yields the key of the shard."""
        plan, folder = ShardPlan.from_json(element), pathlib.Path(self._folder)
        started = time.monotonic()
        try:
            if finished_shard(folder, plan) is None:
                count_shard(make_shard(folder, plan), time.monotonic() - started)
            yield plan.key
        except Cancelled:
            return
        except DDSPError as error:
            count_failure(str(error))
            with contextlib.suppress(OSError):
                (folder / CANCEL_FILE).touch()


def make_shard(folder: pathlib.Path, plan: ShardPlan) -> dict[str, Any]:
    """Writes a shard and its .json.

    Args:
      folder: Where to write.
      plan: What it holds.

    Returns:
      What the .json holds: size, hash, examples, statistics, one row for each piece, costs in CPU seconds.

    Raises:
      DDSPError: The shard cannot be written (no space, no permission).
      Cancelled: The preparation was interrupted.
    """
    target = folder / plan.key
    # With the process in its name: a worker whose driver was killed may still be at the same shard.
    temporary = target.with_name(f'{target.name}.{os.getpid()}.part')
    try:
        writer = RecordWriter(temporary)
        try:
            content = _fill(writer, folder, plan)
            size, digest = writer.close()
        except BaseException:
            writer.abandon()
            temporary.unlink(missing_ok=True)
            raise
        content |= {'bytes': size, 'sha256': digest}
        os.replace(temporary, target)
        write_bytes(target.with_name(f'{target.name}.json'), json.dumps(content).encode())
    except OSError as error:
        raise DDSPError(f'{target} cannot be written: {error.strerror or error}.') from error
    return content


def _fill(writer: RecordWriter, folder: pathlib.Path, plan: ShardPlan) -> dict[str, Any]:
    options = PrepareOptions.from_json(plan.options)
    total, rows = Statistics(), []
    costs: Counter[str] = Counter()
    estimator = get_estimator(plan.estimator)
    for piece in plan.pieces:
        mark = writer.mark()
        recording = Recording(piece, estimator, options)
        try:
            for example in recording.examples():
                if (folder / CANCEL_FILE).exists():
                    raise Cancelled('interrupted')
                started = time.thread_time()
                writer.write(example)
                recording.costs['write'] += time.thread_time() - started
            recording.judge(writer.examples - mark[1])
        except AudioError as error:
            writer.rewind(mark)
            recording.reject(error)
        rows.append(recording.row(writer.examples - mark[1]))
        if recording.statistics.examples:
            total.merge(recording.statistics)
        costs.update(recording.costs)
    return {
        'fingerprint': plan.fingerprint, 'split': plan.split, 'examples': writer.examples,
        'statistics': total.to_json(), 'rows': rows, 'costs': costs,
    }  # fmt: skip
