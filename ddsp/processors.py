"""Processors: from network outputs to controls, from controls to a signal; and groups of them."""

from __future__ import annotations

import inspect
from typing import Any

import gin
import keras
from keras import ops

from ddsp import core, dags
from ddsp.configurable import configurable_layer
from ddsp.core import Tensor
from ddsp.dags import TensorDict
from ddsp.errors import ConfigError


class Processor(keras.layers.Layer):
    """A signal processor: a synthesizer or an effect.

    `processor(*inputs)` is `get_signal(**get_controls(*inputs))`. A subclass defines these two. Arguments
    of its constructor that are kept as attributes of the same name make up its configuration, so that it
    can be cloned and saved.

    Signals and phases are float32, whatever the global dtype policy is.

    Args:
      name: Name of the layer, and of its outputs in a `ProcessorGroup`.
      trainable: Whether its own weights, if it has any, are trained.
    """

    def __init__(self, name: str, trainable: bool = False) -> None:
        super().__init__(name=name, trainable=trainable, dtype='float32', autocast=False)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """`call`, for Python numbers and lists too, which Keras refuses as positional arguments."""
        return super().__call__(
            *(core.tf_float32(a) if isinstance(a, (int, float, list)) else a for a in args), **kwargs
        )

    def build(self, unused_input_shape: Any = None) -> None:
        """Nothing to do: weights are made by the constructor."""
        self.built = True

    def call(self, *args: Any, return_outputs_dict: bool = False, **kwargs: Any) -> Any:
        """Inputs to signal.

        Args:
          *args: Inputs of `get_controls`.
          return_outputs_dict: Return the controls too.
          **kwargs: Inputs of `get_controls` by name. Keras' `training` and `mask` are ignored.

        Returns:
          The signal, or `{'signal': signal, 'controls': controls}`.
        """
        kwargs.pop('training', None)
        kwargs.pop('mask', None)
        controls = self.get_controls(*args, **kwargs)
        signal = self.get_signal(**controls)
        return {'signal': signal, 'controls': controls} if return_outputs_dict else signal

    def get_controls(self, *args: Any, **kwargs: Any) -> TensorDict:
        """Network outputs to physical controls."""
        raise NotImplementedError(f'{type(self).__name__} must define get_controls')

    def get_signal(self, *args: Any, **kwargs: Any) -> Tensor:
        """Controls to a signal."""
        raise NotImplementedError(f'{type(self).__name__} must define get_signal')

    def get_config(self) -> dict:
        """Arguments of the constructor.

        Functions are in the form that Keras saves; parameters that gin binds to them are gin's to save.
        """
        config = {}
        for name in list(inspect.signature(type(self).__init__).parameters)[1:]:
            value = getattr(self, name)
            config[name] = (
                keras.saving.serialize_keras_object(inspect.unwrap(value)) if callable(value) else value
            )
        return config

    @classmethod
    def from_config(cls, config: dict) -> Processor:
        """Makes the processor from `get_config`."""
        return cls(
            **{
                key: keras.saving.deserialize_keras_object(value) if isinstance(value, dict) else value
                for key, value in config.items()
            }
        )


@configurable_layer(module='ddsp.processors')
@keras.saving.register_keras_serializable('ddsp')
class ProcessorGroup(dags.DAGLayer):
    """A DAG of processors, which is used like one processor.

    Args:
      dag: Nodes `(processor, [input keys])`: see `ddsp.dags.DAGLayer`.
      **kwarg_processors: Processors that nodes call by name.

    Example: harmonic and noise, added.

        group = ProcessorGroup(dag=[
            (synths.Harmonic(), ['amps', 'harmonic_distribution', 'f0_hz']),
            (synths.FilteredNoise(), ['noise_magnitudes']),
            (processors.Add(), ['harmonic/signal', 'filtered_noise/signal']),
        ])
        audio = group(features)
    """

    def __init__(self, dag: dags.DAG = gin.REQUIRED, **kwarg_processors: Any) -> None:
        super().__init__(dag, **kwarg_processors)

    @property
    def processor_names(self) -> list[str]:
        """Names of the processors."""
        return self.module_names

    @property
    def processors(self) -> list[Processor]:
        """The processors."""
        return self.modules

    def call(self, inputs: TensorDict, return_outputs_dict: bool = False, **kwargs: Any) -> Any:
        """Inputs to signal.

        Args:
          inputs: Tensors by name.
          return_outputs_dict: Return the outputs of all processors too.
          **kwargs: For all processors.

        Returns:
          The last processor's signal, or `{'signal': signal, 'controls': all outputs}`.
        """
        controls = self.get_controls(inputs, **kwargs)
        signal = self.get_signal(controls)
        return {'signal': signal, 'controls': controls} if return_outputs_dict else signal

    def get_controls(self, inputs: TensorDict, **kwargs: Any) -> TensorDict:
        """Outputs of all processors, nested by name, with the inputs: see `DAGLayer.run_dag`."""
        return self.run_dag(inputs, **kwargs)

    def get_signal(self, outputs: TensorDict) -> Tensor:
        """The last processor's signal, from `get_controls`."""
        return outputs['out']['signal']


