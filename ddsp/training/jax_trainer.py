"""The training step on JAX: the same model, data, optimizer, checkpoints and loop on one device."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from ddsp.errors import ConfigError
from ddsp.training import checkpoints
from ddsp.training.loop import STOP
from ddsp.training.step_report import (
    LOSS_PREFIX,
    check_parts,
    is_finite,
    non_finite_error,
    set_model_precision,
)
from ddsp.training.trainers import Trainer


class JaxTrainer(Trainer):
    """`Trainer` for `KERAS_BACKEND=jax`, with its arguments.

    The step is one function that is compiled by XLA always: weights and state of the optimizer in, new ones
    out. Several replicas and `average_decay` are for TensorFlow.

    Args:
      *args: Of `Trainer`.
      **kwargs: Of `Trainer`.

    Raises:
      ConfigError: `average_decay`, or a strategy of several replicas.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.strategy.num_replicas_in_sync > 1:
            raise ConfigError('KERAS_BACKEND=jax trains on one device; several need KERAS_BACKEND=tensorflow')
        if self._averages.decay is not None:
            raise ConfigError('Trainer.average_decay needs KERAS_BACKEND=tensorflow')
        self._jitted: Callable | None = None

    @property
    def step(self) -> int:
        """Number of steps done."""
        return int(np.asarray(self.optimizer.iterations.value))

    def build(self, batch: Mapping[str, Any]) -> None:
        """Creates all the weights by calling the model once."""
        import jax

        check_parts(self.accumulate_steps, len(next(iter(batch.values()))))
        first = {key: np.asarray(value)[:1] for key, value in batch.items()}
        # Outside of a compiled function operations are compiled one by one, which takes long; synthesisers
        # have their weights from the beginning.
        if hasattr(self.model, 'encode') and hasattr(self.model, 'decoder'):
            self.model.decoder(self.model.encode(first), training=True)
            self.model.build()
        else:
            self.model(first, training=True)
        set_model_precision(self.model, self.precision)
        self.optimizer.build(self.model.trainable_variables)
        self._jitted = jax.jit(self._pure_step, donate_argnums=(0, 1))
        self.built = True

    def get_checkpoint(self, model: Any = None) -> tf.train.Checkpoint:
        """The weights of the model and of the optimizer, by their order."""
        weights = (model or self.model).weights
        return tf.train.Checkpoint(
            weights=[tf.Variable(np.asarray(v.value)) for v in weights],
            optimizer=[tf.Variable(np.asarray(v.value)) for v in self.optimizer.variables],
        )

    def _read(self, prefix: str, keys: Any) -> None:
        if keys:
            raise ConfigError('restore_keys needs KERAS_BACKEND=tensorflow')
        checkpoint = self.get_checkpoint()
        checkpoint.read(prefix).assert_existing_objects_matched().expect_partial()
        variables = [*self.model.weights, *self.optimizer.variables]
        for variable, value in zip(variables, [*checkpoint.weights, *checkpoint.optimizer], strict=True):
            variable.assign(value.numpy())

    def restore(self, checkpoint_path: Any, restore_keys: Any = None, report: Any = print) -> str:
        """Reads the newest checkpoint that is whole and was written on JAX: see `Trainer.restore`."""
        self._needs_build('restore')
        keys = restore_keys or self.restore_keys
        return checkpoints.restore_newest(lambda prefix: self._read(prefix, keys), checkpoint_path, report)

    def train_step_with_metrics(
        self, inputs: Iterator | Mapping[str, Any], stop: bool = False
    ) -> dict[str, Any]:
        """One step: see `Trainer.train_step_with_metrics`."""
        batch = next(inputs) if hasattr(inputs, '__next__') else inputs
        if not self.built:
            self.build(batch)
        batch = {key: np.asarray(value) for key, value in batch.items()}
        step, learning_rate = self.step, self.learning_rate
        variables = self.model.trainable_variables, self.optimizer.variables
        state = [[v.value for v in part] for part in variables]
        assert self._jitted is not None
        *state, metrics = self._jitted(*state, batch, np.int32(step))
        for part, values in zip(variables, state, strict=True):
            for variable, value in zip(part, values, strict=True):
                variable.assign(value)
        metrics = {key: np.asarray(value) for key, value in metrics.items()}
        if not is_finite(metrics):
            raise self._non_finite(batch, step)
        return {**metrics, STOP: np.float32(stop), 'optimizer/learning_rate': np.float32(learning_rate)}

    def _pure_step(self, weights: list, state: list, batch: dict, step: Any) -> tuple[list, list, dict]:
        """New weights and state, and metrics; a loss or gradient that is not finite changes nothing."""
        import jax.numpy as jnp

        gradients, metrics = self._mean_gradients(weights, batch, step)
        norm = jnp.sqrt(sum(jnp.sum(jnp.square(g)) for g in gradients))
        clip = self.grad_clip_norm
        scale = 1.0 if clip is None else clip / jnp.maximum(norm, clip)
        new = self.optimizer.stateless_apply(state, [g * scale for g in gradients], weights)
        finite = jnp.isfinite(metrics[f'{LOSS_PREFIX}total_loss']) & jnp.isfinite(norm)
        kept = [
            [jnp.where(finite, a, b) for a, b in zip(after, before, strict=True)]
            for after, before in zip(new, (weights, state), strict=True)
        ]
        return kept[0], kept[1], {**metrics, 'optimizer/gradient_norm': norm}

    def _mean_gradients(self, weights: list, batch: dict, step: Any) -> tuple[list, dict]:
        import jax
        import jax.numpy as jnp

        n = self.accumulate_steps
        size = len(next(iter(batch.values())))

        def loss(weights: list, part: dict, i: Any) -> tuple[Any, dict]:
            mapping = list(zip(self.model.trainable_variables, weights, strict=True))
            with keras.StatelessScope(state_mapping=mapping), self._seeds.at(step, 0, i):
                outputs, losses = self.model(part, return_losses=True, training=True)
                return losses['total_loss'], self._metrics(outputs, losses, part)

        def gradients_of(part: dict, i: Any) -> tuple[list, dict]:
            (_, metrics), gradients = jax.value_and_grad(loss, has_aux=True)(weights, part, i)
            return gradients, metrics

        if n == 1:
            return gradients_of(batch, 0)
        parts = {key: jnp.reshape(value, (n, size // n, *value.shape[1:])) for key, value in batch.items()}
        first = {key: value[0] for key, value in parts.items()}
        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(gradients_of, first, 0))

        def add(carry: tuple, item: tuple) -> tuple[tuple, None]:
            return jax.tree.map(jnp.add, carry, gradients_of(*item)), None

        total, _ = jax.lax.scan(add, zeros, (parts, jnp.arange(n)))
        return jax.tree.map(lambda x: x / n, total)

    def _non_finite(self, batch: Any, step: int) -> Any:
        import jax

        def loss(weights: list) -> tuple[Any, dict]:
            mapping = list(zip(self.model.trainable_variables, weights, strict=True))
            with keras.StatelessScope(state_mapping=mapping), self._seeds.at(np.int32(step)):
                _, losses = self.model(batch, return_losses=True, training=True)
                return losses['total_loss'], losses

        variables = self.model.trainable_variables
        values = [v.value for v in variables]
        (_, losses), gradients = jax.value_and_grad(loss, has_aux=True)(values)
        named = {f'loss {key}': value for key, value in losses.items()}
        named |= {f'feature {key}': value for key, value in batch.items()}
        named |= {f'weight {v.path}': value for v, value in zip(variables, values, strict=True)}
        named |= {f'gradient of {v.path}': g for v, g in zip(variables, gradients, strict=True)}
        return non_finite_error(step, {key: np.asarray(value) for key, value in named.items()})
