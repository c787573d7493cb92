"""The metrics of runs in one table: unit, which direction is better, where they are shown."""

from __future__ import annotations

import fnmatch
import math
import re
from collections.abc import Sequence
from typing import NamedTuple


class Metric(NamedTuple):
    """One row of the table.

    Attributes:
      name: Name of the metric, or a pattern of names.
      unit: Unit; '' for pure numbers.
      better: 'lower' or 'higher'; '' where neither is better; None where the name tells.
      shown: Where it is shown before others: 'list' (`ddsp runs`), 'curve' (charts of a comparison), 'page'
        (beside each run of a comparison), 'model' (description in the registry).
    """

    name: str
    unit: str = ''
    better: str | None = None
    shown: str = ''


OBJECTIVE = 'eval/spectral_loss'  # what runs are ranked by unless another metric is named

# The first row that fits a name describes it.
TABLE = (
    Metric('losses/total_loss', '', 'lower', 'list model'),
    Metric(OBJECTIVE, '', 'lower', 'list page model'),
    Metric('eval/loudness_l1_db', 'dB', 'lower', 'list page model'),
    Metric('eval/f0_l1_midi', 'semitones', 'lower', 'list page model'),
    Metric('losses/spectral_loss', '', 'lower', 'curve page model'),
    Metric('held_out/spectral_loss', '', 'lower', 'curve model'),
    Metric('losses/spectral_loss*', '', 'lower', 'page model'),
    Metric('energy/*', 'dB', ''),
    Metric('optimizer/*', '', ''),
    Metric('system/*', '', ''),
    Metric('speed/steps_per_sec', '1/s', 'higher'),
    Metric('speed/audio_secs_per_sec', 's/s', 'higher'),
    Metric('speed/data_wait_share', '', 'lower'),
    Metric('eval/*', shown='page model'),
    Metric('held_out/*', shown='model'),
    Metric('*'),
)
# Where the table leaves the direction open, words in the name tell it.
_WORDS = {
    'lower': re.compile(r'loss|_l1_|l1$|outlier|cents|error|data_wait|distance'),
    'higher': re.compile(r'per_sec|accuracy|voiced'),
}


def find(name: str) -> Metric:
    """The row of the table that describes a metric."""
    return next(row for row in TABLE if fnmatch.fnmatchcase(name, row.name))


def lower_is_better(name: str) -> bool | None:
    """Whether less of a metric is better; None where neither is (energies, learning rate, load)."""
    better = find(name).better
    if better is None:
        better = next((found for found, words in _WORDS.items() if words.search(name)), '')
    return {'lower': True, 'higher': False}.get(better)


def best_of(name: str, values: Sequence[float | None]) -> frozenset[int]:
    """Indices of the best values; none when there is nothing to choose between."""
    lower = lower_is_better(name)
    known = [value for value in values if value is not None and not math.isnan(value)]
    if lower is None or len(known) < 2 or min(known) == max(known):
        return frozenset()
    best = min(known) if lower else max(known)
    return frozenset(index for index, value in enumerate(values) if value == best)


def shown(place: str) -> list[str]:
    """Names of the metrics that are shown first in a place, in their order; patterns are left out."""
    return [row.name for row in TABLE if place in row.shown.split() and '*' not in row.name]


def is_shown(name: str, place: str) -> bool:
    """Whether a metric is shown first in a place."""
    return place in find(name).shown.split()
