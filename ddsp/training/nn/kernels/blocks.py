"""Stacks, a GRU and a stack in blocks of time, with a gradient that computes the stacks anew.

Everything in a recurrent decoder but the state is independent of time. So it is computed some steps at a
time, for all of them up to the output, in arrays that fit the processor's cache; between forward and backward
pass only the GRU's states and gates are kept. The backward pass goes through the blocks from the last to the
first. Every matrix product stays large: a block has `steps x batch` rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from ddsp.core import Tensor
from ddsp.core.kernels.blocks import custom_gradient
from ddsp.training.nn.kernels import gru as gru_kernel
from ddsp.training.nn.kernels import stacks as stack_kernel
from ddsp.training.nn.kernels.loops import scan

_BLOCK_STEPS = 64


def rnn_fc(inputs: Sequence[Tensor], state: Tensor, weights: dict[str, Any], dtype: str) -> Tensor:
    """A stack for each input, a GRU over all of them, and where there is one a stack over inputs and GRU.

    Args:
      inputs: `[batch, time, channels]` each, float32.
      state: `[batch, units]` before the first step, float32.
      weights: `'inputs'`, for each input a list of layers (kernel, bias, scale, shift); `'gru'`, kernel,
        recurrent kernel and biases; `'output'`, a list of layers and `'linear'`, kernel and bias, both empty
        for the GRU's own output.
      dtype: Type of the factors of matrix products; everything else is float32.

    Returns:
      `[batch, time, channels]`, float32.
    """
    batch, time = inputs[0].shape[:2]
    n_blocks = -(-time // _BLOCK_STEPS)
    steps = -(-time // n_blocks)

    def split(x: Tensor) -> Tensor:
        """`[batch, time, c]` to `[n_blocks, steps, batch, c]`; steps are added at the end, where nothing
        depends on them."""
        missing = n_blocks * steps - time
        x = ops.pad(x, [[0, 0], [0, missing], [0, 0]]) if missing else x
        return ops.reshape(ops.transpose(x, (1, 0, 2)), (n_blocks, steps, batch, x.shape[-1]))

    def join(x: Tensor) -> Tensor:
        x = ops.reshape(x, (n_blocks * steps, batch, x.shape[-1]))
        return ops.transpose(x[:time], (1, 0, 2))

    n_inputs = len(inputs)

    @custom_gradient
    def run(*arguments: Tensor) -> Any:
        xs, state = [split(x) for x in arguments[:n_inputs]], arguments[n_inputs]
        flat = arguments[n_inputs + 1 :]
        block = _Block(keras.tree.pack_sequence_as(weights, flat), dtype)
        outputs, kept = block.forward_all(xs, state)

        def backward(upstream: Tensor) -> list:
            d_xs, d_state, gradients = block.backward_all(xs, state, kept, split(upstream), flat)
            return [*(join(d_x) for d_x in d_xs), d_state, *gradients]

        return join(outputs), backward

    return run(*inputs, state, *keras.tree.flatten(weights))


class _Block:
    """Both passes, block after block."""

    def __init__(self, weights: dict[str, Any], dtype: str) -> None:
        self.weights = weights
        self.dtype = dtype

    def forward_all(self, xs: list[Tensor], state: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Outputs, and the GRU's states, gates and candidates, `[n_blocks, steps, batch, ...]`."""

        def one(carry: list, rows: list) -> tuple[list, list]:
            stacked, _ = self._stacked(rows)
            gru = gru_kernel.forward(
                ops.concatenate(stacked, axis=-1), carry[0], self.weights['gru'], self.dtype
            )
            return [gru[0][-1]], [self._output([*stacked, gru[0]])[0], *gru]

        _, (outputs, *kept) = scan(one, [state], xs, ['float32'] * 4)
        return outputs, kept

    def backward_all(
        self, xs: list[Tensor], state: Tensor, kept: list[Tensor], upstream: Tensor, flat: Sequence[Tensor]
    ) -> tuple[list, Tensor, list]:
        """Gradients of inputs, initial state and flat weights."""
        n_inputs = len(xs)
        # The state before each block: the last one of the block before.
        before = ops.concatenate([state[None], kept[0][:-1, -1]], axis=0)

        def one(carry: list, rows: list) -> tuple[list, list]:
            x, (first, *gru), dy = rows[:n_inputs], rows[n_inputs:-1], rows[-1]
            d_x, d_state, gradients = self._backward(x, first, gru, dy, carry[0])
            return [d_state, *(a + b for a, b in zip(carry[1:], gradients, strict=True))], d_x

        zeros = [ops.zeros(w.shape, 'float32') for w in flat]
        carry, d_xs = scan(
            one, [ops.zeros_like(state), *zeros], [*xs, before, *kept, upstream], ['float32'] * n_inputs,
            reverse=True,
        )  # fmt: skip
        return d_xs, carry[0], carry[1:]

    def _stacked(self, xs: Sequence[Tensor]) -> tuple[list, list]:
        """Every input through its stack, and what the stacks' gradients need."""
        results = [
            stack_kernel.forward(ops.reshape(x, (-1, x.shape[-1])), layers, self.dtype)
            for x, layers in zip(xs, self.weights['inputs'], strict=True)
        ]
        lead = xs[0].shape[:-1]
        return [ops.reshape(y, (*lead, y.shape[-1])) for y, _ in results], [kept for _, kept in results]

    def _output(self, parts: Sequence[Tensor]) -> tuple[Tensor, Any]:
        """Stack and linear layer over inputs and GRU; without them the GRU's output."""
        if not self.weights['linear']:
            return parts[-1], None
        joined = ops.concatenate(parts, axis=-1)
        y, kept = stack_kernel.forward(
            ops.reshape(joined, (-1, joined.shape[-1])), self.weights['output'], self.dtype
        )
        kernel, bias = self.weights['linear']
        result = stack_kernel.matmul(y, kernel, self.dtype) + bias
        return ops.reshape(result, (*joined.shape[:-1], result.shape[-1])), (y, kept)

    def _backward(
        self, xs: list, state: Tensor, gru: list, upstream: Tensor, d_state: Tensor
    ) -> tuple[list, Tensor, list]:
        """Gradients of one block: of inputs, of the state before it, and of flat weights."""
        stacked, kept = self._stacked(xs)
        parts = [*stacked, gru[0]]
        d_parts, d_output, d_linear = self._output_backward(parts, upstream)
        joined = ops.concatenate(stacked, axis=-1)
        d_joined, d_state, d_gru = gru_kernel.backward(
            joined, state, gru, self.weights['gru'], d_parts[-1], d_state, self.dtype
        )
        d_xs, d_inputs, start = [], [], 0
        for x, y, d_y, layers, kept_here in zip(
            xs, stacked, d_parts[:-1], self.weights['inputs'], kept, strict=True
        ):
            d_y = d_y + d_joined[..., start : start + y.shape[-1]]
            start += y.shape[-1]
            d_x, gradients = stack_kernel.backward(
                kept_here, layers, ops.reshape(d_y, (-1, y.shape[-1])), self.dtype
            )
            d_xs.append(ops.reshape(d_x, x.shape))
            d_inputs.append(gradients)
        by_part = {'inputs': d_inputs, 'gru': d_gru, 'output': d_output, 'linear': d_linear}
        return d_xs, d_state, keras.tree.flatten(by_part)

    def _output_backward(self, parts: Sequence[Tensor], upstream: Tensor) -> tuple[list, list, list]:
        if not self.weights['linear']:
            return [*(ops.zeros_like(part) for part in parts[:-1]), upstream], [], []
        _, (y, kept) = self._output(parts)
        flat = ops.reshape(upstream, (-1, upstream.shape[-1]))
        kernel, _ = self.weights['linear']
        d_linear = [stack_kernel.matmul(ops.transpose(y), flat, self.dtype), ops.sum(flat, 0)]
        d_y = stack_kernel.matmul(flat, ops.transpose(kernel), self.dtype)
        d_joined, d_output = stack_kernel.backward(kept, self.weights['output'], d_y, self.dtype)
        d_parts, start = [], 0
        for part in parts:
            size = part.shape[-1]
            d_parts.append(ops.reshape(d_joined[:, start : start + size], part.shape))
            start += size
        return d_parts, d_output, d_linear
