"""Functions of ddsp.core against numpy, scipy and closed forms."""

import inspect

import keras
import numpy as np
import pytest
import scipy.signal
import scipy.special
from keras import ops

from ddsp import core, spectral_ops

pytestmark = pytest.mark.portable
X = np.array([-1e3, -3.0, -0.5, 0.0, 0.25, 1.0, 4.0, 90.0], np.float32)
POSITIVE = np.array([1e-4, 0.03, 0.5, 1.0, 7.0, 440.0, 8000.0], np.float32)


def npy(x):
    return ops.convert_to_numpy(x)


def close(found, expected, rtol=1e-5, atol=1e-6):
    found = npy(found)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=rtol, atol=atol)


@pytest.mark.parametrize(
    ('name', 'arguments', 'expected'),
    [
        ('nan_to_num', [[np.nan, np.inf, -1.5], 7.0], [7.0, np.inf, -1.5]),
        ('safe_divide', [[1.0, 3.0, -2.0], [4.0, 0.0, -8.0], 0.5], [0.25, 6.0, 0.25]),
        ('safe_sqrt', [[-4.0, 0.0, 2.25]], [0.0, 0.0, 1.5]),
        ('log10', [POSITIVE], np.log10(POSITIVE)),
        ('log10', [[0.0, -1.0], 1e-3], [-3.0, -3.0]),
        ('logb', [POSITIVE, 3.0], np.emath.logn(3.0, POSITIVE)),
        ('log_scale', [[-1.0, 0.0, 0.5, 1.0], 2.0, 32.0], [2.0, 8.0, 16.0, 32.0]),
        ('soft_limit', [X, 0.0, 1.0], np.logaddexp(0.0, X) - np.logaddexp(0.0, X - 1.0)),
        ('soft_limit', [[-1e3, 1e3], 20.0, 80.0], [20.0, 80.0]),
        ('gradient_reversal', [X], X),
        ('exp_sigmoid', [X], 2.0 * scipy.special.expit(X) ** np.log(10.0) + 1e-7),
        ('exp_sigmoid', [X, 3.0, 5.0, 0.1], 5.0 * scipy.special.expit(X) ** np.log(3.0) + 0.1),
        ('sym_exp_sigmoid', [X, 6.0], 2 * scipy.special.expit(6 * (np.abs(X) / 2 - 1)) ** np.log(10) + 1e-7),
        ('db_to_power', [[-80.0, -3.0, 0.0, 20.0]], [1e-8, 10**-0.3, 1.0, 100.0]),
        ('db_to_amplitude', [[-80.0, -6.0, 0.0, 20.0]], [1e-4, 10**-0.3, 1.0, 10.0]),
        ('amplitude_to_db', [[0.0, 0.1, 1.0], 5.0], [-80.0, -25.0, -5.0]),
        ('power_to_db', [[0.0, 0.1, 1.0], 0.0, 60.0], [-60.0, -10.0, 0.0]),
        ('hz_to_erb', [[0.0, 1000.0]], [24.7, 132.7]),
        ('hz_to_bark', [[1000.0]], [26.81 / (1 + 1960 / 1000) - 0.53]),
        ('hz_to_mel', [[0.0, 700.0, 6300.0]], [0.0, 2595 * np.log10(2.0), 2595.0]),
        ('midi_to_unit', [[20.0, 55.0, 125.0]], [0.0, 0.5, 1.5]),
        ('midi_to_unit', [[0.0, 55.0, 125.0], 20.0, 90.0, True], [0.0, 0.5, 1.0]),
        ('unit_to_midi', [[-1.0, 0.5, 1.0], 20.0, 90.0], [-50.0, 55.0, 90.0]),
        ('unit_to_midi', [[-1.0, 0.5, 1.0], 20.0, 90.0, True], [20.0, 55.0, 90.0]),
        ('unit_to_hz', [[0.0, 0.5, 1.0], 110.0, 440.0], [110.0, 220.0, 440.0]),
        ('hz_to_unit', [[110.0, 220.0, 880.0], 110.0, 440.0], [0.0, 0.5, 1.5]),
        ('midi_to_hz', [[57.0, 69.0, 70.0]], [220.0, 440.0, 440.0 * 2 ** (1 / 12)]),
        ('hz_to_midi', [[27.5, 440.0, 4186.009]], [21.0, 69.0, 108.0]),
        ('tf_float32', [np.arange(3)], [0.0, 1.0, 2.0]),
        ('sinc', [X[1:-1]], np.sinc(X[1:-1])),
    ],
)
def test_elementwise(name, arguments, expected):
    numbers = [np.asarray(a, np.float32) if isinstance(a, list) else a for a in arguments]
    close(getattr(core, name)(*numbers), expected, rtol=2e-5, atol=2e-6)


