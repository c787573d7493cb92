"""Oscillator banks."""

from __future__ import annotations

import gin
import numpy as np
from keras import ops

from ddsp.core.harmonics import get_harmonic_frequencies, normalize_harmonics, remove_above_nyquist
from ddsp.core.phase import TWO_PI, accumulate_radians
from ddsp.core.resampling import resample
from ddsp.core.utils import Tensor, tf_float32


@gin.configurable(module='ddsp.core')
def angular_cumsum(angular_frequency: Tensor, chunk_size: int = 1000) -> Tensor:
    """Accumulates angular frequency to phase, modulo a turn.

    Args:
      angular_frequency: [batch, n_samples, ...], radians a sample.
      chunk_size: Kept for upstream's configurations; the phase is exact for any length.

    Returns:
      Phase in [0, 2 pi), inclusive of each sample's own increment.
    """
    del chunk_size
    radians = accumulate_radians(tf_float32(angular_frequency) / TWO_PI)
    return ops.where(radians < 0.0, radians + TWO_PI, radians)


@gin.configurable(module='ddsp.core')
def oscillator_bank(
    frequency_envelopes: Tensor,
    amplitude_envelopes: Tensor,
    sample_rate: int = 16000,
    sum_sinusoids: bool = True,
    use_angular_cumsum: bool = False,
) -> Tensor:
    """Sinusoids from sample-wise frequencies and amplitudes."""
    del use_angular_cumsum
    frequency_envelopes = tf_float32(frequency_envelopes)
    amplitude_envelopes = remove_above_nyquist(frequency_envelopes, amplitude_envelopes, sample_rate)
    audio = amplitude_envelopes * ops.sin(accumulate_radians(frequency_envelopes / float(sample_rate)))
    return ops.sum(audio, axis=-1) if sum_sinusoids else audio


@gin.configurable(module='ddsp.core')
def harmonic_oscillator_bank(
    frequency: Tensor,
    amplitude_envelopes: Tensor,
    initial_phase: Tensor | None = None,
    sample_rate: int = 16000,
    use_angular_cumsum: bool = True,
) -> tuple[Tensor, Tensor]:
    """Harmonics of one sample-wise fundamental."""
    del use_angular_cumsum
    phase = accumulate_radians(tf_float32(frequency) / float(sample_rate))
    if initial_phase is not None:
        phase = phase + tf_float32(initial_phase)
    amplitude_envelopes = tf_float32(amplitude_envelopes)
    numbers = np.arange(1, amplitude_envelopes.shape[-1] + 1, dtype=np.float32)
    audio = ops.sum(amplitude_envelopes * ops.sin(phase * numbers), axis=-1)
    return audio, phase[:, -1:, 0:1]


def harmonic_synthesis(
    frequencies: Tensor,
    amplitudes: Tensor,
    harmonic_shifts: Tensor | None = None,
    harmonic_distribution: Tensor | None = None,
    n_samples: int = 64000,
    sample_rate: int = 16000,
    amp_resample_method: str = 'window',
    use_angular_cumsum: bool = False,
) -> Tensor:
    """Harmonic audio from frame-wise controls."""
    frequencies, amplitudes = tf_float32(frequencies), tf_float32(amplitudes)
    if harmonic_distribution is not None:
        harmonic_distribution = tf_float32(harmonic_distribution)
        n_harmonics = harmonic_distribution.shape[-1]
        amplitudes = amplitudes * harmonic_distribution
    else:
        n_harmonics = 1 if harmonic_shifts is None else harmonic_shifts.shape[-1]
    harmonics = get_harmonic_frequencies(frequencies, n_harmonics)
    if harmonic_shifts is not None:
        harmonics = harmonics * (1.0 + tf_float32(harmonic_shifts))
    frequency_envelopes = resample(harmonics, n_samples)
    amplitude_envelopes = resample(amplitudes, n_samples, method=amp_resample_method)
    return oscillator_bank(
        frequency_envelopes, amplitude_envelopes, sample_rate, use_angular_cumsum=use_angular_cumsum
    )


def streaming_harmonic_synthesis(
    frequencies: Tensor,
    amplitudes: Tensor,
    harmonic_distribution: Tensor | None = None,
    initial_phase: Tensor | None = None,
    n_samples: int = 64000,
    sample_rate: int = 16000,
    amp_resample_method: str = 'linear',
) -> tuple[Tensor, Tensor]:
    """Harmonic audio from frame-wise controls, which goes on from a given phase."""
    frequencies, amplitudes = tf_float32(frequencies), tf_float32(amplitudes)
    if harmonic_distribution is not None:
        amplitudes = amplitudes * normalize_harmonics(harmonic_distribution, frequencies, sample_rate)
    return harmonic_oscillator_bank(
        resample(frequencies, n_samples),
        resample(amplitudes, n_samples, method=amp_resample_method),
        initial_phase,
        sample_rate,
    )
