"""Pitch and loudness of audio of any length, as in the dataset that a model was trained on."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from ddsp.analysis.loudness import loudness_db
from ddsp.errors import DDSPError
from ddsp.f0 import count_frames, estimate_f0
from ddsp.io.audio import StreamResampler
from ddsp.io.progress import Progress

_RATE = 16000  # pitch and loudness are those of the 16 kHz audio
# Pieces start on a grid of whole seconds, where every estimator's frames fall on samples.
_PIECE_SECS = 20
_CONTEXT_SECS = 2


@dataclasses.dataclass(frozen=True)
class FeatureSettings:
    """How a dataset's features were made.

    Attributes:
      frame_rate: Frames per second.
      centered: One frame more, as in a dataset with `centered`.
      alignment: `'center'` or `'start'`, as in `ddsp.f0.estimate_f0`.
      estimator: Pitch estimator, as in `ddsp.f0.estimate_f0`.
    """

    frame_rate: int = 250
    centered: bool = False
    alignment: str = 'center'
    estimator: Any = 'auto'


def compute_features(
    audio: np.ndarray,
    sample_rate: int,
    frame_rate: int = 250,
    *,
    centered: bool = False,
    alignment: str = 'center',
    estimator: Any = 'auto',
    progress: Progress | None = None,
) -> dict[str, np.ndarray]:
    """Computes what a model needs.

    Args:
      audio: Mono signal `[n_samples]`, full scale 1.
      sample_rate: Sample rate in Hz.
      frame_rate: Frames per second.
      centered: As in `FeatureSettings`.
      alignment: As in `FeatureSettings`.
      estimator: As in `FeatureSettings`.
      progress: `progress(done, total, text)`, in seconds of audio.

    Returns:
      `f0_hz`, `f0_confidence` and `loudness_db`, each `[n_frames]`, and `audio_16k`.

    Raises:
      DDSPError: The audio is empty or not mono.
    """
    settings = FeatureSettings(frame_rate, centered, alignment, estimator)
    audio = mono(audio)
    features, _ = stream_features([audio], sample_rate, settings, len(audio), progress)
    return {**features, 'audio_16k': resample(audio, sample_rate, _RATE)}


def stream_features(
    blocks: Iterable[np.ndarray],
    sample_rate: int,
    settings: FeatureSettings,
    n_expected: int | None = None,
    progress: Progress | None = None,
) -> tuple[dict[str, np.ndarray], int]:
    """`compute_features` of audio that comes in blocks: of the audio, 24 s at a time are kept.

    Args:
      blocks: Mono signal, one `[n]` after the other.
      sample_rate: Sample rate in Hz.
      settings: How to compute.
      n_expected: Samples to come, where that is known, for `progress`.
      progress: `progress(done, total, text)`, in seconds of audio.

    Returns:
      `f0_hz`, `f0_confidence` and `loudness_db`, each `[n_frames]`; and how many samples came.

    Raises:
      DDSPError: There were none.
    """
    counted = [0]

    def count() -> Iterator[np.ndarray]:
        for block in blocks:
            counted[0] += len(block)
            yield block

    parts: list[list[np.ndarray]] = []
    framing = 'center' if settings.alignment == 'center' else 'same'
    total = (n_expected or 0) // sample_rate
    for begin, start, segment, last in _segments(resample_blocks(count(), sample_rate, _RATE)):
        f0_hz, confidence = estimate_f0(
            segment,
            _RATE,
            settings.frame_rate,
            settings.estimator,
            padding=framing,
            alignment=settings.alignment,
        )
        loudness = loudness_db(segment, _RATE, settings.frame_rate, padding=framing)
        frames = _PIECE_SECS * settings.frame_rate
        if last:
            padding = 'center' if settings.centered else 'same'
            n_frames = count_frames(counted[0], sample_rate, settings.frame_rate, padding)
            frames = n_frames - start // _RATE * settings.frame_rate
        first = (start - begin) // _RATE * settings.frame_rate
        parts.append([_fit(x[first:], frames) for x in (f0_hz, confidence, loudness)])
        if progress:
            done = counted[0] // sample_rate if last else start // _RATE + _PIECE_SECS
            progress(done, max(done, total), 'pitch and loudness')
    if not parts:
        raise DDSPError('audio must not be empty; it has no samples')
    columns = [np.concatenate(column) for column in zip(*parts, strict=True)]
    return dict(zip(('f0_hz', 'f0_confidence', 'loudness_db'), columns, strict=True)), counted[0]


def _segments(blocks: Iterator[np.ndarray]) -> Iterator[tuple[int, int, np.ndarray, bool]]:
    """Pieces with context on both sides.

    Args:
      blocks: Audio at 16 kHz.

    Yields:
      Number of the segment's first sample, number of the piece's first sample, the segment, and whether it is
      the last.
    """
    piece, context = _PIECE_SECS * _RATE, _CONTEXT_SECS * _RATE
    kept = np.zeros(0, np.float32)
    begin = start = 0
    ended = False
    while True:
        waiting, n = [kept], len(kept)
        while not ended and begin + n < start + piece + context:
            block = next(blocks, None)
            ended = block is None
            if block is not None:
                waiting.append(block)
                n += len(block)
        kept = np.concatenate(waiting) if len(waiting) > 1 else kept
        last = ended and begin + len(kept) <= start + piece
        if begin + len(kept) > start:
            yield begin, start, kept[: start + piece + context - begin], last
        if ended and begin + len(kept) <= start + piece:
            return
        start += piece
        kept, begin = kept[start - context - begin :], start - context


def resample_blocks(blocks: Iterable[np.ndarray], source: int, target: int) -> Iterator[np.ndarray]:
    """Blocks of a signal at another rate."""
    resampler = StreamResampler(source, target)
    for block in blocks:
        yield resampler(np.asarray(block, np.float32))
    yield resampler.flush()


def resample(audio: np.ndarray, source: int, target: int) -> np.ndarray:
    """A signal at another rate, with the samples that `resample_blocks` gives."""
    return audio if source == target else np.concatenate(list(resample_blocks([audio], source, target)))


def mono(audio: np.ndarray) -> np.ndarray:
    """Audio as float32 `[n_samples]`; a DDSPError when it has another shape, or no samples."""
    audio = np.asarray(audio, np.float32)
    if audio.ndim != 1 or not len(audio):
        raise DDSPError(f'audio must be mono [n_samples] and not empty; it has shape {audio.shape}')
    return audio


def _fit(values: np.ndarray, count: int) -> np.ndarray:
    """The first `count` values; the last one is repeated when there are fewer."""
    values = values[:count]
    return np.pad(values, (0, count - len(values)), mode='edge') if len(values) < count else values
