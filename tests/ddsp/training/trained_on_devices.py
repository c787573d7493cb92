"""Trains a small model on the devices that the environment describes, for test_devices.py.

python trained_on_devices.py STRATEGY DATASET FOLDER STEPS SAVE_EVERY [BINDING...]
"""

import os
import sys
import time
from typing import ClassVar

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from ddsp.errors import DDSPError
from ddsp.io.dataset import open_dataset
from ddsp.training import config, data, models, rates, train_util, trainers

strategy_name, path, folder, steps, save_every, *bindings = sys.argv[1:]
if strategy_name == 'mirrored' and keras.backend.backend() == 'tensorflow':
    (cpu,) = tf.config.list_physical_devices('CPU')
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    strategy = tf.distribute.MirroredStrategy(['CPU:0', 'CPU:1'])
else:
    strategy = train_util.get_strategy(strategy=strategy_name)
dataset = open_dataset(path)
config.parse_config(['models/solo_instrument.gin'], [
    'RnnFcDecoder.rnn_channels = 8', 'RnnFcDecoder.ch = 8', 'RnnFcDecoder.layers_per_stack = 1',
    "RnnFcDecoder.output_splits = (('amps', 1), ('harmonic_distribution', 4), ('noise_magnitudes', 5))",
    'SpectralLoss.fft_sizes = (256, 64)', 'F0LoudnessPreprocessor.compute_loudness = False',
    'Reverb.reverb_length = 800', 'Trainer.learning_rate = 0.001', *bindings,
])  # fmt: skip
rates.configure_for_dataset(dataset)
keras.utils.set_random_seed(0)
with strategy.scope():
    model = models.get_model()
    trainer = trainers.get_trainer_class()(model, strategy)


class Watcher(train_util.TrainingCallback):
    losses: ClassVar[list[float]] = []

    def on_step(self, step):
        print('STEP', step, flush=True)
        time.sleep(float(os.environ.get('PAUSE', '0')))

    def on_summary(self, step, metrics):
        self.losses.append(metrics['losses/total_loss'])


provider = data.DatasetProvider(dataset, 'train')
parsed = []
parse = provider._parse


def counting(record):
    tf.py_function(lambda: parsed.append(1), [], [])
    return parse(record)


provider._parse = counting
try:
    train_util.train(
        provider, trainer, batch_size=16, num_steps=int(steps), steps_per_summary=1,
        steps_per_save=int(save_every), save_dir=folder, restore_dir=folder, callbacks=[Watcher()],
    )  # fmt: skip
except (DDSPError, train_util.Interrupted) as error:
    print('STOPPED', error, flush=True)
    os._exit(getattr(error, 'exit_code', 1))
if trainer.is_chief:
    np.savez(
        f'{folder}/weights.npz', *[ops.convert_to_numpy(w) for w in model.trainable_variables],
        losses=np.array(Watcher.losses),
    )  # fmt: skip
print('DONE', len(parsed), flush=True)
