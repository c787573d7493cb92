"""Noise that is a function of (seed, step), so that resuming a training needs no random state."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import keras
import tensorflow as tf

from ddsp.processors import Processor


class _StepSeed(keras.random.SeedGenerator):
    """A seed generator without a variable: it gives the key of the step in progress, or a new one outside."""

    def __init__(self, index: int) -> None:
        self.index = index
        self.key: Any = None

    def next(self, ordered: bool = True) -> Any:
        """The key `[2]`, uint32, of the next draw."""
        if self.key is not None:
            return self.key
        return tf.random.uniform([2], 0, 2**31 - 1, tf.int32)


class StepSeeds:
    """Gives the noise of a model's processors to the step.

    Args:
      seed: Different seeds, different noise.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self._generators: list[_StepSeed] = []

    def attach(self, model: Any) -> None:
        """Takes over every processor whose noise is not fixed by its own seed."""
        self._generators = []
        for layer in model._flatten_layers():
            if not (isinstance(layer, Processor) and hasattr(layer, 'seed')):
                continue
            if layer.seed is None or isinstance(layer.seed, _StepSeed):
                generator = _StepSeed(len(self._generators))
                # Not state of the layer (a built layer takes none, and nothing is to be saved).
                object.__setattr__(layer, 'seed', generator)
                self._generators.append(generator)

    @contextlib.contextmanager
    def at(self, step: tf.Tensor) -> Iterator[None]:
        """Within, noise is that of `step` (scalar, int32); replicas have noise of their own."""
        replica = tf.distribute.get_replica_context()
        replica_id = replica.replica_id_in_sync_group if replica else 0
        for generator in self._generators:
            high = (self.seed * 1009 + generator.index) % 2**31
            generator.key = tf.stack(
                [tf.constant(high, tf.int32) ^ tf.cast(replica_id, tf.int32) * 7919, step]
            )
        try:
            yield
        finally:
            for generator in self._generators:
                generator.key = None
