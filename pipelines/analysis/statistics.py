"""Statistics of a dataset by merging partial ones: exact moments, and quantiles from integer histograms.

Each shard has its own partial statistics; merging them in the order of the shards gives the same numbers
whatever the number of workers.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np

from ddsp.io.json_types import COUNT, NUMBER

_LOUDNESS_BINS = (-120.0, 60.0, 0.25)  # lowest, highest, width in dB
_PITCH_BINS = (0.0, 140.0, 0.125)  # MIDI
_COUNTS = ('examples', 'audio_seconds', 'frames', 'voiced_frames')
_OF_ALL = ('loudness_db', 'pitch_midi')
_MORE = ('power_db', 'note_loudness_db', 'note_pitch_midi', 'note_power_db')
# What `Statistics.to_json` gives.
_DISTRIBUTION = {'moments': [NUMBER], 'range': ([NUMBER], None), 'histogram': [[COUNT]]}
STATISTICS_SHAPE = {
    'counts': [NUMBER], 'note_frames': COUNT, **dict.fromkeys((*_OF_ALL, *_MORE), _DISTRIBUTION),
}  # fmt: skip


class Distribution:
    """Moments and a histogram of one quantity."""

    def __init__(self, low: float, high: float, width: float) -> None:
        self._low, self._width = low, width
        self.count, self.mean, self.m2 = 0, 0.0, 0.0
        self.min, self.max = math.inf, -math.inf
        self.histogram = np.zeros(round((high - low) / width), np.int64)

    def add(self, values: np.ndarray) -> None:
        """Takes values [n] in."""
        if not len(values):
            return
        values = np.asarray(values, np.float64)
        mean = float(values.mean())
        self._merge(len(values), mean, float(np.square(values - mean).sum()))
        self.min, self.max = min(self.min, float(values.min())), max(self.max, float(values.max()))
        bins = np.clip((values - self._low) / self._width, 0, len(self.histogram) - 1).astype(np.int64)
        self.histogram += np.bincount(bins, minlength=len(self.histogram))

    def merge(self, other: Distribution) -> None:
        """Takes in what another distribution of the same quantity holds."""
        if other.count:
            self._merge(other.count, other.mean, other.m2)
            self.min, self.max = min(self.min, other.min), max(self.max, other.max)
            self.histogram += other.histogram

    def _merge(self, count: int, mean: float, m2: float) -> None:
        # Chan, Golub and LeVeque 1983.
        total = self.count + count
        delta = mean - self.mean
        self.mean += delta * count / total
        self.m2 += m2 + delta * delta * self.count * count / total
        self.count = total

    def bins(self) -> tuple[np.ndarray, np.ndarray]:
        """Edges [n + 1] and counts [n] of the histogram."""
        return self._low + self._width * np.arange(len(self.histogram) + 1), self.histogram

    def quantiles(self) -> list[float]:
        """The 0th to the 100th percentile, linear inside a bin."""
        if not self.count:
            return []
        edges, _ = self.bins()
        cumulated = np.concatenate(([0], np.cumsum(self.histogram))) / self.count
        inside = np.concatenate(([True], np.diff(cumulated) > 0))
        values = np.interp(np.linspace(0, 1, 101), cumulated[inside], edges[inside])
        return [round(float(v), 4) for v in np.clip(values, self.min, self.max)]

    def summary(self) -> dict[str, Any]:
        """Mean, standard deviation, extremes and quantiles; empty where nothing was added."""
        if not self.count:
            return {}
        std = math.sqrt(self.m2 / self.count)
        moments = {'mean': self.mean, 'std': std, 'min': self.min, 'max': self.max}
        return {name: round(value, 6) for name, value in moments.items()} | {'quantiles': self.quantiles()}

    def to_json(self) -> dict[str, Any]:
        """For a file; the histogram as pairs (bin, count)."""
        filled = np.flatnonzero(self.histogram)
        pairs = [[int(i), int(self.histogram[i])] for i in filled]
        moments = [self.count, self.mean, self.m2]
        return {'moments': moments, 'range': [self.min, self.max] if self.count else None, 'histogram': pairs}

    def load_json(self, content: dict[str, Any]) -> None:
        """Fills itself from what `to_json` gave."""
        self.count, self.mean, self.m2 = content['moments']
        if content['range']:
            self.min, self.max = content['range']
        for i, count in content['histogram']:
            self.histogram[i] = count


@dataclasses.dataclass
class Statistics:
    """Statistics of a split, of a shard or of a recording.

    Attributes:
      examples: Number of examples.
      audio_seconds: Length of the recordings; what overlapping examples share counts once.
      frames, voiced_frames: Number of frames, and of those that are voiced.
      note_frames: Number of frames that belong to notes (`ddsp.analysis.notes.detect_notes`).
      loudness_db, power_db: Level of all frames.
      pitch_midi: Pitch of the voiced frames.
      note_loudness_db, note_pitch_midi, note_power_db: The same for the frames of notes.
    """

    examples: int = 0
    audio_seconds: float = 0.0
    frames: int = 0
    voiced_frames: int = 0
    note_frames: int = 0
    loudness_db: Distribution = dataclasses.field(default_factory=lambda: Distribution(*_LOUDNESS_BINS))
    pitch_midi: Distribution = dataclasses.field(default_factory=lambda: Distribution(*_PITCH_BINS))
    power_db: Distribution = dataclasses.field(default_factory=lambda: Distribution(*_LOUDNESS_BINS))
    note_loudness_db: Distribution = dataclasses.field(default_factory=lambda: Distribution(*_LOUDNESS_BINS))
    note_pitch_midi: Distribution = dataclasses.field(default_factory=lambda: Distribution(*_PITCH_BINS))
    note_power_db: Distribution = dataclasses.field(default_factory=lambda: Distribution(*_LOUDNESS_BINS))

    def add_frames(self, f0_hz: np.ndarray, voiced: np.ndarray, loudness: np.ndarray) -> None:
        """Takes in frames [n] that were not counted before."""
        voiced = voiced & (f0_hz > 0)
        self.frames += len(f0_hz)
        self.voiced_frames += int(voiced.sum())
        self.loudness_db.add(loudness)
        self.pitch_midi.add(_midi(f0_hz[voiced]))

    def add_notes(self, on: np.ndarray, f0_hz: np.ndarray, loudness: np.ndarray, power: np.ndarray) -> None:
        """Takes in power, and which frames belong to notes, for frames [n] that were not counted before."""
        self.power_db.add(power)
        on = on & (f0_hz > 0)
        self.note_frames += int(on.sum())
        self.note_loudness_db.add(loudness[on])
        self.note_power_db.add(power[on])
        self.note_pitch_midi.add(_midi(f0_hz[on]))

    def merge(self, other: Statistics) -> None:
        """Takes in the statistics of another part."""
        for name in (*_COUNTS, 'note_frames'):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for name in (*_OF_ALL, *_MORE):
            getattr(self, name).merge(getattr(other, name))

    @property
    def voiced_share(self) -> float:
        """Share of the frames that are voiced, 0 to 1."""
        return self.voiced_frames / self.frames if self.frames else 0.0

    def summary(self) -> dict[str, Any]:
        """As statistics.json has it."""
        return {
            'examples': self.examples,
            'audio_seconds': round(self.audio_seconds, 3),
            'voiced_share': round(self.voiced_share, 6),
            **{name: getattr(self, name).summary() for name in (*_OF_ALL, 'power_db')},
            'notes': {
                'share': round(self.note_frames / self.frames, 6) if self.frames else 0.0,
                'loudness_db': self.note_loudness_db.summary(),
                'pitch_midi': self.note_pitch_midi.summary(),
                'power_db': self.note_power_db.summary(),
            },
        }

    def to_json(self) -> dict[str, Any]:
        """For a shard's file; `from_json` reads it."""
        return {
            'counts': [getattr(self, name) for name in _COUNTS],
            **{name: getattr(self, name).to_json() for name in _OF_ALL},
            'note_frames': self.note_frames,
            **{name: getattr(self, name).to_json() for name in _MORE},
        }

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Statistics:
        """Reads what `to_json` gave."""
        counts = dict(zip(_COUNTS, content['counts'], strict=True))
        new = cls(**counts, note_frames=content['note_frames'])
        for name in (*_OF_ALL, *_MORE):
            getattr(new, name).load_json(content[name])
        return new


def _midi(f0_hz: np.ndarray) -> np.ndarray:
    return 69 + 12 * np.log2(f0_hz.astype(np.float64) / 440)