def test_the_reversed_gradient(gradients):
    (found,) = gradients(lambda x: ops.sum(core.gradient_reversal(x) ** 2), X[1:5])
    np.testing.assert_allclose(found, -2.0 * X[1:5])


def test_silence_is_the_same_level_everywhere():
    assert core.DB_RANGE == spectral_ops.DB_RANGE == 80.0


def test_harmonic_frequencies_and_what_is_above_nyquist():
    f0 = np.array([[[100.0], [3000.0]]], np.float32)
    frequencies = core.get_harmonic_frequencies(f0, 4)
    close(frequencies, f0 * [1, 2, 3, 4])
    audible = core.remove_above_nyquist(frequencies, np.full([1, 2, 4], 0.5), 18000)
    close(audible, [[[0.5, 0.5, 0.5, 0.5], [0.5, 0.5, 0.0, 0.0]]])  # at Nyquist is above it


def test_distributions_sum_to_one_below_nyquist():
    distribution = np.array([[[1.0, 2.0, 5.0], [0.0, 0.0, 0.0]]], np.float32)
    close(core.normalize_harmonics(distribution), [[[1 / 8, 2 / 8, 5 / 8], [0, 0, 0]]])
    f0 = np.full([1, 2, 1], 3000.0, np.float32)
    close(core.normalize_harmonics(distribution, f0, 16000), [[[1 / 3, 2 / 3, 0], [0, 0, 0]]])


def test_sinusoids_near_a_harmonic_count_for_it():
    amps, freqs = np.array([[[1.0, 0.5]]]), np.array([[[100.0, 207.0]]])
    amplitude, distribution = core.sinusoidal_to_harmonic(amps, freqs, np.array([[[100.0]]]), n_harmonics=3)
    weights = np.exp(-(((freqs[0, 0] - [[100.0], [200.0], [300.0]]) / 10.0) ** 2)) @ amps[0, 0]
    close(amplitude, [[[weights.sum()]]])
    close(distribution, [[weights / weights.sum()]])


@pytest.mark.parametrize('depth', [1, 3])
def test_frequencies_of_a_softmax_are_the_mean_of_their_bins(depth):
    logits = np.random.default_rng(0).normal(size=[1, 2, 2, 8]).astype(np.float32)
    unit = scipy.special.softmax(logits, axis=-1) @ np.linspace(0.0, 1.0, 8)
    expected = 20.0 * (8000.0 / 20.0) ** unit  # linear in pitch
    close(core.frequencies_softmax(logits, depth), expected, rtol=1e-4)
    close(core.frequencies_softmax(logits.reshape(1, 2, 16), depth=8), expected, rtol=1e-4)


def test_one_sigmoid_spans_the_range_in_pitch():
    x = np.array([[[-2.0, 0.0, 3.0]]], np.float32)
    expected = 50.0 * ((8000.0 - 50.0) / 50.0) ** scipy.special.expit(x)
    close(core.frequencies_sigmoid(x, hz_min=50.0), expected, rtol=1e-4)


def test_critical_bands_are_centred_and_limited():
    found = npy(core.frequencies_critical_bands(np.zeros([1, 1, 5], np.float32), hz_min=100.0, hz_max=4000.0))
    ends = 26.81 * np.array([100.0, 4000.0]) / (1960.0 + np.array([100.0, 4000.0]))
    bark = np.linspace(*ends, 5)
    centers = 1960.0 * bark / (26.81 - bark) + 100.0  # `soft_limit` adds its lower limit, as upstream's does
    np.testing.assert_allclose(found[0, 0, 1:-1], centers[1:-1], rtol=1e-3)
    assert found.min() >= 100.0
    assert found.max() <= 4000.01


def test_a_sinc_filter_is_a_convolution_with_its_response():
    audio = np.random.default_rng(0).normal(size=[1, 300]).astype(np.float32)
    taps = scipy.signal.firwin(65, 2000.0, fs=16000, window='hamming')  # the same sinc and window
    found = core.sinc_filter(audio, np.array([[[2000.0]]]), 64, 16000, padding='valid')
    expected = np.convolve(audio[0], taps)[31:]  # the delay of the filter is taken off, all but a sample
    np.testing.assert_allclose(npy(found)[0, : expected.size], expected, atol=1e-4)


