"""The same audio under two names: equal bytes, or equal samples in another container (wav and flac).

Equal samples are looked for only among recordings of the same rate and length, first in two seconds of each;
what agrees there is decoded as a whole. An ordinary corpus costs two seconds of decoding for each recording
that shares its length with another, once, and none for the others.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import os
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from ddsp.io.decoding import AudioError, decode, shown
from pipelines.sources.stages import Probed, Rejected

_HEAD_SECS = 2.0
_BLOCK = 65536  # samples


def reject_duplicates(rows: Sequence[Probed | Rejected]) -> list[Probed | Rejected]:
    """Rejects what is there twice; the first in the order of the list is used."""
    rows = _reject(rows, lambda row: row.sha256, 'the same bytes as')
    # Objects of a bucket may not be here, and records of TFDS have the sha256 of their samples already.
    files = [
        row for row in rows if isinstance(row, Probed) and row.info.n_samples and os.path.isfile(row.path)
    ]
    alike = _shared(files, lambda row: (row.info.sample_rate, row.info.n_samples))
    alike = [dataclasses.replace(row, head=row.head or _digest(row, _HEAD_SECS)) for row in alike]
    with_heads = {row.path: row for row in alike}
    rows = [with_heads.get(row.path, row) for row in rows]
    likely = _shared([row for row in alike if row.head], lambda row: (row.info.n_samples, row.head))
    digests = {row.path: _digest(row) for row in likely}
    return _reject(rows, lambda row: digests.get(row.path), 'the same samples as')


def _reject(
    rows: Iterable[Probed | Rejected], key: Callable[[Probed], object], words: str
) -> list[Probed | Rejected]:
    first: dict[object, Probed] = {}
    checked: list[Probed | Rejected] = []
    for row in rows:
        value = key(row) if isinstance(row, Probed) else None
        if isinstance(row, Probed) and value and first.setdefault(value, row) is not row:
            message = f'{words} {shown(first[value].path)}, which is used'
            row = Rejected(row.path, 'duplicate', message, 'duplicate', row, row.info.warnings)
        checked.append(row)
    return checked


def _shared(rows: list[Probed], key: Callable[[Probed], object]) -> list[Probed]:
    """The rows that share their key with another."""
    groups: dict[object, list[Probed]] = {}
    for row in rows:
        groups.setdefault(key(row), []).append(row)
    return [row for group in groups.values() if len(group) > 1 for row in group]


def _digest(row: Probed, seconds: float | None = None) -> str:
    """A hash of the samples as 16-bit numbers; channels that are equal throughout count once.

    Empty where the recording cannot be decoded: its shard will say why.
    """
    info = row.info
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
