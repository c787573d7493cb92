"""A GRU with a hand-written gradient: the weights, names and numbers of Keras' own, at about half its cost.

Keras' loop multiplies the inputs step by step, and its automatic gradient accumulates the gradient of each
weight once a step. Here the inputs are multiplied in one matrix product before the loop, and every weight
gradient is one matrix product after it; only what is truly sequential stays inside.
"""

from __future__ import annotations

from typing import Any

import keras
from keras import ops


class GRU(keras.layers.GRU):
    """`keras.layers.GRU` that takes the fast path on TensorFlow without a GPU.

    The fast path is used for the default cell (sigmoid and tanh, bias, `reset_after`), without dropout, masks
    or reversal; everything else, and every other backend, is Keras' own code.
    """

    def inner_loop(self, sequences: Any, initial_state: Any, mask: Any, training: bool = False) -> Any:
        """The recurrence over the time axis; overrides Keras' hook."""
        if not self._has_fast_path(mask):
            return super().inner_loop(sequences, initial_state, mask, training=training)
        from ddsp.training.nn import gru_tensorflow

        state = initial_state[0] if isinstance(initial_state, (list, tuple)) else initial_state
        cell = self.cell
        dtype = sequences.dtype
        weights = (ops.cast(w, dtype) for w in (cell.kernel, cell.recurrent_kernel, cell.bias))
        outputs = gru_tensorflow.gru(sequences, ops.cast(state, dtype), *weights)
        last = outputs[:, -1]
        return last, outputs if self.return_sequences else last[:, None], [last]

    def _has_fast_path(self, mask: Any) -> bool:
        if keras.backend.backend() != 'tensorflow' or _has_gpu():
            return False
        cell = self.cell
        if isinstance(mask, (list, tuple)):
            mask = mask[0]
        return (
            mask is None
            and cell.activation is keras.activations.tanh
            and cell.recurrent_activation is keras.activations.sigmoid
            and cell.use_bias
            and cell.reset_after
            and not (self.dropout or self.recurrent_dropout or self.go_backwards or self.unroll)
        )


def _has_gpu() -> bool:
    import tensorflow as tf

    return bool(tf.config.list_logical_devices('GPU'))
