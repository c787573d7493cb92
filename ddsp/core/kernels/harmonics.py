"""Sums of harmonics in blocks of frames, without an array of [batch, samples, harmonics].

Within a frame the amplitude of each harmonic is a mix of a few frames' amplitudes with weights that are the
same for all harmonics (a cross-fade), so that `audio[k] = sum_s w[s, k] sum_h c[s, h] sin(h phase[k])`. With
`h = stride a + b`, `b` around zero,

    sin((stride a + b) p) = sin(stride a p) cos(b p) + cos(stride a p) sin(b p)

makes the sum over h two small matrix products over b and one sum over a: it takes the sines and cosines of
about `2 sqrt(2 H)` multiples of the phase in place of H sines. The gradient runs through the same steps
backwards and computes the sines anew.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from keras import ops

from ddsp.core.kernels.blocks import custom_gradient, map_blocks
from ddsp.core.kernels.frames import block_mixing, frame_mixing, shift_frames
from ddsp.core.kernels.phase import TWO_PI, Phase, from_frames, starting_at
from ddsp.core.oscillators import Output
from ddsp.core.resampling import resample, whole_hop
from ddsp.core.utils import Tensor, constant, dim

_BLOCK_SAMPLES = 32768  # keeps a block's arrays within a few MB
_ROW = 64  # samples in a row where frames are not a whole number of samples


@dataclass(frozen=True)
class _Split:
    """How `n` harmonics are written as `h = stride a + b`, with `-low <= b <= high` and `0 <= a < rows`."""

    n: int
    stride: int
    rows: int

    @classmethod
    def of(cls, n_harmonics: int) -> _Split:
        stride = max(2, 2 * round(math.sqrt(2.0 * n_harmonics) / 2.0))
        return cls(n_harmonics, stride, max(1, 1 + -(-(n_harmonics - stride // 2) // stride)))

    @property
    def high(self) -> int:
        return self.stride // 2

    @property
    def low(self) -> int:
        return self.stride // 2 - 1

    def fold(self, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Weights [g, s, n] of harmonics to those of cos(b p) [g, s * rows, high + 1] and of sin(b p)."""
        # Position 0 of a row holds b = -low; harmonics 0 and below have no weight.
        end = self.rows * self.stride - self.low - 1 - self.n
        padded = ops.pad(weights, [[0, 0], [0, 0], [self.low + 1, end]])
        padded = ops.reshape(padded, [-1, weights.shape[1] * self.rows, self.stride])
        positive = padded[:, :, self.low :]
        negative = ops.pad(ops.flip(padded[:, :, : self.low], axis=2), [[0, 0], [0, 0], [1, 1]])
        return positive + negative, (positive - negative)[:, :, 1:]

    def unfold(self, even: Tensor, odd: Tensor) -> Tensor:
        """Gradients with respect to the results of `fold` to those with respect to its weights."""
        odd = ops.pad(odd, [[0, 0], [0, 0], [1, 0]])
        negative = ops.flip((even - odd)[:, :, 1 : self.low + 1], axis=2)
        padded = ops.concatenate([negative, even + odd], axis=2)
        padded = ops.reshape(padded, [-1, even.shape[1] // self.rows, self.rows * self.stride])
        return padded[:, :, self.low + 1 : self.low + 1 + self.n]

    def waves(self, phase: Phase) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """cos(b p) [g, high + 1, n], sin(b p) [g, high, n], and cos(stride a p), sin(stride a p)
        [g, 1, rows, n]."""
        numbers = np.concatenate([np.arange(self.high + 1), self.stride * np.arange(self.rows)]).astype(
            np.float32
        )
        angle = _radians(phase, constant(numbers[None, :, None]))
        cos, sin = ops.cos(angle), ops.sin(angle)
        m = self.high + 1
        return cos[:, :m], sin[:, 1:m], cos[:, None, m:], sin[:, None, m:]


def _radians(phase: Phase, numbers: Any) -> Tensor:
    """Angles [rows, numbers, n] of multiples of a phase [rows, n]."""
    return Phase(phase.steps[:, None], phase.rest[:, None], 0.0).radians(numbers)


def _last(phase: Phase) -> Tensor:
    """The last sample's phase [batch, 1, 1], radians within half a turn of zero."""
    return phase.map(lambda part: part[:, -1:]).radians()


def harmonics(
    frequencies: Tensor, amplitudes: Tensor, initial_phase: Tensor | None, output: Output
) -> tuple[Tensor, Tensor]:
    """Harmonics with frame-wise amplitudes; see the definition in `ddsp.core.oscillators`."""
    n_samples, sample_rate, method = output
    n_frames, n_harmonics = amplitudes.shape[1:]
    if n_frames is None or not isinstance(n_samples, int):
        return NotImplemented
    frequency = resample(frequencies, n_samples)
    phase = starting_at(initial_phase, from_frames(frequencies, n_samples, sample_rate))
    hop = whole_hop(amplitudes, n_samples)
    if hop is not None:
        offsets, mixing = frame_mixing(method, hop)
        sets = ops.stack([shift_frames(amplitudes, offset) for offset in offsets], axis=2)
        size = hop
    else:
        frames, mixing = block_mixing(method, n_frames, n_samples, _ROW)
        sets = ops.take(amplitudes, frames.reshape(-1), axis=1)
        sets = ops.reshape(sets, [-1, *frames.shape, n_harmonics])
        mixing = ops.broadcast_to(mixing[None], [dim(sets, 0), *mixing.shape])
        mixing = ops.reshape(mixing, [-1, *mixing.shape[2:]])
        size = _ROW
    missing = -n_samples % size

    def rows(x: Tensor) -> Tensor:
        x = x[:, :, 0]
        if missing:
            x = ops.concatenate([x, *[x[:, -1:]] * missing], axis=1)
        return ops.reshape(x, [-1, size])

    sets = ops.reshape(sets, [-1, *sets.shape[2:]])
    audio = _sum_of_rows(phase.map(rows), rows(ops.stop_gradient(frequency)), sets, mixing, sample_rate / 2.0)
    return ops.reshape(audio, [-1, n_samples + missing])[:, :n_samples], _last(phase)


def _sum_of_rows(phase: Phase, frequency: Tensor, amplitudes: Tensor, mixing: Any, nyquist: float) -> Tensor:
    """Sum of the harmonics in rows; a row is a stretch of time, such as a frame.

    Args:
      phase: Phase of the fundamental [rows, n].
      frequency: Fundamental [rows, n], Hz.
      amplitudes: [rows, n_sets, n_harmonics].
      mixing: Weights of the sets, [n_sets, n] or [rows, n_sets, n].
      nyquist: Harmonics of this frequency (Hz) and above are silent, sample by sample.

    Returns:
      Audio [rows, n].
    """
    n_sets, n_harmonics = amplitudes.shape[1:]
    n = frequency.shape[1]
    split = _Split.of(n_harmonics)
    block_rows = max(1, _BLOCK_SAMPLES // n)
    fixed = [phase.steps, phase.rest, frequency] + ([mixing] if len(mixing.shape) == 3 else [])

    def with_mixing(arrays: list, function: Any) -> Any:
        mix = arrays[3] if len(fixed) == 4 else ops.convert_to_tensor(mixing)[None]
        block = _Block(split, nyquist, Phase(arrays[0], arrays[1], 0.0), arrays[2], mix)
        return function(block, *arrays[len(fixed) :])

    def run(function: Any, arrays: list, out_shape: list) -> Tensor:
        return map_blocks(
            lambda *a: [with_mixing(list(a), function)], fixed + arrays, block_rows, [out_shape]
        )[0]

    @custom_gradient
    def synthesize(carrier: Tensor, amplitudes: Tensor) -> tuple[Tensor, Any]:
        def backward(upstream: Tensor) -> tuple[Tensor, Tensor]:
            # Two passes, so that a graph drops the one whose result nobody uses.
            to_carrier = TWO_PI * run(_Block.phase_gradient, [amplitudes, upstream], [n])
            to_amplitudes = run(_Block.amplitude_gradient, [upstream], [n_sets, n_harmonics])
            return to_carrier, to_amplitudes

        return run(_Block.audio, [amplitudes], [n]), backward

    return synthesize(phase.carrier, amplitudes)


@dataclass(frozen=True)
class _Block:
    """Some rows of `harmonics`."""

    split: _Split
    nyquist: float
    phase: Phase
    frequency: Tensor
    mixing: Tensor

    def audio(self, amplitudes: Tensor) -> Tensor:
        cos_b, sin_b, cos_a, sin_a = self.split.waves(self.phase)
        even, odd = self.split.fold(self._full(amplitudes))
        sums = sin_a * self._per_set(ops.matmul(even, cos_b)) + cos_a * self._per_set(ops.matmul(odd, sin_b))
        return self._mix(sums) + self._partial_audio(amplitudes, ops.sin)

    def phase_gradient(self, amplitudes: Tensor, upstream: Tensor) -> Tensor:
        """d sin(h p) / dp = h cos(h p), and cos(A + B) = cos A cos B - sin A sin B."""
        amplitudes = amplitudes * self._numbers
        cos_b, sin_b, cos_a, sin_a = self.split.waves(self.phase)
        even, odd = self.split.fold(self._full(amplitudes))
        sums = cos_a * self._per_set(ops.matmul(even, cos_b)) - sin_a * self._per_set(ops.matmul(odd, sin_b))
        return upstream * (self._mix(sums) + self._partial_audio(amplitudes, ops.cos))

    def amplitude_gradient(self, upstream: Tensor) -> Tensor:
        cos_b, sin_b, cos_a, sin_a = self.split.waves(self.phase)
        mixed = (upstream[:, None, :] * self.mixing)[:, :, None]
        even = ops.matmul(self._all_sets(sin_a * mixed), ops.transpose(cos_b, [0, 2, 1]))
        odd = ops.matmul(self._all_sets(cos_a * mixed), ops.transpose(sin_b, [0, 2, 1]))
        return self._partial_gradient(self._full(self.split.unfold(even, odd)), upstream)

    def _per_set(self, x: Tensor) -> Tensor:
        """[g, s * rows, n] to [g, s, rows, n]."""
        return ops.reshape(x, [-1, self.mixing.shape[1], self.split.rows, x.shape[2]])

    def _all_sets(self, x: Tensor) -> Tensor:
        """[g, s, rows, n] to [g, s * rows, n]."""
        return ops.reshape(x, [-1, x.shape[1] * x.shape[2], x.shape[3]])

    def _mix(self, sums: Tensor) -> Tensor:
        """Sum over rows and sets of [g, s, rows, n]."""
        return ops.sum(ops.sum(sums, axis=2) * self.mixing, axis=1)

    @property
    def _numbers(self) -> Any:
        return constant(np.arange(1, self.split.n + 1, dtype=np.float32))

    # Harmonics that cross Nyquist within a row are silent for a part of it. They are few, mostly none or
    # one, and follow those that are full; they are left out above and added one by one.

    def _count(self, frequency: Tensor) -> Tensor:
        """How many harmonics lie below Nyquist [g, 1]."""
        return ops.sum(ops.cast(frequency * self._numbers < self.nyquist, 'int32'), axis=1, keepdims=True)

    @property
    def _n_full(self) -> Tensor:
        return self._count(ops.max(self.frequency, axis=1, keepdims=True))

    def _full(self, weights: Tensor) -> Tensor:
        """Weights [g, s, n_harmonics] without those of harmonics that are silent in some of the row."""
        full = constant(np.arange(1, self.split.n + 1, dtype=np.int32)) <= self._n_full
        return weights * ops.cast(full, 'float32')[:, None, :]

    def _partial(self, step: Any, initial: Tensor) -> Tensor:
        """Folds `step(state, number [g, 1], audible [g, n])` over harmonics silent in a part of the row."""
        n_full = self._n_full
        some = self._count(ops.min(self.frequency, axis=1, keepdims=True))
        most = ops.max(some - n_full)

        def body(i: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
            number = n_full + i
            as_float = ops.cast(number, 'float32')
            audible = ops.logical_and(number <= some, as_float * self.frequency < self.nyquist)
            return i + 1, step(state, number, ops.cast(audible, 'float32'))

        one = ops.ones([], 'int32')
        return ops.while_loop(lambda i, _: i <= most, body, (one, initial))[1]

    def _one_hot(self, number: Tensor) -> Tensor:
        """[g, 1, n_harmonics]: which harmonic a number means."""
        return ops.cast(constant(np.arange(1, self.split.n + 1, dtype=np.int32)) == number, 'float32')[
            :, None, :
        ]

    def _partial_audio(self, amplitudes: Tensor, wave: Any) -> Tensor:
        def step(audio: Tensor, number: Tensor, audible: Tensor) -> Tensor:
            weight = ops.sum(amplitudes * self._one_hot(number), axis=2, keepdims=True)
            envelope = ops.sum(weight * self.mixing, axis=1)
            return audio + audible * envelope * wave(self.phase.radians(ops.cast(number, 'float32')))

        return self._partial(step, ops.zeros_like(self.frequency))

    def _partial_gradient(self, gradient: Tensor, upstream: Tensor) -> Tensor:
        def step(gradient: Tensor, number: Tensor, audible: Tensor) -> Tensor:
            wave = ops.sin(self.phase.radians(ops.cast(number, 'float32')))
            weight = ops.sum((audible * upstream * wave)[:, None, :] * self.mixing, axis=2, keepdims=True)
            return gradient + weight * self._one_hot(number)

        return self._partial(step, gradient)
