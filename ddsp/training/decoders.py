"""From features and z to the inputs of the synthesisers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gin
import keras
from keras import ops

from ddsp.core import Tensor
from ddsp.core.kernels import kernel
from ddsp.training import nn

_register = gin.register(module='ddsp.training.decoders')


@_register
class RnnFcDecoder(nn.DictLayer):
    """A fully connected stack for each input, an RNN over all of them, a stack and a linear layer.

    Args:
      rnn_channels: Units of the RNN.
      rnn_type: `'gru'` or `'lstm'`.
      ch: Channels of the stacks.
      layers_per_stack: Layers of each stack; 0 means none.
      stateless: The RNN's state is the last input (`'state'`, `[batch, rnn_channels]`) and the last output.
      input_keys: Keys of the inputs, `[batch, n_frames, channels]` each.
      output_splits: Pairs (name, number of channels) of the outputs.
      **kwargs: Passed to `nn.DictLayer`.
    """

    def __init__(
        self,
        rnn_channels: int = 512,
        rnn_type: str = 'gru',
        ch: int = 512,
        layers_per_stack: int = 3,
        stateless: bool = False,
        input_keys: Sequence[str] = ('ld_scaled', 'f0_scaled', 'z'),
        output_splits: nn.Splits = (('amps', 1), ('harmonic_distribution', 40)),
        **kwargs: Any,
    ) -> None:
        self.stateless = stateless
        self.output_splits = tuple((name, size) for name, size in output_splits)
        state = ['state'] if stateless else []
        output_keys = [name for name, _ in self.output_splits] + state
        super().__init__(input_keys=[*input_keys, *state], output_keys=output_keys, **kwargs)
        self.input_stacks = [nn.FcStack(ch, layers_per_stack) for _ in input_keys]
        self.rnn = nn.StatelessRnn(rnn_channels, rnn_type) if stateless else nn.Rnn(rnn_channels, rnn_type)
        self.out_stack = nn.FcStack(ch, layers_per_stack)
        self.dense_out = keras.layers.Dense(sum(size for _, size in self.output_splits))

    def call(self, *inputs: Tensor, **unused_kwargs: Any) -> dict[str, Tensor]:
        """One tensor `[batch, n_frames, size]` for each output, and the new state when stateless."""
        features, state = (inputs[:-1], inputs[-1]) if self.stateless else (inputs, None)
        y, state = self.decode(features, state)
        outputs = nn.split_to_dict(y, self.output_splits)
        return {**outputs, 'state': state} if self.stateless else outputs

    @kernel('ddsp.training.nn.kernels.layers:decode')
    def decode(self, features: Sequence[Tensor], state: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """All outputs in one tensor `[batch, n_frames, channels]`, and the new state when stateless."""
        stacked = [stack(x) for stack, x in zip(self.input_stacks, features, strict=True)]
        # A feature of the whole example (one time step) holds for every frame.
        n_frames = max(x.shape[1] for x in stacked)
        stacked = [ops.repeat(x, n_frames, axis=1) if x.shape[1] == 1 < n_frames else x for x in stacked]
        x = ops.concatenate(stacked, axis=-1)
        y, state = self.rnn(x, state) if self.stateless else (self.rnn(x), None)
        return self.dense_out(self.out_stack(ops.concatenate([*stacked, y], axis=-1))), state


@_register
class DilatedConvDecoder(nn.OutputSplitsLayer):
    """Dilated convolutions over the inputs, conditioned on others.

    Args:
      ch: Channels.
      kernel_size: Size of the convolution kernels.
      layers_per_stack: Layers of a stack.
      stacks: Number of stacks.
      dilation: Base of the dilations.
      norm_type: As in `nn.normalize_op`.
      resample_stride: Upsampling factor (1: none).
      stacks_per_resample: Stacks between upsamplings.
      resample_after_convolve: Upsample after a stack, or before it.
      input_keys: Keys of the inputs.
      output_splits: Pairs (name, number of channels) of the outputs.
      conditioning_keys: Keys of what the normalisation is conditioned on; may be empty.
      precondition_stack: Layer applied to the conditioning.
      spectral_norm: As in `nn.DilatedConvStack`.
      ortho_init: As in `nn.DilatedConvStack`.
      **kwargs: Passed to `nn.DictLayer`.
    """

    def __init__(
        self,
        ch: int = 256,
        kernel_size: int = 3,
        layers_per_stack: int = 5,
        stacks: int = 2,
        dilation: int = 2,
        norm_type: str | None = 'layer',
        resample_stride: int = 1,
        stacks_per_resample: int = 1,
        resample_after_convolve: bool = True,
        input_keys: Sequence[str] = ('ld_scaled', 'f0_scaled'),
        output_splits: nn.Splits = (('amps', 1), ('harmonic_distribution', 60)),
        conditioning_keys: Sequence[str] | str | None = ('z',),
        precondition_stack: keras.layers.Layer | None = None,
        spectral_norm: bool = False,
        ortho_init: bool = False,
        **kwargs: Any,
    ) -> None:
        if isinstance(conditioning_keys, str):
            conditioning_keys = (conditioning_keys,)
        conditioning = list(conditioning_keys or [])
        super().__init__(input_keys=[*input_keys, *conditioning], output_splits=output_splits, **kwargs)
        self.n_conditioning = len(conditioning)
        self.precondition_stack = precondition_stack if conditioning else None
        self.dilated_conv_stack = nn.DilatedConvStack(
            ch=ch,
            layers_per_stack=layers_per_stack,
            stacks=stacks,
            kernel_size=kernel_size,
            dilation=dilation,
            norm_type=norm_type,
            resample_type='upsample' if resample_stride > 1 else None,
            resample_stride=resample_stride,
            stacks_per_resample=stacks_per_resample,
            resample_after_convolve=resample_after_convolve,
            spectral_norm=spectral_norm,
            ortho_init=ortho_init,
            conditional=bool(conditioning),
        )

    def compute_output(self, *inputs: Any) -> Any:
        """`[batch, n_frames, ch]` from the inputs."""
        if not self.n_conditioning:
            return self.dilated_conv_stack(ops.concatenate(inputs, axis=-1))
        x = ops.concatenate(inputs[: -self.n_conditioning], axis=-1)
        z = ops.concatenate(inputs[-self.n_conditioning :], axis=-1)
        if self.precondition_stack is not None:
            z = self.precondition_stack(z)
        return self.dilated_conv_stack([x, z])
