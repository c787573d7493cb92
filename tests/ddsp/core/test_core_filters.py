"""Filters, delays and tables against scipy and numpy."""

import keras
import numpy as np
import pytest
import scipy.signal
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops

from ddsp import core, effects
from ddsp.errors import ConfigError

pytestmark = pytest.mark.portable


def npy(x):
    return ops.convert_to_numpy(x)


@settings(max_examples=20, deadline=None)
@given(n=st.integers(1, 400), taps=st.integers(1, 90), seed=st.integers(0, 99))
def test_convolution_with_one_response(n, taps, seed):
    rng = np.random.default_rng(seed)
    x, h = rng.normal(size=[2, n]).astype(np.float32), rng.normal(size=[2, taps]).astype(np.float32)
    expected = np.stack([scipy.signal.convolve(a, b) for a, b in zip(x, h, strict=True)])
    found = npy(core.fft_convolve(x, h, padding='valid', delay_compensation=0))
    np.testing.assert_allclose(found, expected, atol=1e-4)
    same = npy(core.fft_convolve(x, h, delay_compensation=0))
    np.testing.assert_allclose(same, expected[:, :n], atol=1e-4)


@pytest.mark.parametrize('n_frames', [4, 7, 30])
def test_convolution_with_a_response_for_each_frame(n_frames):
    rng = np.random.default_rng(n_frames)
    x, h = rng.normal(size=[2, 101]).astype(np.float32), rng.normal(size=[2, n_frames, 20]).astype(np.float32)
    hop = -(-101 // n_frames)
    expected = np.zeros([2, 200])
    for start in range(0, 101, hop):
        row = h[:, start // hop if -(-101 // hop) == n_frames else start * n_frames // 101]
        for item in range(2):
            piece = np.convolve(x[item, start : start + hop], row[item])
            expected[item, start : start + piece.size] += piece
    found = npy(core.fft_convolve(x, h, delay_compensation=0))
    np.testing.assert_allclose(found, expected[:, :101], atol=1e-4)


def test_frames_need_not_divide_the_samples():
    assert core.frequency_filter(np.ones([1, 640]), np.ones([1, 99, 9])).shape == (1, 640)


def test_gradients_are_correlations(gradients):
    rng = np.random.default_rng(0)
    x, h, g = (rng.normal(size=[2, n]).astype(np.float32) for n in (60, 25, 84))
    found = gradients(lambda x, h: ops.sum(ops.multiply(core.fft_convolve(x, h, 'valid', 0), g)), x, h)
    for item in range(2):
        expected = [scipy.signal.correlate(g[item], v[item], 'valid') for v in (h, x)]
        np.testing.assert_allclose(found[0][item], expected[0], atol=1e-4)
        np.testing.assert_allclose(found[1][item], expected[1], atol=1e-4)


def test_one_response_for_all_is_that_response_for_each(gradients):
    rng = np.random.default_rng(0)
    x, h, g = (rng.normal(size=[rows, n]).astype(np.float32) for rows, n in ((5, 60), (1, 25), (5, 84)))

    def loss(x, h):
        return ops.sum(ops.multiply(core.fft_convolve(x, h, 'valid', 0), g))

    each = np.tile(h, [5, 1])
    np.testing.assert_allclose(npy(core.fft_convolve(x, h)), npy(core.fft_convolve(x, each)), atol=1e-6)
    found, expected = gradients(loss, x, h), gradients(loss, x, each)
    np.testing.assert_allclose(found[0], expected[0], atol=1e-5)
    np.testing.assert_allclose(found[1], expected[1].sum(axis=0, keepdims=True), atol=1e-4)


@pytest.mark.skipif(keras.backend.backend() != 'tensorflow', reason='looks into a graph of TensorFlow')
def test_one_response_for_all_is_transformed_once():
    import tensorflow as tf

    reverb = effects.Reverb(trainable=True, reverb_length=20)

    @tf.function
    def step(audio):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(reverb(audio) ** 2)
        return tape.gradient(loss, [v.value for v in reverb.trainable_variables])

    graph = step.get_concrete_function(tf.TensorSpec([8, 64])).graph
    rows = {kind: [op.inputs[0].shape[0] for op in graph.get_operations() if op.type == kind]
            for kind in ('RFFT', 'IRFFT')}  # fmt: skip
    assert sorted(rows['RFFT']) == [1, 8, 8]  # response, audio, and the gradient of the result
    assert sorted(rows['IRFFT']) == [1, 8]  # the result, and the gradient of the response


def test_gradients_of_a_changing_filter(check_gradients):
    rng = np.random.default_rng(0)
    x, magnitudes = rng.normal(size=[1, 120]), rng.random([1, 6, 9])
    target = rng.normal(size=[1, 120]).astype(np.float32)
    check_gradients(lambda x, m: ops.sum(ops.multiply(core.frequency_filter(x, m, 0), target)), x, magnitudes)


@pytest.mark.parametrize(('window_size', 'at'), [(0, 502), (257, 502), (33, 500), (64, 500)])
def test_a_flat_filter_delays_as_upstream_does(window_size, at):
    impulse = np.zeros([1, 1000])
    impulse[0, 500] = 1.0
    assert np.argmax(npy(core.frequency_filter(impulse, np.ones([1, 1, 65]), window_size))[0]) == at


def test_frequency_response_is_what_was_asked():
    magnitudes = np.random.default_rng(0).random([1, 33])
    response = npy(core.frequency_impulse_response(magnitudes[:, None]))[0, 0]
    expected = np.fft.fftshift(np.fft.irfft(magnitudes[0])) * scipy.signal.get_window('hann', 64)
    np.testing.assert_allclose(response, expected, atol=1e-6)


@pytest.mark.parametrize('high_pass', [False, True])
def test_sinc_filter_passes_and_stops(high_pass):
    response = npy(core.sinc_impulse_response(np.array([[[2000.0]]]), 256, 16000, high_pass))[0, 0]
    frequency, gain = scipy.signal.freqz(response, worN=1024, fs=16000)
    passes = (frequency > 2300) if high_pass else (frequency < 1700)
    stops = (frequency < 1700) if high_pass else (frequency > 2300)
    np.testing.assert_allclose(np.abs(gain[passes]), 1.0, atol=0.01)
    assert np.abs(gain[stops]).max() < 0.01


@pytest.mark.parametrize(
    ('frame', 'taps', 'power', 'size'), [(64, 128, True, 256), (64, 128, False, 192), (1, 1, True, 1)]
)
def test_fft_sizes(frame, taps, power, size):
    assert core.get_fft_size(frame, taps, power) == size


def test_tables_are_read_around_and_must_fit():
    table = np.arange(8, dtype=np.float32)[None]
    turns = np.array([[0.25, 1.25, -0.75, 4096.25, -1e9, 1e20]], np.float32)
    np.testing.assert_allclose(npy(core.linear_lookup(turns, table))[0], [2, 2, 2, 2, 0, 0], atol=1e-3)
    for phase, tables in (((2, 7), (2, 5, 8)), ((2, 7), (3, 8)), ((2, 7), (2, 9, 8)), ((2, 7), (3, 7, 8))):
        with pytest.raises(ConfigError, match=r'phase is \(2, 7\) and wavetables .* needs'):
            core.linear_lookup(np.zeros(phase), np.zeros(tables))


def test_delay_is_a_fractional_shift_up_to_its_maximum():
    x = np.random.default_rng(0).normal(size=[1, 200]).astype(np.float32)
    padded = np.concatenate([np.zeros(60), x[0]])
    for delay in (0.0, 1.0, 12.25, 49.0, 49.5, 50.0):
        found = npy(core.variable_length_delay(np.full([1, 200, 1], delay / 50), x, 50))[0]
        expected = np.interp(np.arange(200) - delay + 60, np.arange(260), padded)
        np.testing.assert_allclose(found, expected, atol=1e-4)


def test_gradients_of_a_delay(check_gradients):
    rng = np.random.default_rng(0)
    phase = (rng.integers(2, 40, [1, 90, 1]) + rng.uniform(0.3, 0.7, [1, 90, 1])) / 50
    target = rng.normal(size=[1, 90]).astype(np.float32)

    def loss(phase, x):
        return ops.sum(ops.multiply(core.variable_length_delay(phase, x, 50), target))

    check_gradients(loss, phase, rng.normal(size=[1, 90]), step=2e-3)


def test_lookup_is_periodic_interpolation():
    rng = np.random.default_rng(0)
    table, phase = rng.normal(size=[2, 16]).astype(np.float32), rng.random([2, 50, 1]).astype(np.float32)
    ends = np.concatenate([table, table[:, :1]], 1)
    expected = np.stack([np.interp(p[:, 0] * 16, np.arange(17), t) for p, t in zip(phase, ends, strict=True)])
    np.testing.assert_allclose(npy(core.linear_lookup(phase, table)), expected, atol=1e-5)
    each = np.repeat(table[:, None], 50, 1)
    np.testing.assert_allclose(npy(core.linear_lookup(phase, each)), expected, atol=1e-5)


def test_tables_that_change_are_cross_faded():
    rng = np.random.default_rng(0)
    tables, f0 = rng.normal(size=[2, 10, 32]).astype(np.float32), np.full([2, 10, 1], 130.0, np.float32)
    found = npy(core.wavetable_synthesis(f0, np.ones([2, 10, 1]), tables, 640))
    phase = (np.arange(640) * 130.0 / 16000) % 1.0
    dense = npy(core.resample(tables, 640))
    expected = npy(core.linear_lookup(np.tile(phase, (2, 1)), dense))
    np.testing.assert_allclose(found, expected, atol=1e-4)
    scaled = npy(core.wavetable_synthesis(f0, np.ones([2, 10, 1]), tables, 640, scale_fn=core.exp_sigmoid))
    whole = npy(core.wavetable_synthesis(f0, np.ones([2, 10, 1]), core.exp_sigmoid(tables), 640))
    np.testing.assert_allclose(scaled, whole, atol=1e-5)


def test_a_wavetable_of_harmonics_is_their_sum():
    distribution = np.random.default_rng(0).random([1, 2, 5])
    n = np.arange(64) / 64
    expected = np.einsum('bth,hn->btn', distribution, np.cos(2 * np.pi * np.arange(1, 6)[:, None] * n))
    np.testing.assert_allclose(
        npy(core.harmonic_distribution_to_wavetable(distribution, 64)), expected, atol=1e-5
    )
