"""Precision of a network."""

from __future__ import annotations

import keras

from ddsp.errors import ConfigError
from ddsp.training.nn.dict_layer import DictLayer

PRECISIONS = ('float32', 'mixed_bfloat16')
_FEW_CHANNELS = 16


def check_precision(precision: str) -> str:
    """The precision itself; a ConfigError unless it is one of `PRECISIONS`."""
    if precision not in PRECISIONS:
        raise ConfigError(f'precision is {precision!r}; it must be one of {", ".join(PRECISIONS)}')
    return precision


def set_precision(network: keras.layers.Layer, precision: str) -> None:
    """Sets the precision of the layers within a network, which must be built.

    With `'mixed_bfloat16'` weights stay float32 and matrix products take bfloat16 factors. Linear layers of
    few inputs stay as they are: 8 bits would round a pitch to a quarter tone.

    Args:
      network: An encoder or a decoder.
      precision: `'float32'` or `'mixed_bfloat16'`.

    Raises:
      ConfigError: Another precision.
    """
    check_precision(precision)
    for layer in network._flatten_layers():
        few = isinstance(layer, keras.layers.Dense) and layer.kernel.shape[0] < _FEW_CHANNELS
        if not isinstance(layer, (DictLayer, keras.Sequential)) and not few:
            layer.dtype_policy = precision
