"""Each worker gets its GPUs and its share of the cores, and its libraries keep to that."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys

import pytest

from experiments.sweeps import machine

THREADS = ('OMP_NUM_THREADS', 'TF_NUM_INTRAOP_THREADS', 'TF_NUM_INTEROP_THREADS', 'NPROC')


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch):
    for name in THREADS:
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ('workers', 'gpus', 'wanted'),
    [
        (2, '', [None, None]),
        (2, '0,1', ['0', '1']),
        (2, '0,1,2,3,4', ['0,2,4', '1,3']),
        (3, '0,1', ['0', '1', '0']),
        (4, 'GPU-8f,GPU-91', ['GPU-8f', 'GPU-91', 'GPU-8f', 'GPU-91']),
    ],
)
def test_gpus_go_round(workers, gpus, wanted, monkeypatch):
    monkeypatch.setenv('CUDA_VISIBLE_DEVICES', gpus)
    shares = [machine.share(number, workers, machine.gpus(), 16) for number in range(workers)]
    assert [share.get('CUDA_VISIBLE_DEVICES') for share in shares] == wanted
    for share in shares:
        together = sum(
            other.get('CUDA_VISIBLE_DEVICES') == share.get('CUDA_VISIBLE_DEVICES') for other in shares
        )
        packed = bool(gpus) and together > 1
        assert share.get('TF_FORCE_GPU_ALLOW_GROWTH') == ('true' if packed else None)
        fraction = share.get('XLA_PYTHON_CLIENT_MEM_FRACTION')
        assert fraction == (f'{0.9 / together:.3f}' if packed else None)


def test_the_driver_lists_the_gpus_where_nothing_is_chosen(tmp_path, monkeypatch):
    monkeypatch.delenv('CUDA_VISIBLE_DEVICES')
    monkeypatch.setenv('PATH', str(tmp_path))
    assert machine.gpus() == []
    tool = tmp_path / 'nvidia-smi'
    tool.write_text('#!/bin/sh\n[ "$*" = "--query-gpu=index --format=csv,noheader" ] && printf "0\\n1\\n"\n')
    tool.chmod(0o755)
    assert machine.gpus() == ['0', '1']
    monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '-1')
    assert machine.gpus() == []


def test_cores_are_divided_and_what_is_set_stays(monkeypatch):
    assert {machine.share(1, 3, [], 16)[name] for name in THREADS} == {'5'}
    assert {machine.share(0, 8, [], 2)[name] for name in THREADS} == {'1'}
    monkeypatch.setenv('OMP_NUM_THREADS', '7')
    assert machine.share(0, 4, [], 16)['OMP_NUM_THREADS'] == '7'


COUNT = {
    'tensorflow': """
import tensorflow as tf
print(tf.reduce_sum(tf.linalg.matmul(tf.ones((900, 900)), tf.ones((900, 900)))).numpy())
""",
    'jax': """
import jax.numpy as np
print(np.sum(np.ones((900, 900)) @ np.ones((900, 900))))
""",
}


@pytest.mark.slow
@pytest.mark.parametrize('library', COUNT)
def test_a_library_starts_fewer_threads_with_a_smaller_share(library):
    """Counted in real processes: the variables are those that the libraries read."""
    pytest.importorskip(library)
    if not pathlib.Path('/proc/self/task').is_dir():
        pytest.skip('too quick to count threads from outside')
    counts = []
    for cores in (2, 32):
        environment = {
            **os.environ, **machine.share(0, 2, [], cores), 'PYTHONPATH': os.pathsep.join(sys.path),
            'JAX_PLATFORMS': 'cpu',
        }  # fmt: skip
        code = COUNT[library] + "\nimport os; print(len(os.listdir('/proc/self/task')))"
        done = subprocess.run(
            [sys.executable, '-c', code], env=environment, capture_output=True, text=True, check=True
        )
        counts.append(int(done.stdout.split()[-1]))
    assert counts[1] >= counts[0] + 14
