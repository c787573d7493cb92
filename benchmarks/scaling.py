"""`python -m benchmarks.scaling`: training by 1 and by 2 processes on this machine, one core each.

The batch of a process stays the same (weak scaling), so that an ideal cluster makes as many steps a second
with twice the examples. Wall time holds only on a quiet machine; CPU seconds say what the exchange of
gradients costs.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import socket
import statistics
import subprocess
import sys
import time

BATCH, STEPS = 4, 8


def cpu_seconds() -> float:
    """User and system CPU seconds of this process."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def worker() -> None:
    """Makes some steps with random features, and prints what one costs."""
    os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')
    import numpy as np
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(1)
    from ddsp.training import config, models, train_util, trainers

    strategy = train_util.get_strategy(strategy='multi_worker' if os.environ.get('TF_CONFIG') else 'default')
    config.parse_config(['presets/laptop.gin'], [])
    rng = np.random.default_rng(0)
    replicas = strategy.num_replicas_in_sync
    features = {
        'audio': rng.uniform(-0.5, 0.5, (BATCH * replicas, 64000)),
        'f0_hz': rng.uniform(200, 400, (BATCH * replicas, 1000)),
        'loudness_db': rng.uniform(-60, 0, (BATCH * replicas, 1000)),
    }
    with strategy.scope():
        trainer = trainers.get_trainer_class()(models.get_model(), strategy)
    tensors = {key: tf.constant(value, tf.float32) for key, value in features.items()}
    dataset = tf.data.Dataset.from_tensors(tensors).repeat()
    batches = iter(trainer.distribute_dataset(dataset))
    trainer.train_step(batches)
    cpu, wall = [], []
    for _ in range(STEPS):
        before, start = cpu_seconds(), time.perf_counter()
        trainer.train_step(batches)
        cpu.append(cpu_seconds() - before)
        wall.append(time.perf_counter() - start)
    n_bytes = 4 * sum(int(np.prod(v.shape)) for v in trainer.model.trainable_variables)
    result = {'cpu_s': statistics.median(cpu), 'wall_s': statistics.median(wall), 'gradient_bytes': n_bytes}
    print('RESULT ' + json.dumps(result), flush=True)


def measure(n: int) -> list[dict]:
    """What each of `n` processes prints."""
    ports = []
    for _ in range(n):
        with socket.socket() as s:
            s.bind(('localhost', 0))
            ports.append(s.getsockname()[1])
    cores = sorted(os.sched_getaffinity(0))
    processes = []
    for i in range(n):
        task = {'type': 'worker', 'index': i}
        cluster = {'cluster': {'worker': [f'localhost:{port}' for port in ports]}, 'task': task}
        env = {**os.environ, 'TF_CONFIG': json.dumps(cluster) if n > 1 else ''}
        command = ['taskset', '-c', str(cores[i % len(cores)]), sys.executable, '-m', 'benchmarks.scaling']
        processes.append(subprocess.Popen([*command, '--worker'], env=env, stdout=subprocess.PIPE, text=True))
    outputs = [process.communicate()[0] for process in processes]
    return [json.loads(output.split('RESULT ')[1]) for output in outputs]


def main() -> int:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument('--worker', action='store_true', help=argparse.SUPPRESS)
    if parser.parse_args().worker:
        worker()
        return 0
    one, two = measure(1)[0], measure(2)
    both = {key: statistics.mean(w[key] for w in two) for key in one}
    print('processes  examples/step  CPU s/step/process  wall s/step  examples/s')
    for n, found in ((1, one), (2, both)):
        print(
            f'{n:9d}  {n * BATCH:13d}  {found["cpu_s"]:18.3f}  {found["wall_s"]:11.3f}'
            f'  {n * BATCH / found["wall_s"]:10.2f}'
        )
    print(f'gradients: {one["gradient_bytes"] / 1e6:.1f} MB a step and process')
    wall, cpu = (one[key] / both[key] for key in ('wall_s', 'cpu_s'))
    print(f'efficiency: {wall:.2f} by wall time, {cpu:.2f} by CPU seconds')
    return 0


if __name__ == '__main__':
    sys.exit(main())
