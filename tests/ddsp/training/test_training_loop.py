"""The trainer and its loop: learning, resuming, stopping, devices."""

import os
import pathlib
import signal
import subprocess
import sys
import textwrap

import keras
import numpy as np
import pytest
import tensorflow as tf

from ddsp.errors import ConfigError
from ddsp.io.dataset import DatasetError
from ddsp.training import checkpoints, data, models, train_util, trainers
from ddsp.training.trainers import NonFiniteError

ROOT = pathlib.Path(__file__).resolve().parents[3]


class Recorder(train_util.TrainingCallback):
    """Keeps what it is told."""

    def __init__(self, stop_at=None):
        self.events, self.losses, self.summaries, self.stop_at = [], {}, [], stop_at

    def on_train_begin(self, *, start_step, num_steps, save_dir, gin_config):
        self.events.append(('begin', start_step))

    def on_step(self, step):
        if step == self.stop_at:
            os.kill(os.getpid(), signal.SIGINT)

    def on_summary(self, step, metrics):
        self.losses[step] = metrics['losses/total_loss']
        self.summaries.append(metrics)

    def on_save(self, step, checkpoint):
        self.events.append(('save', step))

    def on_train_end(self, step, reason):
        self.events.append((reason, step))


def _train(configure_tiny, dataset, save_dir='', recorder=None, bindings=(), **kwargs):
    configure_tiny('learning_rate = 3e-3', *bindings)
    keras.utils.set_random_seed(0)
    model = models.get_model()
    trainer = trainers.Trainer(model, train_util.get_strategy())
    recorder = recorder or Recorder()
    settings = {'num_steps': 6, 'steps_per_summary': 1, 'steps_per_save': 3, 'restore_dir': None} | kwargs
    provider = data.DatasetProvider(dataset, 'train')
    train_util.train(provider, trainer, save_dir=str(save_dir), callbacks=[recorder], **settings)
    return trainer, recorder


@pytest.fixture(scope='module')
def shared(configure_tiny, tone_dataset):
    """A trainer that is compiled already, for tests that do not look at its weights."""
    trainer, _ = _train(configure_tiny, tone_dataset, num_steps=1)
    return trainer


def _go_on(trainer, dataset, recorder, steps=2, **kwargs):
    provider = data.DatasetProvider(dataset, 'train')
    settings = {
        'num_steps': trainer.step + steps,
        'steps_per_summary': 1,
        'save_dir': '',
        'restore_dir': None,
    }
    return train_util.train(provider, trainer, batch_size=4, callbacks=[recorder], **settings | kwargs)


def test_one_example_is_learned(configure_tiny, tone_dataset):
    configure_tiny('learning_rate = 1e-2')
    keras.utils.set_random_seed(1)
    model = models.get_model()
    trainer = trainers.Trainer(model, train_util.get_strategy(), learning_rate_scales={'reverb': 0.01})
    batch = next(iter(data.DatasetProvider(tone_dataset, 'train').get_batch(1, shuffle=False)))
    losses = [float(trainer.train_step(batch)['total_loss']) for _ in range(100)]
    assert np.mean(losses[-10:]) < losses[0] / 3


@pytest.mark.parametrize(
    'bindings',
    [
        ('Trainer.accumulate_steps = 2', 'Trainer.average_decay = 0.9', "Trainer.lr_schedule = 'cosine'"),
        pytest.param((), marks=pytest.mark.slow),
        pytest.param(('Trainer.jit_compile = True',), marks=pytest.mark.slow),
        pytest.param(("Trainer.precision = 'mixed_bfloat16'",), marks=pytest.mark.slow),
    ],
)
def test_interrupted_and_resumed_is_bit_for_bit_uninterrupted(
    configure_tiny, tone_dataset, tmp_path, bindings
):
    whole, recorded = _train(configure_tiny, tone_dataset, bindings=bindings)
    first = Recorder(stop_at=2)
    with pytest.raises(
        train_util.Interrupted, match=r'after 2 steps: saved in .*goes on from there'
    ) as error:
        _train(configure_tiny, tone_dataset, tmp_path, first, bindings)
    assert error.value.exit_code == 130
    assert first.events == [('begin', 0), ('save', 2), ('interrupted', 2)]
    resumed, second = _train(configure_tiny, tone_dataset, tmp_path, bindings=bindings)
    assert second.events[0] == ('begin', 2)
    assert second.events[-2:] == [('save', 6), ('done', 6)]
    for a, b in zip(whole.model.weights, resumed.model.weights, strict=True):
        np.testing.assert_array_equal(a, b, err_msg=a.path)
    assert {step: recorded.losses[step] for step in second.losses} == second.losses
    assert (tmp_path / 'operative_config-6.gin').read_text().count('Trainer.learning_rate') >= 1


