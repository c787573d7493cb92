"""Loudness, RMS energy and power against librosa and plain float64 sums."""

import numpy as np
import pytest
from keras import ops

from ddsp import spectral_ops
from ddsp.analysis import loudness
from ddsp.errors import ConfigError

pytestmark = pytest.mark.portable


@pytest.fixture(scope='module')
def audio() -> np.ndarray:
    rng = np.random.default_rng(0)
    fade = np.linspace(0, 1, 8000) ** 4
    return (rng.uniform(-1, 1, (2, 8000)) * fade).astype(np.float32)


def reference_loudness(audio, sample_rate, frame_rate, n_fft, center):
    """Loudness in float64, frame by frame, with librosa's A-weighting."""
    librosa = pytest.importorskip('librosa')
    hop = sample_rate / frame_rate
    padded = np.pad(audio.astype(np.float64), (n_fft // 2 if center else 0, n_fft))
    n_frames = int(len(audio) / hop) + 1 if center else int(np.ceil(len(audio) / hop))
    weighting = librosa.A_weighting(librosa.fft_frequencies(sr=sample_rate, n_fft=n_fft))
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n_fft) / n_fft)
    result = []
    for i in range(n_frames):
        start = int(np.floor(i * hop + 0.5))
        power = np.abs(np.fft.rfft(padded[start : start + n_fft] * window)) ** 2
        result.append(10 * np.log10(max(1e-8, np.mean(power * 10 ** (weighting / 10)))))
    return np.maximum(result, -80)


def test_a_weighting_is_librosas():
    librosa = pytest.importorskip('librosa')
    frequencies = np.linspace(0, 24000, 1000)
    np.testing.assert_allclose(
        loudness.a_weighting_db(frequencies), librosa.A_weighting(frequencies), atol=1e-4
    )


@pytest.mark.parametrize(
    ('sample_rate', 'frame_rate', 'n_fft'),
    [
        (16000, 250, 512),
        (16000, 250, 2048),
        (16000, 100, 1000),
        (44100, 250, 512),
        (48000, 250, 1024),
        (22050, 50, 512),
    ],
)
@pytest.mark.parametrize('padding', ['center', 'same'])
def test_loudness_on_both_paths(audio, sample_rate, frame_rate, n_fft, padding):
    expected = reference_loudness(audio[0], sample_rate, frame_rate, n_fft, padding == 'center')
    for use_tf in (True, False):
        result = spectral_ops.compute_loudness(
            audio, sample_rate, frame_rate, n_fft, use_tf=use_tf, padding=padding
        )
        result = ops.convert_to_numpy(result)
        assert result.shape == (2, len(expected))
        np.testing.assert_allclose(result[0], expected, atol=2e-3)


def test_documented_values():
    sine = np.sin(2 * np.pi * 1000 * np.arange(64000) / 16000).astype(np.float32)
    level = ops.convert_to_numpy(spectral_ops.compute_loudness(sine))
    assert level.shape == (1001,)
    np.testing.assert_allclose(level[10:-10], 19.8, atol=0.05)
    np.testing.assert_array_equal(
        spectral_ops.compute_loudness(np.zeros((1, 2000), np.float32)), np.full((1, 32), -80)
    )  # 6.02 dB for twice the amplitude, and ref_db is subtracted.
    half = ops.convert_to_numpy(spectral_ops.compute_loudness(sine / 2, ref_db=5.0))
    np.testing.assert_allclose(half[10:-10], level[10:-10] - 6.0206 - 5.0, atol=1e-3)


@pytest.mark.parametrize('sample_rate', [16000, 22050, 44100, 48000])
def test_the_time_axis_holds_at_every_sample_rate(sample_rate):
    # Upstream rounds the hop down: 2 s at 44.1 kHz become 502 frames, and clicks arrive ever later.
    clicks = np.zeros(2 * sample_rate, np.float32)
    times = np.array([0.25, 1.0, 1.75])
    clicks[(times * sample_rate).astype(int)] = 1.0
    level = ops.convert_to_numpy(spectral_ops.compute_loudness(clicks, sample_rate, 250))
    assert level.shape == (501,)
    found = [np.flatnonzero(level[i - 20 : i + 20] > -70).mean() + i - 20 for i in (times * 250).astype(int)]
    np.testing.assert_allclose(np.array(found) / 250, times, atol=0.003)


