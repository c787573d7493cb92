"""Oscillator banks."""

from __future__ import annotations

from typing import Any

import gin
import numpy as np
from keras import ops

from ddsp.core.harmonics import get_harmonic_frequencies, normalize_harmonics, remove_above_nyquist
from ddsp.core.kernels import kernel
from ddsp.core.phase import TWO_PI, Phase, frame_phase, starting_at
from ddsp.core.resampling import METHODS, resample, whole_hop
from ddsp.core.utils import Tensor, constant, tf_float32
from ddsp.errors import ConfigError


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
    radians = Phase.per_sample(tf_float32(angular_frequency) / TWO_PI, 1.0).cumsum().radians()
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
    """
    del use_angular_cumsum
    frequency_envelopes = tf_float32(frequency_envelopes)
    amplitude_envelopes = remove_above_nyquist(frequency_envelopes, amplitude_envelopes, sample_rate)
    phase = Phase.per_sample(frequency_envelopes, float(sample_rate)).cumsum()
    audio = amplitude_envelopes * ops.sin(phase.radians())
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

    Harmonics above Nyquist are not silenced: `remove_above_nyquist` does that.

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
    phase = Phase.per_sample(tf_float32(frequency), float(sample_rate)).cumsum()
    phase = starting_at(initial_phase, phase)
    return _bank(phase, tf_float32(amplitude_envelopes)), _last(phase)


def _last(phase: Phase) -> Tensor:
    """The last sample's phase [batch, 1, 1], radians within half a turn of zero."""
    return phase.map(lambda part: part[:, -1:]).radians()


@kernel('harmonics:bank')
def _bank(phase: Phase, amplitudes: Tensor) -> Tensor:
    """Harmonics with sample-wise amplitudes: `audio[n] = sum_h a_h[n] sin(h phase[n])`.

    Args:
      phase: Phase of the fundamental [batch, n_samples, 1].
      amplitudes: [batch, n_samples, n_harmonics].
    """
    numbers = constant(np.arange(1, amplitudes.shape[-1] + 1, dtype=np.float32))
    return ops.sum(amplitudes * ops.sin(phase.radians(numbers)), axis=-1)


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
    """
    del use_angular_cumsum
    frequencies, amplitudes = _controls(frequencies, amplitudes, harmonic_distribution, harmonic_shifts)
    if harmonic_shifts is None:
        return _harmonics(
            frequencies, amplitudes, initial_phase, n_samples, sample_rate, amp_resample_method
        )[0]
    numbers = np.arange(1, harmonic_shifts.shape[-1] + 1)
    harmonics = get_harmonic_frequencies(frequencies, len(numbers))
    shifts = harmonics * tf_float32(harmonic_shifts)
    # The fundamental's phase times h is exact; only the small shifts are rounded.
    half = _half(frequencies, sample_rate) * numbers + _half(shifts, sample_rate)
    return _sinusoids(
        harmonics + shifts, half, amplitudes, initial_phase, n_samples, sample_rate, amp_resample_method
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
    frequencies, amplitudes = _controls(frequencies, amplitudes, harmonic_distribution, None)
    return _harmonics(frequencies, amplitudes, initial_phase, n_samples, sample_rate, amp_resample_method)


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
    half = _half(frequencies, sample_rate)
    return _sinusoids(
        frequencies, half, amplitudes, initial_phase, n_samples, sample_rate, amp_resample_method
    )


def _half(hz: Tensor, sample_rate: int) -> Phase:
    """What half a frequency adds to the phase in a sample: see `frame_starts`."""
    return Phase.per_sample(hz / 2.0, float(sample_rate))


def _interpolated(frequencies: Tensor, half: Phase, n_samples: int, sample_rate: int) -> tuple[Tensor, Phase]:
    """Frequency and phase of each sample, from frequencies [batch, n_frames, ...] and their `_half`."""
    frequency, hop = resample(frequencies, n_samples), whole_hop(frequencies, n_samples)
    if hop is None:
        return frequency, Phase.per_sample(frequency, float(sample_rate)).cumsum()
    return frequency, frame_phase(frequencies, half, hop, float(sample_rate))


def _sinusoids(
    frequencies: Tensor,
    half: Phase,
    amplitudes: Tensor,
    initial_phase: Tensor | None,
    n_samples: int,
    sample_rate: int,
    method: str,
) -> Tensor:
    """Audio of sinusoids, from controls that are checked here: a kernel takes what it is given."""
    _check_frames(frequencies, amplitudes, n_samples, method)
    return _sinusoid_sum(frequencies, half, amplitudes, initial_phase, n_samples, sample_rate, method)


@kernel('sinusoids:sinusoid_sum')
def _sinusoid_sum(
    frequencies: Tensor,
    half: Phase,
    amplitudes: Tensor,
    initial_phase: Tensor | None,
    n_samples: int,
    sample_rate: int,
    method: str,
) -> Tensor:
    """Sinusoids from frame-wise frequencies and amplitudes [batch, n_frames, n_sinusoids]."""
    frequency, phase = _interpolated(frequencies, half, n_samples, sample_rate)
    envelopes = remove_above_nyquist(frequency, resample(amplitudes, n_samples, method=method), sample_rate)
    return ops.sum(envelopes * ops.sin(starting_at(initial_phase, phase).radians()), axis=-1)


def _controls(
    frequencies: Tensor, amplitudes: Tensor, distribution: Tensor | None, shifts: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Frequencies, and one amplitude a harmonic, as float32 tensors that fit each other."""
    frequencies, amplitudes = tf_float32(frequencies), tf_float32(amplitudes)
    named = {
        'frequencies': frequencies,
        'amplitudes': amplitudes,
        'harmonic_distribution': distribution,
        'harmonic_shifts': shifts,
    }
    for name, control in named.items():
        if control is not None and len(control.shape) != 3:
            raise ConfigError(f'{name} must be [batch, n_frames, channels], not {tuple(control.shape)}')
    if frequencies.shape[-1] != 1:
        raise ConfigError(f'frequencies must have one channel, the fundamental, not {frequencies.shape[-1]}')
    if distribution is not None:
        amplitudes = amplitudes * tf_float32(distribution)
    if shifts is not None and amplitudes.shape[-1] != shifts.shape[-1]:
        if amplitudes.shape[-1] != 1:
            raise ConfigError(
                f'harmonic_shifts has {shifts.shape[-1]} harmonics and harmonic_distribution '
                f'{amplitudes.shape[-1]}: '
                'they must have the same'
            )
        amplitudes = amplitudes * ops.ones_like(tf_float32(shifts))
    return frequencies, amplitudes


