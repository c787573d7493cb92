"""How loud a signal is, frame by frame: A-weighted loudness, RMS energy, power."""

from __future__ import annotations

import gin
import numpy as np
from keras import ops

from ddsp import core
from ddsp.analysis.framing import hann_window
from ddsp.analysis.loudness import DB_RANGE, a_weighting_power, check_n_fft, loudness_db
from ddsp.core import Tensor
from ddsp.core.utils import constant
from ddsp.spectral_ops.frames import frame_at_rate, to_mono


@gin.register(module='ddsp.spectral_ops')
def compute_loudness(
    audio: Tensor,
    sample_rate: float = 16000,
    frame_rate: float = 250,
    n_fft: int = 512,
    range_db: float = DB_RANGE,
    ref_db: float = 0.0,
    use_tf: bool = True,
    padding: str = 'center',
) -> Tensor:
    """Perceived loudness in dB: mean A-weighted power of the spectrum of each frame.

    `10 log10(mean_k(A_k |X_k|^2)) - ref_db`, floored at `-range_db`; A is IEC 61672-1's A-weighting. The
    power is not divided by the window's gain: a full-scale sine at 1 kHz has about +19.8 dB at n_fft=512.

    Args:
      audio: [batch, n_samples], [batch, n_samples, 1] or [n_samples].
      sample_rate: Sample rate in Hz.
      frame_rate: Frames per second; it need not divide the sample rate.
      n_fft: Length of the analysis window and of the FFT, samples (even).
      range_db: Floor of the result, dB below 0.
      ref_db: Subtracted from the result, dB.
      use_tf: Work on backend tensors (differentiable). False: numpy, for preparing data.
      padding: 'center' (frame i is centred on its time: n_samples // hop + 1 frames), 'same' or 'valid'.

    Returns:
      [batch, n_frames], or [n_frames] for audio of one dimension; float32, dB.

    Raises:
      ConfigError: Unknown padding, odd n_fft, rates that do not fit, or audio of the wrong rank.

    Example:
      >>> compute_loudness(np.zeros((1, 64000)), use_tf=False).shape
      (1, 1001)
    """
    if not use_tf:
        audio = np.asarray(audio)
        audio = audio[..., 0] if audio.ndim == 3 and audio.shape[-1] == 1 else audio
        return loudness_db(audio, sample_rate, frame_rate, n_fft, range_db, ref_db, padding)
    check_n_fft(n_fft)
    frames = frame_at_rate(to_mono(audio), sample_rate, frame_rate, n_fft, padding)
    real, imag = ops.rfft(frames * constant(hann_window(n_fft)), fft_length=n_fft)
    weights = a_weighting_power(sample_rate, n_fft)
    power = ops.matmul(real * real + imag * imag, weights[:, None] / len(weights))[..., 0]
    return core.power_to_db(power, ref_db=ref_db, range_db=range_db)


def compute_rms_energy(
    audio: Tensor,
    sample_rate: float = 16000,
    frame_rate: float = 250,
    frame_size: int = 512,
    padding: str = 'center',
) -> Tensor:
    """Root mean square of each frame; its gradient is zero, not NaN, at digital silence.

    Args:
      audio: [batch, n_samples], [batch, n_samples, 1] or [n_samples].
      sample_rate: Sample rate in Hz.
      frame_rate: Frames per second; it need not divide the sample rate.
      frame_size: Length of a frame, samples.
      padding: 'center', 'same' or 'valid'.

    Returns:
      [batch, n_frames], or [n_frames] for audio of one dimension; linear amplitude.
    """
    frames = frame_at_rate(to_mono(audio), sample_rate, frame_rate, frame_size, padding)
    return core.safe_sqrt(ops.mean(frames * frames, axis=-1))


def compute_power(
    audio: Tensor,
    sample_rate: float = 16000,
    frame_rate: float = 250,
    frame_size: int = 512,
    ref_db: float = 0.0,
    range_db: float = DB_RANGE,
    padding: str = 'center',
) -> Tensor:
    """RMS energy of each frame in dB.

    Args:
      audio: [batch, n_samples], [batch, n_samples, 1] or [n_samples].
      sample_rate: Sample rate in Hz.
      frame_rate: Frames per second; it need not divide the sample rate.
      frame_size: Length of a frame, samples.
      ref_db: Subtracted from the result, dB.
      range_db: Floor of the result, dB below 0.
      padding: 'center', 'same' or 'valid'.

    Returns:
      [batch, n_frames], or [n_frames] for audio of one dimension; dB.
    """
    rms = compute_rms_energy(audio, sample_rate, frame_rate, frame_size, padding)
    return core.amplitude_to_db(rms, ref_db=ref_db, range_db=range_db)
