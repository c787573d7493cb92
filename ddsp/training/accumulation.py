"""A batch in parts, one after the other: the memory of one part, the gradient of all."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import tensorflow as tf

Groups = tuple[Sequence[tf.Tensor], Sequence[tf.Tensor]]


def mean_over_parts(
    function: Callable[[Mapping[str, Any], tf.Tensor], Groups],
    batch: Mapping[str, Any],
    n: int,
    like: Groups,
) -> tuple[list[tf.Tensor], list[tf.Tensor]]:
    """Means of what a function gives for each part of a batch.

    Args:
      function: `function(part, i)` gives two groups of tensors, such as gradients and metrics.
      batch: Features `[batch, ...]`; `n` divides the batch.
      n: Number of parts.
      like: Two groups of tensors of the same shapes.

    Returns:
      The means of both groups.
    """
    parts = tf.nest.map_structure(lambda x: tf.reshape(x, [n, x.shape[0] // n, *x.shape[1:]]), batch)

    def body(i: tf.Tensor, *sums: tuple) -> tuple:
        found = function(tf.nest.map_structure(lambda x: x[i], parts), i)
        added = (
            tuple(a + b for a, b in zip(old, new, strict=True)) for old, new in zip(sums, found, strict=True)
        )
        return i + 1, *added

    zeros = [tuple(tf.zeros(x.shape) for x in group) for group in like]
    # One after the other, or TensorFlow works at several parts at once.
    _, *sums = tf.while_loop(
        lambda i, *_: i < n, body, (tf.constant(0), *zeros), parallel_iterations=1, maximum_iterations=n
    )
    first, second = ([x / n for x in group] for group in sums)
    return first, second
