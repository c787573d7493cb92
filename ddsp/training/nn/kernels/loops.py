"""Loops whose gradients are written by hand: `scan` on TensorFlow and JAX."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras

BACKENDS = ('tensorflow', 'jax')


def scan(
    step: Callable[[list, list], tuple[Sequence, Sequence]],
    carry: Sequence[Any],
    xs: Sequence[Any],
    out_dtypes: Sequence[str],
    reverse: bool = False,
) -> tuple[list, list]:
    """Runs a function over the first axis of some arrays.

    Keras' own `ops.scan` copies its inputs and asks for outputs of the carry's shapes on TensorFlow.

    Args:
      step: `step(carry, rows) -> (carry, outputs)`.
      carry: Tensors that go from one step to the next.
      xs: Arrays `[n, ...]`; `step` gets one row of each.
      out_dtypes: Type of each output.
      reverse: Begin with the last row.

    Returns:
      The last carry, and the outputs stacked `[n, ...]` (in the order of the rows).
    """
    if keras.backend.backend() == 'jax':
        import jax

        def jax_step(carry: tuple, rows: tuple) -> tuple[tuple, tuple]:
            after, outputs = step(list(carry), list(rows))
            return tuple(after), tuple(outputs)

        rows: Any
        last, rows = jax.lax.scan(jax_step, tuple(carry), tuple(xs), reverse=reverse)
        return list(last), list(rows)
    return _scan_tensorflow(step, carry, xs, out_dtypes, reverse)


def _scan_tensorflow(
    step: Callable, carry: Sequence[Any], xs: Sequence[Any], out_dtypes: Sequence[str], reverse: bool
) -> tuple[list, list]:
    import tensorflow as tf

    n = xs[0].shape[0]
    arrays = tuple(tf.TensorArray(dtype, size=n, infer_shape=True) for dtype in out_dtypes)

    def body(i: Any, carry: tuple, arrays: tuple) -> tuple:
        t = n - 1 - i if reverse else i
        # Slices of the first axis share the memory of the array.
        after, outputs = step(list(carry), [x[t] for x in xs])
        arrays = tuple(array.write(t, value) for array, value in zip(arrays, outputs, strict=True))
        return i + 1, tuple(after), arrays

    # One after the other: TensorFlow would begin ten steps ahead with all that does not need the carry, and
    # hold the arrays of all of them.
    _, last, arrays = tf.while_loop(
        lambda i, *_: i < n, body, (tf.constant(0), tuple(carry), arrays),
        parallel_iterations=1, maximum_iterations=n,
    )  # fmt: skip
    return list(last), [array.stack() for array in arrays]
