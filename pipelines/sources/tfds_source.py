"""Recordings out of TensorFlow Datasets: each record of a prepared dataset is a recording.

`tfds:NAME[/CONFIG][:VERSION][#SPLIT]` is looked for in TFDS_DATA_DIR (~/tensorflow_datasets by default);
`tfds:FOLDER[#SPLIT]` is a prepared dataset itself. Either may be on gs://. Its features.json and
dataset_info.json say where the records are and what is in them; they are read without TensorFlow, which would
cost every worker 0.9 GB.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from ddsp.errors import DDSPError
from ddsp.io import gcs, storage
from ddsp.io.audio import MAX_PEAK, AudioError, AudioInfo
from ddsp.io.dataset import NAME, DatasetError
from ddsp.io.decoding import MAX_CHANNELS, SAMPLE_RATES
from ddsp.io.json_types import COUNT, TEXT, fault
from pipelines.records import read_features, read_record, record_spans
from pipelines.sources.stages import ChangedError, Found

SCHEME = 'tfds:'
_RATE = 16000  # where features.json does not say; NSynth's
_MAX_BYTES = 2**29  # of one unpacked record
_DIGITS = re.compile('[0-9]{1,15}')
_INFO = {
    'name': NAME, 'fileFormat?': TEXT,
    'splits': [{'name': TEXT, 'filepathTemplate?': TEXT, 'shardLengths': [(_DIGITS, COUNT)]}],
}  # fmt: skip
_TENSOR = {
    'dtype?': TEXT, 'encoding?': TEXT, 'lazyDecode?': bool, 'sampleRate?': (_DIGITS, COUNT),
    'shape?': {'dimensions?': [(re.compile('-?[0-9]{1,15}'), range(-1, 2**53))]},
}  # fmt: skip
_FEATURE = {'featuresDict?': {'features': {TEXT: dict}}, 'audio?': _TENSOR, 'tensor?': _TENSOR}
# Names of features that can be kept: NSynth's (f0/hz), and those of ddsp's own records.
_KEPT = {
    'f0_hz': ('f0/hz', 'f0_hz'),
    'f0_confidence': ('f0/confidence', 'f0_confidence'),
    'loudness_db': ('loudness/db', 'loudness_db'),
}
_SCALES = {'int64': 2.0**15, 'int32': 2.0**31, 'int16': 2.0**15}  # TFDS keeps 16 bit sound as int64


@dataclasses.dataclass(frozen=True)
class RecordFile:
    """A file of records; nothing of it was read.

    Attributes:
      path: Its path or address.
      split: The split of its records; `''` where only one split is meant, for then they are to be shared out.
      count: Number of records, as the metadata have it.
      layout: What is in a record, as `look_into` wants it.
    """

    path: str
    split: str
    count: int
    layout: dict[str, Any]


def find_files(address: str) -> list[RecordFile]:
    """The files that an address means.

    Raises:
      DDSPError: There is no such dataset or split, or it has no feature with sound.
    """
    name, _, wanted = address.removeprefix(SCHEME).partition('#')
    folder = _find_folder(name)
    info = _read(folder, 'dataset_info.json', _INFO)
    if info.get('fileFormat', 'tfrecord') != 'tfrecord':
        raise DDSPError(f'{folder} holds {info["fileFormat"]!r} files; only tfrecord can be read.')
    layout = _layout(folder)
    splits = {split['name']: split for split in info['splits']}
    if wanted and wanted not in splits:
        raise DDSPError(f'{folder} has no split {wanted!r}; its splits are {", ".join(sorted(splits))}.')
    chosen = [wanted] if wanted else [name for name in splits if any(map(int, splits[name]['shardLengths']))]
    return [
        RecordFile(file, split if len(chosen) > 1 else '', int(count), layout)
        for split in chosen
        for file, count in _files(folder, info['name'], splits[split])
    ]


def find_records(file: RecordFile) -> Iterator[Found]:
    """The records of a file; raises DDSPError where it cannot be read."""
    known = gcs.stat(file.path) if gcs.is_gcs(file.path) else None
    generation = known.generation if known else None
    for i, (offset, size) in enumerate(record_spans(file.path, generation)):
        where = {'file': file.path, 'offset': offset, 'bytes': size, 'generation': generation, **file.layout}
        yield Found(f'{file.path}#{i}', record=where, split=file.split)


def look_into(path: str, where: dict[str, Any]) -> tuple[str, AudioInfo]:
    """The SHA-256 and the header of a record; raises AudioError where it cannot be used."""
    message = _message(where)
    digest = hashlib.sha256(message).hexdigest()
    audio, _ = _decode(path, message, where)
    codec = f'TFDS {where["dtype"]}'
    return digest, AudioInfo(path, where['sample_rate'], where['channels'], len(audio), codec, 'tfds')


def read(path: str, where: dict[str, Any], sha256: str) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Reads one record, whose SHA-256 is known.

    Returns:
      Mono samples [n], full scale is 1, and `f0_hz, f0_confidence, loudness_db` where the record has them.

    Raises:
      AudioError: Its sound is missing or not finite.
      ChangedError: It is not the one that `look_into` read.
    """
    try:
        message = _message(where)
    except (DatasetError, gcs.NotFound):
        raise ChangedError.of(path) from None
    if hashlib.sha256(message).hexdigest() != sha256:
        raise ChangedError.of(path)
    return _decode(path, message, where)


