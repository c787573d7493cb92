"""`Trainer`: makes steps, and keeps what they change. What a step is on each backend is in `steps`."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import gin
import keras
import numpy as np
import tensorflow as tf
from keras import ops

from ddsp.core import Tensor
from ddsp.errors import ConfigError
from ddsp.training import checkpoints, nn
from ddsp.training.meshes import DeviceMesh
from ddsp.training.optimizers import ScaledAdam, WarmUp, WeightAverages, make_schedule
from ddsp.training.states import State
from ddsp.training.steps import step_class
from ddsp.training.steps.report import (
    LOSS_PREFIX,
    NonFiniteError,
    WorkerLostError,
    check_parts,
    check_positive,
    is_finite,
    non_finite_error,
    set_model_precision,
    worker_lost,
)
from ddsp.training.steps.seeds import StepSeeds

__all__ = ['NonFiniteError', 'ScaledAdam', 'Trainer', 'WarmUp', 'WorkerLostError', 'get_trainer_class']


@gin.configurable(module='ddsp.training.trainers')
class Trainer:
    """Trains a model: gradients averaged over replicas, clipped, applied by Adam unless they are not finite.

    Args:
      model: A `ddsp.training.models.Model`, made within `strategy.scope()`.
      strategy: From `train_util.get_strategy`.
      checkpoints_to_keep: Number of newest checkpoints that are kept.
      learning_rate: Learning rate at step 0.
      lr_decay_steps: Steps in which the learning rate falls by `lr_decay_rate`.
      lr_decay_rate: See `lr_decay_steps`.
      grad_clip_norm: Gradients are scaled so that their global norm is at most this; `None`: not clipped.
      restore_keys: Parts of the model that `restore` reads, such as `('decoder',)`; `None`: everything, and
        the state of the optimizer.
      learning_rate_scales: Factors of the learning rate for parts of the model, by a component of the
        variables' paths: `{'reverb': 0.1}`.
      lr_warmup_steps: Steps in which the learning rate rises from 0.
      lr_schedule: `'exponential'`, `'cosine'` or `'constant'`: see `optimizers.make_schedule`.
      accumulate_steps: Number of parts that the batch is split into; their gradients are computed one after
        the other and averaged: the same step in less memory.
      average_decay: Decay of a moving average of the weights (`WeightAverages`), such as 0.999, with which
        the trained model is evaluated and saved; `None`: no average.
      precision: `'float32'`, or `'mixed_bfloat16'`: encoder and decoder multiply in bfloat16; weights, phase
        and spectra stay float32.
      seed: Random seed of a step's noise, which is a function of seed and step: a resumed training is the
        uninterrupted one.
      jit_compile: Compile the step with XLA (JAX always does).

    Raises:
      ConfigError: A setting is out of range, or the backend does not support it.
    """

    def __init__(
        self,
        model: Any,
        strategy: tf.distribute.Strategy | DeviceMesh,
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
        self.restore_keys = restore_keys
        self.precision = nn.check_precision(precision)
        with strategy.scope():
            schedule = make_schedule(
                lr_schedule, learning_rate, lr_decay_steps, lr_decay_rate, lr_warmup_steps
            )
            self.optimizer = ScaledAdam(schedule, learning_rate_scales)
        self.averages = WeightAverages(strategy, average_decay)
        self._step = step_class()(
            model=model, optimizer=self.optimizer, averages=self.averages, strategy=strategy,
            seeds=StepSeeds(seed), grad_clip_norm=grad_clip_norm, accumulate_steps=accumulate_steps,
            jit_compile=jit_compile,
        )  # fmt: skip
        self._writer = checkpoints.Writer()
        self.built = False

    @property
    def step(self) -> int:
        """Number of steps done."""
        return int(np.asarray(ops.convert_to_tensor(self.optimizer.iterations)))

    @property
    def learning_rate(self) -> float:
        """Learning rate of the next step."""
        return float(self.optimizer.learning_rate)

    @property
    def is_alone(self) -> bool:
        """Whether there is no other worker."""
        return self._step.is_alone

    @property
    def is_chief(self) -> bool:
        """Whether this process writes checkpoints and records: the first worker, or the only one."""
        return self._step.is_chief

    def get_checkpoint(self, model: Any = None) -> tf.train.Checkpoint:
        """The model and the optimizer as in ddsp 3.7.0, on TensorFlow, for a script's own checkpoints.

        `save` does not need it; `restore` reads what it writes.

        Args:
          model: In place of the trainer's model, such as a part of it.
        """
        if keras.backend.backend() != 'tensorflow':
            raise ConfigError('Trainer.get_checkpoint needs KERAS_BACKEND=tensorflow; Trainer.save does not')
        averages = {'averages': self.averages.variables} if self.averages.variables else {}
        return tf.train.Checkpoint(model=model or self.model, optimizer=self.optimizer, **averages)

    def build(self, batch: Mapping[str, Tensor]) -> None:
        """Creates all weights by calling the model once.

        Args:
          batch: One (distributed) batch of features; its first example is used.
        """
        batch = self._step.local(batch)
        check_parts(self._step.accumulate_steps, tf.nest.flatten(batch)[0].shape[0])
        with self.strategy.scope():
            self._step.create_weights(tf.nest.map_structure(lambda x: x[:1], batch))
            set_model_precision(self.model, self.precision)
            self.optimizer.build(self.model.trainable_variables)
            self.averages.build(self.model.trainable_variables)
        self.built = True

    def save(self, save_dir: str | os.PathLike[str], wait: bool = True, pinned: Sequence[int] = ()) -> str:
        """Writes `ckpt-<step>` and returns its prefix.

        Args:
          save_dir: Directory.
          wait: Wait until it is written. Otherwise the state is copied, and written while training goes on;
            the next `save` or `wait_for_save` says when that failed.
          pinned: Steps whose checkpoints stay, beside the newest ones.

        Raises:
          CheckpointError: It cannot be written; older checkpoints stay.
        """
        self._needs_build('save')
        with self.training_weights():
            values = State(self.model, self.optimizer, self.averages.variables).copy()
        prefix = self._writer.save(values, os.fspath(save_dir), self.step, self.checkpoints_to_keep, pinned)
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
        """Reads the newest checkpoint that is whole, whatever the backend that wrote it.

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
        state = State(self.model, self.optimizer, self.averages.variables, keys)
        self.averages.forget()
        with self.strategy.scope():
            return checkpoints.restore_newest(state.read, checkpoint_path, report)

    def psum(self, x: Any, axis: int | None = None) -> Any:
        """Sum over replicas."""
        return self.strategy.reduce(tf.distribute.ReduceOp.SUM, x, axis=axis)

    def run(self, fn: Callable, *args: Any, **kwargs: Any) -> Any:
        """Runs a function on every replica."""
        return self.strategy.run(fn, args=args, kwargs=kwargs)

    def distribute_dataset(self, dataset: tf.data.Dataset) -> Any:
        """A dataset whose batches are spread over the replicas, or over the processes on JAX."""
        return self._step.distribute(dataset)

    def train_step(self, inputs: Iterator | Mapping[str, Tensor]) -> dict[str, Tensor]:
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
        self, inputs: Iterator | Mapping[str, Tensor], stop: bool = False
    ) -> dict[str, Tensor]:
        """One step; returns all metrics, under the names that are logged (`losses/...`, `optimizer/...`).

        Args:
          inputs: A batch, or an iterator of batches.
          stop: Ask all workers to stop after this step: their metric `'stop'` is then above 0.
        """
        batch = next(inputs) if hasattr(inputs, '__next__') else inputs
        if not self.built:
            self.build(batch)
        self.averages.put_in_model(False)
        step, learning_rate = self.step, self.learning_rate
        try:
            metrics = self._step.run(batch, step, stop)
            finite = is_finite(metrics)
        except worker_lost() as error:
            if not self.is_alone:
                raise WorkerLostError.after(step, error) from error
            raise
        if not finite:
            raise self._non_finite(batch, step)
        return {**metrics, 'optimizer/learning_rate': ops.convert_to_tensor(learning_rate)}

    def step_fn(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """One step on one replica, for `run`, on TensorFlow; one that is not finite changes nothing."""
        return self._step.replica_step(batch)

    @contextlib.contextmanager
    def averaged_weights(self) -> Iterator[None]:
        """Within, the model has the moving average of its weights, where there is one."""
        with self.averages.in_model(True):
            yield

    @contextlib.contextmanager
    def training_weights(self) -> Iterator[None]:
        """Within, the model has the weights that are being trained."""
        with self.averages.in_model(False):
            yield

    def finish(self) -> None:
        """Puts the averaged weights, where there are some, into the model; a further step takes them back."""
        self.averages.put_in_model(True)

    def _non_finite(self, batch: Mapping[str, Tensor], step: int) -> NonFiniteError:
        batch = self._step.local(batch)
        gradients, metrics = self._step.gradients(batch, step)
        named = {f'feature {key}': value for key, value in batch.items()}
        named |= {
            f'loss {key.removeprefix(LOSS_PREFIX)}': value
            for key, value in metrics.items()
            if key.startswith(LOSS_PREFIX)
        }
        for v, gradient in zip(self.model.trainable_variables, gradients, strict=True):
            named |= {f'weight {v.path}': v.value, f'gradient of {v.path}': gradient}
        return non_finite_error(
            step, {key: np.asarray(ops.convert_to_tensor(value)) for key, value in named.items()}
        )

    def _needs_build(self, what: str) -> None:
        if not self.built:
            raise ConfigError(f'Trainer.{what} needs the weights: call Trainer.build(batch) before it')


@gin.configurable(module='ddsp.training.trainers')
def get_trainer_class(trainer_class: type | None = None) -> type:
    """The class of the trainer that the configuration names; by default `Trainer`.

    Raises:
      ConfigError: The Keras backend is neither TensorFlow nor JAX.
    """
    if trainer_class is not None:
        return trainer_class
    step_class()
    return Trainer
