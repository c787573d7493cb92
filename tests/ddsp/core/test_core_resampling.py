"""Resampling against its formulas; scaling and units against closed forms."""

import numpy as np
import pytest
import scipy.interpolate
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops

from ddsp import core
from ddsp.errors import DDSPError

pytestmark = pytest.mark.portable


def npy(x):
    return ops.convert_to_numpy(x)


@settings(max_examples=30, deadline=None)
@given(frames=st.integers(2, 40), n=st.integers(1, 300), endpoint=st.booleans(), seed=st.integers(0, 99))
def test_linear_is_interpolation(frames, n, endpoint, seed):
    x = np.random.default_rng(seed).normal(size=[2, frames, 3]).astype(np.float32)
    position = np.arange(n) * frames / n if endpoint else np.arange(n) * (frames - 1) / max(n - 1, 1)
    ends = np.concatenate([x, x[:, -1:]], 1)
    expected = scipy.interpolate.interp1d(np.arange(frames + 1), ends, axis=1)(position)
    np.testing.assert_allclose(npy(core.resample(x, n, add_endpoint=endpoint)), expected, atol=1e-5)


@pytest.mark.parametrize('method', ['nearest', 'linear', 'cubic', 'window'])
@pytest.mark.parametrize('n', [60, 65])
def test_constants_stay_and_frames_are_met(method, n):
    x = np.random.default_rng(0).normal(size=[2, 12, 3]).astype(np.float32)
    np.testing.assert_allclose(npy(core.resample(np.ones_like(x), n, method)), 1.0, atol=1e-6)
    if n == 60:
        np.testing.assert_allclose(npy(core.resample(x, n, method))[:, ::5], x, atol=1e-6)


def test_windows_overlap_and_add():
    x = np.random.default_rng(0).normal(size=[1, 7, 2]).astype(np.float32)
    hop = 10
    window = 0.5 - 0.5 * np.cos(np.pi * np.arange(2 * hop) / hop)
    expected = np.zeros([1, 9 * hop, 2])
    for j, frame in enumerate(np.concatenate([x, x[:, -1:]], 1)[0]):
        expected[0, j * hop : (j + 2) * hop] += frame * window[:, None]
    np.testing.assert_allclose(npy(core.upsample_with_windows(x, 70)), expected[:, hop:-hop], atol=1e-6)


@pytest.mark.parametrize('rank', [1, 2, 3, 4])
def test_ranks(rank):
    shape = [5] if rank == 1 else [2, 5, 3, 4][:rank]
    found = core.resample(np.ones(shape), 20)
    assert tuple(found.shape) == tuple([20] if rank == 1 else [2, 20, 3, 4][:rank])


def test_gradient_is_the_transpose(gradients):
    rng = np.random.default_rng(0)
    for method in ('nearest', 'linear', 'cubic', 'window'):
        for n in (40, 37):
            x = rng.normal(size=[1, 8, 2]).astype(np.float32)
            g = rng.normal(size=[1, n, 2]).astype(np.float32)
            (found,) = gradients(
                lambda x, g=g, n=n, m=method: ops.sum(ops.multiply(core.resample(x, n, m), g)), x
            )
            matrix = np.stack([npy(core.resample(row, n, method)) for row in np.eye(8)])
            np.testing.assert_allclose(found[0], matrix @ g[0], atol=1e-5)


@pytest.mark.parametrize(
    ('call', 'message'),
    [
        (
            lambda: core.resample(np.ones([1, 4, 1]), 8, 'spline'),
            "method='spline' is unknown: use one of 'nearest'",
        ),
        (lambda: core.resample(np.ones([1, 4, 1, 1]), 8, 'window'), 'takes inputs of rank 1 to 3'),
        (lambda: core.resample(np.ones([1, 1, 4, 1, 1]), 8), 'inputs has rank 5'),
        (lambda: core.upsample_with_windows(np.ones([4, 1]), 8), r'not shape \(4, 1\)'),
        (lambda: core.upsample_with_windows(np.ones([1, 9, 1]), 8), 'at least 9 are needed'),
        (lambda: core.center_crop(np.ones([1, 8]), 8), 'frame_size=8 leaves nothing of 8 samples'),
        (lambda: core.diff(np.ones([3]), 1), 'axis=1 is not an axis of a tensor of rank 1'),
        (lambda: core.to_dict([1, 2], ['a']), '2 values were given for 1 keys'),
        (lambda: core.frequencies_critical_bands(np.ones([1, 1, 2]), scale='erb'), "use 'bark' or 'mel'"),
        (lambda: core.frequencies_softmax(np.ones([1, 1, 3]), depth=2), 'depth=2 does not divide'),
        (lambda: core.harmonic_distribution_to_wavetable(np.ones([1, 1, 9]), 16), '18 is the least'),
        (
            lambda: core.variable_length_delay(np.ones([1, 9, 1]), np.ones([1, 8])),
            'phase has 9 samples and audio 8',
        ),
        (
            lambda: core.fft_convolve(np.ones([3, 9]), np.ones([2, 4])),
            'impulse_response has a batch of 2 and audio',
        ),
        (lambda: core.fft_convolve(np.ones([1, 9]), np.ones([1, 4]), 'full'), "padding='full' is unknown"),
        (
            lambda: core.fft_convolve(np.ones([1, 9]), np.ones([1, 10, 4])),
            '10 impulse responses are more than 9',
        ),
        (
            lambda: core.fft_convolve(np.ones([9]), np.ones([1, 4])),
            r'audio must be \[batch, n_samples\], not \(9,\)',
        ),
    ],
)
def test_errors_say_what_is_wrong(call, message):
    with pytest.raises(DDSPError, match=message):
        call()


