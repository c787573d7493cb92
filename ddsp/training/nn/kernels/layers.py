"""From layers to kernels: where a kernel computes what a layer does, and with which weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from ddsp.core import Tensor
from ddsp.core.kernels import switched
from ddsp.core.utils import platform
from ddsp.training.nn.kernels.blocks import rnn_fc
from ddsp.training.nn.kernels.loops import BACKENDS


def gru(
    layer: keras.layers.GRU, sequences: Tensor, initial_state: Any, mask: Any, training: bool = False
) -> Any:
    """`keras.layers.GRU.inner_loop`: the inputs' product before the loop, the weights' gradients after it."""
    mask = mask[0] if isinstance(mask, (list, tuple)) else mask
    if mask is not None or not _is_usual_gru(layer) or not _is_known(sequences):
        return NotImplemented
    state = initial_state[0] if isinstance(initial_state, (list, tuple)) else initial_state
    weights = {'inputs': [[]], 'gru': _gru_weights(layer), 'output': [], 'linear': []}
    dtype = layer.compute_dtype
    outputs = rnn_fc([ops.cast(sequences, 'float32')], ops.cast(state, 'float32'), weights, dtype)
    outputs = ops.cast(outputs, dtype)
    last = outputs[:, -1]
    return last, outputs if layer.return_sequences else last[:, None], [last]


def decode(decoder: Any, features: Sequence[Tensor], state: Tensor | None = None) -> Any:
    """`RnnFcDecoder.decode` in blocks of time."""
    rnn = getattr(decoder.rnn, 'rnn', None)
    if not (
        state is None
        and isinstance(rnn, keras.layers.GRU)
        and _is_usual_gru(rnn)
        and all(stack.is_usual for stack in (*decoder.input_stacks, decoder.out_stack))
        and all(_is_known(x) for x in features)
        and on_cpu()
    ):
        return NotImplemented
    if not decoder.dense_out.built:
        with switched(False):
            decoder.decode([x[:1, :1] for x in features])  # makes the weights
    n_frames = max(x.shape[1] for x in features)
    features = [ops.cast(x, 'float32') for x in features]
    features = [ops.repeat(x, n_frames, axis=1) if x.shape[1] == 1 < n_frames else x for x in features]
    weights = {
        'inputs': [_stack_weights(stack) for stack in decoder.input_stacks],
        'gru': _gru_weights(rnn),
        'output': _stack_weights(decoder.out_stack),
        'linear': _tensors(decoder.dense_out.kernel, decoder.dense_out.bias),
    }
    start = ops.zeros((features[0].shape[0], rnn.units), 'float32')
    return rnn_fc(features, start, weights, decoder.dense_out.compute_dtype), None


def on_cpu() -> bool:
    """Whether layers run on the CPU: blocks save memory traffic there and are of no use elsewhere."""
    return platform() == 'cpu'


def _is_usual_gru(layer: keras.layers.GRU) -> bool:
    """Whether a layer has the default cell, and is neither masked, reversed nor dropped out."""
    backend, cell = keras.backend.backend(), layer.cell
    if backend not in BACKENDS or (backend == 'tensorflow' and not on_cpu()):
        return False  # cuDNN is faster
    return (
        cell.activation is keras.activations.tanh
        and cell.recurrent_activation is keras.activations.sigmoid
        and cell.use_bias
        and cell.reset_after
        and not (layer.dropout or layer.recurrent_dropout or layer.go_backwards or layer.unroll)
    )


def _is_known(x: Tensor) -> bool:
    """Whether a tensor has values and a known shape."""
    return not keras.backend.is_keras_tensor(x) and None not in x.shape


def _gru_weights(layer: keras.layers.GRU) -> list[Tensor]:
    return _tensors(layer.cell.kernel, layer.cell.recurrent_kernel, layer.cell.bias)


def _stack_weights(stack: Any) -> list[list[Tensor]]:
    """Kernel, bias, scale and shift of each layer of an `FcStack`."""
    layers = [fc.layers[:2] for fc in stack.layers[: stack.n_layers]]
    return [_tensors(dense.kernel, dense.bias, norm.gamma, norm.beta) for dense, norm in layers]


def _tensors(*variables: keras.Variable) -> list[Tensor]:
    """Values of variables, float32; on TensorFlow tensors, so that a custom gradient takes them as
    arguments."""
    values = [ops.cast(variable.value, 'float32') for variable in variables]
    if keras.backend.backend() == 'tensorflow':
        import tensorflow as tf

        values = [tf.convert_to_tensor(value) for value in values]
    return values
