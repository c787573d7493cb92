"""Opening and checking dataset directories."""

import hashlib
import json

import pytest

from ddsp.io.dataset import DatasetError, open_dataset, published_versions

CONTENT = {'statistics.json': '{"schema_version": 1, "splits": {"train": {"examples": 2}}}'}


def write_dataset(folder, schema_version=1):
    """A directory as it is published, with records that are no records: nothing here reads them."""
    folder.mkdir(parents=True)
    name = f'{folder.parent.name}-train.tfrecord-00000-of-00001'
    (folder / name).write_bytes(b'records')
    for file_name, text in CONTENT.items():
        (folder / file_name).write_text(text)
    digest = hashlib.sha256(b'records').hexdigest()
    manifest = {
        'schema_version': schema_version, 'name': folder.parent.name, 'version': folder.name,
        'created': '2024-01-01T00:00:00Z', 'fingerprint': 'f', 'sample_rate': 16000, 'frame_rate': 250,
        'example_secs': 4.0, 'hop_secs': 1.0, 'centered': False, 'f0_estimator': 'yin',
        'splits': {'train': {'examples': 2, 'files': [
            {'name': name, 'bytes': 7, 'sha256': digest, 'examples': 2},
        ]}},
        'files': {key: hashlib.sha256(value.encode()).hexdigest() for key, value in CONTENT.items()},
    }  # fmt: skip
    (folder / 'MANIFEST.json').write_text(json.dumps(manifest))
    return folder / name


def test_all_three_addresses_open_the_newest_version(tmp_path):
    for version in ('1.0.0', '1.10.0', '1.9.0'):
        write_dataset(tmp_path / 'violin' / version)
    assert open_dataset(tmp_path / 'violin').version == '1.10.0'
    assert open_dataset(tmp_path).version == '1.10.0'
    assert open_dataset(str(tmp_path / 'violin' / '1.9.0')).version == '1.9.0'
    assert [path.name for path in published_versions(tmp_path / 'violin')] == ['1.0.0', '1.9.0', '1.10.0']


def test_a_dataset_describes_itself(tmp_path):
    record = write_dataset(tmp_path / 'violin' / '1.0.0')
    dataset = open_dataset(tmp_path)
    assert (dataset.name, dataset.sample_rate, dataset.frame_rate) == ('violin', 16000, 250)
    assert dataset.splits == {'train': 2}
    assert dataset.files('train') == [str(record)]
    assert dataset.statistics('train') == {'examples': 2}
    assert dataset.feature_lengths() == {
        'audio': 64000,
        'f0_hz': 1000,
        'f0_confidence': 1000,
        'loudness_db': 1000,
    }
    manifest = (tmp_path / 'violin' / '1.0.0' / 'MANIFEST.json').read_bytes()
    assert dataset.digest == hashlib.sha256(manifest).hexdigest()
    dataset.verify()


def test_centered_and_other_rates_change_the_lengths(tmp_path):
    write_dataset(tmp_path / 'violin' / '1.0.0')
    path = tmp_path / 'violin' / '1.0.0' / 'MANIFEST.json'
    path.write_text(json.dumps(json.loads(path.read_text()) | {'sample_rate': 48000, 'centered': True}))
    lengths = open_dataset(tmp_path).feature_lengths()
    assert lengths['audio'] == 192000
    assert lengths['audio_16k'] == 64000
    assert lengths['f0_hz'] == 1001


def test_unknown_split_names_the_splits(tmp_path):
    write_dataset(tmp_path / 'violin' / '1.0.0')
    for ask in (open_dataset(tmp_path).files, open_dataset(tmp_path).statistics):
        with pytest.raises(DatasetError, match="has no split 'test'; its splits are train"):
            ask('test')


def test_damage_is_found_and_named(tmp_path):
    record = write_dataset(tmp_path / 'violin' / '1.0.0')
    dataset = open_dataset(tmp_path)
    record.write_bytes(b'recordz')
    with pytest.raises(DatasetError, match=r'violin-train.tfrecord-00000-of-00001 is not what was written'):
        dataset.verify()
    record.write_bytes(b'rec')
    with pytest.raises(DatasetError, match='has 3 bytes where 7 were written'):
        dataset.verify()
    record.unlink()
    with pytest.raises(DatasetError, match='00000-of-00001 is missing'):
        dataset.verify()


def test_what_is_no_dataset_is_refused_with_the_reason(tmp_path):
    with pytest.raises(DatasetError, match='there is no such folder'):
        open_dataset(tmp_path / 'none')
    with pytest.raises(DatasetError, match=r'MANIFEST\.json is missing'):
        open_dataset(tmp_path)
    unfinished = tmp_path / 'a' / 'violin' / '1.0.0'
    write_dataset(unfinished)
    (unfinished / 'MANIFEST.json').unlink()
    with pytest.raises(DatasetError, match='unfinished dataset'):
        open_dataset(unfinished)
    (tmp_path / 'b' / 'violin' / '.staging').mkdir(parents=True)
    with pytest.raises(DatasetError, match='unfinished dataset'):
        open_dataset(tmp_path / 'b')


def test_a_root_with_several_datasets_asks_for_one(tmp_path):
    write_dataset(tmp_path / 'violin' / '1.0.0')
    write_dataset(tmp_path / 'flute' / '1.0.0')
    with pytest.raises(DatasetError, match=r'holds several datasets \(flute, violin\)'):
        open_dataset(tmp_path)


@pytest.mark.parametrize(
    ('content', 'text'),
    [('{', 'cannot be read'), ('[]', 'does not hold an object'),
     ('{"schema_version": 9}', 'schema_version 9'), ('{"schema_version": 1}', "it has no 'name'")],
)  # fmt: skip
def test_a_damaged_manifest_is_refused(tmp_path, content, text):
    (tmp_path / 'MANIFEST.json').write_text(content)
    with pytest.raises(DatasetError, match=text):
        open_dataset(tmp_path)
