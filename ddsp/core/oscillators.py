"""Oscillator banks, and the harmonics that they play."""

from __future__ import annotations

from typing import NamedTuple

import gin
import keras
import numpy as np
from keras import ops

from ddsp.core.kernels import kernel
from ddsp.core.math import safe_divide
from ddsp.core.resampling import METHODS, resample
from ddsp.core.utils import Tensor, constant, tf_float32
from ddsp.errors import ConfigError

TWO_PI = 2.0 * np.pi


class Output(NamedTuple):
    """What frames are to become: so many samples, at a rate in Hz, with amplitudes resampled by a method."""

    n_samples: int
    sample_rate: int
    method: str


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
      sample_rate: Sample rate in Hz.

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
      sample_rate: Sample rate in Hz.

    Returns:
      [batch, n_frames, n_harmonics]; a frame of zeros stays zero.
    """
    harmonic_distribution = tf_float32(harmonic_distribution)
    if sample_rate is not None and f0_hz is not None:
        frequencies = get_harmonic_frequencies(f0_hz, harmonic_distribution.shape[-1])
        harmonic_distribution = remove_above_nyquist(frequencies, harmonic_distribution, sample_rate)
    return safe_divide(harmonic_distribution, ops.sum(harmonic_distribution, axis=-1, keepdims=True))


@kernel('ddsp.core.kernels.phase:accumulate')
def accumulate_phase(frequency: Tensor, sample_rate: float, initial_phase: Tensor | None = None) -> Tensor:
    """Phase of oscillators, `2 pi (f[0] + ... + f[n]) / sample_rate` modulo a turn.

    The sum is in float64: in float32 it drifts by whole turns within minutes. JAX has no float64 by default;
    there the kernel is exact.

    Args:
      frequency: [batch, n_samples, ...], Hz.
      sample_rate: Sample rate in Hz.
      initial_phase: Phase before the first sample [batch, 1, ...], radians; None is zero.

    Returns:
      Radians within half a turn of zero, each sample's own increment included.
    """
    dtype = 'float32' if keras.backend.backend() == 'jax' else 'float64'
    turns = ops.cumsum(ops.cast(frequency, dtype) / sample_rate, axis=1)
    if initial_phase is not None:
        turns = turns + ops.cast(initial_phase, dtype) / TWO_PI
    return TWO_PI * ops.cast(turns - ops.stop_gradient(ops.round(turns)), 'float32')


@gin.configurable(module='ddsp.core')
def angular_cumsum(angular_frequency: Tensor, chunk_size: int = 1000) -> Tensor:
    """Accumulates angular frequency to phase, modulo a turn.

    Args:
      angular_frequency: [batch, n_samples, ...], radians a sample.
      chunk_size: Not used; upstream's configurations set it. The phase is exact for any length.

    Returns:
      Phase in [0, 2 pi), each sample's own increment included.
    """
    del chunk_size
    radians = accumulate_phase(tf_float32(angular_frequency) / TWO_PI, 1.0)
    return ops.where(radians < 0.0, radians + TWO_PI, radians)


@gin.configurable(module='ddsp.core')
def oscillator_bank(
    frequency_envelopes: Tensor,
    amplitude_envelopes: Tensor,
    sample_rate: int = 16000,
    sum_sinusoids: bool = True,
    use_angular_cumsum: bool = False,
) -> Tensor:
    """Sinusoids from sample-wise frequencies and amplitudes.

    `audio[n] = a[n] sin(2 pi (f[0] + ... + f[n]) / sample_rate)`, silent where f reaches half the sample
    rate. From frame-wise controls, `sinusoidal_synthesis` and `harmonic_synthesis` are much cheaper.

    Args:
      frequency_envelopes: [batch, n_samples, n_sinusoids], Hz.
      amplitude_envelopes: [batch, n_samples, n_sinusoids].
      sample_rate: Sample rate in Hz.
      sum_sinusoids: Add the sinusoids up.
      use_angular_cumsum: Not used; upstream's configurations set it. The phase is exact either way.

    Returns:
      [batch, n_samples], or [batch, n_samples, n_sinusoids] when not summed.

    >>> audio = oscillator_bank(np.full([1, 4, 1], 4000.0), np.ones([1, 4, 1]), sample_rate=16000)
    >>> (ops.convert_to_numpy(audio).round(3) + 0.0).tolist()
    [[1.0, 0.0, -1.0, 0.0]]
    """
    del use_angular_cumsum
    frequency_envelopes = tf_float32(frequency_envelopes)
    amplitude_envelopes = remove_above_nyquist(frequency_envelopes, amplitude_envelopes, sample_rate)
    audio = amplitude_envelopes * ops.sin(accumulate_phase(frequency_envelopes, sample_rate))
    return ops.sum(audio, axis=-1) if sum_sinusoids else audio


@gin.configurable(module='ddsp.core')
def harmonic_oscillator_bank(
    frequency: Tensor,
    amplitude_envelopes: Tensor,
    initial_phase: Tensor | None = None,
    sample_rate: int = 16000,
    use_angular_cumsum: bool = True,
) -> tuple[Tensor, Tensor]:
    """Harmonics of one fundamental from sample-wise frequency and amplitudes.

    `audio[n] = sum_h a_h[n] sin(h phase[n])`, with the phase of `accumulate_phase`. Harmonics above Nyquist
    are not silenced: `remove_above_nyquist` does that.

    Args:
      frequency: Fundamental [batch, n_samples, 1], Hz.
      amplitude_envelopes: [batch, n_samples, n_harmonics].
      initial_phase: Phase of the fundamental before the first sample [batch, 1, 1], radians; None is zero.
      sample_rate: Sample rate in Hz.
      use_angular_cumsum: Not used; upstream's configurations set it. The phase is exact either way.

    Returns:
      Audio [batch, n_samples], and the fundamental's last phase [batch, 1, 1], radians within half a turn
      of zero: the `initial_phase` of what follows.
    """
    del use_angular_cumsum
    amplitude_envelopes = tf_float32(amplitude_envelopes)
    phase = accumulate_phase(tf_float32(frequency), sample_rate, initial_phase)
    waves = ops.sin(get_harmonic_frequencies(phase, amplitude_envelopes.shape[-1]))
    return ops.sum(amplitude_envelopes * waves, axis=-1), phase[:, -1:]


def harmonic_synthesis(
    frequencies: Tensor,
    amplitudes: Tensor,
    harmonic_shifts: Tensor | None = None,
    harmonic_distribution: Tensor | None = None,
    n_samples: int = 64000,
    sample_rate: int = 16000,
    amp_resample_method: str = 'window',
    use_angular_cumsum: bool = False,
    initial_phase: Tensor | None = None,
) -> Tensor:
    """Harmonic audio from frame-wise controls.

    Harmonic h sounds at `h f0 (1 + shift[h])` with the amplitude `amplitudes * harmonic_distribution[h]`. Its
    frequency is linear between frames, and it is silent where that reaches half the sample rate. Polyphony
    is a sum over voices: put them on the batch axis and add the audio.

    Args:
      frequencies: Fundamental [batch, n_frames, 1], Hz.
      amplitudes: [batch, n_frames, 1].
      harmonic_shifts: Inharmonicity [batch, n_frames, n_harmonics], as a share of each harmonic's frequency.
      harmonic_distribution: [batch, n_frames, n_harmonics], used as it is; None is one harmonic, or as many
        equal ones as there are shifts.
      n_samples: Samples of the result.
      sample_rate: Sample rate in Hz.
      amp_resample_method: How amplitudes are interpolated: see `resample`.
      use_angular_cumsum: Not used; upstream's configurations set it. The phase is exact either way.
      initial_phase: Phase before the first sample, radians: of the fundamental [batch, 1, 1], or, with
        `harmonic_shifts`, of each harmonic [batch, 1, n_harmonics]. None is zero.

    Returns:
      Audio [batch, n_samples].

    Raises:
      ConfigError: Shapes that do not fit each other, or an unknown method.

    >>> tuple(harmonic_synthesis(np.full([1, 10, 1], 220.0), np.ones([1, 10, 1]), n_samples=640).shape)
    (1, 640)
    """
    del use_angular_cumsum
    output = Output(n_samples, sample_rate, amp_resample_method)
    frequencies, amplitudes = _controls(
        frequencies, amplitudes, harmonic_distribution, harmonic_shifts, output
    )
    if harmonic_shifts is None:
        return _harmonics(frequencies, amplitudes, initial_phase, output)[0]
    return _inharmonics(frequencies, tf_float32(harmonic_shifts), amplitudes, initial_phase, output)


def streaming_harmonic_synthesis(
    frequencies: Tensor,
    amplitudes: Tensor,
    harmonic_distribution: Tensor | None = None,
    initial_phase: Tensor | None = None,
    n_samples: int = 64000,
    sample_rate: int = 16000,
    amp_resample_method: str = 'linear',
) -> tuple[Tensor, Tensor]:
    """Harmonic audio from frame-wise controls, which goes on from a given phase.

    Args:
      frequencies: Fundamental [batch, n_frames, 1], Hz.
      amplitudes: [batch, n_frames, 1].
      harmonic_distribution: [batch, n_frames, n_harmonics], normalised here to sum 1 below Nyquist; None is
        one harmonic.
      initial_phase: Phase of the fundamental before the first sample [batch, 1, 1], radians; None is zero.
      n_samples: Samples of the result.
      sample_rate: Sample rate in Hz.
      amp_resample_method: How amplitudes are interpolated: see `resample`.

    Returns:
      Audio [batch, n_samples], and the fundamental's last phase [batch, 1, 1], radians within half a turn
      of zero: the `initial_phase` of what follows.
    """
    if harmonic_distribution is not None:
        harmonic_distribution = normalize_harmonics(harmonic_distribution, frequencies, sample_rate)
    output = Output(n_samples, sample_rate, amp_resample_method)
    frequencies, amplitudes = _controls(frequencies, amplitudes, harmonic_distribution, None, output)
    return _harmonics(frequencies, amplitudes, initial_phase, output)


def sinusoidal_synthesis(
    frequencies: Tensor,
    amplitudes: Tensor,
    n_samples: int = 64000,
    sample_rate: int = 16000,
    amp_resample_method: str = 'window',
    initial_phase: Tensor | None = None,
) -> Tensor:
    """Sum of sinusoids from frame-wise frequencies and amplitudes.

    The same as `oscillator_bank` of the resampled controls, without arrays of [batch, n_samples,
    n_sinusoids].

    Args:
      frequencies: [batch, n_frames, n_sinusoids], Hz; linear between frames.
      amplitudes: [batch, n_frames, n_sinusoids].
      n_samples: Samples of the result.
      sample_rate: Sample rate in Hz; sinusoids are silent where they reach half of it.
      amp_resample_method: How amplitudes are interpolated: see `resample`.
      initial_phase: Phase before the first sample [batch, 1, n_sinusoids], radians; None is zero.

    Returns:
      Audio [batch, n_samples].
    """
    frequencies, amplitudes = tf_float32(frequencies), tf_float32(amplitudes)
    output = Output(n_samples, sample_rate, amp_resample_method)
    _check_frames(frequencies, amplitudes, output)
    return _sinusoids(frequencies, amplitudes, initial_phase, output)


@kernel('ddsp.core.kernels.harmonics:harmonics')
def _harmonics(
    frequencies: Tensor, amplitudes: Tensor, initial_phase: Tensor | None, output: Output
) -> tuple[Tensor, Tensor]:
    """Audio and last phase of harmonics with the amplitudes [batch, n_frames, n_harmonics]."""
    n_samples, sample_rate, method = output
    frequency = resample(frequencies, n_samples)
    harmonics = get_harmonic_frequencies(frequency, amplitudes.shape[-1])
    envelopes = remove_above_nyquist(harmonics, resample(amplitudes, n_samples, method), sample_rate)
    return harmonic_oscillator_bank(frequency, envelopes, initial_phase, sample_rate)


@kernel('ddsp.core.kernels.sinusoids:inharmonics')
def _inharmonics(
    frequencies: Tensor, shifts: Tensor, amplitudes: Tensor, initial_phase: Tensor | None, output: Output
) -> Tensor:
    """Audio of harmonics that are shifted by a share of their frequency."""
    frequencies = get_harmonic_frequencies(frequencies, shifts.shape[-1]) * (1.0 + shifts)
    return _sinusoids(frequencies, amplitudes, initial_phase, output)


@kernel('ddsp.core.kernels.sinusoids:sinusoids')
def _sinusoids(
    frequencies: Tensor, amplitudes: Tensor, initial_phase: Tensor | None, output: Output
) -> Tensor:
    """Audio of sinusoids with the frequencies and amplitudes [batch, n_frames, n_sinusoids]."""
    n_samples, sample_rate, method = output
    frequency = resample(frequencies, n_samples)
    envelopes = remove_above_nyquist(frequency, resample(amplitudes, n_samples, method), sample_rate)
    return ops.sum(envelopes * ops.sin(accumulate_phase(frequency, sample_rate, initial_phase)), axis=-1)


def _controls(
    frequencies: Tensor,
    amplitudes: Tensor,
    distribution: Tensor | None,
    shifts: Tensor | None,
    output: Output,
) -> tuple[Tensor, Tensor]:
    """Frequencies, and one amplitude for each harmonic, as float32 tensors that fit each other."""
    named = {
        'frequencies': tf_float32(frequencies),
        'amplitudes': tf_float32(amplitudes),
        'harmonic_distribution': distribution,
        'harmonic_shifts': shifts,
    }
    for name, control in named.items():
        if control is not None and len(control.shape) != 3:
            raise ConfigError(f'{name} must be [batch, n_frames, channels], not {tuple(control.shape)}')
    frequencies, amplitudes = named['frequencies'], named['amplitudes']
    if frequencies.shape[-1] != 1:
        raise ConfigError(f'frequencies must have one channel, the fundamental, not {frequencies.shape[-1]}')
    if distribution is not None:
        amplitudes = amplitudes * tf_float32(distribution)
    if shifts is not None and amplitudes.shape[-1] not in (1, shifts.shape[-1]):
        raise ConfigError(
            f'harmonic_shifts has {shifts.shape[-1]} harmonics and harmonic_distribution '
            f'{amplitudes.shape[-1]}: they must have the same'
        )
    _check_frames(frequencies, amplitudes, output)
    return frequencies, amplitudes if shifts is None else amplitudes * ops.ones_like(tf_float32(shifts))


def _check_frames(frequencies: Tensor, amplitudes: Tensor, output: Output) -> None:
    n_samples, _, method = output
    if method not in METHODS:
        raise ConfigError(
            f'amp_resample_method={method!r} is unknown: use one of {", ".join(map(repr, METHODS))}'
        )
    n_frames = frequencies.shape[1]
    if n_frames != amplitudes.shape[1]:
        raise ConfigError(
            f'frequencies has {n_frames} frames and amplitudes {amplitudes.shape[1]}: they must have the same'
        )
    if n_frames is not None and isinstance(n_samples, int) and n_frames > n_samples:
        raise ConfigError(f'{n_frames} frames are more than n_samples={n_samples}')
