"""What became of each input: the last stage of its way, and its row of sources.jsonl."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from typing import Any

from ddsp.io.decoding import shown
from pipelines.analysis.recording import PATH_MARK
from pipelines.shards.shard import ShardPlan
from pipelines.sources.probing import remember
from pipelines.sources.stages import Accepted, Outcome, Probed, Rejected


@dataclasses.dataclass(frozen=True)
class RowFile:
    """A file of rows, sorted by path, and what it holds.

    Attributes:
      address: The file.
      counts: `files/OUTCOME` and `rejected/REASON`.
      named: The first inputs that cannot be used, without their recordings.
    """

    address: str
    counts: Counter[str]
    named: tuple[Rejected, ...]


@dataclasses.dataclass(frozen=True)
class Part:
    """What became of one piece of a recording; `order` is that of its split."""

    path: str
    order: int
    row: dict[str, Any]


def parts(plan: ShardPlan, content: dict[str, Any], file_name: str, order: int) -> Iterator[Part]:
    """What a shard says of its pieces."""
    first = 0
    for piece, row in zip(plan.pieces, content['rows'], strict=True):
        where = {'file': file_name, 'first': first, 'examples': row['examples']}
        yield Part(piece.path, order, row | {'split': piece.split, 'records': where})
        first += row['examples']


def outcomes(rows: Iterable[Probed | Rejected | Part]) -> Iterator[tuple[Outcome, str]]:
    """Takes inputs to their last stage, from the stages and the parts of all of them, in the order of paths.

    Gives each with its line of a file of rows.
    """
    stages: dict[str, Probed | Rejected] = {}
    said: dict[str, list[Part]] = defaultdict(list)
    for row in rows:
        if isinstance(row, Part):
            said[row.path].append(row)
        else:
            stages[row.path] = row
    for path in sorted(stages):
        told = [part.row for part in sorted(said[path], key=lambda part: part.order)]
        outcome = _judge(stages[path], told)
        line: dict[str, Any] = {'path': path, 'row': _source_row(outcome, told)}
        if outcome.probed:
            line['known'] = remember(outcome.probed)
        yield outcome, json.dumps(line)


def _judge(row: Probed | Rejected, parts: list[dict[str, Any]]) -> Outcome:
    """A recording is rejected when none of its pieces can be used."""
    if isinstance(row, Rejected):
        return row
    notes = tuple(dict.fromkeys(note for part in parts for note in part['warnings']))
    faults = [part for part in parts if 'reason' in part]
    messages = [part.get('message', '').replace(PATH_MARK, shown(row.path)) for part in faults]
    if faults and len(faults) == len(parts):
        return Rejected(row.path, faults[0]['reason'], messages[0], probed=row, warnings=notes)
    return Accepted(row, (*notes, *messages))


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


def count_inputs(rows: Iterable[Outcome]) -> Counter[str]:
    """How many inputs came to what end: `files/OUTCOME` and `rejected/REASON`."""
    counts: Counter[str] = Counter()
    for row in rows:
        counts[f'files/{row.outcome}'] += 1
        if isinstance(row, Rejected) and row.outcome == 'rejected':
            counts[f'rejected/{row.reason}'] += 1
    return counts
