"""Pitch and loudness of audio of any length, as in the dataset that a model was trained on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import soxr

from ddsp.errors import DDSPError
from ddsp.f0 import count_frames, estimate_f0
from ddsp.loudness import loudness_db

_RATE = 16000  # pitch and loudness are those of the 16 kHz audio
# Pieces start on a grid of whole seconds, where every estimator's frames fall on samples.
_PIECE_SECS = 20
_CONTEXT_SECS = 2


def compute_features(
    audio: np.ndarray,
    sample_rate: int,
    frame_rate: int = 250,
    *,
    centered: bool = False,
    alignment: str = 'center',
    estimator: Any = 'auto',
    progress: Callable[[int, int, str], None] | None = None,
) -> dict[str, np.ndarray]:
    """Computes what a model needs.

    Args:
      audio: Mono signal `[n_samples]`, full scale 1.
      sample_rate: Hz.
      frame_rate: Frames per second.
      centered: One frame more, as in a dataset with `centered`.
      alignment: `'center'` or `'start'`, as in `ddsp.f0.estimate_f0`.
      estimator: Pitch estimator, as in `ddsp.f0.estimate_f0`.
      progress: `progress(done, total, text)`, in seconds of audio.

    Returns:
      `f0_hz`, `f0_confidence` and `loudness_db`, each `[n_frames]`, and `audio_16k`.

    Raises:
      DDSPError: The audio is empty or not mono.
    """
    audio = np.asarray(audio, np.float32)
    if audio.ndim != 1 or not len(audio):
        raise DDSPError(f'audio must be mono [n_samples] and not empty; it has shape {audio.shape}')
    audio_16k = audio if sample_rate == _RATE else soxr.resample(audio, sample_rate, _RATE)
    padding = 'center' if centered else 'same'
    n_frames = count_frames(len(audio), sample_rate, frame_rate, padding)
    parts = []
    piece = _PIECE_SECS * _RATE
    for start in range(0, len(audio_16k), piece):
        begin = max(0, start - _CONTEXT_SECS * _RATE)
        segment = audio_16k[begin : start + piece + _CONTEXT_SECS * _RATE]
        first = (start - begin) // _RATE * frame_rate
        last = start + piece >= len(audio_16k)
        count = n_frames - start // _RATE * frame_rate if last else _PIECE_SECS * frame_rate
        framing = 'center' if alignment == 'center' else 'same'
        f0_hz, confidence = estimate_f0(
            segment, _RATE, frame_rate, estimator, padding=framing, alignment=alignment
        )
        loudness = loudness_db(segment, _RATE, frame_rate, padding=framing)
        parts.append([_fit(x[first:], count) for x in (f0_hz, confidence, loudness)])
        if progress:
            progress(
                min(start + piece, len(audio_16k)) // _RATE, len(audio_16k) // _RATE, 'pitch and loudness'
            )
    columns = [np.concatenate(column) for column in zip(*parts, strict=True)]
    named = dict(zip(('f0_hz', 'f0_confidence', 'loudness_db'), columns, strict=True))
    return {**named, 'audio_16k': audio_16k}


def _fit(values: np.ndarray, count: int) -> np.ndarray:
    """The first `count` values; the last one is repeated when there are fewer."""
    values = values[:count]
    return np.pad(values, (0, count - len(values)), mode='edge') if len(values) < count else values
