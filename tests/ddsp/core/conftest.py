"""Helpers for tests that run on every backend."""

from __future__ import annotations

from collections.abc import Callable

import keras
import numpy as np
import pytest


@pytest.fixture(scope='session')
def gradients(value_and_gradients) -> Callable:
    """`(function, *arrays) -> [gradient for each array]` of a scalar function."""
    return lambda function, *arrays: value_and_gradients(function, *arrays)[1]


@pytest.fixture(scope='session')
def check_gradients(value_and_gradients, compiled) -> Callable:
    """`(function, *arrays, step, rtol)`: gradients against central differences, along random directions."""

    def check(function, *arrays, step=1e-2, rtol=2e-2):
        rng = np.random.default_rng(0)
        arrays = [np.asarray(a, np.float32) for a in arrays]
        found = value_and_gradients(function, *arrays)[1]
        value = compiled(function) if keras.backend.backend() == 'jax' else function
        for i, (array, gradient) in enumerate(zip(arrays, found, strict=True)):
            direction = rng.choice([-1.0, 1.0], array.shape).astype(np.float32)
            at = []
            for sign in (1.0, -1.0):
                moved = list(arrays)
                moved[i] = array + sign * step * direction
                at.append(float(value(*map(keras.ops.convert_to_tensor, moved))))
            expected = (at[0] - at[1]) / (2.0 * step)
            measured = float((gradient * direction).sum())
            assert measured == pytest.approx(expected, rel=rtol, abs=rtol * 1e-2), f'argument {i}'

    return check
