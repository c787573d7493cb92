"""What a preparation did, for people and for programs."""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections import Counter
from typing import Any

from ddsp.io import gcs
from ddsp.io.dataset import SPLIT, Dataset
from ddsp.io.decoding import shown
from ddsp.io.json_types import NUMBER, TEXT
from pipelines.inspect.inspection import read_sources
from pipelines.publish.home import CLAIM, METRICS
from pipelines.sources.splits import describe_shares

_NOTES = 1000  # that a result holds; sources.jsonl has all


@dataclasses.dataclass(frozen=True)
class PrepareResult:
    """What a preparation did.

    Attributes:
      path: The version directory; a `gs://` address where it is in a bucket.
      examples, audio_seconds: Number of examples and length of the recordings of each split.
      accepted: Number of recordings that are used.
      rejected, reasons: For each reason the number of rejected inputs, and the message about one of them.
      skipped: Number of files that were passed over (hidden, not audio by their name).
      duplicates: Number of recordings that were there twice.
      dropped: Examples that the options left out, by reason.
      warnings, n_warnings: The first notes on recordings: (path, text); and how many there are.
      estimator: The f0 estimator.
      shards_reused: Shards that were there.
      statistics: statistics.json's content by split.
      splits_note: What each split got, where that is not near the shares that were asked for.
      metrics: metrics.json's content: `files/OUTCOME`, `rejected/REASON`, `made/...` (what this call made:
        shards, recordings, examples, bytes, seconds of audio, seconds of all workers together) and
        `cpu_seconds/STAGE`.
      shards_made, audio_made: Shards that this call made, and seconds of audio in them.
      wall_seconds: Time that the call took.
      costs: CPU seconds of each stage, for all shards.
    """

    path: pathlib.Path | str
    examples: dict[str, int]
    audio_seconds: dict[str, float]
    accepted: int
    rejected: dict[str, int]
    reasons: dict[str, str]
    skipped: int
    duplicates: int
    dropped: dict[str, int]
    warnings: tuple[tuple[str, str], ...]
    n_warnings: int
    estimator: str
    shards_reused: int
    statistics: dict[str, Any]
    splits_note: str
    metrics: dict[str, float]
    shards_made: int = 0
    audio_made: float = 0.0
    wall_seconds: float = 0.0
    costs: dict[str, float] = dataclasses.field(default_factory=dict)

    def summary_rows(self) -> list[tuple[str, str]]:
        """Label and value of each line of a table."""
        rows = [('dataset', shown(self.path))]
        for split, count in self.examples.items():
            rows.append((split, f'{count} examples, {self.audio_seconds[split]:.1f} s of audio'))
            stats = self.statistics[split]
            if stats['pitch_midi']:
                low, high = (stats['pitch_midi']['quantiles'][i] for i in (1, 99))
                voiced = f'{100 * stats["voiced_share"]:.0f} % voiced'
                rows.append((f'{split} pitch', f'MIDI {low:.1f} to {high:.1f}, {voiced}'))
            if stats['loudness_db']:
                low, high = (stats['loudness_db']['quantiles'][i] for i in (1, 99))
                rows.append((f'{split} loudness', f'{low:.1f} to {high:.1f} dB'))
        rows.append(('splits', self.splits_note))
        rows.append(('recordings', f'{self.accepted} used, {sum(self.rejected.values())} rejected'))
        for reason, count in sorted(self.rejected.items(), key=lambda item: (-item[1], item[0])):
            rows.append(('rejected', f'{count} {reason}: {self.reasons[reason]}'))
        for reason, count in sorted(self.dropped.items()):
            rows.append(('left out', f'{count} examples: {reason}'))
        rows.append(('passed over', f'{self.skipped} other files' if self.skipped else ''))
        rows.append(('duplicates', str(self.duplicates or '')))
        if self.warnings:
            path, note = self.warnings[0]
            example = f'{shown(os.path.basename(path))}: {note}'
            rows.append(('warnings', f'{self.n_warnings}, such as {example}'))
        rows.append(('f0 estimator', self.estimator))
        made = f'{self.shards_made} made ({self.audio_made:.0f} s of audio)'
        rows.append(('shards', f'{made}, {self.shards_reused} reused'))
        cpu = sum(self.costs.values())
        if cpu and self.shards_made:
            stages = ', '.join(f'{stage} {seconds:.1f}' for stage, seconds in self.costs.items())
            rows.append(('CPU seconds', f'{cpu:.1f} ({stages})'))
        rows.append(('time', f'{self.wall_seconds:.1f} s'))
        return [row for row in rows if row[1]]


def describe(dataset: Dataset) -> PrepareResult:
    """What a published dataset says itself: the result of a call that found it made."""
    counts, rejected, dropped = Counter[str](), Counter[str](), Counter[str]()
    reasons: dict[str, str] = {}
    warnings: list[tuple[str, str]] = []
    for row in read_sources(dataset):
        counts[row['outcome']] += 1
        if row['outcome'] == 'rejected':
            rejected[row.get('reason', '')] += 1
            reasons.setdefault(row.get('reason', ''), row.get('message', ''))
        dropped.update(row.get('dropped', {}))
        warnings += [(row['path'], note) for note in row['warnings'][: _NOTES - len(warnings)]]
        counts['warnings'] += len(row['warnings'])
    statistics = {split: dataset.statistics(split) for split in dataset.splits}
    audio_seconds = {split: part.get('audio_seconds', 0.0) for split, part in statistics.items()}
    splits = dataset.json(CLAIM, {'parameters': {'splits': {SPLIT: NUMBER}}})['parameters']['splits']
    return PrepareResult(
        path=dataset.address if gcs.is_gcs(dataset.address) else dataset.path,
        examples=dict(dataset.splits),
        audio_seconds=audio_seconds,
        accepted=counts['accepted'],
        rejected=dict(rejected),
        reasons=reasons,
        skipped=counts['skipped'],
        duplicates=counts['duplicate'],
        dropped=dict(dropped),
        warnings=tuple(warnings),
        n_warnings=counts['warnings'],
        estimator=dataset.manifest['f0_estimator'],
        shards_reused=sum(len(split['files']) for split in dataset.manifest['splits'].values()),
        statistics=statistics,
        splits_note=describe_shares(audio_seconds, splits),
        metrics=dataset.json(METRICS, {TEXT: NUMBER}) if dataset.file(METRICS).is_file() else {},
    )
