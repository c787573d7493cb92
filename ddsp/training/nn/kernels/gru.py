"""The recurrence of a GRU over a block of steps, forward and backward.

With gates ordered (update z, reset r, candidate n), input kernel W, recurrent kernel U, biases b (input) and
c (recurrent), the `reset_after` form of Cho et al. (2014) that cuDNN and Keras compute is

    a = x W + b,  i = h U + c
    z = sigmoid(a_z + i_z),  r = sigmoid(a_r + i_r),  n = tanh(a_n + r i_n)
    h' = z h + (1 - z) n

Writing d for the gradient with respect to h', the gradients of the pre-activations are d times factors that
do not depend on d, so they are computed for many steps at once; the backward loop is one product with U^T a
step, and the gradient of each weight is one matrix product for all steps of the block.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from keras import ops

from ddsp.core import Tensor
from ddsp.training.nn.kernels.loops import scan
from ddsp.training.nn.kernels.stacks import matmul

Weights = Sequence[Any]  # kernel [channels, 3 units], recurrent kernel [units, 3 units], biases [2, 3 units]


def forward(x: Tensor, state: Tensor, weights: Weights, dtype: str) -> list[Tensor]:
    """Runs the recurrence.

    Args:
      x: Inputs `[steps, batch, channels]`, float32.
      state: `[batch, units]` before the first step.
      weights: Kernel, recurrent kernel and biases.
      dtype: Type of the factors of matrix products; everything else is float32.

    Returns:
      States, gates (z, r) and candidates, `[steps, batch, units]` (twice the units for the gates).
    """
    kernel, recurrent, bias = weights
    units = recurrent.shape[0]
    recurrent = ops.cast(recurrent, dtype)

    def step(carry: list, rows: list) -> tuple[list, list]:
        (h,), (a,) = carry, rows
        inner = matmul(h, recurrent, dtype) + bias[1]
        zr = ops.sigmoid(a[:, : 2 * units] + inner[:, : 2 * units])
        z, r = zr[:, :units], zr[:, units:]
        n = ops.tanh(a[:, 2 * units :] + r * inner[:, 2 * units :])
        h = n + z * (h - n)
        return [h], [h, zr, n]

    projected = _rows(x, kernel, dtype) + bias[0]
    return scan(step, [state], [projected], ['float32'] * 3)[1]


def backward(
    x: Tensor,
    state: Tensor,
    outputs: Sequence[Tensor],
    weights: Weights,
    upstream: Tensor,
    d_state: Tensor,
    dtype: str,
) -> tuple[Tensor, Tensor, list]:
    """Gradients.

    Args:
      x: As in `forward`.
      state: As in `forward`.
      outputs: What `forward` returned.
      weights: As in `forward`.
      upstream: Gradient of the states `[steps, batch, units]` from outside the recurrence.
      d_state: Gradient of the last state `[batch, units]` from later steps.
      dtype: As in `forward`.

    Returns:
      Gradients of the inputs, of the state before the first step, and of each weight.
    """
    kernel, recurrent, bias = weights
    units = recurrent.shape[0]
    h, zr, n = outputs
    z, r = zr[..., :units], zr[..., units:]
    previous = ops.concatenate([state[None], h[:-1]], axis=0)
    inner_n = _rows(previous, recurrent[:, 2 * units :], dtype) + bias[1, 2 * units :]
    to_n = (1.0 - z) * (1.0 - n * n)
    to_z = (previous - n) * z * (1.0 - z)
    to_r = to_n * inner_n * r * (1.0 - r)
    factors = ops.concatenate([to_z, to_r, to_n * r], axis=-1)
    transposed = ops.cast(ops.transpose(recurrent), dtype)

    def step(carry: list, rows: list) -> tuple[list, list]:
        dy, z, factor = rows
        d_h = carry[0] + dy
        d_inner = ops.concatenate([d_h, d_h, d_h], axis=-1) * factor
        return [d_h * z + matmul(d_inner, transposed, dtype)], [d_h, d_inner]

    (d_state,), (d, d_inner) = scan(step, [d_state], [upstream, z, factors], ['float32'] * 2, reverse=True)
    d_projected = ops.concatenate([d_inner[..., : 2 * units], d * to_n], axis=-1)
    gradients = [
        _outer(x, d_projected, dtype),
        _outer(previous, d_inner, dtype),
        ops.stack([ops.sum(d_projected, (0, 1)), ops.sum(d_inner, (0, 1))]),
    ]
    return _rows(d_projected, ops.transpose(kernel), dtype), d_state, gradients


def _rows(x: Tensor, matrix: Tensor, dtype: str) -> Tensor:
    """`[steps, batch, c]` times a matrix."""
    product = matmul(ops.reshape(x, (-1, x.shape[-1])), matrix, dtype)
    return ops.reshape(product, (*x.shape[:-1], matrix.shape[-1]))


def _outer(x: Tensor, y: Tensor, dtype: str) -> Tensor:
    """Sum over steps and batch of the products of all channels."""
    flat = ops.transpose(ops.reshape(x, (-1, x.shape[-1])))
    return matmul(flat, ops.reshape(y, (-1, y.shape[-1])), dtype)
