"""`python -m benchmarks.gpu`: training steps of the solo instrument on the accelerator that JAX finds.

The step of the trainer beside the textbook's (`benchmarks/textbook.py`) on the same card, by batch and
precision, and what each part of it takes. TensorFlow is not needed: jax with the card's plugin, keras,
gin-config, scipy, soundfile, soxr, threadpoolctl, and this repository.

python -m benchmarks.gpu                              # batches 16 to 256, float32 and bfloat16, and the parts
python -m benchmarks.gpu --batches 2 --steps 2 --channels 64   # a try on a processor
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import subprocess
import sys
import time
import types
from collections.abc import Callable
from typing import Any

os.environ['KERAS_BACKEND'] = 'jax'

import numpy as np

SECS, N_FRAMES, N_SAMPLES = 4.0, 1000, 64000
PRECISIONS = ('float32', 'mixed_bfloat16')
# Operations of dense matrix products per second, in 1e12, in TF32 (JAX's default for float32) and bfloat16:
# the maker's data sheets.
PEAKS = {'H200': (494, 989), 'H100': (494, 989), 'A100': (156, 312), 'L4': (60, 121), 'A10': (62, 125)}


def import_parts() -> None:
    """Makes the modules of `ddsp.training` importable without those that read data, which need TensorFlow."""
    import ddsp

    package = types.ModuleType('ddsp.training')
    package.__path__ = [str(pathlib.Path(str(ddsp.__file__)).parent / 'training')]
    sys.modules['ddsp.training'] = package


def make_batch(size: int) -> dict[str, np.ndarray]:
    """Features of random sounds."""
    rng = np.random.default_rng(0)
    shapes = {
        'audio': (-0.5, 0.5, (size, N_SAMPLES)), 'f0_hz': (110.0, 440.0, (size, N_FRAMES, 1)),
        'loudness_db': (-80.0, 0.0, (size, N_FRAMES, 1)),
    }  # fmt: skip
    return {key: rng.uniform(*args).astype(np.float32) for key, args in shapes.items()}


def make_model(channels: int) -> Any:
    """The solo instrument, as `models/solo_instrument.gin` describes it."""
    from ddsp import effects, losses, processors, synths
    from ddsp.training import models
    from ddsp.training.decoders import RnnFcDecoder
    from ddsp.training.preprocessing import F0LoudnessPreprocessor

    splits = (('amps', 1), ('harmonic_distribution', 60), ('noise_magnitudes', 65))
    dag = [
        (synths.Harmonic(N_SAMPLES), ['amps', 'harmonic_distribution', 'f0_hz']),
        (synths.FilteredNoise(N_SAMPLES, window_size=0), ['noise_magnitudes']),
        (processors.Add(), ['filtered_noise/signal', 'harmonic/signal']),
        (effects.Reverb(trainable=True, reverb_length=48000), ['add/signal']),
    ]
    return models.Autoencoder(
        preprocessor=F0LoudnessPreprocessor(N_FRAMES, compute_loudness=False), encoder=None,
        decoder=RnnFcDecoder(
            rnn_channels=channels, ch=channels, input_keys=('ld_scaled', 'f0_scaled'), output_splits=splits
        ),
        processor_group=processors.ProcessorGroup(dag), losses=[losses.SpectralLoss(logmag_weight=1.0)],
    )  # fmt: skip


def make_step(mesh: Any, precision: str, channels: int) -> Any:
    """The trainer's step, with weights."""
    model = make_model(channels)
    from ddsp.training.optimizers import ScaledAdam, WeightAverages, make_schedule
    from ddsp.training.steps.jax import JaxStep
    from ddsp.training.steps.report import set_model_precision
    from ddsp.training.steps.seeds import StepSeeds

    optimizer = ScaledAdam(make_schedule('exponential', 3e-4, 10000, 0.98, 100))
    step = JaxStep(
        model=model, optimizer=optimizer, averages=WeightAverages(mesh, None), strategy=mesh,
        seeds=StepSeeds(0), grad_clip_norm=3.0, accumulate_steps=1, jit_compile=True,
    )  # fmt: skip
    step.create_weights(make_batch(1))
    set_model_precision(model, precision)
    optimizer.build(model.trainable_variables)
    return step


def library_step(size: int, precision: str, channels: int) -> tuple[Callable[[], float], int]:
    """A step of the trainer's, and the weights that each frame is multiplied with."""
    import jax

    from ddsp.training.meshes import DeviceMesh

    step, batch = make_step(DeviceMesh(jax.local_devices()[:1]), precision, channels), make_batch(size)
    from ddsp.training.steps.report import TOTAL_LOSS

    weights = step.model.decoder.trainable_variables
    multiplied = sum(int(np.prod(w.shape)) for w in weights if len(w.shape) == 2)
    count = iter(range(10**9))
    return lambda: float(step.run(batch, next(count), False)[TOTAL_LOSS]), multiplied


def textbook_step(size: int, precision: str, channels: int) -> tuple[Callable[[], float], int]:
    """The same by the textbook, in float32."""
    import jax
    import jax.numpy as jnp

    from benchmarks import textbook

    weights = textbook.init(channels, 48000)
    multiplied = sum(w.size for w in jax.tree.leaves(weights) if w.ndim == 2)
    state = [(weights, jax.tree.map(jnp.zeros_like, weights), jax.tree.map(jnp.zeros_like, weights))]
    compiled = jax.jit(textbook.step, donate_argnums=0)
    batch = make_batch(size)

    def step() -> float:
        state[0], value = compiled(state[0], batch, jax.random.key(0))
        return float(value)

    return step, multiplied


STEPS = {'library': library_step, 'textbook': textbook_step}


