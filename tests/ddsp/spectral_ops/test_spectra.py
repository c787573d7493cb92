"""Spectrograms against scipy and TensorFlow's own signal functions."""

import keras
import numpy as np
import pytest
import scipy.fft
import scipy.signal
from keras import ops

from ddsp import spectral_ops
from ddsp.errors import ConfigError
from ddsp.spectral_ops.spectra import mel_matrix

pytestmark = pytest.mark.portable


@pytest.fixture(scope='module')
def audio() -> np.ndarray:
    return np.random.default_rng(0).uniform(-1, 1, (2, 4000)).astype(np.float32)


def reference_stft(audio: np.ndarray, size: int, hop: int, n_fft: int, pad_end: bool = True) -> np.ndarray:
    """STFT in float64, frame by frame."""
    n_frames = -(-audio.shape[-1] // hop) if pad_end else (audio.shape[-1] - size) // hop + 1
    padded = np.pad(audio.astype(np.float64), [(0, 0), (0, size)])
    window = scipy.signal.get_window('hann', size)
    frames = [padded[:, i * hop : i * hop + size] * window for i in range(n_frames)]
    return scipy.fft.rfft(np.stack(frames, axis=1), n_fft)


@pytest.mark.parametrize(
    ('size', 'overlap', 'hop', 'n_fft'),
    [
        (512, 0.75, 128, 512),
        (64, 0.5, 32, 64),
        (1000, 0.936, 64, 1024),
        (300, 0.9, 30, 512),
        (512, 0.9, 51, 512),
    ],
)
@pytest.mark.parametrize('pad_end', [True, False])
def test_stft_is_the_windowed_fft(audio, size, overlap, hop, n_fft, pad_end):
    result = ops.convert_to_numpy(spectral_ops.stft(audio, size, overlap, pad_end))
    expected = reference_stft(audio, size, hop, n_fft, pad_end)
    assert result.dtype == np.complex64
    np.testing.assert_allclose(result, expected, atol=2e-5 * np.abs(expected).max())


def test_stft_agrees_with_scipy(audio):
    result = ops.convert_to_numpy(spectral_ops.stft(audio, 512, 0.75, pad_end=False))
    _, _, expected = scipy.signal.stft(audio, nperseg=512, noverlap=384, boundary=None, padded=False)
    scale = scipy.signal.get_window('hann', 512).sum()  # scipy divides by the gain of the window
    np.testing.assert_allclose(result, np.swapaxes(expected, 1, 2) * scale, atol=1e-3)


@pytest.mark.parametrize('shape', [(4000,), (2, 4000), (2, 4000, 1)])
def test_every_shape_of_audio_is_taken(audio, shape):
    x = audio[0] if len(shape) == 1 else audio.reshape(shape)
    mag = spectral_ops.compute_mag(x, 256)
    assert tuple(mag.shape) == ((63, 129) if len(shape) == 1 else (2, 63, 129))
    np.testing.assert_allclose(
        mag, spectral_ops.compute_mag(audio, 256)[0 if len(shape) == 1 else ...], atol=1e-4
    )


@pytest.mark.parametrize('size', [256, 300])
def test_numpy_stft_agrees_with_the_differentiable_one(audio, size):
    result = spectral_ops.stft_np(audio, size)
    expected = reference_stft(audio, size, size // 4, size)
    np.testing.assert_allclose(result, expected, atol=1e-4)
    assert spectral_ops.stft_np(audio[0], size).shape == expected.shape[1:]


def test_a_sine_peaks_at_its_bin_with_a_quarter_of_the_size():
    sine = np.sin(2 * np.pi * 1000 * np.arange(16000) / 16000)
    mag = ops.convert_to_numpy(spectral_ops.compute_mag(sine, 1024, pad_end=False))
    assert (mag.argmax(-1) == 1000 * 1024 // 16000).all()
    np.testing.assert_allclose(mag.max(-1), 256, rtol=1e-3)


def test_energy_is_kept(audio):
    # Parseval: the squared Hann windows at 75 % overlap sum to 1.5.
    mag = ops.convert_to_numpy(spectral_ops.compute_mag(np.pad(audio, [(0, 0), (768, 0)]), 1024)).astype(
        np.float64
    )
    energy = (2 * (mag**2).sum((1, 2)) - (mag[..., 0] ** 2 + mag[..., -1] ** 2).sum(1)) / 1024
    np.testing.assert_allclose(energy, 1.5 * (audio.astype(np.float64) ** 2).sum(1), rtol=1e-5)


def test_logmag_is_the_logarithm_with_a_floor_for_zero(audio):
    x = np.concatenate([audio, np.zeros_like(audio)], axis=1)
    mag = ops.convert_to_numpy(spectral_ops.compute_mag(x, 256))
    logmag = ops.convert_to_numpy(spectral_ops.compute_logmag(x, 256))
    np.testing.assert_allclose(logmag[mag > 0], np.log(mag[mag > 0]), atol=1e-4)
    np.testing.assert_allclose(logmag[mag == 0], np.log(1e-5), rtol=1e-6)
    assert (mag == 0).any()


@pytest.mark.parametrize(
    ('bands', 'rate', 'lo', 'hi'), [(64, 16000, 0.0, 8000.0), (229, 16000, 80, 7600), (80, 48000, 20, 20000)]
)
def test_mel_filters_are_those_of_tensorflow(bands, rate, lo, hi):
    tf = pytest.importorskip('tensorflow')
    expected = tf.signal.linear_to_mel_weight_matrix(bands, 1025, rate, lo, hi, dtype=tf.float64)
    np.testing.assert_allclose(mel_matrix(bands, 1025, rate, lo, hi), expected, atol=1e-6)


def test_mel_log_mel_and_mfcc_are_built_on_each_other(audio):
    mag = ops.convert_to_numpy(spectral_ops.compute_mag(audio, 512))
    mel = ops.convert_to_numpy(spectral_ops.compute_mel(audio, 20.0, 8000.0, 40, 512))
    np.testing.assert_allclose(mel, mag @ mel_matrix(40, 257, 16000, 20.0, 8000.0), rtol=1e-4, atol=1e-4)
    logmel = ops.convert_to_numpy(spectral_ops.compute_logmel(audio, 20.0, 8000.0, 40, 512))
    mfcc = ops.convert_to_numpy(spectral_ops.compute_mfcc(audio, 20.0, 8000.0, 512, 40, 13))
    expected = scipy.fft.dct(logmel.astype(np.float64), type=2) / np.sqrt(2 * 40)
    np.testing.assert_allclose(mfcc, expected[..., :13], atol=1e-4)


def test_a_whistle_moves_up_the_mel_bands():
    t = np.arange(32000) / 16000
    glide = scipy.signal.chirp(t, 200, 2, 6000, method='logarithmic')
    peaks = ops.convert_to_numpy(spectral_ops.compute_logmel(glide, pad_end=False)).argmax(-1)
    assert (np.diff(peaks) >= 0).all()
    assert peaks[0] < 5
    assert peaks[-1] > 50


def test_gradient_of_magnitudes(audio, value_and_gradients):
    rng = np.random.default_rng(1)
    weights = rng.standard_normal((1, 4, 33)).astype(np.float32)
    x = audio[:1, :64]
    _, (gradient,) = value_and_gradients(
        lambda a: ops.sum(ops.multiply(spectral_ops.compute_mag(a, 64), weights)), x
    )

    def in_float64(a):
        return (np.abs(reference_stft(a, 64, 16, 64)) * weights).sum()

    step = 1e-5
    expected = [
        (in_float64(x + step * np.eye(64)[i]) - in_float64(x - step * np.eye(64)[i])) / (2 * step)
        for i in range(64)
    ]
    np.testing.assert_allclose(gradient[0], expected, atol=1e-3)


@pytest.mark.parametrize('function', ['compute_mag', 'compute_logmag', 'compute_logmel', 'compute_mfcc'])
def test_gradients_are_finite_at_digital_silence(function, value_and_gradients):
    kwargs = {'size': 256} if 'mag' in function else {'fft_size': 256}
    silence = np.zeros((1, 1000), np.float32)
    value, (gradient,) = value_and_gradients(
        lambda a: ops.mean(getattr(spectral_ops, function)(a, **kwargs)), silence
    )
    assert np.isfinite(value)
    assert np.isfinite(gradient).all()


def test_compiled_is_eager(audio, compiled):
    def features(x):
        return (
            spectral_ops.compute_mag(x, 512),
            spectral_ops.compute_mfcc(x),
        )
        spectral_ops.compute_loudness(x)

    for eager, fast in zip(features(audio), compiled(features)(audio), strict=True):
        np.testing.assert_allclose(eager, fast, rtol=1e-3, atol=2e-3)


@pytest.mark.skipif(keras.backend.backend() != 'tensorflow', reason='only TensorFlow has unknown sizes')
def test_batch_and_length_may_be_unknown(audio):
    import tensorflow as tf

    @tf.function(input_signature=[tf.TensorSpec([None, None])])
    def features(x):
        loudness = [
            spectral_ops.compute_loudness(x, rate, padding=p)
            for rate in (16000, 44100)
            for p in ('same', 'center')
        ]
        return spectral_ops.compute_mag(x, 256), spectral_ops.compute_rms_energy(x), *loudness

    for n in (4000, 3001):
        x = audio[:, :n]
        expected = features.python_function(tf.constant(x))
        for unknown, known in zip(features(x), expected, strict=True):
            assert unknown.shape == known.shape
            np.testing.assert_allclose(unknown, known, rtol=1e-4, atol=1e-4)


def test_what_has_no_spectrum_is_named(audio):
    with pytest.raises(ConfigError, match=r'overlap is 1.0; it is a share of the frame'):
        spectral_ops.stft(audio, 512, overlap=1.0)
    with pytest.raises(ConfigError, match=r'audio has 4000 samples, less than one frame of 8192'):
        spectral_ops.compute_mag(audio, 8192, pad_end=False)
    with pytest.raises(ConfigError, match=r'less than one frame of 8192'):
        spectral_ops.stft_np(audio, 8192, pad_end=False)
    with pytest.raises(ConfigError, match=r'hi_hz=9000.*8000.0 \(half of sample_rate=16000\)'):
        spectral_ops.compute_mel(audio, hi_hz=9000)
    with pytest.raises(ConfigError, match=r'mfcc_bins is 30; it can be 1 to mel_bins=20'):
        spectral_ops.compute_mfcc(audio, mel_bins=20, mfcc_bins=30)
    with pytest.raises(ConfigError, match=r'audio has shape \(2, 2, 2, 2\)'):
        spectral_ops.stft(np.zeros((2, 2, 2, 2)))
