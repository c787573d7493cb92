"""Oscillators against float64, their gradients against differences, and each path against the others."""

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops

from ddsp import core
from ddsp.errors import DDSPError

pytestmark = pytest.mark.portable


def envelope(x, hop, method):
    """What `core.resample` should give, in float64, for whole hops and two frames at a time."""
    x = np.asarray(x, np.float64)
    after = np.concatenate([x[:, 1:], x[:, -1:]], 1)
    k = np.arange(hop) / hop
    k = {'linear': k, 'window': 0.5 - 0.5 * np.cos(np.pi * k), 'nearest': 0 * k}[method][None, None, :, None]
    return (x[:, :, None] * (1 - k) + after[:, :, None] * k).reshape(x.shape[0], -1, x.shape[2])


def reference(f0, amplitudes, distribution, hop, sample_rate, method='window', shifts=0.0):
    """Harmonic synthesis in float64 by its definition."""
    numbers = np.arange(1, distribution.shape[-1] + 1)
    f0 = np.asarray(f0, np.float64)
    frequency = envelope(f0 * numbers * (1.0 + shifts), hop, 'linear')
    if np.ndim(shifts):
        turns = np.cumsum(frequency.astype(np.longdouble) / sample_rate, axis=1)
    else:
        turns = np.cumsum(envelope(f0, hop, 'linear').astype(np.longdouble) / sample_rate, axis=1)
        turns = np.float64(turns - np.round(turns)) * numbers
    turns = np.float64(turns - np.round(turns))
    amplitude = envelope(np.asarray(amplitudes, np.float64) * distribution, hop, method)
    return np.sum(np.where(frequency >= sample_rate / 2, 0.0, amplitude) * np.sin(2 * np.pi * turns), axis=-1)


def snr_db(found, expected):
    found = np.asarray(ops.convert_to_numpy(found), np.float64)
    return 10 * np.log10(np.mean(expected**2) / np.mean((found - expected) ** 2))


def vibrato(seconds, n_harmonics=30):
    n_frames = 250 * seconds
    f0 = 220.0 + 30.0 * np.sin(2 * np.pi * 5.0 * np.arange(n_frames) / 250.0)
    return (
        f0.astype(np.float32)[None, :, None],
        np.ones([1, n_frames, 1], np.float32),
        np.full([1, n_frames, n_harmonics], 1.0 / n_harmonics, np.float32),
    )


@pytest.fixture(scope='module')
def minute():
    """A minute of 220 Hz with vibrato and 30 harmonics, and the exact audio."""
    controls = vibrato(60)
    return controls, {m: reference(*controls, 64, 16000, m) for m in ('window', 'linear')}


@pytest.mark.parametrize('angular', [False, True])
def test_a_minute_stays_90_db_clean(minute, angular):
    (f0, amplitudes, distribution), exact = minute
    audio = core.harmonic_synthesis(
        f0, amplitudes, harmonic_distribution=distribution, n_samples=960000, use_angular_cumsum=angular
    )
    assert snr_db(audio, exact['window']) > 120.0


def test_a_minute_of_partials_with_shifts_stays_90_db_clean(minute):
    (f0, amplitudes, distribution), exact = minute
    audio = core.harmonic_synthesis(f0, amplitudes, np.zeros_like(distribution), distribution, 960000)
    assert snr_db(audio, exact['window']) > 100.0


def test_a_minute_of_streaming_stays_90_db_clean(minute):
    (f0, amplitudes, distribution), exact = minute
    audio, _ = core.streaming_harmonic_synthesis(f0, amplitudes, distribution, n_samples=960000)
    assert snr_db(audio, exact['linear']) > 120.0


@pytest.mark.parametrize('angular', [False, True])
def test_a_minute_of_samplewise_oscillators_stays_90_db_clean(minute, angular):
    (f0, amplitudes, distribution), exact = minute
    frequency, envelopes = (
        core.resample(f0, 960000),
        core.resample(amplitudes * distribution, 960000, 'window'),
    )
    audio, _ = core.harmonic_oscillator_bank(frequency, envelopes, use_angular_cumsum=angular)
    assert snr_db(audio, exact['window']) > 100.0
    audio = core.oscillator_bank(frequency, np.ones([1, 960000, 1]), use_angular_cumsum=angular)
    turns = np.cumsum(ops.convert_to_numpy(frequency)[0, :, 0].astype(np.longdouble) / 16000)
    assert snr_db(audio[0], np.sin(2 * np.pi * np.float64(turns - np.round(turns)))) > 100.0


