"""Noise."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from ddsp.core.utils import Tensor


def uniform_noise(shape: Sequence[Any], seed: Any = None) -> Tensor:
    """White noise, uniform in [-1, 1).

    Args:
      shape: Shape; sizes may be scalar tensors.
      seed: An int gives the same noise at every call; None gives new noise at each (reproducible by
        `keras.utils.set_random_seed`); a `keras.random.SeedGenerator` gives its next noise.

    Returns:
      float32 tensor.
    """
    if keras.backend.backend() == 'tensorflow':
        import tensorflow as tf

        if seed is None:
            # The stateful operation needs no variable, so it works in any graph, replica or compiled
            # function.
            return tf.random.uniform(shape, -1.0, 1.0)
        # By name, because the default algorithm is another one in a compiled function.
        key = [seed, 0] if isinstance(seed, int) else seed.next()
        return tf.random.stateless_uniform(shape, key, -1.0, 1.0, alg='philox')
    return keras.random.uniform(shape, -1.0, 1.0, dtype='float32', seed=seed)
