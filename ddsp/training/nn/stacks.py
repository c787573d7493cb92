"""Fully connected stacks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gin
import keras

from ddsp.core import Tensor
from ddsp.training.nn.dict_layer import get_nonlinearity

_register = gin.register(module='ddsp.training.nn')


@_register
class Fc(keras.Sequential):
    """Linear layer, layer normalisation, activation.

    Args:
      ch: Channels.
      nonlinearity: Name of the activation, or a function.
      **kwargs: Passed to `keras.Sequential`.
    """

    def __init__(self, ch: int = 128, nonlinearity: str | Callable = 'leaky_relu', **kwargs: Any) -> None:
        layers = [
            keras.layers.Dense(ch),
            keras.layers.LayerNormalization(),
            keras.layers.Activation(get_nonlinearity(nonlinearity)),
        ]
        super().__init__(layers, **kwargs)


@_register
class FcStack(keras.Sequential):
    """`layers` times `Fc`; with 0 layers the identity.

    Args:
      ch: Channels of every layer.
      layers: Number of layers.
      nonlinearity: Name of the activation, or a function.
      **kwargs: Passed to `keras.Sequential`.
    """

    def __init__(
        self, ch: int = 256, layers: int = 2, nonlinearity: str | Callable = 'leaky_relu', **kwargs: Any
    ) -> None:
        super().__init__([Fc(ch, nonlinearity) for _ in range(layers)] or [Identity()], **kwargs)
        self.n_layers = layers
        # What the kernel computes.
        self.is_usual = get_nonlinearity(nonlinearity) is keras.activations.leaky_relu


@_register
class FcStackOut(keras.layers.Layer):
    """`FcStack` and a linear layer of `n_out` channels."""

    def __init__(self, ch: int, layers: int, n_out: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.stack = FcStack(ch, layers)
        self.dense_out = keras.layers.Dense(n_out)

    def build(self, input_shape: Any = None) -> None:
        """Sublayers are built by the first call."""
        self.built = True

    def call(self, x: Tensor) -> Tensor:
        """`[..., channels]` -> `[..., n_out]`."""
        return self.dense_out(self.stack(x))


@_register
class Identity(keras.layers.Layer):
    """Returns its input."""

    def call(self, x: Tensor) -> Tensor:
        """The input."""
        return x
