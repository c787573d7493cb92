"""Sums of sinusoids with frequencies of their own, in blocks of frames."""

from __future__ import annotations

from typing import Any

import numpy as np
from keras import ops

from ddsp.core.kernels.blocks import custom_gradient, map_blocks
from ddsp.core.kernels.frames import frame_mixing, shift_frames
from ddsp.core.kernels.phase import TWO_PI, Phase, following, frame_starts, starting_at, within_frame
from ddsp.core.oscillators import Output, get_harmonic_frequencies
from ddsp.core.resampling import whole_hop
from ddsp.core.utils import Tensor, constant

_BLOCK_VALUES = 1 << 19  # values in one array of a block (2 MB)


def sinusoids(
    frequencies: Tensor, amplitudes: Tensor, initial_phase: Tensor | None, output: Output
) -> Tensor:
    """Sinusoids from frame-wise controls; see the definition in `ddsp.core.oscillators`."""
    half = Phase.per_sample(frequencies / 2.0, float(output.sample_rate))
    return _from_frames(frequencies, half, amplitudes, initial_phase, output)


def inharmonics(
    frequencies: Tensor, shifts: Tensor, amplitudes: Tensor, initial_phase: Tensor | None, output: Output
) -> Tensor:
    """Shifted harmonics; see the definition in `ddsp.core.oscillators`."""
    harmonics = get_harmonic_frequencies(frequencies, shifts.shape[-1])
    half = shifted_half(frequencies, shifts, float(output.sample_rate))
    return _from_frames(harmonics + harmonics * shifts, half, amplitudes, initial_phase, output)


def shifted_half(frequencies: Tensor, shifts: Tensor, sample_rate: float) -> Phase:
    """What half the frequency of shifted harmonics adds to the phase in a sample, for `frame_starts`.

    The fundamental's phase times h is exact; only the small shifts are rounded.

    Args:
      frequencies: Fundamental [batch, n_frames, 1], Hz.
      shifts: [batch, n_frames, n_harmonics], as a share of each harmonic's frequency.
      sample_rate: Sample rate in Hz.

    Returns:
      Phase [batch, n_frames, n_harmonics].
    """
    n_harmonics = shifts.shape[-1]
    shifts = get_harmonic_frequencies(frequencies, n_harmonics) * shifts
    half = Phase.per_sample(frequencies / 2.0, sample_rate) * np.arange(1, n_harmonics + 1)
    return half + Phase.per_sample(shifts / 2.0, sample_rate)


def _from_frames(
    frequencies: Tensor, half: Phase, amplitudes: Tensor, initial_phase: Tensor | None, output: Output
) -> Tensor:
    """Audio [batch, n_samples]; `half` is the phase that half of each frequency adds in a sample."""
    n_samples, sample_rate, method = output
    hop, n_sinusoids = whole_hop(frequencies, n_samples), frequencies.shape[-1]
    if hop is None:
        return NotImplemented
    offsets, mixing = frame_mixing(method, hop)
    sets = ops.stack([shift_frames(amplitudes, offset) for offset in offsets], axis=2)
    starts = starting_at(initial_phase, frame_starts(half, hop))
    starts = starts.map(lambda part: ops.reshape(part, [-1, n_sinusoids]))
    low, high = (ops.reshape(x, [-1, n_sinusoids]) for x in (frequencies, following(frequencies)))
    audio = _sum_of_rows(
        starts, low, high, ops.reshape(sets, [-1, *sets.shape[2:]]), mixing, float(sample_rate)
    )
    return ops.reshape(audio, [-1, n_samples])


def _sum_of_rows(
    starts: Phase, low: Tensor, high: Tensor, amplitudes: Tensor, mixing: np.ndarray, sample_rate: float
) -> Tensor:
    """Sum of sinusoids in frames between which frequencies are linear.

    Args:
      starts: Phase before each frame [rows, n_sinusoids].
      low: Frequency at each frame [rows, n_sinusoids], Hz.
      high: Frequency at the frame after it [rows, n_sinusoids], Hz.
      amplitudes: [rows, n_sets, n_sinusoids].
      mixing: Weights of the sets at each sample [n_sets, hop].
      sample_rate: Sample rate in Hz; sinusoids are silent where they reach half of it.

    Returns:
      Audio [rows, hop].
    """
    n_sets, hop = mixing.shape
    n_sinusoids = amplitudes.shape[2]
    k = np.arange(hop)
    steps = constant((k + 1.0).astype(np.float32))
    bend = constant((k * (k + 1.0) / (2.0 * hop)).astype(np.float32))
    ramp = constant((k / hop).astype(np.float32))
    mixing = constant(mixing)
    block_rows = max(1, _BLOCK_VALUES // (hop * n_sinusoids))

    def angles(start_steps: Tensor, rest: Tensor, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        """Phase, and whether the sinusoid sounds: [rows, n_sinusoids, hop]."""
        low, high = low[..., None], high[..., None]
        start = Phase(start_steps[..., None], rest[..., None], 0.0)
        phase = within_frame(start, low, high, k, hop, sample_rate)
        return phase.radians(), ops.cast(low + (high - low) * ramp < sample_rate / 2.0, 'float32')

    def audio(start_steps: Tensor, rest: Tensor, low: Tensor, high: Tensor, amplitudes: Tensor) -> list:
        angle, audible = angles(start_steps, rest, low, high)
        return [ops.sum(ops.matmul(amplitudes, audible * ops.sin(angle)) * mixing, axis=1)]

    def gradients(
        start_steps: Tensor, rest: Tensor, low: Tensor, high: Tensor, amplitudes: Tensor, upstream: Tensor
    ) -> list:
        angle, audible = angles(start_steps, rest, low, high)
        mixed = upstream[:, None, :] * mixing
        to_amplitudes = ops.matmul(mixed, ops.transpose(audible * ops.sin(angle), [0, 2, 1]))
        envelope = ops.matmul(ops.transpose(amplitudes, [0, 2, 1]), mixed)
        to_phase = TWO_PI * envelope * audible * ops.cos(angle)
        return [
            ops.sum(to_phase, axis=2),
            ops.sum(to_phase * (steps - bend), axis=2) / sample_rate,
            ops.sum(to_phase * bend, axis=2) / sample_rate,
            to_amplitudes,
        ]

    @custom_gradient
    def synthesize(carrier: Tensor, low: Tensor, high: Tensor, amplitudes: Tensor) -> Any:
        arrays = [starts.steps, starts.rest, low, high, amplitudes]

        def backward(upstream: Tensor) -> list:
            shapes = [[n_sinusoids]] * 3 + [[n_sets, n_sinusoids]]
            return map_blocks(gradients, [*arrays, upstream], block_rows, shapes)

        return map_blocks(audio, arrays, block_rows, [[hop]])[0], backward

    return synthesize(starts.carrier, low, high, amplitudes)
