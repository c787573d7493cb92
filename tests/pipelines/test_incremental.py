"""Added and removed recordings cost only themselves; how a dataset came about leaves no trace in it."""

import json
import os
import pathlib
import shutil

import numpy as np
import pytest

from ddsp.f0 import get_estimator
from ddsp.io.audio import write_wav
from ddsp.io.dataset import open_dataset
from pipelines import PrepareOptions, prepare_dataset
from pipelines.analysis import recording
from pipelines.beam import plan
from pipelines.beam.plan import plan_shards
from pipelines.sources import probing
from pipelines.sources.splits import Piece
from pipelines.sources.stages import Found

OPTIONS = PrepareOptions(f0='yin', workers=1)


def tone(i, seconds=6):
    t = np.arange(16000 * seconds) / 16000
    return 0.3 * np.sin(2 * np.pi * (180 + 17 * i) * t) * (1 + 0.5 * np.sin(2 * np.pi * (0.3 + 0.01 * i) * t))


@pytest.fixture
def small_shards(monkeypatch):
    """Two recordings fill a shard."""
    monkeypatch.setattr(plan, 'SECONDS_PER_SHARD', 8.0)


@pytest.fixture(scope='module')
def corpus(tmp_path_factory):
    """Sixteen recordings of six seconds."""
    folder = tmp_path_factory.mktemp('corpus')
    for i in range(16):
        write_wav(folder / f'{i:02d}.wav', tone(i), 16000)
    return folder


def content(path):
    """Names and bytes, without what tells the moment and the version."""
    files = {file.name: file.read_bytes() for file in pathlib.Path(path).iterdir()}
    manifest = json.loads(files.pop('MANIFEST.json'))
    for name in ('created', 'version', 'files'):
        del manifest[name]
    del files['pipeline.json'], files['dataset_info.json'], files['metrics.json']
    return files | {'MANIFEST.json': manifest}


def audio_seconds(result):
    return sum(result.audio_seconds.values())


def test_an_added_recording_remakes_one_shard_and_a_removed_one_its_own(
    corpus, small_shards, tmp_path, monkeypatch
):
    decoded = []
    read = recording.read_blocks
    monkeypatch.setattr(
        recording, 'read_blocks', lambda path, **rest: decoded.append(path) or read(path, **rest)
    )
    inputs = tmp_path / 'in'
    shutil.copytree(corpus, inputs)
    (inputs / '07.wav').rename(tmp_path / '07.wav')
    first = prepare_dataset(inputs, tmp_path / 'out', 'notes', options=OPTIONS)
    assert (first.accepted, first.shards_reused, len(decoded)) == (15, 0, 15)
    decoded.clear()
    assert first.shards_made >= 5
    (tmp_path / '07.wav').rename(inputs / '07.wav')
    second = prepare_dataset(inputs, tmp_path / 'out', 'notes', options=OPTIONS)
    assert second.path.name == '1.1.0'
    assert second.accepted == 16
    assert second.shards_made <= 2
    assert str(inputs / '07.wav') in decoded
    assert len(decoded) <= 3  # the new one and the others of its shard
    assert second.audio_made == 6 * len(decoded)
    assert second.shards_reused >= first.shards_made - 2
    at_once = prepare_dataset(inputs, tmp_path / 'at_once', 'notes', options=OPTIONS)
    assert content(second.path) == content(at_once.path)  # history leaves no trace
    open_dataset(second.path).verify()
    (inputs / '07.wav').unlink()
    third = prepare_dataset(inputs, tmp_path / 'out', 'notes', options=OPTIONS)
    assert (third.shards_made, third.audio_made) == (0, 0)  # all shards of the first version are still known
    assert content(third.path) == content(first.path)


