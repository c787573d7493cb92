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
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ddsp.io.dataset import MANIFEST, SCHEMA_VERSION
from ddsp.version import __version__
from pipelines.analysis.statistics import Statistics
from pipelines.beam.shards import Shard, ShardPlan
from pipelines.options import PrepareOptions
from pipelines.publish.home import CLAIM, METRICS, SHARDS, CloudHome, LocalHome, link
from pipelines.publish.outcomes import source_rows
from pipelines.sources.stages import Outcome, unusable

_OWN = ('costs', 'name')  # of a shard's content: what its row in shards.jsonl does not take over
_DESCRIBED = ('sample_rate', 'frame_rate', 'example_secs', 'hop_secs', 'centered', 'alignment')
_PACKAGES = ('numpy', 'scipy', 'soundfile', 'soxr', 'apache-beam', 'swift-f0', 'onnxruntime')


def publish(
    home: LocalHome | CloudHome,
    version: str,
    staging: pathlib.Path,
    shards: Sequence[Shard],
    outcomes: Sequence[Outcome],
    options: PrepareOptions,
    fingerprint: str,
    metrics: Mapping[str, float],
) -> None:
    """Writes everything beside the shards and makes the dataset visible at once.

    The metrics go into metrics.json, which the manifest does not list: the same dataset made again takes
    other times.

    Raises:
      VersionTaken: Somebody else writes this version in a bucket, or gave it up.
    """
    folder = staging / 'publish'
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    splits: dict[str, Any] = {split: {'examples': 0, 'files': []} for split in options.splits}
    statistics = {split: Statistics() for split in options.splits}
    shard_rows, reused = [], {}
    for shard in shards:
        row = {'name': shard.plan.file_name(home.name)}
        shard_rows.append(row | {key: value for key, value in shard.content.items() if key not in _OWN})
        if shard.origin:
            reused[row['name']] = shard.origin
        else:
            link(staging / shard.plan.key, folder / row['name'])
        split = splits[shard.plan.split]
        split['files'].append(row | {key: shard.content[key] for key in ('bytes', 'sha256', 'examples')})
        split['examples'] += shard.content['examples']
        statistics[shard.plan.split].merge(Statistics.from_json(shard.content['statistics']))
    summaries = {split: part.summary() for split, part in statistics.items()}
    contents = {
        'features.json': _dump(_tfds_features(options)),
        'dataset_info.json': _dump(_tfds_info(home.name, version, splits)),
        'statistics.json': _dump({'schema_version': SCHEMA_VERSION, 'splits': summaries}),
        'sources.jsonl': _lines(source_rows(outcomes, shards, home.name)),
        'rejected.jsonl': _lines(
            {'path': row.path, 'reason': row.reason, 'message': row.message} for row in unusable(outcomes)
        ),
        SHARDS: _lines(shard_rows),
    }
    hashes = {name: _sha256(text) for name, text in contents.items()}
    content = _sha256(_dump([[row for split in splits.values() for row in split['files']], hashes]))
    contents[CLAIM] = _dump(_pipeline(options, shards[0].plan, fingerprint, content))
    hashes[CLAIM] = _sha256(contents[CLAIM])
    manifest = _manifest(home.name, version, options, fingerprint, shards[0].plan.estimator)
    contents |= {
        METRICS: _dump(dict(metrics)),
        MANIFEST: _dump(manifest | {'splits': splits, 'files': hashes}),
    }
    for name, text in contents.items():
        with (folder / name).open('w', encoding='ascii') as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
    home.publish(folder, version, reused)
    shutil.rmtree(staging, ignore_errors=True)


def _manifest(
    name: str, version: str, options: PrepareOptions, fingerprint: str, estimator: str
) -> dict[str, Any]:
    """MANIFEST.json without its lists of files."""
    return {
        'schema_version': SCHEMA_VERSION, 'name': name, 'version': version, 'created': _now(),
        'fingerprint': fingerprint,
        **{option: getattr(options, option) for option in _DESCRIBED},
        'f0_estimator': estimator, 'features': options.feature_lengths,
    }  # fmt: skip


def _pipeline(options: PrepareOptions, plan: ShardPlan, fingerprint: str, content: str) -> dict[str, Any]:
    return {
        'parameters': options.record(),
        'f0_estimator': {'name': plan.estimator, 'weights_sha256': plan.estimator_sha256},
        'versions': {'ddsp': __version__, 'python': platform.python_version()} | _versions(),
        'code_revision': _revision(),
        'fingerprint': fingerprint,
        'content_sha256': content,
    }


def _tfds_features(options: PrepareOptions) -> dict[str, Any]:
    """features.json, as TFDS writes it for flat float features."""
    core = 'tensorflow_datasets.core.features'
    features = {}
    for name, length in sorted(options.feature_lengths.items()):
        tensor = {'dtype': 'float32', 'encoding': 'none', 'shape': {'dimensions': [str(length)]}}
        features[name] = {'pythonClassName': f'{core}.tensor_feature.Tensor', 'tensor': tensor}
    kind = f'{core}.features_dict.FeaturesDict'
    return {'featuresDict': {'features': features}, 'pythonClassName': kind}


def _tfds_info(name: str, version: str, splits: dict[str, Any]) -> dict[str, Any]:
    """dataset_info.json, as TFDS writes it."""
    rows = []
    for split, content in splits.items():
        rows.append({
            'filepathTemplate': '{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}', 'name': split,
            'numBytes': str(sum(entry['bytes'] for entry in content['files'])),
            'shardLengths': [str(entry['examples']) for entry in content['files']],
        })  # fmt: skip
    description = 'Audio with f0 and loudness for differentiable signal processing; see pipeline.json.'
    return {
        'description': description, 'fileFormat': 'tfrecord', 'name': name, 'splits': rows,
        'version': version,
    }  # fmt: skip


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
    command = ['git', '-C', os.path.dirname(os.path.abspath(__file__)), 'rev-parse', 'HEAD']
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ''


def _now() -> str:
    """UTC; SOURCE_DATE_EPOCH sets it for reproducible manifests."""
    seconds = int(os.environ.get('SOURCE_DATE_EPOCH') or time.time())
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime('%Y-%m-%dT%H:%M:%SZ')


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode('ascii')).hexdigest()


def _dump(content: Any) -> str:
    return json.dumps(content, indent=2) + '\n'


def _lines(rows: Iterable[Any]) -> str:
    return ''.join(json.dumps(row) + '\n' for row in rows)
