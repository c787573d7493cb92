"""Inputs that change or vanish after they were looked into: no shard takes what it is not named after."""

import json
import os
import pathlib
import shutil

import pytest

from ddsp.errors import DDSPError
from ddsp.io import gcs
from ddsp.io.dataset import open_dataset
from pipelines import PrepareOptions, prepare_dataset
from pipelines.beam import steps
from pipelines.sources import probing

OPTIONS = PrepareOptions(f0='yin', workers=1, num_shards=1, splits={'train': 1.0})
GONE = r'note_3\.wav was changed or removed while the dataset was being made\. Run the same command again'


@pytest.fixture
def recordings(folder, tmp_path):
    """Four recordings of their own, an hour old."""
    copy = tmp_path / 'in'
    copy.mkdir()
    for i in range(4):
        shutil.copy(folder / f'note_{i}.wav', copy)
        os.utime(copy / f'note_{i}.wav', (1e9, 1e9))
    return copy


@pytest.fixture
def at_the_shards(monkeypatch):
    """A function: acts once, when everything was looked into and the first shard begins."""

    def arrange(action):
        make_shard = steps.make_shard

        def act_and_make(*arguments):
            monkeypatch.setattr(steps, 'make_shard', make_shard)
            action()
            return make_shard(*arguments)

        monkeypatch.setattr(steps, 'make_shard', act_and_make)

    return arrange


def sha256s(result):
    rows = (open_dataset(result.path).path / 'sources.jsonl').read_text().splitlines()
    return [json.loads(row)['sha256'] for row in rows]


def change(path):
    content = bytearray(path.read_bytes())
    content[-1000:] = bytes(1000)
    path.write_bytes(content)


def cut_off(path):
    path.write_bytes(path.read_bytes()[:1000])


@pytest.mark.parametrize('action', [change, cut_off, pathlib.Path.unlink], ids=['change', 'cut', 'unlink'])
@pytest.mark.parametrize('age', ['old', 'fresh'])
def test_a_file_that_changes_stops_and_the_next_call_takes_it_as_it_is(
    recordings, at_the_shards, tmp_path, action, age
):
    file = recordings / 'note_3.wav'
    if age == 'fresh':  # so young that its time tells nothing
        os.utime(file)
    at_the_shards(lambda: action(file))
    with pytest.raises(DDSPError, match=GONE):
        prepare_dataset(recordings, tmp_path, 'notes', options=OPTIONS)
    assert not list((tmp_path / 'notes').glob('1*'))
    again = prepare_dataset(recordings, tmp_path, 'notes', '1.0.0', options=OPTIONS)
    assert sha256s(again) == sha256s(
        prepare_dataset(recordings, tmp_path / 'other', 'notes', options=OPTIONS)
    )


def test_a_file_that_can_no_longer_be_read_stops_too(recordings, at_the_shards, tmp_path):
    file = recordings / 'note_3.wav'
    at_the_shards(lambda: (file.unlink(), file.mkdir()))
    with pytest.raises(DDSPError, match=GONE):
        prepare_dataset(recordings, tmp_path, 'notes', options=OPTIONS)


def test_a_file_that_was_only_touched_is_taken(recordings, at_the_shards, tmp_path, monkeypatch):
    hashed = []
    file_sha256 = probing.file_sha256
    at_the_shards(
        lambda: (
            os.utime(recordings / 'note_3.wav', (1.1e9, 1.1e9)),
            monkeypatch.setattr(
                probing, 'file_sha256', lambda path: hashed.append(path) or file_sha256(path)
            ),
        )
    )
    assert prepare_dataset(recordings, tmp_path, 'notes', options=OPTIONS).accepted == 4
    assert hashed == [str(recordings / 'note_3.wav')]  # the others are known by their stamps


@pytest.mark.parametrize('cached', [False, True])
def test_an_object_is_read_in_the_version_that_was_looked_into(
    bucket_server, recordings, at_the_shards, tmp_path, monkeypatch, cached
):
    address = 'gs://bucket/in/note_3.wav'
    for file in recordings.iterdir():
        gcs.upload(file, f'gs://bucket/in/{file.name}')
    if not cached:  # as on a worker of a cluster, which keeps no copies
        at_hand = probing.at_hand
        for module in (probing, __import__('pipelines.shards.shard', fromlist=['shard'])):
            monkeypatch.setattr(module, 'at_hand', lambda source, cache: at_hand(source, ''))
    before = sha256s(prepare_dataset(recordings, tmp_path, 'notes', options=OPTIONS))
    at_the_shards(lambda: gcs.upload(b'something else', address))
    if cached:
        result = prepare_dataset('gs://bucket/in', tmp_path / 'out', 'notes', options=OPTIONS)
        assert sha256s(result) == before
        return
    with pytest.raises(DDSPError, match=GONE):
        prepare_dataset('gs://bucket/in', tmp_path / 'out', 'notes', options=OPTIONS)
    again = prepare_dataset('gs://bucket/in', tmp_path / 'out', 'notes', options=OPTIONS)
    assert (again.accepted, again.rejected) == (3, {'not_audio': 1})
