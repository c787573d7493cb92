"""Recordings out of TensorFlow Datasets, written by TFDS itself: an NSynth in small, and integer sound."""

import json
import pathlib

import numpy as np
import pytest

from ddsp.errors import ConfigError, DDSPError
from ddsp.io.dataset import open_dataset
from pipelines import PrepareOptions, prepare_dataset
from pipelines.beam import steps
from pipelines.records import encode_example, read_examples, read_features
from pipelines.sources.finding import find_sources

QUICK = PrepareOptions(f0='yin', workers=1)


def note(hz, seconds=4, rate=16000):
    t = np.arange(seconds * rate) / rate
    return (0.3 * np.sin(2 * np.pi * hz * t) * np.exp(-0.3 * t)).astype(np.float32)


def notes(count, low):
    for i in range(count):
        hz = low + 20.0 * i
        frames = np.full(1000, hz, np.float32)
        yield f'{hz}', {
            'id': f'note_{hz:g}', 'audio': note(hz), 'pitch': 60,
            'f0': {'hz': frames, 'midi': frames, 'confidence': np.full(1000, 0.9, np.float32)},
            'loudness': {'db': np.linspace(-20, -30, 1000, dtype=np.float32)},
        }  # fmt: skip


@pytest.fixture(scope='module')
def data_dir(tmp_path_factory):
    """TFDS's own files: `nsynth_small` with two splits, `spoken` with one, at 8 kHz in integers."""
    tfds = pytest.importorskip('tensorflow_datasets')
    pytest.importorskip('importlib_resources')
    from tensorflow_datasets.core.dataset_builders import AdhocBuilder

    folder = tmp_path_factory.mktemp('tfds')
    frames = tfds.features.Tensor(shape=(1000,), dtype=np.float32)
    nsynth = tfds.features.FeaturesDict(
        {
            'id': tfds.features.Text(),
            'audio': tfds.features.Audio(shape=(64000,), dtype=np.float32, sample_rate=16000),
            'pitch': tfds.features.ClassLabel(num_classes=128),
            'f0': {'hz': frames, 'midi': frames, 'confidence': frames},
            'loudness': {'db': frames},
        }
    )
    splits = {'train': notes(6, 200.0), 'valid': notes(3, 500.0)}
    AdhocBuilder(
        name='nsynth_small', version='2.3.0', features=nsynth, split_datasets=splits, data_dir=folder
    ).download_and_prepare()
    spoken = tfds.features.FeaturesDict(
        {
            'speech': tfds.features.Audio(shape=(None,), dtype=np.int64, sample_rate=8000),
        }
    )
    rows = [
        (f'{i}', {'speech': np.round(32767 * note(150 + 30 * i, 5, 8000)).astype(np.int64)}) for i in range(5)
    ]
    AdhocBuilder(
        name='spoken', version='1.0.0', features=spoken, split_datasets={'train': rows}, data_dir=folder
    ).download_and_prepare()
    return folder


def examples(dataset, split):
    return [example for file in dataset.files(split) for example in read_examples(file)]


def test_its_own_f0_and_loudness_are_kept_and_so_are_its_splits(data_dir, tmp_path, monkeypatch):
    monkeypatch.setenv('TFDS_DATA_DIR', str(data_dir))
    options = PrepareOptions(f0='yin', workers=1, keep_features=True)
    result = prepare_dataset('tfds:nsynth_small', tmp_path, 'nsynth', options=options)
    assert result.examples == {'train': 6, 'valid': 3}
    dataset = open_dataset(result.path)
    for example in examples(dataset, 'valid'):
        hz = float(example['f0_hz'][0])
        assert hz in (500, 520, 540)
        np.testing.assert_array_equal(example['audio'], note(hz))
        np.testing.assert_array_equal(example['f0_hz'], np.full(1000, hz))
        np.testing.assert_array_equal(example['loudness_db'], np.linspace(-20, -30, 1000, dtype=np.float32))
    assert dataset.statistics('valid')['loudness_db']['mean'] == pytest.approx(-25, abs=0.01)
    rows = [json.loads(line) for line in (result.path / 'sources.jsonl').read_text().splitlines()]
    assert len({row['path'] for row in rows}) == 9
    assert rows[0]['path'].endswith('nsynth_small-train.tfrecord-00000-of-00001#0')
    assert (rows[0]['duration_s'], rows[0]['sample_rate']) == (4.0, 16000)


def test_or_they_are_computed_and_one_split_is_shared_out(data_dir, tmp_path):
    address = f'tfds:{data_dir}/nsynth_small/2.3.0#train'
    result = prepare_dataset(address, tmp_path, 'nsynth', options=QUICK)
    assert set(result.examples) == {'train', 'test'}
    assert sum(result.examples.values()) == 6
    for example in examples(open_dataset(result.path), 'train'):
        voiced = example['f0_hz'][example['f0_confidence'] > 0.8]
        assert len(voiced) > 900
        assert not np.array_equal(voiced, np.full(len(voiced), voiced[0]))  # measured
        hz = np.median(voiced)
        assert abs(hz - 20 * round(hz / 20)) < 1


