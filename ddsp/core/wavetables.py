"""Wavetable lookup and variable delay, by gather."""

from __future__ import annotations

from collections.abc import Callable

from keras import ops

from ddsp.core.oscillators import TWO_PI, accumulate_phase
from ddsp.core.resampling import positions, resample
from ddsp.core.utils import Tensor, constant, dim, tf_float32
from ddsp.errors import ConfigError


def linear_lookup(phase: Tensor, wavetables: Tensor) -> Tensor:
    """Reads periodic tables with linear interpolation.

    Args:
      phase: Position in the table [batch, n_samples, 1] or [batch, n_samples], 0 to 1; outside it wraps
        around.
      wavetables: One table for each batch item [batch, n_wavetable], or for each sample
        [batch, n_samples, n_wavetable]; or a batch of 1 for all.

    Returns:
      [batch, n_samples].

    Raises:
      ConfigError: `phase` and `wavetables` differ in batch or samples.

    >>> ops.convert_to_numpy(linear_lookup([[0.0, 0.125, 0.25]], [[0.0, 1.0, 0.0, -1.0]])).tolist()
    [[0.0, 0.5, 1.0]]
    """
    phase, wavetables = tf_float32(phase), tf_float32(wavetables)
    phase = phase[:, :, 0] if len(phase.shape) == 3 else phase
    each_sample = len(wavetables.shape) == 3
    # Some backends would read other items' tables, or nothing, without a word.
    batches = {phase.shape[0], wavetables.shape[0]} - {1, None}
    samples = {phase.shape[1], wavetables.shape[1] if each_sample else None} - {None}
    if len(batches) > 1 or len(samples) > 1:
        raise ConfigError(
            f'phase is {tuple(phase.shape)} and wavetables {tuple(wavetables.shape)}: [batch, n_samples] '
            'needs [batch, n_wavetable] or [batch, n_samples, n_wavetable]'
        )
    if each_sample:
        return _read(wavetables, [ops.arange(dim(phase, 1), dtype='int32')], phase)[0]
    return _read(wavetables[:, None, :], [0], phase)[0]


def _read(tables: Tensor, rows: list, phase: Tensor, scale_fn: Callable | None = None) -> list[Tensor]:
    """Linear readings of some tables, in one gather, whose gradient is then one scatter.

    Args:
      tables: [batch, n_tables, n_wavetable].
      rows: For each reading, which table each sample reads: an int or [n_samples].
      phase: [batch, n_samples], turns; whole turns do not count.
      scale_fn: Element-wise function of the values that are read.

    Returns:
      [batch, n_samples] for each reading.
    """
    n_tables, n_wavetable = dim(tables, 1), tables.shape[2]
    position = (phase - ops.floor(phase)) * float(n_wavetable)  # before it is an integer, which may overflow
    fraction = position - ops.floor(position)
    first = ops.mod(ops.cast(ops.floor(position), 'int32'), n_wavetable)
    item = ops.reshape(ops.arange(dim(tables, 0), dtype='int32') * n_tables, [-1, 1])
    starts = [(item + constant(row)) * n_wavetable for row in rows]
    ends = (first, ops.mod(first + 1, n_wavetable))
    index = ops.stack([start + end for start in starts for end in ends], axis=0)
    values = ops.take(ops.reshape(tables, [-1]), index, axis=0)
    values = values if scale_fn is None else scale_fn(values)
    return [values[i] + fraction * (values[i + 1] - values[i]) for i in range(0, 2 * len(rows), 2)]


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
        raise ConfigError(
            f'n_wavetable={n_wavetable} holds {n_wavetable // 2} harmonics, not {n_harmonics}: '
            f'{2 * n_harmonics} is the least'
        )
    widths = [[0, 0]] * (len(harmonic_distribution.shape) - 1) + [[1, n_wavetable // 2 - n_harmonics]]
    spectrum = ops.pad(harmonic_distribution, widths)
    return ops.irfft((spectrum, ops.zeros_like(spectrum)), fft_length=n_wavetable) * (n_wavetable / 2)


def wavetable_synthesis(
    frequencies: Tensor,
    amplitudes: Tensor,
    wavetables: Tensor,
    n_samples: int = 64000,
    sample_rate: int = 16000,
    scale_fn: Callable[[Tensor], Tensor] | None = None,
    initial_phase: Tensor | None = None,
) -> Tensor:
    """Plays wavetables at a frequency and an amplitude.

    Tables are read in place, and cross-faded linearly from frame to frame; nothing is band-limited.

    Args:
      frequencies: [batch, n_frames, 1], Hz; linear between frames.
      amplitudes: [batch, n_frames, 1]; cross-faded between frames.
      wavetables: One table [batch, n_wavetable], or one a frame [batch, n_table_frames, n_wavetable].
      n_samples: Samples of the result.
      sample_rate: Sample rate in Hz.
      scale_fn: Element-wise function of the tables, applied to the values that are read.
      initial_phase: Phase of the first sample [batch, 1, 1], radians; None is zero.

    Returns:
      Audio [batch, n_samples].
    """
    wavetables = tf_float32(wavetables)
    wavetables = wavetables[:, None, :] if len(wavetables.shape) == 2 else wavetables
    amplitude = resample(amplitudes, n_samples, method='window')[:, :, 0]
    phase = accumulate_phase(resample(frequencies, n_samples), sample_rate)
    phase = ops.pad(phase[:, :-1], [[0, 0], [1, 0], [0, 0]])  # the first sample reads where the table begins
    phase = phase if initial_phase is None else phase + tf_float32(initial_phase)
    phase = phase[:, :, 0] / TWO_PI
    if wavetables.shape[1] == 1:
        return amplitude * _read(wavetables, [0], phase, scale_fn)[0]
    n_frames = dim(wavetables, 1)
    frame, fraction = positions(n_frames, n_samples, True, 'linear')
    before, after = _read(wavetables, [frame, ops.minimum(frame + 1, n_frames - 1)], phase, scale_fn)
    return amplitude * (before + tf_float32(fraction) * (after - before))


def variable_length_delay(phase: Tensor, audio: Tensor, max_length: int = 512) -> Tensor:
    """Delays audio by a time that changes with each sample.

    Args:
      phase: Delay as a share of `max_length`, [batch, n_samples, 1]; clipped to 0 to 1.
      audio: [batch, n_samples].
      max_length: Longest delay, samples.

    Returns:
      [batch, n_samples], linear between whole delays; silence precedes the first sample.

    Raises:
      ConfigError: `phase` and `audio` differ in length.
    """
    phase, audio = tf_float32(phase)[:, :, 0], tf_float32(audio)
    if phase.shape[1] != audio.shape[1]:
        raise ConfigError(
            f'phase has {phase.shape[1]} samples and audio {audio.shape[1]}: they must have the same'
        )
    n_samples = dim(audio, 1)
    delay = ops.clip(phase, 0.0, 1.0) * float(max_length)
    whole = ops.floor(delay)
    padded = ops.pad(audio, [[0, 0], [max_length + 1, 0]])
    length = n_samples + max_length + 1
    item = ops.reshape(ops.arange(dim(audio, 0), dtype='int32') * length, [-1, 1])
    newer = item + ops.arange(n_samples, dtype='int32') + (max_length + 1) - ops.cast(whole, 'int32')
    values = ops.take(ops.reshape(padded, [-1]), ops.stack([newer, newer - 1], axis=0), axis=0)
    return values[0] + (delay - whole) * (values[1] - values[0])
