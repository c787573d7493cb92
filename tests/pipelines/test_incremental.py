"""Added and removed recordings cost only themselves; how a dataset came about leaves no trace in it."""

import dataclasses
import json
import os
import pathlib
import pickle
import shutil

import numpy as np
import pytest

from ddsp.errors import DDSPError
from ddsp.io.audio import AudioInfo, write_wav
from ddsp.io.dataset import open_dataset
from pipelines import PrepareOptions, prepare_dataset
from pipelines.analysis import recording
from pipelines.shards import plan, shard
from pipelines.sources import probing
from pipelines.sources.stages import Found, Probed, Rejected

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


def shards_of(recordings, **options):
    """Which recordings are in which shard."""
    chosen = PrepareOptions(splits={'train': 1.0}, **options)
    totals = plan.Totals()
    for i, row in enumerate(recordings):  # in parts, as workers count them
        part = plan.Totals()
        part.add(row, chosen.splits)
        totals.merge(part) if i % 2 else totals.add(row, chosen.splits)
    made = plan.plan(totals, chosen)
    groups = [[] for _ in range(made.count('train'))]
    for row in recordings:
        (piece,) = made.pieces(row)
        groups[made.shard(piece)].append(row)
    return groups


def contents(groups):
    return {frozenset(row.sha256 for row in group) for group in groups}


def random_recordings(count, rng, longest=60):
    lengths = rng.uniform(1, longest, count)
    return [
        Probed(
            Found(f'{i}'),
            rng.bytes(32).hex(),
            AudioInfo(f'{i}', 16000, 1, int(secs * 16000), 'WAV', 'soundfile'),
        )
        for i, secs in enumerate(lengths)
    ]


@pytest.mark.parametrize('count', [900, 3000])  # few enough for a table, and many
def test_shards_are_even_and_hold_everything_once(rng, count):
    recordings = random_recordings(count, rng)
    groups = shards_of(recordings)
    assert sorted(row.path for group in groups for row in group) == sorted(row.path for row in recordings)
    seconds = np.array([sum(row.seconds for row in group) for group in groups])
    assert len(groups) > count / 10
    assert seconds.max() <= 90 * 2
    assert seconds.mean() > 45


@pytest.mark.parametrize('count', [500, 2000])
def test_one_more_recording_changes_one_place(rng, count):
    recordings = random_recordings(count, rng)
    before = contents(shards_of(recordings))
    for another in random_recordings(5, rng):
        after = contents(shards_of([*recordings, another]))
        assert len(before - after) <= 1
        assert len(after - before) <= 8  # the branch may have to divide
    assert contents(shards_of(recordings[::-1])) == before  # the order does not matter


def test_the_way_to_the_shards_does_not_show_in_them(rng, monkeypatch):
    """A table of lengths and sums by the first bits give the same shards."""
    recordings = random_recordings(400, rng)
    before = contents(shards_of(recordings))
    monkeypatch.setattr(plan, 'FEW_ENOUGH', 100)
    monkeypatch.setattr(plan, '_PREFIX', 16)  # digits, for a few of four are equal
    assert contents(shards_of(recordings)) == before


@pytest.mark.parametrize('count', [50, 3000])
def test_the_number_of_shards_can_be_asked_for(rng, count):
    recordings = random_recordings(count, rng)
    groups = shards_of(recordings, num_shards=5)
    seconds = np.array([sum(row.seconds for row in group) for group in groups])
    assert len(groups) == 5
    assert seconds.sum() == pytest.approx(sum(row.seconds for row in recordings))
    assert seconds.std() / seconds.mean() < (0.02 if count < 1000 else 0.1)


@pytest.mark.parametrize('count', [20, 2000])
def test_recordings_whose_length_is_not_known_have_a_shard_too(rng, count):
    unknown = [
        dataclasses.replace(row, info=dataclasses.replace(row.info, n_samples=None))
        for row in random_recordings(count, rng)
    ]
    groups = shards_of(unknown)
    assert sum(map(len, groups)) == count


def test_long_corpora_get_longer_shards_not_more(rng):
    hours = random_recordings(20000, rng, 300)
    assert len(shards_of(hours)) < 1500


def test_totals_do_not_grow_with_the_inputs(rng):
    few, many = plan.Totals(), plan.Totals()
    for row in random_recordings(1000, rng):
        few.add(row, {'train': 0.8, 'test': 0.2})
    for row in random_recordings(20000, rng):
        many.add(row, {'train': 0.8, 'test': 0.2})
        many.add(dataclasses.replace(_BAD, path=row.path), {})
    assert len(pickle.dumps(many)) < 2**18 * 8
    assert few.lengths is not None
    assert (many.lengths, len(many.named), many.rejected) == (None, 5, 20000)
    assert len(many.counted) <= 2 * 16**4


_BAD = Rejected('x', 'not_audio', 'x is not audio')


def test_probing_reads_again_only_what_changed(corpus, tmp_path, monkeypatch):
    inputs = tmp_path / 'in'
    shutil.copytree(corpus, inputs)
    for file in inputs.iterdir():
        os.utime(file, (1e9, 1e9))
    paths = sorted(str(path) for path in inputs.iterdir())
    read, probe = [], probing.probe
    monkeypatch.setattr(probing, 'probe', lambda path: read.append(path) or probe(path))

    def look():
        read.clear()
        result = prepare_dataset(inputs, tmp_path / 'out', 'notes', options=OPTIONS)
        return result, sorted(read)

    first, fresh = look()
    assert fresh == paths
    second, fresh = look()
    assert (second.path, fresh) == (first.path, [])
    write_wav(paths[4], tone(40), 16000)
    third, fresh = look()
    assert (third.path.name, fresh) == ('1.1.0', [paths[4]])
    assert look()[1] == [paths[4]]  # it was written just now and may change again within the same tick


def test_an_interrupted_preparation_remembers_what_it_looked_into(corpus, tmp_path, monkeypatch):
    inputs = tmp_path / 'in'
    shutil.copytree(corpus, inputs)
    for file in inputs.iterdir():
        os.utime(file, (1e9, 1e9))
    read, probe = [], probing.probe
    monkeypatch.setattr(probing, 'probe', lambda path: read.append(path) or probe(path))
    with monkeypatch.context() as patch:
        patch.setattr(shard, '_fill', lambda *rest: (_ for _ in ()).throw(DDSPError('the power is gone')))
        with pytest.raises(DDSPError, match='the power is gone'):
            prepare_dataset(inputs, tmp_path / 'out', 'notes', options=OPTIONS)
    assert len(read) == 16
    assert prepare_dataset(inputs, tmp_path / 'out', 'notes', options=OPTIONS).accepted == 16
    assert len(read) == 16
