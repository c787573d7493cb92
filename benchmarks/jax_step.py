"""`python -m benchmarks.jax_step`: a training step of the solo instrument on JAX and on TensorFlow.

Three ways, each in a process of its own: this library on JAX, this library on TensorFlow, and the textbook's
formulas in plain JAX (`benchmarks/textbook.py`). Steps a second, CPU seconds and peak memory over the import;
on the GPU, where JAX has one.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

WAYS = {'library on JAX': 'jax', 'library on TensorFlow': 'tensorflow', 'textbook in JAX': 'textbook'}


def _usage() -> tuple[float, float]:
    """CPU seconds and peak resident memory (MiB) of this process."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 2**10


def _library_step(batch: dict) -> Callable[[], object]:
    """A step of the trainer of the Keras backend."""
    import keras

    from ddsp.training import config, models, train_util, trainers

    config.parse_config(['models/solo_instrument.gin', 'optimization/base.gin'], [])
    trainer = trainers.get_trainer_class()(models.get_model(), train_util.get_strategy())
    if keras.backend.backend() == 'tensorflow':
        import tensorflow as tf

        batch = {key: tf.constant(value) for key, value in batch.items()}
    return lambda: float(trainer.train_step(batch)['total_loss'])


def _textbook_step(batch: dict) -> Callable[[], object]:
    import jax
    import jax.numpy as jnp

    from benchmarks import textbook

    weights = textbook.init(512, 48000)
    zeros = jax.tree.map(jnp.zeros_like, weights)
    state = [(weights, zeros, jax.tree.map(jnp.zeros_like, weights))]
    compiled = jax.jit(textbook.step, donate_argnums=0)

    def step() -> float:
        state[0], value = compiled(state[0], batch, jax.random.key(0))
        return float(value)

    return step


def child(way: str, size: int, runs: int) -> None:
    """Measures one way, and prints it."""
    import jax
    import numpy as np
    import tensorflow  # noqa: F401

    from ddsp import training  # noqa: F401

    base = _usage()[1]
    rng = np.random.default_rng(0)
    shapes = {
        'audio': (-0.5, 0.5, (size, 64000)), 'f0_hz': (110.0, 440.0, (size, 1000, 1)),
        'loudness_db': (-80.0, 0.0, (size, 1000, 1)),
    }  # fmt: skip
    batch = {key: rng.uniform(*args).astype(np.float32) for key, args in shapes.items()}
    step = _textbook_step(batch) if way == 'textbook' else _library_step(batch)
    start = time.perf_counter()
    step()
    first = time.perf_counter() - start
    step()
    cpu, wall = [], []
    for _ in range(runs):
        before, start = _usage()[0], time.perf_counter()
        step()
        cpu.append(_usage()[0] - before)
        wall.append(time.perf_counter() - start)
    device = jax.devices()[0] if way != 'tensorflow' else None
    memory = (device.memory_stats() or {}) if device is not None else {}
    row = {
        'cpu_s': statistics.median(cpu), 'wall_s': statistics.median(wall), 'first_s': first,
        'host_mb': _usage()[1] - base, 'device_mb': memory.get('peak_bytes_in_use', 0) / 2**20,
        'device': str(device or 'cpu'),
    }  # fmt: skip
    print('RESULT ' + json.dumps(row))


def main() -> int:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument('--batch', type=int, default=4, help='examples of 4 s (4)')
    parser.add_argument('--runs', type=int, default=3, help='steps of which the median counts (3)')
    parser.add_argument('--way', choices=list(WAYS.values()), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.way:
        child(args.way, args.batch, args.runs)
        return 0
    print(f'batch {args.batch}        CPU s   wall s  steps/s  compile s  host MB  device MB  device')
    for name, way in WAYS.items():
        backend = 'tensorflow' if way == 'tensorflow' else 'jax'
        env = {**os.environ, 'KERAS_BACKEND': backend, 'TF_CPP_MIN_LOG_LEVEL': '3'}
        command = [sys.executable, '-m', 'benchmarks.jax_step', '--way', way, '--batch', str(args.batch)]
        done = subprocess.run(
            [*command, '--runs', str(args.runs)], env=env, stdout=subprocess.PIPE, text=True, check=True
        )
        row = json.loads(done.stdout.split('RESULT ')[1])
        print(
            f'{name:22s} {row["cpu_s"]:7.2f} {row["wall_s"]:7.2f} {1 / row["wall_s"]:8.2f}'
            f' {row["first_s"]:10.1f}'
            f' {row["host_mb"]:8.0f} {row["device_mb"]:10.0f}  {row["device"]}',
            flush=True,
        )
    return 0


if __name__ == '__main__':
    sys.exit(main())
