"""Datasets and TFDS folders from somebody else: names stay inside, damage is a sentence."""

import contextlib
import json
import os
import shutil
import struct
import zlib

import google_crc32c
import numpy as np
import pytest

from ddsp.errors import DDSPError
from ddsp.io import gcs
from ddsp.io.dataset import DatasetError, open_dataset
from ddsp.io.files import UnsafeNameError
from pipelines import PrepareOptions, prepare_dataset
from pipelines.inspect.inspection import inspect_dataset
from pipelines.records import (
    RecordWriter,
    encode_example,
    read_features,
    read_record,
    read_records,
    record_spans,
)
from pipelines.sources.finding import find_sources
from pipelines.sources.probing import look_into, recall

QUICK = PrepareOptions(f0='yin', workers=1, num_shards=1)
NAMES = [
    '../canary', '../../canary', 'a/../../canary', '{absolute}', './canary', 'C:/canary', '..\\canary',
    '~/canary',     '\uff0e\uff0e/canary', '\u2025/canary', 'canary\0', 'file:///canary', 'gs://bucket/canary',
    'sub//canary', 'link',
]  # fmt: skip


@pytest.fixture
def canary(tmp_path):
    """A file of records beside the dataset, which nothing may read, link or copy."""
    path = tmp_path / 'canary'
    write_records(path)
    os.utime(path, (1e9, 1.1e9))  # read before it was written: the next reading shows
    before = path.stat()
    os.chmod(path, 0)
    yield path
    after = path.stat()
    assert (after.st_mtime_ns, after.st_nlink, after.st_size) == (before.st_mtime_ns, 1, before.st_size)
    assert after.st_atime_ns == before.st_atime_ns


def write_records(path, **features):
    writer = RecordWriter(path)
    writer.write({'audio': np.sin(np.arange(16000) / 10)} | features)
    return writer.close()


def tfds_folder(folder, info=None, features=None, split=None):
    folder.mkdir(exist_ok=True)
    rows = {
        'name': 'train',
        'shardLengths': ['1'],
        'filepathTemplate': '{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}',
    }
    rows |= split or {}
    tensor = {'tensor': {'dtype': 'float32', 'encoding': 'none', 'shape': {'dimensions': ['-1']}}}
    parts = {'featuresDict': {'features': {'audio': tensor}}}
    (folder / 'dataset_info.json').write_text(json.dumps({'name': 'x', 'splits': [rows]} | (info or {})))
    (folder / 'features.json').write_text(json.dumps(features or parts))
    write_records(folder / 'x-train.tfrecord-00000-of-00001')
    return folder


@pytest.mark.parametrize('name', NAMES, ids=ascii)
@pytest.mark.parametrize('field', ['template', 'split', 'dataset'])
def test_a_tfds_folder_names_no_file_outside(tmp_path, canary, name, field):
    name = str(canary) if name == '{absolute}' else name
    changes = {
        'template': {'split': {'filepathTemplate': name}},
        'split': {'split': {'name': name, 'filepathTemplate': '{SPLIT}'}},
        'dataset': {'info': {'name': name}, 'split': {'filepathTemplate': '{DATASET}'}},
    }
    folder = tfds_folder(tmp_path / 'tfds', **changes[field])
    (folder / 'link').symlink_to(canary)
    with pytest.raises(DDSPError, match=r'dataset_info\.json (names|is damaged)|splits\[0\]'):
        find_sources(f'tfds:{folder}')


@pytest.mark.parametrize('name', [name for name in NAMES if name != 'link'], ids=ascii)
def test_a_tfds_folder_in_a_bucket_names_no_object_outside(tmp_path, canary, bucket_server, name):
    name = str(canary) if name == '{absolute}' else name
    folder = tfds_folder(tmp_path / 'tfds', split={'filepathTemplate': name})
    for file in folder.iterdir():
        gcs.upload(file, f'gs://bucket/tfds/{file.name}')
    gcs.upload(b'', 'gs://bucket/canary')
    bucket_server.calls.clear()
    with pytest.raises(UnsafeNameError, match=r'gs://bucket/tfds/dataset_info\.json names'):
        find_sources('tfds:gs://bucket/tfds')
    asked = {path.rpartition('/o/')[2] for _, path in bucket_server.calls}
    assert asked == {'tfds/dataset_info.json', 'tfds/features.json'}


@pytest.mark.parametrize('name', ['dataset_info.json', 'features.json'])
def test_metadata_of_a_tfds_folder_are_no_links_out_of_it(tmp_path, canary, name):
    folder = tfds_folder(tmp_path / 'tfds')
    (folder / name).rename(tmp_path / name)
    (folder / name).symlink_to(tmp_path / name)
    with pytest.raises(UnsafeNameError, match='link that leaves'):
        find_sources(f'tfds:{folder}')


