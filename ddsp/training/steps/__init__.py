"""The training step of each Keras backend: `tensorflow` by `tf.distribute`, `jax` by `shard_map`.

`Trainer` is the same on both. A `Step` is what differs: how weights are made, and how a step is compiled and
run.
"""

from __future__ import annotations

import keras

from ddsp.errors import ConfigError
from ddsp.training.steps.base import Step


def step_class() -> type[Step]:
    """The step for the Keras backend.

    Raises:
      ConfigError: The backend is neither TensorFlow nor JAX.
    """
    backend = keras.backend.backend()
    if backend == 'tensorflow':
        from ddsp.training.steps.tensorflow import TensorFlowStep

        return TensorFlowStep
    if backend == 'jax':
        from ddsp.training.steps.jax import JaxStep

        return JaxStep
    raise ConfigError(f'KERAS_BACKEND={backend} does not train; use tensorflow or jax')
