"""A moving average of the weights, with which a model often sounds better than with the last ones."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import tensorflow as tf

from ddsp.errors import ConfigError


class WeightAverages:
    """Averages of a model's weights: `average += (1 - decay) (weight - average)` after every step.

    The decay of step n is `min(decay, (1 + n) / (10 + n))`, so that the first weights are soon forgotten.

    Args:
      strategy: Of the training.
      decay: Between 0 and 1; `None`: no averages, and all methods do nothing.
    """

    def __init__(self, strategy: tf.distribute.Strategy, decay: float | None) -> None:
        if decay is not None and not 0 < decay < 1:
            raise ConfigError(f'Trainer.average_decay is {decay}; it must lie between 0 and 1')
        self.strategy = strategy
        self.decay = decay
        self.variables: list[tf.Variable] = []
        self._weights: list[Any] = []
        self._in_model = False

    def build(self, weights: Sequence[Any]) -> None:
        """Begins with the weights as they are."""
        if self.decay is not None:
            self._weights = list(weights)
            self.variables = [tf.Variable(w.value, trainable=False) for w in weights]

    def update(self, step: tf.Tensor, done: tf.Tensor) -> None:
        """Takes the weights after a step, in cross-replica context, if it was done."""
        if not self.variables:
            return
        n = tf.cast(step, tf.float32)
        decay = tf.minimum(tf.constant(self.decay, tf.float32), (1.0 + n) / (10.0 + n))

        def update(average: tf.Variable, value: tf.Tensor) -> tf.Operation:
            return average.assign(tf.where(done, decay * average + (1.0 - decay) * value, average))

        for average, weight in zip(self.variables, self._weights, strict=True):
            self.strategy.extended.update(average, update, args=(weight.value,))

    @contextlib.contextmanager
    def in_model(self, wanted: bool) -> Iterator[None]:
        """Within, the model has the averages, or the weights that are being trained."""
        before = self._in_model
        self.put_in_model(wanted)
        try:
            yield
        finally:
            self.put_in_model(before)

    def put_in_model(self, wanted: bool) -> None:
        """Exchanges averages and weights, unless they lie as they are wanted."""
        if not self.variables or wanted == self._in_model:
            return
        for average, weight in zip(self.variables, self._weights, strict=True):
            kept = tf.identity(average)
            average.assign(tf.identity(weight.value))
            weight.assign(kept)
        self._in_model = wanted

    def forget(self) -> None:
        """Both are about to be overwritten by a checkpoint."""
        self._in_model = False
