"""Training on JAX: the same losses as on TensorFlow, resumed bit for bit. Runs in processes of its own."""

import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip('jax')
ROOT = pathlib.Path(__file__).resolve().parents[3]

SCRIPT = """
import sys
import keras, numpy as np
from ddsp.io.dataset import open_dataset
from ddsp.training import config, data, models, rates, train_util, trainers

backend, dataset, folder = sys.argv[1], open_dataset(sys.argv[2]), sys.argv[3]
# Without noise, which differs between the parts of a batch; logarithms of silent bins show the least of it.
QUIET = ["ProcessorGroup.dag = [(@synths.Harmonic(), ['amps', 'harmonic_distribution', 'f0_hz'])]"]
QUIET = QUIET if len(sys.argv) > 4 else []
def make(*bindings):
    config.parse_config(['models/solo_instrument.gin'], [
        'RnnFcDecoder.rnn_channels = 8', 'RnnFcDecoder.ch = 20', 'RnnFcDecoder.layers_per_stack = 1',
        "RnnFcDecoder.output_splits = (('amps', 1), ('harmonic_distribution', 4), ('noise_magnitudes', 5))",
        'SpectralLoss.fft_sizes = (256,)', 'Reverb.reverb_length = 800', 'train.batch_size = 4',
        'F0LoudnessPreprocessor.compute_loudness = False', 'Trainer.learning_rate = 0.003',
        *QUIET, *bindings])
    rates.configure_for_dataset(dataset)
    keras.utils.set_random_seed(0)
    model = models.get_model()
    return trainers.get_trainer_class()(model, train_util.get_strategy())
assert keras.backend.backend() == backend
trainer = make()
batch = next(iter(data.DatasetProvider(dataset, 'train').get_batch(4, shuffle=False)))
trainer.build(batch)
path = folder + '/initial.weights.h5'
if backend == 'tensorflow':
    trainer.model.save_weights(path)
else:
    trainer.model.load_weights(path)
losses = [float(trainer.train_step(batch)['total_loss']) for _ in range(3)]
if sys.argv[4:] == ['all']:
    parts = make('Trainer.accumulate_steps = 2')
    parts.build(batch)
    parts.model.load_weights(path)
    accumulated = [float(parts.train_step(batch)['total_loss']) for _ in range(3)]
    np.testing.assert_allclose(accumulated, losses, rtol=1e-3)
    def train(steps, where):
        trainer = make()
        train_util.train(data.DatasetProvider(dataset, 'train'), trainer, num_steps=steps, save_dir=where,
                         restore_dir=where)
        return trainer
    whole = train(4, '')
    train(2, folder + '/run')
    resumed = train(4, folder + '/run')
    for a, b in zip(whole.model.weights, resumed.model.weights):
        np.testing.assert_array_equal(np.asarray(a.value), np.asarray(b.value), err_msg=a.path)
    before = [np.asarray(w.value) for w in resumed.model.weights]
    try:
        resumed.train_step({**batch, 'f0_hz': np.full_like(batch['f0_hz'], np.nan)})
    except trainers.NonFiniteError as error:
        assert 'feature f0_hz' in str(error), error
    else:
        raise AssertionError('no NonFiniteError')
    for a, b in zip(before, resumed.model.weights):
        np.testing.assert_array_equal(a, np.asarray(b.value))
    try:
        make('Trainer.average_decay = 0.9')
    except Exception as error:
        assert 'average_decay needs KERAS_BACKEND=tensorflow' in str(error), error
print('LOSSES', *losses)
"""


def _losses(backend, dataset, tmp_path, *more):
    script = tmp_path / 'script.py'
    script.write_text(SCRIPT)
    env = {**os.environ, 'PYTHONPATH': str(ROOT), 'KERAS_BACKEND': backend, 'JAX_PLATFORMS': 'cpu'}
    env |= {
        'JAX_COMPILATION_CACHE_DIR': str(tmp_path / 'cache'),
        'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0.5',
    }
    result = subprocess.run(
        [sys.executable, script, backend, dataset.path, tmp_path, *more],
        env=env, capture_output=True, text=True, timeout=900,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr[-3000:]
    return np.array(result.stdout.split('LOSSES')[1].split(), float)


def test_losses_are_those_of_tensorflow(tone_dataset, tmp_path):
    expected = _losses('tensorflow', tone_dataset, tmp_path)
    found = _losses('jax', tone_dataset, tmp_path)
    # The noise is the same; Adam's first steps are signs of gradients, where rounding may decide.
    np.testing.assert_allclose(found[:1], expected[:1], rtol=1e-4)
    np.testing.assert_allclose(found, expected, rtol=3e-3)


@pytest.mark.slow
def test_training_resumes_accumulates_and_stops_at_what_is_not_finite(tone_dataset, tmp_path):
    _losses('tensorflow', tone_dataset, tmp_path, 'quiet')  # the initial weights
    _losses('jax', tone_dataset, tmp_path, 'all')