@pytest.mark.parametrize(
    ('file', 'content', 'text'),
    [
        ('dataset_info.json', [], r'it is \[\]'),
        ('dataset_info.json', {'name': 'x'}, "it has no 'splits'"),
        ('dataset_info.json', {'name': 'x', 'splits': {}}, r'splits is \{\}'),
        ('dataset_info.json', {'name': 'x', 'splits': [{'name': 3, 'shardLengths': []}]}, 'name is 3'),
        ('dataset_info.json', {'name': 'x', 'splits': [{'name': 'a', 'shardLengths': ['x']}]}, "is 'x'"),
        ('dataset_info.json', {'name': 'x', 'splits': [], 'fileFormat': 7}, 'fileFormat is 7'),
        ('features.json', 3, 'it is 3'),
        ('features.json', {'featuresDict': []}, r'featuresDict is \[\]'),
        ('features.json', {'featuresDict': {'features': {'a': 3}}}, 'a is 3'),
        ('features.json', {'featuresDict': {'features': {'a': {'audio': 'x'}}}}, "a.audio is 'x'"),
    ],
)
def test_damaged_json_of_tfds_is_a_sentence(tmp_path, file, content, text):
    folder = tfds_folder(tmp_path / 'tfds')
    (folder / file).write_text(json.dumps(content))
    with pytest.raises(DDSPError, match=f'{file} is damaged: .*{text}'):
        find_sources(f'tfds:{folder}')


@pytest.mark.parametrize(('rate', 'channels'), [(0, 1), (10**9, 1), (16000, 0), (16000, -1), (16000, 10**9)])
def test_rates_and_channels_of_tfds_that_cannot_be(tmp_path, rate, channels):
    row = {'dtype': 'float32', 'sampleRate': str(rate), 'shape': {'dimensions': ['-1', str(channels)]}}
    folder = tfds_folder(
        tmp_path / 'tfds', features={'featuresDict': {'features': {'audio': {'audio': row}}}}
    )
    with pytest.raises(DDSPError, match=r'channels at .* can be read'):
        find_sources(f'tfds:{folder}')


def test_a_bomb_is_one_rejected_record(tmp_path, monkeypatch):
    from pipelines.sources import tfds_source

    monkeypatch.setattr(tfds_source, '_MAX_BYTES', 1 << 20)
    row = {'dtype': 'float32', 'encoding': 'zlib', 'sampleRate': 16000, 'shape': {'dimensions': ['-1']}}
    folder = tfds_folder(
        tmp_path / 'tfds', features={'featuresDict': {'features': {'audio': {'audio': row}}}}
    )
    feature = field(1, zlib.compress(bytes(5 << 20)))
    entry = field(1, b'audio') + field(2, field(1, feature))
    message = field(1, field(1, entry))
    write_message(folder / 'x-train.tfrecord-00000-of-00001', message)
    source = look_into(find_sources(f'tfds:{folder}')[0])
    assert (source.outcome, source.reason) == ('rejected', 'not_audio')
    assert 'cannot be unpacked (more than 1 MB)' in source.message


def field(number, content):
    length, out = len(content), bytearray()
    while length > 127:
        out.append(length & 127 | 128)
        length >>= 7
    return bytes([number << 3 | 2, *out, length]) + content


