"""Neural network layers of the encoders and decoders."""

from __future__ import annotations

import gin
import keras

from ddsp.training.nn.convolution import DilatedConvStack, PolyphaseResample, polyphase_resample
from ddsp.training.nn.dict_layer import (
    DictLayer,
    OutputSplitsLayer,
    Splits,
    ensure_4d,
    get_nonlinearity,
    inv_ensure_4d,
    split_to_dict,
)
from ddsp.training.nn.gru import GRU
from ddsp.training.nn.normalization import (
    ConditionalNorm,
    ConditionalScaleAndShift,
    Normalize,
    get_norm,
    normalize_op,
)
from ddsp.training.nn.notes import (
    get_note_lengths,
    get_note_mask,
    get_note_mask_from_onset,
    get_note_moments,
    get_short_note_loss_mask,
    pool_over_notes,
    straight_through_choice,
    straight_through_int_quantization,
    straight_through_softmax,
)
from ddsp.training.nn.precision import check_precision, set_precision
from ddsp.training.nn.recurrent import Rnn, RnnFc, RnnSandwich, SingleGru, StatelessRnn
from ddsp.training.nn.stacks import Fc, FcStack, FcStackOut, Identity

__all__ = [
    'GRU',
    'ConditionalNorm',
    'ConditionalScaleAndShift',
    'DictLayer',
    'DilatedConvStack',
    'Fc',
    'FcStack',
    'FcStackOut',
    'Identity',
    'Normalize',
    'OutputSplitsLayer',
    'PolyphaseResample',
    'Rnn',
    'RnnFc',
    'RnnSandwich',
    'SingleGru',
    'Splits',
    'StatelessRnn',
    'check_precision',
    'ensure_4d',
    'get_embedding',
    'get_nonlinearity',
    'get_norm',
    'get_note_lengths',
    'get_note_mask',
    'get_note_mask_from_onset',
    'get_note_moments',
    'get_short_note_loss_mask',
    'gin_register_keras_layers',
    'inv_ensure_4d',
    'normalize_op',
    'polyphase_resample',
    'pool_over_notes',
    'set_precision',
    'split_to_dict',
    'straight_through_choice',
    'straight_through_int_quantization',
    'straight_through_softmax',
]


def get_embedding(vocab_size: int = 1024, n_dims: int = 256) -> keras.layers.Embedding:
    """A table of `vocab_size` learned vectors of `n_dims`."""
    return keras.layers.Embedding(vocab_size, n_dims)


def gin_register_keras_layers() -> None:
    """Makes Keras' layers available in gin files, as `@tf.keras.layers.Dense` or shorter."""
    for name in dir(keras.layers):
        layer = getattr(keras.layers, name)
        if isinstance(layer, type) and issubclass(layer, keras.layers.Layer):
            gin.external_configurable(layer, name=name, module='tf.keras.layers')


gin_register_keras_layers()
