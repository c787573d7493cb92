"""Options of the providers (crops, levels, mixtures), the three kinds of data, going on where one stopped."""

import numpy as np
import pytest
import tensorflow as tf

from ddsp.analysis.loudness import loudness_db
from ddsp.errors import ConfigError
from ddsp.f0 import estimate_f0
from ddsp.io.dataset import DatasetError
from ddsp.training import config, data, rates
from ddsp.training.data.variation import Variation


def take(provider, n, start=0, batch=1, **kwargs):
    """The first batches of a provider as dictionaries of arrays."""
    later = {'start': start} if start else {}
    batches = provider.get_batch(batch, **kwargs, **later).take(n)
    return [{name: value.numpy() for name, value in batch.items()} for batch in batches]


def assert_equal(left, right):
    assert len(left) == len(right) > 0
    for one, other in zip(left, right, strict=True):
        assert one.keys() == other.keys()
        for name in one:
            np.testing.assert_array_equal(one[name], other[name])


@pytest.fixture(scope='module')
def ramps(tmp_path_factory):
    """Records of 4 s at 32 kHz whose values say where they are; 5 of them, the last padded from 1.5 s on."""
    folder = tmp_path_factory.mktemp('ramps')
    for number in range(5):
        real = 150 if number == 4 else 400
        frames = np.arange(401.0)
        features = {
            'audio': np.arange(128000) / 128000, 'audio_16k': np.arange(64000) / 64000,
            'f0_hz': 100 * (number + 1) + frames / 1000,
            'f0_confidence': np.where(frames < real, 1.0, 0.0),
            'loudness_db': np.where(frames < real, -20.0, -80.0),
        }  # fmt: skip
        feature = {k: tf.train.Feature(float_list=tf.train.FloatList(value=v)) for k, v in features.items()}
        example = tf.train.Example(features=tf.train.Features(feature=feature))
        with tf.io.TFRecordWriter(str(folder / f'x.tfrecord-{number:05d}-of-00005')) as writer:
            writer.write(example.SerializeToString())
    return {
        'file_pattern': str(folder / 'x*'), 'example_secs': 4, 'sample_rate': 32000, 'frame_rate': 100,
        'centered': True,
    }  # fmt: skip


