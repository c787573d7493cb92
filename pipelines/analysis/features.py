"""Features of a recording: analysed in pieces with context at the joints, then cut into examples.

The pieces begin on a grid of two seconds, on which every estimator's frames fall on the same samples; with
two seconds of context on either side a frame is what one long analysis would give.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator

import numpy as np

from ddsp.analysis.loudness import loudness_db, power_db
from ddsp.f0 import F0Estimator, count_frames, estimate_f0, interpolate_track, voiced_threshold
from ddsp.io.audio import StreamResampler
from ddsp.io.dataset import PADDED_CONFIDENCE, PADDED_LOUDNESS_DB
from pipelines.options import CHUNK_GRID_SECS, PrepareOptions

RATE = 16000  # of the audio that is analysed
CONTEXT_SECS = CHUNK_GRID_SECS


# Features of a part of a recording by name: `audio` at the rate of the dataset and `audio_16k`, both without
# gaps; frame by frame `f0_hz`, `f0_confidence`, `loudness_db` and `power_db` [n_frames].
Features = dict[str, np.ndarray]


class _Queue:
    """Samples that wait for their analysis."""

    def __init__(self) -> None:
        self._blocks: list[np.ndarray] = []
        self.length = 0

    def push(self, block: np.ndarray) -> None:
        self._blocks.append(block)
        self.length += len(block)

    def peek(self, count: int) -> np.ndarray:
        if len(self._blocks) > 1:
            self._blocks = [np.concatenate(self._blocks)]
        return self._blocks[0][:count] if self._blocks else np.zeros(0, np.float32)

    def drop(self, count: int) -> None:
        kept = self.peek(self.length)[count:]
        self._blocks, self.length = [kept], len(kept)


class Analyser:
    """Turns the blocks of one recording into features, piece by piece.

    Attributes:
      costs: CPU seconds of each stage.
    """

    def __init__(self, options: PrepareOptions, estimator: F0Estimator, native_rate: int) -> None:
        self._options = options
        self._estimator = estimator
        self._same_rate = options.sample_rate == RATE
        self._to_16k = StreamResampler(native_rate, RATE)
        self._to_rate = StreamResampler(native_rate, options.sample_rate)
        self._queue_16k, self._queue = _Queue(), _Queue()
        self._before = 0  # seconds of context in front of the next piece
        self.costs = dict.fromkeys(('resample', 'f0', 'loudness'), 0.0)

    def run(self, blocks: Iterable[np.ndarray]) -> Iterator[Features]:
        """Yields the features of `blocks` [n] (at the native rate) in pieces of `chunk_secs`."""
        piece = int(self._options.chunk_secs)
        for block in blocks:
            self._push(block)
            while self._queue_16k.length >= (self._before + piece + CONTEXT_SECS) * RATE:
                yield self._analyse(piece)
        self._push(None)
        while self._queue_16k.length > self._before * RATE:
            yield self._analyse(piece)

    def _push(self, block: np.ndarray | None) -> None:
        started = time.thread_time()
        for queue, resampler in ((self._queue_16k, self._to_16k), (self._queue, self._to_rate)):
            if self._same_rate and queue is self._queue:
                continue
            queue.push(resampler.flush() if block is None else resampler(block))
        self.costs['resample'] += time.thread_time() - started

    def _analyse(self, piece: int) -> Features:
        """The next `piece` seconds, or what is left of them."""
        options, before = self._options, self._before
        segment = self._queue_16k.peek(int((before + piece + CONTEXT_SECS) * RATE))
        own = segment[before * RATE :][: piece * RATE]
        n_frames = -(-len(own) * options.frame_rate // RATE)
        if options.centered and len(segment) == self._queue_16k.length:
            n_frames += 1  # the end of the recording has a frame of its own
        frames = slice(before * options.frame_rate, before * options.frame_rate + n_frames)
        f0_hz, confidence = self._f0(segment)
        loudness, power = self._levels(segment)
        audio = own
        if not self._same_rate:
            rate = options.sample_rate
            audio = self._queue.peek(int(before + piece) * rate)[before * rate :]
        keep = int(min(CONTEXT_SECS, before + piece))
        self._queue_16k.drop((before + piece - keep) * RATE)
        self._queue.drop((before + piece - keep) * options.sample_rate)
        self._before = keep
        return {
            'audio': _fit(audio, n_frames * options.sample_rate // options.frame_rate),
            'audio_16k': _fit(own, -(-n_frames * RATE // options.frame_rate)),
            'f0_hz': f0_hz[frames], 'f0_confidence': confidence[frames],
            'loudness_db': loudness[frames], 'power_db': power[frames],
        }  # fmt: skip

    def _f0(self, segment: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        started, options = time.thread_time(), self._options
        padding = 'center' if options.centered else 'same'
        rate = options.f0_rate or options.frame_rate
        result = estimate_f0(
            segment, RATE, rate, self._estimator, options.viterbi,
            padding if rate == options.frame_rate else 'center', alignment=options.alignment,
        )  # fmt: skip
        if rate != options.frame_rate:
            n_frames = count_frames(len(segment), RATE, options.frame_rate, padding)
            voiced_from = voiced_threshold(self._estimator)
            result = interpolate_track(*result, rate, options.frame_rate, n_frames, voiced_from)
        self.costs['f0'] += time.thread_time() - started
        return result

    def _levels(self, segment: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Loudness and power."""
        started, options = time.thread_time(), self._options
        padding = 'center' if options.alignment == 'center' else 'same'
        loudness = loudness_db(segment, RATE, options.frame_rate, padding=padding)
        power = power_db(segment, RATE, options.frame_rate, padding=padding)
        self.costs['loudness'] += time.thread_time() - started
        return loudness, power