def _message(where: dict[str, Any]) -> bytes:
    return read_record(where['file'], where['offset'], where['bytes'], where['generation'])


def _decode(path: str, message: bytes, where: dict[str, Any]) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    features = read_features(message)
    if where['audio'] not in features:
        raise AudioError('no_samples', f'{path} has no {where["audio"]!r}.')
    try:
        audio = _samples(features[where['audio']], where)
    except (ValueError, zlib.error) as error:
        raise AudioError('not_audio', f'{path}: its sound cannot be unpacked ({error}).') from None
    if not len(audio):
        raise AudioError('no_samples', f'{path} holds no samples.')
    peak = float(np.abs(audio).max())
    if not np.isfinite(peak):
        raise AudioError('not_finite', f'{path} holds NaN or infinite samples.')
    if peak > MAX_PEAK:
        raise AudioError('out_of_range', f'{path} has samples of {peak:.3g} where full scale is 1.')
    found = {name: features.get(feature) for name, feature in where['kept'].items()}
    kept = {name: values for name, values in found.items() if isinstance(values, np.ndarray)}
    return audio, kept if len(kept) == len(_KEPT) else {}


def _samples(values: Any, where: dict[str, Any]) -> np.ndarray:
    if isinstance(values, list):  # bytes
        packed = values[0] if values else b''
        packed = _inflate(packed) if where['encoding'] == 'zlib' else packed
        values = np.frombuffer(packed, np.dtype(where['dtype']).newbyteorder('<'))
    audio = np.asarray(values, np.float32) / _SCALES.get(where['dtype'], 1.0)
    return np.ascontiguousarray(audio.reshape(-1, where['channels']).mean(axis=1), np.float32)


def _inflate(packed: bytes) -> bytes:
    """Unpacks sound, which never shrinks to a thousandth but for silence; a bomb does."""
    stream = zlib.decompressobj()
    unpacked = stream.decompress(packed, _MAX_BYTES)
    if stream.unconsumed_tail:
        raise ValueError(f'more than {_MAX_BYTES / 1e6:.0f} MB')
    return unpacked


def _find_folder(name: str) -> str:
    """The directory of a prepared dataset, here or on gs://."""
    if not name:
        raise DDSPError(f"{SCHEME} names no dataset; give a name or a folder, such as '{SCHEME}nsynth'.")
    folder = name.rstrip('/') if gcs.is_gcs(name) else os.path.realpath(os.path.expanduser(name))
    if storage.size(f'{folder}/dataset_info.json') is not None:
        return folder
    if gcs.is_gcs(name):
        versions = _versions(folder)
        near = f'{SCHEME}{folder}/{versions[-1] if versions else "VERSION"}'
        raise DDSPError(
            f'{SCHEME}{name} is no prepared dataset, for it has no dataset_info.json. Name the folder of a '
            f'version, such as {near}.'
        )
    name, _, version = name.partition(':')
    root = os.environ.get('TFDS_DATA_DIR') or '~/tensorflow_datasets'
    folder = (
        f'{root.rstrip("/")}/{name}' if gcs.is_gcs(root) else os.path.join(os.path.expanduser(root), name)
    )
    found = [each for each in _versions(folder) if each == version or not version]
    if not found:
        raise DDSPError(
            f'{SCHEME}{name}: no prepared dataset {folder}/{version or "VERSION"}. Name its folder, set '
            f'TFDS_DATA_DIR, or prepare it with `tfds build {name}`.'
        )
    return f'{folder if gcs.is_gcs(folder) else os.path.realpath(folder)}/{found[-1]}'


