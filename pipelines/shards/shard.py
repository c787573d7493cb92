"""One call makes one whole shard: decode, analyse, cut, write. What runs in the workers of a pipeline.

A shard is named after its fingerprint, written under a temporary name and renamed; its .json beside it,
written last, holds what the manifest and the statistics need. A shard that is there is not made again.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import os
import pathlib
import tempfile
import time
from collections import Counter
from typing import Any

from ddsp.errors import DDSPError
from ddsp.f0 import F0Estimator, get_estimator
from ddsp.io import gcs, storage
from ddsp.io.audio import AudioError
from ddsp.io.files import write_bytes
from ddsp.io.json_types import COUNT, NUMBER, TEXT, fault
from ddsp.version import __version__
from pipelines.analysis.recording import Recording
from pipelines.analysis.statistics import STATISTICS_SHAPE, Statistics
from pipelines.options import PrepareOptions
from pipelines.records import RecordWriter
from pipelines.shards.watch import Watch
from pipelines.sources.probing import at_hand, check_unchanged
from pipelines.sources.splits import Piece

FEATURES_VERSION = 2  # raise it when the same input would give other records
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
    """A finished shard; what its .json says is beside it in the staging folder.

    Attributes:
      split, index, count, key: As in its plan.
      seconds: Length of its recordings.
      origin: `VERSION/NAME` where it is one of a published version.
      made: Whether it was made now.
      wall_seconds: Time that took.
    """

    split: str
    index: int
    count: int
    key: str
    seconds: float
    origin: str = ''
    made: bool = False
    wall_seconds: float = 0.0

    def file_name(self, dataset: str) -> str:
        """Its name in a published dataset."""
        return f'{dataset}-{self.split}.tfrecord-{self.index:05d}-of-{self.count:05d}'


def finished_shard(folder: str, plan: ShardPlan) -> dict[str, Any] | None:
    """What the .json of a shard in `folder` says, or None where the shard must be made."""
    try:
        row = json.loads(storage.read(f'{folder}/{plan.key}.json') or b'')
    except ValueError:
        return None
    same = not fault(row, _CONTENT) and row['fingerprint'] == plan.fingerprint
    same = same and row['bytes'] == storage.size(f'{folder}/{plan.key}')
    return row if same and len(row['rows']) == len(plan.pieces) else None


def read_content(folder: str, shard: Shard) -> dict[str, Any]:
    """What the .json of a finished shard in `folder` says; raises DDSPError where it is gone."""
    text = storage.read(f'{folder}/{shard.key}.json')
    if text is None:
        raise DDSPError(
            f'{folder}/{shard.key} was removed by another preparation. Run the same command again.'
        )
    return dict(json.loads(text))


def make_shard(folder: str, plan: ShardPlan, watch: Watch, cache: str = '') -> dict[str, Any]:
    """Writes a shard and its .json into `folder`.

    Args:
      folder: Where to, here or on gs://.
      plan: What goes into it.
      watch: Is told what is worked on, and says when to stop.
      cache: Where copies of remote recordings stay; '' where they do not.

    Returns:
      What the .json holds: size, hash, examples, statistics, one row for each piece, costs in CPU seconds.

    Raises:
      ChangedError: A recording is not the one that was planned with.
      DDSPError: The shard cannot be written (no space, no permission), or the preparation was interrupted.
    """
    estimator = get_estimator(plan.estimator)
    if getattr(estimator, 'weights_sha256', '') != plan.estimator_sha256:
        raise DDSPError(
            f'a worker has other weights of {plan.estimator!r} than the machine that started the '
            'preparation. Give both the same, for example by the same container image.'
        )
    remote = gcs.is_gcs(folder)
    here = pathlib.Path(tempfile.gettempdir() if remote else folder)
    # With the process in its name: a worker whose driver was killed may still be at the same shard.
    temporary = here / f'{plan.key}.{os.getpid()}.part'
    try:
        here.mkdir(parents=True, exist_ok=True)
        writer = RecordWriter(temporary)
        try:
            content = _fill(writer, plan, estimator, watch, cache)
            size, digest = writer.close()
            content |= {'bytes': size, 'sha256': digest}
            text = json.dumps(content).encode()
            if remote:
                gcs.upload(temporary, f'{folder}/{plan.key}')
                gcs.upload(text, f'{folder}/{plan.key}.json')
            else:
                os.replace(temporary, here / plan.key)
                write_bytes(here / f'{plan.key}.json', text)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise DDSPError(f'{folder}/{plan.key} cannot be written: {error.strerror or error}.') from error
    return content


def _fill(
    writer: RecordWriter, plan: ShardPlan, estimator: F0Estimator, watch: Watch, cache: str
) -> dict[str, Any]:
    total, rows = Statistics(), []
    costs: Counter[str] = Counter()
    for piece in plan.pieces:
        watch.at(piece.path)
        mark = writer.mark()
        with at_hand(piece, cache) as local:
            recording = Recording(dataclasses.replace(piece, file=local), estimator, plan.options)
            try:
                _write_examples(writer, recording, watch)
                recording.judge(writer.examples - mark[1])
                check_unchanged(piece, doubtful=False)
            except AudioError as error:
                check_unchanged(piece, doubtful=True)
                writer.rewind(mark)
                recording.reject(error)
        rows.append(recording.row(writer.examples - mark[1]))
        watch.count('made/audio_ms', 1000 * rows[-1]['seconds'])
        if recording.statistics.examples:
            total.merge(recording.statistics)
        costs.update(recording.costs)
    return {
        'fingerprint': plan.fingerprint, 'split': plan.split, 'examples': writer.examples,
        'statistics': total.to_json(), 'rows': rows, 'costs': costs,
    }  # fmt: skip


def _write_examples(writer: RecordWriter, recording: Recording, watch: Watch) -> None:
    for example in recording.examples():
        watch.check()
        started = time.thread_time()
        writer.write(example)
        recording.costs['write'] += time.thread_time() - started
