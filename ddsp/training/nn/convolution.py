"""Dilated convolution stacks, and resampling that only reorders."""

from __future__ import annotations

from typing import Any

import gin
import keras
from keras import ops

from ddsp.core import Tensor
from ddsp.training.nn.normalization import get_norm
from ddsp.training.nn.stacks import Identity

_register = gin.register(module='ddsp.training.nn')


def polyphase_resample(
    x: Tensor, stride: int = 2, resample_type: str = 'down', trim_or_pad: str = 'pad'
) -> Tensor:
    """Moves samples between the time axis and the channels.

    Args:
      x: `[batch, time, channels]`.
      stride: Factor.
      resample_type: `'down'` puts `stride` frames side by side, `'up'` cuts the channels into `stride`
        frames.
      trim_or_pad: What happens to frames (or channels) that do not fill a group: `'trim'`, or `'pad'` with
        zeros.

    Returns:
      `[batch, time / stride, channels * stride]` or `[batch, time * stride, channels / stride]`.

    Raises:
      ValueError: Unknown `resample_type` or `trim_or_pad`.
    """
    if resample_type not in ('down', 'up'):
        raise ValueError(f"resample_type is {resample_type!r}; it must be 'down' or 'up'")
    if trim_or_pad not in ('trim', 'pad'):
        raise ValueError(f"trim_or_pad is {trim_or_pad!r}; it must be 'trim' or 'pad'")
    axis = 1 if resample_type == 'down' else 2
    size = x.shape[axis]
    whole = size // stride * stride
    if whole != size:
        if trim_or_pad == 'trim':
            x = x[:, :whole] if axis == 1 else x[:, :, :whole]
        else:
            padding = [[0, 0], [0, 0], [0, 0]]
            padding[axis][1] = whole + stride - size
            x = ops.pad(x, padding)
    _, time, channels = x.shape
    if axis == 1:
        return ops.reshape(x, (-1, time // stride, channels * stride))
    return ops.reshape(x, (-1, time * stride, channels // stride))


@_register
class PolyphaseResample(keras.layers.Layer):
    """`polyphase_resample` as a layer."""

    def __init__(
        self, stride: int = 2, resample_type: str = 'down', trim_or_pad: str = 'pad', **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.stride = stride
        self.resample_type = resample_type
        self.trim_or_pad = trim_or_pad

    def call(self, x: Tensor) -> Tensor:
        """`[batch, time, channels]`, resampled."""
        return polyphase_resample(x, self.stride, self.resample_type, self.trim_or_pad)


@_register
class DilatedConvStack(keras.layers.Layer):
    """Residual stacks of dilated convolutions over time.

    An input convolution, then for each layer `x += norm(conv(relu(x)))` with dilation
    `dilation ** j`, j being the layer's place in its stack (a negative dilation counts down instead of up).

    Args:
      ch: Channels.
      layers_per_stack: Layers of a stack.
      stacks: Number of stacks.
      kernel_size: Size of the convolution kernels.
      dilation: Base of the dilations.
      norm_type: As in `normalize_op`.
      resample_type: `'downsample'`, `'upsample'` or `None`.
      resample_stride: Factor of one resampling.
      stacks_per_resample: Number of stacks between resamplings.
      resample_after_convolve: Resample after a stack, or before it.
      spectral_norm: Normalise the kernels by their largest singular value.
      ortho_init: Orthogonal initialisation of the kernels.
      shift_only: Condition by a shift only.
      conditional: The input is `(x, z)` and z conditions every layer.
      **kwargs: Passed to `keras.layers.Layer`.
    """

    def __init__(
        self,
        ch: int = 256,
        layers_per_stack: int = 5,
        stacks: int = 2,
        kernel_size: int = 3,
        dilation: int = 2,
        norm_type: str | None = None,
        resample_type: str | None = None,
        resample_stride: int = 1,
        stacks_per_resample: int = 1,
        resample_after_convolve: bool = True,
        spectral_norm: bool = False,
        ortho_init: bool = False,
        shift_only: bool = False,
        conditional: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if resample_type not in (None, 'downsample', 'upsample'):
            raise ValueError(
                f"resample_type is {resample_type!r}; it must be 'downsample', 'upsample' or None"
            )
        self.conditional = conditional
        self.resample_after_convolve = resample_after_convolve
        self.stacks_per_resample = stacks_per_resample
        self.layers_per_stack = layers_per_stack

        def conv(rate: int) -> keras.layers.Layer:
            init = 'orthogonal' if ortho_init else 'glorot_uniform'
            layer = keras.layers.Conv1D(
                ch, kernel_size, dilation_rate=rate, padding='same', kernel_initializer=init
            )
            return keras.layers.SpectralNormalization(layer) if spectral_norm else layer

        def rate_of(i: int) -> int:
            place = i % layers_per_stack
            return dilation**place if dilation > 0 else (-dilation) ** (layers_per_stack - place - 1)

        n_layers = stacks * layers_per_stack
        self.conv_in = keras.layers.Conv1D(ch, kernel_size, padding='same')
        self.convs = [conv(rate_of(i)) for i in range(n_layers)]
        self.norms = [get_norm(norm_type, conditional, shift_only) for _ in range(n_layers)]
        self.resamplers = [
            self._resampler(resample_type, ch, resample_stride) for _ in range(stacks // stacks_per_resample)
        ]

    @staticmethod
    def _resampler(resample_type: str | None, ch: int, stride: int) -> keras.layers.Layer:
        if resample_type == 'downsample':
            return keras.layers.Conv1D(ch, 2 * stride, strides=stride, padding='same')
        if resample_type == 'upsample':
            return keras.layers.Conv1DTranspose(ch, 2 * stride, strides=stride, padding='same')
        return Identity()

    def build(self, input_shape: Any = None) -> None:
        """The convolutions are built by the first call."""
        self.built = True

    def call(self, inputs: Any) -> Any:
        """`[batch, time, channels]`, or `(x, z)` when conditional, to `[batch, time', ch]`."""
        x, z = inputs if self.conditional else (inputs, None)
        x = self.conv_in(x)
        for i, (conv, norm) in enumerate(zip(self.convs, self.norms, strict=True)):
            stack, place = divmod(i, self.layers_per_stack)
            due = (stack + 1) % self.stacks_per_resample == 0
            resample = self.resamplers[stack // self.stacks_per_resample] if due else None
            if resample is not None and not self.resample_after_convolve and place == 0:
                x = resample(x)
            y = conv(ops.relu(x))
            x = x + (norm([y, z]) if self.conditional else norm(y))
            if resample is not None and self.resample_after_convolve and place == self.layers_per_stack - 1:
                x = resample(x)
        return x
