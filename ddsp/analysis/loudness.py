"""A-weighted loudness of a recording, in numpy.

Data preparation computes loudness in many small worker processes, so this module imports neither Keras nor a
backend. `ddsp.spectral_ops.compute_loudness` is the differentiable version with the same numbers.
"""

from __future__ import annotations

import functools

import numpy as np
import scipy.fft

from ddsp.analysis.framing import frame_positions, hann_window, nearest_samples
from ddsp.errors import ConfigError

DB_RANGE = 80.0  # dB between full scale and the floor below which everything counts as silence
_CHUNK_FRAMES = 256  # frames that are transformed at once: bounds memory, keeps the work in the cache


def a_weighting_db(frequencies: np.ndarray, min_db: float = -80.0) -> np.ndarray:
    """A-weighting curve: how much quieter than a 1 kHz tone of the same level a tone seems.

    IEC 61672-1:2013, Annex E:
    `A(f) = 2.0 + 20 log10(f4^2 F^2 / ((F + f1^2) (F + f4^2) sqrt((F + f2^2) (F + f3^2))))`, with F = f^2.

    Args:
      frequencies: [n], Hz.
      min_db: Floor, also the value at 0 Hz, where the curve has no finite value.

    Returns:
      [n], dB; 0 at 1 kHz.

    Example:
      >>> a_weighting_db(np.array([100.0, 1000.0])).round(1) + 0.0
      array([-19.1,   0. ])
    """
    f1, f2, f3, f4 = 20.598997, 107.65265, 737.86223, 12194.217  # Hz: the poles of the curve
    squared = np.asarray(frequencies, np.float64) ** 2
    gain = (f4**2 * squared**2) / (
        (squared + f1**2) * (squared + f4**2) * np.sqrt((squared + f2**2) * (squared + f3**2))
    )
    with np.errstate(divide='ignore'):
        return np.maximum(min_db, 2.0 + 20.0 * np.log10(gain))


@functools.lru_cache(maxsize=32)
def a_weighting_power(sample_rate: float, n_fft: int) -> np.ndarray:
    """A-weighting as a factor on the power of each bin of a real FFT; [n_fft // 2 + 1] float32."""
    weights = 10.0 ** (a_weighting_db(np.fft.rfftfreq(n_fft, 1.0 / sample_rate)) / 10.0)
    weights = weights.astype(np.float32)
    weights.setflags(write=False)  # shared by all callers
    return weights


def check_n_fft(n_fft: int) -> None:
    """Raises a ConfigError unless n_fft is an even number of samples."""
    if n_fft < 2 or n_fft % 2:
        raise ConfigError(
            f'n_fft is {n_fft}; an even number of samples is needed, such as {max(2, n_fft + 1)}'
        )


def loudness_db(
    audio: np.ndarray,
    sample_rate: float = 16000,
    frame_rate: float = 250,
    n_fft: int = 512,
    range_db: float = DB_RANGE,
    ref_db: float = 0.0,
    padding: str = 'center',
) -> np.ndarray:
    """Loudness of audio, frame by frame: mean A-weighted power of the spectrum, in dB.

    The power is not divided by the gain of the window: a full-scale sine at 1 kHz has about +19.8 dB at
    n_fft=512. Silence is `-range_db`.

    Args:
      audio: [n_samples] or [batch, n_samples], full scale is 1.0.
      sample_rate: Sample rate in Hz.
      frame_rate: Frames per second; it need not divide the sample rate.
      n_fft: Length of the analysis window and of the FFT, samples (even).
      range_db: Floor of the result, dB below 0.
      ref_db: Subtracted from the result, dB.
      padding: 'center' (frame i is centred on its time: n_samples // hop + 1 frames), 'same' or 'valid'.

    Returns:
      [n_frames] or [batch, n_frames] float32, dB.

    Raises:
      ConfigError: Unknown padding, rates that do not fit, odd n_fft, or audio of the wrong rank.

    Example:
      >>> loudness_db(np.zeros(16000)).shape
      (251,)
    """
    check_n_fft(n_fft)
    audio = np.asarray(audio, np.float32)
    if audio.ndim not in (1, 2):
        raise ConfigError(f'audio has shape {audio.shape}; it can be [n_samples] or [batch, n_samples]')
    if audio.ndim == 2:
        options = (sample_rate, frame_rate, n_fft, range_db, ref_db, padding)
        return np.stack([loudness_db(row, *options) for row in audio])
    hop, n_frames, widths = frame_positions(len(audio), sample_rate, frame_rate, n_fft, padding)
    if n_frames < 1:
        raise ConfigError(f'audio has {len(audio)} samples, less than one frame of n_fft={n_fft}')
    padded = np.pad(audio, widths)
    frames = np.lib.stride_tricks.sliding_window_view(padded, n_fft)
    starts = nearest_samples(n_frames, hop)
    weights = a_weighting_power(sample_rate, n_fft)
    window = hann_window(n_fft)
    power = np.empty(n_frames, np.float32)
    for i in range(0, n_frames, _CHUNK_FRAMES):
        spectrum = scipy.fft.rfft(frames[starts[i : i + _CHUNK_FRAMES]] * window, overwrite_x=True)
        energy = spectrum.real**2 + spectrum.imag**2
        power[i : i + _CHUNK_FRAMES] = energy @ weights / len(weights)
    floor = 10.0 ** (-range_db / 10.0)
    return np.maximum(10.0 * np.log10(np.maximum(floor, power)) - ref_db, -range_db).astype(np.float32)


def power_db(
    audio: np.ndarray,
    sample_rate: float = 16000,
    frame_rate: float = 250,
    frame_size: int = 512,
    range_db: float = DB_RANGE,
    padding: str = 'center',
) -> np.ndarray:
    """Power of audio, frame by frame: the mean square in dB, as `ddsp.spectral_ops.compute_power` has it.

    Args:
      audio: [n_samples], full scale is 1.0.
      sample_rate: Sample rate in Hz.
      frame_rate: Frames per second; it need not divide the sample rate.
      frame_size: Length of a frame, samples (even).
      range_db: Floor of the result, dB below 0.
      padding: 'center' (frame i is centred on its time: n_samples // hop + 1 frames), 'same' or 'valid'.

    Returns:
      [n_frames] float32, dB; a full-scale sine has -3.

    Raises:
      ConfigError: Unknown padding, or rates that do not fit.
    """
    check_n_fft(frame_size)
    audio = np.asarray(audio, np.float32)
    hop, n_frames, widths = frame_positions(len(audio), sample_rate, frame_rate, frame_size, padding)
    energy = np.cumsum(np.square(np.pad(audio, widths), dtype=np.float64))
    energy = np.concatenate(([0.0], energy))
    starts = nearest_samples(n_frames, hop)
    power = (energy[starts + frame_size] - energy[starts]) / frame_size
    floor = 10.0 ** (-range_db / 10.0)
    return (10.0 * np.log10(np.maximum(power, floor))).astype(np.float32)
