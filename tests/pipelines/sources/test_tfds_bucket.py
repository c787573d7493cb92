"""A prepared dataset of TensorFlow Datasets in a bucket: the same as on disk, in few requests."""

import json
import pathlib

import numpy as np
import pytest

from ddsp.errors import DDSPError
from ddsp.io import gcs
from ddsp.io.dataset import open_dataset
from pipelines import PrepareOptions, prepare_dataset
from pipelines.records import RecordWriter, record_spans
from pipelines.sources.effort import seconds_to_analyse
from pipelines.sources.finding import divide, expand, find_sources
from pipelines.sources.probing import look_into

OPTIONS = PrepareOptions(f0='yin', workers=1, num_shards=1)
ADDRESS = 'gs://bucket/tones/full/2.3.3'
TENSOR = {'tensor': {'dtype': 'float32', 'encoding': 'none', 'shape': {'dimensions': ['64000']}}}


def tone(hz):
    return (0.3 * np.sin(2 * np.pi * hz * np.arange(64000) / 16000)).astype(np.float32)


@pytest.fixture
def tfds(bucket_server, tmp_path):
    """The folder on disk; its content is in the bucket, too: six records in three files, two in a split."""
    folder = tmp_path / 'tones' / 'full' / '2.3.3'
    folder.mkdir(parents=True)
    splits = [{'name': 'train', 'shardLengths': ['2', '2']}, {'name': 'valid', 'shardLengths': ['2']}]
    for k, split in enumerate(splits):
        count = len(split['shardLengths'])
        for i in range(count):
            writer = RecordWriter(folder / f'tones-{split["name"]}.tfrecord-{i:05d}-of-{count:05d}')
            for j in range(2):
                writer.write({'audio': tone(200 + 100 * k + 40 * i + 20 * j)})
            writer.close()
    (folder / 'dataset_info.json').write_text(json.dumps({'name': 'tones', 'splits': splits}))
    (folder / 'features.json').write_text(json.dumps({'featuresDict': {'features': {'audio': TENSOR}}}))
    for file in folder.iterdir():
        gcs.upload(file, f'{ADDRESS}/{file.name}')
    return folder


def records(result):
    dataset = open_dataset(result.path)
    return {
        split: [pathlib.Path(file).read_bytes() for file in dataset.files(split)] for split in dataset.splits
    }


@pytest.mark.parametrize('split', ['', '#train'])
def test_it_gives_the_bytes_of_a_folder(tfds, tmp_path, split):
    here = prepare_dataset(f'tfds:{tfds}{split}', tmp_path, 'tones_here', options=OPTIONS)
    there = prepare_dataset(f'tfds:{ADDRESS}{split}', 'gs://bucket/out', 'tones_there', options=OPTIONS)
    assert here.examples == there.examples
    assert records(here) == records(there)
    rows = (open_dataset(there.path).path / 'sources.jsonl').read_text().splitlines()
    assert json.loads(rows[0])['path'] == f'{ADDRESS}/tones-train.tfrecord-00000-of-00002#0'


def test_the_newest_version_is_found_by_name(tfds, monkeypatch):
    gcs.upload(b'', 'gs://bucket/tones/full/10.0.0/unfinished')
    monkeypatch.setenv('TFDS_DATA_DIR', 'gs://bucket/')
    assert find_sources('tfds:tones/full') == find_sources(f'tfds:{ADDRESS}/')
    assert len(find_sources('tfds:tones/full:2.3.3#valid')) == 2
    with pytest.raises(
        DDSPError, match=r'tfds:tones/full: no prepared dataset gs://bucket/tones/full/1\.0\.0'
    ):
        find_sources('tfds:tones/full:1.0.0')


