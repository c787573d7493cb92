"""Sharing recordings out over the splits, by their content and so that the shares come near."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
from collections import Counter
from collections.abc import Iterator
from typing import Any

from pipelines.sources.stages import Probed

_FEW = 4  # fewer recordings than this are split by time where they are long enough
FEW_ENOUGH = 1000  # hashes alone share out more recordings evenly
_FEW_TO_SWAP = 50
_GRID_SECS = 0.004  # recordings are cut at multiples of this


@dataclasses.dataclass(frozen=True)
class Piece:
    """A part of a recording that goes into one split, from `start_s` to `end_s` (None: the end), in seconds.

    `seconds` is its length as the header has it, or 0; `stamp` and `record` are as in `Found`; `file` is the
    local file to read, known to the worker that reads it.
    """

    path: str
    sha256: str
    split: str
    start_s: float = 0.0
    end_s: float | None = None
    seconds: float = 0.0
    file: str = ''
    record: dict[str, Any] | None = None
    stamp: str = ''


def share_out(
    lengths: dict[str, float], splits: dict[str, float], example_secs: float = 4.0
) -> dict[str, str] | None:
    """Decides which recording goes into which split, by a hash of its content.

    The hash keeps the decision when recordings are added, moved or renamed. Where that misses the shares by
    much, which happens with few recordings, as few of them as possible change places. No split stays empty
    where there are as many recordings as splits. A single recording, or up to three long ones, are split by
    time: each split gets its own part of each of them, without overlap and no shorter than an example.

    Args:
      lengths: Length in seconds (0 where it is not known) of each recording, by its SHA-256.
      splits: Share of each split.
      example_secs: Length of an example in seconds.

    Returns:
      The split of each recording; None where the recordings are split by time.
    """
    least = min(splits.values())
    long = all(seconds * least >= example_secs for seconds in lengths.values())
    if len(splits) > 1 and (len(lengths) == 1 or (len(lengths) < _FEW and long)):
        return None
    order = sorted(lengths, key=_position)
    chosen = {sha256: split_of(sha256, splits) for sha256 in order}
    known = [seconds for seconds in lengths.values() if seconds]
    unknown = sum(known) / len(known) if known else 1.0
    weights = {sha256: lengths[sha256] or unknown for sha256 in order}
    _fill_empty(chosen, weights, splits)
    _bring_near(chosen, weights, splits)
    return chosen


def cut(source: Probed, split: str, splits: dict[str, float]) -> list[Piece]:
    """The pieces of a recording: one that is all of it in its split, or with `''` one in each split."""
    if split:
        return [_whole(source, split)]
    seconds = source.seconds
    pieces, start, share = [], 0.0, 0.0
    for name, part in splits.items():
        share += part
        end = round(share * seconds / _GRID_SECS) * _GRID_SECS
        piece = _whole(source, name)
        pieces.append(dataclasses.replace(piece, start_s=start, end_s=end, seconds=end - start))
        start = end
    pieces[-1] = dataclasses.replace(pieces[-1], end_s=None, seconds=seconds - pieces[-1].start_s)
    return pieces


def split_of(sha256: str, splits: dict[str, float]) -> str:
    """The split that the content of a recording alone gives it."""
    position, edge = _position(sha256), 0.0
    for name, share in splits.items():
        edge += share
        if position < edge:
            return name
    return name


def describe_shares(audio_seconds: dict[str, float], splits: dict[str, float]) -> str:
    """What each split got of the audio, where that is not near what was asked for; else ''."""
    if _miss(audio_seconds, splits) <= _tolerance(splits):
        return ''
    total = sum(audio_seconds.values())
    shares = [
        f'{name} has {100 * audio_seconds.get(name, 0.0) / total:.0f} % of the audio ({100 * share:.0f} % '
        'asked for)' for name, share in splits.items()
    ]  # fmt: skip
    return f'{", ".join(shares)}: recordings are not divided; more or shorter ones can be shared out better'


def _fill_empty(chosen: dict[str, str], weights: dict[str, float], splits: dict[str, float]) -> None:
    """Gives every empty split a recording of the split that has most of them."""
    total = sum(weights.values())
    for split, share in splits.items():
        counts = {name: list(chosen.values()).count(name) for name in splits}
        largest = max(counts, key=lambda name: counts[name])
        if counts[split] == 0 and counts[largest] > 1:
            there = [each for each in chosen if chosen[each] == largest]
            chosen[min(there, key=lambda each: (abs(weights[each] - share * total), each))] = split


def _bring_near(chosen: dict[str, str], weights: dict[str, float], splits: dict[str, float]) -> None:
    """Moves or swaps single recordings until every split is near its share, or nothing helps."""
    filled = dict.fromkeys(splits, 0.0)
    for each, split in chosen.items():
        filled[split] += weights[each]
    while (miss := _miss(filled, splits)) > _tolerance(splits):
        best: tuple[float, dict[str, str], dict[str, float]] = (miss * (1 - 1e-9), {}, filled)
        for change in _changes(chosen, list(weights), splits):
            after = dict(filled)
            for each, split in change.items():
                after[chosen[each]] -= weights[each]
                after[split] += weights[each]
            # Near is near: the first one, in the order of the hashes, does not depend on what is added.
            value = max(_miss(after, splits), _tolerance(splits))
            if value < best[0]:
                best = value, change, after
        _, change, filled = best
        if not change:
            return
        chosen.update(change)


def _changes(chosen: dict[str, str], order: list[str], splits: dict[str, float]) -> Iterator[dict[str, str]]:
    """Moves that leave no split empty, then swaps."""
    counts = Counter(chosen.values())
    for each in order:
        if counts[chosen[each]] > 1:
            yield from ({each: split} for split in splits if split != chosen[each])
    if len(order) <= _FEW_TO_SWAP:
        for one, other in itertools.combinations(order, 2):
            if chosen[one] != chosen[other]:
                yield {one: chosen[other], other: chosen[one]}


def _miss(filled: dict[str, float], splits: dict[str, float]) -> float:
    """How far the split that is furthest from its share is from it, 0 to 1."""
    total = sum(filled.values()) or 1.0
    return max(abs(filled.get(name, 0.0) / total - share) for name, share in splits.items())


def _tolerance(splits: dict[str, float]) -> float:
    """How far from its share a split may be: half the smallest share."""
    return min(splits.values()) / 2 + 1e-9


def _whole(source: Probed, split: str) -> Piece:
    found = source.found
    return Piece(found.path, source.sha256, split, 0.0, None, source.seconds, '', found.record, found.stamp)


def _position(sha256: str) -> float:
    """A number from 0 to 1 that belongs to the content of a recording."""
    digest = hashlib.sha256(b'ddsp split:' + sha256.encode()).digest()
    return int.from_bytes(digest[:8], 'big') / 2**64
