"""What a preparation counts: the same in one process and in several, in the result and in metrics.json."""

import json

import numpy as np
import pytest

from ddsp.io.audio import write_wav
from ddsp.io.dataset import open_dataset
from pipelines import PrepareOptions, prepare_dataset


@pytest.fixture(scope='module')
def inputs(folder, tmp_path_factory):
    """Six good recordings, one silent, one that is no audio, one twice, one text."""
    import shutil

    path = tmp_path_factory.mktemp('inputs')
    for file in folder.iterdir():
        shutil.copy(file, path)
    shutil.copy(path / 'note_0.wav', path / 'same.wav')
    write_wav(path / 'silence.wav', np.zeros(32000), 16000)
    (path / 'broken.wav').write_bytes(b'RIFF nothing')
    (path / 'notes.txt').write_text('x')
    return path


@pytest.mark.parametrize('workers', [1, 2])
def test_counts_are_those_of_the_dataset(inputs, tmp_path, workers):
    options = PrepareOptions(f0='yin', workers=workers, num_shards=2)
    result = prepare_dataset(inputs, tmp_path, 'notes', options=options)
    found = result.metrics
    assert {name: count for name, count in found.items() if name.startswith('files/')} == {
        'files/accepted': 6, 'files/rejected': 2, 'files/skipped': 1, 'files/duplicate': 1,
    }  # fmt: skip
    rejected = {name: count for name, count in found.items() if name.startswith('rejected/')}
    assert rejected == {f'rejected/{reason}': count for reason, count in result.rejected.items()}
    assert sum(rejected.values()) == 2
    dataset = open_dataset(result.path)
    rows = [row for split in dataset.manifest['splits'].values() for row in split['files']]
    assert found['made/shards'] == len(rows) == result.shards_made
    assert found['made/bytes'] == sum(row['bytes'] for row in rows)
    assert found['made/examples'] == sum(dataset.splits.values())
    assert found['made/recordings'] == 7  # the silent one shows only when it is heard
    assert found['made/audio_seconds'] == pytest.approx(6 * 6 + 2)
    stages = {name.removeprefix('cpu_seconds/') for name in found if name.startswith('cpu_seconds/')}
    assert stages == {'decode', 'resample', 'f0', 'loudness', 'write'}
    for stage, seconds in result.costs.items():
        assert found[f'cpu_seconds/{stage}'] == pytest.approx(seconds, abs=0.01)
    assert found['made/wall_seconds'] >= sum(found[f'cpu_seconds/{stage}'] for stage in stages) * 0.5


def test_they_are_kept_beside_the_dataset_and_not_in_its_digest(inputs, tmp_path):
    options = PrepareOptions(f0='yin', workers=1)
    first = prepare_dataset(inputs, tmp_path, 'notes', options=options)
    assert json.loads((first.path / 'metrics.json').read_text()) == first.metrics
    dataset = open_dataset(first.path)
    assert 'metrics.json' not in dataset.manifest['files']
    dataset.verify()
    again = prepare_dataset(inputs, tmp_path, 'notes', options=options)
    assert (again.shards_made, again.metrics) == (0, first.metrics)