def test_crops_begin_anywhere_and_stay_together(ramps):
    provider = data.TFRecordProvider(**ramps, crop_secs=1.0)
    assert provider.example_secs == 1.0
    starts = []
    for batch in take(provider, 60):
        example = {name: values[0] for name, values in batch.items()}
        assert {name: len(values) for name, values in example.items()} == {
            'audio': 32000, 'audio_16k': 16000, 'f0_hz': 101, 'f0_confidence': 101, 'loudness_db': 101,
        }  # fmt: skip
        start = example['audio'][0] * 4
        assert example['audio_16k'][0] * 4 == pytest.approx(start, abs=1e-5)
        number = int(example['f0_hz'][0] // 100)
        assert example['f0_hz'][0] - 100 * number == pytest.approx(start / 10, abs=1e-4)
        assert start * 100 == pytest.approx(round(start * 100), abs=1e-3)  # on a frame
        if number == 5:  # nothing but padding teaches nothing
            assert start <= 0.5
        starts.append(start)
    assert min(starts) < 0.5
    assert max(starts) > 2.5
    assert len(set(starts)) > 40


def test_crops_are_the_beginning_where_nothing_is_shuffled(ramps):
    provider = data.TFRecordProvider(**ramps, crop_secs=1.0, gain_db=(-20, -10))
    for batch in take(provider, 5, shuffle=False, repeats=1):
        assert batch['audio'][0, 0] == 0
        assert batch['loudness_db'][0, 0] == -20


def test_crops_fall_on_samples_of_every_rate(tmp_path):
    """44.1 kHz at 441 frames a second: only every 441st frame begins on a sample at 16 kHz."""
    features = {
        'audio': np.arange(4 * 44100), 'audio_16k': np.arange(4 * 16000),
        **dict.fromkeys(('f0_hz', 'f0_confidence', 'loudness_db'), np.arange(1, 4 * 441 + 1)),
    }  # fmt: skip
    example = {name: tf.constant(value, tf.float32) for name, value in features.items()}
    variation = Variation(44100, 441, crop_secs=1.0)
    seconds = {float(variation(example, tf.constant(i), 0)['audio_16k'][0]) / 16000 for i in range(40)}
    assert seconds == {0.0, 1.0, 2.0, 3.0}


def test_whatever_is_framewise_is_varied_alike():
    frames = {name: np.full(101, -30.0) for name in ('f0_hz', 'f0_confidence', 'loudness_db', 'power_db')}
    example = {'audio': np.full(1600, 0.1), 'instrument': np.zeros(3), **frames}
    example = {name: tf.constant(value, tf.float32) for name, value in example.items()}
    varied = Variation(1600, 100, 0.25, (6.0, 6.0))(example, tf.constant(0), 0)
    lengths = {name: len(values) for name, values in varied.items()}
    assert lengths == {'audio': 400, 'instrument': 3, **dict.fromkeys(frames, 26)}
    np.testing.assert_allclose(varied['power_db'], -24.0)
    np.testing.assert_allclose(varied['f0_hz'], -30.0)


def test_loudness_follows_the_level_exactly(tone_dataset):
    plain = take(data.DatasetProvider(tone_dataset), 8, repeats=1)
    varied = take(data.DatasetProvider(tone_dataset, gain_db=(-12.0, 30.0)), 8, repeats=1)
    gains = []
    for one, other in zip(plain, varied, strict=True):
        gain = np.sqrt(np.mean(other['audio'] ** 2) / np.mean(one['audio'] ** 2))
        gains.append(20 * np.log10(gain))
        np.testing.assert_allclose(other['audio'], gain * one['audio'], rtol=1e-5, atol=1e-7)
        assert np.abs(other['audio']).max() <= 1 + 1e-6  # 30 dB would clip
        measured = loudness_db(other['audio'][0], 16000, 250)[: other['loudness_db'].shape[1]]
        np.testing.assert_allclose(other['loudness_db'][0], measured, atol=0.02)
        np.testing.assert_array_equal(one['f0_hz'], other['f0_hz'])
    assert min(gains) >= -12.01
    assert np.ptp(gains) > 5


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (
            {'crop_secs': 0.3333},
            'crop_secs 0.3333 is 83.325 frames at frame_rate 250.*nearest length is 0.332 s',
        ),
        ({'crop_secs': 2.0}, 'crop_secs is 2, but the examples have 1 s: at most this'),
        ({'crop_secs': 0.0}, 'must be a whole number above 0: the nearest length is 0.004 s'),
        ({'gain_db': (3.0, -3.0)}, r'gain_db is \(3.0, -3.0\); it must be \(lowest, highest\)'),
    ],
)
def test_options_that_cannot_be_are_refused(tone_dataset, options, message):
    with pytest.raises(ConfigError, match=message):
        data.DatasetProvider(tone_dataset, **options)


@pytest.mark.parametrize('cache', [True, False])
@pytest.mark.parametrize('options', [{}, {'crop_secs': 0.5}, {'gain_db': (-6.0, 6.0)}])
def test_every_option_goes_on_where_it_stopped(tone_dataset, cache, options):
    def provider(seed=3):
        return data.DatasetProvider(tone_dataset, seed=seed, cache=cache, **options)

    whole = take(provider(), 9, batch=2)
    assert_equal(whole[6:], take(provider(), 3, start=12, batch=2))  # in the second pass
    other = take(provider(seed=4), 9, batch=2)
    assert any(not np.array_equal(a['audio'], b['audio']) for a, b in zip(whole, other, strict=True))