def test_streaming_in_pieces_is_one_stream():
    f0 = np.repeat(np.random.default_rng(0).uniform(100, 400, [2, 10, 1]), 8, axis=1).astype(np.float32)
    amplitudes, distribution = np.ones([2, 80, 1], np.float32), np.ones([2, 80, 12], np.float32)
    phase, pieces, exact = None, [], []
    turns = np.zeros([2, 1])
    for start in range(0, 80, 8):
        piece = slice(start, start + 8)
        audio, phase = core.streaming_harmonic_synthesis(
            f0[:, piece], amplitudes[:, piece], distribution[:, piece], phase, n_samples=512
        )
        pieces.append(ops.convert_to_numpy(audio))
        after = turns + np.cumsum(envelope(f0[:, piece], 64, 'linear')[:, :, 0] / 16000, axis=1)
        exact.append(np.sin(2 * np.pi * after[..., None] * np.arange(1, 13)).sum(-1) / 12)
        turns = after[:, -1:]
    assert snr_db(np.concatenate(pieces, 1), np.concatenate(exact, 1)) > 100.0
    assert np.abs(ops.convert_to_numpy(phase)).max() <= np.pi + 1e-6


@settings(
    max_examples=15 if keras.backend.backend() == 'tensorflow' else 3, deadline=None
)  # JAX compiles each
@given(
    sample_rate=st.sampled_from([16000, 22050, 44100, 48000]),
    hop=st.sampled_from([1, 7, 64, 192]),
    n_harmonics=st.sampled_from([1, 2, 3, 8, 61, 100]),
    method=st.sampled_from(['nearest', 'linear', 'window']),
    seed=st.integers(0, 2**16),
)
def test_any_controls_and_rate(sample_rate, hop, n_harmonics, method, seed):
    rng = np.random.default_rng(seed)
    # Wild jumps, so that many harmonics cross Nyquist within a frame, and some silence (0 Hz).
    f0 = np.exp(rng.uniform(3.0, 9.0, [2, 12, 1])).astype(np.float32)
    f0[0, 4:6] = 0.0
    amplitudes = rng.random([2, 12, 1]).astype(np.float32)
    distribution = rng.random([2, 12, n_harmonics]).astype(np.float32)
    audio = core.harmonic_synthesis(
        f0, amplitudes, None, distribution, 12 * hop, sample_rate, amp_resample_method=method
    )
    expected = reference(f0, amplitudes, distribution, hop, sample_rate, method)
    # A sample whose harmonic lies exactly at Nyquist may fall on either side.
    assert np.mean(np.abs(ops.convert_to_numpy(audio) - expected) > 1e-3) < 0.002


def test_frames_that_do_not_divide_the_samples_and_cubic_amplitudes():
    rng = np.random.default_rng(3)
    f0 = rng.uniform(200, 300, [2, 23, 1]).astype(np.float32)
    distribution = rng.random([2, 23, 9]).astype(np.float32)
    ones = np.ones([2, 23, 1], np.float32)
    for n_samples in (1000, 920):
        for method in ('nearest', 'linear', 'cubic', 'window'):
            audio = core.harmonic_synthesis(f0, ones, None, distribution, n_samples, 16000, method)
            expected, _ = core.harmonic_oscillator_bank(
                core.resample(f0, n_samples), core.resample(distribution, n_samples, method)
            )
            np.testing.assert_allclose(ops.convert_to_numpy(audio), ops.convert_to_numpy(expected), atol=2e-4)


def test_shifts_move_partials():
    f0, amplitudes, distribution = vibrato(1, 12)
    shifts = 0.03 * np.random.default_rng(0).random(distribution.shape).astype(np.float32)
    audio = core.harmonic_synthesis(f0, amplitudes, shifts, distribution, 16000)
    assert snr_db(audio, reference(f0, amplitudes, distribution, 64, 16000, shifts=shifts)) > 75.0


def test_sinusoids_from_frames_are_those_from_samples():
    rng = np.random.default_rng(5)
    frequencies = rng.uniform(50, 9000, [2, 20, 6]).astype(np.float32)
    amplitudes = rng.random([2, 20, 6]).astype(np.float32)
    by_sample = core.oscillator_bank(
        core.resample(frequencies, 1280), core.resample(amplitudes, 1280, 'window')
    )
    found = ops.convert_to_numpy(core.sinusoidal_synthesis(frequencies, amplitudes, 1280))
    assert np.mean(np.abs(found - ops.convert_to_numpy(by_sample)) > 1e-3) < 0.005


def test_voices_add_up():
    f0, amplitudes, distribution = (np.repeat(x, 3, 0) for x in vibrato(1, 5))
    f0 = f0 * np.array([1.0, 1.25, 1.5], np.float32)[:, None, None]
    voices = core.harmonic_synthesis(f0, amplitudes, None, distribution, 16000)
    one_by_one = sum(
        ops.convert_to_numpy(
            core.harmonic_synthesis(f0[i : i + 1], amplitudes[:1], None, distribution[:1], 16000)
        )
        for i in range(3)
    )
    np.testing.assert_allclose(ops.convert_to_numpy(ops.sum(voices, 0, keepdims=True)), one_by_one, atol=1e-5)


