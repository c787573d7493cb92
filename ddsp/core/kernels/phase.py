"""Phase that does not drift, in float32 and 32-bit integers, on every backend and device.

A float32 sum of a minute of frequencies is off by whole turns, and JAX and most accelerators have no float64
to spare. Here phase is counted in steps of 2^-32 turn by 32-bit integers: they add up exactly, and what
overflows is a whole turn, which does not matter. What is smaller than a step is kept beside them in float32.
After ten minutes the error is below 1e-6 turn.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from ddsp.core.resampling import resample, whole_hop
from ddsp.core.utils import Tensor, constant, dim, tf_float32

TWO_PI = 2.0 * np.pi
_TURN = 2.0**32  # steps in a turn
_SUM_BLOCK = 256  # rounding of the rests stays small, and XLA's cumulative sum takes quadratic time on CPU


class Phase(NamedTuple):
    """Phase of oscillators, in turns without the whole ones.

    Attributes:
      steps: Steps of 2^-32 turn, int32.
      rest: What is smaller than a step, in steps, float32.
      carrier: Zeros that carry the gradient, in turns, float32: integers have none.
    """

    steps: Tensor
    rest: Tensor
    carrier: Tensor

    @classmethod
    def of(cls, turns: Tensor) -> Phase:
        """Phase of float32 turns."""
        wrapped = ops.stop_gradient(turns - ops.round(turns))
        high = ops.round(wrapped * 2.0**24)  # in two parts: half a turn itself does not fit in 32 bits
        rest = (wrapped - high * 2.0**-24) * _TURN
        return cls(ops.cast(high, 'int32') * 256, rest, turns - ops.stop_gradient(turns)).carried()

    @classmethod
    def per_sample(cls, hz: Tensor, sample_rate: float) -> Phase:
        """What a frequency adds to the phase in a sample, exact to 2^-55 turn.

        The quotient is taken digit by digit, in 2^-10, 2^-20 and 2^-30 turn, so that no product is rounded
        for sample rates of up to 14 significant bits, which all usual ones are.
        """
        left, steps = ops.stop_gradient(hz), 0
        for bits in (10, 20, 30):
            digit = ops.round(left * 2.0**bits / sample_rate)
            left = left - digit * (sample_rate / 2.0**bits)
            steps = steps + ops.cast(digit, 'int32') * 2 ** (32 - bits)
        turns = hz / sample_rate
        return cls(steps, left * (_TURN / sample_rate), turns - ops.stop_gradient(turns)).carried()

    def carried(self) -> Phase:
        """Moves whole steps from the rest to the steps."""
        whole = ops.round(self.rest)
        return Phase(self.steps + ops.cast(whole, 'int32'), self.rest - whole, self.carrier)

    def __add__(self, other: Phase) -> Phase:  # type: ignore[override]
        return Phase(*(a + b for a, b in zip(self, other, strict=True))).carried()

    def __mul__(self, number: Any) -> Phase:  # type: ignore[override]
        """Phase of a multiple, by a whole number or an integer array that broadcasts."""
        whole = constant(np.asarray(number, np.int32))
        real = constant(np.asarray(number, np.float32))
        return Phase(self.steps * whole, self.rest * real, self.carrier * real).carried()

    def map(self, function: Callable[[Tensor], Tensor]) -> Phase:
        """The same change of shape of all parts."""
        return Phase(*map(function, self))

    def cumsum(self) -> Phase:
        """Running sum along axis 1, each element's own value included."""
        n = dim(self.steps, 1)
        if isinstance(n, int) and n <= _SUM_BLOCK:
            return self.map(lambda part: ops.cumsum(part, axis=1, dtype=part.dtype)).carried()
        rows = self.map(lambda part: ops.reshape(_padded(part, n), [-1, _SUM_BLOCK, *part.shape[2:]]))
        blocks = rows.map(lambda part: ops.cumsum(part, axis=1, dtype=part.dtype)).carried()
        blocks = blocks.map(lambda part: ops.reshape(part, [-1, -(-n // _SUM_BLOCK), *part.shape[1:]]))
        before = blocks.map(lambda part: part[:, :, -1]).cumsum().delayed().map(lambda part: part[:, :, None])
        sums = blocks + before
        return sums.map(
            lambda part: ops.reshape(part, [-1, dim(part, 1) * _SUM_BLOCK, *part.shape[3:]])[:, :n]
        )

    def delayed(self) -> Phase:
        """Shifts axis 1 by one: zero, then all but the last."""
        return self.map(
            lambda part: ops.pad(part[:, :-1], [[0, 0], [1, 0]] + [[0, 0]] * (len(part.shape) - 2))
        )

    def turns(self, number: Any = 1.0) -> Tensor:
        """Turns of a harmonic, within half a turn of zero but for rounding.

        Args:
          number: Number of the harmonic, a whole number up to 2^12 in float32; broadcasts.
        """
        # The top 12 bits times the number are exact in float32, so whole turns drop out without an error.
        turns = ops.cast(self.steps, 'float32') / _TURN
        top = ops.round(turns * 2.0**12)
        left = self.steps - ops.cast(top, 'int32') * 2**20
        product = top * number / 2.0**12
        small = (ops.cast(left, 'float32') + self.rest) / _TURN + self.carrier
        return (product - ops.round(product)) + small * number

    def radians(self, number: Any = 1.0) -> Tensor:
        """`turns` in radians."""
        return TWO_PI * self.turns(number)


def _padded(x: Tensor, n: Any) -> Tensor:
    return ops.pad(x, [[0, 0], [0, -n % _SUM_BLOCK]] + [[0, 0]] * (len(x.shape) - 2))


def starting_at(initial_phase: Tensor | None, phase: Phase) -> Phase:
    """A phase that begins at `initial_phase`, radians, instead of zero."""
    return phase if initial_phase is None else phase + Phase.of(tf_float32(initial_phase) / TWO_PI)


def accumulate(frequency: Tensor, sample_rate: float, initial_phase: Tensor | None = None) -> Tensor:
    """Phase of each sample, radians, for JAX; see `ddsp.core.oscillators.accumulate_phase`."""
    if keras.backend.backend() != 'jax':
        return NotImplemented  # a sum in float64 is as exact, and takes a third of the CPU time
    phase = Phase.per_sample(tf_float32(frequency), float(sample_rate)).cumsum()
    return starting_at(initial_phase, phase).radians()


def from_frames(frequencies: Tensor, n_samples: int, sample_rate: int) -> Phase:
    """Phase of each sample, its own increment included, for frequencies that are linear between frames.

    Where a frame is a whole number of samples nothing but the frames is added up, and nothing is rounded.

    Args:
      frequencies: [batch, n_frames, n_oscillators], Hz.
      n_samples: Samples of the result.
      sample_rate: Sample rate in Hz.

    Returns:
      Phase [batch, n_samples, n_oscillators].
    """
    hop, rate = whole_hop(frequencies, n_samples), float(sample_rate)
    if hop is None:
        return Phase.per_sample(resample(frequencies, n_samples), rate).cumsum()
    start = frame_starts(Phase.per_sample(frequencies / 2.0, rate), hop).map(lambda part: part[:, :, None])
    k = np.arange(hop).reshape([hop] + [1] * (len(frequencies.shape) - 2))
    ahead = following(frequencies)[:, :, None]
    phase = within_frame(start, frequencies[:, :, None], ahead, k, hop, rate)
    shape = [-1, dim(frequencies, 1) * hop, *frequencies.shape[2:]]
    return phase.map(lambda part: ops.reshape(part, shape))


def following(x: Tensor) -> Tensor:
    """The next frame's values, along axis 1; the last frame is held."""
    return ops.concatenate([x[:, 1:], x[:, -1:]], axis=1)


def frame_starts(half: Phase, hop: int) -> Phase:
    """Phase just before each frame, for frequencies that are linear between frames.

    Sample k of frame j has the frequency `f[j] + (f[j + 1] - f[j]) k / hop`, and the last frame is held, so
    that a frame adds `((hop + 1) f[j] + (hop - 1) f[j + 1]) / 2` to the phase: nothing is rounded.

    Args:
      half: What half the frequency adds in a sample, `Phase.per_sample(hz / 2, sample_rate)`,
        [batch, n_frames, ...].
      hop: Samples in a frame.

    Returns:
      Phase of the same shape.
    """
    return (half * (hop + 1) + half.map(following) * (hop - 1)).cumsum().delayed()


def within_frame(
    start: Phase, frequency: Tensor, next_frequency: Tensor, k: np.ndarray, hop: int, sample_rate: float
) -> Phase:
    """Phase of the samples of a frame, each sample's own increment included.

    `phase[k] = start + ((k + 1) f + k (k + 1) / (2 hop) (f_next - f)) / sample_rate`.

    Args:
      start: Phase before the frame.
      frequency: At the frame, Hz.
      next_frequency: At the next frame, Hz.
      k: Numbers of the samples, an integer array that the others broadcast with.
      hop: Samples in a frame.
      sample_rate: Sample rate in Hz.
    """
    bend = constant((k * (k + 1.0) / (2.0 * hop * sample_rate)).astype(np.float32))
    steady = Phase.per_sample(frequency, sample_rate) * (k + 1)
    return start + steady + Phase.of(bend * (next_frequency - frequency))
