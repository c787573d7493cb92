"""One recording on its way into a shard: decoded, analysed, cut into examples, judged."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from ddsp.analysis.loudness import power_db
from ddsp.f0 import F0Estimator
from ddsp.io.audio import AudioError, StreamResampler, probe, read_blocks
from ddsp.io.decoding import shown
from pipelines.analysis.features import Analyser, Features, cut_examples
from pipelines.analysis.screening import Screening
from pipelines.analysis.selection import Selection, level_gain_db
from pipelines.analysis.statistics import Statistics
from pipelines.options import PrepareOptions
from pipelines.sources import tfds_source
from pipelines.sources.splits import Piece

PATH_MARK = '{path}'  # stands for the recording in messages, which outlive its name
_MIN_SECS = 0.064  # one analysis window
_SILENT_DB = -70.0
_UNPITCHED_SHARE = 0.02
_QUIET_DB = -45.0


class Recording:
    """One piece of a recording on its way into a shard.

    Attributes:
      statistics: Of its frames.
      costs: CPU seconds of each stage.
    """

    def __init__(self, piece: Piece, estimator: F0Estimator, options: PrepareOptions) -> None:
        self._piece, self._options, self._estimator = piece, options, estimator
        self._name = shown(piece.file)
        self.statistics = Statistics()
        self.costs = dict.fromkeys(('decode', 'resample', 'f0', 'loudness', 'write'), 0.0)
        self._warnings: list[str] = []
        self._error: AudioError | None = None
        self._seconds = 0.0
        self._screening = Screening(options.frame_rate, estimator)
        self._selection = Selection(options, self.statistics, estimator)
        self._gain_db = 0.0

    def examples(self) -> Iterator[dict[str, np.ndarray]]:
        """The examples of the piece; statistics are taken on the way."""
        record = tfds_source.read(self._piece.path, self._piece.record) if self._piece.record else None
        if record and record.kept and self._options.keep_features:
            yield from self._cut(iter([self._keep(record)]))
            return
        rate = record.sample_rate if record else probe(self._piece.file).sample_rate
        analyser = Analyser(self._options, self._estimator, rate)
        if rate < self._options.sample_rate:
            self._warnings.append(f'upsampled from {rate} Hz: nothing above {rate // 2} Hz')
        blocks = self._blocks(iter([record.audio]) if record else self._decoded(), rate)
        if self._options.normalize:
            blocks = self._normalised(blocks, record, rate)
        yield from self._cut(analyser.run(blocks))
        for stage, seconds in analyser.costs.items():
            self.costs[stage] += seconds
        if record and self._options.keep_features:
            self._warnings.append('has no f0 and loudness of its own: they are computed')

    def _decoded(self, notes: list[str] | None = None) -> Iterator[np.ndarray]:
        notes = self._warnings if notes is None else notes
        return read_blocks(self._piece.file, channel=self._options.channel, warnings=notes)

    def _normalised(
        self, blocks: Iterator[np.ndarray], record: tfds_source.Record | None, rate: int
    ) -> Iterator[np.ndarray]:
        """The blocks at the level that is wanted; reads the recording once more to find the gain."""
        quantity, _, target = self._options.normalize.partition(':')
        before = self._blocks(iter([record.audio]) if record else self._decoded([]), rate)
        self._gain_db = round(level_gain_db(before, rate, quantity, float(target)), 2)
        self._seconds = 0.0
        gain = np.float32(10 ** (self._gain_db / 20))
        return (block * gain for block in blocks)

    def _cut(self, pieces: Iterator[Features]) -> Iterator[dict[str, np.ndarray]]:
        return self._selection.choose(cut_examples(self._counted(pieces), self._options))

    def _keep(self, record: tfds_source.Record) -> Features:
        """A record's own f0 and loudness, with its audio at our rates."""
        options, piece = self._options, self._piece
        seconds, n_frames = len(record.audio) / record.sample_rate, len(record.kept['f0_hz'])
        if {len(values) for values in record.kept.values()} != {round(seconds * options.frame_rate)}:
            raise AudioError(
                'unsupported',
                f'{self._name} has {n_frames} frames of f0 for {seconds:g} s: '
                f'{n_frames / seconds:g} per second, not frame_rate={options.frame_rate}.',
            )
        if not all(np.isfinite(values).all() for values in record.kept.values()):
            raise AudioError('not_finite', f'{self._name} has NaN or infinite values in its f0 or loudness.')
        end_s = seconds if piece.end_s is None else piece.end_s

        def part(values: np.ndarray, rate: int) -> np.ndarray:
            return values[round(piece.start_s * rate) : round(end_s * rate)]

        audio = part(resample(record.audio, record.sample_rate, options.sample_rate), options.sample_rate)
        audio_16k = part(resample(record.audio, record.sample_rate, 16000), 16000)
        frames = {name: part(values, options.frame_rate) for name, values in record.kept.items()}
        self._seconds = len(audio) / options.sample_rate
        power = power_db(audio_16k, 16000, options.frame_rate)[: len(frames['f0_hz'])]
        return Features(audio, audio_16k, **frames, n_samples=len(audio), power_db=power)

    def _blocks(self, blocks: Iterator[np.ndarray], rate: int) -> Iterator[np.ndarray]:
        """Blocks at the recording's own rate, from the piece's start to its end."""
        start = round(self._piece.start_s * rate)
        end = None if self._piece.end_s is None else round(self._piece.end_s * rate)
        at, started = 0, time.thread_time()
        for block in blocks:
            self.costs['decode'] += time.thread_time() - started
            inside = block[max(0, start - at) : None if end is None else max(0, end - at)]
            at += len(block)
            if len(inside):
                self._seconds += len(inside) / rate
                yield inside
            if end is not None and at >= end:
                return
            started = time.thread_time()

    def _counted(self, pieces: Iterator[Features]) -> Iterator[Features]:
        for features in pieces:
            self._selection.n_frames += len(features.f0_hz)
            self._screening.add(features.audio_16k, features.f0_hz, features.f0_confidence)
            yield features

    def judge(self, examples: int) -> None:
        """Refuses what is no training data, and notes what is odd.

        Raises:
          AudioError: The piece is too short, silent or without pitch.
        """
        name, stats = self._name, self.statistics
        stats.examples, stats.audio_seconds = examples, self._seconds
        if self._seconds < _MIN_SECS:
            raise AudioError(
                'too_short', f'{name} has {self._seconds * 1000:.0f} ms: less than one analysis window.'
            )
        dropped = self._selection.dropped
        if dropped:
            what = ', '.join(f'{count} {reason}' for reason, count in sorted(dropped.items()))
            note = f'{dropped.total()} of {examples + dropped.total()} examples left out: {what}'
            if not examples:
                raise AudioError(dropped.most_common(1)[0][0], f'{name}: {note}.')
            self._warnings.append(note)
        if not examples:
            raise AudioError(
                'too_short', f'{name} is shorter than one example and tails are left out (pad_tail).'
            )
        if stats.loudness_db.max < _SILENT_DB:
            raise AudioError('silent', f'{name} is silent: its loudness stays below {_SILENT_DB:g} dB.')
        unheard_hz = self._screening.unheard_hz
        if stats.voiced_share < _UNPITCHED_SHARE and not unheard_hz:
            share = 100 * stats.voiced_share
            raise AudioError('unpitched', f'{name} has no pitch: {share:.1f} % of its frames are voiced.')
        if unheard_hz:
            self._warnings.append(
                f'a tone of about {unheard_hz:.0f} Hz, beyond the range of the pitch estimator: f0 is another'
            )
        if self._screening.is_polyphonic:
            self._warnings.append('several notes seem to sound at once: f0 follows one of them')
        if stats.loudness_db.max < _QUIET_DB:
            self._warnings.append(f'very quiet: its loudness stays below {stats.loudness_db.max:.0f} dB')
        if _UNPITCHED_SHARE <= stats.voiced_share < 0.5:
            self._warnings.append(f'only {100 * stats.voiced_share:.0f} % of the frames are voiced')
        if self._seconds < self._options.example_secs:
            self._warnings.append(f'shorter than an example ({self._seconds:.2f} s): padded')

    def reject(self, error: AudioError) -> None:
        """Forgets the piece."""
        self._error, self.statistics = error, Statistics()

    def row(self, examples: int) -> dict[str, Any]:
        """What became of the piece."""
        row = {'seconds': round(self._seconds, 6), 'examples': examples, 'warnings': self._warnings}
        if self._options.normalize:
            row['gain_db'] = self._gain_db
        if self._selection.dropped:
            row['dropped'] = dict(self._selection.dropped)
        if self._error is not None:
            message = str(self._error).replace(self._name, PATH_MARK)
            row |= {'reason': self._error.reason, 'message': message}
        return row


def resample(audio: np.ndarray, source_rate: int, target_rate: int) -> np.ndarray:
    """All of a recording at another rate."""
    stream = StreamResampler(source_rate, target_rate)
    return np.concatenate((stream(audio), stream.flush()))