@pytest.mark.parametrize(
    ('padding', 'delay', 'start', 'length'), [('same', 0, 0, 10), ('same', 3, 3, 10), ('valid', 2, 2, 16)]
)
def test_cropping_a_convolution(padding, delay, start, length):
    whole = np.arange(1.0, 17.0, dtype=np.float32)[None]
    padded = np.concatenate([whole, np.zeros([1, 20])], 1)
    expected = padded[:, start : start + length]
    close(core.crop_and_compensate_delay(whole, 10, 7, padding, delay), expected)
    if padding == 'same':
        close(core.crop_and_compensate_delay(whole, 10, 7, padding, -1), padded[:, 2:12])  # (7 - 1) // 2 - 1


def test_windows_of_impulse_responses():
    ir = np.random.default_rng(0).normal(size=[1, 64]).astype(np.float32)
    expected = np.fft.fftshift(ir, axes=-1) * scipy.signal.get_window('hann', 64)
    close(core.apply_window_to_impulse_response(ir), expected)
    causal = np.fft.fftshift(ir, axes=-1)
    close(core.apply_window_to_impulse_response(causal, causal=True), expected)
    short = npy(core.apply_window_to_impulse_response(ir, window_size=9))
    window = scipy.signal.windows.hann(9)
    np.testing.assert_allclose(short[0, 3], ir[0, 0] * window[5], rtol=1e-5)  # a tap late, as upstream's is


def test_center_crop_removes_half_a_frame_from_either_end():
    close(core.center_crop(np.arange(10.0, dtype=np.float32)[None], 4), [[2, 3, 4, 5, 6, 7]])


def test_windows_and_steps():
    x = np.array([1.0, 4.0, 9.0, 16.0], np.float32)
    close(core.diff(x), np.diff(x))
    for mode in ('constant', 'reflect', 'SYMMETRIC'):
        close(core.pad_axis(x, (2, 1), mode=mode), np.pad(x, (2, 1), mode.lower()))


def test_containers():
    assert core.leaf_key('a/b/c') == 'c'
    assert core.leaf_key('a.b', '.') == 'b'
    assert core.make_iterable(None) == []
    assert core.make_iterable(3) == [3]
    assert core.make_iterable((1, 2)) == (1, 2)
    tensor = ops.ones([2, 3])
    (wrapped,) = core.make_iterable(tensor)
    assert wrapped is tensor
    assert core.map_shape({'a': tensor, 'b': [ops.ones([4])]}) == {'a': [2, 3], 'b': [[4]]}
    assert core.dim(tensor, 1) == 3
    assert core.to_dict([1, 2], ['a', 'b']) == {'a': 1, 'b': 2}
    assert core.to_dict({'c': 3}, ['a']) == {'c': 3}
    batch = {'a': 1}
    assert core.copy_if_tf_function(batch) is batch


@pytest.mark.skipif(keras.backend.backend() != 'tensorflow', reason='traces a function of TensorFlow')
def test_a_traced_function_works_on_a_copy():
    import tensorflow as tf

    batch, seen = {'a': tf.ones([2])}, []
    tf.function(lambda: seen.append(core.copy_if_tf_function(batch)))()
    assert seen[0] is not batch
    assert seen[0].keys() == batch.keys()


def test_keys_of_noise_are_drawn_in_order():
    keys = iter([[3, 7], [4, 7]])
    with core.noise_keys(lambda: ops.convert_to_tensor(next(keys), dtype='int32')):
        first, second = npy(core.uniform_noise([50])), npy(core.uniform_noise([50]))
    np.testing.assert_array_equal(first, npy(core.uniform_noise([50], seed=3 + (7 << 32))))
    np.testing.assert_array_equal(second, npy(core.uniform_noise([50], seed=4 + (7 << 32))))


def test_every_exported_name_has_a_test_of_its_value():
    import pathlib
    import re

    folder = pathlib.Path(__file__).parent
    text = ''.join(path.read_text(encoding='utf-8') for path in folder.glob('test_*.py'))
    public = [n for n, v in vars(core).items() if n[0] != '_' and not inspect.ismodule(v)]
    tested = set(re.findall(r"core\.(\w+)\(|\('(\w+)', \[", text))
    tested = {name for pair in tested for name in pair}
    assert set(public) - tested == {'DB_RANGE', 'Number', 'Tensor'}
