"""The estimator `'swift'`: the small network of the package swift-f0, which carries its weights.

The network answers every 16 ms, to a few cents, and now and then an octave too high. Between its frames log
frequency is interpolated by a monotone cubic; then the waveform is measured near that pitch, which takes
the error below one cent on a clean tone, an octave is corrected where half of it explains far more, and where
the network leaves the pitch for a moment, that of YIN fills in.
"""

from __future__ import annotations

import hashlib
import pathlib

import numpy as np
import scipy.interpolate
import scipy.ndimage

from ddsp.errors import require
from ddsp.f0.framing import SAMPLE_RATE, VOICED, fill_unvoiced
from ddsp.f0.yin import Differences, Yin, refine_track

_HOP = 256
_MIN_SAMPLES = 2048
_OCTAVE_FRAMES = 51  # a correction holds for that long, or is none
_OCTAVE_RATIO = 0.35
_CLEARLY, _REPEATS = 0.25, 0.2  # difference of two misfits; misfit of a pitch that surely is one
_QUIET_PEAK, _HEARD_PEAK, _AUDIBLE_PEAK = 0.03, 0.25, 1e-5
_GAIN_HOPS = 62  # a second to either side decides how much a quiet part is lifted


class Swift:
    """Pitch from 47 to 2094 Hz by swift-f0; needs that package (and onnxruntime with it)."""

    name = 'swift'
    cost = 0.016  # CPU seconds for a second of audio, about

    def __init__(self) -> None:
        module = require('swift_f0', "for the pitch estimator 'swift'")
        # One thread: whoever has several recordings runs several workers.
        self._detector = module.SwiftF0(threads=1)
        weights = pathlib.Path(str(module.__file__)).with_name('model.onnx').read_bytes()
        self.weights_sha256 = hashlib.sha256(weights).hexdigest()

    def predict(
        self, audio: np.ndarray, frame_rate: float, n_frames: int, viterbi: bool = True
    ) -> tuple[np.ndarray, np.ndarray]:
        """Pitch of each frame, as `F0Estimator` says. The network needs no decoding: `viterbi` is ignored."""
        audio = np.asarray(audio, np.float32)
        # A whole number of hops, so that the network sees the end as well.
        missing = max(_MIN_SAMPLES - len(audio), -len(audio) % _HOP)
        result = self._detector.detect(np.pad(_lift(audio), (0, missing + _HOP)), SAMPLE_RATE)
        times, voiced = np.asarray(result.timestamps), result.confidence >= VOICED
        wanted = np.arange(n_frames) / frame_rate
        confidence = np.interp(wanted, times, result.confidence).astype(np.float32)
        if not voiced.any():
            return np.zeros(n_frames, np.float32), confidence
        curve = scipy.interpolate.PchipInterpolator(times, np.log(fill_unvoiced(result.pitch_hz, voiced)))
        coarse = np.exp(curve(np.clip(wanted, times[0], times[-1])))
        return _measure(audio, frame_rate, coarse, confidence >= VOICED), confidence


def _lift(audio: np.ndarray) -> np.ndarray:
    """Lifts what is quiet, and stays so for a second on either side, to where the network hears it."""
    peaks = np.abs(np.pad(audio, (0, -len(audio) % _HOP))).reshape(-1, _HOP).max(axis=1)
    peaks = scipy.ndimage.maximum_filter1d(peaks, 2 * _GAIN_HOPS + 1, mode='constant')
    quiet = (peaks > _AUDIBLE_PEAK) & (peaks < _QUIET_PEAK)
    if not quiet.any():
        return audio
    gain = np.where(quiet, _HEARD_PEAK / np.maximum(peaks, _AUDIBLE_PEAK), 1.0).astype(np.float32)
    return audio * np.repeat(gain, _HOP)[: len(audio)]


def _excursions(
    coarse: np.ndarray, misfit: np.ndarray, other: np.ndarray, periodicity: np.ndarray, voiced: np.ndarray
) -> np.ndarray:
    """Frames where the network is wrong and YIN is not [n_frames], bool.

    The signal does not repeat at the network's pitch, or repeats an octave above it as well; and the track
    that YIN's pitch gives leaps less, from what lies before to what lies behind.
    """
    heard = voiced & (periodicity >= VOICED) & (other > 0)
    other_misfit = (1 - periodicity) / 2
    pitch, other_pitch = (12 * np.log2(np.maximum(track, 1.0)) for track in (coarse, other))
    apart = np.where(heard, other_pitch - pitch, 0.0)
    no_period = (np.abs(apart) > 1) & (misfit - other_misfit > _CLEARLY)
    octave_low = (np.abs(apart - 12) < 1) & (other_misfit < _REPEATS)
    wrong = heard & (no_period | octave_low)
    edges = np.flatnonzero(np.diff(np.concatenate(([False], wrong, [False]))))
    for first, end in edges.reshape(-1, 2):
        around = [(at, beside) for at, beside in ((first, first - 1), (end - 1, end))
                  if 0 <= beside < len(wrong) and voiced[beside]]  # fmt: skip
        leaps = sum(abs(pitch[at] - pitch[beside]) for at, beside in around)
        if around and sum(abs(other_pitch[at] - pitch[beside]) for at, beside in around) > 0.5 * leaps:
            wrong[first:end] = False
    return wrong


def _measure(audio: np.ndarray, frame_rate: float, coarse: np.ndarray, voiced: np.ndarray) -> np.ndarray:
    """Pitch measured on the waveform near that of the network, or of YIN where the network is wrong."""
    if not voiced.any():
        return coarse.astype(np.float32)
    differences = Differences(audio, frame_rate, len(coarse), keep=True)
    fine, ratio, misfit = refine_track(differences, coarse, voiced)
    other, periodicity = Yin().decode(differences)
    wrong = _excursions(coarse, misfit, other, periodicity, voiced)
    if wrong.any():
        coarse = np.where(wrong, other, coarse)
        fine, ratio, misfit = refine_track(differences, coarse, voiced)
    smooth = scipy.ndimage.median_filter(np.where(voiced, np.log(ratio), 0.0), _OCTAVE_FRAMES, mode='nearest')
    too_high = voiced & (smooth < np.log(_OCTAVE_RATIO))
    if not too_high.any():
        return fine
    return refine_track(differences, np.where(too_high, coarse / 2, coarse), voiced)[0]
