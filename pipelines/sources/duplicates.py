"""The same audio under two names: equal bytes, or equal samples in another container (wav and flac).

Equal samples are looked for only among recordings of the same rate and length, first in two seconds of each;
what agrees there is decoded as a whole. An ordinary corpus costs two seconds of decoding for each recording
that shares its length with another, once, and none for the others.
"""

from __future__ import annotations

import hashlib
import itertools
import os
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import numpy as np

from ddsp.io.decoding import AudioError, decode, shown

if TYPE_CHECKING:
    from pipelines.sources.finding import Source

_HEAD_SECS = 2.0
_BLOCK = 65536  # samples


def mark_duplicates(sources: Iterable[Source]) -> None:
    """Marks what is there twice; the first in the order of the list is used.

    Args:
      sources: Recordings; those with an outcome are passed over.
    """
    rows = [source for source in sources if not source.outcome]
    _mark(rows, lambda source: source.sha256, 'the same bytes as')
    # Objects of a bucket may not be here, and records of TFDS have the sha256 of their samples already.
    files = [source for source in rows if not source.outcome and source.info and os.path.isfile(source.path)]
    for alike in _groups(files, _rate_and_length):
        for likely in _groups(alike, _head):
            _mark(likely, lambda source: _digest(source, None), 'the same samples as')


def _mark(rows: list[Source], key: Callable[[Source], object], words: str) -> None:
    first: dict[object, Source] = {}
    for source in rows:
        value = key(source)
        if value and first.setdefault(value, source) is not source:
            source.outcome = source.reason = 'duplicate'
            source.warnings = list(source.info.warnings) if source.info else []
            source.message = f'{words} {shown(first[value].path)}, which is used'


def _rate_and_length(source: Source) -> tuple[int, int] | None:
    info = source.info
    return (info.sample_rate, info.n_samples) if info and info.n_samples else None


def _groups(rows: list[Source], key: Callable[[Source], object]) -> list[list[Source]]:
    """The rows that share a key with another."""
    groups: dict[object, list[Source]] = {}
    for source in rows:
        value = key(source)
        if value:
            groups.setdefault(value, []).append(source)
    return [group for group in groups.values() if len(group) > 1]


def _head(source: Source) -> str:
    source.head = source.head or _digest(source, _HEAD_SECS)
    return source.head


def _digest(source: Source, seconds: float | None) -> str:
    """A hash of the samples as 16-bit numbers; channels that are equal throughout count once.

    Empty where the recording cannot be decoded: its shard will say why.
    """
    info = source.info
    assert info is not None
    blocks = decode(info, _BLOCK, [])
    if seconds is not None:
        blocks = itertools.islice(blocks, max(1, int(seconds * info.sample_rate / _BLOCK)))
    digests = [hashlib.sha256(f'{info.sample_rate}'.encode()) for _ in range(info.channels)]
    try:
        for block in blocks:
            scaled = np.round(np.clip(np.nan_to_num(block), -2, 2) * 32768).astype(np.int32)
            for channel, digest in enumerate(digests):
                digest.update(scaled[:, channel].tobytes())
    except AudioError:
        return ''
    return '+'.join(dict.fromkeys(digest.hexdigest() for digest in digests))
