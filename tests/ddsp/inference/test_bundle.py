"""Bundles: what is saved comes back; what is missing or damaged is named."""

import json
import shutil

import numpy as np
import pytest

from ddsp import inference
from ddsp.inference.bundle import BundleError
from ddsp.training import config, models


@pytest.fixture
def copy(tiny_bundle, tmp_path):
    """A bundle that a test may damage."""
    return shutil.copytree(tiny_bundle.path, tmp_path / 'bundle')


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
    with pytest.raises(BundleError, match=f'is no complete model bundle: {name} is missing'):
        inference.load_bundle(copy)


@pytest.mark.parametrize(
    ('name', 'content', 'message'),
    [
        ('metadata.json', '{', r'metadata.json is damaged'),
        ('metadata.json', '{"schema_version": 99}', r'schema_version 99; this version of ddsp reads 1'),
        ('metadata.json', '{"schema_version": 1}', r'is damaged: sample_rate, .*centered is missing'),
        ('statistics.json', '[]', r'statistics.json is damaged: it does not hold an object'),
        ('config.gin', 'Trainr.x = 1', r"config.gin does not make a model: .*'Trainr'"),
        ('weights.weights.h5', 'no', r'weights.weights.h5 cannot be read'),
    ],
)
def test_damage_is_named(copy, name, content, message):
    (copy / name).write_text(content)
    with pytest.raises(BundleError, match=message):
        inference.load_bundle(copy)


def test_weights_of_another_model_are_refused(copy):
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

    configure_tiny('strange.value = 3')
    strange()
    models.get_model()
    text = config.model_config_str()
    assert 'strange' not in text
    assert 'strange' in gin.operative_config_str()
    assert 'Autoencoder.decoder' in text
