"""Pitch by CREPE as a Keras network, and `compute_f0`."""

from __future__ import annotations

import functools
from typing import Any

import gin
import keras
import numpy as np
from keras import ops

from ddsp import core
from ddsp.analysis.sequences import likeliest_path
from ddsp.core import Tensor
from ddsp.core.utils import constant
from ddsp.errors import ConfigError
from ddsp.f0.crepe_bins import CENTS, N_BINS
from ddsp.spectral_ops.frames import frame, pad, to_mono

CREPE_SAMPLE_RATE = 16000  # Hz: the rate that CREPE was trained at
CREPE_FRAME_SIZE = 1024  # samples
CREPE_SIZES = ('tiny', 'small', 'medium', 'large', 'full')


@gin.register(module='ddsp.spectral_ops')
def compute_f0(
    audio: np.ndarray, frame_rate: float, viterbi: bool = True, padding: str = 'center'
) -> tuple[np.ndarray, np.ndarray]:
    """Fundamental frequency of a mono recording at 16 kHz, by the best estimator that is installed.

    `ddsp.f0.estimate_f0` takes any sample rate and the name of an estimator.

    Args:
      audio: [n_samples], 16 kHz.
      frame_rate: Frames per second.
      viterbi: Join the frames by a likely path.
      padding: 'center', 'same' or 'valid'.

    Returns:
      `(f0_hz, f0_confidence)`, [n_frames] float32 each.
    """
    from ddsp.f0 import estimate_f0

    return estimate_f0(
        np.asarray(audio, np.float32), CREPE_SAMPLE_RATE, frame_rate, viterbi=viterbi, padding=padding
    )


@functools.lru_cache(maxsize=2)
def _weights(size: str) -> Any:
    from ddsp.f0.crepe_weights import load_weights  # only where pitch is wanted

    return load_weights(size)


def make_crepe_network(size: str) -> keras.Model:
    """CREPE with its published weights; its layers are named as in the crepe package: 'conv1', 'conv1-BN'...

    Args:
      size: 'tiny', 'small', 'medium', 'large' or 'full'; `ddsp.f0.crepe_weights` says where weights are
        looked for.

    Returns:
      A model from [batch, 1024] normalised frames at 16 kHz to [batch, 360] activations.

    Raises:
      ConfigError: Unknown size.
      WeightsError: The weights are not here.
    """
    if size not in CREPE_SIZES:
        raise ConfigError(f'CREPE has no size {size!r}; it can be ' + ', '.join(map(repr, CREPE_SIZES)))
    weights, layers = _weights(size), keras.layers
    frames = keras.Input((CREPE_FRAME_SIZE,), name='frames')
    x = layers.Reshape((CREPE_FRAME_SIZE, 1), name='input-reshape')(frames)
    values = {'classifier': [weights.classifier, weights.classifier_bias]}
    for i, layer in enumerate(weights.layers, start=1):
        width, _, n_filters = layer.kernel.shape
        stride = 4 if i == 1 else 1
        x = layers.Conv1D(n_filters, width, stride, 'same', activation='relu', name=f'conv{i}')(x)
        x = layers.BatchNormalization(epsilon=1e-3, name=f'conv{i}-BN')(x)
        x = layers.MaxPooling1D(2, name=f'conv{i}-maxpool')(x)
        zeros = np.zeros(n_filters, np.float32)  # scale and shift hold the mean and variance already
        values[f'conv{i}'] = [layer.kernel, layer.bias]
        values[f'conv{i}-BN'] = [layer.scale, layer.shift, zeros, zeros + (1.0 - 1e-3)]
    x = layers.Flatten(name='flatten')(x)
    x = layers.Dense(N_BINS, activation='sigmoid', name='classifier')(x)
    network = keras.Model(frames, x, name=f'crepe_{size}')
    for name, arrays in values.items():
        network.get_layer(name).set_weights(arrays)
    network.trainable = False
    return network


@functools.lru_cache(maxsize=2)
def _network(size: str) -> keras.Model:
    return make_crepe_network(size)


def reset_crepe() -> None:
    """Forgets the weights and networks of CREPE that were loaded, and frees their memory."""
    _weights.cache_clear()
    _network.cache_clear()