def masked(data):
    crc = google_crc32c.value(data)
    return struct.pack('<I', (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF)


def write_message(path, message, length=None):
    head = struct.pack('<Q', len(message) if length is None else length)
    path.write_bytes(head + masked(head) + message + masked(message))


@pytest.mark.parametrize('length', [2**40, 2**62, 2**63, 2**64 - 1])
def test_a_record_longer_than_its_file_is_damage(tmp_path, length):
    """Its checksum is right, and nobody asks for that much memory."""
    write_message(tmp_path / 'x', b'abc', length)
    with pytest.raises(DatasetError, match='is damaged in record 0'):
        list(read_records(tmp_path / 'x'))
    with pytest.raises(DatasetError, match='is damaged'):
        read_record(tmp_path / 'x', *next(record_spans(tmp_path / 'x')))


def test_records_that_are_no_examples_are_a_sentence():
    good = encode_example({'audio': np.arange(5.0), 'f0_hz': np.arange(3.0)})
    rng = np.random.default_rng(0)
    for _ in range(2000):
        data = bytearray(good[: int(rng.integers(1, len(good) + 1))])
        data[int(rng.integers(len(data)))] = int(rng.integers(256))
        with contextlib.suppress(DatasetError):
            read_features(bytes(data))


@pytest.fixture(scope='module')
def published(folder, tmp_path_factory):
    return prepare_dataset(folder, tmp_path_factory.mktemp('data'), 'notes', options=QUICK).path


@pytest.fixture
def copy(published, tmp_path):
    return shutil.copytree(published, tmp_path / 'data' / 'notes' / '1.0.0')


def rewrite(path, change):
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for row in rows:
        change(row)
    path.write_text(''.join(json.dumps(row) + '\n' for row in rows))


@pytest.mark.parametrize('name', NAMES, ids=ascii)
def test_shards_of_an_earlier_version_are_used_under_the_names_of_its_manifest_only(
    copy, folder, canary, name
):
    """A row with the right fingerprint would have any file of this machine linked into the next version."""
    name = str(canary) if name == '{absolute}' else name
    (copy / 'link').symlink_to(canary)
    rewrite(copy / 'shards.jsonl', lambda row: row.update(name=name))
    other = PrepareOptions(f0='yin', workers=1, num_shards=1, splits={'train': 0.79, 'test': 0.21})
    with pytest.raises(DDSPError, match=r'shards\.jsonl is damaged: the row of'):
        prepare_dataset(folder, copy.parents[1], 'notes', options=other)
    assert [path.name for path in copy.parent.iterdir() if path.name[0] != '.'] == ['1.0.0']


@pytest.mark.parametrize(
    ('key', 'value'),
    [('name', 3), ('fingerprint', None), ('bytes', '1'), ('rows', {}), ('statistics', []), ('sha256', 1),
     ('statistics', {'counts': 3})],
)  # fmt: skip
def test_damaged_rows_of_shards_are_a_sentence(copy, folder, key, value):
    rewrite(copy / 'shards.jsonl', lambda row: row.update({key: value}))
    other = PrepareOptions(f0='yin', workers=1, num_shards=1, splits={'train': 0.79, 'test': 0.21})
    with pytest.raises(DatasetError, match=rf'shards\.jsonl, line 1, is damaged: {key}'):
        prepare_dataset(folder, copy.parents[1], 'notes', options=other)


@pytest.mark.parametrize(
    ('key', 'value'),
    [('path', 3), ('outcome', None), ('records', [3]), ('records', [{'file': 1}]), ('warnings', 'x'),
     ('duration_s', 'x'), ('examples', None), ('split', [])],
)  # fmt: skip
def test_damaged_rows_of_sources_are_a_sentence(copy, folder, key, value):
    rewrite(copy / 'sources.jsonl', lambda row: row.update({key: value}))
    with pytest.raises(DatasetError, match=rf'sources\.jsonl, line 1, is damaged: {key}'):
        inspect_dataset(copy)
    with pytest.raises(DatasetError, match=rf'sources\.jsonl, line 1, is damaged: {key}'):
        prepare_dataset(folder, copy.parents[1], 'notes', options=QUICK)


@pytest.mark.parametrize('text', ['[]', '{"files/accepted": "x"}', '{', '\xff'])
def test_damaged_metrics_are_a_sentence(copy, folder, text):
    (copy / 'metrics.json').write_text(text, encoding='latin-1')
    with pytest.raises(DatasetError, match=r'metrics\.json (is damaged|cannot be read)'):
        prepare_dataset(folder, copy.parents[1], 'notes', options=QUICK)


@pytest.mark.parametrize('name', ['sources.jsonl', 'rejected.jsonl', 'statistics.json', 'shards.jsonl'])
def test_metadata_are_no_links_out_of_the_dataset(copy, folder, canary, name):
    (copy / name).unlink()
    (copy / name).symlink_to(canary)
    other = PrepareOptions(f0='yin', workers=1, num_shards=1, splits={'train': 0.79, 'test': 0.21})
    uses = {
        'shards.jsonl': lambda: prepare_dataset(folder, copy.parents[1], 'notes', options=other),
        'sources.jsonl': lambda: prepare_dataset(folder, copy.parents[1], 'notes', options=QUICK),
    }
    with pytest.raises(UnsafeNameError, match='link that leaves'):
        uses.get(name, lambda: inspect_dataset(open_dataset(copy)))()


@pytest.mark.parametrize(
    'text', ['[]', '3', '{"x": 3}', '{', '[[[', '{"path": "a.wav", "stamp": 3}', '\xff', '{"path": "a.wav"}']
)
def test_a_damaged_memory_of_inputs_is_forgotten(tmp_path, folder, text):
    assert recall(text) is None
    (tmp_path / 'notes').mkdir()
    (tmp_path / 'notes' / '.survey.jsonl').write_text(text, encoding='latin-1')
    assert prepare_dataset(folder, tmp_path, 'notes', options=QUICK).accepted == 6


def test_a_damaged_row_of_a_staged_shard_is_made_again(folder, tmp_path):
    from pipelines.shards.shard import ShardPlan, finished_shard

    plan = ShardPlan('train', 0, 1, (), 'yin', '', QUICK)
    (tmp_path / plan.key).write_bytes(b'x')
    good = {'fingerprint': plan.fingerprint, 'split': 'train', 'bytes': 1}
    for text in ('[]', '3', '{}', json.dumps(good), json.dumps(good | {'rows': 3})):
        (tmp_path / f'{plan.key}.json').write_text(text)
        assert finished_shard(str(tmp_path), plan) is None
