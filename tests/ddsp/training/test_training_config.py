"""gin files and bindings: what parses, what builds, and what every mistake is told."""

import gin
import numpy as np
import pytest

from ddsp.errors import ConfigError
from ddsp.training import config, models, rates, trainers


@pytest.mark.parametrize('file', config.packaged_files())
def test_every_packaged_file_parses(file):
    config.parse_config([file])


def test_names_resolve_in_short_and_with_their_module():
    for name in (
        'Trainer',
        'trainers.Trainer',
        'training.trainers.Trainer',
        'ddsp.training.trainers.Trainer',
    ):
        config.parse_config(
            bindings=[f'{name}.seed = 7', 'train_util.train.num_steps = 3', 'train.batch_size = 2']
        )
        assert gin.query_parameter('Trainer.seed') == 7
        assert gin.query_parameter('ddsp.training.train_util.train.num_steps') == 3


@pytest.mark.parametrize(
    ('file', 'parameters'),
    [
        ('models/solo_instrument.gin', 4_801_150 + 48_000),
        ('papers/iclr2020/tiny_instrument.gin', 232_314 + 48_000),
        ('papers/iclr2020/nsynth_ae.gin', 7_251_186),
    ],
)
def test_models_have_the_published_number_of_parameters(file, parameters):
    config.parse_config([file])
    rates.configure_rates(16000, 250, 1)
    model = models.get_model()
    features = {
        'audio': np.zeros([1, 16000], np.float32),
        'f0_hz': np.full([1, 250], 440, np.float32),
        'loudness_db': np.full([1, 250], -40, np.float32),
    }
    outputs, losses = model(features, return_losses=True, training=True)
    assert model.count_params() == parameters
    assert outputs['audio_synth'].shape == (1, 16000)
    assert set(losses) == {'spectral_loss', 'total_loss'}
    parts = sum(float(v) for v in model.loss_metrics.values())
    assert float(losses['spectral_loss']) == pytest.approx(parts, rel=1e-5)


@pytest.mark.parametrize(
    ('file', 'rate', 'crop'), [('vst', 16000, 320), ('vst_32k', 32000, 640), ('vst_48k', 48000, 960)]
)
def test_vst_models_build_at_each_rate(file, rate, crop):
    config.parse_config([f'models/vst/{file}.gin'], ['FilteredNoiseReverb.reverb_length = 1000'])
    rates.configure_rates(rate, 50, 1, centered=True)
    assert gin.query_parameter('Crop.frame_size') == crop
    model = models.get_model()
    features = {
        'audio': np.zeros([1, rate], np.float32),
        'audio_16k': np.zeros([1, 16000], np.float32),
        'f0_hz': np.full([1, 51], 440, np.float32),
        'f0_confidence': np.ones([1, 51], np.float32),
    }
    outputs, losses = model(features, return_losses=True)
    assert outputs['audio_synth'].shape == (1, rate)
    assert np.isfinite(losses['total_loss'])


@pytest.mark.parametrize(
    ('binding', 'message'),
    [
        ('Trainr.seed = 1', r"there is no 'Trainr'; did you mean 'trainers.Trainer'\?.*line 1"),
        (
            'Trainer.learning_rat = 1',
            r"Trainer has no parameter 'learning_rat'; did you mean 'learning_rate'\?",
        ),
        ('RnnFcDecoder.chh = 3', r"RnnFcDecoder has no parameter 'chh'; did you mean 'ch'\?"),
        ('Harmonic.n_sample = 3', r"Harmonic has no parameter 'n_sample'; did you mean 'n_samples'\?"),
        (
            'Autoencoder.decoder = @RnnFcDecodr()',
            r"there is no 'RnnFcDecodr'; did you mean 'decoders.RnnFcDecoder'\?",
        ),
        ('train.num_steps = = 3', r'this line cannot be read .*train.num_steps = = 3'),
        ('train.num_steps = %steps', r'train.num_steps uses %steps, which nothing defines'),
        ('batchsize = 3\ntrain.batch_size = %batch_size', r'uses %batch_size.*did you mean %batchsize\?'),
        (
            "include 'models/aee.gin'",
            r"there is no gin file 'models/aee.gin'; did you mean 'models/ae.gin'\?",
        ),
    ],
)
def test_mistakes_are_named_with_their_correction(binding, message):
    with pytest.raises(ConfigError, match=message):
        config.parse_config(bindings=binding.splitlines())


def test_a_missing_file_is_named_with_the_nearest_packaged_one():
    with pytest.raises(
        ConfigError, match=r"no gin file 'models/solo_instrumnt.gin'.*'models/solo_instrument.gin'"
    ):
        config.parse_config(['models/solo_instrumnt.gin'])


def test_own_files_are_found_before_packaged_ones(tmp_path):
    (tmp_path / 'models').mkdir()
    (tmp_path / 'models' / 'ae.gin').write_text('Trainer.seed = 11\n')
    (tmp_path / 'mine.gin').write_text("include 'models/ae.gin'\n")
    config.parse_config(['mine.gin'], search_paths=[str(tmp_path)])
    assert gin.query_parameter('Trainer.seed') == 11