def _check_frames(frequencies: Tensor, amplitudes: Tensor, n_samples: Any, method: str) -> None:
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


def _harmonics(
    frequencies: Tensor,
    amplitudes: Tensor,
    initial_phase: Tensor | None,
    n_samples: int,
    sample_rate: int,
    method: str,
) -> tuple[Tensor, Tensor]:
    """Audio and last phase of the harmonics of one fundamental."""
    _check_frames(frequencies, amplitudes, n_samples, method)
    half = _half(frequencies, sample_rate)
    frequency, phase = _interpolated(frequencies, half, n_samples, sample_rate)
    phase = starting_at(initial_phase, phase)
    return _harmonic_sum(phase, frequency, amplitudes, n_samples, sample_rate, method), _last(phase)


@kernel('harmonics:harmonic_sum')
def _harmonic_sum(
    phase: Phase, frequency: Tensor, amplitudes: Tensor, n_samples: int, sample_rate: int, method: str
) -> Tensor:
    """Harmonics with frame-wise amplitudes.

    Args:
      phase: Phase of the fundamental [batch, n_samples, 1].
      frequency: Frequency of the fundamental [batch, n_samples, 1], Hz.
      amplitudes: [batch, n_frames, n_harmonics].
      n_samples: Samples of the result.
      sample_rate: Sample rate in Hz; harmonics of half of it and above are silent.
      method: How amplitudes are interpolated.
    """
    harmonics = get_harmonic_frequencies(frequency, amplitudes.shape[-1])
    envelopes = remove_above_nyquist(harmonics, resample(amplitudes, n_samples, method=method), sample_rate)
    return _bank(phase, envelopes)
