"""A real Slurm runs a training of two processes and a sweep; what is killed goes on."""

from __future__ import annotations

import json
import os
import pathlib
import signal
import threading
import time

import numpy as np
import pytest
import tensorflow as tf

from experiments.launch.job import Job, LaunchError
from experiments.launch.slurm import Slurm, script

SWEEP = """
trials: 4
steps: 6
batch_size: 2
parameters:
  Trainer.learning_rate: {low: 0.0001, high: 0.01, log: true}
"""


def task(number: int, word: str) -> int:
    """The process of a task of Slurm whose command line holds a word; 0 when there is none."""
    for path in pathlib.Path('/proc').glob('[0-9]*'):
        try:
            environment = (path / 'environ').read_bytes().split(b'\0')
            command = (path / 'cmdline').read_bytes()
        except OSError:
            continue
        ours = f'SLURM_PROCID={number}'.encode() in environment and word.encode() in command
        if ours and b'python' in command.split(b'\0')[0]:
            return int(path.name)
    return 0


def kill_when(condition, word: str) -> threading.Thread:
    """Kills the second task once a condition holds."""

    def wait():
        while not condition():
            time.sleep(0.05)
        while not (process := task(1, word)):
            time.sleep(0.05)
        os.kill(process, signal.SIGKILL)

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    return thread


def weights(folder: pathlib.Path, step: int) -> dict[str, np.ndarray]:
    reader = tf.train.load_checkpoint(str(folder / f'ckpt-{step}'))
    return {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}


@pytest.mark.slow
def test_a_training_of_two_tasks_survives_one_that_is_killed(slurm, workdir, dataset, tiny, ddsp):
    bindings = [word for binding in tiny if 'steps_per' not in binding for word in ('--gin-param', binding)]
    bindings += ['--gin-param', 'train.steps_per_summary = 5', '--gin-param', 'train.steps_per_save = 10']

    def launch(name):
        return ddsp(
            'launch', 'slurm', '--name', name, '--replicas', 2, '--cpus', 1, '--memory', 1, '--', 'train',
            dataset, *bindings, '--save-dir', workdir / name, '--steps', 60, '--batch-size', 2,
            '--no-evaluate',
        )  # fmt: skip

    status, out, err = launch('whole')
    assert status == 0, out + err
    killer = kill_when((workdir / 'broken' / 'ckpt-20.index').exists, 'broken')
    status, out, err = launch('broken')
    log = (workdir / 'jobs' / 'broken' / 'slurm.log').read_text()
    assert status == 0, out + err + log
    assert not killer.is_alive()
    assert 'attempt 0 ended with' in log
    expected, found = weights(workdir / 'whole', 60), weights(workdir / 'broken', 60)
    assert expected.keys() == found.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)
    assert 'Job broken: done' in err
    assert 'broken (ddsp ui)' in out  # the run of the job


@pytest.mark.slow
def test_a_sweep_of_two_tasks_survives_one_that_is_killed(
    slurm, workdir, dataset, tiny, ddsp, postgres, monkeypatch
):
    spec = workdir / 'rates.yaml'
    pairs = (binding.split('=') for binding in tiny)
    fixed = {name.strip(): int(value) for name, value in pairs}
    spec.write_text(SWEEP + 'fixed: ' + json.dumps(fixed) + '\n')
    monkeypatch.setenv('DDSP_SWEEP_STORAGE', postgres.create_database('slurm'))
    monkeypatch.setenv('DDSP_SWEEP_HEARTBEAT_SECS', '2')
    killer = kill_when((workdir / 'out' / 'trial-0001').exists, 'sweep')
    status, out, err = ddsp(
        'launch', 'slurm', '--name', 'rates', '--replicas', 2, '--cpus', 1, '--memory', 1, '--',
        'sweep', spec, dataset, '--save-dir', workdir / 'out', '--json',
    )  # fmt: skip
    assert status == 0, out + err
    assert not killer.is_alive()
    from experiments.tracking import runs, store

    found = runs.list_runs(store.client(), condition=runs.of_sweep('rates'))
    assert sorted(run.data.tags['sweep_trial'] for run in found) == ['0', '1', '2', '3']
    assert {run.info.status for run in found} <= {'FINISHED', 'KILLED'}


@pytest.mark.slow
def test_what_slurm_refuses_is_one_sentence_and_a_job_can_be_cancelled(slurm, workdir, dataset, tiny, ddsp):
    command = ['train', dataset, '--save-dir', workdir / 'run', '--steps', 100000]
    command += [word for binding in tiny for word in ('--gin-param', binding)]
    status, _, err = ddsp('launch', 'slurm', '--set', 'partition=nowhere', '--', *command)
    assert status == 1
    assert 'sbatch failed' in err
    assert 'invalid partition' in err
    assert not list(workdir.glob('jobs/*/job.json'))
    arguments = ['--name', 'long', '--cpus', 1, '--memory', 1, '--detach']
    assert ddsp('launch', 'slurm', *arguments, '--', *command)[0] == 0
    end = time.monotonic() + 120
    while not (workdir / 'run').exists():
        assert time.monotonic() < end
        time.sleep(0.2)
    assert '"state": "running"' in ddsp('jobs', 'show', 'long', '--json')[1]
    assert ddsp('jobs', 'cancel', 'long')[0] == 0
    while '"state": "cancelled"' not in ddsp('jobs', 'show', 'long', '--json')[1]:
        assert time.monotonic() < end + 60
        time.sleep(0.5)


def test_the_script_holds_what_was_asked_for(tmp_path):
    job = Job(
        'violin', ('train', 'data', '--save-dir', 'run dir'), replicas=4, cpus=2, memory_gb=6, gpus=1,
        accelerator='a100', time_limit_minutes=90, retries=2, env={'A': "it's"}, image='ddsp.sif',
        options={'partition': 'gpu', 'mount': '/shared'}, secrets=('PGPASSWORD',),
    )  # fmt: skip
    text = script(job, tmp_path)
    for line in (
        '#SBATCH --ntasks=4', '#SBATCH --cpus-per-task=2', '#SBATCH --mem-per-cpu=3072M', '#SBATCH --time=90',
        '#SBATCH --gpus-per-task=a100:1', '#SBATCH --partition=gpu', '#SBATCH --requeue',
    ):  # fmt: skip
        assert line in text.splitlines()
    assert "apptainer exec --nv --bind /shared ddsp.sif ddsp train data --save-dir 'run dir'" in text
    assert 'PGPASSWORD' not in text


def test_without_slurm_it_says_where_to_run(workdir, monkeypatch):
    monkeypatch.setenv('PATH', str(workdir))
    with pytest.raises(LaunchError, match='sbatch is not installed here: run this on a login node'):
        Slurm().submit(Job('violin', ('train', 'data', '--save-dir', 'run')))
