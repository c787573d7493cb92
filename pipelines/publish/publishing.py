"""From finished shards to a published dataset: metadata and manifest, handed to the dataset's home.

Nothing here grows with the number of inputs: rows go from files to files.
"""

from __future__ import annotations

import contextlib
import hashlib
import heapq
import json
import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import IO, Any

from ddsp.io import gcs, storage
from ddsp.io.dataset import MANIFEST, SCHEMA_VERSION, file_sha256
from pipelines.analysis.statistics import Statistics
from pipelines.options import PrepareOptions
from pipelines.publish.home import CLAIM, METRICS, SHARDS, STAGING, CloudHome, LocalHome
from pipelines.publish.provenance import Provenance
from pipelines.shards.shard import Shard, read_content

_OWN = ('costs', 'name')  # of a shard's content: what its row in shards.jsonl does not take over
_DESCRIBED = ('sample_rate', 'frame_rate', 'example_secs', 'hop_secs', 'centered', 'alignment')


def publish(
    home: LocalHome | CloudHome,
    version: str,
    staging: str,
    contents: str,
    shards: Sequence[Shard],
    row_files: Iterable[str],
    options: PrepareOptions,
    provenance: Provenance,
    metrics: Mapping[str, float],
) -> None:
    """Writes everything beside the shards and makes the dataset visible at once.

    The metrics go into metrics.json, which the manifest does not list: the same dataset made again takes
    other times.

    Args:
      home: The place of the dataset.
      version: The version to publish.
      staging: Where the shards lie.
      contents: A folder of this machine with their .json files.
      shards: All shards of the version in the order of the splits and of their numbers.
      row_files: Files with a row for each input (see `pipelines.publish.outcomes`).
      options: How the dataset was made, with its splits.
      provenance: What pipeline.json says beside the options.
      metrics: What metrics.json says.

    Raises:
      VersionTaken: Somebody else writes this version in a bucket, or gave it up.
    """
    with _metadata_folder(home, staging) as folder:
        splits: dict[str, Any] = {split: {'examples': 0, 'files': []} for split in options.splits}
        summaries, places = _write_shard_rows(folder, home.name, staging, contents, shards, splits)
        _write_source_rows(folder, row_files)
        texts = {
            'features.json': _dump(_tfds_features(options)),
            'dataset_info.json': _dump(_tfds_info(home.name, version, splits)),
            'statistics.json': _dump({'schema_version': SCHEMA_VERSION, 'splits': summaries}),
        }
        for name, text in texts.items():
            (folder / name).write_text(text, encoding='ascii')
        hashes = {
            name: file_sha256(folder / name) for name in (*texts, 'sources.jsonl', 'rejected.jsonl', SHARDS)
        }
        content = _dump([[row for split in splits.values() for row in split['files']], hashes])
        digest = hashlib.sha256(content.encode()).hexdigest()
        (folder / CLAIM).write_text(_dump(provenance.pipeline(options, digest)), encoding='ascii')
        hashes[CLAIM] = file_sha256(folder / CLAIM)
        manifest = {
            'schema_version': SCHEMA_VERSION, 'name': home.name, 'version': version,
            'created': provenance.created, 'fingerprint': provenance.fingerprint,
            **{option: getattr(options, option) for option in _DESCRIBED},
            'f0_estimator': provenance.estimator, 'features': options.feature_lengths,
            'splits': splits, 'files': hashes,
        }  # fmt: skip
        (folder / METRICS).write_text(_dump(dict(metrics)), encoding='ascii')
        (folder / MANIFEST).write_text(_dump(manifest), encoding='ascii')
        for file in folder.iterdir():
            with file.open('rb') as opened:
                os.fsync(opened.fileno())
        home.publish(folder, version, places)


@contextlib.contextmanager
def _metadata_folder(home: LocalHome | CloudHome, staging: str) -> Iterator[pathlib.Path]:
    """An empty folder: in the staging folder where that is here, so that it can become the version."""
    if gcs.is_gcs(staging):
        with tempfile.TemporaryDirectory(prefix='ddsp-') as temporary:
            yield pathlib.Path(temporary)
        return
    folder = pathlib.Path(staging, 'publish')
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    yield folder


def _write_shard_rows(
    folder: pathlib.Path,
    name: str,
    staging: str,
    contents: str,
    shards: Sequence[Shard],
    splits: dict[str, Any],
) -> tuple[dict[str, Any], dict[str, str]]:
    """Writes shards.jsonl and fills `splits` as the manifest has them.

    Returns the statistics of each split, and the place of each shard within the dataset's folder.
    """
    statistics = {split: Statistics() for split in splits}
    inside = staging[staging.rindex(STAGING) :]
    places = {}
    with (folder / SHARDS).open('w', encoding='ascii') as file:
        for shard in shards:
            content = read_content(contents, shard)
            row = {'name': shard.file_name(name)}
            file.write(
                json.dumps(row | {key: value for key, value in content.items() if key not in _OWN}) + '\n'
            )
            places[row['name']] = shard.origin or f'{inside}/{shard.key}'
            split = splits[shard.split]
            split['files'].append(row | {key: content[key] for key in ('bytes', 'sha256', 'examples')})
            split['examples'] += content['examples']
            statistics[shard.split].merge(Statistics.from_json(content['statistics']))
    return {split: part.summary() for split, part in statistics.items()}, places


def _write_source_rows(folder: pathlib.Path, row_files: Iterable[str]) -> None:
    """Writes sources.jsonl and rejected.jsonl in the order of the paths."""
    with (
        (folder / 'sources.jsonl').open('w', encoding='ascii') as sources,
        (folder / 'rejected.jsonl').open('w', encoding='ascii') as rejected,
        merged(row_files) as lines,
    ):
        for line in lines:
            row = line['row']
            sources.write(json.dumps(row) + '\n')
            if row['outcome'] == 'rejected':
                sort = {key: row[key] for key in ('path', 'reason', 'message')}
                rejected.write(json.dumps(sort) + '\n')


@contextlib.contextmanager
def merged(row_files: Iterable[str]) -> Iterator[Iterator[dict[str, Any]]]:
    """The lines of several files of rows in the order of the paths."""
    with contextlib.ExitStack() as stack:
        opened: list[IO[str]] = []
        for address in row_files:
            path = stack.enter_context(storage.local_copy(address))
            opened.append(stack.enter_context(open(path, encoding='ascii')))
        parsed = [map(json.loads, file) for file in opened]
        yield heapq.merge(*parsed, key=lambda line: line['path'])


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


def _dump(content: Any) -> str:
    return json.dumps(content, indent=2) + '\n'
