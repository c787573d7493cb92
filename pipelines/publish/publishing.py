"""From finished shards to a published dataset: metadata and manifest, handed to the dataset's home."""

from __future__ import annotations

import datetime
import hashlib
import importlib.metadata
import json
import os
import pathlib
import platform
import shutil
import subprocess
from collections import Counter
from collections.abc import Mapping
from typing import Any

from ddsp.io.dataset import MANIFEST, SCHEMA_VERSION
from ddsp.version import __version__
from pipelines.analysis.statistics import Statistics
from pipelines.beam.shards import Shard, ShardPlan
from pipelines.options import PrepareOptions
from pipelines.publish.home import CLAIM, METRICS, SHARDS, CloudHome, LocalHome, link
from pipelines.sources.finding import Source

_PACKAGES = ('numpy', 'scipy', 'soundfile', 'soxr', 'apache-beam', 'swift-f0', 'onnxruntime')


def publish(
    home: LocalHome | CloudHome,
    version: str,
    staging: pathlib.Path,
    shards: list[Shard],
    sources: list[Source],
    options: PrepareOptions,
    fingerprint: str,
    metrics: Mapping[str, float],
) -> dict[str, Statistics]:
    """Writes everything beside the shards and makes the dataset visible at once.

    Args:
      home: Where the dataset is published.
      version: The version, which does not exist yet.
      staging: Where the shards are that no earlier version holds.
      shards: The shards.
      sources: All inputs with their outcomes.
      options: The options.
      fingerprint: Of the whole preparation.
      metrics: What the preparation cost. It goes into metrics.json, which the manifest does not list: the
        same dataset made again takes other times.

    Returns:
      The statistics of each split.

    Raises:
      VersionTaken: Somebody else writes this version in a bucket, or gave it up.
    """
    name = home.name
    folder = staging / 'publish'
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    splits: dict[str, Any] = {split: {'examples': 0, 'files': []} for split in options.splits}
    statistics = {split: Statistics() for split in options.splits}
    reused = {}
    for shard in shards:
        row = {'name': f'{name}-{shard.plan.stem}'}
        row |= {key: shard.content[key] for key in ('bytes', 'sha256', 'examples')}
        if shard.origin:
            reused[row['name']] = shard.origin
        else:
            link(staging / shard.plan.key, folder / row['name'])
        splits[shard.plan.split]['files'].append(row)
        splits[shard.plan.split]['examples'] += row['examples']
        statistics[shard.plan.split].merge(Statistics.from_json(shard.content['statistics']))
    estimator = shards[0].plan
    contents = {
        'features.json': _dump(_tfds_features(options)),
        'dataset_info.json': _dump(_tfds_info(name, version, splits)),
        'statistics.json': _dump(_statistics(statistics)),
        'sources.jsonl': _lines(_source_rows(sources, shards, name)),
        'rejected.jsonl': _lines(
            {'path': source.path, 'reason': source.reason, 'message': source.message}
            for source in sources
            if source.outcome == 'rejected'
        ),
        SHARDS: _lines(_shard_row(shard, name) for shard in shards),
    }
    hashes = {key: hashlib.sha256(value.encode('ascii')).hexdigest() for key, value in contents.items()}
    rows = [row for split in splits.values() for row in split['files']]
    content = hashlib.sha256(_dump([rows, hashes]).encode()).hexdigest()
    contents[CLAIM] = _dump(_pipeline(options, estimator, fingerprint) | {'content_sha256': content})
    hashes[CLAIM] = hashlib.sha256(contents[CLAIM].encode('ascii')).hexdigest()
    for file_name, text in contents.items():
        (folder / file_name).write_text(text, encoding='ascii')
    manifest = _manifest(name, version, options, fingerprint, estimator.estimator)
    manifest |= {'splits': splits, 'files': hashes}
    _write_last(folder / MANIFEST, _dump(manifest))
    (folder / METRICS).write_text(_dump(dict(metrics)), encoding='ascii')
    home.publish(folder, version, reused)
    shutil.rmtree(staging, ignore_errors=True)
    return statistics


def _manifest(
    name: str, version: str, options: PrepareOptions, fingerprint: str, estimator: str
) -> dict[str, Any]:
    """MANIFEST.json without its lists of files."""
    return {
        'schema_version': SCHEMA_VERSION,
        'name': name,
        'version': version,
        'created': _now(),
        'fingerprint': fingerprint,
        'sample_rate': options.sample_rate,
        'frame_rate': options.frame_rate,
        'example_secs': options.example_secs,
        'hop_secs': options.hop_secs,
        'centered': options.centered,
        'alignment': options.alignment,
        'f0_estimator': estimator,
        'features': options.feature_lengths,
    }


def _shard_row(shard: Shard, name: str) -> dict[str, Any]:
    """A line of shards.jsonl: what a later version needs to use the shard again."""
    row = {key: value for key, value in shard.content.items() if key not in ('costs', 'name')}
    return {'name': f'{name}-{shard.plan.stem}', **row}