def test_metrics_have_the_names_that_are_tracked(shared, tone_dataset):
    recorder = Recorder()
    _go_on(shared, tone_dataset, recorder)
    metrics = recorder.summaries[-1]
    assert set(metrics) == {
        'losses/total_loss', 'losses/spectral_loss', 'losses/spectral_loss_512', 'losses/spectral_loss_128',
        'optimizer/gradient_norm', 'optimizer/learning_rate', 'energy/harmonic_db', 'energy/noise_db',
        'energy/target_db',
        'speed/steps_per_sec', 'speed/audio_secs_per_sec', 'speed/data_wait_share',
    }  # fmt: skip
    parts = metrics['losses/spectral_loss_512'] + metrics['losses/spectral_loss_128']
    assert metrics['losses/total_loss'] == pytest.approx(parts, rel=1e-5)
    assert metrics['speed/audio_secs_per_sec'] == pytest.approx(4 * metrics['speed/steps_per_sec'])


def test_a_damaged_newest_checkpoint_falls_back(shared, tone_dataset, tmp_path, capsys):
    _go_on(shared, tone_dataset, Recorder(), save_dir=str(tmp_path), steps_per_save=1)
    newest = shared.step
    next(tmp_path.glob(f'ckpt-{newest}.data*')).write_bytes(b'no')
    recorder = Recorder()
    _go_on(shared, tone_dataset, recorder, steps=0, save_dir=str(tmp_path))
    assert recorder.events[0] == ('begin', newest - 1)
    assert f'ckpt-{newest} cannot be read' in capsys.readouterr().out


def test_a_checkpoint_of_another_model_is_refused(shared, configure_tiny, tone_dataset, tmp_path):
    shared.save(tmp_path)
    configure_tiny('RnnFcDecoder.ch = 24')
    trainer = trainers.Trainer(models.get_model(), train_util.get_strategy())
    with pytest.raises(checkpoints.CheckpointError, match='no checkpoint can be read'):
        _go_on_unbuilt(trainer, tone_dataset, tmp_path)


def _go_on_unbuilt(trainer, dataset, directory):
    provider = data.DatasetProvider(dataset, 'train')
    train_util.train(provider, trainer, num_steps=1, save_dir=str(directory))


def test_early_stop(shared, tone_dataset):
    recorder = Recorder()
    assert _go_on(shared, tone_dataset, recorder, early_stop_loss_value=1e9) == 'early_stop'
    assert recorder.events[-1][0] == 'early_stop'


def test_a_second_training_in_a_finished_folder_has_nothing_to_do(shared, tone_dataset, tmp_path):
    recorder = Recorder()
    _go_on(shared, tone_dataset, recorder, steps=0, save_dir=str(tmp_path))
    assert [event for event, _ in recorder.events] == ['begin', 'save', 'done']


def test_too_few_examples_are_named(shared, tone_dataset):
    class OnePass(data.DatasetProvider):
        def get_batch(self, batch_size, **kwargs):
            return super().get_batch(batch_size, repeats=1)

    with pytest.raises(ConfigError, match='fewer than batch_size = 4 examples'):
        train_util.train(OnePass(tone_dataset, 'test'), shared, batch_size=4, save_dir='')


@pytest.mark.parametrize('name', ['batch_size', 'steps_per_summary', 'steps_per_save'])
def test_numbers_of_steps_and_examples_are_above_0(shared, tone_dataset, name):
    settings = {'batch_size': 4, 'num_steps': 1, 'save_dir': '', name: 0}
    with pytest.raises(ConfigError, match=rf'train\.{name} is 0; it must be above 0; the least is 1'):
        train_util.train(data.DatasetProvider(tone_dataset, 'train'), shared, **settings)


def test_a_model_without_losses_is_not_trained(configure_tiny, tone_dataset):
    configure_tiny('Autoencoder.losses = []')
    trainer = trainers.Trainer(models.get_model(), train_util.get_strategy())
    with pytest.raises(ConfigError, match=r'Autoencoder\.losses is empty'):
        train_util.train(data.DatasetProvider(tone_dataset, 'train'), trainer, batch_size=4, save_dir='')


def test_a_corrupt_record_ends_the_training_with_its_file(shared, tmp_path, write_tone_dataset):
    dataset = write_tone_dataset(tmp_path)
    path = tmp_path / 'tones' / '1.0.0' / 'tones-train.tfrecord-00000-of-00002'
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(DatasetError, match=r'tones-train.tfrecord-00000-of-00002 is damaged'):
        _go_on(shared, dataset, Recorder())


def test_not_a_number_stops_and_says_which_tensor(shared, tone_dataset):
    batch = dict(next(iter(data.DatasetProvider(tone_dataset, 'train').get_batch(4))))
    batch['loudness_db'] = tf.fill(batch['loudness_db'].shape, np.float32(np.nan))
    with pytest.raises(NonFiniteError, match=r'not finite: .*feature loudness_db'):
        shared.train_step(batch)
    assert all(np.all(np.isfinite(weight)) for weight in shared.model.weights)


