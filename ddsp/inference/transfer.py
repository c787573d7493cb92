"""Timbre transfer: what one instrument plays, in the voice of another."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.ndimage

from ddsp.errors import ConfigError
from ddsp.f0 import VOICED
from ddsp.inference.bundle import Bundle
from ddsp.training.metrics import hz_to_midi

_FLOOR_DB = -70.0  # below, a frame is silence and keeps its loudness
_UNVOICED_DB = -20.0  # change of loudness where there is no pitch
_SMOOTH_SECS = 0.05  # over which that change fades in and out


@dataclasses.dataclass
class TransferResult:
    """Audio, and what was done to get it.

    Attributes:
      audio: `[n_samples]`.
      sample_rate: Hz.
      pitch_shift_semitones: Shift of the pitch.
      loudness_shift_db: Mean change of loudness where the input sounds, from matching and from the argument.
      f0_hz: Pitch that was synthesised `[n_frames]`, Hz.
      loudness_db: Loudness that was synthesised `[n_frames]`, dB.
      voiced_share: Share of the frames with a pitch.
    """

    audio: np.ndarray
    sample_rate: int
    pitch_shift_semitones: float
    loudness_shift_db: float
    f0_hz: np.ndarray
    loudness_db: np.ndarray
    voiced_share: float


def transfer(
    bundle: Bundle,
    audio: np.ndarray,
    sample_rate: int,
    *,
    pitch_shift_semitones: float | str = 'auto',
    loudness_shift_db: float = 0.0,
    match_loudness: bool = True,
    reverb: bool = True,
    seed: int = 0,
    progress: Callable[[int, int, str], None] | None = None,
) -> TransferResult:
    """Plays a recording with a model.

    Args:
      bundle: The model of the target instrument.
      audio: Mono recording `[n_samples]`, of any length.
      sample_rate: Hz.
      pitch_shift_semitones: Shift of the pitch; `'auto'`: the whole number of octaves that brings the
        recording's median pitch nearest to the model's mean pitch.
      loudness_shift_db: Added to the loudness.
      match_loudness: Bring the distribution of loudness to that of the model's dataset, quantile by quantile.
      reverb: With the room that the model has learned.
      seed: Of the noise.
      progress: `progress(done, total, text)`.

    Returns:
      Audio and what was done.

    Raises:
      ConfigError: `pitch_shift_semitones` is neither a number nor `'auto'`.
      DDSPError: The audio is empty or not mono.
    """
    features = bundle.features(audio, sample_rate, progress)
    voiced = (features['f0_confidence'] >= VOICED) & (features['f0_hz'] > 0)
    statistics = _training_statistics(bundle)
    shift = _pitch_shift(pitch_shift_semitones, features['f0_hz'][voiced], statistics)
    f0_hz = _filled(features['f0_hz'], voiced) * 2.0 ** (shift / 12.0)
    loudness = features['loudness_db']
    sounding = loudness > _FLOOR_DB
    if match_loudness:
        loudness = _matched(loudness, sounding, statistics)
    loudness = loudness + loudness_shift_db
    change = float(np.mean((loudness - features['loudness_db'])[sounding])) if sounding.any() else 0.0
    loudness = loudness + _attenuation(voiced, bundle.frame_rate)
    loudness = np.clip(loudness, -80.0, 20.0).astype(np.float32)
    shifted = {**features, 'f0_hz': f0_hz.astype(np.float32), 'loudness_db': loudness}
    if progress:
        progress(0, 1, 'synthesis')
    result = bundle.synthesize(shifted, reverb=reverb, seed=seed)
    if progress:
        progress(1, 1, 'synthesis')
    return TransferResult(
        result, bundle.sample_rate, float(shift), change, shifted['f0_hz'], loudness, float(voiced.mean())
    )


def _training_statistics(bundle: Bundle) -> dict[str, Any]:
    splits = bundle.statistics.get('splits', {})
    return splits.get('train') or next(iter(splits.values()), {})


def _pitch_shift(wanted: float | str, f0_hz: np.ndarray, statistics: dict[str, Any]) -> float:
    if wanted != 'auto':
        try:
            return float(wanted)
        except ValueError:
            raise ConfigError(f"pitch_shift_semitones is {wanted!r}; it must be a number or 'auto'") from None
    target = statistics.get('pitch_midi', {}).get('mean')
    if target is None or not len(f0_hz):
        return 0.0
    return 12.0 * round((target - float(np.median(hz_to_midi(f0_hz)))) / 12.0)


def _filled(f0_hz: np.ndarray, voiced: np.ndarray) -> np.ndarray:
    """Pitch where there is none: on a line (in semitones) between the voiced frames around it."""
    if not voiced.any():
        return np.full_like(f0_hz, 440.0)
    frames = np.arange(len(f0_hz))
    return 2.0 ** np.interp(frames, frames[voiced], np.log2(f0_hz[voiced]))


def _matched(loudness: np.ndarray, sounding: np.ndarray, statistics: dict[str, Any]) -> np.ndarray:
    """Loudness of the sounding frames with the distribution of those of the dataset."""
    quantiles = np.asarray(statistics.get('loudness_db', {}).get('quantiles', []))
    target = quantiles[quantiles > _FLOOR_DB]
    if not sounding.any() or len(target) < 2:
        return loudness
    levels = np.linspace(0, 1, 101)
    source = np.quantile(loudness[sounding], levels)
    source, unique = np.unique(source, return_index=True)
    ranks = np.interp(loudness, source, levels[unique])
    matched = np.interp(ranks, np.linspace(0, 1, len(target)), target)
    return np.where(sounding, matched, loudness)


def _attenuation(voiced: np.ndarray, frame_rate: int) -> np.ndarray:
    """dB by which frames without pitch are made quieter, smoothly."""
    width = max(1, round(_SMOOTH_SECS * frame_rate))
    return _UNVOICED_DB * scipy.ndimage.uniform_filter1d((~voiced).astype(np.float64), width, mode='nearest')
