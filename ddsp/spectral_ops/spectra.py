"""Spectrograms: STFT, magnitude, mel, cepstrum."""

from __future__ import annotations

import functools
from typing import Any

import gin
import numpy as np
from keras import ops

from ddsp import core
from ddsp.analysis.framing import check_hop, get_framed_lengths, hann_window
from ddsp.core import Tensor
from ddsp.core.utils import constant
from ddsp.errors import ConfigError
from ddsp.spectral_ops.frames import frame, to_mono


def hop_from_overlap(frame_size: int, overlap: float) -> int:
    """Hop in samples of frames that overlap by a share of their size, to the nearest sample."""
    if not 0.0 <= overlap < 1.0:
        raise ConfigError(f'overlap is {overlap}; it is a share of the frame: at least 0 and below 1')
    hop_size = round(frame_size * (1.0 - overlap))
    check_hop(frame_size, hop_size)
    return hop_size


def stft_parts(
    audio: Tensor, frame_size: int, hop_size: int, fft_length: int, pad_end: bool
) -> tuple[Tensor, Tensor]:
    """Real and imaginary part of the STFT; [..., n_frames, fft_length // 2 + 1] each."""
    n_samples = audio.shape[-1]
    if not pad_end and n_samples is not None and n_samples < frame_size:
        raise ConfigError(
            f'audio has {n_samples} samples, less than one frame of {frame_size}: pass pad_end=True'
        )
    frames = frame(audio, frame_size, hop_size, pad_end) * constant(hann_window(frame_size))
    return ops.rfft(frames, fft_length=fft_length)


def stft(audio: Tensor, frame_size: int = 2048, overlap: float = 0.75, pad_end: bool = True) -> Tensor:
    """Short-time Fourier transform with a periodic Hann window; differentiable.

    Frame i starts at sample `i * hop`, hop = `frame_size * (1 - overlap)` rounded to a sample. The FFT has
    the next power of two of `frame_size` points.

    Args:
      audio: [batch, n_samples], [batch, n_samples, 1] or [n_samples].
      frame_size: Length of the window, samples.
      overlap: Share of a frame that the next one repeats, in [0, 1).
      pad_end: Zero-pad so that there are `ceil(n_samples / hop)` frames.

    Returns:
      [batch, n_frames, n_bins] complex64, without the batch axis for audio of one dimension.

    Raises:
      ConfigError: Audio of the wrong rank or shorter than a frame, or overlap out of range.

    Example:
      >>> tuple(stft(np.zeros((2, 16000)), frame_size=512).shape)
      (2, 125, 257)
    """
    fft_length = 1 << (frame_size - 1).bit_length()
    hop_size = hop_from_overlap(frame_size, overlap)
    parts = stft_parts(to_mono(audio), frame_size, hop_size, fft_length, pad_end)
    return ops.view_as_complex(ops.stack(parts, axis=-1))


def stft_np(
    audio: np.ndarray, frame_size: int = 2048, overlap: float = 0.75, pad_end: bool = True
) -> np.ndarray:
    """Short-time Fourier transform of `stft` in numpy; the FFT has `frame_size` points.

    Args:
      audio: [batch, n_samples] or [n_samples].
      frame_size: Length of the window, samples.
      overlap: Share of a frame that the next one repeats, in [0, 1).
      pad_end: Zero-pad so that there are `ceil(n_samples / hop)` frames.

    Returns:
      [batch, n_frames, frame_size // 2 + 1] complex64, without the batch axis for audio of one dimension.
    """
    audio = np.asarray(audio, np.float32)
    hop_size = hop_from_overlap(frame_size, overlap)
    padding = 'same' if pad_end else 'valid'
    n_frames, length = get_framed_lengths(audio.shape[-1], frame_size, hop_size, padding)
    if n_frames < 1:
        raise ConfigError(f'audio has {audio.shape[-1]} samples, less than one frame of {frame_size}')
    missing = max(0, length - audio.shape[-1])
    audio = np.pad(audio, [(0, 0)] * (audio.ndim - 1) + [(0, missing)])
    frames = np.lib.stride_tricks.sliding_window_view(audio, frame_size, axis=-1)[..., ::hop_size, :]
    return np.fft.rfft(frames[..., :n_frames, :] * hann_window(frame_size)).astype(np.complex64)


