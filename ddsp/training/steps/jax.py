"""The training step on JAX: one function, compiled by XLA for all devices of all processes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from ddsp.core import Tensor
from ddsp.errors import ConfigError
from ddsp.training.meshes import DATA, DeviceMesh, get_mesh
from ddsp.training.steps.base import Batch, Step
from ddsp.training.steps.report import GRADIENT_NORM, STOP, TOTAL_LOSS

if TYPE_CHECKING:
    import tensorflow as tf


class JaxStep(Step):
    """Weights, state of the optimizer and averages in, new ones out.

    Every device works on its part of the batch, and the gradients are averaged (`shard_map`): XLA's own
    partitioner would gather the audio of all devices before each FFT. A step that fails, because a process is
    gone, changes nothing.
    """

    def __post_init__(self) -> None:
        import jax

        given = self.strategy
        self.mesh = given if isinstance(given, DeviceMesh) else get_mesh('', None, 'default')
        everywhere, spread = jax.sharding.PartitionSpec(), jax.sharding.PartitionSpec(DATA)
        self._compiled = jax.jit(
            jax.shard_map(
                self._pure_step, mesh=self.mesh.mesh, in_specs=(everywhere, spread, everywhere, spread),
                out_specs=everywhere, check_vma=False,
            )
        )  # fmt: skip
        self._on_mesh: dict[int, tuple[Any, Any]] = {}  # of each variable: its value here, and on all devices

    @property
    def is_alone(self) -> bool:
        """Whether there is no other process."""
        return self.mesh.n_processes == 1

    @property
    def is_chief(self) -> bool:
        """Whether this process writes checkpoints and records."""
        return self.mesh.process_index == 0

    def distribute(self, dataset: tf.data.Dataset) -> tf.data.Dataset:
        """This process's part of every batch."""
        index, count = self.mesh.part
        if count == 1:
            return dataset
        import tensorflow as tf

        def part(x: tf.Tensor) -> tf.Tensor:
            size = tf.shape(x)[0] // count
            return x[index * size : (index + 1) * size]

        return dataset.map(lambda batch: tf.nest.map_structure(part, batch))

    def local(self, batch: Batch) -> Batch:
        """The first device's part of this process's batch."""
        self.mesh.check_batch(len(next(iter(batch.values()))) * self.mesh.n_processes)
        return {key: np.asarray(value)[: len(value) // self.mesh.n_local] for key, value in batch.items()}

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
        if not self._on_mesh:
            self._meet(step)
        parts = self.model.trainable_variables, self.optimizer.variables, self.averages.variables
        state = [[self._everywhere(v) for v in part] for part in parts]
        inputs = self.mesh.put({**batch, STOP: np.full(self.mesh.n_local, stop, np.float32)})
        asked = inputs.pop(STOP)
        new, metrics = self._compiled(state, inputs, np.int32(step), asked)
        found = {key: np.asarray(value) for key, value in metrics.items()}  # raises where a process is gone
        for part, values in zip(parts, new, strict=True):
            for variable, value in zip(part, values, strict=True):
                variable.assign(value.addressable_data(0))
                self._on_mesh[id(variable)] = variable.value, value
        return found

    def _everywhere(self, variable: Any) -> Tensor:
        """A variable's value on all devices; what others have assigned to it is brought there."""
        here, everywhere = self._on_mesh.get(id(variable), (None, None))
        return everywhere if variable.value is here else self.mesh.replicate(variable.value)

    def _meet(self, step: int) -> None:
        """All processes begin with the weights of the first one, at the same step."""
        if self.is_alone:
            return
        from jax.experimental import multihost_utils

        steps = multihost_utils.process_allgather(np.int32(step))
        if len(set(steps.tolist())) > 1:
            raise ConfigError(
                f'the processes begin at the steps {steps.tolist()}: the training folder must be on storage '
                'that all of them share'
            )
        variables = [*self.model.weights, *self.optimizer.variables, *self.averages.variables]
        values = multihost_utils.broadcast_one_to_all([np.asarray(v.value) for v in variables])
        for variable, value in zip(variables, values, strict=True):
            variable.assign(np.asarray(value))

    def gradients(self, batch: Batch, step: int) -> tuple[Sequence[Tensor], dict[str, Tensor]]:
        """Gradients and metrics."""
        weights = [v.value for v in self.model.trainable_variables]
        return self._gradients(weights, batch, np.int32(step))

    def _pure_step(self, state: list, batch: Batch, step: Tensor, stop: Tensor) -> tuple[list, dict]:
        """New state and metrics, on one device; a loss or gradient that is not finite changes nothing."""
        import jax
        import jax.numpy as jnp

        weights, moments, averages = state
        found = self._mean_gradients(weights, batch, step, jax.lax.axis_index(DATA))
        gradients, metrics = jax.lax.pmean(found, DATA)
        norm = jnp.sqrt(sum(jnp.sum(jnp.square(g)) for g in gradients))
        clip = self.grad_clip_norm
        scale = 1.0 if clip is None else clip / jnp.maximum(norm, clip)
        new = [*self.optimizer.stateless_apply(moments, [g * scale for g in gradients], weights)]
        new.append(self.averages.after(step, averages, new[0]))
        finite = jnp.isfinite(metrics[TOTAL_LOSS]) & jnp.isfinite(norm)
        kept = jax.tree.map(lambda after, before: jnp.where(finite, after, before), new, state)
        asked = jax.lax.pmax(jnp.max(stop), DATA)
        return kept, {**metrics, GRADIENT_NORM: norm, STOP: asked}

    def _gradients(
        self, weights: list, batch: Batch, step: Tensor, part: Tensor | int = 0
    ) -> tuple[list, dict[str, Tensor]]:
        """Gradients and metrics of the batch, or of a part of it."""
        import jax

        def loss(weights: list) -> tuple[Tensor, dict]:
            mapping = list(zip(self.model.trainable_variables, weights, strict=True))
            with keras.StatelessScope(state_mapping=mapping), self.seeds.at(step, part):
                outputs, losses = self.model(batch, return_losses=True, training=True)
                return losses['total_loss'], self.metrics(outputs, losses, batch)

        (_, metrics), gradients = jax.value_and_grad(loss, has_aux=True)(weights)
        return gradients, metrics

    def _mean_gradients(self, weights: list, batch: Batch, step: Tensor, device: Tensor) -> tuple[list, dict]:
        """Gradients and metrics of a device's batch, part after part."""
        import jax
        import jax.numpy as jnp

        n = self.accumulate_steps
        if n == 1:
            return self._gradients(weights, batch, step, device)

        def gradients_of(part: Batch, i: Tensor | int) -> tuple[list, dict]:
            return self._gradients(weights, part, step, device * n + i)

        parts = {key: jnp.reshape(x, (n, x.shape[0] // n, *x.shape[1:])) for key, x in batch.items()}
        first = {key: x[0] for key, x in parts.items()}
        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(gradients_of, first, 0))

        def add(carry: tuple, item: tuple) -> tuple[tuple, None]:
            return jax.tree.map(jnp.add, carry, gradients_of(*item)), None

        total, _ = jax.lax.scan(add, zeros, (parts, jnp.arange(n)))
        return jax.tree.map(lambda x: x / n, total)
