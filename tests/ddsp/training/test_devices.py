"""One training on one device, on several, and on several processes: the same steps; what a killed process
leaves behind goes on bit for bit."""

from __future__ import annotations

import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest

from ddsp.errors import ConfigError
from ddsp.training import checkpoints, data

pytest.importorskip('jax')
HERE = pathlib.Path(__file__).resolve()
SCRIPT, ROOT = HERE.with_name('trained_on_devices.py'), HERE.parents[3]
# Logarithms of nearly silent bins magnify the rounding of another order of sums, from step to step.
BINDINGS = ['Trainer.average_decay = 0.9', 'SpectralLoss.logmag_weight = 0.0']


class Job:
    """Processes of one training."""

    def __init__(
        self, tmp_path, dataset, folder, *, backend='jax', strategy='auto', devices=1, processes=1, steps=10,
        save_every=1000, bindings=BINDINGS, **environ,
    ):  # fmt: skip
        self.folder = tmp_path / folder
        self.folder.mkdir(exist_ok=True)
        with socket.socket() as free:
            free.bind(('127.0.0.1', 0))
            port = free.getsockname()[1]
        self.logs, self.processes = [], []
        for index in range(processes):
            log = tmp_path / f'{folder}-{index}-{time.monotonic_ns()}.log'
            env = {**os.environ, 'PYTHONPATH': str(ROOT), 'OMP_NUM_THREADS': '1', 'KERAS_BACKEND': backend}
            env |= {'XLA_FLAGS': f'--xla_force_host_platform_device_count={devices}', 'JAX_PLATFORMS': 'cpu'}
            env |= {name: str(value) for name, value in environ.items()}
            if processes > 1:  # as two tasks of Slurm
                env |= {
                    'SLURM_NTASKS': str(processes), 'SLURM_PROCID': str(index), 'MASTER_PORT': str(port),
                    'SLURM_STEP_NODELIST': '127.0.0.1', 'SLURM_STEP_TASKS_PER_NODE': str(processes),
                }  # fmt: skip
            command = [sys.executable, SCRIPT, strategy, dataset.path, self.folder, steps, save_every]
            with log.open('w') as output:
                self.processes.append(subprocess.Popen(
                    [*map(str, command), *bindings], env=env, stdout=output, stderr=subprocess.STDOUT
                ))  # fmt: skip
            self.logs.append(log)

    def wait_for(self, text, timeout=300):
        """Waits until the first process has printed something."""
        end = time.monotonic() + timeout
        while text not in self.logs[0].read_text():
            assert time.monotonic() < end, self.tail()
            assert self.processes[0].poll() is None, self.tail()
            time.sleep(0.05)

    def wait(self, timeout=400):
        """Exit codes."""
        try:
            return [process.wait(timeout) for process in self.processes]
        except subprocess.TimeoutExpired:
            pytest.fail(f'still running after {timeout} s:\n{self.tail()}')
        finally:
            for process in self.processes:
                process.kill()
                process.wait()

    def tail(self):
        return '\n'.join(log.read_text()[-2000:] for log in self.logs)

    def result(self):
        """Losses and weights, and how many records each process has parsed."""
        codes = self.wait()
        assert codes == [0] * len(codes), self.tail()
        parsed = [int(log.read_text().split('DONE ')[1].split()[0]) for log in self.logs]
        return dict(np.load(self.folder / 'weights.npz')), parsed


def assert_close(found, expected, rtol):
    for name in expected:
        error = np.linalg.norm(found[name] - expected[name]) / np.linalg.norm(expected[name])
        assert error < rtol, f'{name}: {error:.2e}'


@pytest.fixture(scope='module')
def one_device(tmp_path_factory, tone_dataset):
    """Ten steps on one device of JAX."""
    return Job(tmp_path_factory.mktemp('one'), tone_dataset, 'one').result()


