"""What synths and effects sound like: spectra and float64 convolutions, not the formulas they are made of."""

import numpy as np
import pytest
import scipy.signal
from keras import ops

from ddsp import effects, processors, synths

RATE, N, FRAMES = 16000, 1600, 16  # bins of 10 Hz, frames of 100 samples


def constant(value, frames=FRAMES):
    """Controls [1, frames, n] that do not move."""
    return np.tile(np.float32(value)[None, None], (1, frames, 1))


def amplitudes(audio, *hz):
    """Amplitudes of sinusoids that have whole periods in the signal."""
    spectrum = 2.0 * np.abs(np.fft.rfft(np.float64(audio))) / np.shape(audio)[-1]
    return spectrum[..., [round(f * N / RATE) for f in hz]]


def rms(audio):
    return np.sqrt(np.mean(np.square(np.float64(audio)), axis=-1))


@pytest.fixture
def audio(rng):
    """Two signals [2, N]."""
    return rng.normal(size=[2, N]).astype(np.float32)


@pytest.fixture
def harmonic():
    """A synth that takes its controls as they are."""
    return synths.Harmonic(N, RATE, scale_fn=None)


def test_harmonics_have_their_shares_of_the_amplitude(harmonic):
    shares = np.array([0.5, 0.0, 0.3, 0.2])
    sound = harmonic(constant([0.8]), constant(4 * shares), constant([200.0]))[0]
    np.testing.assert_allclose(amplitudes(sound, 200, 400, 600, 800), 0.8 * shares, atol=1e-4)
    assert rms(sound) == pytest.approx(0.8 * np.sqrt(np.sum(shares**2) / 2), rel=1e-4)  # and nothing else


@pytest.mark.parametrize(('f0_hz', 'heard'), [(1500, 5), (3000, 2), (7000, 1)])
def test_harmonics_above_nyquist_leave_their_share_to_the_others(harmonic, f0_hz, heard):
    sound = harmonic(constant([0.6]), constant(np.ones(6)), constant([f0_hz]))[0]
    found = amplitudes(sound, *(f0_hz * h for h in range(1, heard + 1)))
    np.testing.assert_allclose(found, 0.6 / heard, atol=1e-4)
    assert rms(sound) == pytest.approx(0.6 / heard * np.sqrt(heard / 2), rel=1e-3)
    quieter = synths.Harmonic(N, RATE, scale_fn=None, normalize_below_nyquist=False)
    sound = quieter(constant([0.6]), constant(np.ones(6)), constant([f0_hz]))[0]
    np.testing.assert_allclose(amplitudes(sound, f0_hz), 0.6 / 6, atol=1e-4)  # removed all the same
    assert rms(sound) == pytest.approx(0.1 * np.sqrt(heard / 2), rel=1e-3)


def test_shifts_move_each_harmonic_by_itself(harmonic):
    shifts = np.array([0.0, 0.05, -0.1])
    controls = [constant([0.9]), constant([1.0, 1.0, 1.0]), constant([300.0]), constant(shifts)]
    found = amplitudes(harmonic(*controls)[0], 300, 630, 810, 600, 900)
    np.testing.assert_allclose(found, [0.3, 0.3, 0.3, 0.0, 0.0], atol=2e-4)


def test_an_amplitude_is_followed_by_raised_cosines(harmonic, rng):
    """Each frame fades in and out over two hops: Hann windows that add up to one."""
    frames = rng.uniform(0.3, 1.0, FRAMES)
    hop = N // FRAMES
    expected = np.zeros(N + 2 * hop)
    for i, frame in enumerate([*frames, frames[-1]]):
        expected[i * hop : (i + 2) * hop] += frame * scipy.signal.get_window('hann', 2 * hop)
    sound = harmonic(frames[None, :, None], constant([1.0]), constant([4000.0]))[0]
    found = np.abs(scipy.signal.hilbert(np.float64(sound)))
    np.testing.assert_allclose(found[hop:-hop], expected[2 * hop : -2 * hop], atol=0.01)


