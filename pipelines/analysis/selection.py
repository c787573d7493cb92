"""Which examples of a recording are used, and the level of a recording, where the options ask for that."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

import numpy as np

from ddsp.analysis.loudness import loudness_db
from ddsp.analysis.notes import detect_notes
from ddsp.f0 import F0Estimator, voiced_threshold
from ddsp.io.audio import StreamResampler
from pipelines.analysis.statistics import Statistics
from pipelines.options import PrepareOptions

_RATE, _FRAME_RATE = 16000, 50
_AUDIBLE_DB = -60.0  # frames below say nothing about the loudness of a recording
_MAX_GAIN_DB = 60.0


class Selection:
    """Leaves out examples, and takes the statistics of those that stay.

    Attributes:
      dropped: Number of examples left out, by reason.
    """

    def __init__(self, options: PrepareOptions, statistics: Statistics, estimator: F0Estimator) -> None:
        self._options, self._statistics = options, statistics
        self._voiced_from = voiced_threshold(estimator)
        self._hop, self._counted = options.hop_frames, 0
        self.dropped: Counter[str] = Counter()
        self.n_frames = 0  # of the recording, so far

    def choose(self, examples: Iterable[dict[str, np.ndarray]]) -> Iterator[dict[str, np.ndarray]]:
        """Yields what is to be used of the examples of one recording."""
        for i, example in enumerate(examples):
            own = min(len(example['f0_hz']), self.n_frames - i * self._hop)  # the rest is padding
            reason = self._why_not(example, own)
            if reason:
                self.dropped[reason] += 1
                continue
            fresh = slice(max(0, self._counted - i * self._hop), own)
            self._counted = i * self._hop + own
            self._count(example, own, fresh)
            if not self._options.power_db:
                del example['power_db']
            yield example

    def _count(self, example: dict[str, np.ndarray], own: int, fresh: slice) -> None:
        f0_hz, confidence, loudness, power = (
            example[name][fresh] for name in ('f0_hz', 'f0_confidence', 'loudness_db', 'power_db')
        )
        self._statistics.add_frames(f0_hz, confidence >= self._voiced_from, loudness)
        on, _ = detect_notes(
            example['loudness_db'][:own],
            example['f0_confidence'][:own],
            f0_confidence_threshold=self._voiced_from,
        )
        self._statistics.add_notes(on[fresh], f0_hz, loudness, power)

    def _why_not(self, example: dict[str, np.ndarray], own: int) -> str:
        least, voiced = self._options.min_loudness_db, example['f0_confidence'][:own] >= self._voiced_from
        if least is not None and example['loudness_db'][:own].max(initial=-np.inf) < least:
            return 'silent'
        return 'unpitched' if voiced.sum() < self._options.min_voiced * own else ''


def level_gain_db(blocks: Iterable[np.ndarray], sample_rate: int, quantity: str, target_db: float) -> float:
    """The gain in dB that brings a recording, mono blocks [n], to a level.

    Its `'peak'` is brought to `target_db` of full scale, or its `'loudness'`: the mean A-weighted power of
    audible frames. Silence gets a gain of 0 dB.
    """
    peak, power, count = 0.0, 0.0, 0
    resample = StreamResampler(sample_rate, _RATE)
    for block in blocks:
        peak = max(peak, float(np.abs(block).max(initial=0.0)))
        heard = resample(block) if quantity == 'loudness' else block[:0]
        if len(heard) >= _RATE // _FRAME_RATE:
            level = loudness_db(heard, _RATE, _FRAME_RATE).astype(np.float64)
            level = level[level > _AUDIBLE_DB]
            power, count = power + float((10 ** (level / 10)).sum()), count + len(level)
    measured = 20 * np.log10(peak) if quantity == 'peak' and peak else None
    if quantity == 'loudness' and count:
        measured = 10 * np.log10(power / count)
    return 0.0 if measured is None else float(np.clip(target_db - measured, -_MAX_GAIN_DB, _MAX_GAIN_DB))
