"""The benchmark of accelerators runs where TensorFlow is not installed."""

import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_it_needs_no_tensorflow(tmp_path):
    (tmp_path / 'tensorflow.py').write_text('raise ModuleNotFoundError("No module named tensorflow")\n')
    path = os.pathsep.join((str(tmp_path), str(ROOT)))
    command = [sys.executable, '-m', 'benchmarks.gpu', '--batches', '1', '--steps', '1', '--channels', '16']
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=900, check=False, cwd=ROOT,
        env={**os.environ, 'PYTHONPATH': path, 'JAX_PLATFORMS': 'cpu'},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert 'failed' not in done.stdout
    for row in ('step library  precision mixed_bfloat16', 'step textbook', 'part GRU of it', 'part harmonic'):
        assert row in done.stdout
