"""Noise that is a function of (seed, step), so that resuming a training needs no random state."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import keras
from keras import ops

from ddsp.processors import Processor


class _StepSeed(keras.random.SeedGenerator):
    """A seed generator without a variable: it gives the key of the step in progress, or a new one outside."""

    def __init__(self, index: int) -> None:
        self.index = index
        self.key: Any = None

    def next(self, ordered: bool = True) -> Any:
        """The key `[2]` of the next draw."""
        if self.key is not None:
            return self.key
        key = keras.random.randint([2], 0, 2**31 - 1)
        return ops.cast(key, 'uint32') if keras.backend.backend() == 'jax' else key


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
    def at(self, step: Any, replica: Any = 0, part: Any = 0) -> Iterator[None]:
        """Within, noise is that of `step`.

        Args:
          step: Scalar, int32.
          replica: Replicas have noise of their own.
          part: So have the parts of a batch of which the gradients are accumulated.
        """
        others = ops.cast(replica, 'int32') * 7919 + ops.cast(part, 'int32') * 104729
        for generator in self._generators:
            high = (self.seed * 1009 + generator.index) % 2**31
            key = ops.stack([ops.bitwise_xor(ops.cast(high, 'int32'), others), ops.cast(step, 'int32')])
            generator.key = ops.cast(key, 'uint32') if keras.backend.backend() == 'jax' else key
        try:
            yield
        finally:
            for generator in self._generators:
                generator.key = None
