"""Phase that does not drift, in float32 on every backend and device.

A phase in turns is kept as two numbers. The coarse one is a whole multiple of 2^-21 turn within half a turn
of zero, so that float32 adds up to 16 of them, and drops whole turns, without any rounding. The fine one is
the small rest. After each 16 additions what has grown in the fine part is moved to the coarse one. The
error is about 1e-7 turn after ten minutes of single samples, where a plain float32 sum is off by whole turns.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from keras import ops

from ddsp.core.blocks import custom_gradient
from ddsp.core.utils import Tensor, constant, dim

TWO_PI = 2.0 * np.pi
_GRID = 2.0**21  # coarse steps in a turn
_BLOCK = 16  # additions that stay exact: 16 * 0.5 turn * 2^21 = 2^24, the largest exact float32 integer
_SUM_BLOCK = 128  # of plain sums: XLA's cumulative sum takes quadratic time on CPU


def wrap(turns: Tensor) -> Tensor:
    """Drops whole turns: the result lies within half a turn of zero."""
    return turns - ops.round(turns)


def turns_per_sample(hz: Tensor, sample_rate: float) -> tuple[Tensor, Tensor, Tensor]:
    """`hz / sample_rate`, as 2^-10 of a whole number, plus 2^-20 of a whole number, plus a rest.

    The first two have 10 bits, so their products with numbers up to 2^13 are exact. The division is exact to
    2^-45 turn for sample rates of up to 14 significant bits, which all usual ones are.

    Args:
      hz: Frequency, float32.
      sample_rate: Samples a second.

    Returns:
      Three float32 tensors that add up to the turns a sample.
    """
    step1, step2 = sample_rate / 2.0**10, sample_rate / 2.0**20
    first = ops.round(hz / step1)
    rest = hz - first * step1
    second = ops.round(rest / step2)
    rest = rest - second * step2
    return first * 2.0**-10, second * 2.0**-20, rest / sample_rate


def _carry(coarse: Tensor, fine: Tensor) -> tuple[Tensor, Tensor]:
    """Moves whole steps from the fine part to the coarse one, and drops whole turns."""
    steps = ops.round(fine * _GRID) / _GRID
    return wrap(coarse + steps), fine - steps


def accumulate(parts: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Inclusive sum of increments over time, modulo one turn.

    Args:
      parts: Increments [batch, n_samples, ...], from `turns_per_sample`.

    Returns:
      Coarse and fine phase in turns, of the same shape.
    """
    first, second, rest = parts
    return _accumulate(wrap(wrap(first) + second), rest, dim(first, 1))


