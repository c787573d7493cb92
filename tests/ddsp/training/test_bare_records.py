"""Training on TFRecords that ddsp 3.7.0 prepared: no manifest, the configuration says what is in them."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from ddsp.training import config, models, rates, train_util, trainers


class Losses(train_util.TrainingCallback):
    def __init__(self):
        self.seen = []

    def on_summary(self, step, metrics):
        self.seen.append(metrics['losses/total_loss'])


@pytest.fixture
def pattern(tmp_path, tone_features):
    """Two files with upstream's names and features, `audio_16k` among them; written by TensorFlow."""
    features = {name: np.asarray(values, np.float32) for name, values in tone_features.items()}
    features['audio_16k'] = features['audio']
    feature = {k: tf.train.Feature(float_list=tf.train.FloatList(value=v)) for k, v in features.items()}
    message = tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString()
    for i in range(2):
        with tf.io.TFRecordWriter(str(tmp_path / f'train.tfrecord-{i:05d}-of-00002')) as writer:
            for _ in range(3):
                writer.write(message)
    return str(tmp_path / 'train.tfrecord*')


def test_a_model_trains_on_bare_records_by_its_configuration(pattern):
    config.parse_config(
        ['models/solo_instrument.gin', 'datasets/tfrecord.gin', 'optimization/base.gin'],
        [
            f"TFRecordProvider.file_pattern = '{pattern}'", 'learning_rate = 3e-3', 'batch_size = 2',
            'train.num_steps = 4', 'train.steps_per_summary = 1', 'RnnFcDecoder.rnn_channels = 16',
            'RnnFcDecoder.ch = 16', 'RnnFcDecoder.layers_per_stack = 1', 'SpectralLoss.fft_sizes = (512,)',
            'F0LoudnessPreprocessor.compute_loudness = False', 'Reverb.reverb_length = 400',
        ],
    )  # fmt: skip
    rates.configure_rates(sample_rate=16000, frame_rate=250, example_secs=1.0)
    keras.utils.set_random_seed(0)
    trainer = trainers.Trainer(models.get_model(), train_util.get_strategy())
    losses = Losses()
    train_util.train(trainer=trainer, save_dir='', restore_dir=None, callbacks=[losses])  # no provider given
    assert len(losses.seen) >= 3
    assert losses.seen[-1] < losses.seen[0]
