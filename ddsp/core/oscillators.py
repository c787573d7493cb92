"""Oscillator banks."""

from __future__ import annotations

from typing import Any

import gin
import numpy as np
from keras import ops

from ddsp.core.blocks import custom_gradient, map_blocks
from ddsp.core.harmonic_bank import harmonic_sum
from ddsp.core.harmonics import get_harmonic_frequencies, normalize_harmonics, remove_above_nyquist
from ddsp.core.phase import (
    TWO_PI,
    accumulate_radians,
    delay_one,
    following,
    frame_phase,
    frame_starts,
    multiple,
    phase_carrier,
    sample_phase,
    turns_per_sample,
    wrap,
)
from ddsp.core.resampling import METHODS, block_mixing, frame_mixing, resample, shift_frames
from ddsp.core.sinusoid_bank import sinusoid_sum
from ddsp.core.utils import Tensor, constant, dim, tf_float32
from ddsp.errors import ConfigError

_ROW = 64  # samples in a row where frames are not a whole number of samples
_BLOCK_SAMPLES = 8192


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
    """Sinusoids from sample-wise frequencies and amplitudes.

    `audio[n] = a[n] sin(2 pi (f[0] + ... + f[n]) / sample_rate)`, silent where f reaches half the sample
    rate. From frame-wise controls, `sinusoidal_synthesis` and `harmonic_synthesis` are much cheaper.

    Args:
      frequency_envelopes: [batch, n_samples, n_sinusoids], Hz.
      amplitude_envelopes: [batch, n_samples, n_sinusoids].
      sample_rate: Samples a second.
      sum_sinusoids: Add the sinusoids up.
      use_angular_cumsum: Not used; upstream's configurations set it. The phase is exact either way.

    Returns:
      [batch, n_samples], or [batch, n_samples, n_sinusoids] when not summed.
    """
    del use_angular_cumsum
    frequency_envelopes = tf_float32(frequency_envelopes)
    amplitude_envelopes = remove_above_nyquist(frequency_envelopes, amplitude_envelopes, sample_rate)
    coarse, fine = sample_phase(frequency_envelopes, float(sample_rate))
    angle = ops.stop_gradient(multiple(coarse, fine, 1.0))
    audio = amplitude_envelopes * ops.sin(angle + phase_carrier(frequency_envelopes / float(sample_rate)))
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
      sample_rate: Samples a second.
      use_angular_cumsum: Not used; upstream's configurations set it. The phase is exact either way.

    Returns:
      Audio [batch, n_samples], and the fundamental's last phase [batch, 1, 1], radians within half a turn
      of zero: the `initial_phase` of what follows.
    """
    del use_angular_cumsum
    frequency, amplitude_envelopes = tf_float32(frequency)[:, :, 0], tf_float32(amplitude_envelopes)
    coarse, fine = sample_phase(frequency, float(sample_rate))
    carrier = phase_carrier(frequency / float(sample_rate))
    coarse, carrier = _add_initial_phase(coarse, carrier, initial_phase)
    audio = _bank(coarse, fine, carrier, amplitude_envelopes)
    return audio, _final_phase(coarse, fine, carrier)


def _add_initial_phase(
    coarse: Tensor, carrier: Tensor, initial_phase: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Adds radians [batch, 1, 1] to a phase [batch, n_samples] in turns, and lets their gradient through."""
    if initial_phase is None:
        return coarse, carrier
    initial_phase = tf_float32(initial_phase)[:, :, 0]
    constant = ops.stop_gradient(initial_phase)
    return coarse + wrap(constant / TWO_PI), carrier + (initial_phase - constant)


def _final_phase(coarse: Tensor, fine: Tensor, carrier: Tensor) -> Tensor:
    last = ops.stop_gradient(multiple(coarse[:, -1:], fine[:, -1:], 1.0))
    return (last + carrier[:, -1:])[:, :, None]


