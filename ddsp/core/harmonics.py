"""Harmonic and sinusoidal controls, and how one becomes the other."""

from __future__ import annotations

import numpy as np
from keras import ops

from ddsp.core.math import safe_divide
from ddsp.core.utils import Tensor, constant, tf_float32


def get_harmonic_frequencies(frequencies: Tensor, n_harmonics: int) -> Tensor:
    """Multiples of the fundamental.

    Args:
      frequencies: Fundamental [batch, n_frames, 1], Hz.
      n_harmonics: How many, the fundamental included.

    Returns:
      [batch, n_frames, n_harmonics], Hz.
    """
    return tf_float32(frequencies) * constant(np.arange(1, int(n_harmonics) + 1, dtype=np.float32))


def remove_above_nyquist(
    frequency_envelopes: Tensor, amplitude_envelopes: Tensor, sample_rate: int = 16000
) -> Tensor:
    """Silences sinusoids that would alias.

    Args:
      frequency_envelopes: [batch, time, n_sinusoids], Hz.
      amplitude_envelopes: [batch, time, n_sinusoids].
      sample_rate: Samples a second.

    Returns:
      The amplitudes, 0 where the frequency is half the sample rate or more.
    """
    amplitude_envelopes = tf_float32(amplitude_envelopes)
    above = tf_float32(frequency_envelopes) >= sample_rate / 2.0
    return ops.where(above, ops.zeros_like(amplitude_envelopes), amplitude_envelopes)


def normalize_harmonics(
    harmonic_distribution: Tensor, f0_hz: Tensor | None = None, sample_rate: int | None = None
) -> Tensor:
    """Makes the distribution sum to 1 in each frame.

    Args:
      harmonic_distribution: [batch, n_frames, n_harmonics], not negative.
      f0_hz: Fundamental [batch, n_frames, 1], Hz. With `sample_rate`, harmonics above Nyquist count as zero.
      sample_rate: Samples a second.

    Returns:
      [batch, n_frames, n_harmonics]; a frame of zeros stays zero.
    """
    harmonic_distribution = tf_float32(harmonic_distribution)
    if sample_rate is not None and f0_hz is not None:
        frequencies = get_harmonic_frequencies(f0_hz, harmonic_distribution.shape[-1])
        harmonic_distribution = remove_above_nyquist(frequencies, harmonic_distribution, sample_rate)
    return safe_divide(harmonic_distribution, ops.sum(harmonic_distribution, axis=-1, keepdims=True))


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
      sample_rate: Samples a second; harmonics above Nyquist are silenced.
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
    """Spells harmonic controls out as one sinusoid a harmonic.

    Args:
      harm_amp: [batch, n_frames, 1].
      harm_dist: [batch, n_frames, n_harmonics].
      f0_hz: [batch, n_frames, 1], Hz.
      sample_rate: Samples a second; harmonics above Nyquist are silenced.

    Returns:
      Amplitudes and frequencies (Hz), each [batch, n_frames, n_harmonics].
    """
    frequencies = get_harmonic_frequencies(f0_hz, harm_dist.shape[-1])
    return tf_float32(harm_amp) * normalize_harmonics(harm_dist, f0_hz, sample_rate), frequencies
