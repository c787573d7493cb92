"""A-weighted loudness with numpy alone, for the workers of pipelines.

`ddsp.spectral_ops.compute_loudness` gives the same numbers as part of a differentiable graph.
"""

from __future__ import annotations

import numpy as np
import scipy.fft

from ddsp.errors import ConfigError

RANGE_DB = 80.0
_BATCH = 1024  # frames at once
# Squares of the pole frequencies of the A curve, in Hz (IEC 61672-1).
_POLES = np.array([12194.217, 20.598997, 107.65265, 737.86223]) ** 2
_MIN_WEIGHT_DB = -80.0


def a_weighting_db(frequencies: np.ndarray) -> np.ndarray:
    """The A curve of IEC 61672-1, not below -80 dB.

    Args:
      frequencies: In Hz, any shape.

    Returns:
      Weights in dB, the same shape; 0 dB at 1 kHz.
    """
    square = np.square(np.asarray(frequencies, np.float64))
    with np.errstate(divide='ignore'):
        weight = 2.0 + 20 * (
            np.log10(_POLES[0]) + 2 * np.log10(square) - np.log10(square + _POLES[0]) - np.log10(square + _POLES[1])
            - 0.5 * np.log10(square + _POLES[2]) - 0.5 * np.log10(square + _POLES[3])
        )  # fmt: skip
    return np.maximum(weight, _MIN_WEIGHT_DB)


def loudness_db(
    audio: np.ndarray,
    sample_rate: int = 16000,
    frame_rate: float = 250,
    *,
    n_fft: int = 512,
    range_db: float = RANGE_DB,
    ref_db: float = 0.0,
    padding: str = 'center',
) -> np.ndarray:
    """Loudness of a mono signal: mean of the A-weighted power spectrum, in dB.

    `10 log10(mean_k(10^(A_k / 10) |STFT_k|^2)) - ref_db`, not below `-range_db`, with a Hann window that is not
    normalised: a full-scale sine at 1 kHz gives about +20 dB.

    Args:
      audio: Signal [n_samples].
      sample_rate: In Hz; a multiple of `frame_rate`.
      frame_rate: Frames per second.
      n_fft: Window and FFT length, even.
      range_db: Floor below 0 dB.
      ref_db: Subtracted.
      padding: `'center'`: frame i is centred on sample i * hop, floor(n_samples / hop) + 1 frames. `'same'`: it
        begins there, ceil(n_samples / hop) frames. `'valid'`: it begins there, whole windows only.

    Returns:
      Loudness [n_frames], float32, dB.

    Raises:
      ConfigError: `padding` has no such value, or the rates do not divide.
    """
    hop = sample_rate / frame_rate
    if hop != int(hop):
        raise ConfigError(f'frame_rate must divide sample_rate, got {frame_rate} and {sample_rate}')
    frames = _frames(np.asarray(audio, np.float32), int(hop), n_fft, padding)
    window = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n_fft) / n_fft)).astype(np.float32)
    weights = 10 ** (a_weighting_db(np.fft.rfftfreq(n_fft, 1 / sample_rate)) / 10)
    weights = (weights / len(weights)).astype(np.float32)
    power = np.empty(len(frames), np.float32)
    for first in range(0, len(frames), _BATCH):
        spectrum = scipy.fft.rfft(frames[first : first + _BATCH] * window, axis=1)
        power[first : first + _BATCH] = (np.square(spectrum.real) + np.square(spectrum.imag)) @ weights
    decibels = 10 * np.log10(np.maximum(power, 10 ** (-range_db / 10))) - ref_db
    return np.maximum(decibels, -range_db).astype(np.float32)


def _frames(audio: np.ndarray, hop: int, n_fft: int, padding: str) -> np.ndarray:
    """Windows [n_frames, n_fft] as a view."""
    if padding == 'center':
        audio = np.pad(audio, n_fft // 2)
        n_frames = (len(audio) - n_fft) // hop + 1
    elif padding == 'same':
        n_frames = -(-len(audio) // hop)
        audio = np.pad(audio, (0, max(0, (n_frames - 1) * hop + n_fft - len(audio))))
    elif padding == 'valid':
        n_frames = max(0, (len(audio) - n_fft) // hop + 1)
    else:
        raise ConfigError(f"padding must be 'center', 'same' or 'valid', got {padding!r}")
    if n_frames <= 0:
        return np.zeros((0, n_fft), np.float32)
    return np.lib.stride_tricks.sliding_window_view(audio, n_fft)[::hop][:n_frames]
