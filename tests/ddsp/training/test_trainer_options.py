"""Options of the trainer and of the loop, each against what it says."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from ddsp.errors import ConfigError
from ddsp.training import checkpoints, data, models, optimizers, states, train_util, trainers

# Without noise, which differs between the parts of a batch.
QUIET = (
    "ProcessorGroup.dag = [(@synths.Harmonic(), ['amps', 'harmonic_distribution', 'f0_hz'])]",
    'SpectralLoss.fft_sizes = (256,)', 'Trainer.learning_rate = 0.003',
)  # fmt: skip


@pytest.fixture(scope='module')
def batch(tone_dataset):
    """Four examples."""
    return dict(next(iter(data.DatasetProvider(tone_dataset, 'train').get_batch(4, shuffle=False))))


@pytest.fixture
def make(configure_tiny):
    """`(*bindings, **options)`: a trainer of a model that always begins with the same weights."""

    def make(*bindings, **options):
        configure_tiny(*(bindings or QUIET))
        keras.utils.set_random_seed(0)
        return trainers.Trainer(models.get_model(), train_util.get_strategy(), **options)

    return make


def _weights(trainer):
    return [w.numpy() for w in trainer.model.trainable_variables]


def _run(trainer, batch, steps=2):
    return [float(trainer.train_step(batch)['total_loss']) for _ in range(steps)]


def test_accumulated_and_compiled_steps_are_the_plain_step(make, batch):
    plain, parts, compiled = make(), make(accumulate_steps=2), make(jit_compile=True)
    losses = _run(plain, batch)
    np.testing.assert_allclose(_run(parts, batch), losses, rtol=1e-4)
    np.testing.assert_allclose(_run(compiled, batch), losses, rtol=1e-4)
    for a, b, c in zip(_weights(plain), _weights(parts), _weights(compiled), strict=True):
        # Adam's first steps are signs of gradients: where one is nearly zero rounding decides.
        assert np.mean(np.abs(a - b) > 2e-4) < 0.02
        assert np.mean(np.abs(a - c) > 2e-4) < 0.02
    with pytest.raises(ConfigError, match='accumulate_steps is 3, which does not divide the 4 examples'):
        make(accumulate_steps=3).build(batch)


def test_a_compiled_step_with_noise_is_reproducible_and_the_plain_one(make, batch):
    bindings = ('SpectralLoss.fft_sizes = (256,)',)
    compiled = make(*bindings, jit_compile=True)
    compiled.build(batch)
    start = [v.numpy() for v in [*compiled.model.variables, *compiled.optimizer.variables]]
    losses = _run(compiled, batch, 1)
    for variable, value in zip(
        [*compiled.model.variables, *compiled.optimizer.variables], start, strict=True
    ):
        variable.assign(value)
    assert _run(compiled, batch, 1) == losses
    np.testing.assert_allclose(losses, _run(make(*bindings), batch, 1), rtol=1e-4)


def test_bfloat16_products_have_the_same_curve_and_float32_weights(make, batch):
    bindings = (*QUIET, 'RnnFcDecoder.ch = 32', 'RnnFcDecoder.rnn_channels = 32')
    exact, mixed = (make(*bindings, precision=p) for p in ('float32', 'mixed_bfloat16'))
    a, b = _run(exact, batch, 8), _run(mixed, batch, 8)
    assert a != b
    np.testing.assert_allclose(b, a, rtol=0.03)
    assert {w.dtype for w in _weights(mixed)} == {np.dtype(np.float32)}
    outputs = mixed.model(batch, training=False)
    assert outputs['audio_synth'].dtype == outputs['f0_hz'].dtype == tf.float32


def test_the_average_follows_the_weights_and_is_what_remains(make, batch, tmp_path):
    trainer = make(average_decay=0.5)
    trainer.build(batch)
    expected = _weights(trainer)
    for step in range(3):
        trainer.train_step(batch)
        decay = min(0.5, (1 + step) / (10 + step))
        expected = [decay * e + (1 - decay) * w for e, w in zip(expected, _weights(trainer), strict=True)]
    trained = _weights(trainer)
    with trainer.averaged_weights():
        for a, b in zip(_weights(trainer), expected, strict=True):
            np.testing.assert_allclose(a, b, atol=1e-6)
        trainer.save(tmp_path)  # a checkpoint holds both, each in its place
    trainer.finish()
    trainer.restore(tmp_path)
    for a, b in zip(_weights(trainer), trained, strict=True):
        np.testing.assert_array_equal(a, b)
    trainer.finish()
    assert any(np.any(a != b) for a, b in zip(_weights(trainer), trained, strict=True))
    with pytest.raises(ConfigError, match=r'average_decay is 1\.0; it must lie between 0 and 1'):
        make(average_decay=1.0)


def test_a_checkpoint_is_the_state_when_it_was_taken(make, batch, tmp_path):
    trainer = make()
    _run(trainer, batch, 1)
    taken = _weights(trainer)
    prefix = trainer.save(tmp_path, wait=False)
    _run(trainer, batch, 1)  # while it is being written
    trainer.wait_for_save()
    assert trainer.restore(tmp_path) == prefix
    assert trainer.step == 1
    for a, b in zip(_weights(trainer), taken, strict=True):
        np.testing.assert_array_equal(a, b)
    with pytest.raises(ConfigError, match="restore_keys names 'nothing', which is no part of the model"):
        trainer.restore(tmp_path, ['nothing'])
    (tmp_path / 'file').write_text('')
    trainer.save(tmp_path / 'file' / 'no', wait=False)
    with pytest.raises(checkpoints.CheckpointError, match='cannot be written'):
        trainer.wait_for_save()


def test_a_script_may_write_checkpoints_of_its_own_on_tensorflow(make, batch, tmp_path, monkeypatch):
    trainer = make(average_decay=0.5)
    _run(trainer, batch, 1)
    taken = states.State(trainer.model, trainer.optimizer, trainer.averages.variables).copy()
    prefix = trainer.get_checkpoint().write(str(tmp_path / 'mine'))
    _run(trainer, batch, 1)
    assert trainer.restore(prefix) == prefix
    found = states.State(trainer.model, trainer.optimizer, trainer.averages.variables).copy()
    assert found.keys() == taken.keys()
    for name, value in taken.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)
    monkeypatch.setattr(keras.backend, 'backend', lambda: 'jax')
    with pytest.raises(ConfigError, match='get_checkpoint needs KERAS_BACKEND=tensorflow'):
        trainer.get_checkpoint()


def test_schedules():
    rates = {
        kind: [float(optimizers.make_schedule(kind, 0.1, 10, 0.5, 0)(step)) for step in (0, 5, 10, 20)]
        for kind in optimizers.SCHEDULES
    }
    np.testing.assert_allclose(rates['exponential'], [0.1, 0.1 * 0.5**0.5, 0.05, 0.025], rtol=1e-5)
    np.testing.assert_allclose(rates['cosine'], [0.1, 0.075, 0.05, 0.05], rtol=1e-5)
    np.testing.assert_allclose(rates['constant'], [0.1] * 4, rtol=1e-6)
    warm = optimizers.make_schedule('constant', 0.1, 1, 1.0, 4)
    np.testing.assert_allclose([float(warm(step)) for step in (0, 1, 9)], [0.025, 0.05, 0.1], rtol=1e-6)
    with pytest.raises(ConfigError, match="lr_schedule is 'linear'; it must be one of exponential, cosine"):
        optimizers.make_schedule('linear', 0.1, 1, 1.0, 0)


class _Losses(trainers.Trainer):
    """Has the losses that a test wants; steps and checkpoints are real ones."""

    wanted: list

    def train_step_with_metrics(self, inputs, stop=False):
        metrics = super().train_step_with_metrics(inputs, stop)
        return {**metrics, 'losses/total_loss': tf.constant(self.wanted[self.step - 1])}


def test_patience_and_the_best_checkpoint(make, tone_dataset, tmp_path, configure_tiny):
    def trainer():
        configure_tiny(*QUIET)
        found = _Losses(models.get_model(), train_util.get_strategy(), checkpoints_to_keep=1)
        found.wanted = [5.0, 3.0, 4.0, 2.99, 4.0, 4.0, 4.0]
        return found

    def train(steps):
        return train_util.train(
            data.DatasetProvider(tone_dataset, 'train'), trainer(), batch_size=4, num_steps=steps,
            steps_per_summary=1, steps_per_save=1, save_dir=str(tmp_path), early_stop_patience=3,
            early_stop_min_delta=0.1, keep_best=True,
        )  # fmt: skip

    assert train(3) == 'done'
    # 2.99 is not better by 0.1; what happened before the restart counts.
    assert train(7) == 'early_stop'
    steps = [checkpoints.checkpoint_step(p) for p in checkpoints.list_checkpoints(tmp_path)]
    assert steps == [5, 2]
    last = json.loads((tmp_path / 'best.jsonl').read_text().splitlines()[-1])
    assert (last['step'], last['value'], last['stale']) == (2, 3.0, 3)


def test_what_was_not_finite_is_saved(make, tone_dataset, tmp_path):
    class Broken(data.DatasetProvider):
        def get_batch(self, *args, **kwargs):
            nan = np.float32(np.nan)
            return super().get_batch(*args, **kwargs).map(lambda b: {**b, 'f0_hz': b['f0_hz'] * nan})

    with pytest.raises(trainers.NonFiniteError, match=r'feature f0_hz.*these tensors are in .*non_finite-'):
        train_util.train(Broken(tone_dataset, 'train'), make(), batch_size=4, save_dir=str(tmp_path))
    saved = np.load(next(tmp_path.glob('non_finite-*.npz')))
    assert np.isnan(saved['feature f0_hz']).all()
    assert np.isfinite(saved['feature audio']).all()
    assert checkpoints.has_checkpoint(tmp_path)
