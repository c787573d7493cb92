"""Where the frames of a signal lie: lengths, padding, positions, windows. Needs numpy only.

Frame `i` of a framed signal starts at sample `i * hop_size` of the padded signal. With `padding='center'`
half a frame of zeros stands at either end, so that frame `i` is *centred* on sample `i * hop_size`; with
`'same'` zeros are appended only, and the number of frames is `ceil(n_samples / hop_size)`; `'valid'` adds
nothing.
"""

from __future__ import annotations

import functools
from fractions import Fraction

import numpy as np

from ddsp.errors import ConfigError

PADDINGS = ('same', 'valid', 'center')


def check_padding(padding: str) -> None:
    """Raises a ConfigError unless `padding` is one of 'same', 'valid', 'center'."""
    if padding not in PADDINGS:
        raise ConfigError(f'padding is {padding!r}; it can be ' + ', '.join(map(repr, PADDINGS)))


def check_hop(frame_size: int, hop_size: float) -> None:
    """Raises a ConfigError unless 0 < hop_size <= frame_size."""
    if not 0 < hop_size <= frame_size:
        raise ConfigError(
            f'hop_size is {hop_size} samples with frame_size={frame_size}: '
            f'it must be above 0 and at most the frame size, or samples between the frames would be lost'
        )


def get_framed_lengths(
    input_length: int, frame_size: int, hop_size: int, padding: str = 'center'
) -> tuple[int, int]:
    """Number of frames and length after padding of a signal that is cut into frames.

    Args:
      input_length: Length of the signal, samples.
      frame_size: Length of a frame, samples.
      hop_size: Distance between the starts of two frames, samples.
      padding: 'same' (end only), 'valid' (none) or 'center' (half a frame at both ends).

    Returns:
      `(n_frames, padded_length)`: `ceil(n / hop)` frames for 'same', `floor(n / hop) + 1` for 'center',
      `floor((n - frame) / hop) + 1` for 'valid'.

    Raises:
      ConfigError: Unknown padding, or hop_size larger than frame_size.

    Example:
      >>> get_framed_lengths(64000, 2048, 64, 'center')
      (1001, 66048)
      >>> get_framed_lengths(64000, 2048, 64, 'same')
      (1000, 65984)
    """
    check_padding(padding)
    check_hop(frame_size, hop_size)
    if padding == 'same':
        n_frames = -(-input_length // hop_size)
        return n_frames, (n_frames - 1) * hop_size + frame_size
    padded_length = input_length + (frame_size if padding == 'center' else 0)
    return (padded_length - frame_size) // hop_size + 1, padded_length


def frame_positions(
    n_samples: int, sample_rate: float, frame_rate: float, frame_size: int, padding: str
) -> tuple[Fraction, int, tuple[int, int]]:
    """Where the frames of a feature lie: exact for any pair of rates.

    Args:
      n_samples: Length of the signal; a tensor where it is unknown.
      sample_rate: Sample rate in Hz.
      frame_rate: Frames per second.
      frame_size: Samples.
      padding: 'same', 'valid' or 'center'.

    Returns:
      `(hop, n_frames, (before, after))`: the hop in samples as a fraction (44100 / 250 = 882/5), the number
      of frames, and how many zeros to add at either end.
    """
    check_padding(padding)
    if frame_rate <= 0 or sample_rate <= 0:
        raise ConfigError(f'sample_rate={sample_rate} and frame_rate={frame_rate} must be above 0')
    hop = exact_hop(sample_rate, frame_rate)
    check_hop(frame_size, float(hop))
    p, q = hop.numerator, hop.denominator
    if padding == 'same':
        return hop, -(-n_samples * q // p), (0, frame_size)
    if padding == 'center':
        return hop, n_samples * q // p + 1, (frame_size // 2, frame_size - frame_size // 2)
    return hop, (n_samples - frame_size) * q // p + 1, (0, 0)


def exact_hop(sample_rate: float, frame_rate: float) -> Fraction:
    """Samples from one frame to the next, as a fraction (44100 / 250 = 882/5)."""
    return (Fraction(sample_rate) / Fraction(frame_rate)).limit_denominator(1000)


def nearest_samples(n_frames: int, hop: Fraction) -> np.ndarray:
    """Sample nearest to `i * hop` for each frame [n_frames], int64; halves go up.

    In whole numbers, so that frames of two analyses of a signal fall on the same samples.
    """
    p, q = hop.numerator, hop.denominator
    return (np.arange(n_frames, dtype=np.int64) * (2 * p) + q) // (2 * q)


@functools.lru_cache(maxsize=32)
def hann_window(size: int) -> np.ndarray:
    """Periodic Hann window, `0.5 - 0.5 cos(2 pi n / size)`; [size] float32."""
    window = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(size) / size)).astype(np.float32)
    window.setflags(write=False)  # shared by all callers
    return window
