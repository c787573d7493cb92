"""Transcription of pitch and amplitude to notes by a hidden Markov model."""

from __future__ import annotations

import math
from typing import Any

import gin
import keras
import numpy as np
from keras import ops

from ddsp import core
from ddsp.core import Tensor
from ddsp.core.utils import constant
from ddsp.errors import ConfigError
from ddsp.losses.base import Loss


@gin.register(module='ddsp.losses')
@keras.saving.register_keras_serializable('ddsp')
class HmmTranscriber(Loss):
    """Likelihood of pitch and amplitude curves under a model of steady notes, and the most likely notes.

    State 0 is silence, states 1 to n_pitches - 1 are MIDI notes, all equally likely at the start. A state
    stays with probability `1 - 1 / avg_length`; any other follows with equal probability. Every frame shows a
    Gaussian pitch around the note (for silence: any pitch) and a Gaussian amplitude. Because all changes of
    state are equally likely, a step costs O(n_pitches) rather than O(n_pitches^2).

    Args:
      avg_length: Mean length of a note, frames.
      midi_std: Standard deviation of pitch within a note, semitones.
      amps_on_center: Mean amplitude in a note.
      amps_on_scale: Its standard deviation.
      amps_off_center: Mean amplitude in silence.
      amps_off_scale: Its standard deviation.
      n_timesteps: Not used; upstream's configurations set it. Any length works.
      n_pitches: Number of states.
      weight: Weight of the loss.
    """

    def __init__(
        self,
        avg_length: float = 200,
        midi_std: float = 0.5,
        amps_on_center: float = 1.5,
        amps_on_scale: float = 0.5,
        amps_off_center: float = 0.0,
        amps_off_scale: float = 0.1,
        n_timesteps: int = 1000,
        n_pitches: int = 128,
        weight: float = 1.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if avg_length <= 1 or n_pitches < 2:
            raise ConfigError(
                f'avg_length is {avg_length} frames and n_pitches is {n_pitches}; '
                'more than 1 frame and at least 2 pitches are needed'
            )
        self.avg_length = avg_length
        self.midi_std = midi_std
        self.amps_on_center = amps_on_center
        self.amps_on_scale = amps_on_scale
        self.amps_off_center = amps_off_center
        self.amps_off_scale = amps_off_scale
        self.n_timesteps = n_timesteps
        self.n_pitches = n_pitches
        self.weight = weight

    def call(self, pitch: Tensor, amps: Tensor) -> Tensor:
        """Scalar loss: `weight * nll(pitch, amps)`."""
        return self.weight * self.nll(pitch, amps)

    def nll(self, pitch: Tensor, amps: Tensor, per_example_loss: bool = False) -> Tensor:
        """Negative log likelihood per frame, by the forward algorithm.

        Args:
          pitch: [batch, n_frames, 1] MIDI notes.
          amps: [batch, n_frames, 1] amplitudes.
          per_example_loss: One value for each example instead of their mean.

        Returns:
          Scalar, or [batch].
        """
        log_emissions = self._log_emissions(pitch, amps)
        log_stay, log_change = self._log_transitions()
        log_extra = math.log(math.exp(log_stay) - math.exp(log_change))  # staying, beyond what any change has

        def step(log_alpha: Tensor, log_emission: Tensor) -> tuple[Tensor, None]:
            from_any = log_change + ops.logsumexp(log_alpha, axis=-1, keepdims=True)
            return ops.logaddexp(log_extra + log_alpha, from_any) + log_emission, None

        log_alpha, _ = ops.scan(step, log_emissions[0] - np.log(self.n_pitches), log_emissions[1:])
        n_frames = ops.cast(ops.shape(log_emissions)[0], 'float32')
        nll = -ops.logsumexp(log_alpha, axis=-1) / n_frames
        return nll if per_example_loss else ops.mean(nll)

    def predict_midi(
        self, pitch: Tensor, amps: Tensor, channel_dim: bool = True, dtype: Any = 'float32'
    ) -> Tensor:
        """The most likely notes, by the Viterbi algorithm.

        Args:
          pitch: [batch, n_frames, 1] MIDI notes.
          amps: [batch, n_frames, 1] amplitudes.
          channel_dim: Keep the last axis.
          dtype: Type of the result.

        Returns:
          [batch, n_frames, 1] or [batch, n_frames] MIDI notes, 0 in silence.
        """
        log_emissions = self._log_emissions(pitch, amps)
        log_stay, log_change = self._log_transitions()
        # keras.ops.scan keeps one dtype throughout
        states = constant(np.arange(self.n_pitches, dtype=np.float32)[None, :])

        def forward(score: Tensor, log_emission: Tensor) -> tuple[Tensor, Tensor]:
            change = log_change + ops.max(score, axis=-1, keepdims=True)
            stay = log_stay + score
            best = ops.cast(ops.argmax(score, axis=-1), 'float32')[:, None]
            return ops.maximum(stay, change) + log_emission, ops.where(stay >= change, states, best)

        score, origins = ops.scan(forward, log_emissions[0], log_emissions[1:])
        last = ops.cast(ops.argmax(score, axis=-1), 'float32')

        def backward(state: Tensor, origin: Tensor) -> tuple[Tensor, Tensor]:
            return ops.take_along_axis(origin, ops.cast(state, 'int32')[:, None], axis=1)[:, 0], state

        first, rest = ops.scan(backward, last, origins, reverse=True)
        notes = ops.transpose(ops.concatenate([first[None], rest], axis=0), (1, 0))
        notes = ops.cast(notes, getattr(dtype, 'name', dtype))
        return notes[..., None] if channel_dim else notes

    @staticmethod
    def straight_through(x: Tensor, x_quant: Tensor) -> Tensor:
        """The value of `x_quant` with the gradient of `x`."""
        return x + ops.stop_gradient(x_quant - x)

    def _log_transitions(self) -> tuple[float, float]:
        """Log probabilities of staying, and of changing to any one other state."""
        change = 1.0 / self.avg_length
        return float(np.log1p(-change)), float(np.log(change / (self.n_pitches - 1)))

    def _log_emissions(self, pitch: Tensor, amps: Tensor) -> Tensor:
        """Log probability of every frame in every state; [n_frames, batch, n_pitches]."""
        n = self.n_pitches
        silent = np.arange(n) == 0
        pitch_mean = np.where(silent, n / 2, np.arange(n))
        pitch_scale = np.where(silent, n, self.midi_std)
        amp_mean = np.where(silent, self.amps_off_center, self.amps_on_center)
        amp_scale = np.where(silent, self.amps_off_scale, self.amps_on_scale)
        pitch, amps = (ops.transpose(core.tf_float32(x), (1, 0, 2)) for x in (pitch, amps))
        return _log_normal(pitch, pitch_mean, pitch_scale) + _log_normal(amps, amp_mean, amp_scale)

    def get_config(self) -> dict[str, Any]:
        """Arguments that make the same loss."""
        names = (
            'avg_length', 'midi_std', 'amps_on_center', 'amps_on_scale', 'amps_off_center', 'amps_off_scale',
            'n_timesteps', 'n_pitches', 'weight',
        )  # fmt: skip
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}


def _log_normal(x: Tensor, mean: np.ndarray, scale: np.ndarray) -> Tensor:
    """Log density of a normal distribution; [..., 1] against [n] gives [..., n]."""
    z = (x - constant(mean.astype(np.float32))) / constant(scale.astype(np.float32))
    return -0.5 * z * z - constant(np.log(scale * np.sqrt(2.0 * np.pi)).astype(np.float32))
