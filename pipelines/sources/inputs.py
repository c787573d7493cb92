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
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from ddsp.io import gcs
from ddsp.io.audio import AudioInfo
from ddsp.io.files import write_json
from ddsp.io.json_types import COUNT, TEXT, fault

if TYPE_CHECKING:
    from pipelines.sources.finding import Source

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

    def recall(self, source: Source) -> bool:
        """Fills in header and sha256 of a source that has not changed since it was read; says whether."""
        row, stamp = self._known.get(source.path), _stamp(source)
        if row is None or fault(row, _ROW) or not stamp or row['stamp'] != stamp:
            return False
        header, source.sha256, source.head = row['header'], row['sha256'], row['head']
        source.info = AudioInfo(source.path, **header | {'warnings': tuple(header['warnings'])})
        if gcs.is_gcs(source.path):
            source.local = str(self._copy(source))
        return True

    def fetch(self, source: Source) -> str:
        """The file that holds a source; downloads a remote one that is not here yet."""
        if not gcs.is_gcs(source.path):
            return source.local or source.path
        copy = self._copy(source)
        source.local = str(copy)
        if not copy.is_file():
            gcs.download(source.path, copy)
        return source.local

    def fetch_again(self, path: str, local: str) -> None:
        """Makes sure that a copy is there, which an earlier preparation removed."""
        if gcs.is_gcs(path) and not os.path.exists(local):
            gcs.download(path, pathlib.Path(local))

    def save(self, sources: Iterable[Source]) -> None:
        """Remembers sources, and forgets all others."""
        rows = {}
        for source in sources:
            stamp = _stamp(source)
            if source.info and source.sha256 and stamp:
                header = dataclasses.asdict(source.info)
                del header['path']
                rows[source.path] = {
                    'stamp': stamp, 'sha256': source.sha256, 'header': header, 'head': source.head,
                }  # fmt: skip
        write_json(self._file, rows)

    def clear(self) -> None:
        """Removes the copies."""
        if self._copies.is_dir():
            for copy in self._copies.iterdir():
                copy.unlink()
            self._copies.rmdir()

    def _copy(self, source: Source) -> pathlib.Path:
        digest = hashlib.sha256(f'{source.path}#{source.stamp}'.encode()).hexdigest()
        return self._copies / (digest[:32] + os.path.splitext(source.path)[1][:16])


def _stamp(source: Source) -> str:
    """Changes with the content of a source; `''` where nothing reliable is known."""
    if source.stamp:
        return source.stamp
    if source.record:
        return ''
    try:
        found = os.stat(source.path)
    except OSError:
        return ''
    if time.time() - found.st_mtime < _FRESH_SECS:
        return ''
    return f'{found.st_size} {found.st_mtime_ns} {found.st_ino}'
