"""One call makes one whole shard: decode, analyse, cut, write. What runs in the workers of a pipeline.

A shard is named after its fingerprint, written under a temporary name and renamed; its .json beside it,
written last, holds what the manifest and the statistics need. A shard that is there, or in an earlier version
of the dataset, is not made again.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import os
import pathlib
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from ddsp.audio import AudioError, probe, read_blocks
from ddsp.decoding import shown
from ddsp.errors import DDSPError
from ddsp.f0 import get_estimator
from ddsp.version import __version__
from pipelines._beam import beam
from pipelines.features import Analyser, Features, cut_examples
from pipelines.metrics import count_shard
from pipelines.options import PrepareOptions
from pipelines.records import RecordWriter
from pipelines.sources import Piece
from pipelines.statistics import Statistics

FEATURES_VERSION = 2  # raise it when the same input would give other records
CANCEL_FILE = 'cancel'
PATH_MARK = '{path}'  # stands for the recording in messages, which outlive its name
FAILURE_MARK = 'ddsp-prepare-failed:'  # in front of a message that the driver shows as it is
_MIN_SECS = 0.064  # one analysis window
_SILENT_DB = -70.0
_UNPITCHED_SHARE = 0.02
_QUIET_DB = -45.0


class ShardError(DDSPError):
    """A shard that cannot be written."""


class Cancelled(DDSPError):
    """The run was interrupted."""


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
    return row if row['fingerprint'] == plan.fingerprint and row['bytes'] == size else None


class MakeShard(beam.DoFn):
    """Makes the shards whose plans it is given, unless they are there.

    Args:
      folder: Where to write; all workers see it.
    """

    def __init__(self, folder: str) -> None:
        self._folder = folder

    def process(self, element: str) -> Iterator[str]:
        """Takes a `ShardPlan` as JSON and yields the key of the shard."""
        plan, folder = ShardPlan.from_json(element), pathlib.Path(self._folder)
        if finished_shard(folder, plan) is None:
            started = time.monotonic()
            try:
                content = make_shard(folder, plan)
            except DDSPError as error:
                raise RuntimeError(f'{FAILURE_MARK}{json.dumps(str(error))}') from error
            count_shard(content, time.monotonic() - started)
        yield plan.key


def make_shard(folder: pathlib.Path, plan: ShardPlan) -> dict[str, Any]:
    """Writes a shard and its .json.

    Args:
      folder: Where to write.
      plan: What it holds.

    Returns:
      What the .json holds: size, hash, examples, statistics, one row for each piece, costs in CPU seconds.

    Raises:
      ShardError: The shard cannot be written (no space, no permission).
      Cancelled: The run was interrupted.
    """
    target = folder / plan.key
    temporary = target.with_name(target.name + '.part')
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
        described = target.with_name(target.name + '.json.part')
        described.write_text(json.dumps(content))
        os.replace(described, target.with_name(target.name + '.json'))
    except OSError as error:
        raise ShardError(f'{target} cannot be written: {error.strerror or error}.') from error
    return content


def _fill(writer: RecordWriter, folder: pathlib.Path, plan: ShardPlan) -> dict[str, Any]:
    options = PrepareOptions.from_json(plan.options)
    total, rows = Statistics(), []
    costs: dict[str, float] = {}
    progress = _Progress(folder, plan)
    for piece in plan.pieces:
        mark = writer.mark()
        recording = _Recording(piece, plan, options, progress)
        try:
            for example in recording.examples():
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
        for stage, seconds in recording.costs.items():
            costs[stage] = costs.get(stage, 0.0) + seconds
    return {
        'fingerprint': plan.fingerprint, 'split': plan.split, 'examples': writer.examples,
        'statistics': total.to_json(), 'rows': rows, 'costs': costs,
    }  # fmt: skip


class _Recording:
    """One piece of a recording on its way into a shard."""

    def __init__(self, piece: Piece, plan: ShardPlan, options: PrepareOptions, progress: _Progress) -> None:
        self._piece, self._options, self._progress = piece, options, progress
        self._estimator = get_estimator(plan.estimator)
        self.statistics = Statistics()
        self.costs = dict.fromkeys(('decode', 'resample', 'f0', 'loudness', 'write'), 0.0)
        self._warnings: list[str] = []
        self._error: AudioError | None = None
        self._seconds = 0.0

    def examples(self) -> Iterator[dict[str, np.ndarray]]:
        """The examples of the piece; statistics are taken on the way."""
        info = probe(self._piece.file)
        analyser = Analyser(self._options, self._estimator, info.sample_rate)
        pieces = self._counted(analyser.run(self._blocks(info.sample_rate)))
        yield from cut_examples(pieces, self._options)
        self.costs.update(analyser.costs)

    def _blocks(self, rate: int) -> Iterator[np.ndarray]:
        """Blocks at the file's own rate, from the piece's start to its end."""
        start = round(self._piece.start_s * rate)
        end = None if self._piece.end_s is None else round(self._piece.end_s * rate)
        at, started = 0, time.thread_time()
        for block in read_blocks(self._piece.file, channel=self._options.channel, warnings=self._warnings):
            self.costs['decode'] += time.thread_time() - started
            inside = block[max(0, start - at) : None if end is None else max(0, end - at)]
            at += len(block)
            if len(inside):
                self._seconds += len(inside) / rate
                yield inside
            if end is not None and at >= end:
                return
            started = time.thread_time()

    def _counted(self, pieces: Iterator[Features]) -> Iterator[Features]:
        for features in pieces:
            self.statistics.add_frames(features.f0_hz, features.f0_confidence, features.loudness_db)
            self._progress.add(len(features.f0_hz) / self._options.frame_rate)
            yield features

    def judge(self, examples: int) -> None:
        """Refuses what is no training data, and notes what is odd.

        Raises:
          AudioError: The piece is too short, silent or without pitch.
        """
        name, stats = PATH_MARK, self.statistics
        stats.examples, stats.audio_seconds = examples, self._seconds
        if self._seconds < _MIN_SECS:
            raise AudioError(
                'too_short', f'{name} has {self._seconds * 1000:.0f} ms: less than one analysis window.'
            )
        if not examples:
            raise AudioError(
                'too_short', f'{name} is shorter than one example and tails are left out (pad_tail).'
            )
        if stats.loudness_db.max < _SILENT_DB:
            raise AudioError('silent', f'{name} is silent: its loudness stays below {_SILENT_DB:g} dB.')
        if stats.voiced_share < _UNPITCHED_SHARE:
            share = 100 * stats.voiced_share
            raise AudioError('unpitched', f'{name} has no pitch: {share:.1f} % of its frames are voiced.')
        if stats.loudness_db.max < _QUIET_DB:
            self._warnings.append(f'very quiet: its loudness stays below {stats.loudness_db.max:.0f} dB')
        if stats.voiced_share < 0.5:
            self._warnings.append(f'only {100 * stats.voiced_share:.0f} % of the frames are voiced')
        if self._seconds < self._options.example_secs:
            self._warnings.append(f'shorter than an example ({self._seconds:.2f} s): padded')

    def reject(self, error: AudioError) -> None:
        """Forgets the piece."""
        self._error, self.statistics = error, Statistics()

    def row(self, examples: int) -> dict[str, Any]:
        """What became of the piece."""
        row = {'seconds': round(self._seconds, 6), 'examples': examples, 'warnings': self._warnings}
        if self._error is not None:
            message = str(self._error).replace(shown(self._piece.file), PATH_MARK)
            row |= {'reason': self._error.reason, 'message': message}
        return row


class _Progress:
    """Tells the driver how far a shard is, by a small file, and hears from it whether to stop."""

    def __init__(self, folder: pathlib.Path, plan: ShardPlan) -> None:
        self._file, self._cancel = folder / f'{plan.key}.progress', folder / CANCEL_FILE
        self._seconds = 0.0

    def add(self, seconds: float) -> None:
        if self._cancel.exists():
            raise Cancelled('interrupted')
        self._seconds += seconds
        self._file.write_text(f'{self._seconds:.3f}')