def test_sinusoids_go_where_they_are_told():
    hz, level = np.array([150.0, 1230.0, 7900.0]), np.array([0.1, 0.4, 0.2])
    synth = synths.Sinusoidal(N, RATE, amp_scale_fn=None, freq_scale_fn=None)
    np.testing.assert_allclose(amplitudes(synth(constant(level), constant(hz))[0], *hz), level, atol=1e-3)
    bent = synths.Sinusoidal(N, RATE, amp_scale_fn=None, freq_scale_fn=lambda x: 1000.0 * x)
    sound = bent(constant([0.5, 0.5]), constant([2.0, 9.0]))[0]  # 9 kHz would fold back to 7 kHz
    np.testing.assert_allclose(amplitudes(sound, 2000, 7000), [0.5, 0.0], atol=1e-3)
    controls = bent.get_controls(constant([0.5, 0.5]), constant([2.0, 9.0]))
    np.testing.assert_array_equal(controls['amplitudes'][0, 0], [0.5, 0.0])


def test_a_table_is_played_once_a_period():
    turns = np.arange(512) / 512
    table = 0.7 * np.sin(2 * np.pi * turns) + 0.2 * np.cos(2 * np.pi * 3 * turns)
    synth = synths.Wavetable(N, RATE, scale_fn=None)
    sound = synth(constant([0.5]), constant(table), constant([250.0]))[0]
    np.testing.assert_allclose(amplitudes(sound, 250, 500, 750), [0.35, 0.0, 0.1], atol=1e-3)


@pytest.mark.parametrize('window_size', [0, 129])
def test_noise_fills_the_bands_that_are_open(window_size):
    """Bands from 0 Hz to Nyquist in equal steps: of 65, numbers 16 to 24 are 2 to 3 kHz."""
    bands = np.zeros(65)
    bands[16:25] = 1.0
    noise = synths.FilteredNoise(64000, window_size, scale_fn=None, seed=1)(constant(bands, 64))
    hz, power = scipy.signal.welch(np.asarray(noise[0]), RATE, nperseg=512)
    inside, outside = (hz > 2200) & (hz < 2800), (hz < 1700) | (hz > 3300)
    # White noise between -1 and 1 has a power of 1/3 over 8 kHz.
    np.testing.assert_allclose(power[inside].mean(), 1 / 3 / 8000, rtol=0.1)
    assert power[outside].mean() < 1e-3 * power[inside].mean()


def test_a_filter_that_stands_still_is_a_convolution(audio):
    gains = 0.5 + 0.4 * np.cos(np.pi * 4 * np.arange(33) / 32)  # taps of 0.5 and, 4 to either side, of 0.2
    fir = effects.FIRFilter(window_size=32, scale_fn=None)
    impulse = np.zeros([1, N], np.float32)
    impulse[0, 800] = 1.0
    response = np.float64(fir(impulse, constant(gains))[0])
    response = response[800 - 40 : 800 + 41]  # linear phase, around the impulse
    np.testing.assert_allclose(response, response[::-1], atol=1e-6)
    expected = scipy.signal.convolve(np.float64(audio), response[None], mode='same')
    found = fir(audio, np.repeat(constant(gains), 2, axis=0))
    np.testing.assert_allclose(found, expected, atol=1e-4)
    window = 0.5 + 0.5 * np.cos(2 * np.pi * 4 / 32)  # Hann's, at a distance of 4
    taps = np.zeros(81)
    taps[[36, 40, 44]] = 0.2 * window, 0.5, 0.2 * window
    np.testing.assert_allclose(response, taps, atol=1e-6)


LINEAR = {
    'fir': (effects.FIRFilter(33, scale_fn=None), [np.random.default_rng(1).random([2, FRAMES, 17])]),
    'reverb': (effects.Reverb(), [np.random.default_rng(2).normal(size=[2, 90])]),
    'decay': (effects.ExpDecayReverb(reverb_length=90), [np.ones([2, 1]), np.zeros([2, 1])]),
    'noise': (effects.FilteredNoiseReverb(reverb_length=90), [np.ones([2, 5, 9])]),
    'delay': (effects.ModDelay(), [np.ones([2, N, 1]), np.random.default_rng(3).normal(size=[2, N, 1])]),
    'crop': (processors.Crop(64), []),
}


@pytest.mark.parametrize('name', LINEAR)
def test_effects_are_linear_in_the_audio(name, audio, value_and_gradients):
    effect, controls = LINEAR[name]
    controls = [np.float32(c) for c in controls]
    one, other = np.float64(effect(audio, *controls)), np.float64(effect(audio[:, ::-1].copy(), *controls))
    mixed = effect(0.5 * audio - 2.0 * audio[:, ::-1], *controls)
    np.testing.assert_allclose(mixed, 0.5 * one - 2.0 * other, atol=2e-4)
    # Its gradient is the transpose: <A x, y> = <x, A' y>.
    y = np.random.default_rng(9).normal(size=one.shape).astype(np.float32)
    _, (transposed,) = value_and_gradients(lambda x: ops.sum(effect(x, *controls) * y), audio)
    assert np.vdot(one, y) == pytest.approx(np.vdot(np.float64(audio), transposed), rel=1e-3, abs=0.05)


