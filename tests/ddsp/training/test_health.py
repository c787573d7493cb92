"""What a training says when the harmonic part has died."""

import keras
import pytest

from ddsp.training import config, data, models, rates, train_util, trainers
from ddsp.training.loop import HarmonicsWatch


def _levels(harmonic_db, target_db=-40.0):
    return {'energy/harmonic_db': harmonic_db, 'energy/target_db': target_db, 'losses/total_loss': 8.0}


def test_harmonics_that_stay_silent_are_told_once():
    watch = HarmonicsWatch()
    assert watch.check(20, _levels(-118.0)) == ''
    text = watch.check(40, _levels(-119.6))
    assert text.startswith('step 40: dead harmonics')
    assert '-120 dB where the recordings have -40 dB' in text
    assert 'Trainer.lr_warmup_steps' in text
    assert '\n' not in text
    assert watch.check(60, _levels(-120.0)) == ''


@pytest.mark.parametrize(
    'summaries',
    [
        [_levels(-118.0), _levels(-60.0), _levels(-118.0)],  # comes back
        [_levels(-120.0, -120.0)] * 3,  # silent recordings have no harmonics
        [{'losses/total_loss': 1.0}] * 3,  # no harmonic part
        [_levels(-90.0)] * 3,
    ],
)
def test_other_levels_are_not_told(summaries):
    watch = HarmonicsWatch()
    assert [watch.check(step, metrics) for step, metrics in enumerate(summaries)] == [''] * 3


def test_a_training_warns(configure_tiny, tone_dataset, capsys):
    configure_tiny('learning_rate = 1e-6')
    keras.utils.set_random_seed(0)
    trainer = trainers.Trainer(models.get_model(), train_util.get_strategy())
    provider = data.DatasetProvider(tone_dataset, 'train')
    trainer.build(next(iter(provider.get_batch(4))))
    bias = trainer.model.decoder.dense_out.bias  # amplitudes at the floor from the beginning
    bias.assign(keras.ops.where(keras.ops.arange(bias.shape[0]) == 0, -60.0, bias.value))

    def train(num_steps, **kwargs):
        settings = {'batch_size': 4, 'steps_per_summary': 1, 'save_dir': '', 'restore_dir': None}
        train_util.train(provider, trainer, num_steps=num_steps, **settings, **kwargs)

    train(4)
    assert capsys.readouterr().err.count('Warning: step 2: dead harmonics') == 1
    told = []
    train(8, warn=told.append)
    assert [text.split(':')[:2] for text in told] == [['step 6', ' dead harmonics']]


def test_published_configurations_warm_up():
    config.parse_config(['models/solo_instrument.gin', 'optimization/base.gin'], [])
    rates.configure_rates(16000, 250, 4.0)
    trainer = trainers.Trainer(models.get_model(), train_util.get_strategy())
    assert trainer.learning_rate == pytest.approx(3e-4 / 100)