def measure(run: Callable[[], Any], steps: int) -> tuple[float, float]:
    """Seconds of the first call, and of each of the others."""
    start = time.perf_counter()
    run()
    first = time.perf_counter() - start
    run()
    start = time.perf_counter()
    for _ in range(steps):
        run()
    return first, (time.perf_counter() - start) / steps


def child(way: str, size: int, precision: str, channels: int, steps: int) -> dict[str, Any]:
    """One row of the table."""
    import jax

    device = jax.local_devices()[0]
    run, multiplied = STEPS[way](size, precision, channels)
    first, each = measure(run, steps)
    # A product and its two gradients, two operations a weight and frame; the signal path is small beside it.
    flops = 6 * multiplied * size * N_FRAMES / each
    memory = (device.memory_stats() or {}).get('peak_bytes_in_use', 0) / 2**20
    row = {
        'step': way, 'precision': precision, 'batch': size, 'steps_per_s': 1 / each,
        'audio_s_per_s': size * SECS / each, 'compile_s': first - each, 'memory_mb': memory,
        'tflops': flops / 1e12,
    }  # fmt: skip
    peak = next((PEAKS[name] for name in PEAKS if name in device.device_kind), None)
    row['share_of_peak'] = flops / 1e12 / peak[precision != 'float32'] if peak else float('nan')
    return row | {'device': device.device_kind}


def parts(size: int, channels: int, steps: int) -> list[dict[str, Any]]:
    """Milliseconds of the forward and backward pass of each part, compiled by itself."""
    import jax
    import jax.numpy as jnp
    import keras

    model = make_model(channels)
    from ddsp.training.steps.seeds import StepSeeds

    batch = {key: jnp.asarray(value) for key, value in make_batch(size).items()}
    model.decoder(model.encode({key: value[:1] for key, value in batch.items()}), training=True)
    features = model.encode(batch)
    controls = model.decoder(features, training=True)
    harmonic, noise, _, reverb = model.processor_group.processors
    hidden = jnp.zeros((size, N_FRAMES, 2 * channels))
    weights = [v.value for v in model.decoder.trainable_variables]

    def with_weights(weights: list, function: Callable) -> Any:
        pairs = list(zip(model.decoder.trainable_variables, weights, strict=True))
        with keras.StatelessScope(state_mapping=pairs):
            return function()

    def seeded_noise(magnitudes: Any) -> Any:
        with StepSeeds(0).at(0):
            return noise(magnitudes)

    names = 'amps', 'harmonic_distribution', 'noise_magnitudes'
    amps, distribution, magnitudes = (controls[name] for name in names)
    # What gradients are taken for, and what else is given: XLA computes beforehand what is no argument.
    audio, f0_hz = batch['audio'], batch['f0_hz']
    ways: dict[str, tuple[Callable, tuple, tuple]] = {
        'decoder': (
            lambda w, x: with_weights(w, lambda: model.decoder(x, training=True)), (weights,), (features,)
        ),
        'GRU of it': (lambda w, x: with_weights(w, lambda: model.decoder.rnn(x)), (weights,), (hidden,)),
        'harmonic': (harmonic, (amps, distribution), (f0_hz,)),
        'noise': (seeded_noise, (magnitudes,), ()),
        'reverb': (reverb, (audio,), ()),
        'spectral loss': (lambda x, y: model.loss_objs[0](y, x), (audio * 0.9,), (audio,)),
    }  # fmt: skip
    rows = []
    for name, (function, inputs, others) in ways.items():

        def total(*inputs: Any, function: Callable = function) -> Any:
            return sum(jnp.sum(jnp.square(x)) for x in jax.tree.leaves(function(*inputs)))

        compiled = jax.jit(jax.grad(total, argnums=tuple(range(len(inputs)))))
        _, each = measure(lambda: jax.block_until_ready(compiled(*inputs, *others)), steps)  # noqa: B023
        rows.append({'part': name, 'batch': size, 'ms': 1000 * each})
    return rows


def show(rows: list[dict[str, Any]]) -> None:
    """A row of the table at a time."""
    for row in rows:
        print(
            '  '.join(
                f'{key} {value:.4g}' if isinstance(value, float) else f'{key} {value}'
                for key, value in row.items()
            ),
            flush=True,
        )


def main() -> int:
    """Prints the rows."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument('--batches', default='16,32,64,128,256', help='examples of 4 s')
    parser.add_argument('--steps', type=int, default=20, help='steps that are measured (20)')
    parser.add_argument('--channels', type=int, default=512, help='width of the network (512)')
    parser.add_argument('--out', help='write the rows as JSON')
    parser.add_argument('--child', nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        way, size, precision = args.child
        import_parts()
        found = (
            parts(int(size), args.channels, args.steps)
            if way == 'parts'
            else [child(way, int(size), precision, args.channels, args.steps)]
        )
        print('ROWS ' + json.dumps(found))
        return 0
    batches = [int(text) for text in args.batches.split(',')]
    wanted = [('library', size, precision) for precision in PRECISIONS for size in batches]
    wanted += [('textbook', size, 'float32') for size in batches]
    rows = []
    for way, size, precision in [*wanted, ('parts', batches[0], 'float32')]:
        command = [sys.executable, '-m', 'benchmarks.gpu', '--child', way, str(size), precision]
        command += ['--steps', str(args.steps), '--channels', str(args.channels)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:  # out of memory is a result, too
            found = [
                {'step': way, 'precision': precision, 'batch': size, 'failed': done.stderr.strip()[-200:]}
            ]
        else:
            found = json.loads(done.stdout.split('ROWS ')[1])
        show(found)
        rows += found
    if args.out:
        pathlib.Path(args.out).write_text(json.dumps(rows, indent=1))
    return 0


if __name__ == '__main__':
    raise SystemExit(main())