@gin.register(module='ddsp.processors')
@keras.saving.register_keras_serializable('ddsp')
class Add(Processor):
    """Sum of two signals."""

    def __init__(self, name: str = 'add') -> None:
        super().__init__(name=name)

    def get_controls(self, signal_one: Tensor, signal_two: Tensor) -> TensorDict:
        """The signals as they are.

        Args:
          signal_one: Any shape.
          signal_two: A shape that broadcasts with it.

        Returns:
          Both by name.
        """
        return {'signal_one': signal_one, 'signal_two': signal_two}

    def get_signal(self, signal_one: Tensor, signal_two: Tensor) -> Tensor:
        """`signal_one + signal_two`."""
        return core.tf_float32(signal_one) + core.tf_float32(signal_two)


@gin.register(module='ddsp.processors')
@keras.saving.register_keras_serializable('ddsp')
class Mix(Processor):
    """Constant-power cross-fade between two signals."""

    def __init__(self, name: str = 'mix') -> None:
        super().__init__(name=name)

    def get_controls(self, signal_one: Tensor, signal_two: Tensor, nn_out_mix_level: Tensor) -> TensorDict:
        """Scales the mix level and resamples it to the signals.

        Args:
          signal_one: [batch, n_samples, channels] or [batch, n_samples].
          signal_two: The same shape.
          nn_out_mix_level: [batch, n_frames, 1], any number; the sigmoid of it is the share of `signal_one`.

        Returns:
          Both signals, and `mix_level` [batch, n_samples, 1], 0 to 1.

        Raises:
          ConfigError: The signals differ in length.
        """
        if signal_one.shape[1] != signal_two.shape[1]:
            raise ConfigError(
                f'signal_one has {signal_one.shape[1]} time steps and signal_two {signal_two.shape[1]}: '
                'they must have the same'
            )
        mix_level = ops.sigmoid(core.tf_float32(nn_out_mix_level))
        mix_level = core.resample(mix_level, core.dim(signal_one, 1))
        return {'signal_one': signal_one, 'signal_two': signal_two, 'mix_level': mix_level}

    def get_signal(self, signal_one: Tensor, signal_two: Tensor, mix_level: Tensor) -> Tensor:
        """`sqrt(m) * signal_one + sqrt(1 - m) * signal_two`: powers that sum to one."""
        signal_one, signal_two = core.tf_float32(signal_one), core.tf_float32(signal_two)
        if len(signal_one.shape) == 2:
            mix_level = mix_level[:, :, 0]
        return core.safe_sqrt(mix_level) * signal_one + core.safe_sqrt(1.0 - mix_level) * signal_two


@gin.register(module='ddsp.processors')
@keras.saving.register_keras_serializable('ddsp')
class Crop(Processor):
    """Removes the padding of centred frames.

    Args:
      frame_size: Samples in a frame; `2 * (frame_size // 2)` samples are cut.
      crop_location: `'front'`, `'center'` (half at either end) or `'back'`.
      name: Name of the layer.
    """

    _LOCATIONS = ('front', 'center', 'back')

    def __init__(self, frame_size: int, crop_location: str = 'back', name: str = 'crop') -> None:
        super().__init__(name=name)
        if crop_location not in self._LOCATIONS:
            raise ConfigError(f'crop_location={crop_location!r} is unknown: use one of {self._LOCATIONS}')
        self.frame_size = frame_size
        self.crop_location = crop_location

    def get_controls(self, audio: Tensor) -> TensorDict:
        """The audio as it is, [batch, n_samples, ...]."""
        return {'audio': audio}

    def get_signal(self, audio: Tensor) -> Tensor:
        """The audio without the padding, [batch, n_samples - 2 * (frame_size // 2), ...]."""
        pad = self.frame_size // 2
        start = {'front': 2 * pad, 'center': pad, 'back': 0}[self.crop_location]
        n_samples = core.dim(audio, 1)
        if isinstance(n_samples, int) and n_samples <= 2 * pad:
            raise ConfigError(f'frame_size={self.frame_size} leaves nothing of {n_samples} samples')
        return audio[:, start : start + n_samples - 2 * pad]
