"""What became of each input: the last stage of its way, and its row of sources.jsonl."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from ddsp.io.decoding import shown
from pipelines.analysis.recording import PATH_MARK
from pipelines.beam.shards import Shard
from pipelines.sources.stages import Accepted, Outcome, Probed, Rejected


def judge(rows: Iterable[Probed | Rejected], shards: Iterable[Shard]) -> list[Outcome]:
    """Takes each input to its last stage, as the finished shards have it.

    A recording is rejected when none of its pieces can be used.
    """
    said = defaultdict(list)
    for shard in shards:
        for piece, part in shard.rows():
            said[piece.path].append(part)
    return [row if isinstance(row, Rejected) else _judge(row, said[row.path]) for row in rows]


def _judge(row: Probed, parts: list[dict[str, Any]]) -> Outcome:
    notes = tuple(dict.fromkeys(note for part in parts for note in part['warnings']))
    faults = [part for part in parts if 'reason' in part]
    messages = [part.get('message', '').replace(PATH_MARK, shown(row.path)) for part in faults]
    if faults and len(faults) == len(parts):
        return Rejected(row.path, faults[0]['reason'], messages[0], probed=row, warnings=notes)
    return Accepted(row, (*notes, *messages))


def source_rows(outcomes: Iterable[Outcome], shards: Sequence[Shard], name: str) -> list[dict[str, Any]]:
    """The rows of sources.jsonl in a dataset called `name`."""
    parts = defaultdict(list)
    for shard in shards:
        first = 0
        for piece, row in shard.rows():
            where = {'file': shard.plan.file_name(name), 'first': first, 'examples': row['examples']}
            parts[piece.path].append(row | {'split': piece.split, 'records': where})
            first += row['examples']
    return [_source_row(outcome, parts[outcome.path]) for outcome in outcomes]


def _source_row(outcome: Outcome, parts: list[dict[str, Any]]) -> dict[str, Any]:
    used = [part for part in parts if part['examples']]
    splits = sorted({part['split'] for part in used})
    probed = outcome.probed
    row: dict[str, Any] = {
        'path': outcome.path,
        'sha256': probed.sha256 if probed else '',
        'duration_s': round(sum(part['seconds'] for part in parts), 3) if parts else None,
        'sample_rate': probed.info.sample_rate if probed else None,
        'channels': probed.info.channels if probed else None,
        'outcome': outcome.outcome,
        'split': '+'.join(splits),
        'examples': sum(part['examples'] for part in used),
        'records': [part['records'] for part in used],
        'warnings': list(outcome.warnings),
    }
    dropped: Counter[str] = sum((Counter(part.get('dropped')) for part in parts), Counter())
    if dropped:
        row['dropped'] = dict(dropped)
    gains = [part['gain_db'] for part in parts if 'gain_db' in part]
    if gains:
        row['gain_db'] = gains[0] if len(set(gains)) == 1 else gains
    if isinstance(outcome, Rejected):
        row |= {'reason': outcome.reason, 'message': outcome.message}
    if len(splits) > 1:
        row['split_by_time'] = {part['split']: part['seconds'] for part in parts}
    return row
