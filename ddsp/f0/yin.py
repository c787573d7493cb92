"""Pitch without learned weights: YIN candidates with the probabilities of pYIN, joined by Viterbi decoding.

de Cheveigné and Kawahara, "YIN, a fundamental frequency estimator for speech and music", JASA 2002; Mauch and
Dixon, "pYIN: a fundamental frequency estimator using probabilistic threshold distributions", ICASSP 2014. The
probabilities have a closed form here, and decoding runs over the candidates instead of a grid of pitches.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import scipy.fft

from ddsp.analysis.sequences import likeliest_path
from ddsp.f0.framing import SAMPLE_RATE, VOICED, fill_unvoiced, frame_centres

F0_MIN, F0_MAX = 30.0, 2100.0
_WINDOW = 512  # samples compared, 32 ms
_LAG_MIN, _LAG_MAX = int(SAMPLE_RATE / F0_MAX), int(SAMPLE_RATE / F0_MIN)
_FFT_SIZE = 1080  # at least _WINDOW + _LAG_MAX + 2
_SHORT_LAG = 20  # up to here the least value of a period is looked for between samples as well
_BEYOND_LAGS = np.arange(3, 8, 0.25)  # periods of pitches above the range, and a little more
_MID_LAG = 64  # lag whose comparison is centred on the frame
_N_CANDIDATES = 6
_BETA = 18.0  # thresholds are distributed as Beta(2, 18): a mean of 0.1
_LONG_LAG = 128  # several short periods up to here are measured together, for precision
_BATCH = 128  # frames at once: what is computed of them fits the cache of a core
_KEPT_FRAMES = 15_000  # up to so many, differences can be kept for the next look: 128 MB
_REACH, _REACH_STEPS = 0.03, 7  # how far from a guess a minimum is looked for
# Costs of the path, in nats (for steps of 4 ms).
_CENTS_PER_NAT = 25.0
_JUMP_COST = 9.0
_SWITCH_COST = 4.0
_OCTAVE_COST = 0.5  # two notes at once repeat together after a common multiple of their periods
_FLOOR = 1e-5
_UNVOICED_WEIGHT = 0.001  # a reverberant note is no less a note


class Yin:
    """The estimator `'yin'`: needs nothing but numpy and scipy."""

    name = 'yin'
    cost = 0.007  # CPU seconds for a second of audio, about

    def predict(
        self, audio: np.ndarray, frame_rate: float, n_frames: int, viterbi: bool = True
    ) -> tuple[np.ndarray, np.ndarray]:
        """Pitch of each frame.

        Args:
          audio: Mono signal [n_samples] at 16 kHz.
          frame_rate: Frames per second; frame i is centred on `i / frame_rate`.
          n_frames: Number of frames.
          viterbi: Join the candidates by the smoothest likely path; otherwise each frame decides alone.

        Returns:
          f0_hz [n_frames] and confidence [n_frames]: 1 for a periodic signal, from 0.5 voiced.
        """
        if n_frames == 0:
            return np.zeros(0, np.float32), np.zeros(0, np.float32)
        return self.decode(Differences(audio, frame_rate, n_frames), viterbi)

    def decode(self, differences: Differences, viterbi: bool = True) -> tuple[np.ndarray, np.ndarray]:
        """`predict` for a signal whose differences are known."""
        n_frames, frame_rate = differences.n_frames, differences.frame_rate
        parts = []
        for _, difference, normalised, beyond in differences:
            coarse, weight = _candidates(normalised, beyond)
            parts.append((*_refine(difference, normalised, coarse), weight, 1 - _threshold_cdf(beyond)))
        lags, offsets, values, probability, refused = [
            np.concatenate(part) for part in zip(*parts, strict=True)
        ]
        path = _decode(lags, probability, refused, frame_rate) if viterbi else _best(probability)
        f0_hz = _track(lags, offsets, path, frame_rate)
        periodicity = np.clip(1 - 2 * values[np.arange(n_frames), np.maximum(path, 0)], 0, 1)
        sure = np.maximum(periodicity, VOICED)
        confidence = np.where(path >= 0, sure, np.minimum(0.5 * periodicity, 0.49))
        return f0_hz, confidence.astype(np.float32)


class _Batch(NamedTuple):
    frames: slice
    difference: np.ndarray  # [n, lags]
    normalised: np.ndarray  # [n, lags]
    beyond: np.ndarray  # least normalised difference after the period of a pitch above the range [n]


class Differences:
    """How unlike itself a signal is after each lag, around each frame.

    Args:
      audio: Mono signal [n_samples] at 16 kHz.
      frame_rate: Frames per second.
      n_frames: Number of frames.
      keep: Whether they are looked at again.

    Iterating gives them for some frames at a time.
    """

    def __init__(self, audio: np.ndarray, frame_rate: float, n_frames: int, keep: bool = False) -> None:
        self.frame_rate, self.n_frames = frame_rate, n_frames
        self._keep = keep and n_frames <= _KEPT_FRAMES
        self._starts = frame_centres(n_frames, frame_rate) - (_WINDOW + _MID_LAG) // 2 + _FFT_SIZE
        after = max(_FFT_SIZE, int(self._starts[-1]) + _FFT_SIZE - len(audio)) if n_frames else 0
        self._audio = np.pad(np.asarray(audio, np.float32), (_FFT_SIZE, after))
        self._kept: list[_Batch] = []

    def __iter__(self) -> Iterator[_Batch]:
        """Yields the batches in order."""
        if self._kept:
            yield from self._kept
            return
        found = []
        for first in range(0, self.n_frames, _BATCH):
            frames = slice(first, min(first + _BATCH, self.n_frames))
            difference, short = _difference(self._audio, self._starts[frames])
            normalised, beyond = _normalise(difference, short)
            batch = _Batch(frames, difference, normalised, beyond)
            if self._keep:
                found.append(batch)
            yield batch
        self._kept = found


def refine_track(
    differences: Differences, f0_hz: np.ndarray, voiced: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Measures on the waveform what another estimator knows coarsely.

    Args:
      differences: Differences of the signal, for as many frames.
      f0_hz: Pitch to within 3 % [n_frames], Hz.
      voiced: Where it counts [n_frames], bool.

    Returns:
      Pitch [n_frames], Hz, bridged where it is not voiced; and how badly the signal repeats after that time
      [n_frames]: 0 not at all badly, 1 no better than after any other.
    """
    lags = SAMPLE_RATE / np.clip(f0_hz, F0_MIN, F0_MAX)
    parts = []
    for frames, difference, normalised, _ in differences:
        rows = np.arange(len(difference))[:, None]
        near = _nearest_minimum(difference, rows, lags[frames, None])
        parts.append(_refine(difference, normalised, near))
    refined, offsets, values = [np.concatenate(part) for part in zip(*parts, strict=True)]
    return _track(refined, offsets, np.where(voiced, 0, -1), differences.frame_rate), values[:, 0]


