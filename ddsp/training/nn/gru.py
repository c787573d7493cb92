"""A GRU with a hand-written gradient: the weights, names and numbers of Keras' own, at about half its cost.

Keras' loop multiplies the inputs step by step, and its automatic gradient accumulates the gradient of each
weight once a step. Here the inputs are multiplied in one matrix product before the loop, and every weight
gradient is one matrix product after it; only what is truly sequential stays inside.
"""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from ddsp.training.nn import loops
from ddsp.training.nn.precision import on_cpu
from ddsp.training.nn.recurrent_blocks import as_tensors, rnn_fc


class GRU(keras.layers.GRU):
    """`keras.layers.GRU` that takes the fast path on TensorFlow without a GPU, and on JAX.

    The fast path is used for the default cell (sigmoid and tanh, bias, `reset_after`) and known shapes,
    without dropout, masks or reversal; everything else, and every other backend, is Keras' own code.
    """

    def inner_loop(self, sequences: Any, initial_state: Any, mask: Any, training: bool = False) -> Any:
        """The recurrence over the time axis; overrides Keras' hook."""
        if not self.has_fast_path(sequences, mask):
            return super().inner_loop(sequences, initial_state, mask, training=training)
        state = initial_state[0] if isinstance(initial_state, (list, tuple)) else initial_state
        dtype = self.compute_dtype
        structure = {'inputs': [[]], 'gru': self.cell_weights(), 'output': [], 'linear': []}
        outputs = rnn_fc([ops.cast(sequences, 'float32')], ops.cast(state, 'float32'), structure, dtype)
        outputs = ops.cast(outputs, dtype)
        last = outputs[:, -1]
        return last, outputs if self.return_sequences else last[:, None], [last]

    def cell_weights(self) -> list[Any]:
        """Kernel, recurrent kernel and biases, as tensors."""
        cell = self.cell
        return as_tensors(cell.kernel, cell.recurrent_kernel, cell.bias)

    def has_fast_path(self, sequences: Any, mask: Any) -> bool:
        """Whether `rnn_fc` can compute this layer for these sequences."""
        backend = keras.backend.backend()
        if backend not in loops.BACKENDS or (backend == 'tensorflow' and not on_cpu()):
            return False  # cuDNN is faster
        if keras.backend.is_keras_tensor(sequences) or None in sequences.shape:
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
