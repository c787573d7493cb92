"""Bundles: what is saved comes back; what is missing or damaged is named."""

import json
import shutil

import numpy as np
import pytest

from ddsp import inference
from ddsp.errors import DDSPError
from ddsp.io.bundle_files import BundleError
from ddsp.training import config, models, safe_config


@pytest.fixture
def copy(tiny_bundle, tmp_path):
    """A bundle that a test may damage."""
    return shutil.copytree(tiny_bundle.path, tmp_path / 'bundle')


@pytest.fixture
def undigested(copy):
    """The same as earlier versions wrote it: without digests."""
    metadata = json.loads((copy / 'metadata.json').read_text())
    del metadata['sha256'], metadata['digest']
    (copy / 'metadata.json').write_text(json.dumps(metadata))
    return copy


def test_a_bundle_makes_the_same_sound_wherever_it_lies(tiny_bundle, copy, tone_audio):
    config.parse_config(bindings=['RnnFcDecoder.ch = 99'])  # what is configured elsewhere does not matter
    other = inference.load_bundle(copy)
    np.testing.assert_array_equal(
        other.resynthesize(tone_audio, 16000, seed=3), tiny_bundle.resynthesize(tone_audio, 16000, seed=3)
    )
    assert config.is_bound('RnnFcDecoder.ch')


def test_metadata_say_what_the_model_is(tiny_bundle, tone_dataset):
    metadata = tiny_bundle.metadata
    assert metadata['dataset'] == {'name': 'tones', 'version': '1.0.0', 'digest': tone_dataset.digest}
    assert (tiny_bundle.sample_rate, tiny_bundle.frame_rate, tiny_bundle.hop_size) == (16000, 250, 64)
    assert metadata['parameters'] == tiny_bundle.model.count_params()
    assert metadata['metrics'] == {'loss': 1.0}
    assert tiny_bundle.statistics['splits']['train']['pitch_midi']['mean'] == 57.0
    assert sorted(p.name for p in tiny_bundle.path.iterdir()) == [
        'config.gin', 'metadata.json', 'statistics.json', 'weights.weights.h5',
    ]  # fmt: skip


@pytest.mark.parametrize('name', ['config.gin', 'metadata.json', 'statistics.json', 'weights.weights.h5'])
def test_a_missing_file_is_named(copy, name):
    (copy / name).unlink()
    with pytest.raises(BundleError, match=f'is not a complete model bundle: {name} is missing'):
        inference.load_bundle(copy)


@pytest.mark.parametrize(
    ('name', 'content', 'message'),
    [
        ('metadata.json', '{', r'metadata.json is damaged'),
        ('metadata.json', '{"schema_version": 99}', r'schema_version 99; this version of ddsp reads 1'),
        ('metadata.json', '{"schema_version": 1}', r'is damaged: sample_rate, .*centered is missing'),
        ('statistics.json', '[]', r'statistics.json is damaged: it does not hold an object'),
        ('config.gin', 'Trainr.x = 1', r"config.gin, line 1: there is no 'Trainr'; did you mean"),
        ('config.gin', 'Autoencoder.decoder = 3', r'config.gin does not make a model: '),
        ('weights.weights.h5', 'no', r'weights.weights.h5 cannot be read'),
    ],
)
def test_damage_is_named(undigested, name, content, message):
    (undigested / name).write_text(content)
    with pytest.raises(BundleError, match=message):
        inference.load_bundle(undigested)


@pytest.mark.parametrize(
    ('key', 'value'),
    [
        ('sample_rate', '16000'), ('sample_rate', 0), ('sample_rate', True), ('frame_rate', 1e9),
        ('frame_rate', 17000), ('example_secs', float('nan')), ('example_secs', 1e9), ('hop_size', None),
        ('f0_estimator', ['yin']), ('centered', 'no'),
    ],
)  # fmt: skip
def test_metadata_that_cannot_be_are_refused(undigested, key, value):
    metadata = json.loads((undigested / 'metadata.json').read_text())
    (undigested / 'metadata.json').write_text(json.dumps({**metadata, key: value}))
    with pytest.raises(
        BundleError, match='metadata.json is damaged: ' + ('.*17000' if value == 17000 else f'.*{key}')
    ):
        inference.load_bundle(undigested)


