"""Several losses on the outputs of a model."""

from __future__ import annotations

from typing import Any

import gin
import keras

from ddsp import core, dags
from ddsp.core import Tensor
from ddsp.errors import ConfigError
from ddsp.losses.base import Loss


@gin.register(module='ddsp.losses')
@keras.saving.register_keras_serializable('ddsp')
class LossGroup(dags.DAGLayer):
    """Losses, each on those outputs of a model that its node names.

    Args:
      dag: Nodes `(loss, [key of an output, ...])`; keys are paths into the outputs, such as 'audio' or
        'harmonic/controls/f0_hz'.
      **kwarg_losses: Losses that nodes call by name.

    Example:
      >>> from keras import ops
      >>> from ddsp.losses import ParamLoss
      >>> group = LossGroup([(ParamLoss(name='f0_loss'), ['f0_hz', 'target/f0_hz'])])
      >>> losses = group({'f0_hz': ops.ones((1, 4, 1)), 'target': {'f0_hz': ops.zeros((1, 4, 1))}})
      >>> {name: float(value) for name, value in losses.items()}
      {'f0_loss': 1.0}
    """

    def __init__(self, dag: dags.DAG, **kwarg_losses: Any) -> None:
        super().__init__(dag, **kwarg_losses)
        for name in self.module_names:
            if not dags.is_loss(getattr(self, name)):
                raise ConfigError(f"'{name}' in a LossGroup is no loss: it has no get_losses_dict()")

    @property
    def losses(self) -> list[Loss]:
        """The losses, in order (not Keras' regularisation losses, which a model collects by another way)."""
        return self.modules

    @property
    def loss_names(self) -> list[str]:
        """Names of the losses, in order."""
        return self.module_names

    def call(  # type: ignore[override]  # a group takes the outputs of a model
        self, outputs: dict[str, Any], **kwargs: Any
    ) -> dict[str, Tensor]:
        """All losses as one flat dictionary.

        Args:
          outputs: Outputs of a model, nested by module.
          **kwargs: Passed to every loss.

        Returns:
          `{name of the loss: scalar}`.
        """
        return self.loss_and_metrics(outputs, **kwargs)[0]

    def get_losses_dict(self, outputs: dict[str, Any], **kwargs: Any) -> dict[str, Tensor]:
        """The same as calling the group."""
        return self(outputs, **kwargs)

    def loss_and_metrics(
        self, outputs: dict[str, Any], **kwargs: Any
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Losses to be summed, and the metrics of those losses that have some.

        Args:
          outputs: Outputs of a model, nested by module.
          **kwargs: Passed to every loss.

        Returns:
          `(losses, metrics)`, scalars by name.

        Raises:
          KeyError: A node names an output that is not there.
          ConfigError: Two losses give a value of the same name.
        """
        losses: dict[str, Tensor] = {}
        metrics: dict[str, Tensor] = {}
        for name, keys, *_ in self.dag:
            inputs = [core.nested_lookup(key, outputs) for key in keys]
            own_losses, own_metrics = getattr(self, name).loss_and_metrics(*inputs, **kwargs)
            for found, own in ((losses, own_losses), (metrics, own_metrics)):
                if found.keys() & own.keys():
                    raise ConfigError(
                        f'two losses are called {sorted(found.keys() & own.keys())}: set their name'
                    )
                found.update(own)
        return losses, metrics
