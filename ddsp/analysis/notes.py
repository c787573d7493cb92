"""Notes in a recording: the frames that are loud and surely pitched. In numpy, for data preparation."""

from __future__ import annotations

from typing import Any

import numpy as np

from ddsp.analysis.loudness import DB_RANGE

UPSTREAM_THRESHOLD = 0.7  # of ddsp 3.7.0, for CREPE


def smooth(x: Any, filter_size: int = 3) -> np.ndarray:
    """Mean over `filter_size` frames, zeros beyond the ends.

    Args:
      x: `[batch, n_frames]` or `[n_frames]`.
      filter_size: Frames.

    Returns:
      The same shape.
    """
    x = np.asarray(x, np.float32)
    flat = np.atleast_2d(x)
    before = (filter_size - 1) // 2
    padded = np.pad(flat.astype(np.float64), ((0, 0), (before + 1, filter_size - 1 - before)))
    total = np.cumsum(padded, axis=1)
    result = (total[:, filter_size:] - total[:, :-filter_size]) / filter_size
    return result.reshape(x.shape).astype(np.float32)


def detect_notes(
    loudness_db: Any,
    f0_confidence: Any,
    note_threshold: float = 1.0,
    exponent: float = 2.0,
    smoothing: int = 40,
    f0_confidence_threshold: float = UPSTREAM_THRESHOLD,
    min_db: float = -DB_RANGE,
) -> tuple[np.ndarray, np.ndarray]:
    """Frames that belong to notes: loud and surely pitched.

    `ratio = smooth(confidence ** exponent) (loudness - min_db) / reference`, with `reference =
    (mean(loudness) - min_db) f0_confidence_threshold ** exponent`.

    Args:
      loudness_db: `[batch, n_frames]` or `[n_frames]`, dB.
      f0_confidence: The same shape.
      note_threshold: A frame is on from this ratio.
      exponent: Exponent of the confidence.
      smoothing: Length of the mean over time, frames.
      f0_confidence_threshold: Confidence of a note of mean loudness: `ddsp.f0.voiced_threshold`.
      min_db: Silence, dB.

    Returns:
      Mask (bool) and ratio, of the same shape.
    """
    loudness = np.asarray(loudness_db) - min_db
    confidence = smooth(np.asarray(f0_confidence) ** exponent, smoothing)
    reference = max(float(np.mean(loudness)), 1e-9) * f0_confidence_threshold**exponent
    ratio = confidence * loudness / reference
    return ratio >= note_threshold, ratio
