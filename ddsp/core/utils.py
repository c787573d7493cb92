"""Casting, nested dictionaries, and small shape helpers."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import keras
import numpy as np
from keras import ops

from ddsp.errors import ConfigError

# A tensor of the current Keras backend (no type checker knows it), or what converts to one.
Tensor: TypeAlias = Any
Number: TypeAlias = int | float | np.ndarray | Tensor  # what element-wise functions take


def tf_float32(x: Number) -> Tensor:
    """Converts numbers, arrays and tensors of any numeric type to a float32 tensor of the current backend.

    The name is upstream's; the tensor is TensorFlow's, JAX's or PyTorch's by `KERAS_BACKEND`.
    """
    if isinstance(x, (bool, int, float, list, tuple, np.ndarray, np.generic)):
        x = np.asarray(x, np.float32)  # by the rules of numpy, which are the same for all backends
    tensor = keras.backend.is_keras_tensor(x) or ops.is_tensor(x)
    return ops.cast(x if tensor else ops.convert_to_tensor(x), 'float32')


def constant(values: Any) -> Any:
    """An array as an operand beside tensors: PyTorch needs a tensor, the other backends take the array."""
    return ops.convert_to_tensor(values) if keras.backend.backend() == 'torch' else values


def make_iterable(x: Any) -> Iterable:
    """Wraps single objects in a list, so that they can be looped over.

    `[]` for None, `[x]` for a tensor, an array or anything that cannot be iterated, else `x` itself.
    """
    if x is None:
        return []
    tensor = isinstance(x, np.ndarray) or ops.is_tensor(x) or keras.backend.is_keras_tensor(x)
    return [x] if tensor or not isinstance(x, Iterable) else x


def to_dict(x: Any, keys: Sequence[str]) -> dict:
    """Gives names to the outputs of a module.

    Args:
      x: A dictionary (returned as it is), or one value or several values in the order of `keys`.
      keys: Names.

    Returns:
      A dictionary from `keys` to values.

    Raises:
      ConfigError: The numbers of keys and values differ.
    """
    if isinstance(x, dict):
        return x
    values, keys = list(make_iterable(x)), list(make_iterable(keys))
    if len(values) != len(keys):
        raise ConfigError(f'to_dict: {len(values)} values were given for {len(keys)} keys {keys}')
    return dict(zip(keys, values, strict=True))


def platform() -> str:
    """Where operations run: `'cpu'`, `'gpu'` or `'tpu'`."""
    if keras.backend.backend() == 'jax':
        import jax

        return jax.default_backend()
    import tensorflow as tf

    return next((kind.lower() for kind in ('TPU', 'GPU') if tf.config.list_logical_devices(kind)), 'cpu')


def copy_if_tf_function(x: Any) -> Any:
    """Copies a container inside a traced function, where changing an argument would leak tensors.

    A shallow copy while TensorFlow traces a function; `x` itself in eager mode and on other backends.
    """
    if keras.backend.backend() != 'tensorflow':
        return x
    import tensorflow as tf

    return x if tf.executing_eagerly() else copy.copy(x)


def nested_keys(nested_dict: Mapping[str, Any], delimiter: str = '/', prefix: str = '') -> list[str]:
    """Lists the paths of all leaves of a nested dictionary.

    Args:
      nested_dict: Dictionary of dictionaries.
      delimiter: Joins the steps of a path, at every level.
      prefix: Put before each path, with the delimiter.

    Returns:
      Paths in the order of insertion.

    >>> nested_keys({'a': {'b': 1, 'c': 2}, 'd': 3})
    ['a/b', 'a/c', 'd']
    """
    paths = []
    for key, value in nested_dict.items():
        path = f'{prefix}{delimiter}{key}' if prefix else str(key)
        if isinstance(value, Mapping):
            paths += nested_keys(value, delimiter, path)
        else:
            paths.append(path)
    return paths


def nested_lookup(nested_key: str, nested_dict: Mapping[str, Any], delimiter: str = '/') -> Any:
    """Looks up a path in a nested dictionary.

    Args:
      nested_key: Path, such as `'harmonic/controls/f0_hz'`.
      nested_dict: Dictionary of dictionaries.
      delimiter: What separates the steps of the path.

    Returns:
      The value at the path.

    Raises:
      KeyError: A step is missing; the message lists the paths that exist.

    >>> nested_lookup('a/b', {'a': {'b': 1}})
    1
    """
    value: Any = nested_dict
    for step in nested_key.split(delimiter):
        if not isinstance(value, Mapping) or step not in value:
            raise KeyError(
                f"'{step}' of the key '{nested_key}' is not there; "
                f'available keys: {nested_keys(nested_dict, delimiter)}'
            )
        value = value[step]
    return value


def leaf_key(nested_key: str, delimiter: str = '/') -> str:
    """Last step of a path.

    >>> leaf_key('harmonic/controls/f0_hz')
    'f0_hz'
    """
    return nested_key.split(delimiter)[-1]


def map_shape(x: Any) -> Any:
    """The shapes of a nested structure of tensors, as lists of ints (None where a size is unknown)."""
    return keras.tree.map_structure(lambda tensor: list(tensor.shape), x)


def pad_axis(x: Tensor, padding: Sequence[int] = (0, 0), axis: int = 0, **pad_kwargs: Any) -> Tensor:
    """Pads one axis.

    Args:
      x: Tensor.
      padding: Elements to add before and after.
      axis: Which axis; negative ones count from the end.
      **pad_kwargs: `mode` ('constant', 'reflect' or 'symmetric', in upper or lower case) and
        `constant_values`, as in `keras.ops.pad`.

    Returns:
      The padded tensor.
    """
    x = ops.convert_to_tensor(x)
    axis = _axis(axis, len(x.shape), 'pad_axis')
    mode = pad_kwargs.pop('mode', 'constant').lower()
    widths = [(0, 0)] * axis + [tuple(padding)] + [(0, 0)] * (len(x.shape) - axis - 1)
    if mode == 'constant':
        return ops.pad(x, widths, **pad_kwargs)
    if keras.backend.backend() == 'torch':  # its modes are for the last axes, and `symmetric` is another one
        return ops.take(x, np.pad(np.arange(x.shape[axis]), padding, mode), axis=axis)
    return ops.pad(x, widths, mode)


def diff(x: Tensor, axis: int = -1) -> Tensor:
    """Difference of neighbours, `x[1:] - x[:-1]` along an axis.

    Args:
      x: Tensor.
      axis: Which axis; it becomes one shorter.

    Returns:
      The differences.

    Raises:
      ConfigError: The tensor has no such axis.
    """
    x = ops.convert_to_tensor(x)
    axis = _axis(axis, len(x.shape), 'diff')
    before = (slice(None),) * axis
    return x[(*before, slice(1, None))] - x[(*before, slice(None, -1))]


def _axis(axis: int, rank: int, function: str) -> int:
    """The axis counted from the front."""
    if not -rank <= axis < rank:
        raise ConfigError(f'{function}: axis={axis} is not an axis of a tensor of rank {rank}')
    return axis % rank


def dim(x: Tensor, axis: int) -> Any:
    """Size of one axis: an int where it is known, else a scalar tensor (TensorFlow only)."""
    return ops.shape(x)[axis]
