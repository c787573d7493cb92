"""A guess at how much there is to do, from names and sizes: enough to choose between one worker and many."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable

import soundfile

from ddsp.errors import DDSPError
from pipelines.sources.finding import divide, expand
from pipelines.sources.probing import remembered, stamped
from pipelines.sources.stages import Found
from pipelines.sources.tfds_source import RecordFile

_INPUTS = 2000  # looked at, at most
_HEADERS = 8  # read, at most
_BYTES_PER_SECOND = 64e3  # of a recording whose header was not read
_RECORD_SECS = 4.0  # of a record of a dataset, which nothing is read of


def seconds_to_analyse(sources: Iterable[str], survey: str = '') -> float:
    """Seconds of audio, about, in what the sources mean; stops where it is certainly much.

    Args:
      sources: Files, folders and patterns.
      survey: Address of what is known about inputs that need no work; '' for none.
    """
    found: list[Found] = []
    try:
        parts = list(itertools.chain.from_iterable(map(divide, sources)))
        records = sum(part.count for part in parts if isinstance(part, RecordFile))
        rows = itertools.chain.from_iterable(expand(part) for part in parts if isinstance(part, str))
        found = [stamped(row) for row in itertools.islice(rows, _INPUTS) if isinstance(row, Found)]
    except DDSPError:
        return 0.0  # the preparation itself will say what is wrong
    stamps = {row.path: row.stamp for row in found}
    rows_known = remembered(survey) if survey else ()
    known = {row.path for row in rows_known if row.found.stamp and stamps.get(row.path) == row.found.stamp}
    left = [row for row in found if row.path not in known]
    unknown = [row for row in left if not row.seconds]
    rates = [rate for row in unknown[:_HEADERS] if (rate := _bytes_per_second(row))]
    rate = sum(rates) / len(rates) if rates else _BYTES_PER_SECOND
    return sum(row.seconds or _size(row) / rate for row in left) + records * _RECORD_SECS


def _size(row: Found) -> float:
    try:
        return os.path.getsize(row.path)
    except OSError:
        return 1e6  # an object of a bucket


def _bytes_per_second(row: Found) -> float:
    try:
        info = soundfile.info(row.path)
    except (RuntimeError, OSError):
        return 0.0
    return _size(row) / info.duration if info.duration else 0.0
