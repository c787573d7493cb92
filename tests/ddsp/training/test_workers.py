"""Training by several processes: the same step as one process, and nothing lost when one goes away."""

import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest

from ddsp.training import checkpoints

ROOT = pathlib.Path(__file__).resolve().parents[3]

SCRIPT = """
import sys, time
import keras, numpy as np
from ddsp.io.dataset import open_dataset
from ddsp.training import config, data, models, rates, train_util, trainers

kind, path, folder, steps, save_every = sys.argv[1:]
strategy = train_util.get_strategy(strategy=kind)
dataset = open_dataset(path)
config.parse_config(['models/solo_instrument.gin'], [
    'RnnFcDecoder.rnn_channels = 8', 'RnnFcDecoder.ch = 8', 'RnnFcDecoder.layers_per_stack = 1',
    "RnnFcDecoder.output_splits = (('amps', 1), ('harmonic_distribution', 4))",
    "ProcessorGroup.dag = [(@synths.Harmonic(), ['amps', 'harmonic_distribution', 'f0_hz'])]",
    'SpectralLoss.fft_sizes = (256,)', 'F0LoudnessPreprocessor.compute_loudness = False',
    'Trainer.learning_rate = 0.003', 'Trainer.average_decay = 0.9'])
rates.configure_for_dataset(dataset)
keras.utils.set_random_seed(0)
with strategy.scope():
    model = models.get_model()
    trainer = trainers.get_trainer_class()(model, strategy)

class Losses(train_util.TrainingCallback):
    losses = []
    def on_step(self, step):
        print('STEP', step, flush=True)
        time.sleep(0.05)  # whoever sends signals looks on ten times a second
    def on_summary(self, step, metrics):
        self.losses.append(metrics['losses/total_loss'])

try:
    train_util.train(data.DatasetProvider(dataset, 'train'), trainer, batch_size=4, num_steps=int(steps),
                     steps_per_summary=1, steps_per_save=int(save_every), save_dir=folder,
                     restore_dir=folder, callbacks=[Losses()])
except (train_util.Interrupted, trainers.WorkerLostError) as error:
    print('STOPPED', error, flush=True)
    import os
    os._exit(error.exit_code)
weights = float(sum(np.abs(w.numpy()).sum() for w in model.trainable_variables))
print('RESULT', repr(weights), *Losses.losses, flush=True)
"""


def _free_ports(n: int) -> list[int]:
    sockets = [socket.socket() for _ in range(n)]
    for s in sockets:
        s.bind(('localhost', 0))
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


def _tf_config(ports: list[int], index: int) -> dict[str, str]:
    config = {
        'cluster': {'worker': [f'localhost:{port}' for port in ports]},
        'task': {'type': 'worker', 'index': index},
    }
    return {'TF_CONFIG': json.dumps(config)}


def _slurm(ports: list[int], index: int) -> dict[str, str]:
    return {
        'SLURM_NTASKS': '2', 'SLURM_PROCID': str(index), 'SLURM_STEP_NODELIST': 'localhost',
        'SLURM_STEP_TASKS_PER_NODE': '2', 'MASTER_PORT': str(ports[0]),
    }  # fmt: skip


class _Job:
    """Worker processes and what they print."""

    def __init__(self, tmp_path, dataset, folder, environments, steps, save_every=1000):
        script = tmp_path / 'worker.py'
        script.write_text(SCRIPT)
        self.logs, self.processes = [], []
        for i, extra in enumerate(environments):
            log = tmp_path / f'{folder}-{i}-{time.monotonic_ns()}.log'
            env = {**os.environ, 'PYTHONPATH': str(ROOT), 'OMP_NUM_THREADS': '1', **extra}
            kind = 'multi_worker' if extra else 'default'
            command = [sys.executable, script, kind, dataset.path, tmp_path / folder, steps, save_every]
            with log.open('w') as output:
                self.processes.append(
                    subprocess.Popen(
                        list(map(str, command)), env=env, stdout=output, stderr=subprocess.STDOUT
                    )
                )
            self.logs.append(log)

    def wait_for(self, text, worker=0, timeout=240):
        end = time.monotonic() + timeout
        while text not in self.logs[worker].read_text():
            assert time.monotonic() < end, self.tail()
            assert self.processes[worker].poll() is None, self.tail()
            time.sleep(0.1)

    def wait(self, timeout=300):
        try:
            return [process.wait(timeout) for process in self.processes]
        except subprocess.TimeoutExpired:
            pytest.fail(f'still running after {timeout} s:\n{self.tail()}')
        finally:
            for process in self.processes:
                process.kill()
                process.wait()

    def tail(self):
        return '\n'.join(log.read_text()[-1500:] for log in self.logs)

    def result(self):
        codes = self.wait()
        assert codes == [0] * len(codes), self.tail()
        found = [log.read_text().split('RESULT ')[1].split('\n')[0].split() for log in self.logs]
        return [np.array(values, float) for values in found]


def test_two_slurm_tasks_make_the_steps_of_one_process(tone_dataset, tmp_path):
    ports = _free_ports(1)
    (one,) = _Job(tmp_path, tone_dataset, 'one', [{}], 3).result()
    two = _Job(tmp_path, tone_dataset, 'two', [_slurm(ports, 0), _slurm(ports, 1)], 3).result()
    # Logarithms of nearly silent bins magnify the rounding of another order of sums.
    np.testing.assert_allclose(two[0], one, rtol=5e-4)
    assert two[0][0] == two[1][0]  # the same weights on both
    assert len(two[1]) == 1  # who is not the chief tells nobody
    assert [checkpoints.checkpoint_step(p) for p in checkpoints.list_checkpoints(tmp_path / 'two')] == [3]


@pytest.mark.slow
def test_a_worker_that_is_terminated_or_killed_loses_nothing(tone_dataset, tmp_path):
    def job(folder):
        ports = _free_ports(2)
        environments = [_tf_config(ports, 0), _tf_config(ports, 1)]
        return _Job(tmp_path, tone_dataset, folder, environments, 60, save_every=10)

    whole = job('whole').result()
    # SIGTERM to one: both save the same step and leave with the code that says so.
    first = job('broken')
    first.wait_for('STEP 3\n')
    first.processes[1].send_signal(signal.SIGTERM)
    assert first.wait() == [143, 143], first.tail()
    saved = checkpoints.checkpoint_step(checkpoints.list_checkpoints(tmp_path / 'broken')[0])
    assert 3 <= saved < 60
    # SIGKILL: the other one notices, and says that all are to be started again.
    second = job('broken')
    second.wait_for(f'STEP {saved + 15}\n')
    second.processes[1].kill()
    assert second.wait() == [75, -signal.SIGKILL], second.tail()
    assert 'another worker is gone' in second.logs[0].read_text()
    np.testing.assert_array_equal(job('broken').result()[0][0], whole[0][0])
