"""Multi-scale spectral loss."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import gin
import keras
from keras import ops

from ddsp import core, spectral_ops
from ddsp.core import Tensor
from ddsp.core.kernels import kernel
from ddsp.errors import ConfigError
from ddsp.losses.base import Loss, check_loss_type, mean_difference

Terms = dict[tuple[int | None, str], Tensor]
TERMS: dict[str, Callable[[Tensor], Tensor]] = {  # what is made of the magnitudes before they are compared
    'mag': lambda mag: mag,
    'delta_time': lambda mag: core.diff(mag, axis=1),
    'delta_freq': lambda mag: core.diff(mag, axis=2),
    'cumsum_freq': lambda mag: ops.cumsum(mag, axis=2),
    'logmag': core.safe_log,
}


def spectral_terms(
    target: Tensor,
    audio: Tensor,
    fft_sizes: tuple[int, ...],
    term_weights: dict[str, float],
    loss_type: str,
    weights: Tensor | None,
) -> Terms:
    """Weighted differences of the magnitudes of two signals [batch, n_samples] by FFT size and term.

    Args:
      target: [batch, n_samples].
      audio: [batch, n_samples].
      fft_sizes: Window sizes, samples.
      term_weights: Weights by name of the term, of `TERMS`.
      loss_type: 'L1', 'L2' or 'COSINE'.
      weights: Weights that broadcast with [batch, n_frames, n_bins] at every size, or None.

    Returns:
      `{(fft size, term): scalar}`.
    """
    terms: Terms = {}
    for size in fft_sizes if term_weights else ():
        target_mag, mag = spectral_ops.compute_mag(target, size), spectral_ops.compute_mag(audio, size)
        for term, weight in term_weights.items():
            transform = TERMS[term]
            difference = mean_difference(transform(target_mag), transform(mag), loss_type, weights)
            terms[size, term] = weight * difference
    return terms


@kernel('ddsp.losses.kernels.spectral:l1_differences')
def spectral_difference(
    target: Tensor,
    audio: Tensor,
    fft_sizes: tuple[int, ...],
    term_weights: dict[str, float],
    loss_type: str,
    weights: Tensor | None,
) -> tuple[Tensor, Terms]:
    """Sum of the `spectral_terms`, and the terms themselves (for display: they may carry no gradient)."""
    terms = spectral_terms(target, audio, fft_sizes, term_weights, loss_type, weights)
    return _total(terms), terms


@gin.register(module='ddsp.losses')
@keras.saving.register_keras_serializable('ddsp')
class SpectralLoss(Loss):
    """Difference of spectrograms at several resolutions.

    For each FFT size the magnitudes S (Hann window, 75 % overlap) of target and audio are compared by up to
    five terms, all made from one transform of each signal, and the sizes are summed:
    `mag D(S) + delta_time D(dS/dt) + delta_freq D(dS/df) + cumsum_freq D(cumsum_f S) + logmag D(log S)`,
    D = `mean_difference`. A term with weight 0 is not computed. `loudness` compares `compute_loudness` once.
    The loss of the DDSP paper (Engel et al., ICLR 2020) is mag_weight=1, logmag_weight=1.

    Args:
      fft_sizes: Window sizes, samples.
      loss_type: 'L1', 'L2' or 'COSINE'.
      mag_weight: Weight of the magnitudes.
      delta_time_weight: Weight of the difference of magnitudes between frames.
      delta_freq_weight: Weight of the difference of magnitudes between bins.
      cumsum_freq_weight: Weight of the sum of magnitudes from 0 Hz up to each bin.
      logmag_weight: Weight of the natural logarithm of the magnitudes.
      loudness_weight: Weight of the loudness in dB (A-weighted, window of 128 ms).
      name: Name of the loss.
      sample_rate: Sample rate of the audio, Hz: for the loudness alone.

    Example:
      >>> loss = SpectralLoss(fft_sizes=(512, 64), logmag_weight=1.0)
      >>> losses, metrics = loss.loss_and_metrics(ops.zeros((1, 1600)), ops.ones((1, 1600)))
      >>> sorted(losses), sorted(metrics)
      (['spectral_loss'], ['spectral_loss_512', 'spectral_loss_64'])
    """

    def __init__(
        self,
        fft_sizes: Sequence[int] = (2048, 1024, 512, 256, 128, 64),
        loss_type: str = 'L1',
        mag_weight: float = 1.0,
        delta_time_weight: float = 0.0,
        delta_freq_weight: float = 0.0,
        cumsum_freq_weight: float = 0.0,
        logmag_weight: float = 0.0,
        loudness_weight: float = 0.0,
        name: str = 'spectral_loss',
        sample_rate: int = 16000,
        **kwargs: Any,
    ) -> None:
        super().__init__(name=name, **kwargs)
        self.sample_rate = sample_rate
        self.fft_sizes = _check_fft_sizes(fft_sizes)
        self.loss_type = check_loss_type(loss_type)
        self.mag_weight = mag_weight
        self.delta_time_weight = delta_time_weight
        self.delta_freq_weight = delta_freq_weight
        self.cumsum_freq_weight = cumsum_freq_weight
        self.logmag_weight = logmag_weight
        self.loudness_weight = loudness_weight

    def call(self, target_audio: Tensor, audio: Tensor, weights: Tensor | None = None) -> Tensor:
        """Total loss.

        Args:
          target_audio: [batch, n_samples] or [batch, n_samples, 1].
          audio: The same shape.
          weights: What broadcasts with [batch, n_frames, n_bins] at every size, such as [batch, 1, 1].

        Returns:
          Scalar.
        """
        return self._evaluate(target_audio, audio, weights)[0]

    def get_terms(self, target_audio: Tensor, audio: Tensor, weights: Tensor | None = None) -> Terms:
        """Each term by itself: `{(fft size, term): scalar}`; their sum is the loss.

        The terms are 'mag', 'delta_time', 'delta_freq', 'cumsum_freq', 'logmag' at each FFT size, and
        (None, 'loudness'); each is multiplied by its weight, and those of weight 0 are absent.
        """
        target_audio, audio = _as_signals(target_audio, audio)
        terms = spectral_terms(
            target_audio, audio, self.fft_sizes, self._term_weights(), self.loss_type, weights
        )
        return {**terms, **self._loudness_term(target_audio, audio, weights)}

    def _loudness_term(self, target_audio: Tensor, audio: Tensor, weights: Tensor | None) -> Terms:
        if not self.loudness_weight:
            return {}
        n_fft = 2 * round(0.064 * self.sample_rate)  # 2048 at 16 kHz
        target, value = (
            spectral_ops.compute_loudness(x, self.sample_rate, n_fft=n_fft) for x in (target_audio, audio)
        )
        if weights is not None and len(ops.shape(weights)) == 3:
            weights = ops.mean(core.tf_float32(weights), axis=-1)  # loudness has no frequency axis
        difference = mean_difference(target, value, self.loss_type, weights)
        return {(None, 'loudness'): self.loudness_weight * difference}

    def loss_and_metrics(
        self, target_audio: Tensor, audio: Tensor, weights: Tensor | None = None
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """The loss, and the share of each FFT size in it, from one pass.

        Args:
          target_audio: [batch, n_samples] or [batch, n_samples, 1].
          audio: The same shape.
          weights: What broadcasts with [batch, n_frames, n_bins] at every size, such as [batch, 1, 1].

        Returns:
          `({'spectral_loss': total}, {'spectral_loss_2048': ..., 'spectral_loss_1024': ...})`, with
          'loudness' where it has a weight; the metrics sum to the loss and are not to be added to it. The
          names start with the name of the layer.
        """
        total, terms = self._evaluate(target_audio, audio, weights)
        metrics: dict[str, Tensor] = {}
        for (size, term), value in terms.items():
            key = f'{self.name}_{size or term}'
            metrics[key] = metrics[key] + value if key in metrics else value
        return {self.name: total}, metrics

    def _evaluate(self, target_audio: Tensor, audio: Tensor, weights: Tensor | None) -> tuple[Tensor, Terms]:
        """The loss, and its terms."""
        target_audio, audio = _as_signals(target_audio, audio)
        loss, terms = spectral_difference(
            target_audio, audio, self.fft_sizes, self._term_weights(), self.loss_type, weights
        )
        loudness = self._loudness_term(target_audio, audio, weights)
        return loss + _total(loudness), {**terms, **loudness}

    def _term_weights(self) -> dict[str, float]:
        """Weights of the terms that count."""
        weights = {term: getattr(self, f'{term}_weight') for term in TERMS}
        return {term: weight for term, weight in weights.items() if weight}

    def get_config(self) -> dict[str, Any]:
        """Arguments that make the same loss."""
        names = (
            'fft_sizes', 'loss_type', 'mag_weight', 'delta_time_weight', 'delta_freq_weight',
            'cumsum_freq_weight', 'logmag_weight', 'loudness_weight', 'sample_rate',
        )  # fmt: skip
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}


def _total(terms: Terms) -> Tensor:
    return sum(terms.values(), core.tf_float32(0.0))


def _check_fft_sizes(fft_sizes: Sequence[int]) -> tuple[int, ...]:
    sizes = tuple(fft_sizes)
    if not sizes or any(int(size) != size or size < 4 for size in sizes) or len(set(sizes)) < len(sizes):
        raise ConfigError(f'fft_sizes is {sizes}; different whole numbers of samples from 4 up are needed')
    return tuple(int(size) for size in sizes)


def _as_signals(target_audio: Tensor, audio: Tensor) -> tuple[Tensor, Tensor]:
    """Both as [batch, n_samples] float32; a ConfigError unless they have the same shape."""
    target_audio, audio = core.tf_float32(target_audio), core.tf_float32(audio)
    target_shape, shape = tuple(target_audio.shape), tuple(audio.shape)
    same = len(shape) == len(target_shape) and all(
        a == b or None in (a, b) for a, b in zip(target_shape, shape, strict=True)
    )
    if not same or len(shape) not in (2, 3):
        raise ConfigError(
            f'target_audio has shape {target_shape} and audio {shape}: [batch, n_samples] of the same length '
            'is needed for both'
        )
    return spectral_ops.to_mono(target_audio), spectral_ops.to_mono(audio)
