"""FIR filters: convolution by FFT, design by frequency response or windowed sinc."""

from __future__ import annotations

import keras
import numpy as np
import scipy.fft
from keras import ops

from ddsp.core.utils import Tensor, constant, dim, platform, tf_float32
from ddsp.errors import ConfigError


def get_fft_size(frame_size: int, ir_size: int, power_of_2: bool = True) -> int:
    """Smallest efficient FFT that holds a frame convolved with an impulse response.

    Args:
      frame_size: Samples in a frame.
      ir_size: Taps of the impulse response.
      power_of_2: A power of two; otherwise the next product of powers of 2, 3 and 5.

    Returns:
      FFT size, at least `frame_size + ir_size - 1`.
    """
    needed = int(ir_size) + int(frame_size) - 1
    return 1 << (needed - 1).bit_length() if power_of_2 else int(scipy.fft.next_fast_len(needed, real=True))


def crop_and_compensate_delay(
    audio: Tensor, audio_size: int, ir_size: int, padding: str, delay_compensation: int
) -> Tensor:
    """Cuts the result of a convolution to length.

    Args:
      audio: Full convolution [batch, n_total].
      audio_size: Samples before the convolution.
      ir_size: Taps of the impulse response.
      padding: `'same'` (`audio_size` samples) or `'valid'` (`audio_size + ir_size - 1`).
      delay_compensation: Samples to cut from the start; negative: the delay of a linear-phase filter made by
        `frequency_impulse_response` with a window, `(ir_size - 1) // 2 - 1`.

    Returns:
      [batch, n_out]; zeros follow where the convolution has fewer samples.

    Raises:
      ConfigError: Unknown padding.
    """
    if padding not in ('same', 'valid'):
        raise ConfigError(f"padding={padding!r} is unknown: use 'same' or 'valid'")
    length = audio_size if padding == 'same' else audio_size + ir_size - 1
    start = max((ir_size - 1) // 2 - 1, 0) if delay_compensation < 0 else delay_compensation
    missing = start + length - dim(audio, 1)
    missing = max(missing, 0) if isinstance(missing, int) else ops.maximum(missing, 0)
    return ops.pad(audio, [[0, 0], [0, missing]])[:, start : start + length]


def fft_convolve(
    audio: Tensor, impulse_response: Tensor, padding: str = 'same', delay_compensation: int = -1
) -> Tensor:
    """Convolves audio with one impulse response, or with one for each frame.

    Frames of `ceil(n_samples / n_frames)` samples are each convolved with their own impulse response, and
    added up where they overlap. If that gives fewer frames than there are impulse responses, each frame
    takes the one that belongs to its first sample.

    Args:
      audio: [batch, n_samples].
      impulse_response: [batch or 1, ir_size], or [batch or 1, n_frames, ir_size].
      padding: `'same'` (`n_samples`) or `'valid'` (`n_samples + ir_size - 1`).
      delay_compensation: Samples to cut from the start; negative: as in `crop_and_compensate_delay`.

    Returns:
      [batch, n_samples] or [batch, n_samples + ir_size - 1].

    Raises:
      ConfigError: Shapes that do not fit each other, more frames than samples, or unknown padding.

    >>> echo = fft_convolve([[1.0, 2.0, 3.0]], [[1.0, 0.5]], padding='valid', delay_compensation=0)
    >>> ops.convert_to_numpy(echo).round(3).tolist()
    [[1.0, 2.5, 4.0, 1.5]]
    """
    audio, ir = tf_float32(audio), tf_float32(impulse_response)
    ir = ir[:, None, :] if len(ir.shape) == 2 else ir
    _check_shapes(audio, ir)
    frames, responses = _frames(audio, ir)
    convolved = _overlap_add(_convolve(frames, responses), frames.shape[2])
    return crop_and_compensate_delay(convolved, audio.shape[1], ir.shape[2], padding, delay_compensation)


def _check_shapes(audio: Tensor, ir: Tensor) -> None:
    if len(audio.shape) != 2:
        raise ConfigError(f'audio must be [batch, n_samples], not {tuple(audio.shape)}')
    if len(ir.shape) != 3:
        raise ConfigError(
            f'impulse_response must be [batch, ir_size] or [batch, n_frames, ir_size], not {tuple(ir.shape)}'
        )
    if audio.shape[0] is not None and ir.shape[0] not in (1, None, audio.shape[0]):
        raise ConfigError(
            f'impulse_response has a batch of {ir.shape[0]} and audio one of {audio.shape[0]}: '
            'they must be the same, or the first be 1'
        )
    if audio.shape[1] is None:
        raise ConfigError('the number of samples must be known when the function is traced')
    if ir.shape[1] > audio.shape[1]:
        raise ConfigError(f'{ir.shape[1]} impulse responses are more than {audio.shape[1]} samples of audio')


def _frames(audio: Tensor, ir: Tensor) -> tuple[Tensor, Tensor]:
    """Audio [batch, n_frames, hop] without overlap, and impulse responses [batch or 1, n_frames, ir_size]."""
    n_samples, n_irs = audio.shape[1], ir.shape[1]
    hop = -(-n_samples // n_irs)
    n_frames = -(-n_samples // hop)
    if n_frames != n_irs:
        ir = ops.take(ir, np.arange(n_frames) * hop * n_irs // n_samples, axis=1)
    if missing := n_frames * hop - n_samples:
        audio = ops.pad(audio, [[0, 0], [0, missing]])
    return ops.reshape(audio, [-1, n_frames, hop]), ir


def _convolve(x: Tensor, h: Tensor) -> Tensor:
    """Convolution along the last axis, n + m - 1 samples; what the batch shares is transformed once."""
    size = x.shape[-1] + h.shape[-1] - 1
    # On a TPU an FFT of another size becomes a product with a matrix: 47 GB for the reverb of the solo
    # instrument (python -m benchmarks.tpu).
    on_tpu = keras.backend.backend() == 'jax' and platform() == 'tpu'
    fft_size = get_fft_size(x.shape[-1], h.shape[-1], power_of_2=on_tpu)
    (a, b), (c, d) = ops.rfft(x, fft_length=fft_size), ops.rfft(h, fft_length=fft_size)
    return ops.irfft((a * c - b * d, a * d + b * c), fft_length=fft_size)[..., :size]


def _overlap_add(frames: Tensor, hop: int) -> Tensor:
    """Sums frames [batch, n_frames, size] placed every `hop` samples."""
    n_frames, size = frames.shape[1:]
    if n_frames == 1:
        return frames[:, 0]
    parts = -(-size // hop)
    frames = ops.pad(frames, [[0, 0], [0, 0], [0, parts * hop - size]])
    total = 0.0
    for part in range(parts):
        piece = frames[:, :, part * hop : (part + 1) * hop]
        total = total + ops.pad(piece, [[0, 0], [part, parts - 1 - part], [0, 0]])
    return ops.reshape(total, [-1, (n_frames + parts - 1) * hop])


def apply_window_to_impulse_response(
    impulse_response: Tensor, window_size: int = 0, causal: bool = False
) -> Tensor:
    """Windows an impulse response and makes it causal.

    Args:
      impulse_response: Zero-phase impulse response [..., ir_size].
      window_size: Taps of the Hann window; 0, or more than `ir_size`, is `ir_size`.
      causal: The impulse response is causal already: its centre is in the middle.

    Returns:
      [..., ir_size], or for a shorter window its size (one less if even), with the centre in the middle.
    """
    ir = tf_float32(impulse_response)
    ir_size = int(ir.shape[-1])
    if causal:
        ir = ops.roll(ir, -(ir_size // 2), axis=-1)
    if not 0 < window_size < ir_size:
        window_size = ir_size
    # As TensorFlow's: periodic for even sizes, symmetric for odd ones.
    window = np.hanning(window_size + 1 - window_size % 2)[:window_size].astype(np.float32)
    if window_size == ir_size:
        return ops.roll(ir * constant(np.fft.fftshift(window)), ir_size // 2, axis=-1)
    half = (window_size + 1) // 2
    padded = np.concatenate([window[half:], np.zeros(ir_size - window_size, np.float32), window[:half]])
    ir = ir * constant(padded)
    return ops.concatenate([ir[..., ir_size - half + 2 :], ir[..., : half + 1]], axis=-1)


def frequency_impulse_response(magnitudes: Tensor, window_size: int = 0) -> Tensor:
    """Linear-phase impulse response of a frequency response.

    Args:
      magnitudes: Linear gain of bands spaced equally from 0 Hz to Nyquist, [..., n_bands].
      window_size: Taps of the window: see `apply_window_to_impulse_response`.

    Returns:
      [..., 2 (n_bands - 1)], or shorter with a shorter window.
    """
    magnitudes = tf_float32(magnitudes)
    size = 2 * (magnitudes.shape[-1] - 1)
    ir = ops.irfft((magnitudes, ops.zeros_like(magnitudes)), fft_length=size)
    return apply_window_to_impulse_response(ir, window_size)


def frequency_filter(
    audio: Tensor, magnitudes: Tensor, window_size: int = 0, padding: str = 'same'
) -> Tensor:
    """Filters audio by a frequency response, which may change with time.

    Args:
      audio: [batch, n_samples].
      magnitudes: Linear gain [batch or 1, n_bands] or [batch or 1, n_frames, n_bands].
      window_size: Taps of the window: see `apply_window_to_impulse_response`.
      padding: As in `fft_convolve`.

    Returns:
      Audio [batch, n_samples], or [batch, n_samples + ir_size - 1] with `padding='valid'`.

    >>> tuple(frequency_filter(np.ones([2, 640]), np.ones([2, 10, 65])).shape)
    (2, 640)
    """
    return fft_convolve(audio, frequency_impulse_response(magnitudes, window_size), padding=padding)


def sinc(x: Tensor, threshold: float = 1e-20) -> Tensor:
    """Normalised sinc, `sin(pi x) / (pi x)`; `threshold` stands in for numbers nearer to zero."""
    x = tf_float32(x)
    x = np.pi * ops.where(ops.abs(x) < threshold, ops.full_like(x, threshold), x)
    return ops.sin(x) / x


def sinc_impulse_response(
    cutoff_frequency: Tensor, window_size: int = 512, sample_rate: int | None = None, high_pass: bool = False
) -> Tensor:
    """Low-pass or high-pass filter: a sinc under a Hamming window.

    Args:
      cutoff_frequency: [batch, n_frames, 1], Hz; without `sample_rate`, as a share of Nyquist.
      window_size: Taps, made odd.
      sample_rate: Sample rate in Hz.
      high_pass: Pass what lies above the cutoff.

    Returns:
      [batch, n_frames, 2 (window_size // 2) + 1], with a gain of 1 in the pass band.
    """
    cutoff = tf_float32(cutoff_frequency)
    if sample_rate is not None:
        cutoff = cutoff * 2.0 / float(sample_rate)
    half = window_size // 2
    n = np.arange(-half, half + 1, dtype=np.float32)
    ir = sinc(cutoff * constant(n)) * constant(np.hamming(2 * half + 1).astype(np.float32))
    ir = ir / ops.abs(ops.sum(ir, axis=-1, keepdims=True))
    return constant((n == 0).astype(np.float32)) - ir if high_pass else ir


def sinc_filter(
    audio: Tensor,
    cutoff_frequency: Tensor,
    window_size: int = 512,
    sample_rate: int | None = None,
    padding: str = 'same',
    high_pass: bool = False,
) -> Tensor:
    """Filters audio with a windowed sinc: see `sinc_impulse_response` and `fft_convolve`."""
    ir = sinc_impulse_response(cutoff_frequency, window_size, sample_rate, high_pass)
    return fft_convolve(audio, ir, padding=padding)
