"""Providers: what they read, in which order, and what they say about files that they cannot read."""

import re

import numpy as np
import pytest
import tensorflow as tf

from ddsp.errors import ConfigError
from ddsp.io.dataset import DatasetError
from ddsp.training import data
from ddsp.training.data.record_files import count_records


def _ids(provider, batch_size=1, take=None, **kwargs):
    """The first pitch of each example, which tells the examples apart."""
    batches = provider.get_batch(batch_size, **kwargs)
    batches = batches if take is None else batches.take(take)
    return [float(f0) for batch in batches for f0 in batch['f0_hz'][:, 0]]


def test_a_pass_holds_every_example_once_in_another_order(tone_dataset):
    provider = data.DatasetProvider(tone_dataset, 'train')
    plain = _ids(provider, shuffle=False, repeats=1)
    shuffled = _ids(provider, shuffle=True, repeats=2)
    assert len(set(plain)) == 8
    assert sorted(plain) == sorted(shuffled[:8]) == sorted(shuffled[8:])
    assert shuffled[:8] != plain
    assert shuffled[:8] != shuffled[8:]
    # Examples, not only files: those of one file do not stay together.
    first_file = set(plain[0::2])
    assert [f0 in first_file for f0 in shuffled[:8]] not in (
        [True] * 4 + [False] * 4,
        [False] * 4 + [True] * 4,
    )


def test_the_order_depends_on_the_seed_alone(tone_dataset):
    def order(seed):
        return _ids(data.DatasetProvider(tone_dataset, 'train', seed=seed), repeats=1)

    assert order(0) == order(0)
    assert order(0) != order(1)


@pytest.mark.parametrize('cache', [True, False])
@pytest.mark.parametrize('start', [3, 8, 19])
def test_a_later_start_gives_what_would_have_come(tone_dataset, start, cache):
    provider = data.DatasetProvider(tone_dataset, 'train', cache=cache)
    assert _ids(provider, take=24)[start:] == _ids(provider, take=24 - start, start=start)


def test_examples_of_files_are_mixed_also_where_they_are_not_kept(tone_dataset):
    provider = data.DatasetProvider(tone_dataset, 'train', cache=False)
    plain = _ids(provider, shuffle=False, repeats=1)
    shuffled = _ids(provider, repeats=2)
    assert sorted(plain) == sorted(shuffled[:8]) == sorted(shuffled[8:])
    assert len({tuple(plain), tuple(shuffled[:8]), tuple(shuffled[8:])}) == 3
    assert plain == _ids(data.DatasetProvider(tone_dataset, 'train', cache=True), shuffle=False, repeats=1)


def test_features_have_the_lengths_of_the_manifest(tone_dataset):
    provider = data.DatasetProvider(tone_dataset, 'test')
    batches = list(provider.get_batch(2, repeats=1, drop_remainder=False))
    assert [batch['audio'].shape for batch in batches] == [(2, 16000), (1, 16000)]
    assert batches[0]['loudness_db'].shape == (2, 250)
    assert (provider.sample_rate, provider.frame_rate, provider.example_secs) == (16000, 250, 1.0)


def test_upstreams_provider_reads_the_same_files(tone_dataset):
    pattern = str(tone_dataset.path / 'tones-train.tfrecord*')
    for cls in (data.TFRecordProvider, data.LegacyTFRecordProvider):
        provider = cls(pattern, example_secs=1)
        assert sorted(_ids(provider, repeats=1)) == sorted(
            _ids(data.DatasetProvider(tone_dataset, 'train'), repeats=1)
        )


def test_upstreams_records_with_audio_16k_are_read(tmp_path):
    features = {'audio': np.zeros(1600), 'audio_16k': np.ones(1600)}
    features |= dict.fromkeys(('f0_hz', 'f0_confidence', 'loudness_db'), np.zeros(25))
    feature = {k: tf.train.Feature(float_list=tf.train.FloatList(value=v)) for k, v in features.items()}
    with tf.io.TFRecordWriter(str(tmp_path / 'x.tfrecord')) as writer:
        writer.write(tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString())
    provider = data.TFRecordProvider(str(tmp_path / 'x*'), example_secs=0.1)
    assert next(iter(provider.get_dataset(False)))['audio_16k'].shape == (1600,)


def test_lengths_that_do_not_agree_are_named(tone_dataset):
    provider = data.TFRecordProvider(str(tone_dataset.path / 'tones-train*'), example_secs=2)
    with pytest.raises(
        DatasetError, match=r"tones-train.*'audio' has 16000 values, 32000 were expected.*example_secs"
    ):
        list(data.iterate(provider, provider.get_batch(1, repeats=1)))


def test_patterns_without_files_are_refused(tmp_path):
    with pytest.raises(DatasetError, match='no file matches'):
        data.TFRecordProvider(str(tmp_path / 'none*')).get_batch(1)
    with pytest.raises(NotImplementedError, match='needs file_pattern'):
        data.TFRecordProvider()


@pytest.mark.parametrize('cache', [True, False])
def test_damage_is_reported_with_the_name_of_the_file(tmp_path, write_tone_dataset, cache):
    dataset = write_tone_dataset(tmp_path)
    path = tmp_path / 'tones' / '1.0.0' / 'tones-train.tfrecord-00001-of-00002'
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    provider = data.DatasetProvider(dataset, 'train', cache=cache)
    with pytest.raises(DatasetError, match=re.escape(path.name) + r' is damaged \(after \d examples\)'):
        list(data.iterate(provider, provider.get_batch(2, repeats=1)))
    path.write_bytes(content[:-10])
    with pytest.raises(DatasetError, match=r'is damaged: it has \d+ bytes where \d+ were written'):
        data.DatasetProvider(dataset, 'train')
    with pytest.raises(DatasetError, match='it ends within record'):
        count_records(str(path))
    path.unlink()
    with pytest.raises(DatasetError, match=re.escape(path.name) + ' is missing'):
        data.DatasetProvider(dataset, 'train')


def test_records_are_counted_by_their_headers(tone_dataset):
    assert [count_records(path) for path in tone_dataset.files('test')] == [2, 1]


def test_mixed_and_zipped_providers(tone_dataset):
    pair = [data.DatasetProvider(tone_dataset, split) for split in ('train', 'test')]
    left, right = next(iter(data.ZippedProvider(pair, (3, 1)).get_batch(4)))
    assert (left['audio'].shape[0], right['audio'].shape[0]) == (3, 1)
    mixed = data.MixedProvider(pair, (0.0, 1.0))
    test = set(_ids(pair[1], repeats=1))
    assert set(_ids(mixed, take=3)) <= test
    with pytest.raises(ConfigError, match='2 data_providers'):
        data.MixedProvider(pair, (1.0,))
    other = data.TFRecordProvider('x', sample_rate=8000)
    with pytest.raises(ConfigError, match='equal rates'):
        data.MixedProvider([pair[0], other])