def test_two_processes_of_four_devices_make_the_steps_of_one_device(one_device, tone_dataset, tmp_path):
    job = Job(tmp_path, tone_dataset, 'two', strategy='multi_worker', devices=4, processes=2)
    found, parsed = job.result()
    assert_close(found, one_device[0], 1e-5)
    assert [checkpoints.checkpoint_step(p) for p in checkpoints.list_checkpoints(job.folder)] == [10]
    # Each reads its half alone, and two batches ahead.
    assert max(parsed) <= (10 + 1 + 4) * 8 < min(one_device[1])


@pytest.mark.slow
def test_eight_devices_make_the_steps_of_one_also_in_parts(one_device, tone_dataset, tmp_path):
    expected, _ = one_device
    found, _ = Job(tmp_path, tone_dataset, 'eight', devices=8).result()
    assert_close(found, expected, 1e-5)
    parts = [*BINDINGS, 'Trainer.accumulate_steps = 2']
    found, _ = Job(tmp_path, tone_dataset, 'parts', devices=4, bindings=parts).result()
    assert_close(found, expected, 1e-5)


@pytest.mark.slow
def test_tensorflow_makes_the_same_steps_on_one_device_on_two_and_in_two_processes(tone_dataset, tmp_path):
    expected, _ = Job(tmp_path, tone_dataset, 'one', backend='tensorflow').result()
    for job in (
        Job(tmp_path, tone_dataset, 'mirrored', backend='tensorflow', strategy='mirrored'),
        Job(tmp_path, tone_dataset, 'workers', backend='tensorflow', strategy='multi_worker', processes=2),
    ):
        assert_close(job.result()[0], expected, 1e-5)


@pytest.mark.slow
def test_processes_that_are_killed_or_terminated_lose_nothing(tone_dataset, tmp_path):
    def job(folder):
        return Job(
            tmp_path, tone_dataset, folder, strategy='multi_worker', devices=2, processes=2, steps=60,
            save_every=10, PAUSE=0.05,
        )  # fmt: skip

    whole, _ = job('whole').result()
    first = job('broken')  # SIGTERM to one: both save the same step
    first.wait_for('STEP 3\n')
    first.processes[1].terminate()
    assert first.wait() == [143, 143], first.tail()
    saved = checkpoints.checkpoint_step(checkpoints.list_checkpoints(first.folder)[0])
    assert 3 <= saved < 60
    second = job('broken')  # SIGKILL: where no collective fails, JAX ends the other one after half a minute
    second.wait_for(f'STEP {saved + 15}\n')
    second.processes[1].kill()
    first_code, second_code = second.wait(120)
    assert second_code == -signal.SIGKILL
    assert first_code in (75, -signal.SIGABRT), second.tail()
    found, _ = job('broken').result()
    for name in set(whole) - {'losses'}:
        np.testing.assert_array_equal(found[name], whole[name])


def test_a_batch_that_devices_cannot_share(tone_dataset, tmp_path):
    job = Job(tmp_path, tone_dataset, 'three', devices=3)
    assert job.wait() == [1]
    assert 'batch_size is 16, which 3 devices cannot share evenly; it must be a multiple of 3' in job.tail()


def test_processes_read_the_parts_of_each_batch(tone_dataset):
    provider = data.DatasetProvider(tone_dataset, 'train')
    kept = data.DatasetProvider(tone_dataset, 'train', cache=False)
    for provided in (provider, kept, data.SyntheticProvider(5, example_secs=0.25)):
        whole = list(provided.get_batch(4, start=4).take(4).as_numpy_iterator())
        parts = [
            list(provided.get_batch(4, start=4, part=(i, 2)).take(4).as_numpy_iterator()) for i in (0, 1)
        ]
        for batch, *shares in zip(whole, *parts, strict=True):
            for key in batch:
                np.testing.assert_array_equal(np.concatenate([s[key] for s in shares]), batch[key])
    with pytest.raises(ConfigError, match='batch_size is 5, which 2 processes cannot share evenly'):
        provider.get_batch(5, part=(0, 2))
