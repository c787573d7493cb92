"""Each worker gets its GPUs and its share of the cores, and its libraries keep to that."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys
import time

import pytest

from experiments.sweeps import machine
from pipelines.options import cores

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
    for n_cores in (2, 32):
        environment = {
            **os.environ, **machine.share(0, 2, [], n_cores), 'PYTHONPATH': os.pathsep.join(sys.path),
            'JAX_PLATFORMS': 'cpu',
        }  # fmt: skip
        code = COUNT[library] + "\nimport os; print(len(os.listdir('/proc/self/task')))"
        done = subprocess.run(
            [sys.executable, '-c', code], env=environment, capture_output=True, text=True, check=True
        )
        counts.append(int(done.stdout.split()[-1]))
    assert counts[1] >= counts[0] + 14


SPEC = """
trials: 3
steps: 1
parameters: {Trainer.learning_rate: {low: 1e-4, high: 1e-2, log: true}}
"""


def children(pid: int) -> list[int]:
    return [int(child) for child in pathlib.Path(f'/proc/{pid}/task/{pid}/children').read_text().split()]


def environment_of(pid: int) -> dict[str, str]:
    lines = pathlib.Path(f'/proc/{pid}/environ').read_bytes().decode().split('\0')
    return dict(line.split('=', 1) for line in lines if '=' in line)


@pytest.mark.slow
def test_the_workers_of_a_sweep_are_started_with_their_shares(workdir, dataset):
    (workdir / 'rates.yaml').write_text(SPEC)
    # Nobody has these GPUs: the libraries fall back to the CPU.
    environment = {**os.environ, 'PYTHONPATH': os.pathsep.join(sys.path), 'CUDA_VISIBLE_DEVICES': '7,8'}
    command = [sys.executable, '-m', 'experiments.cli', 'sweep', 'rates.yaml', str(dataset), '--workers', '3']
    sweep = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        deadline = time.monotonic() + 300
        shares = []
        while len(shares) < 3:
            assert sweep.poll() is None, sweep.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.1)
            found = [environment_of(pid) for pid in children(sweep.pid)]
            shares = [each for each in found if 'DDSP_SWEEP_WORKER' in each]
    finally:
        sweep.terminate()
        sweep.communicate()
    given = [(share['CUDA_VISIBLE_DEVICES'], share.get('XLA_PYTHON_CLIENT_MEM_FRACTION')) for share in shares]
    assert sorted(given) == [('7', '0.450'), ('7', '0.450'), ('8', None)]
    each = str(max(1, cores() // 3))
    assert {share[name] for share in shares for name in THREADS} == {each}