def test_a_part_of_the_model_can_have_its_own_learning_rate(configure_tiny, tone_dataset):
    configure_tiny('learning_rate = 1e-3')
    model = models.get_model()
    trainer = trainers.Trainer(model, train_util.get_strategy(), learning_rate_scales={'reverb': 0.0})
    batch = next(iter(data.DatasetProvider(tone_dataset, 'train').get_batch(2)))
    trainer.build(batch)
    before = [weight.numpy() for weight in model.weights]
    trainer.train_step(batch)
    moved = {
        w.path.split('/')[-2]: np.any(w.numpy() != b) for w, b in zip(model.weights, before, strict=True)
    }
    assert not moved.pop('reverb')
    assert all(moved.values())


def test_the_gradient_is_clipped_and_the_rate_decays(configure_tiny, tone_dataset):
    configure_tiny()
    trainer = trainers.Trainer(
        models.get_model(), train_util.get_strategy(), learning_rate=0.1, lr_decay_steps=2, lr_decay_rate=0.25
    )
    batch = next(iter(data.DatasetProvider(tone_dataset, 'train').get_batch(2)))
    rates = [float(trainer.train_step_with_metrics(batch)['optimizer/learning_rate']) for _ in range(3)]
    np.testing.assert_allclose(rates, [0.1, 0.05, 0.025], rtol=1e-6)


def _script(body, tmp_path):
    path = tmp_path / 'script.py'
    path.write_text(textwrap.dedent(body))
    env = {**os.environ, 'PYTHONPATH': os.pathsep.join([str(ROOT), os.environ.get('PYTHONPATH', '')])}
    return [sys.executable, str(path)], env


def test_one_and_two_replicas_make_the_same_step(tone_dataset, tmp_path):
    command, env = _script(
        f"""
        import sys
        import keras, numpy as np, tensorflow as tf
        cpu = tf.config.list_physical_devices('CPU')[0]
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
        from ddsp.io.dataset import open_dataset
        from ddsp.training import config, data, models, rates, trainers
        dataset = open_dataset({str(tone_dataset.path)!r})
        results = []
        for strategy in (tf.distribute.get_strategy(), tf.distribute.MirroredStrategy(['CPU:0', 'CPU:1'])):
            config.parse_config(['models/solo_instrument.gin'], [
                'RnnFcDecoder.rnn_channels = 8', 'RnnFcDecoder.ch = 8', 'RnnFcDecoder.layers_per_stack = 1',
                "RnnFcDecoder.output_splits = (('amps', 1), ('harmonic_distribution', 4))",
                "ProcessorGroup.dag = [(@synths.Harmonic(), ['amps', 'harmonic_distribution', 'f0_hz'])]",
                'SpectralLoss.fft_sizes = (256,)', 'F0LoudnessPreprocessor.compute_loudness = False',
                'Trainer.grad_clip_norm = 0.01', 'Trainer.learning_rate = 0.01',
                'Trainer.accumulate_steps = 2', 'Trainer.average_decay = 0.5'])
            rates.configure_for_dataset(dataset)
            keras.utils.set_random_seed(0)
            with strategy.scope():
                model = models.get_model()
                trainer = trainers.Trainer(model, strategy)
            batches = trainer.distribute_dataset(data.DatasetProvider(dataset, 'train').get_batch(4))
            iterator = iter(batches)
            losses = [float(trainer.train_step(iterator)['total_loss']) for _ in range(3)]
            weights = [np.array(w.value) for w in model.weights]
            with trainer.averaged_weights():
                results.append((losses, weights + [np.array(w.value) for w in model.weights]))
            trainer.save({str(tmp_path)!r})
            trainer.restore({str(tmp_path)!r})
        (one, first), (two, second) = results
        # Logarithms of nearly silent bins magnify rounding, and Adam's first steps are signs of gradients.
        np.testing.assert_allclose(one, two, rtol=5e-4)
        for a, b in zip(first, second):
            assert np.mean(np.abs(a - b) > 1e-3) < 0.02, np.abs(a - b).max()
        print('same')
        """,
        tmp_path,
    )
    result = subprocess.run(command, env=env, capture_output=True, text=True, timeout=300)
    assert result.stdout.strip().endswith('same'), result.stderr[-3000:]


def test_sigterm_saves_and_has_its_own_code(shared, tone_dataset, tmp_path):
    class Terminate(Recorder):
        def on_step(self, step):
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(train_util.Interrupted) as error:
        _go_on(shared, tone_dataset, Terminate(), steps=50, save_dir=str(tmp_path))
    assert error.value.exit_code == 143
    assert checkpoints.has_checkpoint(tmp_path / f'ckpt-{shared.step}')
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