def test_integer_sound_of_another_rate(data_dir, tmp_path, monkeypatch):
    monkeypatch.setenv('TFDS_DATA_DIR', str(data_dir))
    options = PrepareOptions(f0='yin', workers=1, keep_features=True)
    result = prepare_dataset('tfds:spoken:1.0.0', tmp_path, 'spoken', options=options)
    assert sum(result.audio_seconds.values()) == pytest.approx(25, abs=0.1)
    rows = [json.loads(line) for line in (result.path / 'sources.jsonl').read_text().splitlines()]
    assert 'has no f0 and loudness of its own: they are computed' in rows[0]['warnings']
    for split in result.examples:
        for example in examples(open_dataset(result.path), split):
            assert 0.2 < np.abs(example['audio'][:8000]).max() < 0.31


@pytest.mark.parametrize(
    ('address', 'text'),
    [
        (
            'tfds:nowhere',
            r'tfds:nowhere: no prepared dataset .*nowhere/VERSION.*TFDS_DATA_DIR.*tfds build nowhere',
        ),
        ('tfds:nsynth_small:9.0.0', 'no prepared dataset .*nsynth_small/9.0.0'),
        ('tfds:nsynth_small#test', "has no split 'test'; its splits are train, valid"),
        ('synthetic:long', 'expected synthetic:SECONDS or synthetic:SECONDS:SEED'),
    ],
)
def test_what_cannot_be_found_is_said(data_dir, monkeypatch, address, text):
    monkeypatch.setenv('TFDS_DATA_DIR', str(data_dir))
    with pytest.raises(DDSPError, match=text):
        find_sources(address)


def test_frames_of_another_rate_are_refused(data_dir, tmp_path):
    options = PrepareOptions(f0='yin', workers=1, keep_features=True, frame_rate=100)
    address = f'tfds:{data_dir}/nsynth_small/2.3.0#valid'
    with pytest.raises(
        DDSPError, match=r'#0 has 1000 frames of f0 for 4 s: 250 per second, not frame_rate=100'
    ):
        prepare_dataset(address, tmp_path, 'nsynth', options=options)


def test_own_splits_and_files_do_not_mix(data_dir, tmp_path, folder):
    with pytest.raises(ConfigError, match='brings its own splits cannot be mixed'):
        prepare_dataset([f'tfds:{data_dir}/nsynth_small/2.3.0', folder], tmp_path, 'mixed', options=QUICK)
    both = [f'tfds:{data_dir}/nsynth_small/2.3.0#valid', folder]
    assert prepare_dataset(both, tmp_path, 'mixed', options=QUICK).accepted == 9


def test_the_synthetic_corpus_is_a_source(tmp_path, monkeypatch):
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
    result = prepare_dataset('synthetic:24:3', tmp_path / 'out', 'bowed', options=QUICK)
    assert sum(result.audio_seconds.values()) == pytest.approx(24)
    rows = [json.loads(line) for line in (result.path / 'sources.jsonl').read_text().splitlines()]
    assert rows[0]['path'] == 'synthetic:24:3/take_01.wav'
    again = prepare_dataset('synthetic:24:3', tmp_path / 'out', 'bowed', options=QUICK)
    assert again.path == result.path


def test_a_synthetic_corpus_needs_no_common_disk(tmp_path, monkeypatch):
    """One machine looks into the files, another makes the shards."""
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
    here = prepare_dataset('synthetic:30', tmp_path / 'here', 'bowed', options=QUICK)
    make_shard = steps.make_shard

    def make_elsewhere(*arguments):
        monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'other'))
        return make_shard(*arguments)

    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'one'))
    monkeypatch.setattr(steps, 'make_shard', make_elsewhere)
    there = prepare_dataset('synthetic:30', tmp_path / 'there', 'bowed', options=QUICK)
    for machine in ('one', 'other'):
        assert len(list((tmp_path / machine).rglob('take_*.wav'))) == 2
    assert open_dataset(there.path).manifest['fingerprint'] == open_dataset(here.path).manifest['fingerprint']
    assert not (there.path / 'rejected.jsonl').read_text()
    for file in open_dataset(here.path).files('train'):
        assert (there.path / pathlib.Path(file).name).read_bytes() == pathlib.Path(file).read_bytes()


def test_a_cache_that_cannot_be_written_stops_a_synthetic_corpus(tmp_path, monkeypatch):
    (tmp_path / 'cache').write_text('')
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
    with pytest.raises(
        DDSPError, match=r'synthetic:4/take_01\.wav cannot be made in the cache folder: .*Not a'
    ):
        prepare_dataset('synthetic:4', tmp_path, 'bowed', options=QUICK)


def test_all_kinds_of_features_are_read(rng):
    import tensorflow as tf

    whole = rng.integers(-(2**63), 2**63 - 1, 200)
    example = tf.train.Example()
    example.features.feature['whole'].int64_list.value.extend([0, 1, -1, 127, 128, 2**62, *map(int, whole)])
    example.features.feature['words'].bytes_list.value.extend([b'a', b''])
    example.features.feature['none'].int64_list.value.extend([])
    example.features.feature['real'].float_list.value.extend([0.5, -2.0])
    features = read_features(example.SerializeToString())
    np.testing.assert_array_equal(features['whole'], [0, 1, -1, 127, 128, 2**62, *whole])
    assert features['words'] == [b'a', b'']
    assert len(features['none']) == 0
    np.testing.assert_array_equal(features['real'], [0.5, -2])
    assert list(read_features(encode_example({'x': np.arange(3.0)}))['x']) == [0, 1, 2]
