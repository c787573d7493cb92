"""Inputs that were met before, and copies of those that are not on this machine.

What a recording's header says and its sha256 are remembered with its size and time (on gs:// its generation),
so that a second preparation reads new and changed recordings only.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import pathlib
import re
import shutil
import time
from collections.abc import Iterable
from typing import Any

from ddsp.io import gcs
from ddsp.io.audio import AudioInfo
from ddsp.io.files import write_json
from ddsp.io.json_types import COUNT, TEXT, fault
from pipelines.sources.stages import Found, Probed

_FRESH_SECS = 2.0  # a file this young may change again without its time showing that

_HEADER = {
    'sample_rate': COUNT, 'channels': COUNT, 'n_samples': (COUNT, None), 'codec': TEXT,
    'decoder': re.compile('soundfile|ffmpeg'), 'warnings': [TEXT],
}  # fmt: skip
_ROW = {'stamp': TEXT, 'sha256': TEXT, 'head': TEXT, 'header': _HEADER}


class Inputs:
    """What is known about inputs, and where their copies lie.

    Args:
      folder: For both; it belongs to one dataset.
    """

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
