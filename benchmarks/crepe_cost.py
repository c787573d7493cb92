"""`python -m benchmarks.crepe_cost`: CPU seconds of CREPE here and of `crepe.predict`, turn by turn.

The package crepe cannot be built where GitHub is out of reach, so its network is built in Keras from the same
published weights and run as its `predict` does: framing, normalisation, batches of 32, decoding. Each side
has a process of its own, which imports first and then measures; the results are compared as well.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import resource
import statistics
import subprocess
import sys
import tempfile
from typing import Any

import numpy as np

from benchmarks.f0.crepe_package import RATE, CrepePredict
from ddsp.f0.crepe_weights import SIZES, WeightsError, find_weights, load_weights

GOALS = {'full': 8.0, 'tiny': 4.0}  # how many times less CPU


def example_sound(seconds: float) -> np.ndarray:
    """A glide with vibrato, harmonics, a fade and a little noise, float32 at 16 kHz."""
    times = np.arange(int(seconds * RATE)) / RATE
    f0 = 220 * 2 ** (0.8 * np.sin(0.7 * times) + 0.02 * np.sin(35 * times))
    phase = 2 * np.pi * np.cumsum(f0) / RATE
    tone = sum(np.sin(k * phase) / k for k in range(1, 9)) * (0.2 + 0.1 * np.sin(2 * times))
    return (tone + 0.003 * np.random.default_rng(0).standard_normal(len(times))).astype(np.float32)


def measure(side: str, size: str, seconds: float, viterbi: bool, output: str) -> float:
    """CPU seconds for a second of audio of one side, in this process; its results go to `output`."""
    audio = example_sound(seconds)
    if side == 'here':
        from ddsp.f0 import estimate_f0, get_estimator

        estimator = get_estimator(f'crepe-{size}')

        def run(signal: np.ndarray) -> Any:
            return estimate_f0(signal, RATE, 100, estimator, viterbi, 'center')
    else:
        package = CrepePredict(load_weights(size))

        def run(signal: np.ndarray) -> Any:
            return package.predict(signal, viterbi)

    run(audio[: RATE // 2])  # whatever is made at the first call
    before = resource.getrusage(resource.RUSAGE_SELF)
    result = run(audio)
    after = resource.getrusage(resource.RUSAGE_SELF)
    np.savez(output, f0_hz=result[0], confidence=result[1])
    return (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) / seconds


def compare(size: str, seconds: float, viterbi: bool, turns: int) -> dict[str, Any]:
    """Both sides, turn by turn."""
    costs: dict[str, list[float]] = {'here': [], 'crepe': []}
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(turns):
            for side, cost in costs.items():
                output = str(pathlib.Path(folder) / f'{side}.npz')
                command = [sys.executable, '-m', 'benchmarks.crepe_cost', '--child', side, '--sizes', size]
                command += ['--seconds', str(seconds), '--output', output]
                command += [] if viterbi else ['--no-viterbi']
                done = subprocess.run(command, capture_output=True, text=True, check=False)
                if done.returncode:
                    raise SystemExit(done.stderr)
                cost.append(float(done.stdout.split()[-1]))
                results[side] = dict(np.load(output))
    here, crepe = (statistics.median(costs[side]) for side in ('here', 'crepe'))
    cents = 1200 * np.abs(np.log2(results['here']['f0_hz'] / results['crepe']['f0_hz']))
    confidence = np.abs(results['here']['confidence'] - results['crepe']['confidence'])
    return {
        'size': size,
        'viterbi': viterbi,
        'here_cpu_s': here,
        'crepe_cpu_s': crepe,
        'ratio': crepe / here,
        'goal': GOALS.get(size),
        'cents_apart': float(cents.max()),
        'confidence_apart': float(confidence.max()),
        'all': costs,
    }


def main() -> int:
    """Prints a row for each size; 1 where a goal is missed."""
    parser = argparse.ArgumentParser(
        prog='python -m benchmarks.crepe_cost', description=__doc__.splitlines()[0]
    )
    parser.add_argument('--sizes', default='tiny,full', help='comma-separated (default: %(default)s)')
    parser.add_argument('--seconds', type=float, default=10, help='of audio (default: %(default)s)')
    parser.add_argument('--turns', type=int, default=3, help='the median of so many (default: %(default)s)')
    parser.add_argument('--no-viterbi', dest='viterbi', action='store_false', help='decode frame by frame')
    parser.add_argument('--output', help='write the figures as JSON')
    parser.add_argument('--child', choices=('here', 'crepe'), help=argparse.SUPPRESS)
    args = parser.parse_args()
    os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')
    os.environ['CUDA_VISIBLE_DEVICES'] = ''
    if args.child:
        print(measure(args.child, args.sizes, args.seconds, args.viterbi, args.output))
        return 0
    rows = []
    print(f'CPU s for a second of audio, 100 frames/s, {args.seconds:g} s, median of {args.turns} turns')
    for size in args.sizes.split(','):
        if size not in SIZES:
            parser.error(f'--sizes: no such size: {size}; there are {", ".join(SIZES)}')
        try:
            find_weights(size)
        except WeightsError as error:
            parser.error(str(error))
        row = compare(size, args.seconds, args.viterbi, args.turns)
        rows.append(row)
        goal = f' (goal {row["goal"]:g})' if row['goal'] else ''
        costs = f'here {row["here_cpu_s"]:.4f}, crepe.predict {row["crepe_cpu_s"]:.3f}'
        apart = f'f0 within {row["cents_apart"]:.3f} cents, confidence within {row["confidence_apart"]:.1e}'
        print(f'{size}: {costs}: {row["ratio"]:.1f} times less{goal}; {apart}', flush=True)
    if args.output:
        pathlib.Path(args.output).write_text(json.dumps(rows, indent=1) + '\n')
    return int(any(row['goal'] and row['ratio'] < row['goal'] for row in rows))


if __name__ == '__main__':
    sys.exit(main())
