"""What all losses share."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from ddsp import core
from ddsp.core import Tensor
from ddsp.errors import ConfigError

LOSS_TYPES = ('L1', 'L2', 'COSINE')


def check_loss_type(loss_type: str) -> str:
    """The loss type in upper case; a ConfigError unless it is one of LOSS_TYPES."""
    if str(loss_type).upper() not in LOSS_TYPES:
        raise ConfigError(f'loss_type is {loss_type!r}; it can be ' + ', '.join(map(repr, LOSS_TYPES)))
    return loss_type.upper()


def mean_difference(
    target: Tensor, value: Tensor, loss_type: str = 'L1', weights: Tensor | None = None
) -> Tensor:
    """Mean difference of two tensors.

    `L1: mean(|target - value| w)`, `L2: mean((target - value)^2 w)`, `COSINE: mean((1 - cos(target, value))
    w)` with the angle taken over the last axis. The mean is over all elements, not over the sum of the
    weights.

    Args:
      target: Tensor.
      value: Tensor of the same shape, or one that broadcasts with it.
      loss_type: 'L1', 'L2' or 'COSINE', in upper or lower case.
      weights: Weights that broadcast with the difference; None is 1.

    Returns:
      Scalar.

    Raises:
      ConfigError: Unknown loss type.
    """
    loss_type = check_loss_type(loss_type)
    target, value = core.tf_float32(target), core.tf_float32(value)
    if loss_type == 'COSINE':
        difference = 1.0 - ops.sum(_unit_norm(target) * _unit_norm(value), axis=-1, keepdims=True)
    elif loss_type == 'L1':
        difference = ops.abs(target - value)
    else:
        difference = ops.square(target - value)
    if weights is not None:
        weights = core.tf_float32(weights)
        difference = difference * (ops.abs(weights) if loss_type == 'L1' else weights)
    return ops.mean(difference)


def _unit_norm(x: Tensor) -> Tensor:
    """`x` scaled to unit length along the last axis; zeros stay zeros, with a finite gradient."""
    return x * ops.rsqrt(ops.maximum(ops.sum(x * x, axis=-1, keepdims=True), 1e-12))


class Loss(keras.layers.Layer):
    """A loss: tensors to a scalar, with a name.

    Losses compute in float32 under any dtype policy. Subclasses implement `call`; those that have parts worth
    watching also override `loss_and_metrics`.
    """

    def __init__(self, name: str | None = None, **kwargs: Any) -> None:
        super().__init__(name=name, autocast=False, **kwargs)

    def get_losses_dict(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """What a model sums up: `{name of the loss: scalar}`."""
        return {self.name: self(*args, **kwargs)}

    def loss_and_metrics(self, *args: Any, **kwargs: Any) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Losses to be summed, and metrics that are shown but not summed.

        Returns:
          `(losses, metrics)`: `get_losses_dict(...)`, and scalars by name (none unless a subclass has some),
          both from one evaluation.
        """
        return self.get_losses_dict(*args, **kwargs), {}
