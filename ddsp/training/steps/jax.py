"""The training step on JAX: one function on one device, always compiled by XLA."""

from __future__ import annotations

from collections.abc import Sequence

import keras
import numpy as np

from ddsp.core import Tensor
from ddsp.errors import ConfigError
from ddsp.training.steps.base import Batch, Step
from ddsp.training.steps.report import GRADIENT_NORM, STOP, TOTAL_LOSS


class JaxStep(Step):
    """Weights and state of the optimizer in, new ones out.

    Several replicas and `average_decay` need TensorFlow.
    """

    def __post_init__(self) -> None:
        import jax

        if self.strategy.num_replicas_in_sync > 1:
            raise ConfigError('KERAS_BACKEND=jax trains on one device; several need KERAS_BACKEND=tensorflow')
        if self.averages.decay is not None:
            raise ConfigError('Trainer.average_decay needs KERAS_BACKEND=tensorflow')
        self._compiled = jax.jit(self._pure_step, donate_argnums=(0, 1))

    def local(self, batch: Batch) -> Batch:
        """The batch as arrays."""
        return {key: np.asarray(value) for key, value in batch.items()}

    def create_weights(self, example: Batch) -> None:
        """Calls what has weights with a batch of one example.

        Outside of a compiled function operations are compiled one by one, which takes long; synthesisers have
        their weights from the beginning.
        """
        if hasattr(self.model, 'encode') and hasattr(self.model, 'decoder'):
            self.model.decoder(self.model.encode(example), training=True)
            self.model.build()
        else:
            self.model(example, training=True)

    def run(self, batch: Batch, step: int, stop: bool) -> dict[str, Tensor]:
        """One step."""
        variables = self.model.trainable_variables, self.optimizer.variables
        state = [[v.value for v in part] for part in variables]
        *state, metrics = self._compiled(*state, self.local(batch), np.int32(step))
        for part, values in zip(variables, state, strict=True):
            for variable, value in zip(part, values, strict=True):
                variable.assign(value)
        return {key: np.asarray(value) for key, value in metrics.items()} | {STOP: np.float32(stop)}

    def gradients(self, batch: Batch, step: int) -> tuple[Sequence[Tensor], dict[str, Tensor]]:
        """Gradients and metrics."""
        weights = [v.value for v in self.model.trainable_variables]
        return self._gradients(weights, batch, np.int32(step))

    def _pure_step(self, weights: list, state: list, batch: Batch, step: Tensor) -> tuple[list, list, dict]:
        """New weights and state, and metrics; a loss or gradient that is not finite changes nothing."""
        import jax.numpy as jnp

        gradients, metrics = self._mean_gradients(weights, batch, step)
        norm = jnp.sqrt(sum(jnp.sum(jnp.square(g)) for g in gradients))
        clip = self.grad_clip_norm
        scale = 1.0 if clip is None else clip / jnp.maximum(norm, clip)
        new = self.optimizer.stateless_apply(state, [g * scale for g in gradients], weights)
        finite = jnp.isfinite(metrics[TOTAL_LOSS]) & jnp.isfinite(norm)
        kept = [
            [jnp.where(finite, a, b) for a, b in zip(after, before, strict=True)]
            for after, before in zip(new, (weights, state), strict=True)
        ]
        return kept[0], kept[1], {**metrics, GRADIENT_NORM: norm}

    def _gradients(
        self, weights: list, batch: Batch, step: Tensor, part: Tensor | int = 0
    ) -> tuple[list, dict[str, Tensor]]:
        """Gradients and metrics of the batch, or of a part of it."""
        import jax

        def loss(weights: list) -> tuple[Tensor, dict]:
            mapping = list(zip(self.model.trainable_variables, weights, strict=True))
            with keras.StatelessScope(state_mapping=mapping), self.seeds.at(step, 0, part):
                outputs, losses = self.model(batch, return_losses=True, training=True)
                return losses['total_loss'], self.metrics(outputs, losses, batch)

        (_, metrics), gradients = jax.value_and_grad(loss, has_aux=True)(weights)
        return gradients, metrics

    def _mean_gradients(self, weights: list, batch: Batch, step: Tensor) -> tuple[list, dict]:
        """Gradients and metrics, part after part."""
        import jax
        import jax.numpy as jnp

        n = self.accumulate_steps
        if n == 1:
            return self._gradients(weights, batch, step)

        def gradients_of(part: Batch, i: Tensor | int) -> tuple[list, dict]:
            return self._gradients(weights, part, step, i)

        parts = {key: jnp.reshape(x, (n, x.shape[0] // n, *x.shape[1:])) for key, x in batch.items()}
        first = {key: x[0] for key, x in parts.items()}
        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(gradients_of, first, 0))

        def add(carry: tuple, item: tuple) -> tuple[tuple, None]:
            return jax.tree.map(jnp.add, carry, gradients_of(*item)), None

        total, _ = jax.lax.scan(add, zeros, (parts, jnp.arange(n)))
        return jax.tree.map(lambda x: x / n, total)