def magnitude(real: Tensor, imag: Tensor) -> Tensor:
    """`sqrt(real^2 + imag^2)`; its gradient is zero, not NaN, at digital silence."""
    return core.safe_sqrt(real * real + imag * imag)


@gin.register(module='ddsp.spectral_ops')
def compute_mag(audio: Tensor, size: int = 2048, overlap: float = 0.75, pad_end: bool = True) -> Tensor:
    """Magnitude spectrogram, `|stft(audio)|`.

    Args:
      audio: [batch, n_samples], [batch, n_samples, 1] or [n_samples].
      size: Length of the window, samples.
      overlap: Share of a frame that the next one repeats, in [0, 1).
      pad_end: Zero-pad so that there are `ceil(n_samples / hop)` frames.

    Returns:
      [batch, n_frames, n_bins], linear amplitude (a full-scale sine peaks at size / 4).
    """
    fft_length = 1 << (size - 1).bit_length()
    return magnitude(*stft_parts(to_mono(audio), size, hop_from_overlap(size, overlap), fft_length, pad_end))


@gin.register(module='ddsp.spectral_ops')
def compute_logmag(audio: Tensor, size: int = 2048, overlap: float = 0.75, pad_end: bool = True) -> Tensor:
    """Natural logarithm of the magnitude spectrogram; zeros become log(1e-5) (`core.safe_log`).

    Args:
      audio: [batch, n_samples], [batch, n_samples, 1] or [n_samples].
      size: Length of the window, samples.
      overlap: Share of a frame that the next one repeats, in [0, 1).
      pad_end: Zero-pad so that there are `ceil(n_samples / hop)` frames.

    Returns:
      [batch, n_frames, n_bins], nepers.
    """
    return core.safe_log(compute_mag(audio, size, overlap, pad_end))


@functools.lru_cache(maxsize=32)
def mel_matrix(n_bands: int, n_bins: int, sample_rate: float, lo_hz: float, hi_hz: float) -> np.ndarray:
    """Triangular filters, equally spaced and of unit height on the HTK mel scale; [n_bins, n_bands] float32.

    `mel(f) = 1127 ln(1 + f / 700)`; the slopes are straight lines in mel; the 0 Hz bin belongs to no band.
    """
    if not 0.0 <= lo_hz < hi_hz <= sample_rate / 2:
        raise ConfigError(
            f'lo_hz={lo_hz} and hi_hz={hi_hz}: 0 <= lo_hz < hi_hz <= {sample_rate / 2} '
            f'(half of sample_rate={sample_rate}) is needed'
        )

    def to_mel(hz: Any) -> np.ndarray:
        return 1127.0 * np.log1p(np.asarray(hz) / 700.0)

    bins = to_mel(np.linspace(0.0, sample_rate / 2, n_bins))[:, None]
    edges = np.linspace(to_mel(lo_hz), to_mel(hi_hz), n_bands + 2)
    lower, center, upper = edges[:-2], edges[1:-1], edges[2:]
    triangles = np.maximum(
        0.0, np.minimum((bins - lower) / (center - lower), (upper - bins) / (upper - center))
    )
    triangles[0] = 0.0
    matrix = triangles.astype(np.float32)
    matrix.setflags(write=False)  # shared by all callers
    return matrix


