"""The training step on TensorFlow: on one device, or on the replicas of a `tf.distribute` strategy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from ddsp.core import Tensor
from ddsp.training.steps.base import Batch, Step
from ddsp.training.steps.report import GRADIENT_NORM, STOP, TOTAL_LOSS


class TensorFlowStep(Step):
    """Gradients averaged over replicas, clipped, and applied unless they are not finite."""

    def __post_init__(self) -> None:
        alone = self.strategy.num_replicas_in_sync == 1
        # XLA does not compile the sum over replicas: with several, it gets what comes before.
        if self.jit_compile and not alone:
            self._gradients = tf.function(self._gradients, jit_compile=True)  # type: ignore[method-assign]
        self._compiled: Callable = tf.function(
            self._distributed_step, jit_compile=True if self.jit_compile and alone else None
        )
        self._metric_names: list[str] = []

    @property
    def is_alone(self) -> bool:
        """Whether there is no other worker."""
        return not isinstance(self.strategy, tf.distribute.MultiWorkerMirroredStrategy)

    @property
    def is_chief(self) -> bool:
        """Whether this process writes checkpoints and records."""
        resolver = getattr(self.strategy, 'cluster_resolver', None)
        return resolver is None or not resolver.task_type or (
            resolver.task_type == 'chief' or (resolver.task_type, resolver.task_id) == ('worker', 0)
        )  # fmt: skip

    def distribute(self, dataset: tf.data.Dataset) -> Any:
        """A dataset whose batches are spread over the replicas."""
        if self.strategy.num_replicas_in_sync == 1:
            return dataset
        options = tf.data.Options()
        # Every worker reads all batches and takes its part of each: their number does not change the order.
        options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
        return self.strategy.experimental_distribute_dataset(dataset.with_options(options))

    def local(self, batch: Batch) -> Batch:
        """The first replica's part of a batch."""
        return tf.nest.map_structure(lambda x: self.strategy.experimental_local_results(x)[0], batch)

    def create_weights(self, example: Batch) -> None:
        """Calls the model with a batch of one example."""
        outputs, losses = self.model(example, return_losses=True, training=True)
        self._metric_names = sorted(self.metrics(outputs, losses, example))

    def run(self, batch: Batch, step: int, stop: bool) -> dict[str, Tensor]:
        """One step on all replicas."""
        return self._compiled(batch, tf.constant(step, tf.int32), tf.constant(float(stop)))

    def replica_step(self, batch: Batch) -> dict[str, Tensor]:
        """One step on one replica: losses, gradients, and the update unless one of them is not finite."""
        gradients, metrics = self._gradients(batch)
        loss = metrics[TOTAL_LOSS]
        replicas = self.strategy.num_replicas_in_sync
        if replicas > 1:
            context = tf.distribute.get_replica_context()
            summed = context.all_reduce(tf.distribute.ReduceOp.SUM, [*gradients, loss])
            *gradients, loss = [x / replicas for x in summed]
        norm = tf.linalg.global_norm(gradients)
        clip = self.grad_clip_norm
        scale = 1.0 if clip is None else clip / tf.maximum(norm, clip)
        # Keras' optimizer sums over replicas once more; each gives its share.
        updates = [g * (scale / replicas) for g in gradients]
        self.optimizer.apply_if(_all_finite(loss, norm), updates, self.model.trainable_variables)
        return {**metrics, GRADIENT_NORM: norm}

    def _distributed_step(self, batch: Batch, step: Tensor, stop: Tensor) -> dict[str, Tensor]:
        names = sorted([*self._metric_names, GRADIENT_NORM, STOP])

        def on_replica(batch: Batch) -> Tensor:
            context = tf.distribute.get_replica_context()
            self._step_now, self._replica_now = step, context.replica_id_in_sync_group
            with self.seeds.at(step, self._replica_now):  # where the replica's batch is one part
                metrics = {**self.replica_step(batch), STOP: stop}
            return tf.stack([metrics[name] for name in names])  # one sum over replicas for all

        values = self.strategy.run(on_replica, args=(batch,))
        means = self.strategy.reduce(tf.distribute.ReduceOp.MEAN, values, axis=None)
        metrics = dict(zip(names, tf.unstack(means, len(names)), strict=True))
        self.averages.update(step, _all_finite(metrics[TOTAL_LOSS], metrics[GRADIENT_NORM]))
        return metrics

    def _gradients(self, batch: Batch) -> tuple[Sequence[Tensor], dict[str, Tensor]]:
        """Gradients and metrics of one replica's batch, part after part."""
        if self.accumulate_steps == 1:
            return self._part_gradients(batch)

        def gradients_of(part: Batch, i: Tensor) -> tuple[Sequence[Tensor], dict[str, Tensor]]:
            with self.seeds.at(self._step_now, self._replica_now * self.accumulate_steps + i):
                return self._part_gradients(part)

        like = (
            [v.value for v in self.model.trainable_variables],
            dict.fromkeys(self._metric_names, tf.constant(0.0)),
        )
        return _mean_over_parts(gradients_of, batch, self.accumulate_steps, like)

    def _part_gradients(self, batch: Batch) -> tuple[Sequence[Tensor], dict[str, Tensor]]:
        weights = [v.value for v in self.model.trainable_variables]
        with tf.GradientTape() as tape:
            outputs, losses = self.model(batch, return_losses=True, training=True)
        gradients = tape.gradient(losses['total_loss'], weights, unconnected_gradients='zero')
        return gradients, self.metrics(outputs, losses, batch)

    def gradients(self, batch: Batch, step: int) -> tuple[Sequence[Tensor], dict[str, Tensor]]:
        """Gradients and metrics of the first replica."""
        with self.seeds.at(tf.constant(step, tf.int32)):
            return self._part_gradients(batch)


def _all_finite(*scalars: Tensor) -> Tensor:
    return tf.reduce_all(tf.math.is_finite(tf.stack(scalars)))


def _mean_over_parts(function: Callable[[Batch, Tensor], Any], batch: Batch, n: int, like: Any) -> Any:
    """Means of what a function gives for each part of a batch: the memory of one part, the gradient of all.

    Args:
      function: `function(part, i)` gives nested tensors, such as gradients and metrics.
      batch: Features `[batch, ...]`; `n` divides the batch.
      n: Number of parts.
      like: Tensors of the shapes that the function gives, nested in the same way.
    """
    parts = tf.nest.map_structure(lambda x: tf.reshape(x, [n, x.shape[0] // n, *x.shape[1:]]), batch)

    def body(i: Tensor, sums: Any) -> tuple[Tensor, Any]:
        found = function(tf.nest.map_structure(lambda x: x[i], parts), i)
        return i + 1, tf.nest.map_structure(tf.add, sums, found)

    zeros = tf.nest.map_structure(lambda x: tf.zeros(x.shape), like)
    # One after the other, or TensorFlow works at several parts at once.
    _, sums = tf.while_loop(
        lambda i, _: i < n, body, (tf.constant(0), zeros), parallel_iterations=1, maximum_iterations=n
    )
    return tf.nest.map_structure(lambda x: x / n, sums)
