"""Noise of a step: the same whenever the step is made, and no trace of it in the layers."""

import copy
import pickle

import keras
import numpy as np
import pytest
from keras import ops

from ddsp import effects, synths
from ddsp.training import models, train_util, trainers
from ddsp.training.steps.seeds import StepSeeds


class NoiseModel(models.Model):
    def __init__(self):
        super().__init__()
        self.dense = keras.layers.Dense(5)
        self.noise = synths.FilteredNoise(n_samples=64, window_size=0)
        self.reverb = effects.ExpDecayReverb(trainable=True, reverb_length=16, seed=None)

    def call(self, features, training=False):
        audio = self.reverb(self.noise(self.dense(features['x'])))
        self._book.losses['loss'] = ops.mean(ops.abs(audio - features['audio']))
        return {'audio': audio}


@pytest.fixture(scope='module')
def trainer():
    trainer = trainers.Trainer(NoiseModel(), train_util.get_strategy())
    trainer.train_step({'x': np.ones([2, 4, 3], np.float32), 'audio': np.ones([2, 64], np.float32)})
    return trainer


@pytest.mark.parametrize('name', ['noise', 'reverb'])
def test_processors_of_a_trained_model_are_saved_and_copied(trainer, name):
    processor = getattr(trainer.model, name)
    saved = keras.saving.serialize_keras_object(processor)
    for again in (
        type(processor).from_config(processor.get_config()),
        keras.saving.deserialize_keras_object(saved),
        copy.deepcopy(processor),
        pickle.loads(pickle.dumps(processor)),
    ):
        assert again.seed is None
        assert again.get_config() == processor.get_config()


def test_noise_depends_on_seed_step_part_and_draw():
    noise = synths.FilteredNoise(n_samples=64, window_size=0)
    magnitudes = np.zeros([1, 4, 5], np.float32)

    def draw(seed, *at, draws=1):
        with StepSeeds(seed).at(*at):
            return [np.asarray(noise(magnitudes)) for _ in range(draws)][-1]

    cases = [(0, 3), (1, 3), (0, 4), (0, 3, 1), (0, 3, 2)]
    found = [draw(*case) for case in cases] + [draw(0, 3, draws=2)]
    for i, one in enumerate(found):
        for other in found[:i]:
            assert np.any(one != other)
    for case, one in zip(cases, found, strict=False):
        np.testing.assert_array_equal(draw(*case), one)
    assert np.any(np.asarray(noise(magnitudes)) != np.asarray(noise(magnitudes)))  # outside: new each time


def test_parts_of_a_batch_have_the_rows_of_its_noise():
    noise = synths.FilteredNoise(n_samples=64, window_size=0)
    magnitudes = np.zeros([6, 4, 5], np.float32)
    with StepSeeds(0).at(3):
        whole = np.asarray(noise(magnitudes))
    for number in range(3):
        with StepSeeds(0).at(3, number):
            np.testing.assert_array_equal(noise(magnitudes[:2]), whole[2 * number : 2 * number + 2])