def _bank(coarse: Tensor, fine: Tensor, carrier: Tensor, amplitudes: Tensor) -> Tensor:
    """Harmonics with sample-wise amplitudes, some samples at a time: no second array of that size is made."""
    n_harmonics, n_samples = amplitudes.shape[-1], dim(amplitudes, 1)
    numbers = constant(np.arange(1, n_harmonics + 1, dtype=np.float32))

    def flat(x: Tensor) -> Tensor:
        return ops.reshape(x, [-1, 1])

    def audio(coarse: Tensor, fine: Tensor, amplitudes: Tensor) -> list:
        return [ops.sum(amplitudes * ops.sin(multiple(coarse, fine, numbers)), axis=-1, keepdims=True)]

    def gradients(coarse: Tensor, fine: Tensor, amplitudes: Tensor, upstream: Tensor) -> list:
        angle = multiple(coarse, fine, numbers)
        to_phase = upstream * ops.sum(amplitudes * numbers * ops.cos(angle), axis=-1, keepdims=True)
        return [to_phase, upstream * ops.sin(angle)]

    @custom_gradient
    def synthesize(carrier: Tensor, amplitudes: Tensor) -> Any:
        arrays = [flat(coarse), flat(fine), amplitudes]

        def backward(upstream: Tensor) -> list:
            return map_blocks(gradients, [*arrays, upstream], _BLOCK_SAMPLES, [[1], [n_harmonics]])

        return map_blocks(audio, arrays, _BLOCK_SAMPLES, [[1]])[0], backward

    return ops.reshape(synthesize(flat(carrier), ops.reshape(amplitudes, [-1, n_harmonics])), [-1, n_samples])


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
      sample_rate: Samples a second.
      amp_resample_method: How amplitudes are interpolated: see `resample`.
      use_angular_cumsum: Not used; upstream's configurations set it. The phase is exact either way.

    Returns:
      Audio [batch, n_samples].

    Raises:
      ConfigError: Shapes that do not fit each other, or an unknown method.
    """
    del use_angular_cumsum
    frequencies, amplitudes = _controls(frequencies, amplitudes, harmonic_distribution, harmonic_shifts)
    if harmonic_shifts is not None:
        harmonics = get_harmonic_frequencies(frequencies, harmonic_shifts.shape[-1])
        shifts = harmonics * tf_float32(harmonic_shifts)
        # The fundamental's phase times h is exact; only the small shifts are rounded.
        numbers = constant(np.arange(1, harmonic_shifts.shape[-1] + 1, dtype=np.float32))
        parts = [
            fundamental * numbers + shift
            for fundamental, shift in zip(
                turns_per_sample(ops.stop_gradient(frequencies), float(sample_rate)),
                turns_per_sample(ops.stop_gradient(shifts), float(sample_rate)),
                strict=True,
            )
        ]
        return _sinusoids(harmonics + shifts, parts, amplitudes, n_samples, sample_rate, amp_resample_method)
    return _harmonics(frequencies, amplitudes, None, n_samples, sample_rate, amp_resample_method)[0]


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
      sample_rate: Samples a second.
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
) -> Tensor:
    """Sum of sinusoids from frame-wise frequencies and amplitudes.

    The same as `oscillator_bank` of the resampled controls, without arrays of [batch, n_samples,
    n_sinusoids].

    Args:
      frequencies: [batch, n_frames, n_sinusoids], Hz; linear between frames.
      amplitudes: [batch, n_frames, n_sinusoids].
      n_samples: Samples of the result.
      sample_rate: Samples a second; sinusoids are silent where they reach half of it.
      amp_resample_method: How amplitudes are interpolated: see `resample`.

    Returns:
      Audio [batch, n_samples].
    """
    frequencies = tf_float32(frequencies)
    parts = turns_per_sample(ops.stop_gradient(frequencies), float(sample_rate))
    return _sinusoids(frequencies, parts, tf_float32(amplitudes), n_samples, sample_rate, amp_resample_method)


def _sinusoids(
    frequencies: Tensor, parts: Any, amplitudes: Tensor, n_samples: Any, sample_rate: int, method: str
) -> Tensor:
    """`sinusoidal_synthesis` with the frequencies' `turns_per_sample`."""
    hop = _hop(frequencies, amplitudes, n_samples, method)
    if hop is None:
        envelopes = resample(amplitudes, n_samples, method=method)
        return oscillator_bank(resample(frequencies, n_samples), envelopes, sample_rate)
    n_sinusoids = frequencies.shape[-1]
    starts = frame_starts(parts, hop)
    ahead = following(frequencies)
    # The gradient of the phase before a frame goes to all earlier frames.
    turns = (hop * frequencies + (hop - 1) / 2.0 * (ahead - frequencies)) / float(sample_rate)
    carrier = phase_carrier(delay_one(turns))
    offsets, mixing = frame_mixing(method, hop)
    sets = ops.stack([shift_frames(amplitudes, offset) for offset in offsets], axis=2)
    rows = [ops.reshape(x, [-1, n_sinusoids]) for x in (*starts, carrier, frequencies, ahead)]
    audio = sinusoid_sum(
        (rows[0], rows[1]),
        rows[2],
        rows[3],
        rows[4],
        ops.reshape(sets, [-1, len(offsets), n_sinusoids]),
        mixing,
        float(sample_rate),
    )
    return ops.reshape(audio, [-1, n_samples])


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