@pytest.mark.parametrize('path', ['harmonics', 'shifts', 'streaming', 'ragged', 'samples'])
def test_gradients_are_differences(check_gradients, path):
    rng = np.random.default_rng(2)
    f0 = rng.uniform(200, 230, [1, 6, 1]).astype(np.float32)
    amplitudes = rng.uniform(0.5, 1.0, [1, 6, 1]).astype(np.float32)
    distribution = rng.random([1, 6, 5]).astype(np.float32)
    target = rng.normal(size=[1, 192]).astype(np.float32)

    def loss(f0, amplitudes, distribution):
        if path == 'streaming':
            audio, _ = core.streaming_harmonic_synthesis(f0, amplitudes, distribution, n_samples=192)
        elif path == 'samples':
            envelopes = core.resample(amplitudes * distribution, 192)
            audio, _ = core.harmonic_oscillator_bank(core.resample(f0, 192), envelopes)
        else:
            shifts = 0.01 * np.arange(5, dtype=np.float32) * np.ones([1, 6, 1], np.float32)
            n_samples = 190 if path == 'ragged' else 192
            audio = core.harmonic_synthesis(
                f0, amplitudes, shifts if path == 'shifts' else None, distribution, n_samples
            )
            return ops.mean(ops.multiply(audio, target[:, :n_samples]))
        return ops.mean(ops.multiply(audio, target))

    check_gradients(loss, f0, amplitudes, distribution, step=0.02)


def test_gradient_of_amplitudes_with_crossing_harmonics_is_exact(gradients):
    rng = np.random.default_rng(4)
    f0 = np.exp(rng.uniform(5.0, 8.5, [1, 8, 1])).astype(np.float32)
    distribution = rng.random([1, 8, 40]).astype(np.float32)
    upstream = rng.normal(size=[1, 512]).astype(np.float32)
    ones = np.ones([1, 8, 1], np.float32)

    def loss(distribution):
        return ops.sum(ops.multiply(core.harmonic_synthesis(f0, ones, None, distribution, 512), upstream))

    (found,) = gradients(loss, distribution)
    for frame, harmonic in ((0, 0), (3, 7), (5, 39), (7, 20)):
        unit = np.zeros_like(distribution)
        unit[0, frame, harmonic] = 1.0
        expected = np.sum(reference(f0, ones, unit, 64, 16000) * upstream)
        assert found[0, frame, harmonic] == pytest.approx(expected, abs=2e-3)


def test_gradient_of_initial_phase(check_gradients):
    f0, amplitudes, distribution = (x[:, :4] for x in vibrato(1, 3))
    target = np.random.default_rng(0).normal(size=[1, 256]).astype(np.float32)

    def loss(phase):
        audio, last = core.streaming_harmonic_synthesis(f0, amplitudes, distribution, phase, n_samples=256)
        return ops.mean(ops.multiply(audio, target)) + ops.mean(last)

    check_gradients(loss, np.array([[[0.3]]]), step=0.01)


def test_angular_cumsum_is_a_sum_modulo_one_turn():
    omega = np.random.default_rng(0).uniform(0, 3, [2, 2500, 3]).astype(np.float32)
    found = ops.convert_to_numpy(core.angular_cumsum(omega))
    error = found - np.cumsum(omega.astype(np.float64), 1)
    assert np.abs(error - 2 * np.pi * np.round(error / (2 * np.pi))).max() < 2e-4
    assert found.min() >= 0.0


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'amp_resample_method': 'spline'}, "amp_resample_method='spline' is unknown: use one of 'nearest'"),
        ({'amplitudes': np.ones([1, 9, 1])}, 'frequencies has 10 frames and amplitudes 9'),
        (
            {'frequencies': np.ones([1, 10])},
            r'frequencies must be \[batch, n_frames, channels\], not \(1, 10\)',
        ),
        ({'frequencies': np.ones([1, 10, 2])}, 'frequencies must have one channel, the fundamental, not 2'),
        ({'n_samples': 9}, '10 frames are more than n_samples=9'),
        (
            {'harmonic_distribution': np.ones([1, 10, 3]), 'harmonic_shifts': np.ones([1, 10, 4])},
            'harmonic_shifts has 4 harmonics and harmonic_distribution 3',
        ),
    ],
)
def test_errors_say_what_is_wrong(change, message):
    arguments = {
        'frequencies': np.ones([1, 10, 1]),
        'amplitudes': np.ones([1, 10, 1]),
        'n_samples': 640,
    } | change
    with pytest.raises(DDSPError, match=message):
        core.harmonic_synthesis(**arguments)


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'amp_resample_method': 'spline'}, "amp_resample_method='spline' is unknown: use one of 'nearest'"),
        ({'amplitudes': np.ones([1, 9, 2])}, 'frequencies has 10 frames and amplitudes 9'),
        ({'n_samples': 9}, '10 frames are more than n_samples=9'),
    ],
)
@pytest.mark.parametrize('shifted', [False, True])
def test_errors_of_sinusoids_say_what_is_wrong(change, message, shifted):
    arguments = {'frequencies': np.ones([1, 10, 2]), 'amplitudes': np.ones([1, 10, 2]), 'n_samples': 640}
    if shifted:
        arguments |= {'frequencies': np.ones([1, 10, 1]), 'harmonic_shifts': np.zeros([1, 10, 2])}
    function = core.harmonic_synthesis if shifted else core.sinusoidal_synthesis
    with pytest.raises(DDSPError, match=message):
        function(**arguments | change)
