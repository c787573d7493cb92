"""Noise: white, and the same numbers for the same key on every backend."""

import keras
import numpy as np
import pytest

from ddsp import core

pytestmark = pytest.mark.portable

KEYS = ([3, 7], [3, 8], [4, 7], [0, 0], [-5, 1])


class _Key:
    """Stands where a seed generator does."""

    def __init__(self, key):
        self.key = key

    def next(self):
        return keras.ops.convert_to_tensor(self.key, dtype='int32')


def _draw(shape, seed):
    return np.array(keras.ops.convert_to_numpy(core.uniform_noise(shape, seed)))


def test_noise_goes_on_where_other_noise_ended():
    whole = _draw([1, 1000], 5)
    rest = keras.ops.convert_to_numpy(core.uniform_noise([1, 400], 5, first=600))
    np.testing.assert_array_equal(rest, whole[:, 600:])


def test_a_seed_has_the_same_numbers_everywhere():
    expected = [-0.922806, -0.32129538, 0.9505639]
    np.testing.assert_array_equal(_draw([4, 10000], 1)[0, :3], np.float32(expected))
    np.testing.assert_array_equal(_draw([10], 1), _draw([2, 5], 1).ravel())
    np.testing.assert_array_equal(_draw([10], 1), _draw([10], _Key([1, 0])))


@pytest.mark.parametrize('key', KEYS)
def test_it_is_white_and_uniform(key):
    noise = _draw([16, 16384], _Key(key))
    assert -1.0 <= noise.min() < -0.9999
    assert 0.9999 < noise.max() < 1.0
    counts = np.histogram(noise, 64, (-1, 1))[0]
    assert np.sum((counts - 4096) ** 2 / 4096) < 120  # chi square with 63 degrees of freedom: p = 1e-5
    power = np.mean(np.abs(np.fft.rfft(noise, axis=1)) ** 2, axis=0) / (16384 / 3)
    assert abs(power[1:-1].mean() - 1) < 0.02
    assert power[1:-1].max() < 3.2  # mean of 16 exponentials: once in 10^6 above
    assert abs(np.corrcoef(noise[0], noise[1])[0, 1]) < 0.04


def test_keys_that_are_near_have_noise_that_is_not():
    draws = [_draw([65536], _Key(key)) for key in KEYS]
    correlations = np.corrcoef(draws) - np.eye(len(KEYS))
    assert np.abs(correlations).max() < 0.02
    shifted = [np.corrcoef(draws[0][n:], draws[2][: 65536 - n])[0, 1] for n in range(1, 30)]
    assert np.abs(shifted).max() < 0.02


def test_a_compiled_function_draws_the_same():
    if keras.backend.backend() == 'tensorflow':
        import tensorflow as tf

        drawn = tf.function(lambda key: core.uniform_noise([2, 500], _Key(key)), jit_compile=True)([3, 7])
    elif keras.backend.backend() == 'jax':
        import jax

        drawn = jax.jit(lambda key: core.uniform_noise([2, 500], _Key(key)))(np.array([3, 7], np.int32))
    else:
        pytest.skip('nothing is compiled')
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(drawn), _draw([2, 500], _Key([3, 7])))
