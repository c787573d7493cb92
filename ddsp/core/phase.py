"""Phase that does not drift: 32-bit fixed-point turns, which wrap for free."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

from ddsp.core.utils import Tensor, tf_float32

TWO_PI = 2.0 * np.pi
TURN = 2.0**32  # steps of the fixed-point grid in one turn; int32 arithmetic is modulo one turn
_LARGEST = 2147483520.0  # largest float32 below 2 ** 31


def to_fixed(turns: Tensor) -> Tensor:
    """Phase or phase increment in turns to int32 steps of 2^-32 turn, modulo one turn."""
    wrapped = turns - ops.round(turns)
    return ops.cast(ops.clip(ops.round(wrapped * TURN), -_LARGEST, _LARGEST), 'int32')


def to_radians(fixed: Tensor) -> Tensor:
    """int32 steps to radians in [-pi, pi)."""
    return ops.cast(fixed, 'float32') * np.float32(TWO_PI / TURN)


def accumulate(turns: Tensor) -> Tensor:
    """Inclusive sum of phase increments over time, modulo one turn.

    Args:
      turns: Increments [batch, n_samples, ...] in turns a sample (frequency / sample rate).

    Returns:
      int32 phase of the same shape; no gradient.
    """
    return ops.cast(ops.cumsum(to_fixed(ops.stop_gradient(turns)), axis=1), 'int32')


@keras.ops.custom_gradient
def accumulate_radians(turns: Tensor) -> tuple[Tensor, Any]:
    """`accumulate` in radians, with the gradient of a sum."""
    turns = tf_float32(turns)
    radians = to_radians(accumulate(turns))

    def grad(*args: Any, upstream: Tensor | None = None) -> Tensor:
        upstream = args[0] if upstream is None else upstream
        return TWO_PI * ops.flip(ops.cumsum(ops.flip(upstream, axis=1), axis=1), axis=1)

    return radians, grad
