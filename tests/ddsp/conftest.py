"""Fixtures for the library's tests, on any Keras backend."""

from __future__ import annotations

from collections.abc import Callable

import keras
import numpy as np
import pytest


def _tensorflow_gradient(function: Callable, inputs: list) -> tuple:
    import tensorflow as tf

    inputs = [tf.constant(x) for x in inputs]
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        value = function(*inputs)
    return value, tape.gradient(value, inputs, unconnected_gradients='zero')


def _jax_gradient(function: Callable, inputs: list) -> tuple:
    import jax

    # Compiled as a whole: operation by operation, JAX compiles hundreds of small programs.
    evaluate = jax.jit(jax.value_and_grad(function, argnums=tuple(range(len(inputs)))))
    return evaluate(*map(jax.numpy.asarray, inputs))


def _torch_gradient(function: Callable, inputs: list) -> tuple:
    import torch

    inputs = [torch.tensor(x, requires_grad=True) for x in inputs]
    value = function(*inputs)
    value.backward()
    return value, [torch.zeros_like(x) if x.grad is None else x.grad for x in inputs]


@pytest.fixture(scope='session')
def value_and_gradients() -> Callable:
    """`(function, *arrays) -> (value, [gradient for each array])` of a scalar function, in numpy."""
    gradient = {'tensorflow': _tensorflow_gradient, 'jax': _jax_gradient, 'torch': _torch_gradient}
    backend = gradient[keras.backend.backend()]

    def evaluate(function: Callable, *arrays: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
        value, gradients = backend(function, [np.asarray(x, np.float32) for x in arrays])
        return keras.ops.convert_to_numpy(value), [keras.ops.convert_to_numpy(g) for g in gradients]

    return evaluate


@pytest.fixture(scope='session')
def compiled() -> Callable:
    """`function -> function` compiled by XLA; on PyTorch a test that compiles is skipped."""
    backend = keras.backend.backend()
    if backend == 'tensorflow':
        import tensorflow as tf

        return lambda function: tf.function(function, jit_compile=True, autograph=False)
    if backend == 'jax':
        import jax

        return jax.jit
    return lambda function: pytest.skip('the library is not yet made for torch.compile: PyTorch runs eagerly')


TINY_MODEL = [
    'RnnFcDecoder.rnn_channels = 16',
    'RnnFcDecoder.ch = 16',
    'RnnFcDecoder.layers_per_stack = 1',
    "RnnFcDecoder.output_splits = (('amps', 1), ('harmonic_distribution', 8), ('noise_magnitudes', 9))",
    'F0LoudnessPreprocessor.compute_loudness = False',
    'SpectralLoss.fft_sizes = (512, 128)',
    'Reverb.reverb_length = 400',
]


def _tone(rng: np.random.Generator, secs: float, sample_rate: int, frame_rate: int) -> dict[str, np.ndarray]:
    """An example: a harmonic tone with vibrato and changing loudness."""
    from ddsp.analysis.loudness import loudness_db

    time = np.arange(int(secs * sample_rate)) / sample_rate
    f0 = 220 * 2 ** rng.uniform(-1, 1) * 2 ** (0.02 * np.sin(2 * np.pi * 5 * time))
    level = 0.05 + 0.2 * np.abs(np.sin(2 * np.pi * rng.uniform(0.3, 1) * time))
    phase = 2 * np.pi * np.cumsum(f0) / sample_rate
    audio = level * sum(np.sin(h * phase) / h**1.5 for h in range(1, 7))
    audio = (audio + 1e-3 * rng.normal(size=time.size)).astype(np.float32)
    n_frames = int(secs * frame_rate)
    return {
        'audio': audio,
        'f0_hz': f0[:: sample_rate // frame_rate][:n_frames],
        'f0_confidence': np.ones(n_frames),
        'loudness_db': loudness_db(audio, sample_rate, frame_rate)[:n_frames],
    }


@pytest.fixture(scope='session')
def write_tone_dataset() -> Callable:
    """`(root, train=8, test=3, secs=1.0) -> ddsp.io.dataset.Dataset` of tones whose pitch is known."""
    import hashlib
    import json

    import tensorflow as tf

    from ddsp.io.dataset import open_dataset

    def write(root, train: int = 8, test: int = 3, secs: float = 1.0, sample_rate: int = 16000):
        rng = np.random.default_rng(0)
        folder = root / 'tones' / '1.0.0'
        folder.mkdir(parents=True)
        splits = {}
        for split, count in (('train', train), ('test', test)):
            files = []
            for shard in range(2):
                path = folder / f'tones-{split}.tfrecord-{shard:05d}-of-00002'
                numbers = range(shard, count, 2)
                with tf.io.TFRecordWriter(str(path)) as writer:
                    for _ in numbers:
                        features = {
                            key: tf.train.Feature(float_list=tf.train.FloatList(value=value))
                            for key, value in _tone(rng, secs, sample_rate, 250).items()
                        }
                        example = tf.train.Example(features=tf.train.Features(feature=features))
                        writer.write(example.SerializeToString())
                content = path.read_bytes()
                digest = hashlib.sha256(content).hexdigest()
                files.append(
                    {'name': path.name, 'bytes': len(content), 'sha256': digest, 'examples': len(numbers)}
                )
            splits[split] = {'examples': count, 'files': files}
        pitch = {
            'mean': 57.0,
            'std': 7.0,
            'min': 45.0,
            'max': 69.0,
            'quantiles': np.linspace(45, 69, 101).tolist(),
        }
        loudness = {'mean': -20.0, 'std': 8.0, 'min': -60.0, 'max': 0.0}
        loudness['quantiles'] = np.linspace(-60, 0, 101).tolist()
        statistics = {'voiced_share': 1.0, 'loudness_db': loudness, 'pitch_midi': pitch}
        statistics = {'schema_version': 1, 'splits': dict.fromkeys(splits, statistics)}
        (folder / 'statistics.json').write_text(json.dumps(statistics))
        manifest = {
            'schema_version': 1, 'name': 'tones', 'version': '1.0.0', 'sample_rate': sample_rate,
            'frame_rate': 250, 'example_secs': secs, 'hop_secs': secs, 'centered': False,
            'alignment': 'center', 'f0_estimator': 'yin', 'splits': splits, 'files': {},
        }  # fmt: skip
        (folder / 'MANIFEST.json').write_text(json.dumps(manifest))
        return open_dataset(folder)

    return write


@pytest.fixture(scope='session')
def tone_dataset(tmp_path_factory, write_tone_dataset):
    """A dataset directory of eight training and three test tones of a second each."""
    return write_tone_dataset(tmp_path_factory.mktemp('tones'))


@pytest.fixture(scope='session')
def configure_tiny(tone_dataset) -> Callable:
    """`(*bindings)`: sets the configuration of a very small solo instrument for `tone_dataset`."""
    from ddsp.training import config, rates

    def configure(*bindings: str) -> None:
        files = ['models/solo_instrument.gin', 'optimization/base.gin']
        tiny = [*TINY_MODEL, 'batch_size = 4', 'Trainer.lr_warmup_steps = 0']  # a few steps must do something
        config.parse_config(files, [*tiny, *bindings])
        rates.configure_for_dataset(tone_dataset)

    return configure


@pytest.fixture(scope='session')
def tiny_bundle(tmp_path_factory, tone_dataset, configure_tiny):
    """A bundle of the tiny model after some training."""
    from ddsp import inference
    from ddsp.training import data, models, train_util, trainers

    configure_tiny('learning_rate = 3e-3', "Trainer.learning_rate_scales = {'reverb': 0.02}")
    keras.utils.set_random_seed(0)
    model = models.get_model()
    trainer = trainers.Trainer(model, train_util.get_strategy())
    provider = data.DatasetProvider(tone_dataset, 'train')
    train_util.train(provider, trainer, num_steps=60, save_dir='', restore_dir=None)
    folder = tmp_path_factory.mktemp('model') / 'bundle'
    return inference.load_bundle(inference.save_bundle(folder, model, tone_dataset, metrics={'loss': 1.0}))


@pytest.fixture(scope='session')
def tone_features() -> dict[str, np.ndarray]:
    """A tone of one second that is in no dataset: its features and its audio."""
    return _tone(np.random.default_rng(7), 1.0, 16000, 250)


@pytest.fixture(scope='session')
def tone_audio(tone_features) -> np.ndarray:
    """The audio of that tone [16000]."""
    return tone_features['audio']
