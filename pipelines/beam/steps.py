"""What runs in the workers of a preparation, step by step; `pipelines.beam.graph` joins the steps.

A step that cannot go on yields a Failure, which ends in the outcome of the job; it does not raise.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import errno
import hashlib
import itertools
import json
import time
import zlib
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Any

from ddsp.errors import DDSPError
from ddsp.io import storage
from pipelines.beam import ending
from pipelines.beam.counters import count, count_shard
from pipelines.beam.request import Request
from pipelines.beam.sdk import beam
from pipelines.publish.decision import Decision, decide
from pipelines.publish.earlier import EarlierShards
from pipelines.publish.outcomes import Part, RowFile, count_inputs, outcomes, parts
from pipelines.shards import watch
from pipelines.shards.plan import SHOWN, Failure, Totals
from pipelines.shards.shard import Shard, ShardPlan, finished_shard, make_shard
from pipelines.sources.finding import Listable, divide, expand, once_each
from pipelines.sources.probing import likeness, look_into, reject_duplicates, remember, remembered, stamped
from pipelines.sources.splits import Piece
from pipelines.sources.stages import Found, Probed, Rejected, unusable

FAILURES, REJECTED, PARTS = 'failures', 'rejected', 'parts'
_BUCKETS = 1024  # inputs are looked into in so many groups at most
_THREADS = 8  # inputs that one worker reads at once
_SURVEY_LINES = 1000  # are written at once
ROWS_PER_FILE = 2000

Placed = tuple[str, int, Piece | None]  # split, shard and what goes into it; None: it may be empty
Told = Probed | Rejected | Part


def _bucket(path: str, count: int) -> int:
    return zlib.crc32(path.encode('utf-8', 'surrogateescape')) % count


class _Watched(beam.DoFn):
    """A step that tells the driver what it does, where that is on the same machine."""

    def __init__(self, request: Request) -> None:
        self._request = request

    def setup(self) -> None:
        self._watch = watch.of(self._request.watch)

    def _count(self, name: str, amount: float) -> None:
        count(name, round(amount))
        self._watch.count(name, amount)


@dataclasses.dataclass(frozen=True)
class Source:
    """What the user named, or a part of it; Beam's coder of strings refuses names that are not UTF-8."""

    item: Listable


class Divide(beam.DoFn):
    """Divides sources into parts that can be listed side by side."""

    def process(self, source: Source) -> Iterator[Source]:
        try:
            yield from map(Source, divide(str(source.item)))
        except DDSPError as error:
            yield beam.pvalue.TaggedOutput(FAILURES, Failure.of(error))


class Find(beam.DoFn):
    """Lists what a part of a source means."""

    def process(self, source: Source) -> Iterator[tuple[int, Found | Rejected]]:
        try:
            for row in expand(source.item):
                yield _bucket(row.path, _BUCKETS), row
        except DDSPError as error:
            yield beam.pvalue.TaggedOutput(FAILURES, Failure.of(error))


class ReadSurvey(beam.DoFn):
    """Reads what earlier preparations remember of inputs."""

    def __init__(self, request: Request) -> None:
        self._request = request

    def process(self, _: None) -> Iterator[tuple[int, Probed]]:
        with contextlib.suppress(DDSPError, OSError):  # what cannot be remembered is looked into again
            files = storage.list_files(f'{self._request.staging}/survey')
            for row in itertools.chain.from_iterable(map(remembered, [self._request.home.survey, *files])):
                yield _bucket(row.path, _BUCKETS), row


class Probe(_Watched):
    """Looks into inputs, where what is known of them does not stand any more."""

    def setup(self) -> None:
        super().setup()
        self._pool = concurrent.futures.ThreadPoolExecutor(_THREADS)

    def teardown(self) -> None:
        self._pool.shutdown(wait=False)

    def start_bundle(self) -> None:
        self._lines: list[str] = []

    def process(self, group: tuple[int, dict[str, Iterable[Any]]]) -> Iterator[tuple[str, Probed]]:
        rows = once_each(group[1]['found'])
        known = {row.path: row for row in group[1]['known']}
        results = self._pool.map(lambda path: self._look(rows[path], known.get(path)), sorted(rows))
        for new, result in results:
            try:
                self._watch.check()
            except watch.Cancelled as error:
                yield beam.pvalue.TaggedOutput(FAILURES, Failure.of(error))
                return
            if isinstance(result, Failure):
                yield beam.pvalue.TaggedOutput(FAILURES, result)
                return
            self._count('probed/inputs', 1)
            if isinstance(result, Rejected):
                yield beam.pvalue.TaggedOutput(REJECTED, result)
                continue
            if new and (line := remember(result)):
                self._lines.append(line)
            yield likeness(result), result
        if len(self._lines) >= _SURVEY_LINES:
            self.finish_bundle()

    def _look(
        self, found: Found | Rejected, known: Probed | None
    ) -> tuple[bool, Probed | Rejected | Failure]:
        if isinstance(found, Rejected):
            return False, found
        found = stamped(found)
        if known and found.stamp and known.found.stamp == found.stamp:
            return False, dataclasses.replace(known, found=found)
        try:
            return True, look_into(found, self._request.cache)
        except DDSPError as error:
            return True, Failure.of(error)

    def finish_bundle(self) -> None:
        if self._lines:
            content = ''.join(f'{line}\n' for line in self._lines).encode('ascii')
            name = hashlib.sha256(content).hexdigest()[:16]
            with contextlib.suppress(DDSPError):  # it only saves time; a full disk is told by what needs it
                storage.write(f'{self._request.staging}/survey/{name}.jsonl', content)
            self._lines = []


