"""Recurrent layers."""

from __future__ import annotations

from typing import Any

import gin
import keras
from keras import ops

from ddsp.core import Tensor
from ddsp.training.nn.dict_layer import get_nonlinearity
from ddsp.training.nn.gru import GRU
from ddsp.training.nn.stacks import FcStack

_register = gin.register(module='ddsp.training.nn')
_RNN_TYPES = {'gru': GRU, 'lstm': keras.layers.LSTM}


def _rnn_class(rnn_type: str) -> type[keras.layers.Layer]:
    if rnn_type not in _RNN_TYPES:
        raise ValueError(f'rnn_type is {rnn_type!r}; it must be one of {sorted(_RNN_TYPES)}')
    return _RNN_TYPES[rnn_type]


@_register
class Rnn(keras.layers.Layer):
    """A GRU or an LSTM, in one or both directions.

    Args:
      dims: Units (of each direction, when there are both).
      rnn_type: `'gru'` or `'lstm'`.
      return_sequences: Output at every step, or the last one only.
      bidir: Both directions.
      **kwargs: Passed to `keras.layers.Layer`.
    """

    def __init__(
        self, dims: int, rnn_type: str, return_sequences: bool = True, bidir: bool = False, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        rnn = _rnn_class(rnn_type)(dims, return_sequences=return_sequences)
        self.rnn = keras.layers.Bidirectional(rnn) if bidir else rnn

    def build(self, input_shape: Any = None) -> None:
        """The recurrent layer is built by the first call."""
        self.built = True

    def call(self, x: Tensor) -> Tensor:
        """`[batch, time, channels]` -> `[batch, time, dims]`, or `2 * dims` channels in both directions."""
        return self.rnn(x)


@_register
class StatelessRnn(keras.layers.Layer):
    """A GRU whose state is an input and an output, for streaming.

    Its weights are those of `Rnn(dims, 'gru')`: one can be restored into the other.

    Args:
      dims: Units.
      rnn_type: `'gru'`.
      **kwargs: Passed to `keras.layers.Layer`.
    """

    def __init__(self, dims: int, rnn_type: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if rnn_type != 'gru':
            raise ValueError(f"rnn_type is {rnn_type!r}; a stateless network needs 'gru'")
        self.rnn = GRU(dims, return_sequences=True, return_state=True)

    def build(self, input_shape: Any = None) -> None:
        """The recurrent layer is built by the first call."""
        self.built = True

    def call(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """One or more steps.

        Args:
          x: `[batch, time, channels]`.
          state: `[batch, dims]`, zeros at the start.

        Returns:
          Output `[batch, time, dims]` and the new state `[batch, dims]`.
        """
        y, new_state = self.rnn(x, initial_state=ops.convert_to_tensor(state))
        return y, new_state


@_register
class RnnFc(keras.Sequential):
    """Recurrent layers followed by one linear layer with an activation.

    Args:
      rnn_feat: Units of each recurrent layer.
      out_feat: Channels of the output.
      rnn_type: `'gru'` or `'lstm'`.
      nonlinearity: Activation of the output.
      bidir: Both directions.
      n_rnn: Number of recurrent layers.
      **kwargs: Passed to `keras.Sequential`.
    """

    def __init__(
        self,
        rnn_feat: int,
        out_feat: int,
        rnn_type: str = 'lstm',
        nonlinearity: str = 'sigmoid',
        bidir: bool = False,
        n_rnn: int = 1,
        **kwargs: Any,
    ) -> None:
        layers: list[keras.layers.Layer] = [Rnn(rnn_feat, rnn_type, bidir=bidir) for _ in range(n_rnn)]
        layers.append(keras.layers.Dense(out_feat, activation=get_nonlinearity(nonlinearity)))
        super().__init__(layers, **kwargs)


@_register
class RnnSandwich(keras.Sequential):
    """`FcStack`, `Rnn`, `FcStack`.

    Args:
      fc_stack_ch: Channels of the stacks.
      fc_stack_layers: Layers of each stack.
      rnn_ch: Units of the recurrent layer.
      rnn_type: `'gru'` or `'lstm'`.
      **kwargs: Passed to `keras.Sequential`.
    """

    def __init__(
        self,
        fc_stack_ch: int = 256,
        fc_stack_layers: int = 2,
        rnn_ch: int = 512,
        rnn_type: str = 'gru',
        **kwargs: Any,
    ) -> None:
        stacks = [FcStack(fc_stack_ch, fc_stack_layers) for _ in range(2)]
        super().__init__([stacks[0], Rnn(rnn_ch, rnn_type), stacks[1]], **kwargs)


@_register
class SingleGru(keras.Sequential):
    """One GRU that returns its output at every step."""

    def __init__(self, gru_dim: int = 128, **kwargs: Any) -> None:
        super().__init__([Rnn(gru_dim, 'gru')], **kwargs)
