"""Losses on synthesizer parameters."""

from __future__ import annotations

from typing import Any

import gin
import keras
import numpy as np
from keras import ops

from ddsp import core
from ddsp.core import Tensor
from ddsp.losses.base import Loss, check_loss_type, mean_difference


def amp_loss(
    amp: Tensor,
    amp_target: Tensor,
    loss_type: str = 'L1',
    weights: Tensor | None = None,
    log: bool = False,
    amin: float = 1e-5,
) -> Tensor:
    """Mean difference of amplitudes, linear or in decades.

    Args:
      amp: Amplitudes.
      amp_target: Amplitudes of the same shape.
      loss_type: 'L1', 'L2' or 'COSINE'.
      weights: Weights that broadcast with the amplitudes.
      log: Compare `log10(max(amp, amin))` instead of the amplitudes.
      amin: Floor of the logarithm.

    Returns:
      Scalar.
    """
    amp, amp_target = core.tf_float32(amp), core.tf_float32(amp_target)
    if log:
        amp, amp_target = (ops.log(ops.maximum(a, amin)) / np.log(10.0) for a in (amp, amp_target))
    return mean_difference(amp, amp_target, loss_type, weights)


def freq_loss(
    f_hz: Tensor, f_hz_target: Tensor, loss_type: str = 'L1', weights: Tensor | None = None
) -> Tensor:
    """Mean difference of frequencies in MIDI notes (semitones).

    Args:
      f_hz: Frequencies, Hz.
      f_hz_target: Frequencies of the same shape, Hz.
      loss_type: 'L1', 'L2' or 'COSINE'.
      weights: Weights that broadcast with the frequencies.

    Returns:
      Scalar.
    """
    return mean_difference(core.hz_to_midi(f_hz), core.hz_to_midi(f_hz_target), loss_type, weights)


@gin.register(module='ddsp.losses')
@keras.saving.register_keras_serializable('ddsp')
class ParamLoss(Loss):
    """Weighted mean difference of two tensors of parameters.

    Args:
      weight: Weight of the loss.
      loss_type: 'L1', 'L2' or 'COSINE'.
    """

    def __init__(self, weight: float = 1.0, loss_type: str = 'L1', **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.weight = weight
        self.loss_type = check_loss_type(loss_type)

    def call(self, pred: Tensor, target: Tensor, weights: Tensor | None = None) -> Tensor:
        """Scalar loss of `pred` against `target`; `weights` broadcast with both."""
        return self.weight * mean_difference(pred, target, self.loss_type, weights)

    def get_config(self) -> dict[str, Any]:
        """Arguments that make the same loss."""
        return {**super().get_config(), 'weight': self.weight, 'loss_type': self.loss_type}


@gin.register(module='ddsp.losses')
@keras.saving.register_keras_serializable('ddsp')
class FilteredNoiseConsistencyLoss(Loss):
    """Mean absolute difference of noise magnitudes.

    Args:
      weight: Weight of the loss.
    """

    def __init__(self, weight: float = 1.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.weight = weight

    def call(self, noise_magnitudes: Tensor, noise_magnitudes_target: Tensor) -> Tensor:
        """Scalar loss of [batch, n_frames, n_bands] magnitudes against the target's."""
        return self.weight * amp_loss(noise_magnitudes, noise_magnitudes_target)

    def get_config(self) -> dict[str, Any]:
        """Arguments that make the same loss."""
        return {**super().get_config(), 'weight': self.weight}


@gin.register(module='ddsp.losses')
@keras.saving.register_keras_serializable('ddsp')
class HarmonicConsistencyLoss(Loss):
    """Difference of the controls of two harmonic synthesizers.

    Amplitudes count everywhere; the distribution and the frequency count only in frames whose target sounds.

    Args:
      amp_weight: Weight of the amplitudes.
      dist_weight: Weight of the harmonic distribution.
      f0_weight: Weight of the fundamental, per semitone.
      amp_threshold: Frames with a target amplitude below it are silent.
    """

    def __init__(
        self,
        amp_weight: float = 1.0,
        dist_weight: float = 1.0,
        f0_weight: float = 1.0,
        amp_threshold: float = 1e-4,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.amp_weight = amp_weight
        self.dist_weight = dist_weight
        self.f0_weight = f0_weight
        self.amp_threshold = amp_threshold

    def call(
        self,
        harm_amp: Tensor,
        harm_amp_target: Tensor,
        harm_dist: Tensor,
        harm_dist_target: Tensor,
        f0_hz: Tensor,
        f0_hz_target: Tensor,
    ) -> dict[str, Tensor]:
        """Losses by part.

        Args:
          harm_amp: [batch, n_frames, 1] amplitudes.
          harm_amp_target: The same shape.
          harm_dist: [batch, n_frames, n_harmonics] shares of the amplitude.
          harm_dist_target: The same shape.
          f0_hz: [batch, n_frames, 1] fundamental, Hz.
          f0_hz_target: The same shape.

        Returns:
          Scalars 'harm_amp_loss', 'harm_dist_loss', 'f0_hz_loss'.
        """
        sounding = core.tf_float32(core.tf_float32(harm_amp_target) >= self.amp_threshold)
        return {
            'harm_amp_loss': self.amp_weight * amp_loss(harm_amp, harm_amp_target),
            'harm_dist_loss': self.dist_weight * amp_loss(harm_dist, harm_dist_target, weights=sounding),
            'f0_hz_loss': self.f0_weight * freq_loss(f0_hz, f0_hz_target, weights=sounding),
        }

    def get_losses_dict(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """The same as calling the loss: its parts are losses by themselves."""
        return self(*args, **kwargs)

    def get_config(self) -> dict[str, Any]:
        """Arguments that make the same loss."""
        names = ('amp_weight', 'dist_weight', 'f0_weight', 'amp_threshold')
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}