@pytest.mark.parametrize(
    ('address', 'text'),
    [
        (
            'gs://bucket/none',
            r'tfds:gs://bucket/none is no prepared dataset.*such as tfds:gs://bucket/none/VERS',
        ),
        (
            'gs://bucket/tones/full',
            r'Name the folder of a version, such as tfds:gs://bucket/tones/full/2\.3\.3\.',
        ),
        (f'{ADDRESS}#test', "has no split 'test'; its splits are train, valid"),
        ('gs:///x', 'is not an address in a bucket'),
    ],
)
def test_what_is_not_there_is_said(tfds, address, text):
    with pytest.raises(DDSPError, match=text):
        find_sources(f'tfds:{address}')


@pytest.mark.parametrize(
    ('name', 'content', 'text'),
    [
        ('tones-valid.tfrecord-00000-of-00001', None, 'valid.tfrecord-00000-of-00001: no such object'),
        ('tones-valid.tfrecord-00000-of-00001', b'x' * 30, 'is damaged at byte 0: a length cannot be read'),
        ('tones-valid.tfrecord-00000-of-00001', b'x', 'is damaged at byte 0: a length cannot be read'),
        ('features.json', None, r'features\.json is missing'),
        ('features.json', b'{', r'features\.json cannot be read'),
        ('dataset_info.json', b'[]', r'dataset_info\.json is damaged'),
    ],
)
def test_what_is_damaged_is_a_sentence(tfds, name, content, text):
    gcs.delete(f'{ADDRESS}/{name}')
    if content:
        gcs.upload(content, f'{ADDRESS}/{name}')
    with pytest.raises(DDSPError, match=text) as caught:
        find_sources(f'tfds:{ADDRESS}')
    assert '\n' not in str(caught.value)


def test_requests_are_few(tfds, bucket_server):
    """One to list a file beside those for its size; one for each record that is looked into."""
    bucket_server.calls.clear()
    found = find_sources(f'tfds:{ADDRESS}#train')
    assert sum(path.startswith('/download') for _, path in bucket_server.calls) <= 2 + 2  # and two of JSON
    assert len(bucket_server.calls) <= 3 + 2 * 3
    for row in found:
        bucket_server.calls.clear()
        assert look_into(row).info.n_samples == 64000
        assert len(bucket_server.calls) == 1
    bucket_server.calls.clear()
    assert seconds_to_analyse([f'tfds:{ADDRESS}']) == 24
    assert len(bucket_server.calls) <= 3  # metadata alone


def test_files_are_listed_side_by_side(tfds):
    parts = divide(f'tfds:{ADDRESS}')
    assert [(part.split, part.count) for part in parts] == [('train', 2), ('train', 2), ('valid', 2)]
    assert [row.path for part in parts for row in expand(part)] == [
        row.path for row in find_sources(f'tfds:{ADDRESS}')
    ]


def test_large_records_are_leapt_over(bucket_server, tmp_path, monkeypatch):
    monkeypatch.setattr(gcs, 'CHUNK_BYTES', 1000)
    sizes = [10, 5000, 0, 1, 900, 3000]
    writer = RecordWriter(tmp_path / 'x')
    for size in sizes:
        writer.write({'audio': np.zeros(size)})
    writer.close()
    gcs.upload(tmp_path / 'x', 'gs://bucket/x')
    assert list(record_spans('gs://bucket/x')) == list(record_spans(tmp_path / 'x'))
    gcs.upload(b'', 'gs://bucket/empty')
    assert list(record_spans('gs://bucket/empty')) == []


def test_a_record_that_was_overwritten_is_not_taken_for_the_old_one(tfds):
    from pipelines.sources import tfds_source
    from pipelines.sources.stages import ChangedError

    row = look_into(find_sources(f'tfds:{ADDRESS}#valid')[0])
    tfds_source.read(row.path, row.found.record, row.sha256)
    gcs.upload(tfds / 'tones-train.tfrecord-00000-of-00002', f'{ADDRESS}/tones-valid.tfrecord-00000-of-00001')
    with pytest.raises(ChangedError, match='was changed or removed'):
        tfds_source.read(row.path, row.found.record, row.sha256)
