"""Conversions between units: decibels, hertz, MIDI, bark, mel, ERB."""

from __future__ import annotations

import math

import numpy as np
from keras import ops

from ddsp.core.math import logb
from ddsp.core.utils import Number, Tensor, tf_float32

DB_RANGE = 80.0  # dB below full scale that count as silence


def amplitude_to_db(
    amplitude: Number, ref_db: float = 0.0, range_db: float = DB_RANGE, use_tf: bool = True
) -> Number:
    """Amplitude to decibels.

    Args:
      amplitude: Amplitude, 1.0 is 0 dB.
      ref_db: Subtracted from the result, dB.
      range_db: The result is at least `-range_db`.
      use_tf: A tensor of the current backend; numpy otherwise.

    Returns:
      `power_to_db(amplitude ** 2)`.
    """
    amplitude = tf_float32(amplitude) if use_tf else np.asarray(amplitude)
    return power_to_db(amplitude * amplitude, ref_db, range_db, use_tf)


def power_to_db(
    power: Number, ref_db: float = 0.0, range_db: float = DB_RANGE, use_tf: bool = True
) -> Number:
    """Power to decibels.

    Args:
      power: Power, 1.0 is 0 dB.
      ref_db: Subtracted from the result, dB.
      range_db: Power is floored `range_db` below 1, and the result at `-range_db`.
      use_tf: A tensor of the current backend; numpy otherwise.

    Returns:
      `10 log10(power) - ref_db`, floored.
    """
    floor = 10.0 ** (-range_db / 10.0)
    if not use_tf:
        return np.maximum(10.0 * np.log10(np.maximum(floor, power)) - ref_db, -range_db)
    decibels = (10.0 / math.log(10.0)) * ops.log(ops.maximum(tf_float32(power), floor))
    return ops.maximum(decibels - ref_db, -range_db)


def db_to_amplitude(db: Number) -> Tensor:
    """Decibels to amplitude, `10 ** (db / 20)`."""
    return ops.power(10.0, tf_float32(db) / 20.0)


def db_to_power(db: Number) -> Tensor:
    """Decibels to power, `10 ** (db / 10)`."""
    return ops.power(10.0, tf_float32(db) / 10.0)


def midi_to_hz(notes: Number, midi_zero_silence: bool = False) -> Tensor:
    """MIDI note number to frequency.

    Args:
      notes: MIDI notes, fractions allowed; 69 is 440 Hz.
      midi_zero_silence: Note 0 gives 0 Hz.

    Returns:
      `440 * 2 ** ((notes - 69) / 12)`, Hz.

    >>> ops.convert_to_numpy(midi_to_hz([69.0, 81.0])).round(1)
    array([440., 880.], dtype=float32)
    """
    notes = tf_float32(notes)
    hz = 440.0 * ops.power(2.0, (notes - 69.0) / 12.0)
    return ops.where(notes == 0.0, ops.zeros_like(hz), hz) if midi_zero_silence else hz


def hz_to_midi(frequencies: Number) -> Tensor:
    """Frequency to MIDI note number.

    Args:
      frequencies: Hz.

    Returns:
      `12 log2(frequencies / 440) + 69`; 0 for frequencies of zero and below.

    >>> ops.convert_to_numpy(hz_to_midi([440.0, 261.63, 0.0])).round(2)
    array([69., 60.,  0.], dtype=float32)
    """
    frequencies = tf_float32(frequencies)
    notes = 12.0 * (logb(frequencies, 2.0) - logb(440.0, 2.0)) + 69.0
    return ops.where(frequencies <= 0.0, ops.zeros_like(notes), notes)


def unit_to_midi(
    unit: Number, midi_min: Number = 20.0, midi_max: Number = 90.0, clip: bool = False
) -> Tensor:
    """Maps [0, 1] to [midi_min, midi_max]; `clip` clips `unit` first."""
    unit = tf_float32(unit)
    unit = ops.clip(unit, 0.0, 1.0) if clip else unit
    return midi_min + (midi_max - midi_min) * unit


def midi_to_unit(
    midi: Number, midi_min: Number = 20.0, midi_max: Number = 90.0, clip: bool = False
) -> Tensor:
    """Maps [midi_min, midi_max] to [0, 1]; `clip` clips the result."""
    unit = (tf_float32(midi) - midi_min) / (midi_max - midi_min)
    return ops.clip(unit, 0.0, 1.0) if clip else unit


def unit_to_hz(unit: Number, hz_min: Number, hz_max: Number, clip: bool = False) -> Tensor:
    """Maps [0, 1] to [hz_min, hz_max], linear in pitch.

    Args:
      unit: Position in the range.
      hz_min: Frequency at 0, Hz. Zero stands for MIDI note 0 (8.18 Hz).
      hz_max: Frequency at 1, Hz.
      clip: Clips `unit` to [0, 1].

    Returns:
      Frequencies in Hz.
    """
    return midi_to_hz(unit_to_midi(unit, hz_to_midi(hz_min), hz_to_midi(hz_max), clip))


def hz_to_unit(hz: Number, hz_min: Number, hz_max: Number, clip: bool = False) -> Tensor:
    """Maps [hz_min, hz_max] to [0, 1], linear in pitch: the inverse of `unit_to_hz`."""
    return midi_to_unit(hz_to_midi(hz), hz_to_midi(hz_min), hz_to_midi(hz_max), clip)


def hz_to_bark(hz: Number) -> Tensor:
    """Frequency to critical-band rate, `26.81 hz / (1960 + hz) - 0.53` (Traunmüller, 1990)."""
    hz = tf_float32(hz)
    return 26.81 * hz / (hz + 1960.0) - 0.53  # with a slope at 0 Hz


def bark_to_hz(bark: Number) -> Tensor:
    """Critical-band rate to frequency: the inverse of `hz_to_bark`."""
    bark = tf_float32(bark) + 0.53
    return 1960.0 * bark / (26.81 - bark)


def hz_to_mel(hz: Number) -> Tensor:
    """Frequency to mel, `2595 log10(1 + hz / 700)` (the HTK formula)."""
    return 2595.0 * logb(1.0 + tf_float32(hz) / 700.0, 10.0)


def mel_to_hz(mel: Number) -> Tensor:
    """Mel to frequency: the inverse of `hz_to_mel`."""
    return 700.0 * (ops.power(10.0, tf_float32(mel) / 2595.0) - 1.0)


def hz_to_erb(hz: Number) -> Tensor:
    """Equivalent rectangular bandwidth at a frequency, `0.108 hz + 24.7` Hz (Glasberg and Moore, 1990)."""
    return 0.108 * tf_float32(hz) + 24.7
