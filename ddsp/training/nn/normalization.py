"""Normalisation over time and channels, plain and conditioned."""

from __future__ import annotations

from typing import Any

import gin
import keras
from keras import ops

from ddsp.core import Tensor
from ddsp.training.nn.dict_layer import ensure_4d, inv_ensure_4d

_register = gin.register(module='ddsp.training.nn')
_GROUPS_OF_GROUP_NORM = 32  # Wu and He (2018)


def normalize_op(x: Tensor, norm_type: str | None = 'layer', eps: float = 1e-5) -> Tensor:
    """Zero mean and unit variance over time, frequency and the channels of a group.

    Args:
      x: `[batch, time, frequency, channels]`.
      norm_type: `'instance'` (every channel by itself), `'layer'` (all channels together), `'group'` (32
        groups) or `None` (no change).
      eps: Added to the variance.

    Returns:
      Tensor of the same shape.

    Raises:
      ValueError: Unknown `norm_type`, or channels that 32 does not divide.
    """
    if norm_type is None:
        return x
    channels = x.shape[-1]
    groups = {'instance': channels, 'layer': 1, 'group': _GROUPS_OF_GROUP_NORM}.get(norm_type)
    if groups is None:
        raise ValueError(f"norm_type is {norm_type!r}; it must be 'instance', 'layer', 'group' or None")
    if channels % groups:
        raise ValueError(
            f'norm_type {norm_type!r} needs a multiple of {groups} channels, there are {channels}'
        )
    shape = ops.shape(x)
    grouped = ops.reshape(x, (*shape[:-1], groups, channels // groups))
    mean, variance = ops.moments(grouped, axes=[1, 2, 4], keepdims=True)
    return ops.reshape((grouped - mean) / ops.sqrt(variance + eps), shape)


@_register
class Normalize(keras.layers.Layer):
    """`normalize_op` with a learned scale and shift for each channel.

    Args:
      norm_type: As in `normalize_op`.
      **kwargs: Passed to `keras.layers.Layer`.
    """

    def __init__(self, norm_type: str | None = 'layer', **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.norm_type = norm_type

    def build(self, x_shape: Any) -> None:
        """Creates scale and shift."""
        shape = (1, 1, 1, int(x_shape[-1]))
        self.scale = self.add_weight(name='scale', shape=shape, initializer='ones')
        self.shift = self.add_weight(name='shift', shape=shape, initializer='zeros')

    def call(self, x: Tensor) -> Tensor:
        """`[batch, (time, (frequency,)) channels]` of the same shape."""
        n_dims = len(x.shape)
        x = normalize_op(ensure_4d(x), self.norm_type)
        return inv_ensure_4d(x * self.scale + self.shift, n_dims)


@_register
class ConditionalScaleAndShift(keras.layers.Layer):
    """Scale and shift of each channel from a linear layer on z (FiLM, Perez et al. 2018).

    Args:
      shift_only: Leave the scale at 1.
      **kwargs: Passed to `keras.layers.Layer`.
    """

    def __init__(self, shift_only: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.shift_only = shift_only

    def build(self, inputs_shapes: Any) -> None:
        """Creates the linear layer for the channels of x."""
        self.x_ch = int(inputs_shapes[0][-1])
        self.dense = keras.layers.Dense(self.x_ch if self.shift_only else 2 * self.x_ch)

    def call(self, inputs: Any) -> Any:
        """`(x, z)`, both `[batch, time, (1,) channels]`, to the shape of x."""
        x, z = inputs
        factors = self.dense(z)
        if self.shift_only:
            return x + factors
        return x * factors[..., : self.x_ch] + factors[..., self.x_ch :]


@_register
class ConditionalNorm(keras.layers.Layer):
    """`normalize_op` followed by a scale and shift that depend on z.

    Args:
      norm_type: As in `normalize_op`.
      shift_only: Leave the scale at 1.
      **kwargs: Passed to `keras.layers.Layer`.
    """

    def __init__(self, norm_type: str | None = 'instance', shift_only: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.norm_type = norm_type
        self.scale_and_shift = ConditionalScaleAndShift(shift_only=shift_only)

    def build(self, input_shape: Any = None) -> None:
        """The linear layer is built by the first call."""
        self.built = True

    def call(self, inputs: Any) -> Any:
        """`(x, z)` to the shape of x."""
        x, z = inputs
        n_dims = len(x.shape)
        normal = normalize_op(ensure_4d(x), self.norm_type)
        return inv_ensure_4d(self.scale_and_shift([normal, ensure_4d(z)]), n_dims)


def get_norm(norm_type: str | None, conditional: bool, shift_only: bool) -> keras.layers.Layer:
    """A normalisation layer: `ConditionalNorm` or `Normalize`."""
    return ConditionalNorm(norm_type, shift_only) if conditional else Normalize(norm_type)
