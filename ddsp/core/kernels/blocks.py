"""Work in blocks: bounded memory, arrays that stay in the cache, and gradients that recompute."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
from keras import ops

from ddsp.core.utils import Tensor, dim


def custom_gradient(function: Callable) -> Callable:
    """`keras.ops.custom_gradient` for functions that return `(value, backward)`.

    `backward(upstream)` returns one gradient for each argument, or None for arguments that have none.
    """

    def with_gradient(*args: Tensor) -> Any:
        value, backward = function(*args)

        def grad(*grads: Any, upstream: Tensor | None = None, **_: Any) -> Any:
            found = backward(grads[0] if upstream is None else upstream)
            filled = [ops.zeros_like(a) if g is None else g for a, g in zip(args, found, strict=True)]
            return tuple(filled) if len(filled) > 1 else filled[0]

        return value, grad

    return keras.ops.custom_gradient(with_gradient)


def map_blocks(
    function: Callable, arrays: Sequence[Tensor], block_rows: int, out_shapes: Sequence[Sequence]
) -> list:
    """Applies a function to blocks of rows, one block after the other.

    Args:
      function: Takes one block of each array, returns a list of arrays with as many rows.
      arrays: Arrays with the same number of rows.
      block_rows: Rows in a block, at most.
      out_shapes: Shape of one row of each result (float32).

    Returns:
      The results for all rows.
    """
    rows = dim(arrays[0], 0)
    if isinstance(rows, int) and rows <= block_rows:
        return list(function(*arrays))
    n_blocks = -(-rows // block_rows)
    size = -(-rows // n_blocks)
    missing = n_blocks * size - rows
    blocks = tuple(_split(array, missing, n_blocks, size) for array in arrays)
    results = _map(lambda block: tuple(function(*block)), blocks, size, out_shapes)
    return [
        ops.reshape(r, [n_blocks * size, *shape])[:rows] for r, shape in zip(results, out_shapes, strict=True)
    ]


def _split(array: Tensor, missing: Any, n_blocks: Any, size: Any) -> Tensor:
    if not isinstance(missing, int) or missing:
        array = ops.pad(array, [[0, missing]] + [[0, 0]] * (len(array.shape) - 1))
    return ops.reshape(array, [n_blocks, size, *array.shape[1:]])


def _map(function: Callable, blocks: tuple, size: Any, out_shapes: Sequence[Sequence]) -> tuple:
    if keras.backend.backend() != 'tensorflow':
        return ops.map(function, blocks)
    import tensorflow as tf

    size = size if isinstance(size, int) else None
    signature = tuple(tf.TensorSpec([size, *shape], tf.float32) for shape in out_shapes)
    parallel = None if tf.executing_eagerly() else 2  # eagerly, TensorFlow warns of any number
    return tf.map_fn(function, blocks, fn_output_signature=signature, parallel_iterations=parallel)
