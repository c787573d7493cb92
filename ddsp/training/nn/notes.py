"""Masks and statistics of notes, and rounding that lets gradients through."""

from __future__ import annotations

from typing import Any

from keras import ops, random

from ddsp import core
from ddsp.core import Tensor


def straight_through_softmax(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Samples a category; the gradient is that of the probabilities.

    Args:
      logits: `[..., n]`.

    Returns:
      One-hot sample `[..., n]` and the probabilities `[..., n]`.
    """
    probs = ops.softmax(logits, axis=-1)
    n = logits.shape[-1]
    flat = ops.reshape(logits, (-1, n))
    sample = ops.reshape(ops.one_hot(random.categorical(flat, 1)[:, 0], n), ops.shape(probs))
    return ops.stop_gradient(sample - probs) + probs, probs


def straight_through_choice(logits: Tensor, values: Tensor) -> Tensor:
    """Samples one of `values` (`[n]`) by `logits` (`[..., n]`), with the gradient of the expected value."""
    choice, _ = straight_through_softmax(logits)
    return ops.sum(choice * values, axis=-1, keepdims=True)


def straight_through_int_quantization(x: Tensor) -> Tensor:
    """Rounds to whole numbers with the gradient of the identity."""
    return x + ops.stop_gradient(ops.round(x) - x)


def get_note_mask(q_pitch: Tensor, max_regions: int = 100, note_on_only: bool = True) -> Tensor:
    """Which note each frame belongs to; every change of pitch starts a new one.

    Args:
      q_pitch: Quantised pitch `[batch, time]` or `[batch, time, 1]`; 0 is silence.
      max_regions: Notes and silences counted; later frames belong to none.
      note_on_only: Leave silences out.

    Returns:
      Mask `[batch, time, max_regions]` of zeros and ones.
    """
    q_pitch = ops.convert_to_tensor(q_pitch)
    pitch = q_pitch[..., 0] if len(q_pitch.shape) == 3 else q_pitch
    change = ops.cast(ops.not_equal(pitch[:, 1:], pitch[:, :-1]), 'int32')
    onsets = ops.concatenate([ops.zeros_like(change[:, :1]), change], axis=1)
    return _mask_of_regions(pitch, onsets, max_regions, note_on_only)


def get_note_mask_from_onset(
    q_pitch: Any, onset: Any, max_regions: int = 100, note_on_only: bool = True
) -> Any:
    """`get_note_mask` where also every onset starts a region, so that repeated notes are told apart.

    Args:
      q_pitch: Quantised pitch `[batch, time]` or `[batch, time, 1]`.
      onset: 1 at onsets, `[batch, time]` or `[batch, time, 1]`.
      max_regions: As in `get_note_mask`.
      note_on_only: As in `get_note_mask`.

    Returns:
      Mask `[batch, time, max_regions]`.
    """
    q_pitch, onset = ops.convert_to_tensor(q_pitch), ops.convert_to_tensor(onset)
    pitch = q_pitch[..., 0] if len(q_pitch.shape) == 3 else q_pitch
    onset = onset[..., 0] if len(onset.shape) == 3 else onset
    change = ops.cast(ops.not_equal(pitch[:, 1:], pitch[:, :-1]), 'int32')
    change = ops.concatenate([ops.zeros_like(change[:, :1]), change], axis=1)
    starts = ops.maximum(change, ops.cast(ops.greater(onset, 0), 'int32'))
    starts = ops.concatenate([ops.zeros_like(starts[:, :1]), starts[:, 1:]], axis=1)
    return _mask_of_regions(pitch, starts, max_regions, note_on_only)


def _mask_of_regions(pitch: Tensor, onsets: Tensor, max_regions: int, note_on_only: bool) -> Tensor:
    mask = ops.one_hot(ops.cumsum(onsets, axis=1), max_regions, dtype='float32')
    if not note_on_only:
        return mask
    pitches, _ = get_note_moments(ops.cast(pitch, 'float32')[..., None], mask, return_std=True)
    return mask * ops.cast(ops.greater(ops.transpose(pitches, (0, 2, 1)), 0), 'float32')


def get_note_lengths(note_mask: Tensor) -> Tensor:
    """Frames of each note: `[batch, time, notes]` -> `[batch, notes]`."""
    return ops.sum(note_mask, axis=1)


def get_note_moments(x: Tensor, note_mask: Tensor, return_std: bool = True) -> Any:
    """Mean, and standard deviation, of each note.

    Args:
      x: `[batch, time, d]` (or `[batch, time]`).
      note_mask: `[batch, time, notes]`.
      return_std: Also the standard deviation.

    Returns:
      `[batch, notes, d]`, or two of them. Notes without frames get 0.
    """
    x, note_mask = ops.convert_to_tensor(x), ops.convert_to_tensor(note_mask)
    if len(x.shape) == 2:
        x = x[..., None]
    lengths = ops.maximum(get_note_lengths(note_mask), 1.0)[..., None]
    weights = ops.transpose(note_mask, (0, 2, 1))
    mean = ops.matmul(weights, x) / lengths
    if not return_std:
        return mean
    centred = (x[:, :, None, :] - mean[:, None]) * note_mask[..., None]
    return mean, core.safe_sqrt(ops.sum(ops.square(centred), axis=1) / lengths)


def pool_over_notes(x: Tensor, note_mask: Tensor, return_std: bool = True) -> Any:
    """Each frame gets the mean (and standard deviation) of its note.

    Args:
      x: `[batch, time, d]`.
      note_mask: `[batch, time, notes]`.
      return_std: Also the standard deviation.

    Returns:
      `[batch, time, d]`, or two of them.
    """
    moments = get_note_moments(x, note_mask, return_std)
    if not return_std:
        return ops.matmul(note_mask, moments)
    return tuple(ops.matmul(note_mask, moment) for moment in moments)


def get_short_note_loss_mask(
    note_mask: Any, note_lengths: Any, note_pitches: Any, min_length: int = 40
) -> Any:
    """Frames of notes that sound but are too short.

    Args:
      note_mask: `[batch, time, notes]`.
      note_lengths: `[batch, notes]`, frames.
      note_pitches: `[batch, notes]`, MIDI; 0 is silence.
      min_length: Notes with fewer frames are short.

    Returns:
      Mask `[batch, time]`.
    """
    short = ops.logical_and(ops.less(note_lengths, min_length), ops.greater(note_pitches, 0))
    return ops.sum(note_mask * ops.cast(short, 'float32')[:, None, :], axis=-1)
