"""Interpolation between frames without a gather, whose gradient would be a scatter."""

from __future__ import annotations

from typing import Any

import numpy as np
from keras import ops

from ddsp.core.resampling import interpolation, positions, whole_hop
from ddsp.core.utils import Tensor, constant, dim


def interpolate(x: Tensor, n_timesteps: Any, method: str, add_endpoint: bool) -> Tensor:
    """Interpolates where a frame is a whole number of time steps; see `ddsp.core.resampling`."""
    hop = whole_hop(x, n_timesteps)
    if hop is None or not add_endpoint:
        return NotImplemented
    total = 0.0
    for offset, weight in zip(*frame_mixing(method, hop), strict=True):
        weight = constant(weight.reshape([1, 1, hop] + [1] * (len(x.shape) - 2)))
        total = total + shift_frames(x, offset)[:, :, None] * weight
    return ops.reshape(total, [-1, n_timesteps, *x.shape[2:]])


def frame_mixing(method: str, hop: int) -> tuple[tuple[int, ...], np.ndarray]:
    """How `resample` mixes frames, when a frame is a whole number of samples.

    Args:
      method: As in `resample`.
      hop: Samples in a frame.

    Returns:
      Which frames count, relative to the sample's own, and their weights [len(frames), hop].
    """
    frames, weights = interpolation(method, np.arange(hop) / hop)
    used = [i for i, weight in enumerate(weights) if weight.any()]
    return tuple(frames[i] for i in used), np.stack([weights[i] for i in used]).astype(np.float32)


def block_mixing(method: str, n_frames: int, n_timesteps: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """How `resample` mixes frames, for blocks of samples and any number of frames.

    Args:
      method: As in `resample`.
      n_frames: Frames.
      n_timesteps: Time steps.
      size: Time steps in a block; the last block may lack some, whose weights are zero.

    Returns:
      Frames that count in each block [n_blocks, n_sets], and their weights [n_blocks, n_sets, size].
    """
    low, fraction = positions(n_frames, n_timesteps, True, method)
    offsets, kernel = interpolation(method, fraction)
    n_blocks = -(-n_timesteps // size)
    block, place = np.divmod(np.arange(n_timesteps), size)
    first = low[::size] + min(offsets)
    n_sets = int((low + max(offsets) - first[block]).max()) + 1
    weights = np.zeros([n_blocks, n_sets, size], np.float32)
    for offset, weight in zip(offsets, kernel, strict=True):
        weights[block, low + offset - first[block], place] += weight
    return np.clip(first[:, None] + np.arange(n_sets), 0, n_frames - 1), weights


def shift_frames(x: Tensor, offset: int) -> Tensor:
    """Values of the frame `offset` later (earlier if negative) along axis 1; the ends are held."""
    if offset == 0:
        return x
    edge = x[:, -1:] if offset > 0 else x[:, :1]
    kept = x[:, offset:] if offset > 0 else x[:, :offset]
    missing = [edge] * abs(offset)
    shifted = ops.concatenate([kept, *missing] if offset > 0 else [*missing, kept], axis=1)
    return shifted[:, : dim(x, 1)]