@gin.register(module='ddsp.spectral_ops')
def compute_mel(
    audio: Tensor,
    lo_hz: float = 0.0,
    hi_hz: float = 8000.0,
    bins: int = 64,
    fft_size: int = 2048,
    overlap: float = 0.75,
    pad_end: bool = True,
    sample_rate: float = 16000,
) -> Tensor:
    """Mel spectrogram of the magnitudes (HTK scale, triangles of unit height, not area-normalised).

    Args:
      audio: [batch, n_samples], [batch, n_samples, 1] or [n_samples].
      lo_hz: Lower edge of the lowest band, Hz.
      hi_hz: Upper edge of the highest band, Hz; at most sample_rate / 2.
      bins: Number of bands.
      fft_size: Length of the window, samples.
      overlap: Share of a frame that the next one repeats, in [0, 1).
      pad_end: Zero-pad so that there are `ceil(n_samples / hop)` frames.
      sample_rate: Sample rate in Hz.

    Returns:
      [batch, n_frames, bins].

    Raises:
      ConfigError: The edges do not lie between 0 and half the sample rate.
    """
    mag = compute_mag(audio, fft_size, overlap, pad_end)
    return ops.matmul(mag, mel_matrix(bins, mag.shape[-1], sample_rate, lo_hz, hi_hz))


@gin.register(module='ddsp.spectral_ops')
def compute_logmel(
    audio: Tensor,
    lo_hz: float = 80.0,
    hi_hz: float = 7600.0,
    bins: int = 64,
    fft_size: int = 2048,
    overlap: float = 0.75,
    pad_end: bool = True,
    sample_rate: float = 16000,
) -> Tensor:
    """Natural logarithm of `compute_mel`; zeros become log(1e-5) (`core.safe_log`).

    Args:
      audio: [batch, n_samples], [batch, n_samples, 1] or [n_samples].
      lo_hz: Lower edge of the lowest band, Hz.
      hi_hz: Upper edge of the highest band, Hz; at most sample_rate / 2.
      bins: Number of bands.
      fft_size: Length of the window, samples.
      overlap: Share of a frame that the next one repeats, in [0, 1).
      pad_end: Zero-pad so that there are `ceil(n_samples / hop)` frames.
      sample_rate: Sample rate in Hz.

    Returns:
      [batch, n_frames, bins].
    """
    return core.safe_log(compute_mel(audio, lo_hz, hi_hz, bins, fft_size, overlap, pad_end, sample_rate))


@functools.lru_cache(maxsize=8)
def _dct_matrix(n_in: int, n_out: int) -> np.ndarray:
    """DCT-II scaled by `1 / sqrt(2 n_in)`, as mel cepstra are; [n_in, n_out] float32."""
    n, k = np.arange(n_in)[:, None], np.arange(n_out)[None, :]
    return (2.0 * np.cos(np.pi * k * (n + 0.5) / n_in) / np.sqrt(2.0 * n_in)).astype(np.float32)


@gin.register(module='ddsp.spectral_ops')
def compute_mfcc(
    audio: Tensor,
    lo_hz: float = 20.0,
    hi_hz: float = 8000.0,
    fft_size: int = 1024,
    mel_bins: int = 128,
    mfcc_bins: int = 13,
    overlap: float = 0.75,
    pad_end: bool = True,
    sample_rate: float = 16000,
) -> Tensor:
    """Mel-frequency cepstral coefficients: DCT-II of `compute_logmel`.

    Args:
      audio: [batch, n_samples], [batch, n_samples, 1] or [n_samples].
      lo_hz: Lower edge of the lowest mel band, Hz.
      hi_hz: Upper edge of the highest mel band, Hz; at most sample_rate / 2.
      fft_size: Length of the window, samples.
      mel_bins: Number of mel bands.
      mfcc_bins: Number of coefficients that are kept, from the 0th.
      overlap: Share of a frame that the next one repeats, in [0, 1).
      pad_end: Zero-pad so that there are `ceil(n_samples / hop)` frames.
      sample_rate: Sample rate in Hz.

    Returns:
      [batch, n_frames, mfcc_bins].

    Raises:
      ConfigError: More coefficients than mel bands, or the edges are out of range.
    """
    if not 1 <= mfcc_bins <= mel_bins:
        raise ConfigError(f'mfcc_bins is {mfcc_bins}; it can be 1 to mel_bins={mel_bins}')
    logmel = compute_logmel(audio, lo_hz, hi_hz, mel_bins, fft_size, overlap, pad_end, sample_rate)
    return ops.matmul(logmel, _dct_matrix(mel_bins, mfcc_bins))
