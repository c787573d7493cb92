"""Every kernel gives the values and the gradients of its definition."""

import keras
import numpy as np
import pytest
from keras import ops

from ddsp.core import kernels
from ddsp.core.oscillators import Output
from ddsp.core.resampling import resample
from ddsp.losses import spectral  # noqa: F401 (registers its kernel)

pytestmark = pytest.mark.portable
SAMPLE_RATE = 16000
RNG = np.random.default_rng(0)


def controls(n_frames, channels, low=100.0, high=900.0):
    """Frequencies in Hz and amplitudes, [2, n_frames, channels]."""
    return RNG.uniform(low, high, [2, n_frames, channels]), RNG.uniform(0.1, 1.0, [2, n_frames, channels])


def with_last_phase(audio, last):
    """Audio, with the last phase as one more sample: angles a turn apart are the same."""
    return ops.concatenate([audio, ops.sin(last[:, :, 0])], axis=1)


def accumulate(function, frequency):
    initial = np.full([2, 1, 3], 0.7, np.float32)
    return ops.reshape(ops.sin(function(resample(frequency, 700), SAMPLE_RATE, initial)), [2, -1])


def harmonics(n_samples, method):
    def run(function, frequencies, amplitudes):
        initial = np.full([2, 1, 1], 0.7, np.float32)
        return with_last_phase(
            *function(frequencies, amplitudes, initial, Output(n_samples, SAMPLE_RATE, method))
        )

    return run


def interpolate(method):
    def run(function, x):
        y = function(x, 12 * 8, method, True)
        return ops.reshape(y, [2, -1])

    return run


def sinusoids(n_samples, method):
    def run(function, *controls):
        phase = ops.cast(np.full([2, 1, 6], 0.7), 'float32')
        return function(*controls, phase, Output(n_samples, SAMPLE_RATE, method))

    return run


def spectral_loss(terms):
    def run(function, target, audio):
        loss, parts = function(target, audio, (256, 64), terms, 'L1', None)
        parts = [ops.stop_gradient(part) for part in parts.values()]  # the kernel's have no gradient
        return ops.stack([loss, *parts])[None]

    return run


fundamental = controls(12, 1)[0]
crossing = np.exp(RNG.uniform(5.0, 8.9, [2, 12, 1]))  # many harmonics cross Nyquist within a frame
CASES = {
    'ddsp.core.kernels.frames:interpolate': [
        (interpolate(method), RNG.normal(size=shape))
        for method in ('nearest', 'linear', 'cubic', 'window')
        for shape in ((2, 12, 3), (2, 12, 3, 2), (2, 1, 3))
    ],
    'ddsp.core.kernels.harmonics:harmonics': [
        (harmonics(n_samples, method), frequency, controls(12, n_harmonics)[1])
        for n_samples in (12 * 64, 700)
        for method in ('nearest', 'linear', 'cubic', 'window')
        for frequency, n_harmonics in ((fundamental, 1), (fundamental, 7), (crossing, 60))
    ],
    'ddsp.core.kernels.phase:accumulate': [(accumulate, controls(12, 3)[0])],
    'ddsp.losses.kernels.spectral:l1_differences': [
        (spectral_loss(terms), RNG.normal(size=[2, 900]), RNG.normal(size=[2, 900]))
        for terms in ({'mag': 1.0, 'logmag': 0.5}, {'mag': 1.0}, {'logmag': 1.0})
    ],
    'ddsp.core.kernels.sinusoids:inharmonics': [
        (sinusoids(12 * 64, 'window'), fundamental, *controls(12, 6, -0.01, 0.01)),
    ],
    'ddsp.core.kernels.sinusoids:sinusoids': [
        (sinusoids(12 * 64, method), *controls(12, 6, 50.0, 9000.0)) for method in ('linear', 'window')
    ],
}


def test_every_kernel_is_compared():
    ours = {address for address in kernels.PAIRS if not address.startswith('ddsp.training.')}  # others: nn
    assert set(CASES) == ours


@pytest.mark.parametrize(
    ('address', 'case'),
    [(address, i) for address, cases in CASES.items() for i in range(len(cases))],
)
def test_values_and_gradients_are_those_of_the_definition(value_and_gradients, address, case):
    if address.endswith('phase:accumulate') and keras.backend.backend() != 'jax':
        pytest.skip('the kernel is for JAX')
    run, *arrays = CASES[address][case]
    fast = kernels.fast_version(address)

    def loss(function):
        def of(*arrays):
            audio = run(function, *arrays)
            return ops.sum(audio * np.cos(np.arange(audio.shape[1]), dtype=np.float32))

        return of

    value, gradients = value_and_gradients(loss(fast), *arrays)
    # Without float64 the plain sum of phase drifts, so JAX keeps that kernel; it has a case of its own.
    with kernels.switched(keras.backend.backend() == 'jax'):
        expected, expected_gradients = value_and_gradients(loss(kernels.PAIRS[address]), *arrays)
    assert value == pytest.approx(expected, rel=1e-4, abs=2e-2)
    for found, exact in zip(gradients, expected_gradients, strict=True):
        np.testing.assert_allclose(found, exact, atol=2e-4 * np.abs(exact).max(), rtol=2e-3)


def test_the_switch_turns_kernels_off(monkeypatch):
    address, calls = 'ddsp.core.kernels.frames:interpolate', []
    monkeypatch.setitem(kernels.PAIRS, address, kernels.PAIRS[address])

    @kernels.kernel(address)
    def definition(x, n_timesteps, method, add_endpoint):
        calls.append(1)
        return 'definition'

    arguments = (ops.ones([2, 12, 1]), 24, 'linear', True)
    assert tuple(definition(*arguments).shape) == (2, 24, 1)
    with kernels.switched(False):
        assert definition(*arguments) == 'definition'
    assert calls == [1]
