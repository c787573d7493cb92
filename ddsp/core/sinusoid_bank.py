"""Sums of sinusoids with frequencies of their own, in blocks of frames."""

from __future__ import annotations

from typing import Any

import numpy as np
from keras import ops

from ddsp.core.blocks import custom_gradient, map_blocks
from ddsp.core.phase import TWO_PI, frame_weights, multiple, within_frame
from ddsp.core.utils import Tensor, constant

_BLOCK_VALUES = 1 << 19  # values in one array of a block (2 MB)


def sinusoid_sum(
    starts: tuple[Tensor, Tensor],
    carrier: Tensor,
    frequency: Tensor,
    next_frequency: Tensor,
    amplitudes: Tensor,
    mixing: np.ndarray,
    sample_rate: float,
) -> Tensor:
    """Sum of sinusoids, from frames between which frequencies are linear.

    Args:
      starts: Coarse and fine phase before each frame [rows, n_sinusoids], turns.
      carrier: Zeros [rows, n_sinusoids] that take the gradient with respect to that phase, radians.
      frequency: At each frame [rows, n_sinusoids], Hz.
      next_frequency: At the frame after it [rows, n_sinusoids], Hz.
      amplitudes: [rows, n_sets, n_sinusoids].
      mixing: Weights of the sets at each sample [n_sets, hop].
      sample_rate: Samples a second; sinusoids are silent where they reach half of it.

    Returns:
      Audio [rows, hop].
    """
    n_sets, hop = mixing.shape
    n_sinusoids = amplitudes.shape[2]
    steps, bend = map(constant, frame_weights(hop))
    ramp = constant((np.arange(hop) / hop).astype(np.float32))
    mixing = constant(mixing)
    block_rows = max(1, _BLOCK_VALUES // (hop * n_sinusoids))

    def angles(coarse: Tensor, fine: Tensor, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        """Phase, and whether the sinusoid sounds: [rows, n_sinusoids, hop]."""
        coarse, fine = within_frame((coarse, fine), low, high, hop, sample_rate)
        frequencies = low[..., None] + (high - low)[..., None] * ramp
        return multiple(coarse, fine, 1.0), ops.cast(frequencies < sample_rate / 2.0, 'float32')

    def audio(coarse: Tensor, fine: Tensor, low: Tensor, high: Tensor, amplitudes: Tensor) -> list:
        angle, audible = angles(coarse, fine, low, high)
        return [ops.sum(ops.matmul(amplitudes, audible * ops.sin(angle)) * mixing, axis=1)]

    def gradients(
        coarse: Tensor, fine: Tensor, low: Tensor, high: Tensor, amplitudes: Tensor, upstream: Tensor
    ) -> list:
        angle, audible = angles(coarse, fine, low, high)
        mixed = upstream[:, None, :] * mixing
        to_amplitudes = ops.matmul(mixed, ops.transpose(audible * ops.sin(angle), [0, 2, 1]))
        envelope = ops.matmul(ops.transpose(amplitudes, [0, 2, 1]), mixed)
        to_phase = envelope * audible * ops.cos(angle)
        scale = TWO_PI / sample_rate
        return [
            ops.sum(to_phase, axis=2),
            scale * ops.sum(to_phase * (steps - bend), axis=2),
            scale * ops.sum(to_phase * bend, axis=2),
            to_amplitudes,
        ]

    @custom_gradient
    def synthesize(carrier: Tensor, frequency: Tensor, next_frequency: Tensor, amplitudes: Tensor) -> Any:
        arrays = [*starts, frequency, next_frequency, amplitudes]

        def backward(upstream: Tensor) -> list:
            shapes = [[n_sinusoids]] * 3 + [[n_sets, n_sinusoids]]
            return map_blocks(gradients, [*arrays, upstream], block_rows, shapes)

        return map_blocks(audio, arrays, block_rows, [[hop]])[0], backward

    return synthesize(carrier, frequency, next_frequency, amplitudes)
