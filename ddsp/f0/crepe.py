"""The estimators `'crepe'` and `'crepe-SIZE'`: the published networks, decoded as the package crepe does."""

from __future__ import annotations

import numpy as np

from ddsp.analysis.sequences import likeliest_path
from ddsp.f0.crepe_bins import CENTS, N_BINS
from ddsp.f0.crepe_engine import FRAME, CrepeEngine
from ddsp.f0.crepe_weights import SIZES, WeightsError, load_weights
from ddsp.f0.framing import window_audio

_REACH = 12  # bins between two frames that the path may nearly take
_CHUNK = 1024  # frames cut at once
_COSTS = {'full': 1.4, 'large': 0.9, 'medium': 0.5, 'small': 0.3, 'tiny': 0.13}


class Crepe:
    """CREPE of one size.

    Args:
      size: `'tiny'` to `'full'`; None for the largest one whose weights are here.
    """

    def __init__(self, size: str | None = None) -> None:
        self.size = size or _largest()
        weights = load_weights(self.size)
        self.name = f'crepe-{self.size}'
        self.cost = _COSTS[self.size]
        self.weights_sha256 = weights.sha256
        self._engine = CrepeEngine(weights)

    def predict(
        self, audio: np.ndarray, frame_rate: float, n_frames: int, viterbi: bool = True
    ) -> tuple[np.ndarray, np.ndarray]:
        """Pitch of each frame, as `F0Estimator` says; confidence is the highest activation."""
        frames = window_audio(np.asarray(audio, np.float32), n_frames, frame_rate, FRAME)
        parts = [self._engine.activations(frames[i : i + _CHUNK]) for i in range(0, n_frames, _CHUNK)]
        activations = np.concatenate(parts) if parts else np.zeros((0, N_BINS), np.float32)
        return activations_to_f0(activations, viterbi, np.logical_not(frames.any(axis=1)))


def activations_to_f0(
    activations: np.ndarray, viterbi: bool = True, silent: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Pitch and confidence from activations, as `crepe.predict` computes them.

    Args:
      activations: [n_frames, 360].
      viterbi: Take the bins of the likeliest path instead of the highest one of each frame.
      silent: Frames of digital silence [n_frames], bool: their activations say nothing, and the path begins
        anew behind them.

    Returns:
      f0_hz [n_frames] and confidence [n_frames], float32.
    """
    if not len(activations):
        return np.zeros(0, np.float32), np.zeros(0, np.float32)
    highest = activations.argmax(axis=1)
    centres = _likeliest_path(highest, silent) if viterbi else highest
    bins = centres[:, None] + np.arange(-4, 5)
    inside = (bins >= 0) & (bins < N_BINS)
    bins = np.clip(bins, 0, N_BINS - 1)
    weights = np.take_along_axis(activations, bins, axis=1).astype(np.float64) * inside
    cents = (weights * CENTS[bins]).sum(axis=1) / np.maximum(weights.sum(axis=1), 1e-12)
    return (10 * 2 ** (cents / 1200)).astype(np.float32), activations.max(axis=1).astype(np.float32)


def _likeliest_path(highest: np.ndarray, silent: np.ndarray | None = None) -> np.ndarray:
    """Viterbi decoding of the highest bins [n_frames] under crepe's hidden Markov model.

    Moves of d bins have the weight max(12 - |d|, 0), normalised for each start; a bin is observed at its own
    state with 0.1 + 0.9 / 360 and at any other with 0.9 / 360.

    Several paths are often equally likely (a leap may come a frame earlier or later). The logarithms are
    rounded to multiples of 2^-24, so that sums are exact and a tie is one wherever the signal begins; the
    package crepe leaves it to rounding.
    """
    moves = np.arange(_REACH - 1, -_REACH, -1)  # from the lowest origin on, which wins where paths are equal
    weights = (_REACH - np.abs(moves)).astype(np.float64)
    states = np.arange(N_BINS)
    origin = states[:, None] - moves  # [to, move]
    inside = (origin >= 0) & (origin < N_BINS)
    origin = np.clip(origin, 0, N_BINS - 1)
    ends = states[:, None] + moves
    total = (weights * ((ends >= 0) & (ends < N_BINS))).sum(axis=1)
    log_move = np.where(inside, _exact(np.log(weights) - np.log(total[origin])), -np.inf)
    gain = _exact(np.log(0.1 + 0.9 / N_BINS) - np.log(0.9 / N_BINS))
    heard = np.ones(len(highest), bool) if silent is None else ~silent

    def step(i: int, score: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        if not heard[i]:  # anything may follow, whatever came before
            return np.full(N_BINS, score.max()), np.full(N_BINS, score.argmax())
        paths = score[origin] + log_move
        best = paths.argmax(axis=1)
        score = paths[states, best]
        score[highest[i]] += gain
        return score, origin[states, best]

    first = np.zeros(N_BINS)
    first[highest[0]] += gain * heard[0]
    return likeliest_path(first, step, len(highest))


def _exact(log_probability: np.ndarray) -> np.ndarray:
    return np.round(log_probability * 2.0**24) / 2.0**24


def _largest() -> str:
    """The largest size whose weights are here."""
    problems = []
    for size in SIZES:
        try:
            load_weights(size)
            return size
        except WeightsError as error:
            problems.append(error)
    raise problems[0]