def test_a_mixture_goes_on_where_it_stopped(tone_dataset):
    def mixed():
        parts = [data.DatasetProvider(tone_dataset, split, crop_secs=0.5) for split in ('train', 'test')]
        return data.MixedProvider(parts, (0.75, 0.25), seed=5)

    assert mixed().can_start_later
    assert mixed().example_secs == 0.5
    whole = take(mixed(), 12, batch=4)
    assert_equal(whole[7:], take(mixed(), 5, start=28, batch=4))


def test_a_mixture_keeps_its_shares(tone_dataset):
    parts = [data.DatasetProvider(tone_dataset, split, crop_secs=0.004) for split in ('train', 'test')]
    known = {float(b['f0_hz'][0, 0]) for b in take(data.DatasetProvider(tone_dataset, 'test'), 3)}
    mixed = data.MixedProvider(parts, (0.75, 0.25))
    provider = np.concatenate([mixed.choices(tf.constant(i)).numpy() for i in range(3)])
    assert np.mean(provider == 0) == pytest.approx(0.75, abs=0.03)
    assert len(known) == 3


def test_zipped_batches_go_on_where_they_stopped(tone_dataset):
    def zipped(start=0):
        parts = [data.DatasetProvider(tone_dataset, split) for split in ('train', 'test')]
        batches = data.ZippedProvider(parts, (3, 1)).get_batch(4, start=start)
        return [[part['f0_hz'].numpy() for part in pair] for pair in batches.take(6 - start // 4)]

    for one, other in zip(zipped()[4:], zipped(start=16), strict=True):
        for left, right in zip(one, other, strict=True):
            np.testing.assert_array_equal(left, right)


# The three kinds of data


@pytest.fixture(scope='module')
def tfds_tones(tmp_path_factory, write_tone_dataset):
    """A dataset directory as TFDS sees it, too."""
    import json

    tone_dataset = write_tone_dataset(tmp_path_factory.mktemp('tfds'))
    names = tone_dataset.feature_lengths()
    kind = 'tensorflow_datasets.core.features'
    features = {
        name: {
            'pythonClassName': f'{kind}.tensor_feature.Tensor',
            'tensor': {'dtype': 'float32', 'encoding': 'none', 'shape': {'dimensions': [str(length)]}},
        }
        for name, length in names.items()
    }
    splits = [
        {
            'name': split, 'shardLengths': [str(row['examples']) for row in content['files']],
            'filepathTemplate': '{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}',
            'numBytes': str(sum(row['bytes'] for row in content['files'])),
        }
        for split, content in tone_dataset.manifest['splits'].items()
    ]  # fmt: skip
    structure = {
        'featuresDict': {'features': features},
        'pythonClassName': f'{kind}.features_dict.FeaturesDict',
    }
    info = {'name': 'tones', 'version': '1.0.0', 'fileFormat': 'tfrecord', 'splits': splits}
    (tone_dataset.path / 'features.json').write_text(json.dumps(structure))
    (tone_dataset.path / 'dataset_info.json').write_text(json.dumps(info))
    return tone_dataset


def test_all_three_kinds_give_the_same_examples(tfds_tones):
    folder = tfds_tones.path
    providers = [
        data.DatasetProvider(tfds_tones),
        data.TFRecordProvider(str(folder / 'tones-train*'), example_secs=1),
        data.TfdsProvider('tones', 'train', folder.parents[1], 16000, 250),
        data.TfdsProvider('', 'train', folder, 16000, 250),
    ]
    first, *others = (take(provider, 4, batch=3) for provider in providers)
    for other in others:
        assert_equal(first, other)


@pytest.mark.parametrize('cache', [True, False])
def test_tfds_goes_on_where_it_stopped_and_reads_parts(tfds_tones, cache):
    def provider(split='train'):
        return data.TfdsProvider('tones:1.0.0', split, tfds_tones.path.parents[1], 16000, 250, cache=cache)

    assert_equal(take(provider(), 9)[6:], take(provider(), 3, start=6))
    halves = [take(provider(split), 8, repeats=1) for split in ('train[:50%]', 'train[50%:]')]
    assert [len(half) for half in halves] == [4, 4]
    pitches = {float(batch['f0_hz'][0, 0]) for half in halves for batch in half}
    assert len(pitches) == 8


@pytest.mark.parametrize(
    ('name', 'split', 'message'),
    [
        ('nothing', 'train', "no TFDS dataset 'nothing' in"),
        ('tones', 'valid', "has no split 'valid'; its splits are test, train"),
    ],
)
def test_tfds_datasets_that_are_not_there(tfds_tones, name, split, message):
    with pytest.raises(DatasetError, match=message):
        data.TfdsProvider(name, split, tfds_tones.path.parents[1], 16000, 250).get_batch(1)


def test_nsynth_is_flattened(tmp_path):
    """A dataset of NSynth's structure, written by TFDS itself."""
    import tensorflow_datasets as tfds

    features = tfds.features.FeaturesDict({
        'audio': tfds.features.Tensor(shape=(64000,), dtype=np.float32),
        'f0': {name: tfds.features.Tensor(shape=(1000,), dtype=np.float32) for name in ('hz', 'confidence')},
        'loudness': {'db': tfds.features.Tensor(shape=(1000,), dtype=np.float32)},
        'pitch': tfds.features.ClassLabel(num_classes=128),
        'instrument': {
            name: tfds.features.ClassLabel(num_classes=1006) for name in ('source', 'family', 'label')
        },
    })  # fmt: skip
    rows = [
        {
            'audio': np.full(64000, i / 10, np.float32),
            'f0': {'hz': np.full(1000, 100.0 + i, np.float32), 'confidence': np.ones(1000, np.float32)},
            'loudness': {'db': np.full(1000, -i, np.float32)},
            'pitch': 60 + i, 'instrument': {'source': 0, 'family': i, 'label': 10 + i},
        }
        for i in range(6)
    ]  # fmt: skip
    tfds.dataset_builders.store_as_tfds_dataset(
        name='nsynth_like', version='2.3.0', features=features, data_dir=tmp_path,
        split_datasets={'train': enumerate(rows), 'valid': enumerate(rows[:2])},
    )  # fmt: skip
    provider = data.NSynthTfds('nsynth_like:2.3.0', 'train', str(tmp_path))
    batches = take(provider, 6, repeats=1)
    assert sorted(int(batch['pitch'][0]) for batch in batches) == list(range(60, 66))
    for batch in batches:
        i = int(batch['pitch'][0]) - 60
        assert batch['audio'].shape == (1, 64000)
        assert batch['f0_hz'][0, 0] == 100 + i
        assert batch['loudness_db'][0, 0] == -i
        assert (batch['instrument_family'][0], batch['instrument'][0]) == (i, 10 + i)
    bare = data.NSynthTfds('nsynth_like', 'valid', str(tmp_path), include_note_labels=False)
    assert set(take(bare, 1)[0]) == {'audio', 'f0_hz', 'f0_confidence', 'loudness_db'}
    assert_equal(take(provider, 8)[5:], take(provider, 3, start=5))


def test_saved_datasets_are_read(tmp_path):
    saved = tf.data.Dataset.range(20).map(lambda i: {'audio': tf.cast(i, tf.float32)[None]})
    saved.save(str(tmp_path / 'saved'))
    provider = data.ExperimentalDataProvider(str(tmp_path / 'saved'), 16000, 250)
    assert not provider.can_start_later
    found = [float(batch['audio'][0, 0]) for batch in take(provider, 20, repeats=1)]
    assert sorted(found) == list(range(20))
    assert found != sorted(found)


def test_synthetic_tones_have_the_pitch_and_level_that_they_say():
    provider = data.SyntheticProvider(6, example_secs=2.0, frame_rate=100, centered=True, seed=1)
    batches = take(provider, 6, repeats=1)
    pitches = []
    for batch in batches:
        audio, f0_hz = batch['audio'][0], batch['f0_hz'][0]
        assert (audio.shape, f0_hz.shape) == ((32000,), (201,))
        assert 0.001 < np.abs(audio).max() <= 1
        found, confidence = estimate_f0(audio, 16000, 100, 'yin', padding='center')
        cents = 1200 * np.abs(np.log2(found / f0_hz))[confidence > 0.8]
        assert len(cents) > 150
        assert np.median(cents) < 5
        measured = loudness_db(audio, 16000, 100)[:200]
        np.testing.assert_allclose(batch['loudness_db'][0][:200], measured, atol=0.5)
        pitches.append(float(f0_hz[0]))
    assert len(set(pitches)) == 6
    again = [float(batch['f0_hz'][0, 0]) for batch in take(provider, 12)]
    assert sorted(again[:6]) == sorted(again[6:]) == sorted(pitches)
    assert again[:6] != again[6:]
    assert_equal(take(provider, 9)[7:], take(provider, 2, start=7))


# Data and configuration


@pytest.fixture
def own_config():
    """A configuration that ends with the test."""
    with config.isolated():
        yield


def test_a_configuration_for_other_rates_is_refused(tone_dataset, own_config):
    config.parse_config(['models/vst/vst_48k.gin'])
    with pytest.raises(
        ConfigError,
        match=r'the configuration has sample_rate = 48000, but the dataset .* has 16000; frame_rate = 50, but'
        r'.* has 250. Prepare it with --sample-rate 48000 --frame-rate 50, or choose',
    ):
        rates.configure_for_dataset(tone_dataset)
    config.parse_config(['models/solo_instrument.gin'], ['sample_rate = 16000', 'centered = True'])
    with pytest.raises(ConfigError, match=r'centered = True, but .* has False. Prepare it with --centered,'):
        rates.configure_for_dataset(tone_dataset)


def test_crops_set_the_length_of_the_model(tone_dataset, own_config):
    config.parse_config(['models/solo_instrument.gin'], ['DatasetProvider.crop_secs = 0.5'])
    values = rates.configure_for_dataset(tone_dataset)
    assert values['Harmonic.n_samples'] == 8000
    assert values['F0LoudnessPreprocessor.time_steps'] == 125
    provider = data.DatasetProvider(tone_dataset)  # made by hand, as `ddsp train` does
    assert provider.example_secs == 0.5
    assert take(provider, 1)[0]['audio'].shape == (1, 8000)
    assert data.DatasetProvider(tone_dataset, crop_secs=None).example_secs == 1.0
    config.parse_config(['models/solo_instrument.gin'], ['DatasetProvider.crop_secs = 3.0'])
    with pytest.raises(ConfigError, match=r'crop_secs is 3, but the examples of .* have 1 s: at most this'):
        rates.configure_for_dataset(tone_dataset)


def test_a_training_on_varied_crops_goes_on_bit_for_bit(tone_dataset, configure_tiny, tmp_path, own_config):
    """Interrupted after 3 of 6 steps and continued: the same weights as uninterrupted."""
    bindings = ('DatasetProvider.crop_secs = 0.5', 'DatasetProvider.gain_db = (-6.0, 6.0)')

    def train(folder, steps):
        import keras

        from ddsp.training import models, train_util, trainers

        configure_tiny(*bindings, 'train.steps_per_save = 3')
        keras.utils.set_random_seed(0)
        trainer = trainers.Trainer(models.get_model(), train_util.get_strategy())
        provider = data.DatasetProvider(tone_dataset)
        train_util.train(provider, trainer, num_steps=steps, save_dir=str(folder), restore_dir=str(folder))
        return [weight.numpy() for weight in trainer.model.weights]

    whole = train(tmp_path / 'whole', 6)
    train(tmp_path / 'parts', 3)
    parts = train(tmp_path / 'parts', 6)
    for one, other in zip(whole, parts, strict=True):
        np.testing.assert_array_equal(one, other)