class PretrainedCREPE(keras.Model):
    """CREPE as a Keras model: differentiable activations, pitch and confidence.

    Args:
      model_size_or_path: 'tiny', 'small', 'medium', 'large' or 'full' (weights: `ddsp.f0.crepe_weights`), or
        the path of a Keras model from [batch, 1024] frames to [batch, 360] activations.
      hop_size: Distance between frames, samples at 16 kHz.
    """

    def __init__(self, model_size_or_path: str, hop_size: int = 160, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.model_size_or_path = model_size_or_path
        self.hop_size = hop_size
        self.frame_size = CREPE_FRAME_SIZE
        self.sample_rate = CREPE_SAMPLE_RATE
        is_size = model_size_or_path in CREPE_SIZES
        self.core_model = _network(model_size_or_path) if is_size else _load_model(model_size_or_path)

    def call(self, audio: Tensor) -> Tensor:
        """Activations [batch * n_frames, 360] of audio [batch, n_samples], or of frames [n, 1024]."""
        return self.core_model(self.normalize_frames(self.batch_frames(audio)))

    def batch_frames(self, audio: Tensor) -> Tensor:
        """[batch, n_samples] to [batch * n_frames, 1024]; what is framed already passes."""
        audio = core.tf_float32(audio)
        if audio.shape[-1] == self.frame_size and len(audio.shape) > 1:
            return ops.reshape(audio, (-1, self.frame_size))
        frames = frame(to_mono(audio), self.frame_size, self.hop_size)
        return ops.reshape(frames, (-1, self.frame_size))

    def normalize_frames(self, frames: Tensor) -> Tensor:
        """Every frame with mean 0 and standard deviation 1; silence stays zero."""
        frames = frames - ops.mean(frames, axis=-1, keepdims=True)
        variance = ops.mean(frames * frames, axis=-1, keepdims=True)
        return frames * ops.rsqrt(ops.maximum(variance, 1e-16))

    def predict_f0_and_confidence(
        self, audio: Tensor, viterbi: bool = False, padding: str = 'center'
    ) -> tuple[Tensor, Tensor]:
        """Pitch and confidence.

        Args:
          audio: [batch, n_samples] or [n_samples], 16 kHz.
          viterbi: Join the frames by a likely path.
          padding: 'center', 'same' or 'valid'.

        Returns:
          `(f0_hz, confidence)`, [batch, n_frames] each.
        """
        audio = to_mono(audio)
        audio = audio[None] if len(audio.shape) == 1 else audio
        batch = ops.shape(audio)[0]
        padded = pad(audio, self.frame_size, self.hop_size, padding)
        frames = frame(padded, self.frame_size, self.hop_size)
        activations = self(ops.reshape(frames, (-1, self.frame_size)))
        centers = None
        if viterbi:
            centers = ops.reshape(self.viterbi_decode(ops.reshape(activations, (batch, -1, N_BINS))), (-1,))
        f0_hz, confidence = self.activations_to_f0_and_confidence(activations, centers)
        return ops.reshape(f0_hz, (batch, -1)), ops.reshape(confidence, (batch, -1))

    @classmethod
    def activations_to_f0_and_confidence(
        cls, activations: Tensor, centers: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Pitch around the strongest bin.

        The pitch is the mean of nine bins' pitch (four to either side of the centre, as far as there are
        any), weighted by activation, as `ddsp.f0` and the package crepe have it.

        Args:
          activations: [n_frames, 360].
          centers: [n_frames] bins to look around; none: those of the greatest activation.

        Returns:
          `(f0_hz [n_frames], confidence [n_frames, 1])`.
        """
        activations = core.tf_float32(activations)
        confidence = ops.max(activations, axis=-1, keepdims=True)
        centers = ops.argmax(activations, axis=-1) if centers is None else centers
        window = ops.cast(centers, 'int32')[:, None] + constant(np.arange(-4, 5, dtype='int32'))
        inside = ops.cast((window >= 0) & (window < N_BINS), 'float32')
        window = ops.clip(window, 0, N_BINS - 1)
        weights = ops.take_along_axis(activations, window, axis=1) * inside
        cents = ops.take(core.tf_float32(CENTS), window)
        mean = core.safe_divide(ops.sum(weights * cents, axis=1), ops.sum(weights, axis=1))
        return 10.0 * ops.power(2.0, mean / 1200.0), confidence

    @staticmethod
    def create_hmm() -> tuple[np.ndarray, np.ndarray]:
        """Hidden Markov model of pitch over 360 bins, all equally likely at the start.

        Returns:
          `(transition [360, 360], emission [360, 360])`: probabilities, each row summing to 1. A step moves
          by less than 12 bins (240 cents); a bin shows itself with 0.1 and any other evenly.
        """
        bins = np.arange(N_BINS)
        transition = np.maximum(12.0 - np.abs(bins[:, None] - bins[None, :]), 1e-5)
        emission = 0.1 * np.eye(N_BINS) + 0.9 / N_BINS
        return transition / transition.sum(1, keepdims=True), emission

    def viterbi_decode(self, acts: Tensor) -> np.ndarray:
        """The most likely path of bins.

        Args:
          acts: [batch, n_frames, 360] activations.

        Returns:
          [batch, n_frames] int32.
        """
        transition, emission = self.create_hmm()
        log_transition = np.log(transition)
        log_emission = ops.convert_to_numpy(acts) @ np.log(emission)

        def step(i: int, score: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            moves = score[:, :, None] + log_transition
            return moves.max(1) + log_emission[:, i], moves.argmax(1)

        return likeliest_path(log_emission[:, 0], step, log_emission.shape[1]).astype(np.int32)

    def get_config(self) -> dict[str, Any]:
        """Arguments that make the same model."""
        return {
            **super().get_config(),
            'model_size_or_path': self.model_size_or_path,
            'hop_size': self.hop_size,
        }


def _load_model(path: str) -> keras.Model:
    try:
        return keras.saving.load_model(path, compile=False)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f'model_size_or_path is {path!r}: neither a size ({", ".join(CREPE_SIZES)}) nor the path of '
            f'a Keras model: {error}'
        ) from error
