"""Phase from frames: sums over frames, which are few and exact, in place of sums over samples."""

from __future__ import annotations

import numpy as np
from keras import ops

from ddsp.core.phase import Phase
from ddsp.core.resampling import whole_hop
from ddsp.core.utils import Tensor, constant, dim


def from_frames(frequencies: Tensor, n_samples: int, sample_rate: int) -> Phase:
    """Phase of each sample where a frame is a whole number of samples; see `ddsp.core.phase`."""
    hop = whole_hop(frequencies, n_samples)
    if hop is None:
        return NotImplemented
    start = frame_starts(Phase.per_sample(frequencies / 2.0, float(sample_rate)), hop)
    k = np.arange(hop).reshape([hop] + [1] * (len(frequencies.shape) - 2))
    phase = within_frame(
        start.map(lambda part: part[:, :, None]),
        frequencies[:, :, None],
        following(frequencies)[:, :, None],
        k,
        hop,
        float(sample_rate),
    )
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
