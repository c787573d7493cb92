"""Where frames of pitch lie, what is silent around them, and moving a track to another grid."""

from fractions import Fraction

import numpy as np
import pytest

from ddsp.errors import ConfigError
from ddsp.f0 import framing


@pytest.mark.parametrize(('rate', 'frame_rate'), [(16000, 250), (44100, 250), (48000, 187.5), (16000, 300)])
def test_frames_are_counted_exactly(rate, frame_rate):
    hop = Fraction(rate) / Fraction(frame_rate)
    for n in [0, 1, int(hop), int(hop) + 1, 7 * int(hop), 12345, int(100 * hop)]:
        same, centre = (framing.count_frames(n, rate, frame_rate, p) for p in ('same', 'center'))
        assert same == -(-n // hop)
        assert centre == n // hop + 1


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'padding': 'valid'}, r"padding must be one of \('same', 'center'\), got 'valid'"),
        ({'frame_rate': 0}, 'frame_rate must be above 0 and up to the sample rate 16000, got 0'),
        ({'frame_rate': 16001}, 'got 16001'),
    ],
)
def test_other_frames_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        framing.count_frames(**{'n_samples': 1, 'sample_rate': 16000, 'frame_rate': 250, **options})


@pytest.mark.parametrize('frame_rate', [250, 300, 441])
@pytest.mark.parametrize('window', [8, 9])
def test_windows_are_centred_and_end_in_zeros(frame_rate, window):
    audio = np.arange(1.0, 1001.0)
    frames = framing.window_audio(audio, 20, frame_rate, window)
    padded = np.concatenate([np.zeros(100), audio, np.zeros(100)])
    for i in range(20):
        centre = int(np.floor(i * 16000 / frame_rate + 0.5))
        if centre < 1090:
            start = 100 + centre - window // 2
            np.testing.assert_array_equal(frames[i], padded[start : start + window])
    assert framing.window_audio(audio, 0, frame_rate, window).shape == (0, window)


def test_silence_has_no_confidence_within_64_ms():
    audio = np.zeros(16000, np.float32)
    audio[8000:8200] = 0.1
    confidence = framing.mark_silence(audio, np.full(250, 0.9, np.float32), 250)
    times = np.arange(250) * 64
    heard = (times + 512 > 8000) & (times - 512 < 8200)
    np.testing.assert_array_equal(confidence, np.where(heard, np.float32(0.9), 0))
    for level, kept in ((3e-5, True), (1e-5, False)):  # -94 dB lies between them
        marked = framing.mark_silence(np.full(16000, level), np.ones(250), 250)
        assert (marked[20:-20] == kept).all()


def test_mean_square_counts_what_is_beyond_the_ends_as_silence(rng):
    audio = rng.normal(size=5000)
    padded = np.pad(audio, 512)
    expected = [np.mean(padded[i * 160 : i * 160 + 1024] ** 2) for i in range(31)]
    np.testing.assert_allclose(framing.mean_square(audio, 31, 100), expected, rtol=1e-9)


def test_pauses_are_bridged_in_octaves_and_held_at_the_ends():
    f0_hz = np.array([0.0, 0.0, 100.0, 7.0, 7.0, 7.0, 400.0, 0.0])
    voiced = np.array([False, False, True, False, False, False, True, False])
    found = framing.fill_unvoiced(f0_hz, voiced)
    half = 100 * 2**0.5
    np.testing.assert_allclose(found, [100, 100, 100, half, 200, 2 * half, 400, 400], rtol=1e-6)
    np.testing.assert_array_equal(framing.fill_unvoiced(f0_hz, np.zeros(8, bool)), np.zeros(8))
    assert framing.fill_unvoiced(f0_hz.astype(np.float32), voiced).dtype == np.float32


@pytest.mark.parametrize(('rate', 'new'), [(250, 100), (100, 250), (250, 250), (187.5, 250)])
def test_a_glide_keeps_its_pitch_on_another_grid(rate, new):
    frames = np.arange(200)
    f0_hz = (110 * 2 ** (frames / rate)).astype(np.float32)  # an octave a second
    confidence = np.linspace(0.6, 1.0, 200).astype(np.float32)
    n = int(199 * new / rate)
    found, sure = framing.interpolate_track(f0_hz, confidence, rate, new, n)
    np.testing.assert_allclose(found, 110 * 2 ** (np.arange(n) / new), rtol=1e-5)
    np.testing.assert_allclose(sure, 0.6 + 0.4 * np.arange(n) * rate / new / 199, atol=1e-5)


def test_the_edge_of_a_note_keeps_its_own_pitch():
    """Between a voiced frame and one that is not, nothing of the other's pitch is mixed in."""
    f0_hz = np.array([50.0, 50.0, 440.0, 440.0, 900.0], np.float32)
    confidence = np.array([0.1, 0.1, 0.9, 0.9, 0.2], np.float32)
    found, _ = framing.interpolate_track(f0_hz, confidence, 100, 400, 20)
    np.testing.assert_allclose(found[:5], 50.0, rtol=1e-5)
    np.testing.assert_allclose(found[5:16], 440.0, rtol=1e-5)
    np.testing.assert_allclose(found[16:], 900.0, rtol=1e-5)  # held beyond the end
    low, _ = framing.interpolate_track(f0_hz, confidence, 100, 400, 20, voiced_from=0.05)
    assert 50 < low[6] < 440  # all are voiced: straight in log frequency
    assert low[6] == pytest.approx((50 * 440) ** 0.5, rel=1e-4)


def test_no_pitch_stays_no_pitch():
    f0_hz = np.array([0.0, 0.0, 0.0, 220.0], np.float32)
    confidence = np.array([0.9, 0.9, 0.0, 0.9], np.float32)
    found, _ = framing.interpolate_track(f0_hz, confidence, 100, 300, 10)
    np.testing.assert_allclose(found, [0.0] * 7 + [220.0] * 3, rtol=1e-5)
