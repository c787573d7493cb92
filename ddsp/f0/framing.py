"""Where frames lie in time, and moving a track of pitch from one grid of frames to another.

Frame i of a track describes the signal around the time `i / frame_rate`: that is where a synthesiser puts it.
"""

from __future__ import annotations

import numpy as np

from ddsp.analysis.framing import exact_hop, nearest_samples
from ddsp.errors import ConfigError

SAMPLE_RATE = 16000  # of the audio that estimators take, in Hz
# Half of CREPE's window: upstream's 'same' frames describe the signal this much later than where it is used.
UPSTREAM_OFFSET = 512
PADDINGS = ('same', 'center')
ALIGNMENTS = ('center', 'start')
VOICED = 0.5  # confidence from which a frame counts as voiced, unless the estimator says otherwise
_SILENCE_RMS = 2e-5  # -94 dB of full scale


def count_frames(n_samples: int, sample_rate: float, frame_rate: float, padding: str = 'same') -> int:
    """Number of frames of a signal.

    Args:
      n_samples: Length of the signal.
      sample_rate: Sample rate in Hz.
      frame_rate: Frames per second.
      padding: `'same'` for ceil(n_samples / hop), `'center'` for floor(n_samples / hop) + 1.

    Returns:
      The number of frames.

    Raises:
      ConfigError: Unknown padding, or a frame rate above the sample rate.
    """
    if padding not in PADDINGS:
        raise ConfigError(f'padding must be one of {PADDINGS}, got {padding!r}')
    if not 0 < frame_rate <= sample_rate:
        raise ConfigError(
            f'frame_rate must be above 0 and up to the sample rate {sample_rate}, got {frame_rate}'
        )
    frames = n_samples * frame_rate / sample_rate
    return int(np.ceil(frames - 1e-9)) if padding == 'same' else int(np.floor(frames + 1e-9)) + 1


def frame_centres(n_frames: int, frame_rate: float) -> np.ndarray:
    """Sample at 16 kHz on which each frame is centred [n_frames], int64."""
    return nearest_samples(n_frames, exact_hop(SAMPLE_RATE, frame_rate))


def window_audio(audio: np.ndarray, n_frames: int, frame_rate: float, window: int) -> np.ndarray:
    """Cuts the windows centred on the frames, with zeros beyond the ends.

    Args:
      audio: Signal [n_samples] at 16 kHz.
      n_frames: Number of frames.
      frame_rate: Frames per second.
      window: Samples in a window.

    Returns:
      Windows [n_frames, window]; a copy where frames do not lie on a regular grid, else a view.
    """
    positions = frame_centres(n_frames, frame_rate)
    last = int(positions[-1]) if n_frames else 0
    before = window // 2
    padded = np.pad(audio, (before, max(0, last + window - before - len(audio))))
    return np.lib.stride_tricks.sliding_window_view(padded, window)[positions]


def mark_silence(audio: np.ndarray, confidence: np.ndarray, frame_rate: float) -> np.ndarray:
    """Sets the confidence to 0 where 64 ms around the frame are below -94 dB of full scale."""
    silent = mean_square(audio, len(confidence), frame_rate) < _SILENCE_RMS**2
    return np.where(silent, 0.0, confidence).astype(np.float32)


def mean_square(audio: np.ndarray, n_frames: int, frame_rate: float) -> np.ndarray:
    """Mean square of the 64 ms around each frame [n_frames]; beyond the ends there is silence."""
    energy = np.concatenate(([0.0], np.cumsum(np.square(audio, dtype=np.float64))))
    centres = frame_centres(n_frames, frame_rate)
    low, high = np.clip(centres - 512, 0, len(audio)), np.clip(centres + 512, 0, len(audio))
    return (energy[high] - energy[low]) / 1024


def fill_unvoiced(f0_hz: np.ndarray, voiced: np.ndarray) -> np.ndarray:
    """Bridges the frames without pitch: interpolated in log frequency, held at the ends.

    Args:
      f0_hz: Pitch [n_frames], Hz.
      voiced: Which frames have one [n_frames], bool.

    Returns:
      Pitch [n_frames], Hz; zeros where nothing is voiced at all.
    """
    if not voiced.any():
        return np.zeros_like(f0_hz)
    frames = np.arange(len(f0_hz))
    return np.exp(np.interp(frames, frames[voiced], np.log(f0_hz[voiced]))).astype(f0_hz.dtype)


def interpolate_track(
    f0_hz: np.ndarray,
    confidence: np.ndarray,
    rate: float,
    new_rate: float,
    n_frames: int,
    voiced_from: float = VOICED,
) -> tuple[np.ndarray, np.ndarray]:
    """A track of pitch on another grid of frames.

    Args:
      f0_hz: Pitch [n], Hz; frame i is at `i / rate`.
      confidence: [n].
      rate: Frames per second.
      new_rate: Frames per second of the result.
      n_frames: Frames of the result; beyond the last one the track is held.
      voiced_from: Confidence from which a frame counts as voiced.

    Returns:
      Pitch, straight in log frequency between voiced frames and held towards unvoiced ones, and confidence,
      straight; each [n_frames].
    """
    wanted = np.arange(n_frames) * (rate / new_rate)
    known = np.arange(len(f0_hz))
    confidence_there = np.interp(wanted, known, confidence)
    voiced = (confidence >= voiced_from) & (f0_hz > 0)
    left = np.minimum(wanted.astype(np.int64), len(f0_hz) - 1)
    right = np.minimum(np.ceil(wanted).astype(np.int64), len(f0_hz) - 1)
    pitch = np.interp(wanted, known, np.log(np.maximum(f0_hz, 1e-3)))
    only = np.where(voiced[left], left, right)  # beside the edge of a note its own pitch holds
    pitch = np.where(voiced[left] == voiced[right], np.exp(pitch), f0_hz[only])
    pitch = np.where((f0_hz[left] > 0) & (f0_hz[right] > 0) | (voiced[left] != voiced[right]), pitch, 0.0)
    return pitch.astype(np.float32), confidence_there.astype(np.float32)
