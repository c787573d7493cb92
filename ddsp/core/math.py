"""Element-wise mathematics that stays finite."""

from __future__ import annotations

from keras import ops

from ddsp.core.utils import Number, Tensor, constant, tf_float32


def nan_to_num(x: Tensor, value: float = 0.0) -> Tensor:
    """`x` with `value` in place of NaN; infinities stay."""
    return ops.where(ops.isnan(x), ops.full_like(x, value), x)


def safe_divide(numerator: Tensor, denominator: Tensor, eps: float = 1e-7) -> Tensor:
    """`numerator / denominator`, with `eps` in place of denominators that are exactly zero."""
    denominator = ops.convert_to_tensor(denominator)
    return constant(numerator) / ops.where(denominator == 0.0, ops.full_like(denominator, eps), denominator)


def safe_log(x: Tensor, eps: float = 1e-5) -> Tensor:
    """Natural logarithm, with `log(eps)` for zero and below.

    The values are upstream's, so tiny positive numbers pass through (`safe_log(1e-9)` is below
    `safe_log(0)`): spectral losses, and so trained models, depend on them. The gradient is `1 / max(x,
    eps)`: it stays bounded where upstream's grows to 1e30.

    Args:
      x: Tensor.
      eps: What stands in for numbers that have no logarithm, and the bound of the gradient.

    Returns:
      The logarithm, as float32.
    """
    x = tf_float32(x)
    positive = ops.where(x <= 0.0, ops.full_like(x, eps), x)
    constant = ops.stop_gradient(positive)
    # The second term is zero; it only carries the gradient.
    return ops.log(constant) + (positive - constant) / ops.maximum(constant, eps)


def safe_sqrt(x: Tensor) -> Tensor:
    """Square root, 0 for zero and below, whose gradient at zero is zero, not infinite.

    An infinite slope times the zero slope of what comes before it (the square of silence, a saturated
    sigmoid) would be NaN.
    """
    x = tf_float32(x)
    zero = x <= 0.0
    return ops.where(zero, 0.0, ops.sqrt(ops.where(zero, 1.0, x)))


def logb(x: Tensor, base: Number = 2.0, eps: float = 1e-5) -> Tensor:
    """Logarithm to any base, `log(x) / log(base)`; zero and below give that of `eps` (`safe_log`)."""
    return safe_divide(safe_log(x, eps), safe_log(base, eps), eps)


def log10(x: Tensor, eps: float = 1e-5) -> Tensor:
    """Decimal logarithm; zero and below give that of `eps` (`safe_log`)."""
    return logb(x, base=10.0, eps=eps)


def log_scale(x: Tensor, min_x: Number, max_x: Number) -> Tensor:
    """Maps [-1, 1] to [min_x, max_x] geometrically.

    Args:
      x: Tensor; -1 gives `min_x`, 0 the geometric mean, 1 gives `max_x`.
      min_x: Lower end, positive.
      max_x: Upper end, positive.

    Returns:
      `exp((1 - u) log(min_x) + u log(max_x))` with `u = (x + 1) / 2`.
    """
    unit = (tf_float32(x) + 1.0) / 2.0
    return ops.exp((1.0 - unit) * ops.log(tf_float32(min_x)) + unit * ops.log(tf_float32(max_x)))


def soft_limit(x: Tensor, x_min: Number = 0.0, x_max: Number = 1.0) -> Tensor:
    """Limits smoothly on both sides.

    Args:
      x: Tensor; the linear zone is `[0, x_max - x_min]`.
      x_min: Lower limit of the result.
      x_max: Upper limit of the result.

    Returns:
      `softplus(x) + x_min - softplus(x - (x_max - x_min))`.
    """
    x, x_min, x_max = tf_float32(x), tf_float32(x_min), tf_float32(x_max)
    return ops.softplus(x) + x_min - ops.softplus(x - (x_max - x_min))


def gradient_reversal(x: Tensor) -> Tensor:
    """Identity whose gradient is -1 (Ganin and Lempitsky, 2015: domain-adversarial training)."""
    x = tf_float32(x)
    return ops.stop_gradient(2.0 * x) - x
