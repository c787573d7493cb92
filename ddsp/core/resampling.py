"""From one value a frame to one value a sample.

Frame `f` lies at sample `f * hop`. With `add_endpoint` the last frame is held for one more hop, so that
`n_timesteps = n_frames * hop`; without, the last output is the last frame.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

from ddsp.core.utils import Tensor, constant, dim, tf_float32
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

    >>> keras.ops.convert_to_numpy(resample([0.0, 1.0], 4)).tolist()
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
    if rank == 1:
        return resample(inputs[None, :], n_timesteps, method, add_endpoint)[0]
    if rank == 2:
        return resample(inputs[:, :, None], n_timesteps, method, add_endpoint)[:, :, 0]
    if method == 'window':
        return upsample_with_windows(inputs, n_timesteps, add_endpoint)
    if method == 'cubic':
        return _cubic(inputs, n_timesteps, add_endpoint)
    if method == 'nearest':
        return ops.take(inputs, _nearest_frame(dim(inputs, 1), n_timesteps, add_endpoint), axis=1)
    return _crossfade(inputs, n_timesteps, add_endpoint, lambda fraction: fraction)


def upsample_with_windows(inputs: Tensor, n_timesteps: int, add_endpoint: bool = True) -> Tensor:
    """Interpolates by overlapping Hann windows, one a frame: a raised-cosine cross-fade.

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
    return _crossfade(inputs, n_timesteps, add_endpoint, hann_crossfade, closed=False)


def hann_crossfade(fraction: Any) -> Any:
    """Rising half of a Hann window at `fraction` of an interval."""
    return (
        0.5 - 0.5 * np.cos(np.pi * fraction)
        if _is_static(fraction)
        else 0.5 - 0.5 * ops.cos(np.pi * fraction)
    )


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
    """Time steps in a frame, if that is a whole number and known.

    Args:
      frames: [batch, n_frames, ...].
      n_timesteps: Time steps.
    """
    n_frames = frames.shape[1]
    if n_frames is None or not isinstance(n_timesteps, int) or n_timesteps % n_frames:
        return None
    return n_timesteps // n_frames


def frame_mixing(method: str, hop: int) -> tuple[tuple[int, ...], np.ndarray]:
    """How `resample` with end-point mixes frames, when a frame is a whole number of samples.

    Args:
      method: As in `resample`.
      hop: Samples in a frame.

    Returns:
      Which frames count, relative to the sample's own, and their weights [len(frames), hop].
    """
    fraction = np.arange(hop, dtype=np.float64) / hop
    frames, weights = _kernel(method, fraction)
    return frames, np.stack(weights).astype(np.float32)


