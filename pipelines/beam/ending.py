"""The end of a job: what it made is published, and its outcome written down for whoever started it."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import pathlib
import tempfile
from collections import Counter
from collections.abc import Sequence
from typing import Any

from ddsp.errors import DDSPError
from ddsp.io import storage
from pipelines.beam.counters import in_seconds, shard_counts
from pipelines.beam.request import Request
from pipelines.publish.decision import Decision, next_version
from pipelines.publish.home import VersionTaken
from pipelines.publish.outcomes import RowFile
from pipelines.publish.publishing import merged, publish
from pipelines.shards.plan import SHOWN, Failure, check_usable
from pipelines.shards.shard import Shard, read_content
from pipelines.sources.stages import Rejected

PUBLISHED, AGAIN, FAILED = 'published', 'again', 'failed'


def end(
    request: Request,
    decision: Decision,
    shards: Sequence[Shard],
    row_files: Sequence[RowFile],
    failures: Sequence[Failure],
) -> str:
    """Publishes where all went well.

    Returns:
      How the job ended: 'published' (also where the dataset was there), 'failed', or 'again' where a split
      was left empty by recordings that proved unusable, which the next round leaves out.
    """
    outcome: dict[str, Any]
    try:
        failure = decision.failure or min(failures, key=lambda each: each.message, default=None)
        if failure:
            raise failure.error()
        names = [f'{shard.key}.json' for shard in shards] if decision.plan else []
        if decision.plan and _is_published(request, decision.version, decision.fingerprint):
            names, decision = [], dataclasses.replace(decision, plan=None)  # by another driver meanwhile
        with storage.local_folder(request.staging, names) as contents:
            outcome = _end(request, decision, shards, row_files, contents)
    except DDSPError as error:
        outcome = {'state': FAILED, **dataclasses.asdict(Failure.of(error))}
        with contextlib.suppress(DDSPError):  # another driver published it, and removed what it was made of
            if decision.plan and _is_published(request, decision.version, decision.fingerprint):
                outcome = {'state': PUBLISHED, 'version': decision.version}
    if outcome['state'] == PUBLISHED:
        # The dataset is there, this only saves time and space; a repeated step finds the rows gone.
        with contextlib.suppress(DDSPError, OSError):
            _remember(request, row_files)
            storage.remove_folder(request.staging)
    storage.write(request.outcome, json.dumps(outcome).encode())
    return str(outcome['state'])


def _end(
    request: Request,
    decision: Decision,
    shards: Sequence[Shard],
    row_files: Sequence[RowFile],
    contents: str,
) -> dict[str, Any]:
    if decision.plan is None:
        return {'state': PUBLISHED, 'version': decision.version}
    order = {split: i for i, split in enumerate(decision.options.splits)}
    shards = sorted(shards, key=lambda shard: (order[shard.split], shard.index))
    if len(shards) < len(decision.plan.lanes):
        lost = len(decision.plan.lanes) - len(shards)
        raise DDSPError(
            f'{lost} of {len(decision.plan.lanes)} shards were not made. Run the same command again.'
        )
    counts: Counter[str] = sum((file.counts for file in row_files), Counter())
    named = sorted((row for file in row_files for row in file.named), key=lambda row: row.path)
    rejected = counts['files/rejected']
    check_usable(counts['files/accepted'], rejected, named[:SHOWN], request.options)
    made, costs, examples = _add_up(contents, shards)
    if rejected > decision.rejected and not all(examples[split] for split in order):
        _refuse(request, row_files)
        return {'state': AGAIN, 'made': made}
    metrics = dict(sorted(counts.items())) | in_seconds(made)
    version = _publish(request, decision, shards, row_files, contents, metrics)
    return {
        'state': PUBLISHED, 'version': version, 'metrics': metrics,
        'costs': {stage: round(seconds, 3) for stage, seconds in costs.items()},
        'shards': len(shards), 'shards_made': sum(shard.made for shard in shards),
        'audio_made': sum(shard.seconds for shard in shards if shard.made),
    }  # fmt: skip


def _publish(
    request: Request,
    decision: Decision,
    shards: Sequence[Shard],
    row_files: Sequence[RowFile],
    contents: str,
    metrics: dict[str, float],
) -> str:
    home, version = request.home, decision.version
    provenance = dataclasses.replace(request.provenance, fingerprint=decision.fingerprint)
    files = [file.address for file in row_files]
    while True:
        try:
            publish(
                home, version, request.staging, contents, shards, files, decision.options, provenance, metrics
            )
            return version
        except VersionTaken:
            if request.version is not None:
                raise
            version = next_version(version)
        except DDSPError:
            if not _is_published(request, version, decision.fingerprint):
                raise
            return version


def _is_published(request: Request, version: str, fingerprint: str) -> bool:
    home = request.home
    return version in home.versions() and home.open(version).manifest['fingerprint'] == fingerprint


def _add_up(contents: str, shards: Sequence[Shard]) -> tuple[dict[str, float], Counter[str], Counter[str]]:
    """What was counted of the shards that were made; CPU seconds and examples by split of all of them."""
    made: Counter[str] = Counter()
    costs: Counter[str] = Counter()
    examples: Counter[str] = Counter()
    for shard in shards:
        content = read_content(contents, shard)
        examples[shard.split] += content['examples']
        costs.update(content.get('costs', {}))
        if shard.made:
            made.update(shard_counts(content, shard.wall_seconds))
    return dict(made), costs, examples


def _remember(request: Request, row_files: Sequence[RowFile]) -> None:
    """Keeps what is known of the inputs for the next preparation."""
    with tempfile.TemporaryDirectory(prefix='ddsp-') as folder:
        survey = pathlib.Path(folder, 'survey')
        with merged(file.address for file in row_files) as rows, survey.open('w', encoding='ascii') as file:
            for row in rows:
                if known := row.get('known'):
                    file.write(f'{known}\n')
        storage.write(request.home.survey, survey)


def _refuse(request: Request, row_files: Sequence[RowFile]) -> None:
    """Leaves word for the next round of the same job which recordings proved unusable."""
    refused = []
    with merged(file.address for file in row_files) as rows:
        for line in rows:
            row = line['row']
            if row['outcome'] == 'rejected':
                refused.append({key: row[key] for key in ('path', 'reason', 'message', 'warnings')})
    text = ''.join(json.dumps(row) + '\n' for row in refused)
    storage.write(_refused(request), text.encode('ascii'))


def read_refused(request: Request) -> dict[str, Rejected]:
    """What an earlier round of the same job found unusable, by path."""
    rows = map(json.loads, (storage.read(_refused(request)) or b'').decode('ascii').splitlines())
    return {
        row['path']: Rejected(row['path'], row['reason'], row['message'], warnings=tuple(row['warnings']))
        for row in rows
    }


def _refused(request: Request) -> str:
    return f'{request.staging}/refused-{request.recipe}.jsonl'
