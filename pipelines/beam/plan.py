"""Which recordings go into which shard.

A shard's content must not depend on the number of workers, nor on what was prepared before; and when
recordings are added or removed, all other shards should stay as they are, so that they can be used again.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator
from operator import attrgetter
from typing import TypeVar

from ddsp.f0 import F0Estimator
from pipelines.beam.shards import ShardPlan
from pipelines.options import PrepareOptions
from pipelines.sources.splits import Piece

SECONDS_PER_SHARD = 60.0  # of audio, about
MAX_SHARDS = 1000  # of a split; longer shards beyond

T = TypeVar('T', Piece, ShardPlan)
_sha256 = attrgetter('sha256')


def plan_shards(pieces: list[Piece], options: PrepareOptions, estimator: F0Estimator) -> list[ShardPlan]:
    """Spreads pieces over shards; every split has one at least."""
    plans = []
    weights = getattr(estimator, 'weights_sha256', '')
    for split in options.splits:
        mine = sorted((piece for piece in pieces if piece.split == split), key=_sha256)
        groups = spread(mine, options.num_shards, _sha256) if options.num_shards else _stable(mine)
        for i, group in enumerate(groups):
            content = tuple(sorted(group, key=_sha256))
            plans.append(ShardPlan(split, i, len(groups), content, estimator.name, weights, options))
    return plans


def spread(items: Iterable[T], count: int, name: Callable[[T], str]) -> list[list[T]]:
    """Groups of about as many seconds each: longest first, each to the group that has least so far.

    Within 4/3 of the best (Graham 1969). The order of the items does not matter: `name` decides among equals.
    """
    groups: list[list[T]] = [[] for _ in range(count)]
    loads = [(0.0, i) for i in range(count)]
    for item in sorted(items, key=lambda item: (-item.seconds, name(item))):
        load, i = heapq.heappop(loads)
        groups[i].append(item)
        heapq.heappush(loads, (load + item.seconds, i))
    return groups


def _stable(pieces: list[Piece]) -> list[list[Piece]]:
    """Groups that one more or one less piece changes in one place only.

    The pieces are the leaves of a binary tree over the bits of their hashes; a branch that holds no more than
    a limit is a group. That depends on the pieces alone, a new one lands in one branch (which it may divide),
    and groups are two thirds full on average. The limit doubles where there would be too many groups.
    """
    total = sum(piece.seconds for piece in pieces)
    limit = SECONDS_PER_SHARD * 1.5
    while total / limit * 1.5 > MAX_SHARDS:
        limit *= 2
    return list(_divide(pieces, 0, limit)) or [[]]


def _divide(pieces: list[Piece], depth: int, limit: float) -> Iterator[list[Piece]]:
    if len(pieces) <= 1 or sum(piece.seconds for piece in pieces) <= limit:
        if pieces:
            yield pieces
        return
    bits = [int(piece.sha256[depth // 4], 16) >> (3 - depth % 4) & 1 for piece in pieces]
    for side in (0, 1):
        yield from _divide(
            [piece for piece, bit in zip(pieces, bits, strict=True) if bit == side], depth + 1, limit
        )
