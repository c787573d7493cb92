"""What goes where: from totals over all inputs to splits, shards and a version.

The totals are of a bounded size however many inputs there are: a table of lengths where these are few, and
seconds of audio by the first bits of their hashes where they are not.

A shard's content must not depend on the number of workers, nor on what was prepared before; and when
recordings are added or removed, all other shards should stay as they are, so that they can be used again.
"""

from __future__ import annotations

import dataclasses
import hashlib
import heapq
import json
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator
from typing import TypeVar

from ddsp.errors import ConfigError, DDSPError
from pipelines.options import PrepareOptions
from pipelines.sources.splits import FEW_ENOUGH, Piece, cut, share_out, split_of
from pipelines.sources.stages import Probed, Rejected

SECONDS_PER_SHARD = 60.0  # of audio, about
MAX_SHARDS = 1000  # of a split; longer shards beyond
SHOWN = 5  # inputs that a message names
_PREFIX = 4  # hexadecimal digits of a hash by which seconds are counted where recordings are many

T = TypeVar('T', bound=Hashable)


@dataclasses.dataclass(frozen=True)
class Failure:
    """What stops a preparation, as data: `kind` is the name of the error to raise."""

    kind: str
    message: str

    @classmethod
    def of(cls, error: DDSPError) -> Failure:
        """That of an error."""
        return cls(type(error).__name__, str(error))

    def error(self) -> DDSPError:
        """The error to raise."""
        kind = next((each for each in _below(DDSPError) if each.__name__ == self.kind), DDSPError)
        return kind.__new__(kind, self.message)


def _below(kind: type[DDSPError]) -> Iterator[type[DDSPError]]:
    for each in kind.__subclasses__():
        yield each
        yield from _below(each)


@dataclasses.dataclass
class Totals:
    """What is known of all inputs together.

    Attributes:
      inputs, usable, rejected: Number of inputs, of recordings, and of inputs that cannot be used.
      unknown: Number of recordings whose header does not say how long they are.
      named: The first of the last, in the order of their paths.
      digest: Sum of the hashes of all inputs: path, SHA-256, outcome.
      lengths: Milliseconds of each recording by its SHA-256; None where they are more than a table may hold.
      counted: Milliseconds by split (`''`: of the shares asked for) and by the beginning of the SHA-256.
      own: Number of recordings by the split that they bring along.
      failures: What stopped workers.
    """

    inputs: int = 0
    usable: int = 0
    rejected: int = 0
    unknown: int = 0
    named: list[Rejected] = dataclasses.field(default_factory=list)
    digest: int = 0
    lengths: dict[str, tuple[int, str]] | None = dataclasses.field(default_factory=dict)
    counted: Counter[tuple[str, str]] = dataclasses.field(default_factory=Counter)
    own: Counter[str] = dataclasses.field(default_factory=Counter)
    failures: list[Failure] = dataclasses.field(default_factory=list)

    def add(self, row: Probed | Rejected | Failure, splits: dict[str, float]) -> None:
        """Counts one more input."""
        if isinstance(row, Failure):
            self.failures.append(row)
            return
        self.inputs += 1
        entry = json.dumps([row.path, row.sha256, row.outcome, row.reason])
        self.digest += int.from_bytes(hashlib.sha256(entry.encode()).digest(), 'big')
        if isinstance(row, Rejected):
            if row.outcome == 'rejected':
                self.rejected += 1
                self.named.append(row)
        else:
            self.usable += 1
            self.unknown += not row.seconds
            own, ms = row.found.split, round(1000 * row.seconds)
            self.own[own] += 1
            self.counted[own or split_of(row.sha256, splits), row.sha256[:_PREFIX]] += ms
            if self.lengths is not None:
                self.lengths[row.sha256] = (ms, own)
        self._limit()

    def merge(self, other: Totals) -> None:
        """Adds what others counted."""
        self.inputs += other.inputs
        self.usable += other.usable
        self.rejected += other.rejected
        self.unknown += other.unknown
        self.named += other.named
        self.digest += other.digest
        if self.lengths is not None:
            self.lengths = None if other.lengths is None else self.lengths | other.lengths
        self.counted.update(other.counted)  # a sum of Counters would forget what is 0 long
        self.own.update(other.own)
        self.failures += other.failures
        self._limit()

    def _limit(self) -> None:
        self.digest %= 2**256
        if len(self.named) > SHOWN:
            self.named = sorted(self.named, key=lambda row: row.path)[:SHOWN]
        if self.lengths is not None and len(self.lengths) > FEW_ENOUGH:
            self.lengths = None
        del self.failures[1:]