def test_errors_of_constructors_reach_the_user_without_gins_call_stack():
    config.parse_config(bindings=['Trainer.learning_rate = -1.0'])
    with pytest.raises(ConfigError) as error:
        trainers.Trainer(None, None)
    assert str(error.value) == 'Trainer.learning_rate is -1.0; it must be above 0'


def test_isolated_configuration_leaves_the_one_in_use_alone():
    config.parse_config(bindings=['Trainer.seed = 5'])
    with config.isolated():
        config.parse_config(bindings=['Trainer.seed = 6'])
    assert gin.query_parameter('Trainer.seed') == 5


@pytest.mark.parametrize(
    ('values', 'message'),
    [
        ((44100, 250, 4), r'frame_rate 250 does not divide sample_rate 44100; .* 245 and 252'),
        ((16000, 20000, 4), r'frame_rate 20000 does not divide sample_rate 16000; nearest are 16000 frames'),
        ((16000, 0.7, 4), r'frame_rate 0.7 does not divide sample_rate 16000; nearest are 1 frames'),
        ((16000, 250, 4.001), r'1000.25 frames.* the nearest length is 4 s'),
        ((16000, 0, 4), r'frame_rate is 0; it must be above 0'),
    ],
)
def test_rates_that_do_not_fit_are_refused_with_the_nearest(values, message):
    with pytest.raises(ConfigError, match=message):
        rates.configure_rates(*values)


def test_one_call_sets_everything_that_follows_from_the_rates():
    config.parse_config(['models/ae.gin'])
    values = rates.configure_rates(48000, 250, 2)
    assert values['Harmonic.n_samples'] == values['FilteredNoise.n_samples'] == 96000
    assert values['F0LoudnessPreprocessor.time_steps'] == 500
    assert values['SpectralLoss.fft_sizes'] == (6144, 3072, 1536, 768, 384, 192)
    assert gin.query_parameter('TFRecordProvider.sample_rate') == 48000


def test_one_sample_rate_reaches_everything_that_has_one():
    """Every public part whose rate is 16 kHz by default, but for those that get a rate with their data."""
    import importlib
    import inspect

    modules = ('ddsp.effects', 'ddsp.losses', 'ddsp.synths', 'ddsp.training.encoders',
               'ddsp.training.preprocessing', 'ddsp.training.decoders')  # fmt: skip
    config.parse_config(['models/ae.gin'])
    values = rates.configure_rates(48000, 250, 2)
    found = set()
    for module in map(importlib.import_module, modules):
        for name, part in vars(module).items():
            if inspect.isclass(part) and 'sample_rate' in inspect.signature(part).parameters:
                found.add(f'{name}.sample_rate')
    assert len(found) >= 10
    assert {name: values.get(name) for name in found} == dict.fromkeys(found, 48000)


@pytest.mark.parametrize(
    ('binding', 'message'),
    [
        ("train.batch_size = 'many'", "train.batch_size is 'many'; it must be of type int"),
        ('train.num_steps = 1.5', 'train.num_steps is 1.5; it must be of type int'),
        ('train.batch_size = True', 'train.batch_size is True; it must be of type int'),
        ('train.batch_size = None', 'train.batch_size is None; it must be of type int'),
        ('train.batch_size = [16]', r'train.batch_size is \[16\]; it must be of type int'),
        ("n = '8'\ntwice = %n\ntrain.batch_size = %twice", "train.batch_size is '8'; it must be of type int"),
        ("Trainer.learning_rate = 'high'", "Trainer.learning_rate is 'high'; it must be of type float"),
        ("scope/Trainer.grad_clip_norm = 'x'", "grad_clip_norm is 'x'; it must be of type float or None"),
        ('Harmonic.normalize_below_nyquist = "no"', "is 'no'; it must be of type bool"),
        ('SpectralLoss.loss_type = 1', 'SpectralLoss.loss_type is 1; it must be of type str'),
        ('RnnFcDecoder.ch = "512"', "RnnFcDecoder.ch is '512'; it must be of type int"),
        ('Reverb.trainable = 3', 'Reverb.trainable is 3; it must be of type bool'),
        ('a = %b\nb = %a\ntrain.batch_size = %a', '%[ab] refers to itself'),
    ],
)
def test_a_value_of_another_type_is_refused_before_anything_is_done(binding, message):
    with pytest.raises(ConfigError, match=message):
        config.parse_config(bindings=binding)


@pytest.mark.parametrize(
    'binding',
    [
        'train.num_steps = 1e6', 'Trainer.learning_rate = 1', 'Trainer.grad_clip_norm = None',
        'Trainer.grad_clip_norm = 3', 'n = 8\ntrain.batch_size = %n', 'Harmonic.scale_fn = @core.exp_sigmoid',
        'Autoencoder.decoder = None', "SpectralLoss.loss_type = 'L2'", 'exp_sigmoid.max_value = 2',
        "Dense.units = 'keras checks its own'", "Reverb.name = 'room'",
    ],
)  # fmt: skip
def test_a_value_that_fits_is_taken(binding):
    config.parse_config(bindings=binding)
