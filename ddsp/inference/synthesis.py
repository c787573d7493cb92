"""Running a model on features of any length."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from ddsp import effects, synths
from ddsp.training import decoders

_REVERBS = (effects.Reverb, effects.ExpDecayReverb, effects.FilteredNoiseReverb)
_WINDOW_FRAMES = 10000  # frames that the network sees at once: bounds its memory
_CONTEXT_FRAMES = 1000  # of them before what is kept, so that the recurrent state has settled
_FADE_FRAMES = 50  # over which the controls of two windows are cross-faded
# Lengths to which causal networks' inputs are padded, so that few graphs are traced.
_LENGTHS = (250, 500, 1000, 2000, 5000, _WINDOW_FRAMES)
_FRAMEWISE = ('f0_hz', 'f0_confidence', 'loudness_db', 'pw_db', 'power_db')


class Synthesizer:
    """A model, run on features of any length.

    Args:
      model: An `Autoencoder` with its weights.
      hop_size: Samples of a frame.
    """

    def __init__(self, model: Any, hop_size: int) -> None:
        self.model = model
        self.hop_size = hop_size
        self._network = tf.function(self._run_network)

    @property
    def reverb(self) -> Any:
        """The last reverb of the processor group, or `None`."""
        found = [p for p in self.model.processor_group.processors if isinstance(p, _REVERBS)]
        return found[-1] if found else None

    def __call__(
        self, features: Mapping[str, np.ndarray], seed: int = 0, reverb: bool = True
    ) -> dict[str, np.ndarray]:
        """Synthesises.

        Args:
          features: Frame-wise `[batch, n_frames]`; `audio` `[batch, n_samples]` when the model has an
            encoder.
          seed: Of the noise.
          reverb: With the learned room.

        Returns:
          `audio` `[batch, n_frames * hop]`, and `harmonic` and `noise`, its dry parts, where the model has
          them.
        """
        features = {key: np.asarray(value, np.float32) for key, value in features.items()}
        controls = self.controls(features)
        n_frames = features['f0_hz'].shape[1]
        group = self._sized(n_frames, seed).processor_group
        result = group(controls, return_outputs_dict=True)
        outputs = result['controls']
        audio = self._audio(result, reverb)
        parts = {'audio': audio}
        for name, key in (('harmonic', 'harmonic'), ('noise', 'filtered_noise')):
            if isinstance(outputs.get(key), Mapping):
                parts[name] = outputs[key]['signal']
        return {key: np.asarray(value) for key, value in parts.items()}

    def graph(self, features: Mapping[str, Any], seed: int = 0, reverb: bool = True) -> Any:
        """`__call__` in one piece, on tensors, for use within a graph: audio `[batch, n_frames * hop]`."""
        model = self._sized(features['f0_hz'].shape[1], seed)
        encoded = model.encode(features, training=False)
        encoded.update(model.decoder(encoded, training=False))
        return self._audio(model.processor_group(encoded, return_outputs_dict=True), reverb)

    def _audio(self, result: Mapping[str, Any], reverb: bool) -> Any:
        """The signal of a processor group, or what goes into its reverb."""
        room = self.reverb
        if reverb or room is None:
            return result['signal']
        return result['controls'][room.name]['controls']['audio']

    def controls(self, features: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Inputs of the processors, `[batch, n_frames, channels]`, from features.

        Long features pass through the network in windows that overlap; the overlap is cross-faded.
        """
        n_frames = features['f0_hz'].shape[1]
        if n_frames <= _WINDOW_FRAMES:
            return self._window(features, 0, n_frames)
        whole: dict[str, np.ndarray] = {}
        end = 0
        while end < n_frames:
            start = max(0, end - _CONTEXT_FRAMES)
            stop = min(start + _WINDOW_FRAMES, n_frames)
            part = self._window(features, start, stop)
            if not whole:
                whole = {
                    key: np.zeros((v.shape[0], n_frames, v.shape[2]), np.float32) for key, v in part.items()
                }
                fade = np.ones(0, np.float32)
            else:
                fade = np.linspace(0.0, 1.0, _FADE_FRAMES + 2, dtype=np.float32)[1:-1]
            for key, value in part.items():
                begin = end - len(fade)
                mix = fade[None, :, None]
                whole[key][:, begin:end] *= 1.0 - mix
                whole[key][:, begin:end] += mix * value[:, begin - start : end - start]
                whole[key][:, end:stop] = value[:, end - start :]
            end = stop
        return whole

    def _window(self, features: Mapping[str, np.ndarray], start: int, stop: int) -> dict[str, np.ndarray]:
        """Controls of the frames from `start` to `stop`."""
        length = stop - start
        padded = self._padded_length(length)
        window = {}
        for key, value in features.items():
            if key in _FRAMEWISE:
                part = value[:, start:stop]
                window[key] = np.pad(part, ((0, 0), (0, padded - length)), mode='edge')
            elif key == 'audio':
                part = value[:, start * self.hop_size : stop * self.hop_size]
                window[key] = np.pad(part, ((0, 0), (0, padded * self.hop_size - part.shape[1])))
        controls = self._network({key: tf.constant(value) for key, value in window.items()})
        return {key: value.numpy()[:, :length] for key, value in controls.items()}

    def _run_network(self, features: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        n_frames = features['f0_hz'].shape[1]
        model = self._sized(n_frames)
        encoded = model.encode(features, training=False)
        encoded.update(model.decoder(encoded, training=False))
        return {k: v for k, v in encoded.items() if len(v.shape) == 3 and v.shape[1] == n_frames}

    def _padded_length(self, length: int) -> int:
        causal = self.model.encoder is None and isinstance(self.model.decoder, decoders.RnnFcDecoder)
        if not causal:  # what comes after a frame changes it, also padding
            return length
        return next(n for n in _LENGTHS if n >= length)

    def _sized(self, n_frames: int, seed: int = 0) -> Any:
        """The model for so many frames, with noise that depends on the seed alone; it shares the weights.

        The model itself stays as it is: other threads may be using it for another length.
        """
        model = self.model
        sized: dict[str, Any] = {}
        for i, processor in enumerate(model.processor_group.processors):
            settings: dict[str, Any] = {}
            if type(processor).__module__.startswith(synths.__name__) and hasattr(processor, 'n_samples'):
                settings['n_samples'] = n_frames * self.hop_size
            if isinstance(processor, synths.FilteredNoise):
                settings['seed'] = seed * 1000 + i
            if settings:
                sized[model.processor_group.processor_names[i]] = _view(processor, **settings)
        wanted = {'time_steps': n_frames, 'compute_loudness': False}
        settings = {key: value for key, value in wanted.items() if hasattr(model.preprocessor, key)}
        preprocessor = _view(model.preprocessor, **settings) if settings else model.preprocessor
        return _view(model, preprocessor=preprocessor, processor_group=_view(model.processor_group, **sized))


def _view(layer: Any, **settings: Any) -> Any:
    """A built layer with other settings and the same weights and sublayers.

    `copy.copy` would go through Keras' serialisation and make weights of its own.
    """
    view = object.__new__(type(layer))
    vars(view).update(vars(layer), **settings)
    return view