def cut_examples(pieces: Iterable[Features], options: PrepareOptions) -> Iterator[Features]:
    """Cuts examples from the features of one recording, in order; the last one is padded.

    They hold `power_db` in any case: statistics need it.
    """
    length, hop, extra = options.example_frames, options.hop_frames, int(options.centered)
    lengths = options.feature_lengths
    lengths['power_db'] = lengths['loudness_db']
    waiting: Features = {}
    covered = 0  # frames of `waiting` that an example held already
    for piece in pieces:
        waiting = {n: np.concatenate((waiting[n], piece[n])) if waiting else piece[n] for n in lengths}
        while len(waiting['f0_hz']) >= length + extra:
            yield _first_window(waiting, lengths)
            waiting = {name: values[_samples(name, hop, options) :] for name, values in waiting.items()}
            covered = length - hop
    if options.pad_tail and waiting and len(waiting['f0_hz']) > covered + extra:
        yield _first_window(waiting, lengths)


def _first_window(waiting: Features, lengths: dict[str, int]) -> Features:
    """The example at the beginning of what waits, padded where that ends."""
    example = {}
    for name, length in lengths.items():
        values = waiting[name][:length]
        if len(values) < length:
            padding = np.full(length - len(values), _padding(name, values), np.float32)
            values = np.concatenate((values, padding))
        example[name] = values
    return example


def _padding(name: str, values: np.ndarray) -> float:
    """Silence, the last pitch, confidence 0, loudness at the floor."""
    if name in ('loudness_db', 'power_db'):
        return PADDED_LOUDNESS_DB
    if name == 'f0_confidence':
        return PADDED_CONFIDENCE
    return float(values[-1]) if name == 'f0_hz' and len(values) else 0.0


def _samples(name: str, frames: int, options: PrepareOptions) -> int:
    """How many values of a feature `frames` frames are."""
    if name == 'audio':
        return frames * options.sample_rate // options.frame_rate
    return frames * RATE // options.frame_rate if name == 'audio_16k' else frames


def _fit(values: np.ndarray, length: int) -> np.ndarray:
    """Cut or padded with zeros to a length."""
    return values[:length] if len(values) >= length else np.pad(values, (0, length - len(values)))