def block_mixing(method: str, n_frames: int, n_timesteps: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """How `resample` with end-point mixes frames, for blocks of samples and any number of frames.

    Args:
      method: As in `resample`.
      n_frames: Frames.
      n_timesteps: Time steps.
      size: Time steps in a block; the last block may lack some, whose weights are zero.

    Returns:
      Frames that count in each block [n_blocks, n_sets], and their weights [n_blocks, n_sets, size].
    """
    low, fraction = _positions(n_timesteps, n_frames, n_timesteps)
    offsets, kernel = _kernel(method, fraction)
    n_blocks = -(-n_timesteps // size)
    block, place = np.divmod(np.arange(n_timesteps), size)
    first = low[::size] + min(offsets)
    n_sets = int((low + max(offsets) - first[block]).max()) + 1
    weights = np.zeros([n_blocks, n_sets, size], np.float32)
    for offset, weight in zip(offsets, kernel, strict=True):
        weights[block, low + offset - first[block], place] += weight
    return np.clip(first[:, None] + np.arange(n_sets), 0, n_frames - 1), weights


def frame_positions(n_frames: Any, n_timesteps: Any) -> tuple[Any, Any, Any]:
    """The two frames around each time step, and how far it is from the first to the second."""
    low, fraction = _positions(n_timesteps, n_frames, n_timesteps)
    return low, _minimum(low + 1, n_frames - 1), tf_float32(fraction)


def shift_frames(x: Tensor, offset: int) -> Tensor:
    """Values of the frame `offset` later (earlier if negative) along axis 1; the ends are held."""
    if offset == 0:
        return x
    edge = x[:, -1:] if offset > 0 else x[:, :1]
    kept = x[:, offset:] if offset > 0 else x[:, :offset]
    missing = [edge] * abs(offset)
    shifted = ops.concatenate([kept, *missing] if offset > 0 else [*missing, kept], axis=1)
    return shifted[:, : dim(x, 1)]


def _kernel(method: str, fraction: np.ndarray) -> tuple[tuple[int, ...], list]:
    """Frames around a position, and their weights, at `fraction` of the way from one to the next."""
    if method == 'nearest':
        return (0,), [np.ones_like(fraction)]
    if method == 'linear':
        return (0, 1), [1.0 - fraction, fraction]
    if method == 'window':
        return (0, 1), [1.0 - hann_crossfade(fraction), hann_crossfade(fraction)]
    t = np.round(fraction * _CUBIC_STEPS) / _CUBIC_STEPS
    return (-1, 0, 1, 2), [_keys_outer(1.0 + t), _keys_inner(t), _keys_inner(1.0 - t), _keys_outer(2.0 - t)]


def _is_static(value: Any) -> bool:
    return isinstance(value, (int, float, np.ndarray, np.generic))


def _crossfade(x: Tensor, n: Any, add_endpoint: bool, shape: Any, closed: bool = True) -> Tensor:
    """Cross-fades from each frame to the next; `shape` turns the fraction of the way into a weight."""
    n_frames = dim(x, 1)
    if add_endpoint and _is_static(n_frames) and _is_static(n) and n % n_frames == 0:
        return _crossfade_by_hop(x, n_frames, n // n_frames, shape)
    # Windows without end-point run up to (not onto) the last frame; image resizing runs onto it.
    steps, span = (n_frames, n) if add_endpoint else (n_frames - 1, n - 1 if closed else n)
    low, fraction = _positions(n, steps, span)
    high = _minimum(low + 1, n_frames - 1)
    weight = tf_float32(shape(fraction))
    weight = ops.reshape(weight, [-1] + [1] * (len(x.shape) - 2))
    start = ops.take(x, low, axis=1)
    return start + weight * (ops.take(x, high, axis=1) - start)


def _crossfade_by_hop(x: Tensor, n_frames: int, hop: int, shape: Any) -> Tensor:
    """The same when the hop is a whole number: no gather, and so no scatter in the gradient."""
    weight = shape(np.arange(hop, dtype=np.float64) / hop).astype(np.float32)
    weight = weight.reshape([1, 1, hop] + [1] * (len(x.shape) - 2))
    following = ops.concatenate([x[:, 1:], x[:, -1:]], axis=1)
    y = x[:, :, None] * constant(1.0 - weight) + following[:, :, None] * constant(weight)
    return ops.reshape(y, [dim(x, 0), n_frames * hop, *x.shape[2:]])


def _positions(n: Any, steps: Any, span: Any) -> tuple[Any, Any]:
    """Whole and fractional part of `i * steps / span` for i < n, from exact integers."""
    if _is_static(n) and _is_static(steps):
        scaled = np.arange(n, dtype=np.int64) * steps
        span = max(span, 1)
        low = scaled // span
        return low.astype(np.int32), (scaled - low * span) / span
    scaled = ops.arange(ops.cast(n, 'int64'), dtype='int64') * ops.cast(steps, 'int64')
    span = ops.maximum(ops.cast(span, 'int64'), 1)
    low = scaled // span
    return ops.cast(low, 'int32'), ops.cast(scaled - low * span, 'float32') / ops.cast(span, 'float32')


def _minimum(a: Any, b: Any) -> Any:
    return np.minimum(a, b) if _is_static(a) and _is_static(b) else ops.minimum(a, b)


def _nearest_frame(n_frames: Any, n: Any, add_endpoint: bool) -> Any:
    """Index of the frame that each output repeats; halves are rounded up without end-point."""
    if add_endpoint:
        return _positions(n, n_frames, n)[0]
    low, fraction = _positions(n, n_frames - 1, n - 1)
    up = (fraction >= 0.5).astype(np.int32) if _is_static(fraction) else ops.cast(fraction >= 0.5, 'int32')
    return low + up


def _cubic(x: Tensor, n: Any, add_endpoint: bool) -> Tensor:
    """Keys' cubic convolution over four neighbours, clamped at the ends."""
    n_frames = dim(x, 1)
    steps, span = (n_frames, n) if add_endpoint else (n_frames - 1, n - 1)
    low, fraction = _positions(n, steps, span)
    numeric = np if _is_static(fraction) else keras.ops
    t = numeric.round(fraction * _CUBIC_STEPS) / _CUBIC_STEPS
    total = 0.0
    for offset, distance in ((-1, 1.0 + t), (0, t), (1, 1.0 - t), (2, 2.0 - t)):
        weight = _keys_outer(distance) if offset in (-1, 2) else _keys_inner(distance)
        index = numeric.clip(low + offset, 0, n_frames - 1)
        weight = ops.reshape(tf_float32(weight), [-1] + [1] * (len(x.shape) - 2))
        total = total + weight * ops.take(x, index, axis=1)
    return total


def _keys_inner(s: Any) -> Any:
    return ((_CUBIC_A + 2.0) * s - (_CUBIC_A + 3.0)) * s * s + 1.0


def _keys_outer(s: Any) -> Any:
    return ((_CUBIC_A * s - 5.0 * _CUBIC_A) * s + 8.0 * _CUBIC_A) * s - 4.0 * _CUBIC_A
