"""`python -m benchmarks.kernels`: what each kernel gains over its definition.

Each operation runs with its kernel and with DDSP_KERNELS=off, forward and with gradients, in processes of
their own: median CPU seconds of a call and peak memory over the import, compiled as a TensorFlow graph. The
kernel `phase:accumulate` is missing here: it is for JAX alone, whose float32 sum of phase would drift.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
from collections.abc import Callable

from rich.console import Console
from rich.table import Table

from benchmarks.operations import child
from benchmarks.operations.cases import N_FRAMES, N_SAMPLES, Inputs, with_gradients

BATCH = 4  # the definitions need arrays of [batch, samples, harmonics]
N_HARMONICS = 60


def _harmonics(inputs: Inputs, shifted: bool = False) -> tuple[Callable, list]:
    from ddsp import core

    shifts = inputs.uniform(0.0, 0.01, (BATCH, N_FRAMES, N_HARMONICS)) if shifted else None

    def synthesize(f0_hz, distribution):
        return core.harmonic_synthesis(f0_hz, inputs.amplitudes, shifts, distribution, N_SAMPLES)

    return synthesize, [inputs.f0_hz, inputs.distribution(N_HARMONICS)]


def _sinusoids(inputs: Inputs) -> tuple[Callable, list]:
    from ddsp import core

    frequencies = inputs.uniform(50.0, 8500.0, (BATCH, N_FRAMES, N_HARMONICS))
    amplitudes = inputs.distribution(N_HARMONICS)
    return lambda f, a: core.sinusoidal_synthesis(f, a, N_SAMPLES), [frequencies, amplitudes]


def _frames(inputs: Inputs) -> tuple[Callable, list]:
    from ddsp import core

    frames = inputs.uniform(0.0, 1.0, (BATCH, N_FRAMES, N_HARMONICS))
    return lambda x: core.resample(x, N_SAMPLES, 'window'), [frames]


def _spectral(inputs: Inputs) -> tuple[Callable, list]:
    from ddsp import losses

    loss = losses.SpectralLoss(mag_weight=1.0, logmag_weight=1.0)
    target, audio = (inputs.uniform(-1.0, 1.0, (4 * BATCH, N_SAMPLES)) for _ in range(2))
    return lambda audio: loss(target, audio), [audio]


OPERATIONS: dict[str, Callable[[Inputs], tuple[Callable, list]]] = {
    'harmonics:harmonics': _harmonics,
    'sinusoids:sinusoids': _sinusoids,
    'sinusoids:inharmonics': lambda inputs: _harmonics(inputs, shifted=True),
    'frames:interpolate': _frames,
    'spectral:l1_differences': _spectral,
}


def measure(name: str, gradients: bool, runs: int) -> dict[str, float]:
    """Median cost of a call in this process, after two calls that compile and warm up."""
    import tensorflow as tf

    import ddsp.core
    import ddsp.losses  # noqa: F401

    base, inputs = child.peak_mb(), Inputs(BATCH)
    function, arguments = OPERATIONS[name](inputs)
    run = with_gradients(inputs, function, arguments) if gradients else lambda: function(*arguments)
    run, cpu = tf.function(run, autograph=False), []
    for _ in range(runs + 2):
        before = child.cpu_seconds()
        child.wait_for(run())
        cpu.append(child.cpu_seconds() - before)
    return {'cpu_s': statistics.median(cpu[2:]), 'peak_mb': child.peak_mb() - base}


def measure_apart(name: str, gradients: bool, switch: str, runs: int) -> dict[str, float]:
    """`measure` in a process of its own, with DDSP_KERNELS=switch."""
    command = [sys.executable, '-m', 'benchmarks.kernels', '--child', name, '--runs', str(runs)]
    environment = {**os.environ, 'DDSP_KERNELS': switch, 'KERAS_BACKEND': 'tensorflow'}
    output = subprocess.run(
        command + ['--gradients'] * gradients, env=environment, check=True, stdout=subprocess.PIPE, text=True
    )
    return json.loads(output.stdout.splitlines()[-1])


def make_table(rows: list[dict]) -> Table:
    """The results as a table for the terminal."""
    table = Table(title='Kernels against their definitions: CPU seconds / peak MiB of a call')
    for header in ('kernel', 'pass', 'definition', 'kernel', 'less CPU', 'less memory'):
        table.add_column(header, no_wrap=True)
    for row in rows:
        off, on = row['off'], row['on']
        table.add_row(
            row['kernel'],
            row['pass'],
            f'{off["cpu_s"]:.3f} / {off["peak_mb"]:.0f}',
            f'{on["cpu_s"]:.3f} / {on["peak_mb"]:.0f}',
            f'{off["cpu_s"] / on["cpu_s"]:.1f} times',
            f'{off["peak_mb"] / on["peak_mb"]:.1f} times',
        )
    return table


def main() -> int:
    """Measures, prints the table, writes the JSON on request."""
    parser = argparse.ArgumentParser(prog='python -m benchmarks.kernels', description=__doc__)
    parser.add_argument('--kernels', default=','.join(OPERATIONS), help='comma-separated')
    parser.add_argument('--runs', type=int, default=3, help='calls, of which the median counts (default: 3)')
    parser.add_argument('--output', type=pathlib.Path, help='write the figures to this JSON file')
    parser.add_argument('--child', help=argparse.SUPPRESS)
    parser.add_argument('--gradients', action='store_true', help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        print(json.dumps(measure(args.child, args.gradients, args.runs)))
        return 0
    unknown = set(args.kernels.split(',')) - set(OPERATIONS)
    if unknown:
        parser.error(
            f'--kernels: no such kernel: {", ".join(sorted(unknown))}; there are {", ".join(OPERATIONS)}'
        )
    rows = []
    for name in args.kernels.split(','):
        for gradients in (False, True):
            costs = {switch: measure_apart(name, gradients, switch, args.runs) for switch in ('off', 'on')}
            rows.append({'kernel': name, 'pass': 'with gradients' if gradients else 'forward', **costs})
            print(json.dumps(rows[-1]), file=sys.stderr)
    Console(width=None if sys.stdout.isatty() else 120).print(make_table(rows))
    if args.output:
        args.output.write_text(json.dumps(rows, indent=1) + '\n')
    return 0


if __name__ == '__main__':
    sys.exit(main())
