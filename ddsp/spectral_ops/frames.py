"""Cutting a signal into overlapping frames, on backend tensors. Conventions: `ddsp.analysis.framing`."""

from __future__ import annotations

import numpy as np
from keras import ops

from ddsp import core
from ddsp.analysis.framing import check_hop, check_padding, frame_positions, get_framed_lengths
from ddsp.core import Tensor
from ddsp.core.utils import constant
from ddsp.errors import ConfigError


def pad(
    x: Tensor,
    frame_size: int,
    hop_size: int,
    padding: str = 'center',
    axis: int = 1,
    mode: str = 'CONSTANT',
    constant_values: float = 0,
) -> Tensor:
    """Pads a signal so that it can be cut into frames without a remainder.

    Args:
      x: [batch, n_samples, ...] or [n_samples] signal.
      frame_size: Length of a frame, samples.
      hop_size: Distance between the starts of two frames, samples.
      padding: 'same' (end only), 'valid' (none) or 'center' (frame_size // 2 at both ends).
      axis: The time axis; a signal of one dimension has axis 0.
      mode: 'CONSTANT', 'REFLECT' or 'SYMMETRIC'.
      constant_values: What to pad with in mode 'CONSTANT'.

    Returns:
      [batch, padded_length, ...]; see `get_framed_lengths`.

    Raises:
      ConfigError: Unknown padding or mode, or hop_size larger than frame_size.
    """
    check_padding(padding)
    check_hop(frame_size, hop_size)
    modes = ('constant', 'reflect', 'symmetric')
    if mode.lower() not in modes:
        raise ConfigError(f"mode is {mode!r}; it can be 'CONSTANT', 'REFLECT', 'SYMMETRIC'")
    x = ops.convert_to_tensor(x)
    if padding == 'valid':
        return x
    axis = 0 if len(x.shape) == 1 else axis
    if padding == 'center':
        widths = (frame_size // 2, frame_size // 2)
    else:
        n_samples = x.shape[axis]
        if n_samples is None:
            raise ConfigError("padding='same' needs a known number of samples; pad to a fixed length before")
        widths = (0, get_framed_lengths(n_samples, frame_size, hop_size, padding)[1] - n_samples)
    if max(widths) == 0:
        return x
    return core.pad_axis(x, widths, axis, mode=mode, constant_values=constant_values)


def pad_or_trim_to_expected_length(
    vector: Tensor, expected_len: int, pad_value: float = 0, len_tolerance: int = 20, use_tf: bool = False
) -> Tensor:
    """Makes the last axis exactly `expected_len` long when it is nearly so.

    Args:
      vector: [n] or [batch, n].
      expected_len: Wanted length of the last axis.
      pad_value: What to append when the vector is too short.
      len_tolerance: Largest difference that is put right.
      use_tf: Work on backend tensors (differentiable) instead of numpy arrays.

    Returns:
      [expected_len] or [batch, expected_len].

    Raises:
      ConfigError: The length is off by more than `len_tolerance`.
    """
    if not use_tf:
        vector = np.asarray(vector)
    length = vector.shape[-1]
    if abs(length - expected_len) > len_tolerance:
        raise ConfigError(
            f'vector has length {length}, which differs from expected_len={expected_len} '
            f'by more than len_tolerance={len_tolerance}'
        )
    if length >= expected_len:
        return vector[..., :expected_len]
    missing = (0, expected_len - length)
    if use_tf:
        return core.pad_axis(vector, missing, axis=-1, constant_values=pad_value)
    return np.pad(vector, [(0, 0)] * (vector.ndim - 1) + [missing], constant_values=pad_value)


def to_mono(audio: Tensor) -> Tensor:
    """Drops the channel axis of [batch, n_samples, 1]; [batch, n_samples] and [n_samples] stay. float32."""
    audio = core.tf_float32(audio)
    if len(audio.shape) == 3:
        if audio.shape[2] not in (1, None):
            raise ConfigError(
                f'audio has shape {tuple(audio.shape)}: [batch, n_samples, 1] is needed; '
                'mix the channels or move them into the batch'
            )
        return audio[..., 0]
    if len(audio.shape) not in (1, 2):
        raise ConfigError(
            f'audio has shape {tuple(audio.shape)}; it can be [n_samples], [batch, n_samples] or '
            '[batch, n_samples, 1]'
        )
    return audio


def frame(audio: Tensor, frame_size: int, hop_size: int, pad_end: bool = False) -> Tensor:
    """Overlapping frames of a signal; the batch size and the length may be unknown.

    Frames whose size is a multiple of the hop are made of slices of the signal reshaped to blocks of one hop:
    three to four times cheaper than a gather on CPU, and the gradient is slices again.

    Args:
      audio: [..., n_samples].
      frame_size: Length of a frame, samples.
      hop_size: Distance between the starts of two frames, samples.
      pad_end: Zero-pad the end so that every hop starts a frame: ceil(n_samples / hop_size) frames.

    Returns:
      [..., n_frames, frame_size].
    """
    n_samples = ops.shape(audio)[-1]
    if pad_end:
        n_frames = -(-n_samples // hop_size)
        audio = core.pad_axis(audio, (0, frame_size), axis=-1)
    else:
        n_frames = (n_samples - frame_size) // hop_size + 1
    if frame_size % hop_size:
        frames = ops.extract_sequences(audio, frame_size, hop_size)
        return frames[..., :n_frames, :]
    ratio = frame_size // hop_size
    n_blocks = n_frames + ratio - 1
    leading = list(ops.shape(audio))[:-1]
    blocks = ops.reshape(audio[..., : n_blocks * hop_size], (*leading, n_blocks, hop_size))
    return ops.concatenate([blocks[..., j : j + n_frames, :] for j in range(ratio)], axis=-1)


def frame_at_rate(
    audio: Tensor, sample_rate: float, frame_rate: float, frame_size: int, padding: str
) -> Tensor:
    """Frames at an exact frame rate, also where it does not divide the sample rate.

    Frame `i` starts at sample `round(i * sample_rate / frame_rate)` of the padded signal, so that frames do
    not drift against the audio (a hop rounded down to 176 samples at 44.1 kHz makes 250.57 frames per
    second).

    Args:
      audio: [..., n_samples].
      sample_rate: Sample rate in Hz.
      frame_rate: Frames per second.
      frame_size: Samples.
      padding: 'same', 'valid' or 'center'.

    Returns:
      [..., n_frames, frame_size].
    """
    n_samples = ops.shape(audio)[-1]
    if isinstance(n_samples, int) and padding == 'valid' and n_samples < frame_size:
        raise ConfigError(
            f"audio has {n_samples} samples, less than one frame of {frame_size} (padding is 'valid')"
        )
    hop, n_frames, widths = frame_positions(n_samples, sample_rate, frame_rate, frame_size, padding)
    if max(widths):
        audio = core.pad_axis(audio, widths, axis=-1)
    if hop.denominator == 1:
        length = (n_frames - 1) * hop.numerator + frame_size
        return frame(audio[..., :length], frame_size, hop.numerator)
    starts = (ops.arange(n_frames) * (2 * hop.numerator) + hop.denominator) // (2 * hop.denominator)
    index = starts[:, None] + constant(np.arange(frame_size, dtype='int32')[None, :])
    return ops.take(audio, index, axis=-1)
