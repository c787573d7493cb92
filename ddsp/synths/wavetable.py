"""Synthesizers that play samples."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import gin
import keras

from ddsp import core
from ddsp.core import Tensor
from ddsp.dags import TensorDict
from ddsp.processors import Processor

# Scaling functions that treat each element by itself.
_ELEMENTWISE = (
    core.exp_sigmoid,
    core.sym_exp_sigmoid,
    keras.activations.sigmoid,
    keras.activations.softplus,
    keras.activations.relu,
    keras.activations.tanh,
    keras.activations.linear,
)


@gin.register(module='ddsp.synths')
@keras.saving.register_keras_serializable('ddsp')
class TensorToAudio(Processor):
    """Takes a network's output as audio."""

    def __init__(self, name: str = 'tensor_to_audio') -> None:
        super().__init__(name=name)

    def get_controls(self, samples: Tensor) -> TensorDict:
        """The samples as they are, [batch, n_samples, 1]."""
        return {'samples': samples}

    def get_signal(self, samples: Tensor) -> Tensor:
        """Audio [batch, n_samples]."""
        return core.tf_float32(samples)[:, :, 0]


@gin.register(module='ddsp.synths')
@keras.saving.register_keras_serializable('ddsp')
class Wavetable(Processor):
    """Plays wavetables that change with time.

    Args:
      n_samples: Samples of the result.
      sample_rate: Sample rate in Hz.
      scale_fn: Scales amplitudes and tables; None takes them as they are.
      name: Name of the layer.
    """

    initial_phase: Any = None  # [batch, 1, 1], radians, where this is a part of a longer piece

    def __init__(
        self,
        n_samples: int = 64000,
        sample_rate: int = 16000,
        scale_fn: Callable[[Tensor], Tensor] | None = core.exp_sigmoid,
        name: str = 'wavetable',
    ) -> None:
        super().__init__(name=name)
        self.n_samples = n_samples
        self.sample_rate = sample_rate
        self.scale_fn = scale_fn

    def call(self, *args: Any, return_outputs_dict: bool = False, **kwargs: Any) -> Any:
        """As in `Processor`; an element-wise `scale_fn` is applied only to what is read of the tables."""
        elementwise = self.scale_fn is not None and inspect.unwrap(self.scale_fn) in _ELEMENTWISE
        if return_outputs_dict or not elementwise:
            return super().call(*args, return_outputs_dict=return_outputs_dict, **kwargs)
        return self._play_unscaled(
            *args, **{k: v for k, v in kwargs.items() if k not in ('training', 'mask')}
        )

    def _play_unscaled(self, amplitudes: Tensor, wavetables: Tensor, f0_hz: Tensor) -> Tensor:
        amplitudes = self.scale_fn(core.tf_float32(amplitudes))
        return self._play(amplitudes, wavetables, f0_hz, self.scale_fn)

    def _play(
        self,
        amplitudes: Tensor,
        wavetables: Tensor,
        f0_hz: Tensor,
        scale_fn: Callable[[Tensor], Tensor] | None = None,
    ) -> Tensor:
        return core.wavetable_synthesis(
            f0_hz, amplitudes, wavetables, self.n_samples, self.sample_rate, scale_fn, self.initial_phase
        )

    def get_controls(self, amplitudes: Tensor, wavetables: Tensor, f0_hz: Tensor) -> TensorDict:
        """Network outputs to controls.

        Args:
          amplitudes: [batch, n_frames, 1], any number.
          wavetables: [batch, n_frames, n_wavetable] (or [batch, n_wavetable]), any number.
          f0_hz: [batch, n_frames, 1], Hz.

        Returns:
          The controls by name.
        """
        amplitudes, wavetables = core.tf_float32(amplitudes), core.tf_float32(wavetables)
        if self.scale_fn is not None:
            amplitudes, wavetables = self.scale_fn(amplitudes), self.scale_fn(wavetables)
        return {'amplitudes': amplitudes, 'wavetables': wavetables, 'f0_hz': core.tf_float32(f0_hz)}

    def get_signal(self, amplitudes: Tensor, wavetables: Tensor, f0_hz: Tensor) -> Tensor:
        """Controls to audio [batch, n_samples]."""
        return self._play(amplitudes, wavetables, f0_hz)
