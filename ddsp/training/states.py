"""What a checkpoint holds, under names that do not depend on the Keras backend.

A weight is named by the attributes that lead to it, as in `model/decoder/dense_out/kernel`: Keras' own paths
count the layers that a process has made, and differ between TensorFlow and JAX.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from ddsp.errors import ConfigError, DDSPError
from ddsp.losses.base import Loss

_SHOWN = 3  # weights that do not fit, in a message


class CheckpointError(DDSPError, FileNotFoundError):
    """A checkpoint that is missing, damaged, of another model, or that cannot be written."""


class State:
    """Weights, moments, step and averages, by name.

    Args:
      model: A built model.
      optimizer: A `ScaledAdam` built for it; None: the weights alone.
      averages: Averages of the trainable weights, in their order; may be empty.
      keys: Attributes of the model, such as `('decoder',)`: their weights alone; None: everything.

    Attributes:
      variables: Keras or TensorFlow variables by name.

    Raises:
      ConfigError: A key is no part of the model.
    """

    def __init__(
        self,
        model: Any,
        optimizer: Any = None,
        averages: Sequence[Any] = (),
        keys: Sequence[str] | None = None,
    ) -> None:
        names = self._names = weight_names(model)
        self._model, self._keys = model, tuple(keys or ())
        weights = [weight for weight in model.weights if id(weight) in names]
        if keys:
            wanted = _weights_of(model, keys)
            weights = [weight for weight in weights if id(weight) in wanted]
        self.variables: dict[str, Any] = {f'model/{names[id(weight)]}': weight for weight in weights}
        trained = [names[id(weight)] for weight in model.trainable_variables]
        if optimizer is not None and not keys:
            kinds = {'momentum': optimizer._momentums, 'velocity': optimizer._velocities}
            moments = {
                id(variable): f'{kind}/{name}'
                for kind, variables in kinds.items()
                for name, variable in zip(trained, variables, strict=True)
            }
            self.variables |= {f'optimizer/{moments.get(id(v), v.name)}': v for v in optimizer.variables}
        if averages and not keys:
            self.variables |= {f'averages/{name}': v for name, v in zip(trained, averages, strict=True)}

    def copy(self) -> dict[str, np.ndarray]:
        """Copies of all values by name."""
        return {name: np.array(np.asarray(ops.convert_to_tensor(v))) for name, v in self.variables.items()}

    def read(self, prefix: str) -> None:
        """Takes all values from a checkpoint, or changes nothing.

        Args:
          prefix: Such as `'run/ckpt-3000'`; written on any backend, also by earlier versions.

        Raises:
          CheckpointError: It is of another model.
          tensorflow.errors.OpError: It is damaged.
        """
        reader = tf.train.load_checkpoint(prefix)
        shapes = reader.get_variable_to_shape_map()
        keys, wanted = {name: name for name in shapes}, self.variables
        if _GRAPH in shapes:
            keys = self._keys_of_an_earlier_version(_Graph(reader.get_tensor(_GRAPH)))
            # What was not trained, and held in a list, was not saved then.
            fixed = {id(weight) for weight in self._model.non_trainable_weights}
            wanted = {name: v for name, v in wanted.items() if name in keys or id(v) not in fixed}
        self._check(wanted, {name: shapes[key] for name, key in keys.items()})
        values = {name: reader.get_tensor(keys[name]) for name in wanted}
        for name, variable in wanted.items():
            variable.assign(values[name].astype(keras.backend.standardize_dtype(variable.dtype)))

    def _check(self, wanted: dict[str, Any], stored: dict[str, list[int]]) -> None:
        """Compares names and shapes."""
        prefixes = tuple(f'model/{key}/' for key in self._keys) or ('model/',)
        problems = []
        for name, variable in wanted.items():
            shape = list(variable.shape)
            if name not in stored:
                problems.append(f'it lacks {name} {shape}')
            elif stored[name] != shape:
                problems.append(f'{name} is {stored[name]} in it and {shape} here')
        for name, found in stored.items():
            if name.startswith(prefixes) and name not in wanted:
                problems.append(f'it has {name} {found}, which is not here')
        # The moments of a weight add nothing to what is said about it.
        problems = [problem for problem in problems if ' model/' in f' {problem}'] or problems
        if problems:
            more = f'; and {len(problems) - _SHOWN} more' if len(problems) > _SHOWN else ''
            raise CheckpointError('; '.join(problems[:_SHOWN]) + more)

    def _keys_of_an_earlier_version(self, graph: _Graph) -> dict[str, str]:
        """Keys in a file whose variables are known by their order, by name.

        On JAX these were the lists `weights` and `optimizer`; on TensorFlow the objects `model` and
        `optimizer`, which lists the trainable weights and its own variables, and the list `averages`.
        """
        on_jax = graph.find('weights') is not None
        weights = self._model.weights if on_jax else self._model.trainable_variables
        keys = graph.keys('weights') if on_jax else graph.keys('optimizer', '_trainable_variables')
        if not keys:
            raise CheckpointError('it holds no weights that this program knows')
        if len(weights) != len(keys):
            raise CheckpointError(
                f'it has {len(keys)} weights, known by their order alone (an earlier version wrote it), and '
                f'this model has {len(weights)}'
            )
        names = [self._names.get(id(weight), '') for weight in weights]
        found = {f'model/{name}': key for name, key in zip(names, keys, strict=True) if name}
        if not on_jax:
            frozen = (name for name in self.variables if name.startswith('model/') and name not in found)
            found |= {name: key for name in frozen if (key := graph.key(*name.split('/')))}
        others = {
            'optimizer/': graph.keys('optimizer') if on_jax else graph.keys('optimizer', '_variables'),
            'averages/': graph.keys('averages'),
        }
        for prefix, keys in others.items():
            ours = [name for name in self.variables if name.startswith(prefix)]
            found |= dict(zip(ours, keys, strict=False))  # what is missing is reported by its name
        return found


def weight_names(model: Any) -> dict[int, str]:
    """Names of a model's weights, by their `id`: the attributes that lead to them.

    Losses with nothing to train are left out: their weights come with them.
    """
    names: dict[int, str] = {}
    seen: dict[int, Any] = {}  # objects are kept, so that no other one gets the id of one that is gone
    constant: set[int] = set()

    def visit(value: Any, path: tuple[str, ...]) -> None:
        if isinstance(value, keras.Variable):
            names.setdefault(id(value), '/'.join(path))
        elif isinstance(value, Loss) and not value.trainable_variables:
            constant.update(id(weight) for weight in value.weights)
        elif id(value) not in seen:
            seen[id(value)] = value
            for name, child in _children(value):
                visit(child, (*path, name))

    visit(model, ())
    for i, weight in enumerate(model.weights):
        if id(weight) not in constant:
            names.setdefault(id(weight), f'weights/{i}')  # held in a way that no attribute shows
    return {id(weight): names[id(weight)] for weight in model.weights if id(weight) in names}


def _children(value: Any) -> Iterator[tuple[str, Any]]:
    """What a layer or a container holds, by name, in an order that is the same everywhere."""
    if isinstance(value, keras.Layer):
        own = {name: child for name, child in vars(value).items() if not _is_of_keras(name)}
        for name, child in sorted(own.items(), key=lambda item: item[0]):
            public = name.lstrip('_')  # as `_kernel`, behind a property `kernel`
            yield (name if public in own else public), child
        if isinstance(value, keras.Model):
            yield 'layers', value.layers  # of a Sequential
    elif isinstance(value, dict):
        yield from sorted((str(name), child) for name, child in value.items())
    elif isinstance(value, (list, tuple)):
        yield from ((str(i), child) for i, child in enumerate(value))


def _is_of_keras(attribute: str) -> bool:
    """Whether it is one of Keras' own lists of layers and weights, which have better names."""
    return attribute in _attributes_of_keras() or attribute.startswith('_self_')


