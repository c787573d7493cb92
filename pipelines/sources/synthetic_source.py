"""The synthetic corpus as a source: listed without a sound, and played by the worker that reads it.

`synthetic:SECONDS[:SEED]` means files that follow from their numbers alone, so that workers need no common
disk: each makes those that it reads in the cache folder of its own machine.
"""

from __future__ import annotations

import functools
import hashlib
import pathlib
import re
import threading

from ddsp.errors import DDSPError
from ddsp.io import gcs
from ddsp.io.audio import AudioError
from pipelines.sources.stages import Found
from pipelines.synthetic.corpus import Take, list_takes

SCHEME = 'synthetic:'
_ONE_AT_A_TIME = threading.Lock()  # threads that play at once hinder each other


def find_takes(item: str) -> list[Found]:
    """The files that an address means.

    Raises:
      DDSPError: The address is malformed, or the length is not allowed.
    """
    return [
        Found(f'{item}/{take.wav.name}', hashlib.sha256(take.recipe.encode()).hexdigest()[:16], take.seconds)
        for take in _takes(item, gcs.cache_folder())
    ]


def make(path: str) -> str:
    """Makes one of these files, unless it is there; returns where.

    Raises:
      DDSPError: The cache folder cannot be written.
    """
    item, _, name = path.rpartition('/')
    take = _takes(item, gcs.cache_folder())[int(name.removeprefix('take_').removesuffix('.wav')) - 1]
    try:
        with _ONE_AT_A_TIME:
            take.make()
    except (AudioError, OSError) as error:  # no fault of the recording
        why = error.strerror if isinstance(error, OSError) else error
        raise DDSPError(f'{path} cannot be made in the cache folder: {str(why).rstrip(".")}.') from error
    return str(take.wav)


@functools.lru_cache(maxsize=4)
def _takes(item: str, cache: pathlib.Path) -> list[Take]:
    match = re.fullmatch(r'([0-9]+)(?::([0-9]+))?', item.removeprefix(SCHEME))
    if not match:
        raise DDSPError(
            f'{item!r}: expected synthetic:SECONDS or synthetic:SECONDS:SEED, such as synthetic:180.'
        )
    seconds, seed = int(match[1]), int(match[2] or 0)
    return list_takes(cache / 'synthetic' / f'{seconds}-{seed}', seconds=seconds, seed=seed)
