"""The estimator `'swift'`: the small network of the package swift-f0, which carries its weights.

The network answers every 16 ms, to a few cents, and now and then an octave too high. Between its frames log
frequency is interpolated by a monotone cubic; then the waveform is measured near that pitch, which takes
the error below one cent on a clean tone, as far as the waveform repeats at all. Where the network leaves the
pitch, and where it is silent at low ones, that of YIN fills in.
"""

from __future__ import annotations

import hashlib
import pathlib

import numpy as np
import scipy.interpolate
import scipy.ndimage

from ddsp.errors import require
from ddsp.f0.framing import SAMPLE_RATE, VOICED, fill_unvoiced, mean_square
from ddsp.f0.yin import Differences, Yin, refine_track

_HOP = 256
_MIN_SAMPLES = 2048
_CLEARLY, _SURELY, _REPEATS = (
    0.25,
    0.75,
    0.2,
)  # differences of two misfits; misfit of a pitch that surely is one
_MISFIT = 0.4  # from here on, what repeats there says nothing about the pitch
_PULL_CENTS = 1.4  # divided by the misfit: how far the waveform may pull from the network
_LOW_HZ, _SURE, _SURE_SECONDS = 200.0, 0.9, 0.1  # a pitch below that YIN is sure of for so long
_LOW_RMS = 1e-3  # what hums below -60 dB of full scale is no note
_QUIET_PEAK, _HEARD_PEAK, _AUDIBLE_PEAK = 0.03, 0.25, 1e-5
_GAIN_HOPS = 62  # a second to either side decides how much a quiet part is lifted


class Swift:
    """Pitch from 47 to 2094 Hz by swift-f0 (that package is needed), and from 30 Hz by YIN."""

    name = 'swift'
    cost = 0.017  # CPU seconds for a second of audio, about

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
        wanted, times = np.arange(n_frames) / frame_rate, np.asarray(result.timestamps)
        confidence = np.interp(wanted, times, result.confidence).astype(np.float32)
        voiced = result.confidence >= VOICED
        if voiced.any():
            known = fill_unvoiced(result.pitch_hz, voiced)
            curve = scipy.interpolate.PchipInterpolator(times, np.log(known))
            coarse = np.exp(curve(np.clip(wanted, times[0], times[-1])))
        else:
            coarse = np.zeros(n_frames)
        return _measure(audio, frame_rate, coarse, confidence)


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
    that YIN's pitch gives leaps less, from what lies before to what lies behind, unless there is no doubt.
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
        gain = np.median(misfit[first:end] - other_misfit[first:end])
        if (
            around
            and gain < _SURELY
            and sum(abs(other_pitch[at] - pitch[beside]) for at, beside in around) > 0.5 * leaps
        ):
            wrong[first:end] = False
    return wrong


def _low(
    audio: np.ndarray, frame_rate: float, voiced: np.ndarray, other: np.ndarray, periodicity: np.ndarray
) -> np.ndarray:
    """Frames with a low pitch of which the network hears nothing and YIN is sure [n_frames], bool."""
    low = ~voiced & (other > 0) & (other < _LOW_HZ) & (periodicity >= _SURE)
    if not low.any():
        return low
    low = scipy.ndimage.binary_opening(low, np.ones(max(1, round(_SURE_SECONDS * frame_rate))))
    return low & (mean_square(audio, len(low), frame_rate) >= _LOW_RMS**2)


def _measure(
    audio: np.ndarray, frame_rate: float, coarse: np.ndarray, confidence: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Pitch measured on the waveform near that of the network, or of YIN where that is wrong or silent."""
    if not len(coarse):
        return coarse.astype(np.float32), confidence
    differences, voiced = Differences(audio, frame_rate, len(coarse), keep=True), confidence >= VOICED
    other, periodicity = Yin().decode(differences)
    low = _low(audio, frame_rate, voiced, other, periodicity)
    coarse, confidence = np.where(low, other, coarse), np.where(low, periodicity, confidence)
    voiced |= low
    if not voiced.any():
        return np.zeros(len(coarse), np.float32), confidence
    fine, misfit = refine_track(differences, coarse, voiced)
    wrong = _excursions(coarse, misfit, other, periodicity, voiced)
    if wrong.any():
        coarse = np.where(wrong, other, coarse)
        fine, misfit = refine_track(differences, coarse, voiced)
    return _blend(coarse, fine, misfit, voiced), confidence


def _blend(coarse: np.ndarray, fine: np.ndarray, misfit: np.ndarray, voiced: np.ndarray) -> np.ndarray:
    """The network's pitch, moved as the waveform says, the less the worse it repeats.

    Where pitch and level both move, the louder part of a frame decides there, and in a room the note before.
    """
    apart = 1200 * np.log2(fine / np.maximum(coarse, 1.0)) * np.clip(1 - misfit / _MISFIT, 0, 1)
    most = _PULL_CENTS / np.maximum(misfit, 1e-6)
    pitch = coarse * 2 ** (np.clip(apart, -most, most) / 1200)
    return fill_unvoiced(pitch, voiced).astype(np.float32)
