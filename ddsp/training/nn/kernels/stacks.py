"""Fully connected layers with layer normalisation on a block of rows, forward and backward.

With `u = x W + b`, `v = (u - mean(u)) s` for `s = 1 / sqrt(var(u) + eps)`, `a = g v + c` and `y = f(a)`,
where f multiplies negative numbers by a slope, the gradients are

    da = dy f'(a),  dg = sum(da v),  dc = sum(da)
    du = s (g da - mean(g da) - v mean(g da v)),  dW = x^T du,  db = sum(du),  dx = du W^T
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from keras import ops

from ddsp.core import Tensor

Layer = Sequence[Any]  # kernel, bias, scale, shift

_SLOPE = 0.2  # of keras.activations.leaky_relu
_EPSILON = 1e-3  # of keras.layers.LayerNormalization
_FEW_CHANNELS = 16  # inputs with fewer (pitch, loudness) are multiplied in float32: see precision.py


def matmul(a: Tensor, b: Tensor, dtype: str) -> Tensor:
    """Product of two matrices with factors of type `dtype`, as float32."""
    return ops.cast(ops.matmul(ops.cast(a, dtype), ops.cast(b, dtype)), 'float32')


def forward(x: Tensor, layers: Sequence[Layer], dtype: str) -> tuple[Tensor, list]:
    """Layers of `leaky_relu(layer_norm(x W + b))`.

    Args:
      x: `[rows, channels]`, float32.
      layers: Kernel, bias, scale and shift of each layer; none: the result is x.
      dtype: Type of the factors of matrix products; everything else is float32.

    Returns:
      `[rows, channels of the last layer]`, and what `backward` needs.
    """
    kept = []
    for kernel, bias, scale, shift in layers:
        u = matmul(x, kernel, _dtype(kernel, dtype)) + bias
        centered = u - ops.mean(u, axis=-1, keepdims=True)
        s = ops.rsqrt(ops.mean(ops.square(centered), axis=-1, keepdims=True) + _EPSILON)
        v = centered * s
        a = v * scale + shift
        kept.append((x, v, s, a))
        x = ops.maximum(a, _SLOPE * a)
    return x, kept


def backward(kept: list, layers: Sequence[Layer], upstream: Tensor, dtype: str) -> tuple[Tensor, list]:
    """Gradients of the input, and of each layer's weights in their order."""
    gradients: list[list[Tensor]] = []
    for (kernel, _, scale, _), (x, v, s, a) in zip(reversed(layers), reversed(kept), strict=True):
        d_a = upstream * ops.where(a > 0.0, 1.0, _SLOPE)
        d_a_v = d_a * v
        d_v = d_a * scale
        d_u = s * (
            d_v - ops.mean(d_v, axis=-1, keepdims=True) - v * ops.mean(d_a_v * scale, axis=-1, keepdims=True)
        )
        d_kernel = matmul(ops.transpose(x), d_u, _dtype(kernel, dtype))
        gradients.insert(0, [d_kernel, ops.sum(d_u, 0), ops.sum(d_a_v, 0), ops.sum(d_a, 0)])
        upstream = matmul(d_u, ops.transpose(kernel), _dtype(kernel, dtype))
    return upstream, gradients


def _dtype(kernel: Tensor, dtype: str) -> str:
    return 'float32' if kernel.shape[0] < _FEW_CHANNELS else dtype
