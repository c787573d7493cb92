"""A step whose loss or gradient is not finite leaves everything as it was: on all devices and backends."""

import os
import pathlib
import socket
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from ddsp.training import checkpoints, trainers

from . import refused_steps

ROOT = pathlib.Path(__file__).resolve().parents[3]


@pytest.mark.parametrize(
    'options',
    [{}, {'jit_compile': True}, {'accumulate_steps': 2, 'average_decay': 0.9, 'grad_clip_norm': None}],
    ids=['plain', 'compiled', 'accumulated and averaged'],
)
def test_a_step_that_is_not_finite_changes_nothing(options):
    refused_steps.check(**options)


def test_step_fn_in_a_function_of_ones_own_changes_nothing():
    trainer = refused_steps.make()
    trainer.train_step(refused_steps.batch_of(0))
    before = refused_steps.state(trainer)
    step = tf.function(lambda batch: trainer.run(trainer.step_fn, batch))
    metrics = step({k: tf.constant(v) for k, v in refused_steps.batch_of(1, 'loss').items()})
    assert np.isnan(metrics['losses/total_loss'])
    refused_steps.assert_same(refused_steps.state(trainer), before)


def test_what_is_saved_then_is_the_state_of_before(tmp_path):
    trainer = refused_steps.make(average_decay=0.9)
    trainer.train_step(refused_steps.batch_of(0))
    before = refused_steps.state(trainer)
    with pytest.raises(trainers.NonFiniteError):
        trainer.train_step(refused_steps.batch_of(1, 'gradient'))
    prefix = trainer.save(tmp_path)
    assert checkpoints.checkpoint_step(prefix) == 1
    other = refused_steps.make(average_decay=0.9)
    for i in range(3):
        other.train_step(refused_steps.batch_of(i))
    other.restore(tmp_path)
    refused_steps.assert_same(refused_steps.state(other), before)


def _run(environments, *arguments):
    script = str(pathlib.Path(refused_steps.__file__))
    env = {**os.environ, 'PYTHONPATH': str(ROOT), 'OMP_NUM_THREADS': '1'}
    processes = [
        subprocess.Popen(
            [sys.executable, script, *arguments], env={**env, **extra},
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for extra in environments
    ]  # fmt: skip
    try:
        for process in processes:
            output, errors = process.communicate(timeout=300)
            assert output.strip().endswith('unchanged'), errors[-3000:]
    finally:
        for process in processes:
            process.kill()


def test_two_replicas_refuse_what_one_of_them_cannot_use():
    _run([{}], 'mirrored')


@pytest.mark.slow
def test_two_processes_refuse_what_one_of_them_cannot_use():
    with socket.socket() as found:
        found.bind(('localhost', 0))
        port = str(found.getsockname()[1])
    slurm = {'SLURM_NTASKS': '2', 'SLURM_STEP_NODELIST': 'localhost', 'SLURM_STEP_TASKS_PER_NODE': '2'}
    _run([{**slurm, 'SLURM_PROCID': str(i), 'MASTER_PORT': port} for i in range(2)], 'worker')


def test_jax_refuses_them_too():
    pytest.importorskip('jax')
    _run([{'KERAS_BACKEND': 'jax', 'JAX_PLATFORMS': 'cpu'}], 'jax')