def _write_last(path: pathlib.Path, content: str) -> None:
    with path.open('w', encoding='ascii') as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _tfds_features(options: PrepareOptions) -> dict[str, Any]:
    """features.json, as TFDS writes it for flat float features."""
    features = {
        name: {
            'pythonClassName': 'tensorflow_datasets.core.features.tensor_feature.Tensor',
            'tensor': {'dtype': 'float32', 'encoding': 'none', 'shape': {'dimensions': [str(length)]}},
        }
        for name, length in sorted(options.feature_lengths.items())
    }
    kind = 'tensorflow_datasets.core.features.features_dict.FeaturesDict'
    return {'featuresDict': {'features': features}, 'pythonClassName': kind}


def _tfds_info(name: str, version: str, splits: dict[str, Any]) -> dict[str, Any]:
    """dataset_info.json, as TFDS writes it."""
    rows = [
        {
            'filepathTemplate': '{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}',
            'name': split,
            'numBytes': str(sum(entry['bytes'] for entry in content['files'])),
            'shardLengths': [str(entry['examples']) for entry in content['files']],
        }
        for split, content in splits.items()
    ]
    description = 'Audio with f0 and loudness for differentiable signal processing; see pipeline.json.'
    return {
        'description': description,
        'fileFormat': 'tfrecord',
        'name': name,
        'splits': rows,
        'version': version,
    }


def _statistics(statistics: dict[str, Statistics]) -> dict[str, Any]:
    splits = {split: part.summary() for split, part in statistics.items()}
    return {'schema_version': SCHEMA_VERSION, 'splits': splits}


def _source_rows(sources: list[Source], shards: list[Shard], name: str) -> list[dict[str, Any]]:
    """The lines of sources.jsonl."""
    parts: dict[str, list[dict[str, Any]]] = {}
    for shard in shards:
        first = 0
        for piece, row in shard.rows():
            where = {'file': f'{name}-{shard.plan.stem}', 'first': first, 'examples': row['examples']}
            part = {'split': piece.split, 'seconds': row['seconds'], 'records': where}
            part |= {name: row[name] for name in ('gain_db', 'dropped') if name in row}
            parts.setdefault(piece.path, []).append(part)
            first += row['examples']
    return [_source_row(source, parts.get(source.path, [])) for source in sources]


def _source_row(source: Source, parts: list[dict[str, Any]]) -> dict[str, Any]:
    """A line of sources.jsonl."""
    used = [part for part in parts if part['records']['examples']]
    splits = sorted({part['split'] for part in used})
    row: dict[str, Any] = {
        'path': source.path,
        'sha256': source.sha256,
        'duration_s': round(sum(part['seconds'] for part in parts), 3) if parts else None,
        'sample_rate': source.info.sample_rate if source.info else None,
        'channels': source.info.channels if source.info else None,
        'outcome': source.outcome,
        'split': '+'.join(splits),
        'examples': sum(part['records']['examples'] for part in used),
        'records': [part['records'] for part in used],
        'warnings': source.warnings,
    }
    dropped: Counter[str] = sum((Counter(part.get('dropped')) for part in parts), Counter())
    if dropped:
        row['dropped'] = dict(dropped)
    gains = [part['gain_db'] for part in parts if 'gain_db' in part]
    if gains:
        row['gain_db'] = gains[0] if len(set(gains)) == 1 else gains
    if source.outcome != 'accepted':
        row |= {'reason': source.reason, 'message': source.message}
    if len(splits) > 1:
        row['split_by_time'] = {part['split']: part['seconds'] for part in parts}
    return row


def _pipeline(options: PrepareOptions, estimator: ShardPlan, fingerprint: str) -> dict[str, Any]:
    return {
        'parameters': options.record(),
        'f0_estimator': {'name': estimator.estimator, 'weights_sha256': estimator.estimator_sha256},
        'versions': {'ddsp': __version__, 'python': platform.python_version()} | _versions(),
        'code_revision': _revision(),
        'fingerprint': fingerprint,
    }


def _versions() -> dict[str, str]:
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _revision() -> str:
    """The git revision of the code, where it is a checkout."""
    here = pathlib.Path(__file__).resolve().parent
    command = ['git', '-C', str(here), 'rev-parse', 'HEAD']
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ''


def _now() -> str:
    """UTC; SOURCE_DATE_EPOCH sets it for reproducible manifests."""
    epoch = os.environ.get('SOURCE_DATE_EPOCH')
    now = datetime.datetime.now(datetime.timezone.utc)
    if epoch:
        now = datetime.datetime.fromtimestamp(int(epoch), datetime.timezone.utc)
    return now.strftime('%Y-%m-%dT%H:%M:%SZ')


def _dump(content: Any) -> str:
    return json.dumps(content, indent=2) + '\n'


def _lines(rows: Any) -> str:
    return ''.join(json.dumps(row) + '\n' for row in rows)
