"""What a backend's step has to provide for `Trainer`, which is the same on all of them."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ddsp.core import Tensor
from ddsp.errors import ConfigError
from ddsp.training.optimizers import ScaledAdam, WeightAverages
from ddsp.training.steps.report import LOSS_PREFIX, energies
from ddsp.training.steps.seeds import StepSeeds

if TYPE_CHECKING:
    import tensorflow as tf

Batch = Mapping[str, Tensor]


@dataclasses.dataclass(eq=False)
class Step(abc.ABC):
    """One training step, with what it reads and changes.

    Attributes:
      model: A `ddsp.training.models.Model`.
      optimizer: Its `iterations` count the steps.
      averages: Moving averages of the weights.
      strategy: Replicas of the step: a `tf.distribute.Strategy`, or a `DeviceMesh` on JAX.
      seeds: Noise by step.
      grad_clip_norm: As in `Trainer`.
      accumulate_steps: As in `Trainer`.
      jit_compile: As in `Trainer`.
    """

    model: Any
    optimizer: ScaledAdam
    averages: WeightAverages
    strategy: Any
    seeds: StepSeeds
    grad_clip_norm: float | None
    accumulate_steps: int
    jit_compile: bool

    @abc.abstractmethod
    def __post_init__(self) -> None:
        """Checks the settings and prepares the compiled function."""

    @property
    @abc.abstractmethod
    def is_alone(self) -> bool:
        """Whether there is no other worker."""

    @property
    @abc.abstractmethod
    def is_chief(self) -> bool:
        """Whether this process writes checkpoints and records: the first worker, or the only one."""

    @abc.abstractmethod
    def distribute(self, dataset: tf.data.Dataset) -> Any:
        """A dataset of whole batches as this process's steps take them."""

    @abc.abstractmethod
    def local(self, batch: Batch) -> Batch:
        """The first replica's part of a batch."""

    @abc.abstractmethod
    def create_weights(self, example: Batch) -> None:
        """Calls the model, or the parts of it that have weights, with a batch of one example."""

    @abc.abstractmethod
    def run(self, batch: Batch, step: int, stop: bool) -> dict[str, Tensor]:
        """One step; the weights stay as they are when a loss or a gradient is not finite.

        Args:
          batch: A batch, for all replicas.
          step: Steps done.
          stop: Whether this worker was asked to stop.

        Returns:
          Metrics, `optimizer/gradient_norm` and `stop` (`STOP`) among them.
        """

    @abc.abstractmethod
    def gradients(self, batch: Batch, step: int) -> tuple[Sequence[Tensor], dict[str, Tensor]]:
        """Gradient of each trainable weight, and metrics, for the report on a step that was refused."""

    def replica_step(self, batch: Batch) -> dict[str, Tensor]:
        """One step on one replica, within `strategy.run`; returns its metrics."""
        raise ConfigError('Trainer.step_fn needs KERAS_BACKEND=tensorflow')

    def metrics(self, outputs: Any, losses: Mapping[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        """What is logged of a step, by name."""
        named = {f'{LOSS_PREFIX}{key}': value for key, value in losses.items()}
        named |= {f'{LOSS_PREFIX}{key}': value for key, value in self.model.loss_metrics.items()}
        return named | energies(outputs, batch)
