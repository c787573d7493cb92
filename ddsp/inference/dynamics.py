"""Pitch and loudness of a performance, brought to what a model knows."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.ndimage

from ddsp.f0.framing import fill_unvoiced
from ddsp.training.metrics import hz_to_midi

FLOOR_DB = -70.0  # below, a frame is silence and keeps its loudness
_UNVOICED_DB = -20.0  # change of loudness where there is no pitch
_SMOOTH_SECS = 0.05  # over which that change fades in and out
_PHRASE_SECS = 1.0  # over which the level of a phrase is measured
_RATIO = (0.5, 1.5)  # by which differences between phrases may shrink or grow
_MOST_DB = 3.0  # that a phrase is moved against the others: the range changes by twice that at most
_FAR_SEMITONES = 12.0  # how far outside the range counts: single wrong frames must not decide
_NEARLY_SEMITONES = 1.0  # differences of the mean distance that are not worth another octave
_MOST_OCTAVES = 5


def octaves_into_range(f0_hz: np.ndarray, statistics: dict[str, Any]) -> int:
    """The least number of octaves that brings a performance into a model's range of pitch.

    Args:
      f0_hz: Pitch of the voiced frames, Hz.
      statistics: Statistics of the model's dataset; its range is where 98 % of the pitches lie.

    Returns:
      Octaves up; 0 where the performance lies inside, or nothing is known.
    """
    quantiles = statistics.get('pitch_midi', {}).get('quantiles', [])
    if len(quantiles) < 3 or not len(f0_hz):
        return 0
    edge = max(1, len(quantiles) // 100)
    low, high = quantiles[edge], quantiles[-1 - edge]
    midi = hz_to_midi(f0_hz)

    def outside(octaves: int) -> float:
        """Mean distance from the range, semitones."""
        moved = midi + 12.0 * octaves
        distance = np.maximum(np.maximum(low - moved, moved - high), 0.0)
        return float(np.minimum(distance, _FAR_SEMITONES).mean())

    candidates = sorted(range(-_MOST_OCTAVES, _MOST_OCTAVES + 1), key=abs)
    distances = [outside(octaves) for octaves in candidates]
    near = [d <= min(distances) + _NEARLY_SEMITONES for d in distances]
    return candidates[near.index(True)]


def matched_loudness(
    loudness_db: np.ndarray, voiced: np.ndarray, statistics: dict[str, Any], frame_rate: int
) -> np.ndarray:
    """Loudness at the level of a model's dataset, with phrases moved a little towards its range.

    One gain for all brings the median of the notes to that of the dataset. Phrases that are louder or quieter
    than the others are moved by up to 3 dB, slowly, so that their range comes nearer to the dataset's. What
    happens within a note is left as it was played.

    Args:
      loudness_db: `[n_frames]`, dB.
      voiced: Frames with a pitch `[n_frames]`.
      statistics: Statistics of the model's dataset.
      frame_rate: Frames per second.

    Returns:
      `[n_frames]`, dB; silence stays what it is.
    """
    known = statistics.get('notes', {}).get('loudness_db') or statistics.get('loudness_db', {})
    target = np.asarray(known.get('quantiles', []), np.float64)
    target = target[target > FLOOR_DB]
    sounding = loudness_db > FLOOR_DB
    notes = sounding & voiced if (sounding & voiced).any() else sounding
    if not notes.any() or len(target) < 2:
        return loudness_db
    level = _phrase_level(loudness_db, notes, frame_rate)
    middle = float(np.median(loudness_db[notes]))
    spread = max(np.subtract(*np.quantile(level[notes], [0.95, 0.05])), 1.0)
    ratio = np.clip(np.subtract(*np.quantile(target, [0.95, 0.05])) / spread, *_RATIO)
    change = _MOST_DB * np.tanh((ratio - 1.0) * (level - middle) / _MOST_DB)
    loudest = float(np.quantile((loudness_db + change)[notes], 0.95))
    # Louder than anything that the model has heard, it plays anything.
    shift = min(float(np.median(target)) - middle, float(np.quantile(target, 0.99)) - loudest)
    return np.where(sounding, loudness_db + change + shift, loudness_db)


def _phrase_level(loudness_db: np.ndarray, notes: np.ndarray, frame_rate: int) -> np.ndarray:
    """Mean loudness of the notes within a second or so, and on a line between them where there are none."""
    width = max(1, round(_PHRASE_SECS * frame_rate))

    def smooth(x: np.ndarray) -> np.ndarray:
        # Twice a box: a triangle, without corners that could be heard.
        once = scipy.ndimage.uniform_filter1d(x, width, mode='constant')
        return scipy.ndimage.uniform_filter1d(once, width, mode='constant')

    weight = smooth(notes.astype(np.float64))
    near = weight > 1e-3
    level = smooth(np.where(notes, loudness_db, 0.0).astype(np.float64))[near] / weight[near]
    frames = np.arange(len(notes))
    return np.interp(frames, frames[near], level)


def filled_pitch(f0_hz: np.ndarray, voiced: np.ndarray) -> np.ndarray:
    """Pitch where there is none: on a line (in semitones) between the voiced frames around it."""
    return fill_unvoiced(f0_hz, voiced) if voiced.any() else np.full_like(f0_hz, 440.0)


def unvoiced_attenuation(voiced: np.ndarray, frame_rate: int) -> np.ndarray:
    """dB by which frames without pitch are made quieter, smoothly."""
    width = max(1, round(_SMOOTH_SECS * frame_rate))
    return _UNVOICED_DB * scipy.ndimage.uniform_filter1d((~voiced).astype(np.float64), width, mode='nearest')
