"""One training step, the same for one device or many, and the state that it changes."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import gin
import keras
import numpy as np
import tensorflow as tf

from ddsp.errors import ConfigError, DDSPError
from ddsp.training import checkpoints
from ddsp.training.step_seeds import StepSeeds

LOSS_PREFIX = 'losses/'


class ScaledAdam(keras.optimizers.Adam):
    """Adam whose learning rate differs for parts of a model.

    Adam's step does not depend on the size of the gradient: every one of a reverb's thousands of taps moves
    by the learning rate, so at a rate that suits a network the first steps turn the impulse response into
    loud noise.

    Args:
      learning_rate: A schedule.
      scales: A part of a variable's path, such as `'reverb'`, to the factor of its learning rate.
      **kwargs: Of Keras' Adam.
    """

    def __init__(self, learning_rate: Any, scales: Mapping[str, float] | None = None, **kwargs: Any) -> None:
        super().__init__(learning_rate, **kwargs)
        self._scales = dict(scales or {})

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """One variable's update."""
        # What comes in may be the backend's variable, which has no path; Keras' own is at the same place.
        parts = self._trainable_variables[self._get_variable_index(variable)].path.split('/')
        for part, scale in self._scales.items():
            if part in parts:
                learning_rate = learning_rate * scale
        super().update_step(gradient, variable, learning_rate)


class WarmUp(keras.optimizers.schedules.LearningRateSchedule):
    """A schedule that begins at nothing and is reached in a straight line.

    At its start a model is much louder than the recordings. Adam's first steps at the full rate overshoot:
    amplitudes fall to where `exp_sigmoid` has no gradient left, and the harmonic part never comes back.

    Args:
      schedule: From then on.
      steps: Until then.
    """

    def __init__(self, schedule: keras.optimizers.schedules.LearningRateSchedule, steps: int) -> None:
        self.schedule = schedule
        self.steps = steps

    def __call__(self, step: Any) -> Any:
        """Learning rate of a step."""
        share = keras.ops.minimum(1.0, (keras.ops.cast(step, 'float32') + 1.0) / self.steps)
        return self.schedule(step) * share

    def get_config(self) -> dict[str, Any]:
        """Arguments."""
        return {'schedule': self.schedule, 'steps': self.steps}


class NonFiniteError(DDSPError, ArithmeticError):
    """A loss or a gradient became NaN or infinite."""


