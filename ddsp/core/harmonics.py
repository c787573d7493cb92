"""Harmonic controls as free sinusoids, and free sinusoids as harmonics."""

from __future__ import annotations

from keras import ops

from ddsp.core.math import safe_divide
from ddsp.core.oscillators import get_harmonic_frequencies, normalize_harmonics, remove_above_nyquist
from ddsp.core.utils import Tensor, tf_float32


def sinusoidal_to_harmonic(
    sin_amps: Tensor,
    sin_freqs: Tensor,
    f0_hz: Tensor,
    harmonic_width: float = 0.1,
    n_harmonics: int = 100,
    sample_rate: int = 16000,
    normalize: bool = False,
) -> tuple[Tensor, Tensor]:
    """Gathers free sinusoids into the harmonics of a fundamental.

    Sinusoid k counts for harmonic h with the weight `exp(-((f_k - h f0) / (f0 harmonic_width)) ** 2)`.

    Args:
      sin_amps: [batch, n_frames, n_sinusoids].
      sin_freqs: [batch, n_frames, n_sinusoids], Hz.
      f0_hz: [batch, n_frames, 1], Hz.
      harmonic_width: Width of a harmonic as a share of f0.
      n_harmonics: Harmonics of the result.
      sample_rate: Sample rate in Hz; harmonics above Nyquist are silenced.
      normalize: Where the weights of a harmonic sum to more than 1, divide them by their sum.

    Returns:
      Amplitude [batch, n_frames, 1] and distribution [batch, n_frames, n_harmonics] (which sums to 1).
    """
    sin_amps, sin_freqs, f0_hz = tf_float32(sin_amps), tf_float32(sin_freqs), tf_float32(f0_hz)
    harmonic_freqs = get_harmonic_frequencies(f0_hz, n_harmonics)
    distance = ops.abs(sin_freqs[:, :, None, :] - harmonic_freqs[:, :, :, None])
    ratio = safe_divide(distance, f0_hz[:, :, :, None])
    weights = ops.exp(-ops.square(ratio / harmonic_width))
    if normalize:
        total = ops.sum(weights, axis=-1, keepdims=True)
        weights = ops.where(total > 1.0, safe_divide(weights, total), weights)
    harmonic_amps = ops.sum(weights * sin_amps[:, :, None, :], axis=-1)
    harmonic_amps = remove_above_nyquist(harmonic_freqs, harmonic_amps, sample_rate)
    amplitude = ops.sum(harmonic_amps, axis=-1, keepdims=True)
    return amplitude, safe_divide(harmonic_amps, amplitude)


def harmonic_to_sinusoidal(
    harm_amp: Tensor, harm_dist: Tensor, f0_hz: Tensor, sample_rate: int = 16000
) -> tuple[Tensor, Tensor]:
    """Spells harmonic controls out as one sinusoid for each harmonic.

    Args:
      harm_amp: [batch, n_frames, 1].
      harm_dist: [batch, n_frames, n_harmonics].
      f0_hz: [batch, n_frames, 1], Hz.
      sample_rate: Sample rate in Hz; harmonics above Nyquist are silenced.

    Returns:
      Amplitudes and frequencies (Hz), each [batch, n_frames, n_harmonics].
    """
    frequencies = get_harmonic_frequencies(f0_hz, harm_dist.shape[-1])
    return tf_float32(harm_amp) * normalize_harmonics(harm_dist, f0_hz, sample_rate), frequencies