class Duplicates(beam.DoFn):
    """Rejects what is there twice, and what an earlier round of the same job refused."""

    def __init__(self, request: Request) -> None:
        self._request = request

    def setup(self) -> None:
        self._refused = ending.read_refused(self._request)

    def process(self, group: tuple[str, Iterable[Probed]]) -> Iterator[Probed]:
        for row in reject_duplicates(group[1], self._request.cache):
            if isinstance(row, Probed) and row.path in self._refused:
                row = dataclasses.replace(self._refused[row.path], probed=row)
            yield row if isinstance(row, Probed) else beam.pvalue.TaggedOutput(REJECTED, row)


class Decide(_Watched):
    """Takes the decisions that need all inputs."""

    def process(self, totals: Totals) -> Iterator[Decision]:
        request = self._request
        decision = decide(
            totals, request.home, request.version, request.options, request.provenance, request.staging,
            request.lanes,
        )  # fmt: skip
        if decision.plan:
            self._count('planned/audio_ms', 1000 * decision.plan.seconds)
        yield decision


class Assign(beam.DoFn):
    """Gives the pieces of a recording to their shards, under the lanes of these."""

    def process(self, row: Probed, decision: Decision) -> Iterator[tuple[int, Placed]]:
        if plan := decision.plan:
            for piece in plan.pieces(row):
                index = plan.shard(piece)
                yield plan.lanes[piece.split, index], (piece.split, index, piece)


def every_shard(decision: Decision) -> Iterator[tuple[int, Placed]]:
    """All shards, so that those without a recording are made too."""
    if decision.plan:
        for (split, index), lane in decision.plan.lanes.items():
            yield lane, (split, index, None)


class MakeShards(_Watched):
    """Makes the shards of a lane, one after the other, unless they are there."""

    def setup(self) -> None:
        super().setup()
        self._earlier = EarlierShards(self._request.home)

    def process(self, lane: tuple[int, Iterable[Placed]], decision: Decision) -> Iterator[Shard]:
        request = self._request
        groups: dict[tuple[str, int], list[Piece]] = defaultdict(list)
        for split, index, piece in lane[1]:
            groups[split, index].extend([piece] if piece else [])
        for (split, index), pieces in sorted(groups.items()):
            assert decision.plan
            ordered = tuple(sorted(pieces, key=lambda piece: piece.sha256))
            plan = ShardPlan(
                split, index, decision.plan.count(split), ordered, request.provenance.estimator,
                request.provenance.estimator_sha256, decision.options,
            )  # fmt: skip
            order = list(decision.options.splits).index(split)
            try:
                self._watch.check()
                shard, made = self._make(plan)
            except DDSPError as error:
                yield beam.pvalue.TaggedOutput(FAILURES, Failure.of(_explained(error, request)))
                if request.watch and not isinstance(error, watch.Cancelled):
                    watch.cancel(request.watch)
                return
            yield shard
            for part in parts(plan, made, shard.file_name(request.name), order):
                yield beam.pvalue.TaggedOutput(PARTS, part)

    def _make(self, plan: ShardPlan) -> tuple[Shard, dict[str, Any]]:
        request, started = self._request, time.monotonic()
        shard = Shard(plan.split, plan.index, plan.count, plan.key, plan.seconds)
        if content := finished_shard(request.staging, plan):
            self._count('reused/audio_ms', 1000 * plan.seconds)
            return shard, content
        if earlier := self._earlier.find(plan):
            origin, content = earlier
            storage.write(f'{request.staging}/{plan.key}.json', json.dumps(content).encode('ascii'))
            self._count('reused/audio_ms', 1000 * plan.seconds)
            return dataclasses.replace(shard, origin=origin), content
        content = make_shard(request.staging, plan, self._watch, request.cache)
        wall = time.monotonic() - started
        count_shard(content, wall)
        return dataclasses.replace(shard, made=True, wall_seconds=wall), content


def _explained(error: DDSPError, request: Request) -> DDSPError:
    if isinstance(error.__cause__, OSError) and error.__cause__.errno == errno.ENOSPC:
        return DDSPError(
            f'the disk of {request.staging} is full. Make room and run the same command again: it goes on '
            'where it stopped.'
        )
    return error


def in_bucket(row: Told, decision: Decision) -> tuple[int, Told]:
    """What is said of an input, under the number of its file of rows."""
    return _bucket(row.path, max(1, min(_BUCKETS, decision.inputs // ROWS_PER_FILE))), row


class WriteRows(beam.DoFn):
    """Writes the rows of sources.jsonl for some of the inputs."""

    def __init__(self, request: Request) -> None:
        self._request = request

    def process(self, group: tuple[int, Iterable[Told]]) -> Iterator[RowFile]:
        ends, lines = [], []
        for outcome, line in outcomes(group[1]):
            ends.append(outcome)
            lines.append(f'{line}\n')
        address = f'{self._request.staging}/rows/{group[0]:04d}.jsonl'
        try:
            storage.write(address, ''.join(lines).encode('ascii'))
        except DDSPError as error:
            yield beam.pvalue.TaggedOutput(FAILURES, Failure.of(error))
            return
        named = (dataclasses.replace(row, probed=None) for row in unusable(ends)[:SHOWN])
        yield RowFile(address, count_inputs(ends), tuple(named))


class Publish(beam.DoFn):
    """Publishes the dataset, and writes down how the job ended."""

    def __init__(self, request: Request) -> None:
        self._request = request

    def process(
        self, decision: Decision, shards: list[Shard], row_files: list[RowFile], failures: list[Failure]
    ) -> Iterator[str]:
        yield ending.end(self._request, decision, shards, row_files, failures)
