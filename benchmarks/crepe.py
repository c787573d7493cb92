"""`python -m benchmarks.crepe`: CPU seconds of CREPE here and of `crepe.predict`, turn by turn.

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

from ddsp.f0.crepe_weights import SIZES, Weights, WeightsError, find_weights, load_weights

RATE, WINDOW, N_BINS = 16000, 1024, 360
GOALS = {'full': 8.0, 'tiny': 4.0}  # how many times less CPU


class CrepePredict:
    """`crepe.predict` of the package crepe 0.0.16, with the network in Keras.

    Args:
      weights: The published weights.
    """

    def __init__(self, weights: Weights) -> None:
        import keras

        layers = keras.layers
        inputs = keras.Input((WINDOW,))
        values = layers.Reshape((WINDOW, 1, 1))(inputs)
        for i, layer in enumerate(weights.layers):
            width, _, channels = layer.kernel.shape
            convolution = layers.Conv2D(
                channels, (width, 1), strides=(1 if i else 4, 1), padding='same', activation='relu'
            )
            # The mean is 0 and the variance 1: `scale` and `shift` hold them already.
            normalise = layers.BatchNormalization(epsilon=0.0)
            values = layers.MaxPool2D((2, 1))(normalise(convolution(values)))
            convolution.set_weights([layer.kernel[:, None], layer.bias])
            normalise.set_weights(
                [layer.scale, layer.shift, np.zeros_like(layer.shift), np.ones_like(layer.scale)]
            )
        classifier = layers.Dense(N_BINS, activation='sigmoid')
        outputs = classifier(layers.Flatten()(layers.Permute((2, 1, 3))(values)))
        classifier.set_weights([weights.classifier, weights.classifier_bias])
        self._model = keras.Model(inputs, outputs)

    def activations(self, audio: np.ndarray, step_ms: float = 10) -> np.ndarray:
        """Activations [n_frames, 360] of a signal at 16 kHz, frames centred on multiples of `step_ms`."""
        padded = np.pad(np.asarray(audio, np.float32), WINDOW // 2)
        hop = int(RATE * step_ms / 1000)
        frames = np.lib.stride_tricks.sliding_window_view(padded, WINDOW)[::hop].copy()
        frames -= frames.mean(axis=1, keepdims=True)
        frames /= np.clip(frames.std(axis=1, keepdims=True), 1e-8, None)
        return self._model.predict(frames, verbose=0)

    def predict(
        self, audio: np.ndarray, viterbi: bool = True, step_ms: float = 10
    ) -> tuple[np.ndarray, np.ndarray]:
        """Pitch in Hz and confidence, each [n_frames]."""
        salience = self.activations(audio, step_ms)
        centres = likeliest_path(salience.argmax(axis=1)) if viterbi else salience.argmax(axis=1)
        cents = [local_average_cents(row, centre) for row, centre in zip(salience, centres, strict=True)]
        return 10 * 2 ** (np.array(cents) / 1200), salience.max(axis=1)


def local_average_cents(salience: np.ndarray, centre: int) -> float:
    """Mean of the cents of up to nine bins around a centre, weighted by their salience [360]."""
    cents = np.linspace(0, 7180, N_BINS) + 1997.3794084376191
    near = slice(max(0, centre - 4), min(N_BINS, centre + 5))
    return float((salience[near] * cents[near]).sum() / salience[near].sum())


def likeliest_path(observed: np.ndarray) -> np.ndarray:
    """Viterbi decoding of crepe's hidden Markov model with its full matrices, in float64."""
    bins = np.arange(N_BINS)
    move = np.maximum(12 - np.abs(bins[:, None] - bins), 0).astype(np.float64)
    with np.errstate(divide='ignore'):
        move = np.log(move / move.sum(axis=1, keepdims=True))
    emission = np.log(np.eye(N_BINS) * 0.1 + np.full((N_BINS, N_BINS), 0.9 / N_BINS))
    score = np.log(1 / N_BINS) + emission[:, observed[0]]
    back = []
    for symbol in observed[1:]:
        paths = score[:, None] + move
        back.append(paths.argmax(axis=0))
        score = paths.max(axis=0) + emission[:, symbol]
    path = [int(score.argmax())]
    for origin in reversed(back):
        path.append(int(origin[path[-1]]))
    return np.array(path[::-1])


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
                command = [sys.executable, '-m', 'benchmarks.crepe', '--child', side, '--sizes', size]
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
    parser = argparse.ArgumentParser(prog='python -m benchmarks.crepe', description=__doc__.splitlines()[0])
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