def _hop(frequencies: Tensor, amplitudes: Tensor, n_samples: Any, method: str) -> int | None:
    """Samples in a frame, if that is a whole number and known."""
    if method not in METHODS:
        raise ConfigError(
            f'amp_resample_method={method!r} is unknown: use one of {", ".join(map(repr, METHODS))}'
        )
    n_frames = frequencies.shape[1]
    if n_frames != amplitudes.shape[1]:
        raise ConfigError(
            f'frequencies has {n_frames} frames and amplitudes {amplitudes.shape[1]}: they must have the same'
        )
    if n_frames is None or not isinstance(n_samples, int):
        return None
    if n_frames > n_samples:
        raise ConfigError(f'{n_frames} frames are more than n_samples={n_samples}')
    return None if n_samples % n_frames else n_samples // n_frames


def _harmonics(
    frequencies: Tensor,
    amplitudes: Tensor,
    initial_phase: Tensor | None,
    n_samples: Any,
    sample_rate: int,
    method: str,
) -> tuple[Tensor, Tensor]:
    """Audio and last phase of the harmonics of one fundamental."""
    hop = _hop(frequencies, amplitudes, n_samples, method)
    frequency = resample(frequencies, n_samples)[:, :, 0]
    if hop is not None:
        coarse, fine = frame_phase(ops.stop_gradient(frequencies)[:, :, 0], hop, float(sample_rate))
        coarse, fine = ops.reshape(coarse, [-1, n_samples]), ops.reshape(fine, [-1, n_samples])
    else:
        coarse, fine = sample_phase(frequency, float(sample_rate))
    carrier = phase_carrier(frequency / float(sample_rate))
    coarse, carrier = _add_initial_phase(coarse, carrier, initial_phase)
    last = _final_phase(coarse, fine, carrier)
    waves = [coarse, fine, carrier, ops.stop_gradient(frequency)]
    if hop is not None:
        offsets, mixing = frame_mixing(method, hop)
        sets = ops.stack([shift_frames(amplitudes, offset) for offset in offsets], axis=2)
        return _in_rows(waves, sets, mixing, n_samples, hop, sample_rate), last
    if frequencies.shape[1] is not None and isinstance(n_samples, int):
        frames, mixing = block_mixing(method, frequencies.shape[1], n_samples, _ROW)
        sets = ops.reshape(
            ops.take(amplitudes, frames.reshape(-1), axis=1), [-1, *frames.shape, amplitudes.shape[-1]]
        )
        mixing = ops.broadcast_to(mixing[None], [dim(sets, 0), *mixing.shape])
        return _in_rows(waves, sets, mixing, n_samples, _ROW, sample_rate), last
    numbers = constant(np.arange(1, amplitudes.shape[-1] + 1, dtype=np.float32))
    envelopes = resample(amplitudes, n_samples, method=method)
    envelopes = remove_above_nyquist(frequency[:, :, None] * numbers, envelopes, sample_rate)
    return _bank(waves[0], waves[1], waves[2], envelopes), last


def _in_rows(waves: list, sets: Tensor, mixing: Any, n_samples: int, size: int, sample_rate: int) -> Tensor:
    """`harmonic_sum` of [batch, n_samples] waves and [batch, n_rows, n_sets, n_harmonics] amplitudes."""
    missing = -n_samples % size
    # A row's frequency is compared at its ends, so the last row is filled up with its last value.
    *waves, frequency = waves
    if missing:
        waves = [ops.pad(x, [[0, 0], [0, missing]]) for x in waves]
        frequency = ops.concatenate([frequency, *[frequency[:, -1:]] * missing], axis=1)
    rows = [ops.reshape(x, [-1, size]) for x in (*waves, frequency)]
    sets = ops.reshape(sets, [-1, *sets.shape[2:]])
    if len(mixing.shape) == 4:
        mixing = ops.reshape(mixing, [-1, *mixing.shape[2:]])
    audio = harmonic_sum(rows[0], rows[1], rows[2], rows[3], sets, mixing, sample_rate / 2.0)
    return ops.reshape(audio, [-1, n_samples + missing])[:, :n_samples]
