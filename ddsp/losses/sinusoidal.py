"""Losses on sets of sinusoids whose order does not matter."""

from __future__ import annotations

import dataclasses
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


def _shares(weights: Tensor) -> Tensor:
    """Weights divided by their sum over the last axis; all zeros stay zeros."""
    weights = core.tf_float32(weights)
    return core.safe_divide(weights, ops.sum(weights, axis=-1, keepdims=True))


def wasserstein_distance(
    u_values: Tensor,
    v_values: Tensor,
    u_weights: Tensor | None = None,
    v_weights: Tensor | None = None,
    p: float = 1.0,
) -> Tensor:
    """Distance of two weighted sets of points on a line, whose cumulative distributions are U and V.

    `(integral |U(x) - V(x)|^p dx)^(1/p)`; p=1 is the earth mover's distance
    (`scipy.stats.wasserstein_distance`), p=2 is `scipy.stats.energy_distance` divided by the square root of
    2.

    Args:
      u_values: [..., n] positions.
      v_values: [..., m] positions.
      u_weights: [..., n], at least 0; their sum does not matter. None: all the same.
      v_weights: [..., m], likewise.
      p: Order, at least 1.

    Returns:
      [...], in the unit of the positions for p=1.

    Raises:
      ConfigError: p is below 1.
    """
    if p < 1:
        raise ConfigError(f'p is {p}; the order of a distance is at least 1')
    u_values, v_values = core.tf_float32(u_values), core.tf_float32(v_values)
    u_weights = ops.ones_like(u_values) if u_weights is None else u_weights
    v_weights = ops.ones_like(v_values) if v_weights is None else v_weights
    values = ops.concatenate([u_values, v_values], axis=-1)
    steps = ops.concatenate([_shares(u_weights), -_shares(v_weights)], axis=-1)
    order = ops.argsort(values, axis=-1)
    values = ops.take_along_axis(values, order, axis=-1)
    # U - V is constant between neighbouring points: it steps up by each u weight and down by each v weight.
    difference = ops.abs(ops.cumsum(ops.take_along_axis(steps, order, axis=-1), axis=-1)[..., :-1])
    if p == 1:
        return ops.sum(difference * core.diff(values), axis=-1)
    total = ops.sum(difference**p * core.diff(values), axis=-1)
    equal = total <= 0.0  # where the root has no finite gradient
    return ops.where(equal, 0.0, ops.where(equal, 1.0, total) ** (1.0 / p))


