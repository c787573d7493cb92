"""A training begins on JAX, goes on with TensorFlow, and back on JAX."""

import os
import pathlib
import subprocess
import sys

import pytest

from . import crossing_backends

ROOT = pathlib.Path(__file__).resolve().parents[3]


def _move(backend, *arguments):
    env = {**os.environ, 'PYTHONPATH': str(ROOT), 'KERAS_BACKEND': backend, 'JAX_PLATFORMS': 'cpu'}
    script = str(pathlib.Path(crossing_backends.__file__))
    result = subprocess.run(
        [sys.executable, script, *arguments], env=env, capture_output=True, text=True, timeout=900
    )
    assert result.returncode == 0, result.stderr[-3000:]
    print(result.stdout)
    return result.stdout


@pytest.mark.slow
def test_a_training_moves_between_backends(tone_dataset, tmp_path):
    """Bit for bit what was saved, and the next loss of whoever was left behind."""
    pytest.importorskip('jax')
    address, folder = str(tone_dataset.path), str(tmp_path)
    assert 'step 2 on jax' in _move('jax', address, folder, '-', 'first')
    assert 'step 4 on tensorflow' in _move('tensorflow', address, folder, 'first', 'second')
    assert 'step 6 on jax' in _move('jax', address, folder, 'second', 'third')
