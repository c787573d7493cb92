"""What a training step reports: the names of its metrics, its errors, and levels beside the losses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
from keras import ops

from ddsp.errors import ConfigError, DDSPError
from ddsp.training import nn

LOSS_PREFIX = 'losses/'
TOTAL_LOSS = f'{LOSS_PREFIX}total_loss'
GRADIENT_NORM = 'optimizer/gradient_norm'
STOP = 'stop'  # above 0 when some worker was asked to stop


def worker_lost() -> tuple[type[Exception], ...]:
    """What a collective operation raises when a worker of the cluster is gone."""
    if keras.backend.backend() == 'jax':
        import jax

        return (jax.errors.JaxRuntimeError,)
    import tensorflow as tf

    return (
        tf.errors.UnavailableError,
        tf.errors.AbortedError,
        tf.errors.CancelledError,
        tf.errors.DeadlineExceededError,
        tf.errors.InternalError,
    )


class NonFiniteError(DDSPError, ArithmeticError):
    """A loss or a gradient became NaN or infinite.

    Attributes:
      tensors: The batch, and every tensor that is not finite, by name.
    """

    tensors: Mapping[str, np.ndarray] = {}


class WorkerLostError(DDSPError, ConnectionError):
    """Another worker of the cluster is gone; start all of them again: they go on from the last checkpoint.

    Attributes:
      exit_code: 75 (EX_TEMPFAIL): what a launcher starts again.
    """

    exit_code = 75

    @classmethod
    def after(cls, step: int, error: Exception) -> WorkerLostError:
        """The error for what a collective operation raised in a step."""
        first_line = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        return cls(
            f'step {step}: another worker is gone ({first_line}). Start all workers again with the same '
            'command: they go on from the last checkpoint'
        )


def is_finite(metrics: Mapping[str, Any]) -> bool:
    """Whether the loss and the norm of the gradient are numbers."""
    return bool(np.isfinite(float(metrics[TOTAL_LOSS]) + float(metrics[GRADIENT_NORM])))


def non_finite_error(step: int, named: Mapping[str, np.ndarray]) -> NonFiniteError:
    """Names what is not finite.

    Args:
      step: Steps done.
      named: `'feature audio'`, `'loss spectral_loss'`, `'weight decoder/...'`, `'gradient of ...'`.
    """
    bad = [key for key, value in named.items() if not np.all(np.isfinite(value))]
    shown = ', '.join(bad[:6]) + (f' and {len(bad) - 6} more' if len(bad) > 6 else '')
    error = NonFiniteError(
        f'step {step}: not finite: {shown or "a loss or a gradient of another replica"}. The step is '
        'refused: weights and optimizer are as before it. A smaller learning rate (Trainer.learning_rate) '
        'or clipping (Trainer.grad_clip_norm) usually helps'
    )
    error.tensors = {key: value for key, value in named.items() if key in bad or key.startswith('feature ')}
    return error


def energies(outputs: Any, batch: Mapping[str, Any]) -> dict[str, Any]:
    """Mean power in dB (-120 at least) of the harmonic and of the noise part, where the model has them, and
    of the recordings `batch['audio']`."""
    parts = {'energy/harmonic_db': 'harmonic', 'energy/noise_db': 'filtered_noise'}
    signals = {}
    for name, key in parts.items():
        part = outputs.get(key) if isinstance(outputs, Mapping) else None
        if isinstance(part, Mapping) and 'signal' in part:
            signals[name] = ops.stop_gradient(part['signal'])
    if signals and 'audio' in batch:
        signals['energy/target_db'] = batch['audio']
    powers = {name: ops.mean(ops.square(signal)) for name, signal in signals.items()}
    return {name: 10.0 * ops.log10(ops.maximum(power, 1e-12)) for name, power in powers.items()}


def set_model_precision(model: Any, precision: str) -> None:
    """Sets the precision of a built model's encoder and decoder."""
    for name in ('encoder', 'decoder'):
        network = getattr(model, name, None)
        if network is not None:
            nn.set_precision(network, precision)


def check_positive(owner: str, **values: float) -> None:
    """Raises a ConfigError for a setting, such as `Trainer.learning_rate`, that is not above 0."""
    for name, value in values.items():
        if not value > 0:
            least = '; the least is 1' if isinstance(value, int) else ''
            raise ConfigError(f'{owner}.{name} is {value}; it must be above 0{least}')


def check_parts(accumulate_steps: int, n_examples: int) -> None:
    """Raises a ConfigError where a replica's examples cannot be taken in equal parts."""
    if n_examples % accumulate_steps:
        raise ConfigError(
            f'Trainer.accumulate_steps is {accumulate_steps}, which does not divide the {n_examples} '
            'examples of a replica'
        )
