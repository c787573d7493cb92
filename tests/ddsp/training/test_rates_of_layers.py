"""Layers at 48 kHz hear what they hear at 16 kHz."""

import keras
import numpy as np
import pytest

from ddsp import losses
from ddsp.training import encoders


def _sound(sample_rate, seed=0):
    """A second of tones below 7 kHz that come and go, as it would be recorded at any rate."""
    rng = np.random.default_rng(seed)
    time = np.arange(sample_rate) / sample_rate
    tones = [
        rng.uniform(0.2, 1.0) * np.sin(2 * np.pi * hz * time) * (1 + np.sin(2 * np.pi * rate * time))
        for hz, rate in zip(rng.uniform(60, 7000, 80), rng.uniform(1, 6, 80), strict=True)
    ]
    return (0.01 * np.sum(tones, axis=0)).astype(np.float32)[None]


@pytest.mark.parametrize('sample_rate', [44100, 48000])
def test_mfccs_are_those_of_16_khz(sample_rate):
    expected = np.asarray(encoders._mfccs(_sound(16000), 16000, 1024, 0.75))
    found = np.asarray(encoders._mfccs(_sound(sample_rate), sample_rate, 1024, 0.75))
    n = min(found.shape[1], expected.shape[1]) - 4  # the last windows reach beyond the end
    found, expected = ((x - x.mean(1, keepdims=True))[:, :n] for x in (found, expected))
    assert np.corrcoef(found.ravel(), expected.ravel())[0, 1] > 0.98


@pytest.mark.parametrize('kind', [encoders.MfccTimeDistributedRnnEncoder, encoders.MfccRnnEncoder])
def test_encoders_hear_the_same_at_48_khz(kind):
    z = []
    for rate in (16000, 48000):
        keras.utils.set_random_seed(0)
        options = {'mean_aggregate': True} if kind is encoders.MfccRnnEncoder else {}
        encoder = kind(rnn_channels=8, z_dims=32, sample_rate=rate, **options)
        inputs = {'audio': _sound(rate), 'f0_scaled': np.zeros([1, 60, 1], np.float32)}
        z.append(np.asarray(encoder(inputs)['z'])[:, :50].ravel())
    assert np.corrcoef(*z)[0, 1] > 0.95


@pytest.mark.parametrize('sample_rate', [44100, 48000])
def test_loudness_in_the_loss_is_that_of_16_khz(sample_rate):
    terms = []
    for rate in (16000, sample_rate):
        loss = losses.SpectralLoss(mag_weight=0.0, loudness_weight=1.0, sample_rate=rate)
        low, high = (np.sin(2 * np.pi * hz * np.arange(rate) / rate)[None] for hz in (100, 1000))
        terms.append(float(loss(low, high)))  # 19.1 dB of A-weighting lie between them
    assert terms[0] == pytest.approx(19.1, abs=1.0)
    assert terms[1] == pytest.approx(terms[0], rel=0.02)
    again = losses.SpectralLoss.from_config(loss.get_config())
    assert again.sample_rate == sample_rate