@gin.register(module='ddsp.losses')
@keras.saving.register_keras_serializable('ddsp')
class WassersteinConsistencyLoss(Loss):
    """Wasserstein-1 distance of two sets of sinusoids: how far amplitude must move along frequency.

    Args:
      weight: Weight of the loss.
      midi: Measure distance in semitones; otherwise in Hz.
    """

    def __init__(self, weight: float = 1.0, midi: bool = True, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.weight = weight
        self.midi = midi

    def call(self, amps_a: Tensor, freqs_a: Tensor, amps_b: Tensor, freqs_b: Tensor) -> Tensor:
        """Scalar loss of two sets of sinusoids.

        Args:
          amps_a: [batch, n_frames, n_sinusoids_a] amplitudes; only their proportions count.
          freqs_a: The same shape, Hz.
          amps_b: [batch, n_frames, n_sinusoids_b] amplitudes.
          freqs_b: The same shape, Hz.

        Returns:
          Mean over batch and frames.
        """
        if self.midi:
            freqs_a, freqs_b = core.hz_to_midi(freqs_a), core.hz_to_midi(freqs_b)
        return ops.mean(self.weight * wasserstein_distance(freqs_a, freqs_b, amps_a, amps_b))

    def get_config(self) -> dict[str, Any]:
        """Arguments that make the same loss."""
        return {**super().get_config(), 'weight': self.weight, 'midi': self.midi}


@dataclasses.dataclass(frozen=True)
class GaussianMixture:
    """A mixture of Gaussians on a line.

    Attributes:
      means: [..., n_components].
      shares: [..., n_components], each at least 0, with sum 1.
      scale: Standard deviation of every component.
    """

    means: Tensor
    shares: Tensor
    scale: float

    def log_prob(self, x: Tensor) -> Tensor:
        """Logarithm of the density at [..., n] points; [..., n]."""
        distance = (core.tf_float32(x)[..., :, None] - self.means[..., None, :]) / self.scale
        shares = ops.maximum(self.shares, 1e-37)  # the logarithm of 0 would be -inf, its gradient NaN
        log_shares = ops.log(shares)[..., None, :]
        exponents = log_shares - 0.5 * distance * distance
        return ops.logsumexp(exponents, axis=-1) - np.log(self.scale * np.sqrt(2.0 * np.pi))


def _sinusoid_mixture(amps: Tensor, freqs: Tensor, scale: float) -> GaussianMixture:
    """Density of amplitude along MIDI pitch. Silent sinusoids count as 1e-7, so that no frame is empty."""
    amps = core.tf_float32(amps)
    amps = ops.where(amps == 0.0, 1e-7, amps)
    return GaussianMixture(core.hz_to_midi(freqs), amps / ops.sum(amps, axis=-1, keepdims=True), scale)


@gin.register(module='ddsp.losses')
@keras.saving.register_keras_serializable('ddsp')
class KDEConsistencyLoss(Loss):
    """Likelihood of each of two sets of sinusoids under a density made of the other.

    The density is a mixture of Gaussians in MIDI pitch, weighted by amplitude (Engel et al., ICML 2020
    workshop on self-supervision in audio and speech).

    Args:
      weight_a: Weight of the likelihood of a under b.
      weight_b: Weight of the likelihood of b under a.
      weight_mean_amp: Weight of the difference of mean amplitude, which the densities do not see.
      scale_a: Width of the Gaussians around a, semitones.
      scale_b: Width of the Gaussians around b, semitones.
    """

    def __init__(
        self,
        weight_a: float = 1.0,
        weight_b: float = 1.0,
        weight_mean_amp: float = 1.0,
        scale_a: float = 0.1,
        scale_b: float = 0.1,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.weight_a = weight_a
        self.weight_b = weight_b
        self.weight_mean_amp = weight_mean_amp
        self.scale_a = scale_a
        self.scale_b = scale_b

    def call(self, amps_a: Tensor, freqs_a: Tensor, amps_b: Tensor, freqs_b: Tensor) -> Tensor:
        """Scalar loss of two sets of sinusoids.

        Args:
          amps_a: [batch, n_frames, n_sinusoids_a] amplitudes.
          freqs_a: The same shape, Hz.
          amps_b: [batch, n_frames, n_sinusoids_b] amplitudes.
          freqs_b: The same shape, Hz.

        Returns:
          Mean over batch and frames.
        """
        loss = 0.0
        if self.weight_a:
            loss += self.weight_a * ops.mean(self.nll(amps_a, freqs_a, amps_b, freqs_b, self.scale_b))
        if self.weight_b:
            loss += self.weight_b * ops.mean(self.nll(amps_b, freqs_b, amps_a, freqs_a, self.scale_a))
        if self.weight_mean_amp:
            mean_a, mean_b = (ops.mean(core.tf_float32(amps), axis=-1) for amps in (amps_a, amps_b))
            loss += self.weight_mean_amp * ops.mean(ops.abs(mean_a - mean_b))
        return core.tf_float32(loss)

    def nll(
        self, amps: Tensor, freqs: Tensor, amps_target: Tensor, freqs_target: Tensor, scale_target: float
    ) -> Tensor:
        """Negative log likelihood of sinusoids, weighted by their share of the amplitude.

        Returns:
          [batch, n_frames]: `mean_k(share_k (-log p(midi_k)))`.
        """
        mixture = self.kernel_density_estimate(amps_target, freqs_target, scale_target)
        return ops.mean(-mixture.log_prob(core.hz_to_midi(freqs)) * _shares(amps), axis=-1)

    def kernel_density_estimate(self, amps: Tensor, freqs: Tensor, scale: float) -> GaussianMixture:
        """Density of amplitude along MIDI pitch, frame by frame."""
        return _sinusoid_mixture(amps, freqs, scale)

    def get_config(self) -> dict[str, Any]:
        """Arguments that make the same loss."""
        names = ('weight_a', 'weight_b', 'weight_mean_amp', 'scale_a', 'scale_b')
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}


@gin.register(module='ddsp.losses')
@keras.saving.register_keras_serializable('ddsp')
class TWMLoss(Loss):
    """Two-way mismatch: how badly sinusoids fit the harmonics of candidate fundamentals, and the reverse.

    After Maher and Beauchamp (JASA 95, 1994), with likelihoods in place of distances. For each candidate:
    how unlikely the ratios `f_k / f0` are under narrow Gaussians at 1, 2, 3..., and how unlikely the first
    harmonics of the candidate are under the density of the sinusoids. The loss is a soft minimum over the
    candidates.

    Args:
      sinusoids_weight: Weight of the sinusoids' fit to the harmonics.
      harmonics_weight: Weight of the harmonics' fit to the sinusoids.
      sinusoids_scale: Width of the Gaussians around sinusoids, semitones.
      harmonics_scale: Width of the Gaussians around harmonics, multiples of f0.
      n_harmonic_points: Number of harmonics of a candidate that are looked for.
      n_harmonic_gaussians: Number of harmonics of a candidate that sinusoids may lie on.
      softmin_temperature: Lower is nearer to the minimum.
      sample_rate: Sample rate in Hz; harmonics above half of it are not looked for.
    """

    def __init__(
        self,
        sinusoids_weight: float = 1.0,
        harmonics_weight: float = 1.0,
        sinusoids_scale: float = 0.5,
        harmonics_scale: float = 0.2,
        n_harmonic_points: int = 10,
        n_harmonic_gaussians: int = 30,
        softmin_temperature: float = 1.0,
        sample_rate: float = 16000,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.sinusoids_weight = sinusoids_weight
        self.harmonics_weight = harmonics_weight
        self.sinusoids_scale = sinusoids_scale
        self.harmonics_scale = harmonics_scale
        self.n_harmonic_points = n_harmonic_points
        self.n_harmonic_gaussians = n_harmonic_gaussians
        self.softmin_temperature = softmin_temperature
        self.sample_rate = sample_rate

    def call(self, f0_candidates: Tensor, freqs: Tensor, amps: Tensor) -> Tensor:
        """Scalar loss.

        Args:
          f0_candidates: [batch, n_frames, n_candidates] fundamentals, Hz.
          freqs: [batch, n_frames, n_sinusoids] frequencies, Hz.
          amps: [batch, n_frames, n_sinusoids] amplitudes.

        Returns:
          Mean over batch, frames and candidates of the mismatch times its soft-min share.
        """
        combined = self._combined(f0_candidates, freqs, amps)
        return ops.mean(combined * ops.softmax(-combined / self.softmin_temperature, axis=-1))

    def predict_f0(self, f0_candidates: Tensor, freqs: Tensor, amps: Tensor) -> np.ndarray:
        """The candidate with the least mismatch in each frame; [batch, n_frames, 1] Hz.

        A candidate whose mismatch is NaN is never chosen, unless all of a frame are.
        """
        combined = ops.convert_to_numpy(self._combined(f0_candidates, freqs, amps))
        best = np.argmin(np.where(np.isnan(combined), np.inf, combined), axis=-1)[..., None]
        return np.take_along_axis(ops.convert_to_numpy(core.tf_float32(f0_candidates)), best, axis=-1)

    def get_loss_tensors(self, f0_candidates: Tensor, freqs: Tensor, amps: Tensor) -> tuple[Tensor, Tensor]:
        """Both mismatches of each candidate.

        Returns:
          `(sinusoids_loss, harmonics_loss)`, [batch, n_frames, n_candidates] each, without their weights.
        """
        f0_candidates, freqs = core.tf_float32(f0_candidates), core.tf_float32(freqs)
        ratios = core.safe_divide(freqs[..., None, :], f0_candidates[..., None])
        ratio_nll = -self.get_p_sinusoids_given_harmonics().log_prob(ratios)
        sinusoids_loss = ops.sum(ratio_nll * _shares(amps)[..., None, :], axis=-1)

        harmonics = self.get_candidate_harmonics(f0_candidates, as_midi=False)
        shape = ops.shape(harmonics)
        points = ops.reshape(core.hz_to_midi(harmonics), (*shape[:-2], shape[-2] * shape[-1]))
        nll = -ops.reshape(self.get_p_harmonics_given_sinusoids(freqs, amps).log_prob(points), shape)
        slope = constant(
            np.linspace(1.0, 1.0 / self.n_harmonic_points, self.n_harmonic_points, dtype=np.float32)
        )
        audible = core.tf_float32(harmonics < self.sample_rate / 2.0)
        share = ops.mean(audible, axis=-1, keepdims=True)
        harmonics_loss = ops.mean(core.safe_divide(nll * slope * audible, share), axis=-1)
        return sinusoids_loss, harmonics_loss

    def get_p_sinusoids_given_harmonics(self) -> GaussianMixture:
        """Density of `f_k / f0`: equal Gaussians at 1, 2, 3..."""
        n = self.n_harmonic_gaussians
        means = core.tf_float32(np.arange(1, n + 1))
        return GaussianMixture(means, core.tf_float32(np.full(n, 1.0 / n)), self.harmonics_scale)

    def get_p_harmonics_given_sinusoids(self, freqs: Tensor, amps: Tensor) -> GaussianMixture:
        """Density of the sinusoids' amplitude along MIDI pitch, frame by frame."""
        return _sinusoid_mixture(amps, freqs, self.sinusoids_scale)

    def get_candidate_harmonics(self, f0_candidates: Tensor, as_midi: bool = True) -> Tensor:
        """The first n_harmonic_points multiples of each candidate, MIDI or Hz; one more axis."""
        numbers = constant(np.arange(1, self.n_harmonic_points + 1, dtype=np.float32))
        harmonics = core.tf_float32(f0_candidates)[..., None] * numbers
        return core.hz_to_midi(harmonics) if as_midi else harmonics

    def _combined(self, f0_candidates: Tensor, freqs: Tensor, amps: Tensor) -> Tensor:
        sinusoids_loss, harmonics_loss = self.get_loss_tensors(f0_candidates, freqs, amps)
        return self.sinusoids_weight * sinusoids_loss + self.harmonics_weight * harmonics_loss

    def get_config(self) -> dict[str, Any]:
        """Arguments that make the same loss."""
        names = (
            'sinusoids_weight', 'harmonics_weight', 'sinusoids_scale', 'harmonics_scale', 'n_harmonic_points',
            'n_harmonic_gaussians', 'softmin_temperature', 'sample_rate',
        )  # fmt: skip
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}
