"""Reverbs: the impulse response is given, learned, or made of decaying or filtered noise."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gin
import keras
import numpy as np
from keras import ops

from ddsp import core
from ddsp.core import Tensor
from ddsp.core.utils import constant
from ddsp.dags import TensorDict
from ddsp.errors import ConfigError
from ddsp.processors import Processor
from ddsp.synths import FilteredNoise


@gin.register(module='ddsp.effects')
@keras.saving.register_keras_serializable('ddsp')
class Reverb(Processor):
    """Convolution with an impulse response.

    Args:
      trainable: Learn one impulse response for all inputs; otherwise it is an input.
      reverb_length: Taps of the learned impulse response.
      add_dry: Add the input to the result.
      name: Name of the layer.

    >>> echo = Reverb()(np.array([[1.0, 0.0, 0.0]]), np.array([[0.0, 0.5]]))
    >>> ops.convert_to_numpy(echo).round(3) + 0.0
    array([[1. , 0.5, 0. ]], dtype=float32)
    """

    def __init__(
        self, trainable: bool = False, reverb_length: int = 48000, add_dry: bool = True, name: str = 'reverb'
    ) -> None:
        super().__init__(name=name, trainable=trainable)
        self.reverb_length = reverb_length
        self.add_dry = add_dry
        self._add_weights()

    def _add_weights(self) -> None:
        if self.trainable:
            self._ir = self._weight('ir', [self.reverb_length], keras.initializers.RandomNormal(0.0, 1e-6))

    def _weight(self, name: str, shape: list[int], initializer: Any) -> Any:
        # Made by the constructor, so that controls can be read and weights loaded before the first call.
        return self.add_weight(name=name, shape=shape, dtype='float32', initializer=initializer)

    def _needed(self, **controls: Tensor | None) -> None:
        for name, value in controls.items():
            if value is None:
                raise ConfigError(
                    f'{name} must be given to {type(self).__name__} {self.name!r}, or trainable=True'
                )

    def get_controls(self, audio: Tensor, ir: Tensor | None = None) -> TensorDict:
        """Audio and impulse response.

        Args:
          audio: [batch, n_samples].
          ir: [batch or 1, n_taps] or [batch or 1, n_taps, 1]; not used when trainable.

        Returns:
          `audio`, and `ir`: [1, n_taps] for the whole batch when it is learned.

        Raises:
          ConfigError: `ir` is missing.
        """
        if self.trainable:
            ir = ops.convert_to_tensor(self._ir)[None, :]
        else:
            self._needed(ir=ir)
        return {'audio': audio, 'ir': ir}

    def get_signal(self, audio: Tensor, ir: Tensor) -> Tensor:
        """Audio with reverb [batch, n_samples].

        The first tap counts as zero, so that the dry signal comes from `add_dry` alone.
        """
        audio, ir = core.tf_float32(audio), core.tf_float32(ir)
        if len(ir.shape) == 3:
            ir = ir[:, :, 0]
        ir = ops.pad(ir[:, 1:], [[0, 0], [1, 0]])
        wet = core.fft_convolve(audio, ir, padding='same', delay_compensation=0)
        return wet + audio if self.add_dry else wet


@gin.register(module='ddsp.effects')
@keras.saving.register_keras_serializable('ddsp')
class ExpDecayReverb(Reverb):
    """Reverb whose impulse response is noise that decays exponentially.

    Args:
      trainable: Learn gain and decay; otherwise they are inputs.
      reverb_length: Taps of the impulse response.
      scale_fn: Makes the gain positive.
      add_dry: Add the input to the result.
      name: Name of the layer.
      seed: Random seed. An int gives the same noise, and so the same room, at every call; None a new one.
    """

    def __init__(
        self,
        trainable: bool = False,
        reverb_length: int = 48000,
        scale_fn: Callable[[Tensor], Tensor] = core.exp_sigmoid,
        add_dry: bool = True,
        name: str = 'exp_decay_reverb',
        seed: int | None = 0,
    ) -> None:
        super().__init__(trainable=trainable, reverb_length=reverb_length, add_dry=add_dry, name=name)
        self.scale_fn = scale_fn
        self.seed = seed

    def _add_weights(self) -> None:
        if self.trainable:
            self._gain = self._weight('gain', [1], keras.initializers.Constant(2.0))
            self._decay = self._weight('decay', [1], keras.initializers.Constant(4.0))

    def _impulse_response(self, gain: Tensor, decay: Tensor) -> Tensor:
        """`scale_fn(gain) exp(-(2 + exp(decay)) t) noise(t)`, t from 0 to 1 over the length."""
        time = constant(np.linspace(0.0, 1.0, self.reverb_length, dtype=np.float32)[None, :])
        noise = core.uniform_noise([1, self.reverb_length], self.seed)
        return self.scale_fn(gain) * ops.exp(-(2.0 + ops.exp(decay)) * time) * noise

    def get_controls(
        self, audio: Tensor, gain: Tensor | None = None, decay: Tensor | None = None
    ) -> TensorDict:
        """Audio and impulse response.

        Args:
          audio: [batch, n_samples].
          gain: [batch, 1], any number; not used when trainable.
          decay: [batch, 1], any number; larger is shorter. Not used when trainable.

        Returns:
          `audio` and `ir` [batch, reverb_length], or [1, reverb_length] when it is learned.

        Raises:
          ConfigError: `gain` or `decay` is missing.
        """
        if self.trainable:
            gain, decay = (
                ops.convert_to_tensor(self._gain)[None, :],
                ops.convert_to_tensor(self._decay)[None, :],
            )
        else:
            self._needed(gain=gain, decay=decay)
        ir = self._impulse_response(core.tf_float32(gain), core.tf_float32(decay))
        return {'audio': audio, 'ir': ir}


@gin.register(module='ddsp.effects')
@keras.saving.register_keras_serializable('ddsp')
class FilteredNoiseReverb(Reverb):
    """Reverb whose impulse response is filtered noise.

    Args:
      trainable: Learn the magnitudes; otherwise they are an input.
      reverb_length: Taps of the impulse response.
      window_size: Taps of the filters that shape it.
      n_frames: Frames of the learned magnitudes.
      n_filter_banks: Bands of the learned magnitudes.
      scale_fn: Makes magnitudes positive.
      initial_bias: Added before `scale_fn`.
      add_dry: Add the input to the result.
      name: Name of the layer.
      seed: Random seed. An int gives the same noise, and so the same room, at every call; None a new one.
    """

    def __init__(
        self,
        trainable: bool = False,
        reverb_length: int = 48000,
        window_size: int = 257,
        n_frames: int = 1000,
        n_filter_banks: int = 16,
        scale_fn: Callable[[Tensor], Tensor] | None = core.exp_sigmoid,
        initial_bias: float = -3.0,
        add_dry: bool = True,
        name: str = 'filtered_noise_reverb',
        seed: int | None = 0,
    ) -> None:
        self.n_frames = n_frames
        self.n_filter_banks = n_filter_banks
        super().__init__(trainable=trainable, reverb_length=reverb_length, add_dry=add_dry, name=name)
        self._synth = FilteredNoise(
            n_samples=reverb_length,
            window_size=window_size,
            scale_fn=scale_fn,
            initial_bias=initial_bias,
            name='ir_synth',
            seed=seed,
        )
        self.window_size = window_size
        self.scale_fn = scale_fn
        self.initial_bias = initial_bias
        self.seed = seed

    def _add_weights(self) -> None:
        if self.trainable:
            shape = [self.n_frames, self.n_filter_banks]
            self._magnitudes = self._weight('magnitudes', shape, keras.initializers.RandomNormal(0.0, 1e-2))

    def get_controls(self, audio: Tensor, magnitudes: Tensor | None = None) -> TensorDict:
        """Audio and impulse response.

        Args:
          audio: [batch, n_samples].
          magnitudes: [batch, n_frames, n_filter_banks], any number; not used when trainable.

        Returns:
          `audio` and `ir` [batch, reverb_length], or [1, reverb_length] when it is learned.

        Raises:
          ConfigError: `magnitudes` is missing.
        """
        if self.trainable:
            magnitudes = ops.convert_to_tensor(self._magnitudes)[None, :, :]
        else:
            self._needed(magnitudes=magnitudes)
        ir = self._synth(magnitudes)
        return {'audio': audio, 'ir': ir}