def _accumulate(coarse: Tensor, fine: Tensor, n: Any, levels: int = 0) -> tuple[Tensor, Tensor]:
    """Sums over axis 1 in blocks whose coarse sums are exact, then over blocks, and so on."""
    levels = levels or _levels(n)
    if levels == 1:
        return _carry(ops.cumsum(coarse, axis=1), ops.cumsum(fine, axis=1))
    coarse, fine = _in_blocks(coarse, n, _BLOCK), _in_blocks(fine, n, _BLOCK)
    coarse, fine = _carry(ops.cumsum(coarse, axis=2), ops.cumsum(fine, axis=2))
    totals = _accumulate(coarse[:, :, -1], fine[:, :, -1], -(-n // _BLOCK), levels - 1)
    before_coarse, before_fine = (delay_one(total)[:, :, None] for total in totals)
    coarse, fine = _carry(coarse + before_coarse, fine + before_fine)
    return _from_blocks(coarse, n), _from_blocks(fine, n)


def _levels(n: Any) -> int:
    """How often `n` must be divided by the block size; enough for 16 million where n is unknown."""
    levels = 1
    while _BLOCK**levels < (n if isinstance(n, int) else 2**24):
        levels += 1
    return levels


def _in_blocks(x: Tensor, n: Any, size: int) -> Tensor:
    """[batch, n, ...] to [batch, n_blocks, size, ...], with zeros at the end."""
    n_blocks = -(-n // size)
    if not isinstance(n, int) or n % size:
        x = ops.pad(x, [[0, 0], [0, n_blocks * size - n]] + [[0, 0]] * (len(x.shape) - 2))
    return ops.reshape(x, [-1, n_blocks, size, *x.shape[2:]])


def _from_blocks(x: Tensor, n: Any) -> Tensor:
    return ops.reshape(x, [-1, dim(x, 1) * x.shape[2], *x.shape[3:]])[:, :n]


def delay_one(x: Tensor) -> Tensor:
    """Shifts axis 1 by one step: zero, then all but the last."""
    return ops.pad(x[:, :-1], [[0, 0], [1, 0]] + [[0, 0]] * (len(x.shape) - 2))


def frame_starts(parts: tuple[Tensor, Tensor, Tensor], hop: int) -> tuple[Tensor, Tensor]:
    """Phase just before each frame, for frequencies that are linear between frames.

    Sample k of frame j has the frequency `f[j] + (f[j + 1] - f[j]) k / hop`, and the last frame is held, so
    that a frame adds `hop f[j] + (hop - 1) / 2 (f[j + 1] - f[j])` to the phase: nothing is rounded but the
    frames' own values.

    Args:
      parts: Frequencies [batch, n_frames, ...], from `turns_per_sample`.
      hop: Samples in a frame.

    Returns:
      Coarse and fine phase in turns, of the same shape.
    """
    first, second, rest = (hop * p + (hop - 1) / 2.0 * (following(p) - p) for p in parts)
    coarse, fine = _accumulate(*_carry(wrap(first) + wrap(second), rest), dim(parts[0], 1))
    return delay_one(coarse), delay_one(fine)


def within_frame(
    starts: tuple[Tensor, Tensor], frequency: Tensor, next_frequency: Tensor, hop: int, sample_rate: float
) -> tuple[Tensor, Tensor]:
    """Phase of each sample of a frame, its own increment included.

    `phase[k] = start + ((k + 1) f + k (k + 1) / (2 hop) (f_next - f)) / sample_rate`.

    Args:
      starts: Coarse and fine phase before the frame [rows, ...], turns.
      frequency: At the frame [rows, ...], Hz.
      next_frequency: At the next frame [rows, ...], Hz.
      hop: Samples in a frame.
      sample_rate: Samples a second.

    Returns:
      Coarse and fine phase in turns, [rows, ..., hop].
    """
    steps, bend = map(constant, frame_weights(hop))
    parts = turns_per_sample(frequency, sample_rate)
    slope = sum(n - p for n, p in zip(turns_per_sample(next_frequency, sample_rate), parts, strict=True))
    first, second, rest, slope, coarse, fine = (x[..., None] for x in (*parts, slope, *starts))
    coarse = wrap(wrap(steps * first) + steps * second + coarse)
    return _carry(coarse, steps * rest + fine + wrap(bend * slope))


def frame_weights(hop: int) -> tuple[np.ndarray, np.ndarray]:
    """How the frequency, and its change to the next frame, count in the phase of each sample: [hop] each."""
    k = np.arange(hop, dtype=np.float64)
    return (k + 1.0).astype(np.float32), (k * (k + 1.0) / (2.0 * hop)).astype(np.float32)


def following(x: Tensor) -> Tensor:
    """The next frame's values, along axis 1; the last frame is held."""
    return ops.concatenate([x[:, 1:], x[:, -1:]], axis=1)


def frame_phase(frequency: Tensor, hop: int, sample_rate: float) -> tuple[Tensor, Tensor]:
    """Phase of each sample for frequencies that are linear between frames.

    Args:
      frequency: [batch, n_frames], Hz.
      hop: Samples in a frame.
      sample_rate: Samples a second.

    Returns:
      Coarse and fine phase in turns, [batch, n_frames, hop].
    """
    starts = frame_starts(turns_per_sample(frequency, sample_rate), hop)
    return within_frame(starts, frequency, following(frequency), hop, sample_rate)


def sample_phase(frequency: Tensor, sample_rate: float) -> tuple[Tensor, Tensor]:
    """Phase of each sample, its own increment included, from sample-wise frequencies.

    Args:
      frequency: [batch, n_samples, ...], Hz.
      sample_rate: Samples a second.

    Returns:
      Coarse and fine phase in turns, of the same shape.
    """
    return accumulate(turns_per_sample(ops.stop_gradient(frequency), sample_rate))


def multiple(coarse: Tensor, fine: Tensor, number: Any) -> Tensor:
    """Phase of a harmonic, in radians within half a turn of zero.

    Args:
      coarse: Coarse phase of the fundamental, turns.
      fine: Fine phase of the fundamental, turns.
      number: Number of the harmonic, a whole number up to 2^12; broadcasts.

    Returns:
      `2 pi number (coarse + fine)` without whole turns.
    """
    # 12 of the coarse bits times the number are exact in float32, so whole turns drop out without an error.
    top = ops.round(coarse * 2.0**12) * 2.0**-12
    return TWO_PI * wrap(top * number) + (TWO_PI * number) * (fine + (coarse - top))


def sum_backwards(x: Tensor) -> Tensor:
    """`y[n] = x[n] + x[n + 1] + ...` along axis 1: the gradient of a cumulative sum."""
    n = dim(x, 1)
    blocks = ops.flip(_in_blocks(x, n, _SUM_BLOCK), axis=2)
    sums = ops.flip(ops.cumsum(blocks, axis=2), axis=2)
    totals = sums[:, :, 0]
    if isinstance(n, int) and n > _SUM_BLOCK**2:
        after = sum_backwards(totals)
    else:
        after = ops.flip(ops.cumsum(ops.flip(totals, axis=1), axis=1), axis=1)
    return _from_blocks(sums + (after - totals)[:, :, None], n)


@custom_gradient
def phase_carrier(turns: Tensor) -> tuple[Tensor, Any]:
    """Zeros that carry the gradient of a phase (radians) back to its increments (turns a sample)."""
    return ops.zeros_like(turns), lambda upstream: (TWO_PI * sum_backwards(upstream),)


def accumulate_radians(turns: Tensor) -> Tensor:
    """Phase in radians within half a turn of zero, from increments in turns a sample, with its gradient."""
    coarse, fine = sample_phase(turns, 1.0)
    return ops.stop_gradient(multiple(coarse, fine, 1.0)) + phase_carrier(turns)
