"""What a preparation counts while it runs, as Beam metrics: any engine shows them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from pipelines.beam.engines import NAMESPACE
from pipelines.beam.sdk import beam


def count(name: str, amount: int = 1) -> None:
    """Adds to a counter; called in a worker, within a DoFn."""
    beam.metrics.Metrics.counter(NAMESPACE, name).inc(amount)


def count_shard(content: Mapping[str, Any], wall_seconds: float) -> None:
    """Counts a shard that was made, from what `make_shard` gave; times are in milliseconds."""
    rejected = Counter(f'rejected/{row["reason"]}' for row in content['rows'] if 'reason' in row)
    for name, value in (shard_counts(content, wall_seconds) | rejected).items():
        count(name, round(value))


def shard_counts(content: Mapping[str, Any], wall_seconds: float) -> dict[str, float]:
    """What there is to count of a shard that was made, but for what was rejected."""
    rows = content['rows']
    counts: dict[str, float] = {
        'made/shards': 1, 'made/recordings': len(rows), 'made/examples': content['examples'],
        'made/bytes': content['bytes'], 'made/audio_ms': 1000 * sum(row['seconds'] for row in rows),
        'made/wall_ms': 1000 * wall_seconds,
    }  # fmt: skip
    return counts | {f'cpu_ms/{stage}': 1000 * seconds for stage, seconds in content['costs'].items()}


def in_seconds(counts: Mapping[str, float]) -> dict[str, float]:
    """Counters by their names in metrics.json: times in seconds."""
    return {
        name.replace('_ms', '_seconds'): value / 1000 if '_ms' in name else value
        for name, value in sorted(counts.items())
    }