@dataclasses.dataclass(frozen=True)
class Plan:
    """What goes where in one version of a dataset.

    Attributes:
      splits: Share of each split.
      chosen: Split of each recording by its SHA-256, where recordings are few; `''`: it is split by time.
      leaves: For each split its shards: the first bits of the SHA-256 of what is in them.
      placed: Number of the shard by split and SHA-256, where the number of shards was asked for.
      num_shards: Number of shards of a split that was asked for; None: as the leaves say.
      lanes: For each shard (split, index) a number: shards of one lane are made one after the other.
      seconds: Length of all recordings.
    """

    splits: dict[str, float]
    chosen: dict[str, str] | None
    leaves: dict[str, dict[str, int]]
    placed: dict[tuple[str, str], int]
    num_shards: int | None
    lanes: dict[tuple[str, int], int]
    seconds: float

    def count(self, split: str) -> int:
        """Number of shards of a split."""
        return self.num_shards or len(self.leaves[split])

    def pieces(self, source: Probed) -> list[Piece]:
        """The pieces of a recording."""
        if source.found.split:
            return cut(source, source.found.split, self.splits)
        if self.chosen is None:
            return cut(source, split_of(source.sha256, self.splits), self.splits)
        return cut(source, self.chosen[source.sha256], self.splits)

    def shard(self, piece: Piece) -> int:
        """The shard that a piece goes into."""
        if self.num_shards:
            spread_out = int(piece.sha256[:8], 16) * self.num_shards >> 32
            return self.placed.get((piece.split, piece.sha256), spread_out)
        leaves, bits = self.leaves[piece.split], _bits(piece.sha256)
        return next(leaves[bits[:depth]] for depth in range(len(bits) + 1) if bits[:depth] in leaves)


def plan(totals: Totals, options: PrepareOptions, lanes: int | None = None) -> Plan:
    """Shares recordings out over splits and shards; every split has one shard at least.

    Args:
      totals: What is known of all inputs.
      options: How the dataset is prepared; `splits` are those to use.
      lanes: Number of workers to share the shards out to; None: a lane for each shard.

    Raises:
      ConfigError: A split would stay empty.
    """
    splits, chosen = options.splits, None
    weights: dict[str, dict[str, int]] = {split: {} for split in splits}
    if totals.lengths is None or any(totals.own):
        for (split, prefix), ms in totals.counted.items():
            weights[split][prefix] = ms
        if totals.lengths is not None:  # they bring their splits along
            weights = {split: {} for split in splits}
            for sha256, (ms, own) in totals.lengths.items():
                weights[own][sha256] = ms
        for split, there in weights.items():
            if not there:
                raise ConfigError(f'no recording falls into the split {split!r}: give it a larger share.')
    else:
        lengths = {sha256: ms / 1000 for sha256, (ms, _) in totals.lengths.items()}
        shared = share_out(lengths, splits, options.example_secs)
        chosen = shared if shared is not None else dict.fromkeys(lengths, '')
        for sha256, split in chosen.items():
            for name, share in splits.items() if not split else ((split, 1.0),):
                weights[name][sha256] = round(1000 * share * lengths[sha256])
    loads: dict[tuple[str, int], int] = {}
    leaves: dict[str, dict[str, int]] = {}
    placed: dict[tuple[str, str], int] = {}
    for split, there in weights.items():
        if options.num_shards:
            groups = spread(there, options.num_shards, there.__getitem__, str)
            sums = [sum(there[key] for key in group) for group in groups]
            if totals.lengths is not None:
                placed |= {(split, key): i for i, group in enumerate(groups) for key in group}
        else:
            leaves[split] = {bits: i for i, bits in enumerate(_stable(there))}
            sums = _sums(there, leaves[split])
        loads |= {(split, i): ms for i, ms in enumerate(sums)}
    order = spread(loads, lanes or len(loads), loads.__getitem__, repr)
    return Plan(
        splits, chosen, leaves, placed, options.num_shards,
        {shard: lane for lane, group in enumerate(order) for shard in group},
        sum(loads.values()) / 1000,
    )  # fmt: skip


