"""Filters and delays."""

from __future__ import annotations

from collections.abc import Callable

import gin
import keras

from ddsp import core
from ddsp.core import Tensor
from ddsp.dags import TensorDict
from ddsp.processors import Processor


@gin.register(module='ddsp.effects')
@keras.saving.register_keras_serializable('ddsp')
class FIRFilter(Processor):
    """Linear-phase filter whose frequency response changes with time.

    Args:
      window_size: Taps of the filters; 0 keeps them all, which delays the audio by 2 samples.
      scale_fn: Makes magnitudes positive; None takes them as they are.
      name: Name of the layer.
    """

    def __init__(
        self,
        window_size: int = 257,
        scale_fn: Callable[[Tensor], Tensor] | None = core.exp_sigmoid,
        name: str = 'fir_filter',
    ) -> None:
        super().__init__(name=name)
        self.window_size = window_size
        self.scale_fn = scale_fn

    def get_controls(self, audio: Tensor, magnitudes: Tensor) -> TensorDict:
        """Network outputs to controls.

        Args:
          audio: [batch, n_samples].
          magnitudes: [batch, n_frames, n_bands], any number.

        Returns:
          `audio`, and `magnitudes`: linear gain of bands spaced equally from 0 Hz to Nyquist.
        """
        magnitudes = core.tf_float32(magnitudes)
        if self.scale_fn is not None:
            magnitudes = self.scale_fn(magnitudes)
        return {'audio': audio, 'magnitudes': magnitudes}

    def get_signal(self, audio: Tensor, magnitudes: Tensor) -> Tensor:
        """Filtered audio [batch, n_samples]."""
        return core.frequency_filter(audio, magnitudes, window_size=self.window_size)


@gin.register(module='ddsp.effects')
@keras.saving.register_keras_serializable('ddsp')
class ModDelay(Processor):
    """Modulated delay: chorus, flanger, vibrato.

    Args:
      center_ms: Shortest delay, milliseconds.
      depth_ms: How far the modulation adds to it: the delay runs from `center_ms` to `center_ms + depth_ms`.
      sample_rate: Sample rate in Hz.
      gain_scale_fn: Makes the gain positive; None takes it as it is.
      phase_scale_fn: Makes the phase 0 to 1; None takes it as it is.
      add_dry: Add the input to the result.
      name: Name of the layer.
    """

    def __init__(
        self,
        center_ms: float = 15.0,
        depth_ms: float = 10.0,
        sample_rate: int = 16000,
        gain_scale_fn: Callable[[Tensor], Tensor] | None = core.exp_sigmoid,
        phase_scale_fn: Callable[[Tensor], Tensor] | None = keras.activations.sigmoid,
        add_dry: bool = True,
        name: str = 'mod_delay',
    ) -> None:
        super().__init__(name=name)
        self.center_ms = center_ms
        self.depth_ms = depth_ms
        self.sample_rate = sample_rate
        self.gain_scale_fn = gain_scale_fn
        self.phase_scale_fn = phase_scale_fn
        self.add_dry = add_dry

    def get_controls(self, audio: Tensor, gain: Tensor, phase: Tensor) -> TensorDict:
        """Network outputs to controls.

        Args:
          audio: [batch, n_samples].
          gain: Gain of the delayed signal, [batch, n_samples, 1], any number.
          phase: Position in the delay's range, [batch, n_samples, 1], any number.

        Returns:
          `audio`, `gain` and `phase`, scaled.
        """
        gain, phase = core.tf_float32(gain), core.tf_float32(phase)
        if self.gain_scale_fn is not None:
            gain = self.gain_scale_fn(gain)
        if self.phase_scale_fn is not None:
            phase = self.phase_scale_fn(phase)
        return {'audio': audio, 'gain': gain, 'phase': phase}

    def get_signal(self, audio: Tensor, gain: Tensor, phase: Tensor) -> Tensor:
        """Audio with delay [batch, n_samples]."""
        audio = core.tf_float32(audio)
        max_ms = self.center_ms + self.depth_ms
        max_length = int(self.sample_rate / 1000.0 * max_ms)
        phase = phase * (self.depth_ms / max_ms) + self.center_ms / max_ms
        wet = gain[:, :, 0] * core.variable_length_delay(phase, audio, max_length)
        return wet + audio if self.add_dry else wet
