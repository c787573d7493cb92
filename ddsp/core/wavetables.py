"""Wavetable lookup and variable delay, by gather."""

from __future__ import annotations

from keras import ops

from ddsp.core.phase import TWO_PI, accumulate_radians
from ddsp.core.resampling import resample
from ddsp.core.utils import Tensor, tf_float32
from ddsp.errors import ConfigError


def linear_lookup(phase: Tensor, wavetables: Tensor) -> Tensor:
    """Reads periodic tables with linear interpolation.

    Args:
      phase: Position in the table [batch, n_samples, 1] or [batch, n_samples], 0 to 1.
      wavetables: One table a batch item [batch, n_wavetable], or one a sample [batch, n_samples, n_wavetable].

    Returns:
      [batch, n_samples].
    """
    phase, wavetables = tf_float32(phase), tf_float32(wavetables)
    if len(phase.shape) == 3:
        phase = phase[:, :, 0]
    n_wavetable = wavetables.shape[-1]
    position = phase * n_wavetable
    low = ops.floor(position)
    fraction = position - low
    first = ops.cast(low, 'int32') % n_wavetable
    second = (first + 1) % n_wavetable
    if len(wavetables.shape) == 2:
        a, b = ops.take_along_axis(wavetables, first, 1), ops.take_along_axis(wavetables, second, 1)
    else:
        a = ops.take_along_axis(wavetables, first[:, :, None], 2)[:, :, 0]
        b = ops.take_along_axis(wavetables, second[:, :, None], 2)[:, :, 0]
    return a + fraction * (b - a)


def harmonic_distribution_to_wavetable(harmonic_distribution: Tensor, n_wavetable: int = 2048) -> Tensor:
    """One period of a sum of cosines.

    Args:
      harmonic_distribution: [batch, time, n_harmonics].
      n_wavetable: Samples in the table, at least `2 * n_harmonics`.

    Returns:
      [batch, time, n_wavetable], `sum_h hd_h cos(2 pi h n / n_wavetable)`.

    Raises:
      ConfigError: More harmonics than the table can hold.
    """
    harmonic_distribution = tf_float32(harmonic_distribution)
    n_harmonics = harmonic_distribution.shape[-1]
    if n_harmonics > n_wavetable // 2:
        raise ConfigError(f'n_wavetable={n_wavetable} holds {n_wavetable // 2} harmonics, not {n_harmonics}')
    widths = [[0, 0]] * (len(harmonic_distribution.shape) - 1) + [[1, n_wavetable // 2 - n_harmonics]]
    spectrum = ops.pad(harmonic_distribution, widths)
    return ops.irfft((spectrum, ops.zeros_like(spectrum)), fft_length=n_wavetable) * (n_wavetable / 2)


def wavetable_synthesis(
    frequencies: Tensor,
    amplitudes: Tensor,
    wavetables: Tensor,
    n_samples: int = 64000,
    sample_rate: int = 16000,
) -> Tensor:
    """Plays wavetables at a frequency and an amplitude."""
    wavetables = tf_float32(wavetables)
    amplitude = resample(amplitudes, n_samples, method='window')[:, :, 0]
    turns = resample(frequencies, n_samples) / float(sample_rate)
    phase = accumulate_radians(turns) / TWO_PI - turns
    if len(wavetables.shape) == 3 and wavetables.shape[1] > 1:
        wavetables = resample(wavetables, n_samples)
    elif len(wavetables.shape) == 3:
        wavetables = wavetables[:, 0]
    return linear_lookup(phase - ops.floor(phase), wavetables) * amplitude


def variable_length_delay(phase: Tensor, audio: Tensor, max_length: int = 512) -> Tensor:
    """Delays audio by a time that changes with each sample.

    Args:
      phase: Delay as a share of `max_length`, [batch, n_samples, 1], 0 to 1.
      audio: [batch, n_samples].
      max_length: Longest delay, samples.

    Returns:
      [batch, n_samples]; silence precedes the first sample.
    """
    phase, audio = tf_float32(phase)[:, :, 0], tf_float32(audio)
    n_samples = ops.shape(audio)[1]
    delay = ops.clip(phase, 0.0, 1.0) * max_length
    whole = ops.floor(delay)
    fraction = delay - whole
    padded = ops.pad(audio, [[0, 0], [max_length + 1, 0]])
    index = ops.arange(n_samples, dtype='int32') + (max_length + 1) - ops.cast(whole, 'int32')
    newer, older = ops.take_along_axis(padded, index, 1), ops.take_along_axis(padded, index - 1, 1)
    return newer + fraction * (older - newer)
