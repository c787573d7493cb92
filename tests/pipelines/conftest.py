"""Recordings for the pipeline's tests."""

import numpy as np
import pytest

from ddsp.audio import write_wav


def melody(seconds, hz, rate=16000):
    """A harmonic tone with vibrato, level and pitch of its own."""
    t = np.arange(int(seconds * rate)) / rate
    f0 = hz * 2 ** (0.3 / 12 * np.sin(2 * np.pi * 5 * t))
    phase = 2 * np.pi * np.cumsum(f0) / rate
    level = 0.2 + 0.15 * np.sin(2 * np.pi * 0.7 * t)
    return level * sum(np.sin(k * phase) / k for k in range(1, 7))


@pytest.fixture(scope='session')
def folder(tmp_path_factory):
    """Six recordings of 6 s each."""
    path = tmp_path_factory.mktemp('recordings')
    for i, hz in enumerate([196, 233, 277, 330, 392, 466]):
        write_wav(path / f'note_{i}.wav', melody(6, hz), 16000)
    return path