@gin.configurable(module='ddsp.training.trainers')
class Trainer:
    """Trains a model: gradients summed over replicas, averaged, clipped, applied by Adam.

    The learning rate after `step` steps is `learning_rate * lr_decay_rate ** (step / lr_decay_steps)`.
    Gradients are reduced before they are clipped, so that the number of replicas does not change the result.
    A gradient that is not finite is not applied.

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
        seed: int = 0,
        jit_compile: bool = False,
    ) -> None:
        _check_positive(
            checkpoints_to_keep=checkpoints_to_keep,
            learning_rate=learning_rate,
            lr_decay_steps=lr_decay_steps,
            lr_decay_rate=lr_decay_rate,
        )
        self.model = model
        self.strategy = strategy
        self.checkpoints_to_keep = checkpoints_to_keep
        self.grad_clip_norm = grad_clip_norm
        self.restore_keys = restore_keys
        self.seed = seed
        with strategy.scope():
            schedule = keras.optimizers.schedules.ExponentialDecay(
                learning_rate, lr_decay_steps, lr_decay_rate
            )
            if lr_warmup_steps:
                schedule = WarmUp(schedule, lr_warmup_steps)
            self.optimizer = ScaledAdam(schedule, learning_rate_scales)
        self._seeds = StepSeeds(seed)
        self._compiled_step: Callable = tf.function(self._distributed_step, jit_compile=jit_compile or None)
        self.built = False

    @property
    def step(self) -> int:
        """Number of steps done."""
        return int(self.optimizer.iterations.numpy())

    @property
    def learning_rate(self) -> float:
        """Learning rate of the next step."""
        return float(self.optimizer.learning_rate)

    def get_checkpoint(self, model: Any = None) -> tf.train.Checkpoint:
        """What a checkpoint holds: the model, the optimizer with the step.

        Args:
          model: In place of the trainer's model, such as a part of it.
        """
        return tf.train.Checkpoint(model=model or self.model, optimizer=self.optimizer)

    def build(self, batch: Mapping[str, Any]) -> None:
        """Creates all the weights by calling the model once.

        Args:
          batch: One (distributed) batch of features; its first example is used.
        """
        first = tf.nest.map_structure(lambda x: x[:1], self._local(batch))
        with self.strategy.scope():
            self.model(first, training=True)
            self.optimizer.build(self.model.trainable_variables)
        self._seeds.attach(self.model)
        self.built = True

    def save(self, save_dir: str | os.PathLike[str]) -> str:
        """Writes `ckpt-<step>` and returns its prefix.

        Raises:
          CheckpointError: It cannot be written; older checkpoints stay.
        """
        self._needs_build('save')
        return checkpoints.save(
            self.get_checkpoint(), os.fspath(save_dir), self.step, self.checkpoints_to_keep
        )

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
        return self.strategy.experimental_distribute_dataset(dataset)

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

    def train_step_with_metrics(self, inputs: Iterator | Mapping[str, Any]) -> dict[str, tf.Tensor]:
        """One step; returns all metrics, under the names that are logged (`losses/...`, `optimizer/...`)."""
        batch = next(inputs) if hasattr(inputs, '__next__') else inputs
        if not self.built:
            self.build(batch)
        step = self.step
        learning_rate = self.learning_rate
        metrics = self._compiled_step(batch, tf.constant(step, tf.int32))
        if not (
            np.isfinite(metrics['losses/total_loss']) and np.isfinite(metrics['optimizer/gradient_norm'])
        ):
            raise NonFiniteError(self._describe_non_finite(batch, step))
        return {**metrics, 'optimizer/learning_rate': tf.constant(learning_rate)}

    def step_fn(self, batch: Mapping[str, Any]) -> dict[str, tf.Tensor]:
        """One step on one replica: losses, gradients, update."""
        weights = [v.value for v in self.model.trainable_variables]
        with tf.GradientTape() as tape:
            outputs, losses = self.model(batch, return_losses=True, training=True)
        gradients = tape.gradient(losses['total_loss'], weights)
        gradients = [tf.zeros_like(w) if g is None else g for g, w in zip(gradients, weights, strict=True)]
        replicas = self.strategy.num_replicas_in_sync
        if replicas > 1:
            context = tf.distribute.get_replica_context()
            summed = context.all_reduce(tf.distribute.ReduceOp.SUM, gradients)
            gradients = [g / replicas for g in summed]
        norm = tf.linalg.global_norm(gradients)
        scale = (
            1.0
            if self.grad_clip_norm is None
            else self.grad_clip_norm / tf.maximum(norm, self.grad_clip_norm)
        )
        finite = tf.math.is_finite(norm)
        # Keras' optimizer sums over replicas once more; each gives its share.
        updates = [tf.where(finite, g * (scale / replicas), 0.0) for g in gradients]
        self.optimizer.apply(updates, self.model.trainable_variables)
        metrics = {f'{LOSS_PREFIX}{key}': value for key, value in losses.items()}
        metrics.update({f'{LOSS_PREFIX}{key}': value for key, value in self.model.loss_metrics.items()})
        metrics['optimizer/gradient_norm'] = norm
        metrics.update(_energies(outputs))
        return metrics

    def _distributed_step(self, batch: Mapping[str, Any], step: tf.Tensor) -> dict[str, tf.Tensor]:
        def replica_step(batch: Mapping[str, Any]) -> dict[str, tf.Tensor]:
            with self._seeds.at(step):
                return self.step_fn(batch)

        metrics = self.run(replica_step, batch)
        return {
            k: self.strategy.reduce(tf.distribute.ReduceOp.MEAN, v, axis=None) for k, v in metrics.items()
        }

    def _local(self, batch: Any) -> Any:
        """The first replica's part of a batch."""
        return tf.nest.map_structure(lambda x: self.strategy.experimental_local_results(x)[0], batch)

    def _describe_non_finite(self, batch: Any, step: int) -> str:
        batch = self._local(batch)
        with self._seeds.at(tf.constant(step, tf.int32)), tf.GradientTape() as tape:
            _, losses = self.model(batch, return_losses=True, training=True)
        named = {f'loss {key}': value for key, value in losses.items()}
        named.update({f'feature {key}': value for key, value in batch.items() if value.dtype.is_floating})
        variables = self.model.trainable_variables
        for v, g in zip(
            variables, tape.gradient(losses['total_loss'], [v.value for v in variables]), strict=True
        ):
            named[f'weight {v.path}'] = v.value
            if g is not None:
                named[f'gradient of {v.path}'] = g
        bad = [key for key, value in named.items() if not np.all(np.isfinite(value))]
        shown = ', '.join(bad[:6]) + (f' and {len(bad) - 6} more' if len(bad) > 6 else '')
        return (
            f'step {step}: not finite: {shown or "a loss or a gradient of another replica"}. The gradient '
            'was not '
            'applied. A smaller learning rate (Trainer.learning_rate) or clipping '
            '(Trainer.grad_clip_norm) usually helps'
        )

    def _needs_build(self, what: str) -> None:
        if not self.built:
            raise ConfigError(f'Trainer.{what} needs the weights: call Trainer.build(batch) before it')


@gin.configurable(module='ddsp.training.trainers')
def get_trainer_class(trainer_class: type = Trainer) -> type:
    """The class of the trainer that the configuration names."""
    return trainer_class


def _energies(outputs: Mapping[str, Any]) -> dict[str, tf.Tensor]:
    """Mean power in dB of the harmonic and of the noise part, where the model has them."""
    parts = {'energy/harmonic_db': 'harmonic', 'energy/noise_db': 'filtered_noise'}
    energies = {}
    for name, key in parts.items():
        part = outputs.get(key) if isinstance(outputs, Mapping) else None
        if isinstance(part, Mapping) and 'signal' in part:
            power = tf.reduce_mean(tf.square(tf.stop_gradient(part['signal'])))
            energies[name] = 10.0 * tf.math.log(tf.maximum(power, 1e-12)) / np.log(10.0).astype(np.float32)
    return energies


def _check_positive(**values: float) -> None:
    for name, value in values.items():
        if not value > 0:
            raise ConfigError(f'Trainer.{name} is {value}; it must be above 0')