def test_units_go_there_and_back():
    hz = np.geomspace(20.0, 8000.0, 50)
    np.testing.assert_allclose(npy(core.midi_to_hz(core.hz_to_midi(hz))), hz, rtol=1e-4)
    np.testing.assert_allclose(npy(core.bark_to_hz(core.hz_to_bark(hz))), hz, rtol=1e-4)
    np.testing.assert_allclose(npy(core.mel_to_hz(core.hz_to_mel(hz))), hz, rtol=1e-4)
    np.testing.assert_allclose(npy(core.unit_to_hz(core.hz_to_unit(hz, 20, 8000), 20, 8000)), hz, rtol=1e-4)
    np.testing.assert_allclose(npy(core.hz_to_midi(440.0)), 69.0, rtol=1e-6)
    np.testing.assert_allclose(npy(core.hz_to_midi([0.0, -3.0])), 0.0)
    np.testing.assert_allclose(
        npy(core.midi_to_hz([0.0, 69.0], midi_zero_silence=True)), [0.0, 440.0], rtol=1e-6
    )
    db = np.linspace(-79.0, 20.0, 30)
    np.testing.assert_allclose(npy(core.amplitude_to_db(core.db_to_amplitude(db))), db, atol=1e-3)
    np.testing.assert_allclose(core.power_to_db(10 ** (db / 10), use_tf=False), db, atol=1e-9)


def test_safe_log_keeps_values_and_bounds_the_gradient(gradients):
    x = np.array([-1.0, 0.0, 1e-30, 1e-9, 0.1, 7.0], np.float32)
    expected = np.log([1e-5, 1e-5, 1e-30, 1e-9, 0.1, 7.0])
    np.testing.assert_allclose(npy(core.safe_log(x)), expected, rtol=1e-5)
    (found,) = gradients(lambda x: ops.sum(core.safe_log(x)), x)
    np.testing.assert_allclose(found, [0.0, 0.0, 1e5, 1e5, 10.0, 1 / 7], rtol=1e-5)


def test_nested_keys_use_the_delimiter_at_every_level():
    tree = {'a': {'b': {'c': 1}}, 'd': 2}
    assert core.nested_keys(tree, delimiter='.') == ['a.b.c', 'd']
    assert core.nested_lookup('a.b.c', tree, delimiter='.') == 1
    with pytest.raises(
        KeyError, match=r"'x' of the key 'a/x' is not there; available keys: \['a/b/c', 'd'\]"
    ):
        core.nested_lookup('a/x', tree)


def test_padding_and_differences_of_any_axis():
    x = np.arange(12.0).reshape(2, 6)
    assert npy(core.pad_axis(x, (1, 2), axis=-1)).shape == (2, 9)
    np.testing.assert_allclose(npy(core.diff(x, axis=-1)), np.diff(x, axis=-1))
    np.testing.assert_allclose(npy(core.diff(x, axis=0)), np.diff(x, axis=0))


def test_harmonics_become_sinusoids_and_back():
    rng = np.random.default_rng(0)
    distribution = rng.random([2, 5, 10]).astype(np.float32)
    f0 = rng.uniform(100, 300, [2, 5, 1]).astype(np.float32)
    amplitude = rng.random([2, 5, 1]).astype(np.float32)
    amps, freqs = core.harmonic_to_sinusoidal(amplitude, distribution, f0)
    found_amplitude, found = core.sinusoidal_to_harmonic(amps, freqs, f0, n_harmonics=10)
    np.testing.assert_allclose(npy(found_amplitude), amplitude, rtol=1e-4)
    np.testing.assert_allclose(npy(found), distribution / distribution.sum(-1, keepdims=True), rtol=1e-3)