def test_a_bundle_without_digests_is_still_a_bundle(undigested, tiny_bundle):
    bundle = inference.load_bundle(undigested)
    for ours, theirs in zip(bundle.model.weights, tiny_bundle.model.weights, strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize('name', ['config.gin', 'metadata.json', 'statistics.json', 'weights.weights.h5'])
def test_two_flipped_bytes_are_found(copy, name):
    content = bytearray((copy / name).read_bytes())
    digit = content.index(b'6') if name != 'weights.weights.h5' else len(content) // 2
    content[digit] ^= 1  # in the texts another number, in the weights another weight
    content[digit + 1] ^= 0
    (copy / name).write_bytes(content)
    with pytest.raises(BundleError, match=f'{name} is damaged: it is not the file that was saved'):
        inference.load_bundle(copy)


def test_metrics_are_added_and_the_bundle_stays_whole(copy):
    inference.add_metrics(copy, {'eval/x': 2.5, 'loss': 0.5})
    assert inference.load_bundle(copy).metadata['metrics'] == {'loss': 0.5, 'eval/x': 2.5}


def test_weights_of_another_model_are_refused(undigested):
    copy = undigested
    text = (copy / 'config.gin').read_text()
    (copy / 'config.gin').write_text(text.replace('RnnFcDecoder.ch = 16', 'RnnFcDecoder.ch = 17'))
    with pytest.raises(
        BundleError, match=r'weights.weights.h5 cannot be read: .* belongs to another config.gin'
    ):
        inference.load_bundle(copy)


def test_no_bundle_at_all(tmp_path):
    with pytest.raises(BundleError, match=r'no model bundle at .*nowhere'):
        inference.load_bundle(tmp_path / 'nowhere')


def test_a_configuration_that_does_not_make_the_model_is_not_published(tiny_bundle, tone_dataset, tmp_path):
    target = tmp_path / 'bundle'
    text = tiny_bundle.config.replace('RnnFcDecoder.rnn_channels = 16', 'RnnFcDecoder.rnn_channels = 12')
    with pytest.raises(BundleError):
        inference.save_bundle(target, tiny_bundle.model, tone_dataset, gin_config=text)
    assert list(tmp_path.iterdir()) == []


def test_saving_again_replaces(tiny_bundle, tone_dataset, tmp_path):
    target = tmp_path / 'bundle'
    for value in (1.0, 2.0):
        metrics = {'loss': value}
        inference.save_bundle(
            target, tiny_bundle.model, tone_dataset, metrics=metrics, gin_config=tiny_bundle.config
        )
    assert json.loads((target / 'metadata.json').read_text())['metrics'] == {'loss': 2.0}
    assert [p.name for p in tmp_path.iterdir()] == ['bundle']
    (target / 'notes.txt').write_text('mine')
    with pytest.raises(DDSPError, match=r'bundle holds other files \(notes.txt\); nothing was changed'):
        inference.save_bundle(target, tiny_bundle.model, tone_dataset, gin_config=tiny_bundle.config)
    assert (target / 'notes.txt').read_text() == 'mine'
    assert [p.name for p in tmp_path.iterdir()] == ['bundle']


def test_untrained_has_the_shape_of_the_model_and_other_weights(tiny_bundle):
    fresh = inference.untrained(tiny_bundle)
    pairs = list(zip(fresh.model.weights, tiny_bundle.model.weights, strict=True))
    assert all(a.shape == b.shape for a, b in pairs)
    assert any(np.any(a.numpy() != b.numpy()) for a, b in pairs)


def test_settings_of_other_packages_stay_out_of_the_configuration(configure_tiny):
    import gin

    @gin.configurable(module='elsewhere')
    def strange(value=1):
        return value

    configure_tiny('import json', 'size = 16', 'RnnFcDecoder.ch = %size', 'strange.value = %batch_size')
    strange()
    models.get_model()
    text = safe_config.model_config_str()
    assert not [name for name in ('strange', 'import', 'batch_size') if name in text]
    assert 'strange' in gin.operative_config_str()
    assert 'import json' in gin.operative_config_str()
    assert 'Autoencoder.decoder' in text
    assert 'size = 16\n' in text
