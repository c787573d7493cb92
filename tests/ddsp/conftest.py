"""Fixtures for the library's tests, on any Keras backend."""

from __future__ import annotations

from collections.abc import Callable

import keras
import numpy as np
import pytest


def _tensorflow_gradient(function: Callable, inputs: list) -> tuple:
    import tensorflow as tf

    inputs = [tf.constant(x) for x in inputs]
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        value = function(*inputs)
    return value, tape.gradient(value, inputs, unconnected_gradients='zero')


def _jax_gradient(function: Callable, inputs: list) -> tuple:
    import jax

    return jax.value_and_grad(function, argnums=tuple(range(len(inputs))))(*map(jax.numpy.asarray, inputs))


def _torch_gradient(function: Callable, inputs: list) -> tuple:
    import torch

    inputs = [torch.tensor(x, requires_grad=True) for x in inputs]
    value = function(*inputs)
    value.backward()
    return value, [torch.zeros_like(x) if x.grad is None else x.grad for x in inputs]


@pytest.fixture(scope='session')
def value_and_gradients() -> Callable:
    """`(function, *arrays) -> (value, [gradient for each array])` of a scalar function, in numpy."""
    gradient = {'tensorflow': _tensorflow_gradient, 'jax': _jax_gradient, 'torch': _torch_gradient}
    backend = gradient[keras.backend.backend()]

    def evaluate(function: Callable, *arrays: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
        value, gradients = backend(function, [np.asarray(x, np.float32) for x in arrays])
        return keras.ops.convert_to_numpy(value), [keras.ops.convert_to_numpy(g) for g in gradients]

    return evaluate


@pytest.fixture(scope='session')
def compiled() -> Callable:
    """`function -> function` compiled by XLA (TensorFlow and JAX) or by torch.compile."""
    backend = keras.backend.backend()
    if backend == 'tensorflow':
        import tensorflow as tf

        return lambda function: tf.function(function, jit_compile=True, autograph=False)
    if backend == 'jax':
        import jax

        return jax.jit
    import torch

    return torch.compile
