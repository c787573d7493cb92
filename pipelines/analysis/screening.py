"""What a pitch track alone does not tell: several notes at once, and notes beyond the estimator's range."""

from __future__ import annotations

import numpy as np
import scipy.fft

from ddsp.f0 import F0Estimator, voiced_threshold
from pipelines.analysis import quality

RATE = 16000
_STEP_SECS = 0.1  # from one frame that is looked at to the next
_LEAST_FRAMES = 10
# Several notes: a spectral peak well between the harmonics, hardly weaker than the strongest.
_WINDOW = 2048
_LOWEST_F0 = 80.0  # Hz; below, harmonics are too close to see anything between them
_BETWEEN, _LEAST_HZ = 0.22, 24.0  # distance from the nearest harmonic, as a share of f0 and in Hz
_AS_STRONG_DB = -15.0
_BAND_HZ = (60.0, 3000.0)
_POLYPHONIC_SHARE = 0.75  # reverberation and vibrato reach 0.67, double stops 0.8
# Notes beyond the range: the signal repeats, though the estimator found nothing.
_LONG_WINDOW, _LONGEST_LAG = 4096, 800  # samples; down to 20 Hz
_REPEATS, _DIPS = 0.9, 0.5  # correlation of a repetition, and what it must fall to before
_HIGH_HZ, _HIGH_SHARE = 2200.0, 0.95  # nearly all power above this: what was found is a fraction of the pitch
_AUDIBLE_RMS = 1e-3


class Screening:
    """Looks at a tenth of a second here and there; the pieces of a recording come one after the other."""

    def __init__(self, frame_rate: int, estimator: F0Estimator) -> None:
        self._voiced_from = voiced_threshold(estimator)
        self._step = max(1, round(_STEP_SECS * frame_rate))
        self._hop = RATE / frame_rate
        self._pitched = self._polyphonic = 0
        self._looked_at = 0
        self._repetitions: list[float] = []  # Hz

    def add(self, audio_16k: np.ndarray, f0_hz: np.ndarray, confidence: np.ndarray) -> None:
        """Takes in a piece: audio [n_samples] at 16 kHz with its frames [n_frames]."""
        frames = np.arange(0, len(f0_hz), self._step)
        voiced = confidence[frames] >= self._voiced_from
        pitched = frames[voiced & (f0_hz[frames] > _LOWEST_F0)]
        if len(pitched):
            spectra = _power_spectra(self._cut(audio_16k, pitched, _WINDOW))
            self._pitched += len(pitched)
            high = _highest_hz(spectra)
            self._polyphonic += int((_has_note_between(spectra, f0_hz[pitched]) & (high == 0)).sum())
            self._looked_at += len(high)
            self._repetitions += [float(hz) for hz in high if hz]
        if len(frames) and np.mean(confidence >= self._voiced_from) < quality.UNPITCHED_SHARE:
            windows = self._cut(audio_16k, frames, _LONG_WINDOW)
            windows = windows[np.square(windows).mean(axis=1) > _AUDIBLE_RMS**2]
            self._looked_at += len(windows)
            self._repetitions += [hz for window in windows if (hz := _repetition_hz(window))]

    @property
    def is_polyphonic(self) -> bool:
        """Whether there seem to be several notes at once."""
        return self._pitched >= _LEAST_FRAMES and self._polyphonic >= _POLYPHONIC_SHARE * self._pitched

    @property
    def unheard_hz(self) -> float:
        """About the pitch of a recording that is beyond the estimator's range; 0 where it is not."""
        if self._looked_at < _LEAST_FRAMES or 2 * len(self._repetitions) < self._looked_at:
            return 0.0
        return float(np.median(self._repetitions))

    def _cut(self, audio: np.ndarray, frames: np.ndarray, size: int) -> np.ndarray:
        padded = np.pad(audio, (size // 2, size))
        starts = np.minimum(np.round(frames * self._hop).astype(np.int64), len(audio))
        return np.lib.stride_tricks.sliding_window_view(padded, size)[starts]


def _power_spectra(windows: np.ndarray) -> np.ndarray:
    shape = np.hanning(windows.shape[1]).astype(np.float32)
    return np.square(np.abs(scipy.fft.rfft(windows * shape, axis=1)))


def _has_note_between(spectra: np.ndarray, f0_hz: np.ndarray) -> np.ndarray:
    """Which frames have a strong peak between the harmonics [n]."""
    hz = np.arange(spectra.shape[1]) * RATE / _WINDOW
    band = (hz >= _BAND_HZ[0]) & (hz <= _BAND_HZ[1])
    peak = (spectra > np.roll(spectra, 1, axis=1)) & (spectra >= np.roll(spectra, -1, axis=1)) & band
    order = hz / f0_hz[:, None]
    distance = np.abs(order - np.round(order))
    distance = np.where((order < 0.75) & (order > 0.3), 0.5, distance)  # below the fundamental
    between = peak & (distance > _BETWEEN) & (distance * f0_hz[:, None] > _LEAST_HZ)
    strongest = np.where(band, spectra, 0).max(axis=1)
    return np.where(between, spectra, 0).max(axis=1) > 10 ** (_AS_STRONG_DB / 10) * np.maximum(
        strongest, 1e-12
    )


def _highest_hz(spectra: np.ndarray) -> np.ndarray:
    """The strongest frequency of frames with nearly all power above the range of all estimators [n], or 0."""
    hz = np.arange(spectra.shape[1]) * RATE / _WINDOW
    power = spectra.sum(axis=1)
    high = spectra[:, hz > _HIGH_HZ].sum(axis=1) > _HIGH_SHARE * np.maximum(power, 1e-12)
    return np.where(high, hz[spectra.argmax(axis=1)], 0.0)


def _repetition_hz(window: np.ndarray) -> float:
    """How often a window repeats, in Hz; 0 where it does not."""
    size = len(window)
    power = np.square(np.abs(scipy.fft.rfft(window - window.mean(), 2 * size)))
    correlation = scipy.fft.irfft(power)[: _LONGEST_LAG + 1]
    correlation *= size / (size - np.arange(_LONGEST_LAG + 1)) / max(float(correlation[0]), 1e-12)
    low = np.flatnonzero(correlation < _DIPS)
    if not len(low) or correlation[low[0] :].max() < _REPEATS:
        return 0.0
    highest_hz = float(power.argmax()) * RATE / (2 * size)
    if highest_hz > 1500:
        return highest_hz
    lag = low[0] + int(np.flatnonzero(correlation[low[0] :] >= _REPEATS)[0])
    near = slice(lag, lag + max(2, lag // 10))
    return RATE / (lag + int(correlation[near].argmax()))
