"""Noise that is a function of (seed, step), so that resuming a training needs no random state."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator
from typing import Any

import keras
from keras import ops

from ddsp import core


class StepSeeds:
    """Gives the noise of a model's processors to the step.

    Args:
      seed: Random seed.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    @contextlib.contextmanager
    def at(self, step: Any, part: Any = 0) -> Iterator[None]:
        """Within, noise that has no seed of its own is that of `step`.

        Args:
          step: Scalar, int32.
          part: Number of the part of the batch, where replicas or accumulated gradients share it: each part
            has its rows of the whole batch's noise, so that the number of parts changes nothing.
        """
        draws = itertools.count()

        def next_key() -> Any:
            high = (self.seed * 1009 + next(draws)) % 2**31
            key = ops.stack([ops.cast(high, 'int32'), ops.cast(step, 'int32')])
            return ops.cast(key, 'uint32') if keras.backend.backend() == 'jax' else key

        with core.noise_keys(next_key, part):
            yield
