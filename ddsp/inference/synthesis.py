"""Running a model on features of any length."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from ddsp import effects, processors, synths
from ddsp.core import tf_float32
from ddsp.core.kernels.phase import Phase, frame_starts
from ddsp.core.kernels.sinusoids import shifted_half
from ddsp.training import decoders, preprocessing

_REVERBS = (effects.Reverb, effects.ExpDecayReverb, effects.FilteredNoiseReverb)
_OSCILLATORS = (synths.Harmonic, synths.Sinusoidal, synths.Wavetable)
# What can be played in blocks: beside its phase and the noise, it looks back and ahead by a known time.
_LOCAL = (*_OSCILLATORS, synths.FilteredNoise, effects.FIRFilter, processors.Add, processors.Mix)
_WINDOW_FRAMES = 10000  # frames that the network sees at once: bounds its memory
_CONTEXT_FRAMES = 1000  # of them before what is kept, so that the recurrent state has settled
_FADE_FRAMES = 50  # over which the controls of two windows are cross-faded
# Lengths to which causal networks' inputs are padded, so that few graphs are traced.
_LENGTHS = (250, 500, 1000, 2000, 5000, _WINDOW_FRAMES)
_LOOK_FRAMES = 60  # around a block: more than interpolation and time-varying filters look back and ahead
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
          seed: Random seed.
          reverb: Whether to apply the learned room.

        Returns:
          `audio` `[batch, n_frames * hop]`, and `harmonic` and `noise`, its dry parts, where the model has
          them.
        """
        features = {key: np.asarray(value, np.float32) for key, value in features.items()}
        controls = self.controls(features)
        n_frames = features['f0_hz'].shape[1]
        group = self._sized(n_frames, seed).processor_group
        result = group(controls, return_outputs_dict=True)
        return self._parts(result, reverb)

    def _parts(self, result: Mapping[str, Any], reverb: bool) -> dict[str, np.ndarray]:
        """The signal, and its dry parts, of what a processor group gave."""
        outputs = result['controls']
        parts = {'audio': self._audio(result, reverb)}
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

    def stream(
        self,
        features: Mapping[str, np.ndarray],
        seed: int = 0,
        reverb: bool = True,
        audio: Callable[[int, int], np.ndarray] | None = None,
    ) -> Iterator[dict[str, np.ndarray]]:
        """Synthesises one example of any length in blocks, in bounded memory.

        The oscillators go on from their phase, the noise from its sample number, and effects hear as much of
        what was before as their impulse responses last, so that the blocks are what `__call__` gives.

        Args:
          features: Frame-wise `[1, n_frames]`; `audio` `[1, n_samples]` when the model has an encoder and
            the argument `audio` is not given.
          seed: Random seed.
          reverb: Whether to apply the learned room.
          audio: `audio(start, stop)` gives these samples `[n]`; it is called with rising numbers.

        Yields:
          The parts that `__call__` gives, block after block.
        """
        features = {key: np.asarray(value, np.float32) for key, value in features.items()}
        n_frames = features['f0_hz'].shape[1]
        context = self._context_frames()
        kept: dict[str, np.ndarray] = {}  # controls of the frames from `start`
        start = done = end = 0
        phases: dict[str, Phase] = {}
        for piece in self._pieces(features, audio):
            kept = {key: np.concatenate([kept[key], x], axis=1) if kept else x for key, x in piece.items()}
            end = start + next(iter(kept.values())).shape[1]
            ready = n_frames if end == n_frames else end - _LOOK_FRAMES
            if ready <= done or (context is None and end < n_frames):
                continue
            group = self._sized(end - start, seed, start, phases).processor_group
            result = group(kept, return_outputs_dict=True)
            first, last = (done - start) * self.hop_size, (ready - start) * self.hop_size
            yield {key: x[:, first:last] for key, x in self._parts(result, reverb).items()}
            done = ready
            if done == n_frames:
                return
            passed = max(0, done - (context or 0) - start)
            for oscillator in self._oscillators:
                controls = result['controls'][oscillator.name]['controls']
                phases[oscillator.name] = _phase_after(
                    oscillator, controls, passed, self.hop_size, phases.get(oscillator.name)
                )
            kept = {key: x[:, passed:] for key, x in kept.items()}
            start += passed

    @property
    def needs_audio(self) -> bool:
        """Whether the model hears audio, not only pitch and loudness."""
        preprocessor = self.model.preprocessor
        return self.model.encoder is not None or isinstance(preprocessor, preprocessing.F0PowerPreprocessor)

    @property
    def _oscillators(self) -> list[Any]:
        return [p for p in self.model.processor_group.processors if isinstance(p, _OSCILLATORS)]

    def _context_frames(self) -> int | None:
        """Frames before a block that change it; None where that is not known (other effects)."""
        samples = 0
        for processor in self.model.processor_group.processors:
            if isinstance(processor, _REVERBS) and processor.trainable:
                samples += processor.reverb_length
            elif not isinstance(processor, _LOCAL):
                return None
        return _LOOK_FRAMES + -(-samples // self.hop_size)

    def controls(self, features: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Inputs of the processors, `[batch, n_frames, channels]`, from features.

        Long features pass through the network in windows that overlap; the overlap is cross-faded.
        """
        pieces = list(self._pieces(features))
        return {key: np.concatenate([piece[key] for piece in pieces], axis=1) for key in pieces[0]}

    def _pieces(
        self, features: Mapping[str, np.ndarray], audio: Callable[[int, int], np.ndarray] | None = None
    ) -> Iterator[dict[str, np.ndarray]]:
        """`controls`, window after window."""
        n_frames = features['f0_hz'].shape[1]
        mix = np.linspace(0.0, 1.0, _FADE_FRAMES + 2, dtype=np.float32)[1:-1, None]
        held: dict[str, np.ndarray] = {}  # the last frames of the window before
        end = 0
        while end < n_frames:
            start = max(0, end - _CONTEXT_FRAMES)
            stop = min(start + _WINDOW_FRAMES, n_frames)
            part = self._window(features, start, stop, audio)
            new = end - start
            piece = {key: x[:, new:] for key, x in part.items()}
            for key, before in held.items():
                joint = before * (1.0 - mix) + part[key][:, new - _FADE_FRAMES : new] * mix
                piece[key] = np.concatenate([joint, piece[key]], axis=1)
            if stop < n_frames:
                held = {key: x[:, -_FADE_FRAMES:] for key, x in piece.items()}
                piece = {key: x[:, :-_FADE_FRAMES] for key, x in piece.items()}
            yield piece
            end = stop

    def _window(
        self,
        features: Mapping[str, np.ndarray],
        start: int,
        stop: int,
        audio: Callable[[int, int], np.ndarray] | None,
    ) -> dict[str, np.ndarray]:
        """Controls of the frames from `start` to `stop`."""
        length = stop - start
        if audio is not None:
            heard = audio(start * self.hop_size, stop * self.hop_size)[None]
        elif 'audio' in features:
            heard = features['audio'][:, start * self.hop_size : stop * self.hop_size]
        padded = self._padded_length(length)
        window = {
            key: np.pad(value[:, start:stop], ((0, 0), (0, padded - length)), mode='edge')
            for key, value in features.items()
            if key in _FRAMEWISE
        }
        if audio is not None or 'audio' in features:
            window['audio'] = np.pad(heard, ((0, 0), (0, padded * self.hop_size - heard.shape[1])))
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

    def _sized(
        self, n_frames: int, seed: int = 0, start: int = 0, phases: Mapping[str, Phase] | None = None
    ) -> Any:
        """The model for `n_frames` frames from frame `start`; it shares the weights.

        Its noise depends on the seed and the sample's number alone, and its oscillators begin at `phases`.
        The model itself stays as it is: other threads may be using it for another length.
        """
        model = self.model
        sized: dict[str, Any] = {}
        for i, processor in enumerate(model.processor_group.processors):
            settings: dict[str, Any] = {}
            if type(processor).__module__.startswith(synths.__name__) and hasattr(processor, 'n_samples'):
                settings['n_samples'] = n_frames * self.hop_size
            if isinstance(processor, synths.FilteredNoise):
                settings |= {'seed': seed * 1000 + i, 'first_sample': start * self.hop_size}
            if phases and processor.name in phases:
                settings['initial_phase'] = phases[processor.name].radians()
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


def _phase_after(
    oscillator: Any, controls: Mapping[str, Any], n_frames: int, hop: int, before: Phase | None
) -> Phase:
    """Phase of an oscillator `[1, 1, n_sinusoids]` after the first frames of its controls."""
    rate = float(oscillator.sample_rate)
    hz = tf_float32(controls['frequencies' if 'frequencies' in controls else 'f0_hz'])
    if controls.get('harmonic_shifts') is None:
        half = Phase.per_sample(hz / 2.0, rate)
    else:
        half = shifted_half(hz, tf_float32(controls['harmonic_shifts']), rate)
    start = frame_starts(half, hop).map(lambda part: part[:, n_frames : n_frames + 1])
    return start if before is None else before + start