@pytest.mark.parametrize('shape', [(2, 70), (1, 70), (2, 70, 1)])
def test_a_reverb_is_a_convolution_behind_the_dry_signal(shape, audio, rng):
    ir = rng.normal(size=shape).astype(np.float32)
    taps = np.broadcast_to(np.float64(ir).reshape(shape[0], 70), (2, 70)).copy()
    taps[:, 0] = 0.0
    wet = np.stack([scipy.signal.fftconvolve(x, h)[:N] for x, h in zip(np.float64(audio), taps, strict=True)])
    np.testing.assert_allclose(effects.Reverb(add_dry=False)(audio, ir), wet, atol=1e-4)
    np.testing.assert_allclose(effects.Reverb()(audio, ir), audio + wet, atol=1e-4)


def test_a_room_decays_exponentially(audio):
    room = effects.ExpDecayReverb(reverb_length=400, scale_fn=lambda x: x)

    def response(gain, decay):
        controls = room.get_controls(audio[:1], np.float32([[gain]]), np.float32([[decay]]))
        return np.float64(controls['ir'][0])

    slow, fast = response(1.0, 0.0), response(3.0, np.log(5.0))
    time = np.linspace(0, 1, 400)
    np.testing.assert_allclose(fast, 3.0 * slow * np.exp(-4.0 * time), atol=1e-6)
    level = rms(slow.reshape(8, 50))
    np.testing.assert_allclose(np.diff(np.log(level)).mean(), -3.0 / 8, rtol=0.1)  # 2 + exp(0)
    other = effects.ExpDecayReverb(reverb_length=400, scale_fn=lambda x: x, seed=7)
    assert np.abs(np.corrcoef(other.get_controls(audio[:1], [[1.0]], [[0.0]])['ir'][0], slow)[0, 1]) < 0.2


def test_a_room_of_noise_has_the_bands_and_the_shape_in_time(audio):
    bands = np.full([1, 10, 65], -20.0, np.float32)
    bands[:, :5, :16] = 8.0  # below 2 kHz, in the first half
    room = effects.FilteredNoiseReverb(reverb_length=8000)
    response = np.float64(room.get_controls(audio[:1], bands)['ir'][0])
    assert rms(response[5000:]) < 1e-2 * rms(response[:3000])
    hz, power = scipy.signal.welch(response[:3000], RATE, nperseg=256)
    assert power[hz > 2500].mean() < 1e-3 * power[hz < 1500].mean()
    learned = effects.FilteredNoiseReverb(trainable=True, reverb_length=50, n_frames=4, n_filter_banks=9)
    assert [tuple(w.shape) for w in learned.trainable_variables] == [(4, 9)]


def test_a_delay_between_two_samples_is_between_their_values(audio):
    delay = effects.ModDelay(
        center_ms=10, depth_ms=5, gain_scale_fn=None, phase_scale_fn=None, add_dry=False
    )  # 160 to 240 samples
    ones = np.ones([2, N, 1], np.float32)
    found = np.asarray(delay(audio, 0.7 * ones, (10.25 / 80) * ones))
    expected = 0.7 * (0.75 * np.roll(audio, 170, axis=1) + 0.25 * np.roll(audio, 171, axis=1))
    np.testing.assert_allclose(found[:, 200:], expected[:, 200:], atol=2e-3)
    assert np.abs(found[:, :169]).max() < 1e-6  # before the first sample there is silence
    silent = effects.ModDelay(gain_scale_fn=None)(audio, 0.0 * ones, ones)
    np.testing.assert_array_equal(silent, audio)


def test_mix_and_add_are_sums(audio, rng):
    one, other = audio[:1], audio[1:]
    np.testing.assert_array_equal(processors.Add()(one, other), one + other)
    level = rng.normal(size=[1, FRAMES, 1]).astype(np.float32)
    share = 1.0 / (1.0 + np.exp(-np.float64(level[0, :, 0])))
    share = np.interp(np.arange(N), np.arange(0, N, N // FRAMES), share)
    found = processors.Mix()(one, other, level)
    np.testing.assert_allclose(found, np.sqrt(share) * one + np.sqrt(1 - share) * other, atol=1e-4)
