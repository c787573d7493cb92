"""Looking into the inputs: header, SHA-256, duplicates."""

from __future__ import annotations

import concurrent.futures
import dataclasses
from collections.abc import Callable, Iterable

from ddsp.io import gcs
from ddsp.io.audio import AudioError, probe
from ddsp.io.dataset import DatasetError, file_sha256
from ddsp.io.decoding import shown
from pipelines.sources import tfds_source
from pipelines.sources.duplicates import reject_duplicates
from pipelines.sources.inputs import Inputs, fetch
from pipelines.sources.stages import Found, Probed, Rejected

_THREADS = 8  # files that are read at once


def probe_sources(
    rows: Iterable[Found | Rejected], inputs: Inputs, report: Callable[[int, int], None] | None = None
) -> list[Probed | Rejected]:
    """Looks into each input: rejects what is not audio, and what is there twice.

    Args:
      rows: What `find_sources` found.
      inputs: Where copies of remote ones go, and what is known from the last time.
      report: Called with (done, all).

    Returns:
      The next stage of each, in the same order.
    """
    rows = list(rows)
    found = [row for row in rows if isinstance(row, Found)]
    probed: dict[str, Probed | Rejected] = {}
    with concurrent.futures.ThreadPoolExecutor(_THREADS) as pool:
        for row in pool.map(lambda each: _look_into(each, inputs), found):
            probed[row.path] = row
            if report:
                report(len(probed), len(found))
    checked = reject_duplicates([row if isinstance(row, Rejected) else probed[row.path] for row in rows])
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