def _versions(folder: str) -> list[str]:
    """Versions of a dataset, the newest last."""
    numbered = [each for each in storage.list_folders(folder) if re.fullmatch(r'\d+\.\d+\.\d+', each)]
    there = [each for each in numbered if storage.size(f'{folder}/{each}/dataset_info.json') is not None]
    return sorted(there, key=lambda each: [int(part) for part in each.split('.')])


def _files(folder: str, name: str, split: dict[str, Any]) -> Iterator[tuple[str, str | int]]:
    """The files of a split, each with its number of records."""
    template = split.get('filepathTemplate') or '{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}'
    lengths = split['shardLengths']
    for i, length in enumerate(lengths):
        fields = {
            'DATASET': name, 'SPLIT': split['name'], 'FILEFORMAT': 'tfrecord', 'SHARD_INDEX': f'{i:05d}',
            'NUM_SHARDS': f'{len(lengths):05d}', 'SHARD_X_OF_Y': f'{i:05d}-of-{len(lengths):05d}',
        }  # fmt: skip
        named = re.sub(r'\{(\w+)\}', lambda match: fields.get(match[1], match[0]), template)  # noqa: B023
        yield storage.inside(folder, named, f'{folder}/dataset_info.json'), length


def _layout(folder: str) -> dict[str, Any]:
    """What is in the records of a dataset.

    `audio` is the feature with the sound, `encoding` how its samples are packed ('none', 'bytes' or 'zlib');
    `kept` names the features of f0, its confidence and loudness, and is empty where one is missing.
    """
    features = dict(_flatten(_read(folder, 'features.json', _FEATURE), folder))
    sounds = {name: row['audio'] for name, row in features.items() if 'audio' in row}
    if not sounds and 'audio' in features:
        sounds = {'audio': features['audio'].get('tensor', {})}
    if 'audio' in sounds:
        sounds = {'audio': sounds['audio']}
    if len(sounds) != 1:
        found = ', '.join(sorted(sounds or features))
        raise DDSPError(f'{folder} must have one feature with sound, or one named audio; it has {found}.')
    ((name, row),) = sounds.items()
    if row.get('lazyDecode') or row.get('dtype') not in ('float32', 'float64', *_SCALES):
        raise DDSPError(f'{folder}: {name!r} holds {row.get("dtype")}, which cannot be read; samples can.')
    shape = row.get('shape', {}).get('dimensions', [])
    kept = {key: next((n for n in names if n in features), '') for key, names in _KEPT.items()}
    rate, channels = int(row.get('sampleRate', _RATE)), int(shape[1]) if len(shape) > 1 else 1
    if not (SAMPLE_RATES[0] <= rate <= SAMPLE_RATES[1] and 1 <= channels <= MAX_CHANNELS):
        raise DDSPError(
            f'{folder}: {name!r} has {channels} channels at {rate} Hz; 1 to {MAX_CHANNELS} at '
            f'{SAMPLE_RATES[0]} to {SAMPLE_RATES[1]} Hz can be read.'
        )
    return {
        'audio': name, 'sample_rate': rate, 'dtype': row['dtype'], 'channels': channels,
        'encoding': row.get('encoding', 'none').lower(), 'kept': kept if all(kept.values()) else {},
    }  # fmt: skip


def _flatten(row: dict[str, Any], folder: str, name: str = '') -> Iterator[tuple[str, dict[str, Any]]]:
    """Features with their names as records have them: `f0/hz`."""
    if found := fault(row, _FEATURE, name or 'it'):
        raise DDSPError(f'{folder}/features.json is damaged: {found}.')
    if 'featuresDict' in row:
        for key, child in row['featuresDict']['features'].items():
            yield from _flatten(child, folder, f'{name}/{key}' if name else key)
    else:
        yield name, row


def _read(folder: str, name: str, shape: Any) -> dict[str, Any]:
    path = storage.inside(folder, name, f'the dataset {folder}')
    try:
        content = storage.read(path)
        if content is None:
            raise DDSPError(f'{path} is missing.')
        row = json.loads(content)
    except (OSError, ValueError, RecursionError) as error:
        raise DDSPError(f'{path} cannot be read: {error}.') from None
    if found := fault(row, shape):
        raise DDSPError(f'{path} is damaged: {found}.')
    return dict(row)