@functools.cache
def _attributes_of_keras() -> frozenset[str]:
    tensor = keras.Input([1])
    return frozenset({*vars(keras.Model(tensor, tensor)), *vars(keras.Sequential()), *vars(keras.Model())})


def _weights_of(model: Any, keys: Sequence[str]) -> set[int]:
    """Weights of some parts of a model, by their `id`."""
    found: set[int] = set()
    for key in keys:
        part = getattr(model, key, None)
        if not isinstance(part, keras.Layer):
            parts = [name for name, child in _children(model) if isinstance(child, keras.Layer)]
            raise ConfigError(
                f'restore_keys names {key!r}, which is no part of the model; its parts are {", ".join(parts)}'
            )
        found.update(id(weight) for weight in part.weights)
    return found


_GRAPH = '_CHECKPOINTABLE_OBJECT_GRAPH'


class _Graph:
    """The objects of a checkpoint that TensorFlow's `tf.train.Checkpoint` wrote."""

    def __init__(self, text: bytes) -> None:
        from tensorflow.core.protobuf import trackable_object_graph_pb2

        self._nodes = trackable_object_graph_pb2.TrackableObjectGraph.FromString(text).nodes

    def find(self, *path: str) -> Any:
        """The object that attributes lead to, from the root; None if there is none."""
        node = self._nodes[0]
        for name in path:
            children = {child.local_name.lstrip('_'): child.node_id for child in node.children}
            if name.lstrip('_') not in children:
                return None
            node = self._nodes[children[name.lstrip('_')]]
        return node

    def key(self, *path: str) -> str:
        """Key of a variable's value; `''` if there is none."""
        node = self.find(*path)
        return node.attributes[0].checkpoint_key if node is not None and node.attributes else ''

    def keys(self, *path: str) -> list[str]:
        """Keys of the variables in a list."""
        node = self.find(*path)
        count = 0 if node is None else sum(child.local_name.isdigit() for child in node.children)
        return [self.key(*path, str(i)) for i in range(count)]
