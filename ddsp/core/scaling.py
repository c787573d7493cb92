"""From network outputs without bounds to physical controls."""

from __future__ import annotations

import math

import gin
import keras
import numpy as np
from keras import ops

from ddsp.core.math import soft_limit
from ddsp.core.units import bark_to_hz, hz_to_bark, hz_to_erb, hz_to_mel, mel_to_hz, unit_to_hz
from ddsp.core.utils import Tensor, constant, dim, tf_float32
from ddsp.errors import ConfigError


@gin.register(module='ddsp.core')
@keras.saving.register_keras_serializable('ddsp')
def exp_sigmoid(x: Tensor, exponent: float = 10.0, max_value: float = 2.0, threshold: float = 1e-7) -> Tensor:
    """Positive amplitudes from any number: a sigmoid raised to a power (Engel et al., 2020, equation 5).

    Args:
      x: Tensor.
      exponent: The power is `log(exponent)`.
      max_value: Upper limit.
      threshold: Lower limit, which keeps logarithms finite.

    Returns:
      `max_value * sigmoid(x) ** log(exponent) + threshold`.

    >>> ops.convert_to_numpy(exp_sigmoid([-10.0, 0.0, 10.0])).round(3)
    array([0.   , 0.405, 2.   ], dtype=float32)
    """
    return max_value * ops.power(ops.sigmoid(tf_float32(x)), math.log(exponent)) + threshold


@gin.register(module='ddsp.core')
@keras.saving.register_keras_serializable('ddsp')
def sym_exp_sigmoid(x: Tensor, width: float = 8.0) -> Tensor:
    """`exp_sigmoid` mirrored at zero, `exp_sigmoid(width (|x| / 2 - 1))`; a larger `width` is steeper."""
    return exp_sigmoid(width * (ops.abs(tf_float32(x)) / 2.0 - 1.0))


def _with_depth(freqs: Tensor, depth: int) -> Tensor:
    """[batch, time, n * depth] as [batch, time, n, depth], which may also be given."""
    freqs = tf_float32(freqs)
    if len(freqs.shape) == 4:
        return freqs
    if freqs.shape[-1] % depth:
        raise ConfigError(f'freqs has {freqs.shape[-1]} channels, which depth={depth} does not divide')
    return ops.reshape(freqs, [-1, dim(freqs, 1), freqs.shape[-1] // depth, depth])


@gin.register(module='ddsp.core')
@keras.saving.register_keras_serializable('ddsp')
def frequencies_softmax(
    freqs: Tensor, depth: int = 1, hz_min: float = 20.0, hz_max: float = 8000.0
) -> Tensor:
    """Frequencies as the mean of a distribution over log-spaced bins.

    Args:
      freqs: Logits, [batch, time, n * depth] or [batch, time, n, depth].
      depth: Bins per frequency, for the first form.
      hz_min: Lowest bin, Hz.
      hz_max: Highest bin, Hz.

    Returns:
      Frequencies [batch, time, n], Hz.
    """
    freqs = _with_depth(freqs, depth)
    bins = constant(np.linspace(0.0, 1.0, freqs.shape[-1], dtype=np.float32))
    return unit_to_hz(ops.sum(ops.softmax(freqs, axis=-1) * bins, axis=-1), hz_min, hz_max)


@gin.register(module='ddsp.core')
@keras.saving.register_keras_serializable('ddsp')
def frequencies_sigmoid(freqs: Tensor, depth: int = 1, hz_min: float = 0.0, hz_max: float = 8000.0) -> Tensor:
    """Frequencies as a sum of log-scaled sigmoids, from coarse to fine.

    The numbers are upstream's: the top of the range is `hz_max - hz_min`, and `hz_min=0` means 8.18 Hz.

    Args:
      freqs: Network outputs, [batch, time, n * depth] or [batch, time, n, depth].
      depth: Sigmoids per frequency, for the first form.
      hz_min: Lowest frequency, Hz.
      hz_max: Upper end of the range, Hz.

    Returns:
      Frequencies [batch, time, n], Hz.
    """
    parts = ops.sigmoid(_with_depth(freqs, depth))
    depth = parts.shape[-1]
    remaining = hz_max - hz_min
    shrink = remaining ** (1.0 / depth)
    total = 0.0
    for i in range(depth - 1):
        total = total + unit_to_hz(parts[..., i], 0.0, remaining * (1.0 - 1.0 / shrink))
        remaining /= shrink
    return total + unit_to_hz(parts[..., -1], hz_min, remaining)


@gin.register(module='ddsp.core')
@keras.saving.register_keras_serializable('ddsp')
def frequencies_critical_bands(
    freqs: Tensor,
    depth: int = 1,
    depth_scale: float = 10.0,
    bandwidth_scale: float = 1.0,
    hz_min: float = 20.0,
    hz_max: float = 8000.0,
    scale: str = 'bark',
) -> Tensor:
    """Frequencies around fixed centres, each free within its critical band.

    Args:
      freqs: Network outputs, [batch, time, n * depth] or [batch, time, n, depth].
      depth: Outputs per frequency, for the first form; each is `depth_scale` times finer than the one before.
      depth_scale: Ratio between successive resolutions.
      bandwidth_scale: Widths in equivalent rectangular bandwidths.
      hz_min: Lowest centre, Hz.
      hz_max: Highest centre, Hz.
      scale: `'bark'` or `'mel'`: how the centres are spaced.

    Returns:
      Frequencies [batch, time, n], Hz, softly limited to [hz_min, hz_max].

    Raises:
      ConfigError: Unknown scale.
    """
    if scale not in ('bark', 'mel'):
        raise ConfigError(f"scale={scale!r} is unknown: use 'bark' or 'mel'")
    freqs = _with_depth(freqs, depth)
    n_freqs, depth = freqs.shape[-2:]
    to_scale, to_hz = (hz_to_bark, bark_to_hz) if scale == 'bark' else (hz_to_mel, mel_to_hz)
    centers = to_hz(ops.linspace(to_scale(hz_min), to_scale(hz_max), n_freqs))
    weights = constant(np.asarray([depth_scale**-d for d in range(depth)], np.float32))
    modifier = ops.sum(ops.tanh(freqs) * weights, axis=-1)
    return soft_limit(centers + bandwidth_scale * hz_to_erb(centers) * modifier, hz_min, hz_max)
