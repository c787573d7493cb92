"""Graphs of modules, written as a list of nodes."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

import gin
import keras

from ddsp import core
from ddsp.errors import ConfigError

TensorDict = dict[str, Any]
Node = Sequence[Any]
DAG = Sequence[Node]

_RESERVED = ('inputs', 'out')


def filter_by_value(d: dict, cond: Callable[[Any], bool]) -> dict:
    """The items whose value fulfils a condition."""
    return {key: value for key, value in d.items() if cond(value)}


def is_module(v: Any) -> bool:
    """Whether a value is a layer, and so can be a node of a DAG."""
    return isinstance(v, keras.layers.Layer)


def is_loss(v: Any) -> bool:
    """Whether a module returns named losses."""
    return hasattr(v, 'get_losses_dict')


def is_processor(v: Any) -> bool:
    """Whether a module returns controls and a signal."""
    return hasattr(v, 'get_signal') and hasattr(v, 'get_controls')


def split_keras_kwargs(kwargs: dict) -> tuple[dict, dict]:
    """Separates the keyword arguments that Keras layers handle themselves.

    Args:
      kwargs: Keyword arguments; those for Keras are removed from it.

    Returns:
      Keyword arguments for Keras (`training`, `mask`, `name`, where not None), and the others.
    """
    found = {key: kwargs.pop(key) for key in ('training', 'mask', 'name') if key in kwargs}
    return {key: value for key, value in found.items() if value is not None}, kwargs


@gin.register(module='ddsp.dags')
class DAGLayer(keras.layers.Layer):
    """Runs modules one after the other, each on outputs of the ones before.

    A DAG is a list of nodes `(module, [input keys])`, or `(module, [input keys], [output keys])` for
    modules that return tensors rather than dictionaries. A module is a layer, or the name of one that is
    given by keyword. Keys are paths into the outputs: `'f0_hz'` (an input), `'harmonic/signal'`,
    `'encoder/z'`.

    Args:
      dag: Nodes, in an order in which every key exists when it is needed.
      **kwarg_modules: Modules that nodes call by name. Each module becomes an attribute under its name.

    Raises:
      ConfigError: A node is malformed, a name is unknown, reserved or used twice.
    """

    def __init__(self, dag: DAG, **kwarg_modules: Any) -> None:
        keras_kwargs, kwarg_modules = split_keras_kwargs(kwarg_modules)
        keras_kwargs = {k: v for k, v in keras_kwargs.items() if k == 'name'}
        super().__init__(autocast=False, dtype='float32', **keras_kwargs)
        modules = filter_by_value(kwarg_modules, is_module)
        dag, dag_modules = self.format_dag(dag)
        for name, module in dag_modules.items():
            if modules.setdefault(name, module) is not module:
                raise ConfigError(f"two modules of the DAG have the name '{name}': give one another name=")
        self._check(dag, modules)
        self.dag = dag
        self.module_names = list(modules)
        for name, module in modules.items():
            setattr(self, name, module)

    @property
    def modules(self) -> list[keras.layers.Layer]:
        """The modules: those given by keyword first, then those of the DAG, in order."""
        return [getattr(self, name) for name in self.module_names]

    @staticmethod
    def format_dag(dag: DAG) -> tuple[list, dict[str, keras.layers.Layer]]:
        """Replaces modules by their names.

        Args:
          dag: Nodes with modules or names.

        Returns:
          The same DAG with names only, and the modules by name.
        """
        names: list[list] = []
        modules: dict[str, Any] = {}
        for node in dag:
            if isinstance(node, str) or not 2 <= len(node) <= 3:
                raise ConfigError(
                    f'a DAG node is (module, [input keys]) or (module, [input keys], [output keys]): {node!r}'
                )
            module: Any = node[0]
            keys = [list(core.make_iterable([k] if isinstance(k, str) else k)) for k in node[1:]]
            if is_module(module):
                if modules.setdefault(module.name, module) is not module:
                    raise ConfigError(
                        f"two modules of the DAG have the name '{module.name}': give one another name="
                    )
                module = module.name
            names.append([module, *keys])
        return names, modules

    @staticmethod
    def _check(dag: list, modules: dict) -> None:
        for name in modules:
            if name in _RESERVED:
                raise ConfigError(f"'{name}' is reserved in a DAG: give the module another name=")
        for node in dag:
            if node[0] not in modules:
                raise ConfigError(f'the DAG node {node[0]!r} is no module; modules given: {sorted(modules)}')

    def build(self, unused_input_shape: Any = None) -> None:
        """Nothing to do: each module builds itself when it is first called."""
        self.built = True

    def call(self, inputs: TensorDict, **kwargs: Any) -> TensorDict:
        """Runs the DAG: see `run_dag`."""
        return self.run_dag(inputs, **kwargs)

    @gin.configurable(module='ddsp.dags.DAGLayer', allowlist=['verbose'])
    def run_dag(self, inputs: TensorDict, verbose: bool = False, **kwargs: Any) -> TensorDict:
        """Runs all modules in order.

        Args:
          inputs: Tensors by name.
          verbose: Log the shapes of every module's inputs and outputs.
          **kwargs: For all modules, such as `training`.

        Returns:
          Nested dictionary: the inputs (also under 'inputs'), each module's outputs under its name, and the
          last module's under 'out'.
        """
        outputs: TensorDict = {'inputs': inputs, **inputs}
        module_outputs: TensorDict = {}
        for name, input_keys, *output_keys in self.dag:
            module = getattr(self, name)
            values = [core.nested_lookup(key, outputs) for key in input_keys]
            if is_processor(module):
                module_outputs = module(*values, return_outputs_dict=True, **kwargs)
            elif is_loss(module):
                module_outputs = module.get_losses_dict(*values, **kwargs)
            else:
                module_outputs = module(*values, **kwargs)
            if not isinstance(module_outputs, dict):
                keys = output_keys[0] if output_keys else [name]
                module_outputs = core.to_dict(module_outputs, keys)
            if verbose:
                logging.info('%s: %s -> %s', name, core.map_shape(values), core.map_shape(module_outputs))
            outputs[name] = module_outputs
        outputs['out'] = module_outputs
        return outputs

    def get_config(self) -> dict:
        """Everything that `from_config` needs, modules included."""
        modules = {
            name: keras.saving.serialize_keras_object(getattr(self, name)) for name in self.module_names
        }
        return {
            'name': self.name,
            'dag': [[list(k) if i else k for i, k in enumerate(node)] for node in self.dag],
            'modules': modules,
        }

    @classmethod
    def from_config(cls, config: dict) -> DAGLayer:
        """Makes the layer, and its modules, from `get_config`."""
        config = dict(config)
        modules = {
            name: keras.saving.deserialize_keras_object(module)
            for name, module in config.pop('modules').items()
        }
        return cls(**config, **modules)
