"""From one value per frame to one value per sample.

Frame `f` lies at sample `f * hop`. With `add_endpoint` the last frame is held for one more hop, so that
`n_timesteps = n_frames * hop`; without, the last output is the last frame.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from keras import ops

from ddsp.core.kernels import kernel
from ddsp.core.utils import Tensor, dim, tf_float32
from ddsp.errors import ConfigError

METHODS = ('nearest', 'linear', 'cubic', 'window')
_CUBIC_A = -0.75  # of Keys' kernel (1981), as in TensorFlow's first bicubic image resize
_CUBIC_STEPS = 1024  # resolution at which that kernel is tabulated


def resample(inputs: Tensor, n_timesteps: int, method: str = 'linear', add_endpoint: bool = True) -> Tensor:
    """Interpolates along time.

    Args:
      inputs: Controls [n_frames], [batch, n_frames], [batch, n_frames, channels] or
        [batch, n_frames, n_freq, channels].
      n_timesteps: Time steps of the result.
      method: `'nearest'`, `'linear'`, `'cubic'` (Keys' kernel) or `'window'` (`upsample_with_windows`; not
        for rank 4).
      add_endpoint: Hold the last frame for one more hop; otherwise the last output is the last frame.

    Returns:
      float32 tensor of the same rank with `n_timesteps` in place of `n_frames`.

    Raises:
      ConfigError: Unknown method, or a rank that it does not take.

    >>> ops.convert_to_numpy(resample([0.0, 1.0], 4)).tolist()
    [0.0, 0.5, 1.0, 1.0]
    """
    inputs = tf_float32(inputs)
    rank = len(inputs.shape)
    if method not in METHODS:
        raise ConfigError(f'method={method!r} is unknown: use one of {", ".join(map(repr, METHODS))}')
    if not 1 <= rank <= 4:
        raise ConfigError(f'inputs has rank {rank} (shape {tuple(inputs.shape)}): 1 to 4 are allowed')
    if method == 'window' and rank == 4:
        raise ConfigError(f"method='window' takes inputs of rank 1 to 3, not {tuple(inputs.shape)}")
    if rank < 3:  # with axes for what is missing
        expanded = inputs[None, :, None] if rank == 1 else inputs[:, :, None]
        resampled = resample(expanded, n_timesteps, method, add_endpoint)[:, :, 0]
        return resampled[0] if rank == 1 else resampled
    if method == 'window':
        return upsample_with_windows(inputs, n_timesteps, add_endpoint)
    return _interpolate(inputs, n_timesteps, method, add_endpoint)


@kernel('ddsp.core.kernels.frames:interpolate')
def _interpolate(x: Tensor, n_timesteps: Any, method: str, add_endpoint: bool) -> Tensor:
    """Interpolates [batch, n_frames, ...]: a weighted sum of the frames around each time step."""
    n_frames = dim(x, 1)
    low, fraction = positions(n_frames, n_timesteps, add_endpoint, method)
    numeric = np if _is_static(fraction) else ops
    total = 0.0
    for offset, weight in zip(*interpolation(method, fraction, add_endpoint), strict=True):
        frame = numeric.clip(low + offset, 0, n_frames - 1)  # the ends are held
        weight = ops.reshape(tf_float32(weight), [-1] + [1] * (len(x.shape) - 2))
        total = total + weight * ops.take(x, frame, axis=1)
    return total


def upsample_with_windows(inputs: Tensor, n_timesteps: int, add_endpoint: bool = True) -> Tensor:
    """Interpolates by overlapping Hann windows, one for each frame: a raised-cosine cross-fade.

    `y[j hop + k] = x[j] (1 - w[k]) + x[j + 1] w[k]` with `w[k] = (1 - cos(pi k / hop)) / 2`. Frames need not
    divide the time steps; where they do not, `hop` is a fraction.

    Args:
      inputs: Controls [batch, n_frames, channels].
      n_timesteps: Time steps of the result, at least `n_frames`.
      add_endpoint: Hold the last frame for one more hop; otherwise the last frame is where the result ends.

    Returns:
      float32 [batch, n_timesteps, channels].

    Raises:
      ConfigError: Not rank 3, or more frames than time steps.
    """
    inputs = tf_float32(inputs)
    if len(inputs.shape) != 3:
        raise ConfigError(
            f'upsample_with_windows takes inputs [batch, n_frames, channels], not shape {tuple(inputs.shape)}'
        )
    n_frames = dim(inputs, 1)
    if isinstance(n_frames, int) and isinstance(n_timesteps, int) and n_frames > n_timesteps:
        raise ConfigError(
            f'{n_frames} frames cannot be windowed down to n_timesteps={n_timesteps}: at least '
            f'{n_frames} are needed'
        )
    return _interpolate(inputs, n_timesteps, 'window', add_endpoint)


def center_crop(audio: Tensor, frame_size: int) -> Tensor:
    """Removes the padding of centred frames.

    Args:
      audio: [batch, n_samples, ...].
      frame_size: Samples; `frame_size // 2` are cut at either end.

    Returns:
      The inner part of `audio`.

    Raises:
      ConfigError: Nothing would remain.
    """
    pad = frame_size // 2
    n_samples = audio.shape[1]
    if n_samples is not None and 2 * pad >= n_samples:
        raise ConfigError(
            f'frame_size={frame_size} leaves nothing of {n_samples} samples: {n_samples - 1} at most'
        )
    return audio[:, pad : dim(audio, 1) - pad]


def whole_hop(frames: Tensor, n_timesteps: Any) -> int | None:
    """Time steps in a frame of [batch, n_frames, ...], if that is a whole number and known."""
    known = frames.shape[1] is not None and isinstance(n_timesteps, int)
    return n_timesteps // frames.shape[1] if known and n_timesteps % frames.shape[1] == 0 else None


def positions(n_frames: Any, n_timesteps: Any, add_endpoint: bool, method: str) -> tuple[Any, Any]:
    """Where each time step lies among the frames: the frame before it, and the fraction of the way on.

    Args:
      n_frames: Frames, int or scalar tensor.
      n_timesteps: Time steps, int or scalar tensor.
      add_endpoint: As in `resample`.
      method: Windows without end-point run up to, not onto, the last frame.

    Returns:
      Int and float [n_timesteps], arrays where both sizes are known; from exact integers.
    """
    steps = n_frames if add_endpoint else n_frames - 1
    span = n_timesteps if add_endpoint or method == 'window' else n_timesteps - 1
    if _is_static(n_timesteps) and _is_static(n_frames):
        scaled, span = np.arange(n_timesteps, dtype=np.int64) * steps, max(span, 1)
        return (scaled // span).astype(np.int32), scaled % span / span
    scaled = ops.arange(ops.cast(n_timesteps, 'int64'), dtype='int64') * ops.cast(steps, 'int64')
    span = ops.maximum(ops.cast(span, 'int64'), 1)
    return ops.cast(scaled // span, 'int32'), ops.cast(scaled % span, 'float32') / ops.cast(span, 'float32')


def interpolation(method: str, fraction: Any, add_endpoint: bool = True) -> tuple[tuple[int, ...], list]:
    """Which frames count, relative to the one before a time step, and their weights.

    Args:
      method: As in `resample`.
      fraction: Fraction of the way to the next frame, array or tensor.
      add_endpoint: Without end-point the nearest frame is the rounded one, else the one before.
    """
    numeric = np if _is_static(fraction) else ops
    if method == 'nearest':
        up = fraction * 0.0 if add_endpoint else numeric.floor(fraction + 0.5)
        return (0, 1), [1.0 - up, up]
    if method == 'linear':
        return (0, 1), [1.0 - fraction, fraction]
    if method == 'window':
        rise = 0.5 - 0.5 * numeric.cos(np.pi * fraction)
        return (0, 1), [1.0 - rise, rise]
    t = numeric.round(fraction * _CUBIC_STEPS) / _CUBIC_STEPS
    # Keys' kernel at a distance of up to one frame, and of one to two.
    a = _CUBIC_A
    near = [((a + 2.0) * s - (a + 3.0)) * s * s + 1.0 for s in (t, 1.0 - t)]
    far = [((a * s - 5.0 * a) * s + 8.0 * a) * s - 4.0 * a for s in (1.0 + t, 2.0 - t)]
    return (-1, 0, 1, 2), [far[0], *near, far[1]]


def _is_static(value: Any) -> bool:
    return isinstance(value, (int, np.ndarray, np.generic))
