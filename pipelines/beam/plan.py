"""Which recordings go into which shard.

A shard's content must not depend on the number of workers, nor on what was prepared before; and when
recordings are added or removed, all other shards should stay as they are, so that they can be used again.
"""

from __future__ import annotations

from collections.abc import Iterator

from ddsp.f0 import F0Estimator
from pipelines.beam.shards import ShardPlan
from pipelines.options import PrepareOptions
from pipelines.sources.splits import Piece

SECONDS_PER_SHARD = 60.0  # of audio, about
MAX_SHARDS = 1000  # of a split; longer shards beyond


def plan_shards(pieces: list[Piece], options: PrepareOptions, estimator: F0Estimator) -> list[ShardPlan]:
    """Spreads pieces over shards.

    Args:
      pieces: What goes into the dataset.
      options: The options; `num_shards` sets the number for each split.
      estimator: The f0 estimator.

    Returns:
      The plans of all splits; every split has one at least.
    """
    plans = []
    weights = getattr(estimator, 'weights_sha256', '')
    for split in options.splits:
        mine = sorted((piece for piece in pieces if piece.split == split), key=lambda piece: piece.sha256)
        groups = _equal(mine, options.num_shards) if options.num_shards else _stable(mine)
        for i, group in enumerate(groups):
            content = tuple(group)
            plans.append(
                ShardPlan(split, i, len(groups), content, estimator.name, weights, options.to_json())
            )
    return plans


def _equal(pieces: list[Piece], count: int) -> list[list[Piece]]:
    """A given number of groups of about equal length: the longest piece first, into the shortest group."""
    groups: list[list[Piece]] = [[] for _ in range(count)]
    fill = [0.0] * count
    for piece in sorted(pieces, key=lambda piece: (-piece.seconds, piece.sha256)):
        lightest = fill.index(min(fill))
        groups[lightest].append(piece)
        fill[lightest] += piece.seconds
    return [sorted(group, key=lambda piece: piece.sha256) for group in groups]


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
