"""What the workers of a preparation count, as Beam metrics: any runner shows them; the result has them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from pipelines.beam.sdk import beam

NAMESPACE, FAILURES = 'ddsp.prepare', 'failures'
_MS = '_ms'  # Beam counts whole numbers: times are counted in milliseconds and given in seconds


def count_shard(content: Mapping[str, Any], wall_seconds: float) -> None:
    """Counts a shard that was made; called in a worker, within a DoFn.

    Args:
      content: What `make_shard` gave.
      wall_seconds: How long it took.
    """
    rows = content['rows']
    counts = Counter(
        {
            'made/shards': 1,
            'made/recordings': len(rows),
            'made/examples': content['examples'],
            'made/bytes': content['bytes'],
            'made/audio_ms': 1000 * sum(row['seconds'] for row in rows),
            'made/wall_ms': 1000 * wall_seconds,
        }
    )
    counts.update(f'rejected/{row["reason"]}' for row in rows if 'reason' in row)
    counts.update({f'cpu_ms/{stage}': 1000 * seconds for stage, seconds in content['costs'].items()})
    for name, value in counts.items():
        beam.metrics.Metrics.counter(NAMESPACE, name).inc(round(value))


def count_failure(message: str) -> None:
    """Tells the driver what stopped a worker; called in a worker, within a DoFn."""
    beam.metrics.Metrics.string_set(NAMESPACE, FAILURES).add(message)


def read_failures(result: Any) -> list[str]:
    """What stopped workers of a pipeline that has ended."""
    found = result.metrics().query(beam.metrics.MetricsFilter().with_name(FAILURES))['string_sets']
    return sorted(message for row in found for message in row.committed)


def read_metrics(result: Any) -> dict[str, float]:
    """What was counted.

    Args:
      result: Of a pipeline that has ended.

    Returns:
      `made/shards`, `made/recordings`, `made/examples`, `made/bytes`, `rejected/REASON`, and in seconds
      `made/audio_seconds`, `made/wall_seconds` and `cpu_seconds/STAGE` (sums over all workers).
    """
    counters = result.metrics().query(beam.metrics.MetricsFilter().with_namespace(NAMESPACE))['counters']
    found = {counter.key.metric.name: counter.committed or 0 for counter in counters}
    return {
        name.replace(_MS, '_seconds'): value / 1000 if _MS in name else value
        for name, value in sorted(found.items())
    }
