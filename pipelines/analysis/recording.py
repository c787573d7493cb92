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
from pipelines.analysis import quality
from pipelines.analysis.features import Analyser, Features, cut_examples
from pipelines.analysis.screening import Screening
from pipelines.analysis.selection import Selection, level_gain_db
from pipelines.analysis.statistics import Statistics
from pipelines.options import PrepareOptions
from pipelines.sources import tfds_source
from pipelines.sources.splits import Piece

PATH_MARK = '{path}'  # stands for the recording in messages, which outlive its name


class Recording:
    """One piece of a recording on its way into a shard; `costs` are CPU seconds."""

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
        record, audio = self._piece.record, None
        rate = record['sample_rate'] if record else probe(self._piece.file).sample_rate
        if record:
            audio, kept = tfds_source.read(self._piece.path, record, self._piece.sha256)
            if kept and self._options.keep_features:
                yield from self._cut(iter([self._keep(audio, rate, kept)]))
                return
        analyser = Analyser(self._options, self._estimator, rate)
        if rate < self._options.sample_rate:
            self._warnings.append(f'upsampled from {rate} Hz: nothing above {rate // 2} Hz')
        blocks = self._blocks(audio, rate, self._warnings)
        if self._options.normalize:  # reads the recording once more to find the gain
            quantity, _, target = self._options.normalize.partition(':')
            before = self._blocks(audio, rate, [])
            self._gain_db = round(level_gain_db(before, rate, quantity, float(target)), 2)
            self._seconds, gain = 0.0, np.float32(10 ** (self._gain_db / 20))
            blocks = (block * gain for block in blocks)
        yield from self._cut(analyser.run(blocks))
        for stage, seconds in analyser.costs.items():
            self.costs[stage] += seconds
        if record and self._options.keep_features:
            self._warnings.append('has no f0 and loudness of its own: they are computed')

    def _cut(self, pieces: Iterator[Features]) -> Iterator[dict[str, np.ndarray]]:
        return self._selection.choose(cut_examples(self._counted(pieces), self._options))

    def _keep(self, audio: np.ndarray, rate: int, kept: dict[str, np.ndarray]) -> Features:
        """A record's own f0 and loudness, with its audio at our rates."""
        options, piece = self._options, self._piece
        seconds, n_frames = len(audio) / rate, len(kept['f0_hz'])
        if {len(values) for values in kept.values()} != {round(seconds * options.frame_rate)}:
            raise AudioError(
                'unsupported',
                f'{self._name} has {n_frames} frames of f0 for {seconds:g} s: '
                f'{n_frames / seconds:g} per second, not frame_rate={options.frame_rate}.',
            )
        if not all(np.isfinite(values).all() for values in kept.values()):
            raise AudioError('not_finite', f'{self._name} has NaN or infinite values in its f0 or loudness.')
        end_s = seconds if piece.end_s is None else piece.end_s

        def part(values: np.ndarray, rate: int) -> np.ndarray:
            return values[round(piece.start_s * rate) : round(end_s * rate)]

        audio_16k = part(resample(audio, rate, 16000), 16000)
        audio = part(resample(audio, rate, options.sample_rate), options.sample_rate)
        frames = {name: part(values, options.frame_rate) for name, values in kept.items()}
        self._seconds = len(audio) / options.sample_rate
        power = power_db(audio_16k, 16000, options.frame_rate)[: len(frames['f0_hz'])]
        return {'audio': audio, 'audio_16k': audio_16k, 'power_db': power, **frames}

    def _blocks(self, audio: np.ndarray | None, rate: int, notes: list[str]) -> Iterator[np.ndarray]:
        """Blocks at the recording's own rate, from the piece's start to its end."""
        channel = self._options.channel
        blocks = (
            [audio] if audio is not None else read_blocks(self._piece.file, channel=channel, warnings=notes)
        )
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
            self._selection.n_frames += len(features['f0_hz'])
            self._screening.add(features['audio_16k'], features['f0_hz'], features['f0_confidence'])
            yield features

    def judge(self, examples: int) -> None:
        """Notes what is odd; raises AudioError where the piece is too short, silent or without pitch."""
        name, stats = self._name, self.statistics
        stats.examples, stats.audio_seconds = examples, self._seconds
        if self._seconds < quality.SHORT_SECS:
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
        if stats.loudness_db.max < quality.SILENT_DB:
            raise AudioError(
                'silent', f'{name} is silent: its loudness stays below {quality.SILENT_DB:g} dB.'
            )
        unheard_hz = self._screening.unheard_hz
        if stats.voiced_share < quality.UNPITCHED_SHARE and not unheard_hz:
            share = 100 * stats.voiced_share
            raise AudioError('unpitched', f'{name} has no pitch: {share:.1f} % of its frames are voiced.')
        if unheard_hz:
            self._warnings.append(
                f'a tone of about {unheard_hz:.0f} Hz, beyond the range of the pitch estimator: f0 is another'
            )
        if self._screening.is_polyphonic:
            self._warnings.append('several notes seem to sound at once: f0 follows one of them')
        if stats.loudness_db.max < quality.QUIET_DB:
            self._warnings.append(f'very quiet: its loudness stays below {stats.loudness_db.max:.0f} dB')
        if quality.UNPITCHED_SHARE <= stats.voiced_share < quality.HALF_VOICED_SHARE:
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
