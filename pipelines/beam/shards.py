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
from collections.abc import Iterator, Mapping
from typing import Any

from ddsp.errors import DDSPError
from ddsp.f0 import get_estimator
from ddsp.io.audio import AudioError
from ddsp.io.files import write_bytes
from ddsp.io.json_types import COUNT, NUMBER, TEXT, fault
from ddsp.version import __version__
from pipelines.analysis.recording import Recording
from pipelines.analysis.statistics import STATISTICS_SHAPE, Statistics
from pipelines.beam.sdk import beam
from pipelines.options import PrepareOptions
from pipelines.records import RecordWriter
from pipelines.sources.splits import Piece

FEATURES_VERSION = 2  # raise it when the same input would give other records
AT_SUFFIX = '.at'  # file of a worker, by its process id: the recording that it works on
CANCEL_FILE = 'cancel'  # in the folder of the shards: the workers stop when it appears
NAMESPACE, FAILURES = 'ddsp.prepare', 'failures'
_MS = '_ms'  # Beam counts whole numbers: times are counted in milliseconds and given in seconds
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
    """What goes into shard `index` (from 0) of the `count` shards of a split: pieces in order, and how.

    `estimator_sha256` is that of the weights of the f0 estimator; `''` where it has none.
    """

    split: str
    index: int
    count: int
    pieces: tuple[Piece, ...]
    estimator: str
    estimator_sha256: str
    options: PrepareOptions

    def file_name(self, dataset: str) -> str:
        """Its name in a published dataset."""
        return f'{dataset}-{self.split}.tfrecord-{self.index:05d}-of-{self.count:05d}'

    @property
    def seconds(self) -> float:
        """Length of its recordings."""
        return sum(piece.seconds for piece in self.pieces)

    @functools.cached_property
    def fingerprint(self) -> str:
        """A hash of all that decides its bytes: not of names, nor of the other shards."""
        options = self.options.record()
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


@dataclasses.dataclass(frozen=True)
class Shard:
    """A finished shard with what its .json says.

    `origin` is `VERSION/NAME` where it is one of a published version; `''`: it is in the staging folder.
    """

    plan: ShardPlan
    content: dict[str, Any]
    origin: str = ''

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
    """Makes the shards whose plans it is given, in a folder that all workers see, unless they are there.

    What goes wrong is counted as a failure, which the driver raises; the other shards are left then.
    """

    def __init__(self, folder: str) -> None:
        self._folder = folder

    def process(self, plan: ShardPlan) -> Iterator[str]:
        """Yields the key of the shard."""
        folder, started = pathlib.Path(self._folder), time.monotonic()
        if (folder / CANCEL_FILE).exists():
            return
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


def left_by_the_dead(folder: pathlib.Path) -> list[str]:
    """The recordings on which workers that have died were working."""
    left = []
    for file in folder.glob(f'*{AT_SUFFIX}'):
        try:
            os.kill(int(file.stem), 0)  # only asks
        except OSError:
            left.append(os.fsdecode(file.read_bytes()))
    return left


def make_shard(folder: pathlib.Path, plan: ShardPlan) -> dict[str, Any]:
    """Writes a shard and its .json.

    Returns:
      What the .json holds: size, hash, examples, statistics, one row for each piece, costs in CPU seconds.

    Raises:
      DDSPError: The shard cannot be written (no space, no permission), or was `Cancelled`.
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
            temporary.unlink(missing_ok=True)
            raise
        content |= {'bytes': size, 'sha256': digest}
        os.replace(temporary, target)
        write_bytes(target.with_name(f'{target.name}.json'), json.dumps(content).encode())
    except OSError as error:
        raise DDSPError(f'{target} cannot be written: {error.strerror or error}.') from error
    return content


def _fill(writer: RecordWriter, folder: pathlib.Path, plan: ShardPlan) -> dict[str, Any]:
    total, rows = Statistics(), []
    costs: Counter[str] = Counter()
    estimator = get_estimator(plan.estimator)
    for piece in plan.pieces:
        (folder / f'{os.getpid()}{AT_SUFFIX}').write_bytes(os.fsencode(piece.path))
        mark = writer.mark()
        recording = Recording(piece, estimator, plan.options)
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


def count_shard(content: Mapping[str, Any], wall_seconds: float) -> None:
    """Counts a shard that was made, from what `make_shard` gave; called in a worker, within a DoFn."""
    rows = content['rows']
    counts: dict[str, float] = {
        'made/shards': 1, 'made/recordings': len(rows), 'made/examples': content['examples'],
        'made/bytes': content['bytes'], 'made/audio_ms': 1000 * sum(row['seconds'] for row in rows),
        'made/wall_ms': 1000 * wall_seconds,
    }  # fmt: skip
    counts |= Counter(f'rejected/{row["reason"]}' for row in rows if 'reason' in row)
    counts |= {f'cpu_ms/{stage}': 1000 * seconds for stage, seconds in content['costs'].items()}
    for name, value in counts.items():
        beam.metrics.Metrics.counter(NAMESPACE, name).inc(round(value))


def count_failure(message: str) -> None:
    """Tells the driver what stopped a worker; called in a worker, within a DoFn."""
    beam.metrics.Metrics.string_set(NAMESPACE, FAILURES).add(message)


def read_failures(result: Any) -> list[str]:
    """What stopped workers of a pipeline that has ended."""
    found = result.metrics().query(beam.metrics.MetricsFilter().with_name(FAILURES))['string_sets']
    return sorted(message for row in found for message in row.committed)


def read_metrics(result: Any) -> dict[str, float]:
    """What was counted in a pipeline that has ended.

    Returns:
      `made/shards`, `made/recordings`, `made/examples`, `made/bytes`, `rejected/REASON`, and in seconds
      `made/audio_seconds`, `made/wall_seconds` and `cpu_seconds/STAGE` (sums over all workers).
    """
    counters = result.metrics().query(beam.metrics.MetricsFilter().with_namespace(NAMESPACE))['counters']
    found = {counter.key.metric.name: counter.committed or 0 for counter in counters}
    return {
        name.replace(_MS, '_seconds'): value / 1000 if _MS in name else value
        for name, value in sorted(found.items())
    }
