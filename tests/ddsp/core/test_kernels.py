"""Every kernel gives the values and the gradients of its definition."""

import importlib

import numpy as np
import pytest
from keras import ops

from ddsp.core import kernels
from ddsp.core.phase import Phase
from ddsp.core.resampling import resample

pytestmark = pytest.mark.portable
SAMPLE_RATE = 16000
RNG = np.random.default_rng(0)


def controls(n_frames, channels, low=100.0, high=900.0):
    """Frequencies in Hz and amplitudes, [2, n_frames, channels]."""
    return RNG.uniform(low, high, [2, n_frames, channels]), RNG.uniform(0.1, 1.0, [2, n_frames, channels])


def per_sample(hz):
    return Phase.per_sample(hz, float(SAMPLE_RATE))


def bank(function, frequency, amplitudes):
    return function(per_sample(resample(frequency, 700)).cumsum(), resample(amplitudes, 700))


def harmonic_sum(n_samples, method):
    def run(function, frequency, amplitudes):
        hz = resample(frequency, n_samples)
        return function(per_sample(hz).cumsum(), hz, amplitudes, n_samples, SAMPLE_RATE, method)

    return run


def interpolate(method):
    def run(function, x):
        y = function(x, 12 * 8, method, True)
        return ops.reshape(y, [2, -1])

    return run


def sinusoids(n_samples, method):
    def run(function, frequencies, amplitudes, fundamental=None):
        phase = ops.cast(np.full([2, 1, 6], 0.7), 'float32')
        return function(fundamental, frequencies, amplitudes, phase, n_samples, SAMPLE_RATE, method)

    return run


def phase_from_frames(function, frequencies):
    phase = function(frequencies, 12 * 64, SAMPLE_RATE)
    return ops.reshape(ops.sin(phase.radians()), [2, -1])


fundamental = controls(12, 1)[0]
crossing = np.exp(RNG.uniform(5.0, 8.9, [2, 12, 1]))  # many harmonics cross Nyquist within a frame
CASES = {
    'frames:interpolate': [
        (interpolate(method), RNG.normal(size=shape))
        for method in ('nearest', 'linear', 'cubic', 'window')
        for shape in ((2, 12, 3), (2, 12, 3, 2), (2, 1, 3))
    ],
    'harmonics:bank': [(bank, fundamental, controls(12, 9)[1])],
    'harmonics:harmonic_sum': [
        (harmonic_sum(n_samples, method), frequency, controls(12, n_harmonics)[1])
        for n_samples in (12 * 64, 700)
        for method in ('nearest', 'linear', 'cubic', 'window')
        for frequency, n_harmonics in ((fundamental, 1), (fundamental, 7), (crossing, 60))
    ],
    'phase:from_frames': [(phase_from_frames, controls(12, 3)[0])],
    'sinusoids:sinusoid_sum': [
        *((sinusoids(12 * 64, method), *controls(12, 6, 50.0, 9000.0)) for method in ('linear', 'window')),
        (sinusoids(12 * 64, 'window'), *controls(12, 6, -9.0, 9.0), fundamental),
    ],
}


def test_every_kernel_is_compared():
    here = {address for address in kernels.PAIRS if '.' not in address}  # other packages test their own
    assert set(CASES) == here


@pytest.mark.parametrize(
    ('address', 'case'),
    [(address, i) for address, cases in CASES.items() for i in range(len(cases))],
)
def test_values_and_gradients_are_those_of_the_definition(value_and_gradients, address, case):
    run, *arrays = CASES[address][case]
    module, name = address.split(':')
    fast = getattr(importlib.import_module(f'ddsp.core.kernels.{module}'), name)

    def loss(function):
        def of(*arrays):
            audio = run(function, *arrays)
            return ops.sum(audio * np.cos(np.arange(audio.shape[1]), dtype=np.float32))

        return of

    value, gradients = value_and_gradients(loss(fast), *arrays)
    with kernels.switched(False):
        expected, expected_gradients = value_and_gradients(loss(kernels.PAIRS[address]), *arrays)
    assert value == pytest.approx(expected, rel=1e-4, abs=2e-2)
    for found, exact in zip(gradients, expected_gradients, strict=True):
        np.testing.assert_allclose(found, exact, atol=2e-4 * np.abs(exact).max(), rtol=2e-3)


def test_the_switch_turns_kernels_off(monkeypatch):
    calls = []

    @kernels.kernel('harmonics:bank')
    def definition(phase, amplitudes):
        calls.append(1)
        return 'definition'

    monkeypatch.setitem(kernels.PAIRS, 'harmonics:bank', kernels.PAIRS['harmonics:bank'])
    phase = per_sample(ops.convert_to_tensor(fundamental.astype(np.float32)))
    amplitudes = ops.ones([2, 12, 3])
    assert tuple(definition(phase, amplitudes).shape) == (2, 12)
    with kernels.switched(False):
        assert definition(phase, amplitudes) == 'definition'
    assert calls == [1]
