"""Noise that is the same on every backend.

The frameworks' generators count differently: the same key gives other numbers on JAX than on TensorFlow, and
on TensorFlow others in a compiled function. So the noise of a key is a hash of the number of the sample, in
integer operations of 32 bits that mean the same everywhere, at about the cost of the frameworks' generators.
"""

from __future__ import annotations

import contextlib
import contextvars
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
from keras import ops

from ddsp.core.utils import Tensor

_BITS = 0xFFFFFFFF
_next_key: contextvars.ContextVar[Callable[[], Any] | None] = contextvars.ContextVar('next_key', default=None)


@contextlib.contextmanager
def noise_keys(next_key: Callable[[], Any]) -> Iterator[None]:
    """Within, `uniform_noise` without a seed takes its keys from here, in the order of the draws.

    The layers that make the noise are not touched, so that they can be copied and saved at any time, and
    other threads are not concerned.

    Args:
      next_key: Gives the key `[2]` of the next draw, int32 (uint32 on JAX).
    """
    token = _next_key.set(next_key)
    try:
        yield
    finally:
        _next_key.reset(token)


def uniform_noise(shape: Sequence[Any], seed: Any = None, first: int = 0) -> Tensor:
    """White noise, uniform in [-1, 1).

    Args:
      shape: Shape; sizes may be scalar tensors.
      seed: An int gives the same noise at every call, on every backend; None gives new noise at each
        (reproducible by `keras.utils.set_random_seed`), or that of `noise_keys`; a
        `keras.random.SeedGenerator` gives its next noise, which is a function of its state.
      first: Number of the first sample, for noise that goes on where other noise of the seed ended.

    Returns:
      float32 tensor.
    """
    next_key = _next_key.get()
    if seed is None and next_key is None:
        if keras.backend.backend() == 'tensorflow':
            import tensorflow as tf

            # The stateful operation needs no variable, so it works in any graph, replica or compiled
            # function.
            return tf.random.uniform(shape, -1.0, 1.0)
        return keras.random.uniform(shape, -1.0, 1.0, dtype='float32')
    if seed is None:
        key = next_key()
    else:
        key = [seed & _BITS, seed >> 32 & _BITS] if isinstance(seed, int) else seed.next()
    if any(not isinstance(n, int) for n in shape):
        return ops.reshape(_hashed(ops.prod(ops.stack(list(shape))), key, first), shape)
    return ops.reshape(_hashed(math.prod(shape), key, first), shape)


def _hashed(n: Any, key: Any, start: int) -> Tensor:
    """`[n]` numbers in [-1, 1): the key's halves and the sample's number, mixed three times."""
    low, high = _integers(key[0]), _integers(key[1])
    first = _mixed(_sum(low, 0x9E3779B9))
    second = _mixed(_sum(ops.bitwise_xor(first, high), 0x85EBCA6B))
    numbers = _sum(_integers(ops.arange(n, dtype='int32')), start)
    bits = _mixed(ops.bitwise_xor(_mixed(_sum(numbers, first)), second))
    top = ops.cast(ops.right_shift(bits, _integers(8)), 'int32')  # 24 bits: as many as float32 holds
    return ops.cast(top, 'float32') * 2.0**-23 - 1.0


def _mixed(x: Tensor) -> Tensor:
    """A hash of 32 bits in which every bit of the input turns every bit of the output over half the time:
    multiplications by odd numbers and shifts, with constants that were found by search (lowbias32)."""
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):
        x = _product(ops.bitwise_xor(x, ops.right_shift(x, _integers(shift))), factor)
    return ops.bitwise_xor(x, ops.right_shift(x, _integers(16)))


def _integers(x: Any) -> Tensor:
    """Unsigned integers of 32 bits; in 64 on PyTorch, which cannot multiply those."""
    if keras.backend.backend() == 'torch':
        return _wrapped(ops.convert_to_tensor(x, dtype='int64'))
    return ops.convert_to_tensor(x, dtype='uint32') if isinstance(x, int) else ops.cast(x, 'uint32')


def _sum(x: Tensor, y: Any) -> Tensor:
    return _wrapped(x + _integers(y))


def _product(x: Tensor, y: int) -> Tensor:
    return _wrapped(x * _integers(y))


def _wrapped(x: Tensor) -> Tensor:
    if keras.backend.backend() != 'torch':
        return x
    return ops.bitwise_and(x, ops.convert_to_tensor(_BITS, dtype='int64'))
