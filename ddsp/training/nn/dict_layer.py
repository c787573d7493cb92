"""Layers that talk in dictionaries: inputs are found by key, outputs are named."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import gin
import keras
from keras import ops

from ddsp import core
from ddsp.core import Tensor

Splits = Sequence[tuple[str, int]]


class DictLayer(keras.layers.Layer):
    """A layer that is called with tensors, dictionaries or keyword tensors and returns a dictionary.

    Subclasses write `call` with plain tensors. Unless keys are given, the required parameters of `call` are
    the input keys, its optional parameters are optional keys, and the output keys are the list in its return
    annotation (`-> ['a', 'b']`). Keys may be nested (`'harmonic/controls/f0_hz'`).

    Args:
      input_keys: Keys to look up in dictionaries, in the order of `call`'s parameters. Giving them
        explicitly turns the optional parameters off.
      output_keys: Names of the outputs of `call`, when it does not return a dictionary.
      **kwargs: Passed to `keras.layers.Layer` (`name`, `dtype`...).

    Example:
      >>> class Gain(DictLayer):
      ...     def call(self, audio, gain=2.0) -> ['louder']:
      ...         return audio * gain
      >>> sorted(Gain()({'audio': ops.ones([1, 4]), 'other': ops.ones([1])}))
      ['louder']
    """

    def __init__(
        self, input_keys: Sequence[str] | None = None, output_keys: Sequence[str] | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self._allow_non_tensor_positional_args = True  # optional inputs may be plain Python values
        if input_keys:
            self.input_keys = [input_keys] if isinstance(input_keys, str) else list(input_keys)
            self.default_input_keys: list[str] = []
            self.default_input_values: list[Any] = []
        else:
            self.input_keys = self.get_argument_names('call')
            self.default_input_keys = self.get_default_argument_names('call')
            self.default_input_values = self.get_default_argument_values('call')
        self.output_keys = list(output_keys) if output_keys else self.get_return_annotations('call')

    @property
    def all_input_keys(self) -> list[str]:
        """Required keys, then optional ones."""
        return list(self.input_keys) + list(self.default_input_keys)

    @property
    def n_inputs(self) -> int:
        """Number of inputs, the optional ones included."""
        return len(self.all_input_keys)

    def build(self, input_shape: Any = None) -> None:
        """Sublayers are built by the first call."""
        self.built = True

    def __call__(self, *inputs: Any, **kwargs: Any) -> dict[str, Any]:
        """Finds the inputs, calls the layer, names the outputs.

        Raises:
          TypeError: The number of inputs is wrong; the message lists what was found and what is needed.
          KeyError: A required key is in none of the dictionaries.
          ValueError: `call` returned another number of outputs than there are output keys.
        """
        tensors, kwargs = self._inputs_to_tensors(inputs, kwargs)
        outputs = super().__call__(*tensors, **kwargs)
        if isinstance(outputs, Mapping):
            return dict(outputs)
        try:
            return core.to_dict(outputs, self.output_keys)
        except ValueError as error:
            raise ValueError(
                f'{self.name}: call must return one tensor for each of {self.output_keys}: {error}'
            ) from None

    def _inputs_to_tensors(self, inputs: Sequence[Any], kwargs: dict[str, Any]) -> tuple[list[Any], dict]:
        keys = self.all_input_keys
        found: dict[str, Any] = {}
        positional = []
        for value in inputs:
            if isinstance(value, Mapping):
                found.update(value)
            else:
                positional.append(value)
        found.update({key: value for key, value in kwargs.items() if key in keys})
        kwargs = {key: value for key, value in kwargs.items() if key not in keys}
        tensors = list(positional)
        n_required = len(self.input_keys)
        for i in range(len(positional), n_required):
            if not found:
                break
            tensors.append(core.nested_lookup(self.input_keys[i], found))
        for i in range(max(len(positional), n_required), len(keys)):
            default = self.default_input_values[i - n_required]
            if len(tensors) == i:  # nothing required is missing
                tensors.append(found.get(keys[i], default))
        if len(tensors) != len(keys):
            raise TypeError(
                f'{self.name} needs {n_required} input(s) {self.input_keys}, optionally '
                f'{self.default_input_keys};'
                f' got {len(positional)} tensor(s) and the keys {sorted(found)}'
            )
        return tensors, kwargs

    def _parameters(self, method: str) -> list[inspect.Parameter]:
        """Parameters of a method that can be inputs."""
        named = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
        parameters = inspect.signature(getattr(self, method)).parameters.values()
        return [p for p in parameters if p.kind in named and p.name not in ('training', 'mask')]

    def get_argument_names(self, method: str) -> list[str]:
        """Names of the required parameters of a method."""
        return [p.name for p in self._parameters(method) if p.default is inspect.Parameter.empty]

    def get_default_argument_names(self, method: str) -> list[str]:
        """Names of the optional parameters of a method."""
        return [p.name for p in self._parameters(method) if p.default is not inspect.Parameter.empty]

    def get_default_argument_values(self, method: str) -> list[Any]:
        """Default values of the optional parameters of a method."""
        return [p.default for p in self._parameters(method) if p.default is not inspect.Parameter.empty]

    def get_return_annotations(self, method: str) -> list[str]:
        """The list of strings in a method's return annotation; empty without one."""
        annotation = inspect.signature(getattr(self, method)).return_annotation
        if isinstance(annotation, str):  # under `from __future__ import annotations`
            try:
                annotation = ast.literal_eval(annotation)
            except (ValueError, SyntaxError):
                annotation = []
        return list(annotation) if isinstance(annotation, (list, tuple)) else []


