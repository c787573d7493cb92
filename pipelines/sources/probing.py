"""Looking into the inputs: header, SHA-256, whether they can be read, and what is there twice.

What was found out about an input is remembered with its size and time (on gs:// its generation), so that a
second preparation reads new and changed recordings only.

A duplicate has equal bytes, or equal samples in another container (wav and flac). Recordings of the same rate
and length are compared by two seconds of their samples, which are decoded with the header; what agrees there
is decoded as a whole.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import itertools
import json
import os
import re
import time
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from ddsp.io import gcs, storage
from ddsp.io.audio import AudioError, AudioInfo, probe
from ddsp.io.dataset import DatasetError, file_sha256
from ddsp.io.decoding import decode, shown
from ddsp.io.json_types import COUNT, TEXT, fault
from pipelines.sources import synthetic_source, tfds_source
from pipelines.sources.splits import Piece
from pipelines.sources.stages import ChangedError, Found, Probed, Rejected

_HEAD_SECS = 2.0
_BLOCK = 65536  # samples
_FRESH_SECS = 2.0  # a file this young may change again without its time showing that

_HEADER = {
    'sample_rate': COUNT, 'channels': COUNT, 'n_samples': (COUNT, None), 'codec': TEXT,
    'decoder': re.compile('soundfile|ffmpeg'), 'warnings': [TEXT],
}  # fmt: skip
_ROW = {'path': TEXT, 'stamp': TEXT, 'sha256': TEXT, 'head': TEXT, 'header': _HEADER}


def remember(row: Probed) -> str:
    """A line for the next preparation; `''` where the next one must look again."""
    if not row.found.stamp:
        return ''
    header = dataclasses.asdict(row.info)
    del header['path']
    return json.dumps({
        'path': row.path, 'stamp': row.found.stamp, 'sha256': row.sha256, 'head': row.head, 'header': header,
    })  # fmt: skip


def recall(line: str) -> Probed | None:
    """What `remember` wrote; None where the line is damaged."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if fault(row, _ROW):
        return None
    header = row['header'] | {'warnings': tuple(row['header']['warnings'])}
    return Probed(
        Found(row['path'], row['stamp']), row['sha256'], AudioInfo(row['path'], **header), row['head']
    )


def remembered(address: str) -> Iterator[Probed]:
    """What a file of such lines holds, which may be missing."""
    if storage.size(address):
        with storage.local_copy(address) as path, open(path, encoding='utf-8', errors='replace') as lines:
            yield from filter(None, map(recall, lines))


def stamped(found: Found) -> Found:
    """An input with its stamp, which changes with its content; `''` where nothing reliable is known."""
    if found.stamp or found.record or gcs.is_gcs(found.path):
        return found
    try:
        status = os.stat(found.path)
    except OSError:
        return found
    if time.time() - status.st_mtime < _FRESH_SECS:
        return found
    return dataclasses.replace(found, stamp=f'{status.st_size} {status.st_mtime_ns} {status.st_ino}')


@contextlib.contextmanager
def at_hand(source: Found | Piece, cache: str) -> Iterator[str]:
    """The local file of an input, if it has one of its own; `cache` keeps copies of objects, `''` does not.

    Raises:
      ChangedError: The object that was listed is not there any more.
    """
    path, stamp = source.path, source.stamp
    if path.startswith(synthetic_source.SCHEME):
        yield synthetic_source.make(path)
    elif source.record or not gcs.is_gcs(path):
        yield path
    else:
        digest = hashlib.sha256(os.fsencode(f'{path}#{stamp}')).hexdigest()
        keep = os.path.join(cache, digest[:32] + os.path.splitext(path)[1][:16]) if cache else ''
        with contextlib.ExitStack() as stack:
            try:
                local = stack.enter_context(storage.local_copy(path, keep, int(stamp)))
            except gcs.NotFound:
                raise ChangedError.of(path) from None
            yield local


def check_unchanged(piece: Piece, doubtful: bool) -> None:
    """Raises ChangedError where a file is no longer the one that was looked into; called after reading it.

    Only files of a disk can change: objects are read by their generation, records of datasets are compared
    when they are read, and what is synthetic follows from its name.

    Args:
      piece: What was read.
      doubtful: Whether something was wrong with it, which a change may have caused; then the stamp alone
        does not tell (a file that nobody may read any more keeps its own).
    """
    if piece.record or gcs.is_gcs(piece.path) or piece.path.startswith(synthetic_source.SCHEME):
        return
    if piece.stamp and not doubtful and stamped(Found(piece.path)).stamp == piece.stamp:
        return
    try:
        same = file_sha256(piece.path) == piece.sha256
    except OSError:
        same = False
    if not same:
        raise ChangedError.of(piece.path)


def look_into(found: Found, cache: str = '') -> Probed | Rejected:
    """Reads an input; rejects what is not audio."""
    local = found.path
    try:
        if found.record:
            return Probed(found, *tfds_source.look_into(found.path, found.record))
        with at_hand(found, cache) as local:
            info = probe(local)
            digest = file_sha256(local)
            head = _digest(info, _HEAD_SECS) if info.n_samples else ''
        return Probed(found, digest, dataclasses.replace(info, path=found.path), head)
    except AudioError as error:
        return Rejected(found.path, error.reason, str(error).replace(shown(local), shown(found.path)))
    except (gcs.GcsError, DatasetError, ChangedError) as error:
        return Rejected(found.path, 'unreadable', str(error))
    except OSError as error:
        return Rejected(found.path, 'unreadable', f'{found.path} cannot be read: {error.strerror}.')


def likeness(row: Probed) -> str:
    """Equal for recordings that may be duplicates of each other."""
    if row.head:
        return f'{row.info.sample_rate} {row.info.n_samples} {row.head}'
    return row.sha256


def reject_duplicates(rows: Iterable[Probed], cache: str = '') -> list[Probed | Rejected]:
    """Rejects what is there twice among recordings of one `likeness`; the first path is used."""
    first: dict[str, Probed] = {}
    ordered = sorted(rows, key=lambda row: row.path)
    for row in ordered:
        first.setdefault(row.sha256, row)
    checked: list[Probed | Rejected] = [
        row if first[row.sha256] is row else _copy_of(first[row.sha256], row, 'the same bytes as')
        for row in ordered
    ]
    if len(first) == 1:
        return checked
    samples: dict[str, Probed] = {}
    for i, each in enumerate(checked):
        if isinstance(each, Probed) and (digest := _sound(each, cache)):
            known = samples.setdefault(digest, each)
            if known is not each:
                checked[i] = _copy_of(known, each, 'the same samples as')
    return checked


def _copy_of(first: Probed, row: Probed, words: str) -> Rejected:
    message = f'{words} {shown(first.path)}, which is used'
    return Rejected(row.path, 'duplicate', message, 'duplicate', row, row.info.warnings)


def _sound(row: Probed, cache: str) -> str:
    """A hash of all samples; `''` where they cannot be read, which a shard will tell."""
    if row.found.record:
        return ''
    try:
        with at_hand(row.found, cache) as local:
            return _digest(dataclasses.replace(row.info, path=local))
    except (gcs.GcsError, ChangedError, OSError):
        return ''


def _digest(info: AudioInfo, seconds: float | None = None) -> str:
    """A hash of the samples as 16-bit numbers; channels that are equal throughout count once.

    Empty where the recording cannot be decoded: its shard will say why.
    """
    blocks: Iterator[Any] = decode(info, _BLOCK, [])
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
