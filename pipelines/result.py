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
from pipelines.analysis.statistics import Statistics
from pipelines.beam.shards import Shard
from pipelines.inspect.inspection import read_sources
from pipelines.publish.home import CLAIM, METRICS
from pipelines.sources.finding import Source
from pipelines.sources.splits import describe_shares


@dataclasses.dataclass(frozen=True)
class PrepareResult:
    """What a preparation did.

    Attributes:
      path: The version directory; a `gs://` address where it is in a bucket.
      examples: Number of examples of each split.
      audio_seconds: Length of the recordings of each split.
      accepted: Number of recordings that are used.
      rejected: Rejected inputs by reason.
      reasons: For each reason the message about one such input.
      skipped: Number of files that were passed over (hidden, not audio by their name).
      duplicates: Number of recordings that were there twice.
      dropped: Examples that the options left out, by reason.
      warnings: Notes on recordings that are used: (path, text).
      estimator: The f0 estimator.
      shards_made: Shards that this call made.
      shards_reused: Shards that were there.
      audio_made: Seconds of audio in the shards that this call made.
      wall_seconds: Time that the call took.
      costs: CPU seconds of each stage, for all shards.
      statistics: statistics.json's content by split.
      splits_note: What each split got, where that is not near the shares that were asked for.
      metrics: metrics.json's content: `files/OUTCOME`, `rejected/REASON`, `made/...` (what this call made:
        shards, recordings, examples, bytes, seconds of audio, seconds of all workers together) and
        `cpu_seconds/STAGE`.
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
    estimator: str
    shards_made: int
    shards_reused: int
    audio_made: float
    wall_seconds: float
    costs: dict[str, float]
    statistics: dict[str, Any]
    splits_note: str = ''
    metrics: dict[str, float] = dataclasses.field(default_factory=dict)

    def summary_rows(self) -> list[tuple[str, str]]:
        """Label and value of each line of a table."""
        rows = [('dataset', shown(self.path))]
        for split, count in self.examples.items():
            rows.append((split, f'{count} examples, {self.audio_seconds[split]:.1f} s of audio'))
            stats = self.statistics[split]
            if stats['pitch_midi']:
                low, high = (stats['pitch_midi']['quantiles'][i] for i in (1, 99))
                rows.append(
                    (
                        f'{split} pitch',
                        f'MIDI {low:.1f} to {high:.1f}, {100 * stats["voiced_share"]:.0f} % voiced',
                    )
                )
            if stats['loudness_db']:
                low, high = (stats['loudness_db']['quantiles'][i] for i in (1, 99))
                rows.append((f'{split} loudness', f'{low:.1f} to {high:.1f} dB'))
        rows += [('splits', self.splits_note)] if self.splits_note else []
        rows.append(('recordings', f'{self.accepted} used, {sum(self.rejected.values())} rejected'))
        rows += [
            ('rejected', f'{count} {reason}: {self.reasons[reason]}')
            for reason, count in sorted(self.rejected.items(), key=lambda item: (-item[1], item[0]))
        ]
        rows += [
            ('left out', f'{count} examples: {reason}') for reason, count in sorted(self.dropped.items())
        ]
        rows += [('passed over', f'{self.skipped} other files')] if self.skipped else []
        rows += [('duplicates', str(self.duplicates))] if self.duplicates else []
        if self.warnings:
            path, note = self.warnings[0]
            rows.append(
                ('warnings', f'{len(self.warnings)}, such as {shown(os.path.basename(path))}: {note}')
            )
        rows.append(('f0 estimator', self.estimator))
        rows.append(
            (
                'shards',
                f'{self.shards_made} made ({self.audio_made:.0f} s of audio), {self.shards_reused} reused',
            )
        )
        cpu = sum(self.costs.values())
        if cpu and self.shards_made:
            stages = ', '.join(f'{stage} {seconds:.1f}' for stage, seconds in self.costs.items())
            rows.append(('CPU seconds', f'{cpu:.1f} ({stages})'))
        rows.append(('time', f'{self.wall_seconds:.1f} s'))
        return rows


def count_inputs(sources: list[Source]) -> dict[str, float]:
    """How many inputs came to what end: `files/OUTCOME` and `rejected/REASON`."""
    counts = Counter(f'files/{source.outcome}' for source in sources)
    counts.update(f'rejected/{source.reason}' for source in sources if source.outcome == 'rejected')
    return {name: counts[name] for name in sorted(counts)}


def describe_made(
    target: pathlib.Path | str,
    sources: list[Source],
    shards: list[Shard],
    statistics: dict[str, Statistics],
    splits: dict[str, float],
    made: int,
    reused: int,
    audio_made: float,
    wall: float,
) -> PrepareResult:
    """The result of making a dataset."""
    costs: Counter[str] = Counter()
    dropped: Counter[str] = Counter()
    for shard in shards:
        costs.update(shard.content.get('costs', {}))
        for row in shard.content['rows']:
            dropped.update(row.get('dropped', {}))
    counts = Counter(source.outcome for source in sources)
    rejected = [source for source in sources if source.outcome == 'rejected']
    audio_seconds = {split: part.audio_seconds for split, part in statistics.items()}
    return PrepareResult(
        path=target,
        examples={split: part.examples for split, part in statistics.items()},
        audio_seconds=audio_seconds,
        accepted=counts['accepted'],
        rejected=dict(Counter(source.reason for source in rejected)),
        reasons={source.reason: source.message for source in reversed(rejected)},
        skipped=counts['skipped'],
        duplicates=counts['duplicate'],
        dropped=dict(dropped),
        warnings=tuple((source.path, note) for source in sources for note in source.warnings),
        estimator=shards[0].plan.estimator,
        shards_made=made,
        shards_reused=reused,
        audio_made=audio_made,
        wall_seconds=wall,
        costs={stage: round(seconds, 3) for stage, seconds in costs.items()},
        statistics={split: part.summary() for split, part in statistics.items()},
        splits_note=describe_shares(audio_seconds, splits),
    )


def describe_published(dataset: Dataset, wall: float) -> PrepareResult:
    """The result for a dataset that was there already."""
    rows = read_sources(dataset)
    counts = Counter(row['outcome'] for row in rows)
    rejected = [row for row in rows if row['outcome'] == 'rejected']
    statistics = {split: dataset.statistics(split) for split in dataset.splits}
    audio_seconds = {split: part.get('audio_seconds', 0.0) for split, part in statistics.items()}
    splits = dataset.json(CLAIM, {'parameters': {'splits': {SPLIT: NUMBER}}})['parameters']['splits']
    return PrepareResult(
        path=dataset.address if gcs.is_gcs(dataset.address) else dataset.path,
        examples=dict(dataset.splits),
        audio_seconds=audio_seconds,
        accepted=counts['accepted'],
        rejected=dict(Counter(row.get('reason', '') for row in rejected)),
        reasons={row.get('reason', ''): row.get('message', '') for row in reversed(rejected)},
        skipped=counts['skipped'],
        duplicates=counts['duplicate'],
        dropped=dict(sum((Counter(row.get('dropped', {})) for row in rows), Counter())),
        warnings=tuple((row['path'], note) for row in rows for note in row['warnings']),
        estimator=dataset.manifest['f0_estimator'],
        shards_made=0,
        shards_reused=sum(len(split['files']) for split in dataset.manifest['splits'].values()),
        audio_made=0.0,
        wall_seconds=wall,
        costs={},
        statistics=statistics,
        splits_note=describe_shares(audio_seconds, splits),
        metrics=_read_metrics(dataset),
    )


def _read_metrics(dataset: Dataset) -> dict[str, float]:
    return dataset.json(METRICS, {TEXT: NUMBER}) if dataset.file(METRICS).is_file() else {}
