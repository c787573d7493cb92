"""Frames: counts, padding, positions, windows."""

import numpy as np
import pytest
import scipy.signal
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops

from ddsp import spectral_ops
from ddsp.analysis import framing
from ddsp.errors import ConfigError
from ddsp.spectral_ops.frames import frame_at_rate, to_mono

pytestmark = pytest.mark.portable


@given(n=st.integers(1, 5000), hop=st.integers(1, 300), factor=st.integers(1, 8))
def test_frame_counts_follow_their_definitions(n, hop, factor):
    frame_size = hop * factor
    same, same_length = spectral_ops.get_framed_lengths(n, frame_size, hop, 'same')
    center, center_length = spectral_ops.get_framed_lengths(n, frame_size, hop, 'center')
    assert same == int(np.ceil(n / hop))
    assert center == n // hop + 1
    # The last frame lies inside the padded signal, and one more would not.
    assert (same - 1) * hop + frame_size == same_length
    assert (center - 1) * hop + frame_size <= center_length < center * hop + frame_size
    if n >= frame_size:
        valid, valid_length = spectral_ops.get_framed_lengths(n, frame_size, hop, 'valid')
        assert valid_length == n
        assert (valid - 1) * hop + frame_size <= n < valid * hop + frame_size


@pytest.mark.parametrize('padding', ['same', 'center', 'valid'])
@pytest.mark.parametrize('shape', [(1000,), (2, 1000), (2, 1000, 3)])
def test_pad_gives_the_promised_length_and_keeps_the_signal(padding, shape, rng):
    x = rng.standard_normal(shape).astype(np.float32)
    padded = ops.convert_to_numpy(spectral_ops.pad(x, 256, 64, padding))
    axis = 0 if len(shape) == 1 else 1
    length = spectral_ops.get_framed_lengths(1000, 256, 64, padding)[1]
    assert padded.shape == (*shape[:axis], length, *shape[axis + 1 :])
    start = 128 if padding == 'center' else 0
    kept = np.take(padded, np.arange(start, start + min(1000, length - start)), axis=axis)
    np.testing.assert_array_equal(kept, np.take(x, np.arange(kept.shape[axis]), axis=axis))


def test_pad_modes_match_numpy(rng):
    x = rng.standard_normal((2, 100)).astype(np.float32)
    for mode in ('CONSTANT', 'REFLECT', 'SYMMETRIC'):
        padded = spectral_ops.pad(x, 32, 8, 'center', mode=mode)
        np.testing.assert_array_equal(padded, np.pad(x, [(0, 0), (16, 16)], mode=mode.lower()))
    padded = ops.convert_to_numpy(spectral_ops.pad(x, 32, 8, 'center', constant_values=-1.0))
    assert (padded[:, :16] == -1.0).all()


@pytest.mark.parametrize(
    ('frame_size', 'hop', 'pad_end'),
    [(64, 16, True), (64, 16, False), (64, 64, True), (100, 30, True), (100, 30, False), (60, 7, True)],
)
def test_frames_are_the_slices_of_the_signal(frame_size, hop, pad_end, rng):
    x = rng.standard_normal((2, 451)).astype(np.float32)
    padded = np.pad(x, [(0, 0), (0, frame_size)]) if pad_end else x
    n_frames = -(-451 // hop) if pad_end else (451 - frame_size) // hop + 1
    expected = np.stack([padded[:, i * hop : i * hop + frame_size] for i in range(n_frames)], axis=1)
    np.testing.assert_array_equal(spectral_ops.frame(x, frame_size, hop, pad_end), expected)


@settings(deadline=None, max_examples=15)
@given(
    n=st.integers(1100, 4000),
    sample_rate=st.sampled_from([16000, 22050, 32000, 44100, 48000]),
    frame_rate=st.sampled_from([50, 100, 187.5, 250]),
    padding=st.sampled_from(['same', 'center', 'valid']),
)
def test_frames_at_a_rate_never_drift(n, sample_rate, frame_rate, padding):
    ramp = np.arange(1, n + 1, dtype=np.float32)  # sample i holds i + 1, padding holds 0
    frames = ops.convert_to_numpy(frame_at_rate(ramp, sample_rate, frame_rate, 1024, padding))
    offset = 512 if padding == 'center' else 0
    hop = sample_rate / frame_rate
    for i in range(len(frames)):
        # Find where the frame starts from a sample that it holds.
        inside = np.flatnonzero(frames[i])[0]
        start = frames[i][inside] - 1 - inside + offset
        assert abs(start - i * hop) <= 0.5 + 1e-6
    expected = {
        'same': int(np.ceil(n / hop)), 'center': int(n / hop) + 1, 'valid': int((n - 1024) / hop) + 1,
    }  # fmt: skip
    assert len(frames) == expected[padding]


def test_hann_window_is_the_periodic_one():
    for size in (4, 64, 511, 512):
        np.testing.assert_allclose(
            framing.hann_window(size), scipy.signal.get_window('hann', size), atol=1e-7
        )


def test_pad_or_trim(rng):
    x = rng.standard_normal((2, 100)).astype(np.float32)
    for use_tf in (False, True):
        longer = spectral_ops.pad_or_trim_to_expected_length(x, 110, pad_value=0.5, use_tf=use_tf)
        np.testing.assert_array_equal(longer, np.pad(x, [(0, 0), (0, 10)], constant_values=0.5))
        shorter = spectral_ops.pad_or_trim_to_expected_length(x[0], 95, use_tf=use_tf)
        np.testing.assert_array_equal(shorter, x[0, :95])
    with pytest.raises(ConfigError, match=r'length 100.*expected_len=150.*len_tolerance=20'):
        spectral_ops.pad_or_trim_to_expected_length(x, 150)


def test_what_cannot_be_framed_is_named():
    with pytest.raises(ConfigError, match=r"padding is 'full'; it can be 'same', 'valid', 'center'"):
        spectral_ops.get_framed_lengths(100, 10, 5, 'full')
    with pytest.raises(ConfigError, match=r'hop_size is 20 samples with frame_size=10'):
        spectral_ops.pad(np.zeros((1, 100)), 10, 20)
    with pytest.raises(ConfigError, match=r"mode is 'wrap'; it can be 'CONSTANT', 'REFLECT', 'SYMMETRIC'"):
        spectral_ops.pad(np.zeros((1, 100)), 20, 10, mode='wrap')
    with pytest.raises(
        ConfigError, match=r'audio has shape \(1, 100, 2\): \[batch, n_samples, 1\] is needed'
    ):
        to_mono(np.zeros((1, 100, 2)))
    with pytest.raises(ConfigError, match=r'audio has 100 samples, less than one frame of 512'):
        frame_at_rate(np.zeros(100), 16000, 250, 512, 'valid')
    with pytest.raises(ConfigError, match=r'sample_rate=16000 and frame_rate=0 must be above 0'):
        frame_at_rate(np.zeros(1000), 16000, 0, 512, 'same')