class OutputSplitsLayer(DictLayer):
    """A layer whose output is a linear layer cut into named parts.

    Subclasses implement `compute_output(*inputs)`, giving a tensor `[..., channels]`.

    Args:
      input_keys: As in `DictLayer`; by default the parameters of `compute_output`.
      output_splits: Pairs (name, number of channels).
      **kwargs: Passed to `DictLayer`.
    """

    def __init__(
        self,
        input_keys: Sequence[str] | None = None,
        output_splits: Splits = (('amps', 1), ('harmonic_distribution', 40)),
        **kwargs: Any,
    ) -> None:
        keys = list(input_keys) if input_keys else self.get_argument_names('compute_output')
        super().__init__(input_keys=keys, output_keys=[name for name, _ in output_splits], **kwargs)
        self.output_splits = tuple((name, size) for name, size in output_splits)
        self.dense_out = keras.layers.Dense(sum(size for _, size in self.output_splits))

    def call(self, *inputs: Any, **unused_kwargs: Any) -> dict[str, Any]:
        """The linear layer on `compute_output`, cut into the named parts."""
        return split_to_dict(self.dense_out(self.compute_output(*inputs)), self.output_splits)

    def compute_output(self, *inputs: Any) -> Any:
        """Tensor `[..., channels]` from the inputs; subclasses implement it."""
        raise NotImplementedError(f'{type(self).__name__} must implement compute_output(*inputs)')


@gin.register(module='ddsp.training.nn')
def split_to_dict(tensor: Tensor, tensor_splits: Splits) -> dict[str, Any]:
    """Cuts the last axis into named parts.

    Args:
      tensor: `[..., channels]`.
      tensor_splits: Pairs (name, number of channels), together all the channels.

    Returns:
      Dictionary of tensors `[..., size]`.

    Raises:
      ValueError: The sizes do not add up to the number of channels.
    """
    names = [name for name, _ in tensor_splits]
    sizes = [size for _, size in tensor_splits]
    channels = tensor.shape[-1]
    if channels is not None and channels != sum(sizes):
        raise ValueError(
            f'tensor_splits {dict(tensor_splits)} add up to {sum(sizes)}, the tensor has {channels} channels'
        )
    ends = [sum(sizes[: i + 1]) for i in range(len(sizes) - 1)]
    return dict(zip(names, ops.split(tensor, ends, axis=-1) if ends else [tensor], strict=True))


def get_nonlinearity(nonlinearity: str | Callable) -> Callable:
    """An activation by name (`'relu'`, `'leaky_relu'` with slope 0.2, `'sigmoid'`...), or as given.

    Raises:
      ValueError: There is no activation of this name.
    """
    if callable(nonlinearity):
        return nonlinearity
    try:
        return keras.activations.get(nonlinearity)
    except ValueError:
        function = getattr(keras.ops, nonlinearity, None)
        if function is None:
            raise ValueError(
                f'no activation is called {nonlinearity!r}; use a name of keras.activations'
            ) from None
        return function


def ensure_4d(x: Tensor) -> Tensor:
    """`[batch, channels]` or `[batch, time, channels]` as `[batch, time, 1, channels]`."""
    if len(x.shape) == 2:
        return x[:, None, None, :]
    return x[:, :, None, :] if len(x.shape) == 3 else x


def inv_ensure_4d(x: Tensor, n_dims: int) -> Tensor:
    """Undoes `ensure_4d`: takes the singleton axes away until `n_dims` are left."""
    if n_dims == 2:
        return x[:, 0, 0, :]
    return x[:, :, 0, :] if n_dims == 3 else x