def test_a_moved_recording_costs_nothing(corpus, small_shards, tmp_path):
    inputs = tmp_path / 'in'
    shutil.copytree(corpus, inputs)
    prepare_dataset(inputs, tmp_path / 'out', 'notes', options=OPTIONS)
    (inputs / 'deep').mkdir()
    (inputs / '03.wav').rename(inputs / 'deep' / 'renamed.wav')
    result = prepare_dataset(inputs, tmp_path / 'out', 'notes', options=OPTIONS)
    assert (result.path.name, result.shards_made) == ('1.1.0', 0)
    rows = [json.loads(line) for line in (result.path / 'sources.jsonl').read_text().splitlines()]
    (row,) = [row for row in rows if row['path'].endswith('deep/renamed.wav')]
    assert (row['outcome'], row['examples']) == ('accepted', 3)


def test_a_damaged_shard_is_not_used_again(corpus, small_shards, tmp_path):
    first = prepare_dataset(corpus, tmp_path, 'notes', options=OPTIONS)
    victim = next(first.path.glob('*.tfrecord-00001-*'))
    data = bytearray(victim.read_bytes())
    data[1000] ^= 1
    victim.write_bytes(data)
    other = PrepareOptions(f0='yin', workers=1, max_rejected=0.5, splits={'train': 0.79, 'test': 0.21})
    second = prepare_dataset(corpus, tmp_path, 'notes', options=other)
    assert second.shards_made == 1
    open_dataset(second.path).verify()


def plans_of(pieces, **options):
    return plan_shards(pieces, PrepareOptions(splits={'train': 1.0}, **options), get_estimator('yin'))


def random_pieces(count, rng, longest=60):
    return [
        Piece(f'{i}', rng.bytes(32).hex(), 'train', seconds=float(rng.uniform(1, longest)))
        for i in range(count)
    ]


def test_shards_are_even_and_hold_everything_once(rng):
    pieces = random_pieces(3000, rng)
    plans = plans_of(pieces)
    held = sorted(piece.path for each in plans for piece in each.pieces)
    assert held == sorted(piece.path for piece in pieces)
    seconds = np.array([each.seconds for each in plans])
    assert len(plans) > 300
    assert seconds.max() <= 90 * 2
    assert seconds.mean() > 45
    assert [each.index for each in plans] == list(range(len(plans)))


def test_one_more_piece_changes_one_place(rng):
    pieces = random_pieces(500, rng)
    before = {each.fingerprint for each in plans_of(pieces)}
    for piece in random_pieces(20, rng):
        after = {each.fingerprint for each in plans_of([*pieces, piece])}
        assert len(before - after) <= 1
        assert len(after - before) <= 8  # the branch may have to divide
        assert {each.fingerprint for each in plans_of(pieces[::-1])} == before  # the order does not matter


def test_long_corpora_get_longer_shards_not_more(rng):
    hours = random_pieces(20000, rng, 300)
    assert len(plans_of(hours)) < 1500


def test_probing_reads_again_only_what_changed(corpus, tmp_path, monkeypatch):
    inputs = tmp_path / 'in'
    shutil.copytree(corpus, inputs)
    for file in inputs.iterdir():
        os.utime(file, (1e9, 1e9))
    paths, heads = sorted(str(path) for path in inputs.iterdir()), []
    decode = probing.decode
    monkeypatch.setattr(probing, 'decode', lambda info, *rest: heads.append(info.path) or decode(info, *rest))

    read, probe = [], probing.probe
    monkeypatch.setattr(probing, 'probe', lambda path: read.append(path) or probe(path))

    def look():
        heads.clear()
        read.clear()
        probed = probing.probe_sources([Found(path) for path in paths], probing.Inputs(tmp_path))
        return probed, sorted(read)

    first, fresh = look()
    assert fresh == sorted(heads) == paths  # all have the same length
    second, fresh = look()
    assert fresh == heads == []
    assert second == first
    write_wav(paths[4], tone(40), 16000)
    third, fresh = look()
    assert fresh == [paths[4]]
    assert third[4].sha256 != first[4].sha256
    assert look()[1] == [paths[4]]  # it was written just now and may change again within the same tick