def spread(
    items: Iterable[T], count: int, weight: Callable[[T], float], name: Callable[[T], str]
) -> list[list[T]]:
    """Groups of about the same weight: heaviest first, each to the group that has least so far.

    Within 4/3 of the best (Graham 1969). The order of the items does not matter: `name` decides among equals.
    """
    groups: list[list[T]] = [[] for _ in range(count)]
    loads = [(0.0, i) for i in range(count)]
    for item in sorted(items, key=lambda item: (-weight(item), name(item))):
        load, i = heapq.heappop(loads)
        groups[i].append(item)
        heapq.heappush(loads, (load + weight(item), i))
    return groups


def _stable(weights: dict[str, int]) -> list[str]:
    """Groups that one more or one less recording changes in one place only; each is named by its first bits.

    The recordings are the leaves of a binary tree over the bits of their hashes; a branch that holds no more
    than a limit is a group. That depends on the recordings alone, a new one lands in one branch (which it may
    divide), and groups are two thirds full on average. The limit doubles where groups would be too many.
    """
    total = sum(weights.values()) / 1000
    limit = SECONDS_PER_SHARD * 1.5
    while total / limit * 1.5 > MAX_SHARDS:
        limit *= 2
    rows = [(_bits(key), ms) for key, ms in sorted(weights.items())]
    return list(_divide(rows, '', 1000 * limit)) or ['']


def _divide(rows: list[tuple[str, int]], prefix: str, limit_ms: float) -> Iterator[str]:
    if len(rows) <= 1 or sum(ms for _, ms in rows) <= limit_ms:
        if rows:
            yield prefix
        return
    for bit in '01':
        yield from _divide([row for row in rows if row[0].startswith(prefix + bit)], prefix + bit, limit_ms)


def _sums(weights: dict[str, int], leaves: dict[str, int]) -> list[int]:
    sums = [0] * len(leaves)
    for key, ms in weights.items():
        bits = _bits(key)
        sums[next(leaves[bits[:depth]] for depth in range(len(bits) + 1) if bits[:depth] in leaves)] += ms
    return sums


def _bits(sha256: str) -> str:
    return f'{int(sha256, 16):0{4 * len(sha256)}b}'


def check_usable(usable: int, rejected: int, named: Iterable[Rejected], options: PrepareOptions) -> None:
    """Raises DDSPError where nothing is usable, or too much is not."""
    listed = ''.join(f'\n  {row.message} [{row.reason}]' for row in named)
    listed += f'\n  and {rejected - SHOWN} more' if rejected > SHOWN else ''
    if not usable:
        raise DDSPError(f'no input can be used:{listed}')
    share = rejected / (rejected + usable)
    if share > options.max_rejected:
        raise DDSPError(
            f'{rejected} of {rejected + usable} inputs ({100 * share:.1f} %) cannot be used and at '
            f'most {100 * options.max_rejected:.1f} % may be unusable (max_rejected):{listed}'
        )


def own_splits(totals: Totals, options: PrepareOptions) -> PrepareOptions:
    """The options with the splits that the sources bring along, where they do.

    Raises:
      ConfigError: Some recordings bring a split along and others do not.
    """
    if not any(totals.own):
        return options
    if '' in totals.own:
        raise ConfigError(
            'a dataset that brings its own splits cannot be mixed with recordings that have none: take one '
            'of its splits (tfds:NAME#SPLIT), whose recordings are shared out with the others, or make two '
            'datasets.'
        )
    counts = dict(sorted(totals.own.items()))
    total = sum(counts.values())
    return dataclasses.replace(options, splits={name: count / total for name, count in counts.items()})