@pytest.mark.parametrize('padding', ['center', 'same', 'valid'])
def test_rms_energy_and_power(audio, padding):
    rms = ops.convert_to_numpy(spectral_ops.compute_rms_energy(audio, padding=padding))
    padded = np.pad(audio.astype(np.float64), [(0, 0), (256 if padding == 'center' else 0, 512)])
    expected = [np.sqrt((padded[:, i * 64 : i * 64 + 512] ** 2).mean(-1)) for i in range(rms.shape[1])]
    np.testing.assert_allclose(rms, np.stack(expected, 1), atol=1e-6)
    assert rms.shape[1] == {'center': 126, 'same': 125, 'valid': 118}[padding]
    power = ops.convert_to_numpy(spectral_ops.compute_power(audio, ref_db=3.0, padding=padding))
    # The floor counts twice: before and after ref_db is subtracted.
    decibels = 20 * np.log10(np.maximum(1e-4, expected)).T - 3.0
    np.testing.assert_allclose(power, np.maximum(-80, decibels), atol=1e-3)


@pytest.mark.parametrize('function', ['compute_rms_energy', 'compute_power', 'compute_loudness'])
def test_gradients(audio, function, value_and_gradients):
    feature = getattr(spectral_ops, function)
    x = audio[:1, 4000:5000]
    direction = np.random.default_rng(1).standard_normal(x.shape).astype(np.float32)
    _, (gradient,) = value_and_gradients(lambda a: ops.mean(feature(a)), x)
    step = 1e-3
    ahead, behind = (float(ops.mean(feature(x + sign * step * direction))) for sign in (1, -1))
    np.testing.assert_allclose(
        (gradient * direction).sum(), (ahead - behind) / (2 * step), rtol=2e-2, atol=1e-4
    )
    _, (at_silence,) = value_and_gradients(lambda a: ops.mean(feature(a)), np.zeros((1, 1000)))
    assert np.isfinite(at_silence).all()


def test_long_audio_is_the_same_in_pieces(rng):
    # The numpy path works through 256 frames at a time.
    audio = rng.uniform(-1, 1, 64 * 5000).astype(np.float32)
    whole = loudness.loudness_db(audio, padding='valid')
    part = loudness.loudness_db(audio[64 * 2000 : 64 * 4000], padding='valid')
    np.testing.assert_allclose(whole[2000 : 2000 + len(part)], part, atol=1e-4)


def test_a_real_violin_is_loud_where_it_plays(recordings):
    soundfile = pytest.importorskip('soundfile')
    path = min(recordings.glob('*violin*.wav'))
    audio, rate = soundfile.read(path, dtype='float32', frames=10 * 48000)
    audio = audio if audio.ndim == 1 else audio.mean(1)
    level = spectral_ops.compute_loudness(audio, rate, 250, use_tf=False)
    tensor = ops.convert_to_numpy(spectral_ops.compute_loudness(audio, rate, 250))
    np.testing.assert_allclose(level, tensor, atol=5e-3)
    rms = ops.convert_to_numpy(spectral_ops.compute_power(audio, rate, 250))
    sounding = rms > -60
    assert sounding.any()
    assert np.corrcoef(level[sounding], rms[sounding])[0, 1] > 0.7


def test_what_has_no_loudness_is_named(audio):
    for use_tf in (True, False):
        with pytest.raises(
            ConfigError, match=r'n_fft is 511; an even number of samples is needed, such as 512'
        ):
            spectral_ops.compute_loudness(audio, n_fft=511, use_tf=use_tf)
        with pytest.raises(ConfigError, match=r"padding is 'middle'; it can be 'same', 'valid', 'center'"):
            spectral_ops.compute_loudness(audio, padding='middle', use_tf=use_tf)
        with pytest.raises(ConfigError, match=r'hop_size is 1600.0 samples with frame_size=512'):
            spectral_ops.compute_loudness(audio, frame_rate=10, use_tf=use_tf)
    with pytest.raises(ConfigError, match=r'audio has shape \(1, 2, 3\)'):
        spectral_ops.compute_loudness(np.zeros((1, 2, 3)), use_tf=False)
