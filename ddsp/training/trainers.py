"""One training step, the same for one device or many, and the state that it changes."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import gin
import keras
import tensorflow as tf

from ddsp.errors import ConfigError
from ddsp.training import checkpoints, nn
from ddsp.training.accumulation import mean_over_parts
from ddsp.training.averages import WeightAverages
from ddsp.training.loop import STOP
from ddsp.training.optimizers import ScaledAdam, WarmUp, make_schedule
from ddsp.training.step_report import (
    LOSS_PREFIX,
    WORKER_LOST,
    NonFiniteError,
    WorkerLostError,
    check_parts,
    check_positive,
    energies,
    is_finite,
    non_finite_error,
    set_model_precision,
)
from ddsp.training.step_seeds import StepSeeds

__all__ = ['NonFiniteError', 'ScaledAdam', 'Trainer', 'WarmUp', 'WorkerLostError', 'get_trainer_class']


@gin.configurable(module='ddsp.training.trainers')
class Trainer:
    """Trains a model: gradients averaged over replicas, clipped, applied by Adam unless they are not finite.

    Args:
      model: A `ddsp.training.models.Model`, made within `strategy.scope()`.
      strategy: From `train_util.get_strategy`.
      checkpoints_to_keep: The newest so many stay.
      learning_rate: At step 0.
      lr_decay_steps: Steps in which the learning rate falls by `lr_decay_rate`.
      lr_decay_rate: See `lr_decay_steps`.
      grad_clip_norm: Gradients are scaled so that their global norm is at most this; `None`: not clipped.
      restore_keys: Parts of the model that `restore` reads, such as `('decoder',)`; `None`: everything, and
        the state of the optimizer.
      learning_rate_scales: Factors of the learning rate of parts of the model, by a part of the variables'
        paths: `{'reverb': 0.1}`.
      lr_warmup_steps: Steps in which the learning rate rises from nothing.
      lr_schedule: `'exponential'`, `'cosine'` or `'constant'`: see `optimizers.make_schedule`.
      accumulate_steps: The batch is taken in so many parts, one after the other, whose gradients are
        averaged: the same step in less memory.
      average_decay: Of a moving average of the weights (`WeightAverages`), such as 0.999, with which the
        trained model is evaluated and saved; `None`: none.
      precision: `'float32'`, or `'mixed_bfloat16'`: encoder and decoder multiply in bfloat16; weights, phase
        and spectra stay float32.
      seed: Of everything random within a step. Noise is a function of seed and step, so that a resumed
        training is the uninterrupted one.
      jit_compile: Compile the step with XLA.
    """

    def __init__(
        self,
        model: Any,
        strategy: tf.distribute.Strategy,
        checkpoints_to_keep: int = 100,
        learning_rate: float = 0.001,
        lr_decay_steps: int = 10000,
        lr_decay_rate: float = 0.98,
        grad_clip_norm: float | None = 3.0,
        restore_keys: Sequence[str] | None = None,
        learning_rate_scales: Mapping[str, float] | None = None,
        lr_warmup_steps: int = 0,
        lr_schedule: str = 'exponential',
        accumulate_steps: int = 1,
        average_decay: float | None = None,
        precision: str = 'float32',
        seed: int = 0,
        jit_compile: bool = False,
    ) -> None:
        check_positive(
            'Trainer', checkpoints_to_keep=checkpoints_to_keep, learning_rate=learning_rate,
            lr_decay_steps=lr_decay_steps, lr_decay_rate=lr_decay_rate, accumulate_steps=accumulate_steps,
        )  # fmt: skip
        self.model = model
        self.strategy = strategy
        self.checkpoints_to_keep = checkpoints_to_keep
        self.grad_clip_norm = grad_clip_norm
        self.restore_keys = restore_keys
        self.accumulate_steps = accumulate_steps
        self.seed = seed
        self.precision = nn.check_precision(precision)
        with strategy.scope():
            schedule = make_schedule(
                lr_schedule, learning_rate, lr_decay_steps, lr_decay_rate, lr_warmup_steps
            )
            self.optimizer = ScaledAdam(schedule, learning_rate_scales)
        self._seeds = StepSeeds(seed)
        alone = strategy.num_replicas_in_sync == 1
        # XLA does not compile the sum over replicas: with several, it gets what comes before.
        if jit_compile and not alone:
            self._gradients = tf.function(self._gradients, jit_compile=True)  # type: ignore[method-assign]
        self._compiled_step: Callable = tf.function(
            self._distributed_step, jit_compile=True if jit_compile and alone else None
        )
        self._averages = WeightAverages(strategy, average_decay)
        self._metric_names: list[str] = []
        self._writer = checkpoints.Writer()
        self.built = False

    @property
    def step(self) -> int:
        """Number of steps done."""
        return int(self.optimizer.iterations.numpy())

    @property
    def learning_rate(self) -> float:
        """Learning rate of the next step."""
        return float(self.optimizer.learning_rate)

    @property
    def is_alone(self) -> bool:
        """Whether there is no other worker."""
        return not isinstance(self.strategy, tf.distribute.MultiWorkerMirroredStrategy)

    @property
    def is_chief(self) -> bool:
        """Whether this process writes checkpoints and records: the first worker, or the only one."""
        resolver = getattr(self.strategy, 'cluster_resolver', None)
        return resolver is None or not resolver.task_type or (
            resolver.task_type == 'chief' or (resolver.task_type, resolver.task_id) == ('worker', 0)
        )  # fmt: skip

    def get_checkpoint(self, model: Any = None) -> tf.train.Checkpoint:
        """What a checkpoint holds: the model, the optimizer with the step, the averages of the weights.

        Args:
          model: In place of the trainer's model, such as a part of it.
        """
        averages = {'averages': self._averages.variables} if self._averages.variables else {}
        return tf.train.Checkpoint(model=model or self.model, optimizer=self.optimizer, **averages)

    def build(self, batch: Mapping[str, Any]) -> None:
        """Creates all the weights by calling the model once.

        Args:
          batch: One (distributed) batch of features; its first example is used.
        """
        batch = self._local(batch)
        check_parts(self.accumulate_steps, tf.nest.flatten(batch)[0].shape[0])
        first = tf.nest.map_structure(lambda x: x[:1], batch)
        with self.strategy.scope():
            outputs, losses = self.model(first, return_losses=True, training=True)
            set_model_precision(self.model, self.precision)
            self.optimizer.build(self.model.trainable_variables)
            self._averages.build(self.model.trainable_variables)
        self._metric_names = sorted(self._metrics(outputs, losses, first))
        self.built = True

    def save(self, save_dir: str | os.PathLike[str], wait: bool = True, pinned: Sequence[int] = ()) -> str:
        """Writes `ckpt-<step>` and returns its prefix.

        Args:
          save_dir: Directory.
          wait: Until it is written. Otherwise the state is copied, and written while training goes on; the
            next `save` or `wait_for_save` says when that failed.
          pinned: Steps whose checkpoints stay, beside the newest ones.

        Raises:
          CheckpointError: It cannot be written; older checkpoints stay.
        """
        self._needs_build('save')
        with self.training_weights():
            prefix = self._writer.save(
                self.get_checkpoint(), os.fspath(save_dir), self.step, self.checkpoints_to_keep, pinned
            )
        if wait:
            self.wait_for_save()
        return prefix

    def wait_for_save(self) -> None:
        """Waits until the last checkpoint is written; raises a CheckpointError when that failed."""
        self._writer.wait()

    def restore(
        self,
        checkpoint_path: str | os.PathLike[str],
        restore_keys: Sequence[str] | None = None,
        report: Callable[[str], None] = print,
    ) -> str:
        """Reads the newest checkpoint that is whole.

        Args:
          checkpoint_path: A directory, or one checkpoint.
          restore_keys: Parts of the model (then the optimizer starts anew); by default those of the
            constructor.
          report: Told about every damaged checkpoint that is passed over.

        Returns:
          The prefix that was read.

        Raises:
          CheckpointError: There is none (it is also a FileNotFoundError), or none can be read.
        """
        self._needs_build('restore')
        keys = restore_keys or self.restore_keys
        self._averages.forget()

        def read(prefix: str) -> None:
            if keys:
                checkpoints.restore_model(self.model, prefix, keys)
                return
            status = self.get_checkpoint().read(prefix)
            status.assert_existing_objects_matched()
            status.expect_partial()

        with self.strategy.scope():
            return checkpoints.restore_newest(read, checkpoint_path, report)

    def psum(self, x: Any, axis: int | None = None) -> Any:
        """Sum over replicas."""
        return self.strategy.reduce(tf.distribute.ReduceOp.SUM, x, axis=axis)

    def run(self, fn: Callable, *args: Any, **kwargs: Any) -> Any:
        """Runs a function on every replica."""
        return self.strategy.run(fn, args=args, kwargs=kwargs)

    def distribute_dataset(self, dataset: tf.data.Dataset) -> Any:
        """A dataset whose batches are spread over the replicas."""
        if self.strategy.num_replicas_in_sync == 1:
            return dataset
        options = tf.data.Options()
        # Every worker reads all batches and takes its part of each: their number does not change the order.
        options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
        return self.strategy.experimental_distribute_dataset(dataset.with_options(options))

    def train_step(self, inputs: Iterator | Mapping[str, Any]) -> dict[str, tf.Tensor]:
        """One step.

        Args:
          inputs: A batch, or an iterator of batches.

        Returns:
          The losses: `total_loss`, `spectral_loss`, and its parts.

        Raises:
          NonFiniteError: A loss or a gradient is not finite; the gradient was not applied.
        """
        metrics = self.train_step_with_metrics(inputs)
        return {k.removeprefix(LOSS_PREFIX): v for k, v in metrics.items() if k.startswith(LOSS_PREFIX)}

    def train_step_with_metrics(
        self, inputs: Iterator | Mapping[str, Any], stop: bool = False
    ) -> dict[str, tf.Tensor]:
        """One step; returns all metrics, under the names that are logged (`losses/...`, `optimizer/...`).

        Args:
          inputs: A batch, or an iterator of batches.
          stop: Ask all workers to stop after this step: their metric `'stop'` is then above 0.
        """
        batch = next(inputs) if hasattr(inputs, '__next__') else inputs
        if not self.built:
            self.build(batch)
        self._averages.put_in_model(False)
        step = self.step
        learning_rate = self.learning_rate
        try:
            metrics = self._compiled_step(batch, tf.constant(step, tf.int32), tf.constant(float(stop)))
            finite = is_finite(metrics)
        except WORKER_LOST as error:
            if not self.is_alone:
                raise WorkerLostError.after(step, error) from error
            raise
        if not finite:
            raise self._non_finite(batch, step)
        return {**metrics, 'optimizer/learning_rate': tf.constant(learning_rate)}

    def step_fn(self, batch: Mapping[str, Any]) -> dict[str, tf.Tensor]:
        """One step on one replica: losses, gradients, and the update unless one of them is not finite."""
        gradients, metrics = self._gradients(batch)
        loss = metrics[f'{LOSS_PREFIX}total_loss']
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
        return {**metrics, 'optimizer/gradient_norm': norm}

    def _gradients(self, batch: Mapping[str, Any]) -> tuple[list[tf.Tensor], dict[str, tf.Tensor]]:
        """Gradients and metrics of one replica's batch, part after part."""
        if self.accumulate_steps == 1:
            return self._part_gradients(batch)

        def gradients_of(part: Mapping[str, Any], i: tf.Tensor) -> tuple[list[tf.Tensor], list[tf.Tensor]]:
            with self._seeds.at(self._step_now, self._replica_now, i):
                gradients, metrics = self._part_gradients(part)
            return gradients, [metrics[name] for name in self._metric_names]

        like = [v.value for v in self.model.trainable_variables], [tf.constant(0.0)] * len(self._metric_names)
        gradients, values = mean_over_parts(gradients_of, batch, self.accumulate_steps, like)
        return gradients, dict(zip(self._metric_names, values, strict=True))

    def _part_gradients(self, batch: Mapping[str, Any]) -> tuple[list[tf.Tensor], dict[str, tf.Tensor]]:
        weights = [v.value for v in self.model.trainable_variables]
        with tf.GradientTape() as tape:
            outputs, losses = self.model(batch, return_losses=True, training=True)
        gradients = tape.gradient(losses['total_loss'], weights)
        gradients = [tf.zeros_like(w) if g is None else g for g, w in zip(gradients, weights, strict=True)]
        return gradients, self._metrics(outputs, losses, batch)

    def _metrics(self, outputs: Any, losses: Mapping[str, Any], batch: Any) -> dict[str, tf.Tensor]:
        metrics = {f'{LOSS_PREFIX}{key}': value for key, value in losses.items()}
        metrics |= {f'{LOSS_PREFIX}{key}': value for key, value in self.model.loss_metrics.items()}
        return metrics | energies(outputs, batch)

    def _distributed_step(
        self, batch: Mapping[str, Any], step: tf.Tensor, stop: tf.Tensor
    ) -> dict[str, tf.Tensor]:
        names = sorted([*self._metric_names, 'optimizer/gradient_norm', STOP])

        def replica_step(batch: Mapping[str, Any]) -> tf.Tensor:
            context = tf.distribute.get_replica_context()
            self._step_now, self._replica_now = step, context.replica_id_in_sync_group
            with self._seeds.at(step, self._replica_now):
                metrics = {**self.step_fn(batch), STOP: stop}
            return tf.stack([metrics[name] for name in names])  # one sum over replicas for all

        values = self.run(replica_step, batch)
        means = self.strategy.reduce(tf.distribute.ReduceOp.MEAN, values, axis=None)
        metrics = dict(zip(names, tf.unstack(means, len(names)), strict=True))
        done = _all_finite(metrics[f'{LOSS_PREFIX}total_loss'], metrics['optimizer/gradient_norm'])
        self._averages.update(step, done)
        return metrics

    @contextlib.contextmanager
    def averaged_weights(self) -> Iterator[None]:
        """Within, the model has the moving average of its weights, where there is one."""
        with self._averages.in_model(True):
            yield

    @contextlib.contextmanager
    def training_weights(self) -> Iterator[None]:
        """Within, the model has the weights that are being trained."""
        with self._averages.in_model(False):
            yield

    def finish(self) -> None:
        """Leaves the model with the weights that it is to be used with; a further step takes them back."""
        self._averages.put_in_model(True)

    def _local(self, batch: Any) -> Any:
        """The first replica's part of a batch."""
        return tf.nest.map_structure(lambda x: self.strategy.experimental_local_results(x)[0], batch)

    def _non_finite(self, batch: Any, step: int) -> NonFiniteError:
        batch = self._local(batch)
        with self._seeds.at(tf.constant(step, tf.int32)), tf.GradientTape() as tape:
            _, losses = self.model(batch, return_losses=True, training=True)
        named = {f'loss {key}': value for key, value in losses.items()}
        named.update({f'feature {key}': value for key, value in batch.items()})
        variables = self.model.trainable_variables
        gradients = tape.gradient(losses['total_loss'], [v.value for v in variables])
        for v, g in zip(variables, gradients, strict=True):
            named[f'weight {v.path}'] = v.value
            if g is not None:
                named[f'gradient of {v.path}'] = g
        return non_finite_error(step, {key: tf.convert_to_tensor(v).numpy() for key, v in named.items()})

    def _needs_build(self, what: str) -> None:
        if not self.built:
            raise ConfigError(f'Trainer.{what} needs the weights: call Trainer.build(batch) before it')


def _all_finite(*scalars: tf.Tensor) -> tf.Tensor:
    return tf.reduce_all(tf.math.is_finite(tf.stack(scalars)))


@gin.configurable(module='ddsp.training.trainers')
def get_trainer_class(trainer_class: type | None = None) -> type:
    """The class of the trainer that the configuration names; by default the one for the Keras backend.

    Raises:
      ConfigError: The backend is neither TensorFlow nor JAX.
    """
    if trainer_class is not None:
        return trainer_class
    backend = keras.backend.backend()
    if backend == 'jax':
        from ddsp.training.jax_trainer import JaxTrainer

        return JaxTrainer
    if backend != 'tensorflow':
        raise ConfigError(f'KERAS_BACKEND={backend} does not train; use tensorflow or jax')
    return Trainer
