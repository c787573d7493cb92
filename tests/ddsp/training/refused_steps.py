"""Shows that a step that is not finite changes nothing; run as a script for other devices and backends.

python refused_steps.py mirrored | jax | worker FOLDER
"""

import sys

import keras
import numpy as np
import pytest
from keras import ops

from ddsp.training import models, train_util, trainers

# What the loss of an example does, by its feature `fault`.
FAULTS = {
    'loss': 1.0,  # is NaN, with finite gradients
    'infinite loss': 2.0,  # is infinite, with finite gradients
    'gradient': 3.0,  # is finite, with NaN gradients
    'both': 4.0,
}


class Line(models.Model):
    """A linear layer whose loss can be broken at will."""

    def __init__(self):
        super().__init__()
        self.dense = keras.layers.Dense(3)

    def call(self, features, training=False):
        out = self.dense(features['x'])
        loss = ops.mean(ops.square(out - 1.0))
        fault = ops.max(features['fault'])
        for name, value in (('loss', np.nan), ('infinite loss', np.inf)):
            loss = loss + ops.where(fault == FAULTS[name], np.float32(value), 0.0)
        # The slope of the root is infinite at 0, and infinity times 0 is not a number.
        loss = loss + ops.sqrt(ops.where(fault == FAULTS['gradient'], 0.0, 1.0) + 0.0 * ops.mean(out))
        loss = loss * ops.where(fault == FAULTS['both'], np.float32(np.nan), 1.0)
        self._book.losses['loss'] = loss
        return {'out': out}


def make(strategy=None, **options):
    """A trainer that always begins with the same weights."""
    keras.utils.set_random_seed(0)
    strategy = strategy or train_util.get_strategy()
    with strategy.scope():
        return trainers.get_trainer_class()(Line(), strategy, learning_rate=0.1, **options)


def batch_of(seed, fault=None, example=-1):
    """Four examples, one of them broken."""
    faults = np.zeros([4], np.float32)
    if fault is not None:
        faults[example] = FAULTS[fault]
    x = np.random.default_rng(seed).normal(size=[4, 5]).astype(np.float32)
    return {'x': x, 'fault': faults}


def state(trainer):
    """All that a step may change, on every device."""
    found = {'step': [np.asarray(trainer.step)]}
    for i, v in enumerate([*trainer.model.variables, *trainer.optimizer.variables]):
        found[f'variable {i}'] = _values(trainer, v.value)
    for i, v in enumerate(trainer.averages.variables):
        found[f'average {i}'] = _values(trainer, v)
    return found


def _values(trainer, variable):
    if keras.backend.backend() == 'jax':
        return [np.asarray(variable)]
    return [v.numpy() for v in trainer.strategy.experimental_local_results(variable)]


def assert_same(found, expected):
    """Bit for bit."""
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        for a, b in zip(found[name], values, strict=True):
            np.testing.assert_array_equal(a, b, err_msg=name)


def check(strategy=None, **options):
    """Two steps, broken ones that change nothing, and a third that is as if they had not been."""
    import tensorflow as tf

    trainer, undisturbed = make(strategy, **options), make(strategy, **options)

    def batch(*args):
        dataset = tf.data.Dataset.from_tensors(batch_of(*args))
        return next(iter(trainer.distribute_dataset(dataset)))

    for i in range(2):
        trainer.train_step(batch(i))
        undisturbed.train_step(batch(i))
    before = state(trainer)
    assert_same(before, state(undisturbed))
    for fault in FAULTS:
        for example in (0, -1):  # with two replicas, one of them is finite
            with pytest.raises(trainers.NonFiniteError, match='step 2: not finite: '):
                trainer.train_step(batch(7, fault, example))
            assert_same(state(trainer), before)
    for t in (trainer, undisturbed):
        t.train_step(batch(2))
    assert_same(state(trainer), state(undisturbed))
    assert trainer.step == 3
    return trainer


def main(kind, folder=''):
    """Runs the checks on other devices, or another backend."""
    import tensorflow as tf

    if kind == 'mirrored':
        cpu = tf.config.list_physical_devices('CPU')[0]
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
        for options in ({'average_decay': 0.9, 'accumulate_steps': 2}, {'jit_compile': True}):
            check(tf.distribute.MirroredStrategy(['CPU:0', 'CPU:1']), **options)
    elif kind == 'jax':
        check()
        check(accumulate_steps=2)
    else:
        check(train_util.get_strategy(strategy='multi_worker'), average_decay=0.9)
    print('unchanged')


if __name__ == '__main__':
    main(*sys.argv[1:])
