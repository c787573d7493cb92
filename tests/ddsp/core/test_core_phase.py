"""Phase against extended precision: it does not drift."""

import numpy as np
import pytest
from keras import ops

from ddsp.core.kernels import phase

pytestmark = pytest.mark.portable
MAX_RADIANS = 1e-4  # of harmonic 100, after ten minutes


def turns_error(found, exact):
    turns = sum(np.asarray(ops.convert_to_numpy(part), np.float64) for part in found[:2]) * 2.0**-32
    error = turns - np.float64(exact - np.round(exact))
    return np.abs(error - np.round(error)).max()


@pytest.mark.parametrize(
    ('sample_rate', 'hop', 'frame_rate'), [(16000, 64, 250), (44100, 147, 300), (48000, 192, 250)]
)
@pytest.mark.parametrize('kind', ['vibrato', 'constant', 'jumps'])
def test_ten_minutes_from_frames(sample_rate, hop, frame_rate, kind):
    n_frames = 600 * frame_rate
    time = np.arange(n_frames) / frame_rate
    f0 = {
        'vibrato': 70.0 + 9.0 * np.sin(2 * np.pi * 5.3 * time),
        'constant': np.full(n_frames, 69.9),
        'jumps': np.exp(np.random.default_rng(0).uniform(3.0, 4.4, n_frames)),
    }[kind].astype(np.float32)
    half = phase.Phase.per_sample(ops.convert_to_tensor(f0[None]) / 2.0, float(sample_rate))
    found = phase.frame_starts(half, hop)
    exact = f0.astype(np.longdouble)
    change = np.append(exact[1:], exact[-1:]) - exact
    per_frame = (hop * exact + change * (hop - 1) / 2) / sample_rate
    starts = np.cumsum(per_frame) - per_frame
    error = turns_error(found, starts[None])
    assert 2 * np.pi * 100 * error < MAX_RADIANS


@pytest.mark.parametrize('hz', [69.9, 78.123456])
def test_ten_minutes_from_samples(hz):
    frequency = np.full([1, 600 * 16000], hz, np.float32)
    found = phase.Phase.per_sample(ops.convert_to_tensor(frequency), 16000.0).cumsum()
    at = np.linspace(0, frequency.size - 1, 10001).astype(np.int64)
    exact = (at + 1) * (frequency[0, 0].astype(np.longdouble) / 16000)
    error = turns_error(found.map(lambda part: ops.take(part, at, axis=1)), exact[None])
    assert 2 * np.pi * 100 * error < MAX_RADIANS


def test_phase_within_frames_is_that_of_samples():
    f0 = np.random.default_rng(1).uniform(50.0, 900.0, [2, 30]).astype(np.float32)
    hop = 48
    found = phase.from_frames(ops.convert_to_tensor(f0), 30 * hop, 16000)
    after = np.concatenate([f0[:, 1:], f0[:, -1:]], 1).astype(np.float64)
    samples = (f0[..., None] + (after - f0)[..., None] * np.arange(hop) / hop).reshape(2, -1)
    exact = np.cumsum(samples / 16000.0, axis=1)
    assert turns_error(found, exact) < 1e-7
