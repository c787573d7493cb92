"""Filtered noise."""

from __future__ import annotations

from collections.abc import Callable

import gin
import keras

from ddsp import core
from ddsp.core import Tensor
from ddsp.dags import TensorDict
from ddsp.processors import Processor


@gin.register(module='ddsp.synths')
@keras.saving.register_keras_serializable('ddsp')
class FilteredNoise(Processor):
    """White noise through a filter whose frequency response changes with time.

    Args:
      n_samples: Samples of the result.
      window_size: Taps of the filters; 0 keeps them all, which delays the noise by 2 samples.
      scale_fn: Makes magnitudes positive; None takes them as they are.
      initial_bias: Added before `scale_fn`, so that an untrained network starts quietly.
      name: Name of the layer.
      seed: Random seed. An int gives the same noise at every call; None gives new noise at each call.

    >>> import numpy as np
    >>> tuple(FilteredNoise(n_samples=640)(np.zeros([1, 10, 65])).shape)
    (1, 640)
    """

    first_sample = 0  # where this is a part of a longer piece: see `ddsp.core.uniform_noise`

    def __init__(
        self,
        n_samples: int = 64000,
        window_size: int = 257,
        scale_fn: Callable[[Tensor], Tensor] | None = core.exp_sigmoid,
        initial_bias: float = -5.0,
        name: str = 'filtered_noise',
        seed: int | None = None,
    ) -> None:
        super().__init__(name=name)
        self.n_samples = n_samples
        self.window_size = window_size
        self.scale_fn = scale_fn
        self.initial_bias = initial_bias
        self.seed = seed

    def get_controls(self, magnitudes: Tensor) -> TensorDict:
        """Network outputs to controls.

        Args:
          magnitudes: [batch, n_frames, n_bands], any number.

        Returns:
          `magnitudes`, linear gain of bands spaced equally from 0 Hz to Nyquist.
        """
        magnitudes = core.tf_float32(magnitudes)
        if self.scale_fn is not None:
            magnitudes = self.scale_fn(magnitudes + self.initial_bias)
        return {'magnitudes': magnitudes}

    def get_signal(self, magnitudes: Tensor) -> Tensor:
        """Controls to audio [batch, n_samples]."""
        noise = core.uniform_noise((core.dim(magnitudes, 0), self.n_samples), self.seed, self.first_sample)
        return core.frequency_filter(noise, magnitudes, window_size=self.window_size)