def _nearest_minimum(curve: np.ndarray, rows: np.ndarray, lags: np.ndarray) -> np.ndarray:
    """The lag of the least value within 3 % (and one sample) of each of `lags` [n, 1]."""
    reach = np.maximum(1.0, _REACH * lags)
    tried = np.clip(np.round(lags + reach * np.linspace(-1, 1, 2 * _REACH_STEPS + 1)), 1, _LAG_MAX).astype(
        np.int64
    )
    return np.take_along_axis(tried, curve[rows, tried].argmin(axis=1, keepdims=True), axis=1)


def _difference(audio: np.ndarray, starts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Difference function [n_frames, lags] (YIN, equation 6): lags 0 to _LAG_MAX + 1, and _BEYOND_LAGS."""
    n_lags = _LAG_MAX + 2
    frames = np.lib.stride_tricks.sliding_window_view(audio, _WINDOW + n_lags)[starts]
    mean = frames.mean(axis=1, keepdims=True)  # a constant would drown small differences in rounding
    frames = frames - mean
    spectrum = scipy.fft.rfft(frames, _FFT_SIZE, axis=1)
    head = scipy.fft.rfft(frames[:, :_WINDOW], _FFT_SIZE, axis=1)
    np.conj(head, out=head)
    head *= spectrum
    products = scipy.fft.irfft(head, _FFT_SIZE, axis=1)[:, :n_lags]
    # Energy of the window after each lag, from sums up to each sample, the mean m taken off:
    # sum (x - m)^2 = sum x^2 - m (2 sum x - W m).
    near = audio[starts[0] : starts[-1] + _WINDOW + n_lags].astype(np.float64)
    sums = (np.concatenate(([0.0], np.cumsum(values))) for values in (near, near**2))
    rows = starts - starts[0]
    total, squared = (
        np.lib.stride_tricks.sliding_window_view(values[_WINDOW:] - values[:-_WINDOW], n_lags)[rows]
        for values in sums
    )
    energy = (squared - mean * (2 * total - _WINDOW * mean)).astype(np.float32)
    short = energy[:, :1] + energy[:, : len(_BETWEEN)] @ _BETWEEN - 2 * products[:, :_N_NEAR] @ _NEAR
    return np.maximum(energy[:, :1] + energy - 2 * products, 0.0), np.maximum(short, 0.0)


def _normalise(difference: np.ndarray, short: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cumulative mean normalised difference (YIN, equation 8); 1 where there is no signal.

    Args:
      difference: At lags 0 to _LAG_MAX + 1 [n_frames, lags].
      short: At _BEYOND_LAGS [n_frames, lags].

    Returns:
      Normalised differences [n_frames, lags], and the least minimum at _BEYOND_LAGS [n_frames].
    """
    total = np.cumsum(difference[:, 1:], axis=1)
    lags = np.arange(1, difference.shape[1], dtype=np.float32)
    normalised = np.ones_like(difference)
    # Where a sound begins in the frame, short lags compare silence with silence: that is no period.
    heard = total > np.maximum(1e-2 * difference.max(axis=1, keepdims=True) * lags, 1e-12)
    np.divide(difference[:, 1:] * lags, total, out=normalised[:, 1:], where=heard)
    n = len(_BETWEEN)
    mean = (total[:, : n - 1] / lags[: n - 1]) @ _BETWEEN[1:]
    minimum = (short[:, 1:-1] < short[:, :-2]) & (short[:, 1:-1] <= short[:, 2:])
    minimum &= heard[:, n - 2, None] & (_BEYOND_LAGS[1:-1] < SAMPLE_RATE / F0_MAX)
    ratio = np.divide(short[:, 1:-1], mean[:, 1:-1], out=np.ones_like(mean[:, 1:-1]), where=minimum)
    return normalised, ratio.min(axis=1)


def _fractional_lags() -> tuple[np.ndarray, np.ndarray]:
    """Matrices from values at whole lags to _BEYOND_LAGS: windowed sinc, and straight lines."""
    apart = np.arange(_N_NEAR)[:, None] - _BEYOND_LAGS
    window = np.cos(np.pi / 2 * np.clip(apart / _SINC_REACH, -1, 1)) ** 2
    kernel = np.sinc(apart) * window
    lines = np.maximum(1 - np.abs(apart), 0)[: int(_BEYOND_LAGS[-1]) + 2]
    return (kernel / kernel.sum(axis=0)).astype(np.float32), lines.astype(np.float32)


_SINC_REACH = 4.0
_N_NEAR = int(_BEYOND_LAGS[-1] + _SINC_REACH) + 1
_NEAR, _BETWEEN = _fractional_lags()


def _candidates(normalised: np.ndarray, beyond: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Lags that some threshold would choose, with the probability of such a threshold.

    YIN takes the first minimum under a threshold s. A minimum of value v is chosen for v < s <= m, where m is
    the least of the minima before it: its probability is F(m) - F(v), with F(s) = 1 - (1 - s)^b (1 + b s) for
    Beta(2, b). The minimum beyond the range takes its share: a pitch above it is not heard octaves low.

    Returns:
      Lags [n_frames, _N_CANDIDATES] (0 where there are fewer) and their probabilities.
    """
    left, inner, right = (normalised[:, _LAG_MIN + step : _LAG_MAX + 1 + step] for step in (-1, 0, 1))
    minimum = (inner < left) & (inner <= right)
    values = np.where(minimum, np.minimum(inner, 1.0), 1.0)
    short = slice(0, _SHORT_LAG - _LAG_MIN)
    values[:, short] = np.where(
        minimum[:, short], _vertex(left[:, short], inner[:, short], right[:, short]), 1.0
    )
    least = np.minimum(np.minimum.accumulate(values, axis=1), beyond[:, None])
    before = np.concatenate((beyond[:, None], least[:, :-1]), axis=1)
    frame, column = np.nonzero(values < before)
    weight = _threshold_cdf(before[frame, column]) - _threshold_cdf(values[frame, column])
    order = np.lexsort((-weight, frame))
    frame, column, weight = frame[order], column[order], weight[order]
    rank = np.arange(len(frame)) - np.searchsorted(frame, frame)
    kept = rank < _N_CANDIDATES
    lags = np.zeros((len(normalised), _N_CANDIDATES), np.int64)
    probability = np.zeros((len(normalised), _N_CANDIDATES), np.float64)
    lags[frame[kept], rank[kept]] = column[kept] + _LAG_MIN
    probability[frame[kept], rank[kept]] = weight[kept]
    return lags, probability


def _vertex(left: np.ndarray, middle: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Least value, at least 0, of parabolas through three values of which the middle one is least."""
    curvature = np.maximum(left - 2 * middle + right, 1e-12)
    return np.clip(middle - (left - right) ** 2 / (8 * curvature), 0.0, 1.0)


def _threshold_cdf(value: np.ndarray) -> np.ndarray:
    value = value.astype(np.float64)
    return 1 - (1 - value) ** _BETA * (1 + _BETA * value)


def _refine(
    difference: np.ndarray, normalised: np.ndarray, lags: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Lags to a fraction of a sample.

    Short periods are measured over several of them, which divides the error by their number.

    Returns:
      Lags (0 where there is no candidate), the offset in samples of the centre of the comparison from that of
      the frame, and the normalised difference; each [n_frames, _N_CANDIDATES].
    """
    rows = np.arange(len(lags))[:, None]
    there = lags > 0
    single = lags + _parabola(difference, rows, np.maximum(lags, 1))
    periods = np.maximum(1, np.floor(_LONG_LAG / np.maximum(single, 1))).astype(np.int64)
    far = np.clip(np.round(periods * single).astype(np.int64), 1, _LAG_MAX)
    near = np.stack([difference[rows, np.clip(far + step, 1, _LAG_MAX)] for step in (-1, 0, 1)])
    far = np.clip(far + near.argmin(axis=0) - 1, 1, _LAG_MAX)
    several = (far + _parabola(difference, rows, far)) / periods
    # The multiple must confirm the single period; where pitch moves quickly it may not.
    agrees = np.abs(several - single) * periods < 1.0
    refined = np.where(agrees, several, single)
    span = refined * np.where(agrees, periods, 1)
    return np.where(there, refined, 0.0), (span - _MID_LAG) / 2, normalised[rows, lags]


def _parabola(curve: np.ndarray, rows: np.ndarray, lags: np.ndarray) -> np.ndarray:
    """Distance of the vertex from the middle of three neighbouring values, -0.5 to 0.5."""
    left, middle, right = (curve[rows, lags + step].astype(np.float64) for step in (-1, 0, 1))
    curvature = left - 2 * middle + right
    shift = np.divide(0.5 * (left - right), curvature, out=np.zeros_like(middle), where=curvature > 1e-12)
    return np.clip(shift, -0.5, 0.5)


def _best(probability: np.ndarray) -> np.ndarray:
    """The likeliest candidate of each frame, or -1 where no pitch is likelier."""
    unvoiced = 1 - probability.sum(axis=1)
    return np.where(probability.max(axis=1) > unvoiced, probability.argmax(axis=1), -1)


def _decode(lags: np.ndarray, probability: np.ndarray, refused: np.ndarray, frame_rate: float) -> np.ndarray:
    """The cheapest path through the candidates and the state "no pitch" (-1), [n_frames]."""
    there = lags > 0
    cents = np.where(there, 1200 * np.log2(SAMPLE_RATE / np.maximum(lags, 1.0)), 0.0)
    unvoiced = _UNVOICED_WEIGHT * (1 - probability.sum(axis=1)) + (1 - _UNVOICED_WEIGHT) * refused
    local = -np.log(np.maximum(np.concatenate((probability, unvoiced[:, None]), axis=1), _FLOOR))
    local[:, :-1] += _OCTAVE_COST * np.log2(np.maximum(lags, _LAG_MIN) / _LAG_MIN)
    local[:, :-1][~there] = 1e6
    steps = np.abs(cents[1:, :, None] - cents[:-1, None, :]) / (_CENTS_PER_NAT * 250 / frame_rate)
    n_states = local.shape[1]
    costs = np.full((len(steps), n_states, n_states), _SWITCH_COST)  # [frame, to, from]
    costs[:, :-1, :-1] = np.minimum(steps, _JUMP_COST)
    costs[:, -1, -1] = 0.0

    states = np.arange(n_states)

    def step(i: int, score: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        paths = score - costs[i - 1]
        best = paths.argmax(axis=1)
        return paths[states, best] - local[i], best

    path = likeliest_path(-local[0], step, len(local))
    return np.where(path == n_states - 1, -1, path)


def _track(lags: np.ndarray, offsets: np.ndarray, path: np.ndarray, frame_rate: float) -> np.ndarray:
    """Pitch along a path [n_frames], each value moved to the centre of its frame, gaps bridged."""
    rows, voiced = np.arange(len(path)), path >= 0
    column = np.maximum(path, 0)
    pitch = np.log2(SAMPLE_RATE / np.maximum(lags[rows, column], 1.0))
    step = np.diff(pitch)  # octaves per frame; counts where both neighbours have a pitch near this one
    steady = voiced[1:] & voiced[:-1] & (np.abs(step) < 0.05 * 250 / frame_rate)
    step = np.where(steady, step, 0.0)
    count = np.concatenate((steady, [0])) + np.concatenate(([0], steady)).astype(float)
    slope = (np.concatenate((step, [0])) + np.concatenate(([0], step))) / np.maximum(count, 1)
    pitch -= slope * offsets[rows, column] * frame_rate / SAMPLE_RATE
    return fill_unvoiced(2**pitch, voiced).astype(np.float32)
