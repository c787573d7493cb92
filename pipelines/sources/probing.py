"""Looking into the inputs: what is remembered of them, header, SHA-256, duplicates.

What a recording's header says and its SHA-256 are remembered with its size and time (on gs:// its
generation), so that a second preparation reads new and changed recordings only.

A duplicate has equal bytes, or equal samples in another container (wav and flac). Equal samples are looked
for only among recordings of the same rate and length, first in two seconds of each; what agrees there is
decoded as a whole. An ordinary corpus costs two seconds of decoding for each recording that shares its length
with another, once, and none for the others.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import hashlib
import itertools
import json
import os
import pathlib
import re
import shutil
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from ddsp.io import gcs
from ddsp.io.audio import AudioError, AudioInfo, probe
from ddsp.io.dataset import DatasetError, file_sha256
from ddsp.io.decoding import decode, shown
from ddsp.io.files import write_json
from ddsp.io.json_types import COUNT, TEXT, fault
from pipelines.sources import tfds_source
from pipelines.sources.stages import Found, Probed, Rejected

_THREADS = 8  # files that are read at once
_HEAD_SECS = 2.0
_BLOCK = 65536  # samples
_FRESH_SECS = 2.0  # a file this young may change again without its time showing that

_HEADER = {
    'sample_rate': COUNT, 'channels': COUNT, 'n_samples': (COUNT, None), 'codec': TEXT,
    'decoder': re.compile('soundfile|ffmpeg'), 'warnings': [TEXT],
}  # fmt: skip
_ROW = {'stamp': TEXT, 'sha256': TEXT, 'head': TEXT, 'header': _HEADER}


class Inputs:
    """What is known about inputs, and where their copies lie: in the folder of one dataset."""

    def __init__(self, folder: pathlib.Path) -> None:
        self._copies = folder / '.inputs'
        self._file = folder / '.survey.json'
        try:
            known = json.loads(self._file.read_bytes())
        except (OSError, ValueError, RecursionError):
            known = {}
        self._known: dict[str, Any] = known if isinstance(known, dict) else {}

    def place(self, found: Found) -> Found:
        """The same input with the place of its copy, where it is not on this machine."""
        if not gcs.is_gcs(found.path):
            return found
        digest = hashlib.sha256(f'{found.path}#{found.stamp}'.encode()).hexdigest()
        copy = self._copies / (digest[:32] + os.path.splitext(found.path)[1][:16])
        return dataclasses.replace(found, local=str(copy))

    def recall(self, found: Found) -> Probed | None:
        """What was found out about an input that has not changed since it was read."""
        row, stamp = self._known.get(found.path), _stamp(found)
        if row is None or fault(row, _ROW) or not stamp or row['stamp'] != stamp:
            return None
        header = row['header'] | {'warnings': tuple(row['header']['warnings'])}
        return Probed(found, row['sha256'], AudioInfo(found.path, **header), row['head'])

    def save(self, rows: Iterable[Probed]) -> None:
        """Remembers recordings, and forgets all others."""
        known = {}
        for row in rows:
            if stamp := _stamp(row.found):
                header = dataclasses.asdict(row.info)
                del header['path']
                known[row.path] = {
                    'stamp': stamp, 'sha256': row.sha256, 'header': header, 'head': row.head,
                }  # fmt: skip
        write_json(self._file, known)

    def clear(self) -> None:
        """Removes the copies."""
        shutil.rmtree(self._copies, ignore_errors=True)


def fetch(path: str, file: str) -> None:
    """Downloads an object, unless its copy is there."""
    if gcs.is_gcs(path) and not os.path.isfile(file):
        gcs.download(path, pathlib.Path(file))


def _stamp(found: Found) -> str:
    """Changes with the content of an input; `''` where nothing reliable is known."""
    if found.stamp or found.record:
        return found.stamp
    try:
        status = os.stat(found.path)
    except OSError:
        return ''
    if time.time() - status.st_mtime < _FRESH_SECS:
        return ''
    return f'{status.st_size} {status.st_mtime_ns} {status.st_ino}'


def probe_sources(
    rows: Iterable[Found | Rejected], inputs: Inputs, report: Callable[[int, int], None] | None = None
) -> list[Probed | Rejected]:
    """Looks into each input: rejects what is not audio, and what is there twice.

    Copies of remote inputs go to `inputs`, which knows what did not change since the last time; `report` is
    called with (done, all).
    """
    rows = list(rows)
    found = [row for row in rows if isinstance(row, Found)]
    probed: dict[str, Probed | Rejected] = {}
    with concurrent.futures.ThreadPoolExecutor(_THREADS) as pool:
        for row in pool.map(lambda each: _look_into(each, inputs), found):
            probed[row.path] = row
            if report:
                report(len(probed), len(found))
    checked = _reject_duplicates([row if isinstance(row, Rejected) else probed[row.path] for row in rows])
    inputs.save(known for row in checked if (known := row if isinstance(row, Probed) else row.probed))
    return checked


def _look_into(found: Found, inputs: Inputs) -> Probed | Rejected:
    found = inputs.place(found)
    if known := inputs.recall(found):
        return known
    try:
        if found.record:
            return Probed(found, *tfds_source.look_into(found.path, found.record))
        fetch(found.path, found.file)
        info = dataclasses.replace(probe(found.file), path=found.path)
        return Probed(found, file_sha256(found.file), info)
    except AudioError as error:
        return Rejected(found.path, error.reason, str(error).replace(shown(found.file), shown(found.path)))
    except (gcs.GcsError, DatasetError) as error:
        return Rejected(found.path, 'unreadable', str(error))
    except OSError as error:
        return Rejected(found.path, 'unreadable', f'{found.path} cannot be read: {error.strerror}.')


def _reject_duplicates(rows: Sequence[Probed | Rejected]) -> list[Probed | Rejected]:
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
