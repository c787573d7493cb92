"""Configuration: gin files under upstream's names; mistakes are reported with their correction."""

from __future__ import annotations

import contextlib
import difflib
import importlib
import inspect
import os
import pathlib
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

import gin
import gin.config as gin_config
import keras
import tensorflow as tf
from gin import utils as gin_utils

from ddsp.errors import ConfigError, DDSPError

GIN_DIR = pathlib.Path(__file__).parent / 'gin'

# Everything that a configuration may name.
_MODULES = (
    'ddsp.core',
    'ddsp.dags',
    'ddsp.effects',
    'ddsp.losses',
    'ddsp.processors',
    'ddsp.spectral_ops',
    'ddsp.synths',
    'ddsp.training.data',
    'ddsp.training.decoders',
    'ddsp.training.encoders',
    'ddsp.training.eval_util',
    'ddsp.training.evaluators',
    'ddsp.training.models',
    'ddsp.training.nn',
    'ddsp.training.preprocessing',
    'ddsp.training.train_util',
    'ddsp.training.trainers',
)
_KERAS_ARGUMENTS = frozenset({'name', 'dtype', 'trainable'})

# Plain files, and what TensorFlow reads (gs://). Gin's third reader complains about every path that it does
# not know.
gin_config._FILE_READERS[:] = [(open, os.path.isfile), (tf.io.gfile.GFile, tf.io.gfile.exists)]

_augment = gin_utils.augment_exception_message_and_reraise


def _augment_others(exception: Exception, message: str) -> None:
    """Keeps gin from adding a Python call to messages that are meant for the user."""
    if isinstance(exception, DDSPError):
        raise exception  # it is complete by itself
    _augment(exception, message)


gin_utils.augment_exception_message_and_reraise = _augment_others


def register_all() -> None:
    """Imports every module that registers names with gin."""
    for module in _MODULES:
        importlib.import_module(module)


def packaged_files() -> list[str]:
    """Names of the gin files that come with the package, such as `'models/solo_instrument.gin'`."""
    return sorted(path.relative_to(GIN_DIR).as_posix() for path in GIN_DIR.rglob('*.gin'))


def parse_config(
    files: Sequence[str] = (),
    bindings: Sequence[str] | str = (),
    search_paths: Sequence[str] = (),
    clear: bool = True,
) -> None:
    """Sets the configuration; what comes later wins.

    Args:
      files: Paths of gin files, or names of packaged ones (`'models/solo_instrument.gin'`, also without
        `.gin`).
      bindings: Lines such as `'train.num_steps = 1000'` or `'batch_size = 16'`.
      search_paths: Directories where files, and files that they include, are looked for before the packaged
        ones.
      clear: Forget the configuration so far.

    Raises:
      ConfigError: A file that does not exist, a line that cannot be read, an unknown name or parameter; the
        message holds the place and the nearest name.
    """
    register_all()
    if clear:
        gin.clear_config()
    with _search_paths([*map(os.fspath, search_paths), str(GIN_DIR)]), gin.unlock_config():
        for file in files:
            guarded(gin.parse_config_file, _find_file(file))
        if bindings:
            lines = [bindings] if isinstance(bindings, str) else list(bindings)
            guarded(gin.parse_config, lines)
    check()


def check() -> None:
    """Checks every binding: parameters that do not exist, macros that nothing defines, types.

    Raises:
      ConfigError: What is wrong, with the nearest name.
    """
    _check_parameters()
    _check_macros()
    _check_types()


@contextlib.contextmanager
def isolated() -> Iterator[None]:
    """Within, the configuration is empty; afterwards it is what it was."""
    stores = ('_CONFIG', '_OPERATIVE_CONFIG', '_IMPORTS', '_SINGLETONS')
    saved = {name: getattr(gin_config, name).copy() for name in stores}
    locked = gin_config.config_is_locked()
    gin.clear_config()
    try:
        yield
    finally:
        gin.clear_config()
        for name, content in saved.items():
            getattr(gin_config, name).update(content)
        gin_config._set_config_is_locked(locked)


def is_bound(name: str) -> bool:
    """Whether the configuration gives a value to a parameter, such as `'Harmonic.n_samples'`."""
    try:
        gin.query_parameter(name)
    except ValueError:
        return False
    return True


def bind(name: str, value: Any) -> None:
    """Gives a value to a parameter."""
    with gin.unlock_config():
        gin.bind_parameter(name, value)


@contextlib.contextmanager
def _search_paths(paths: Sequence[str]) -> Iterator[None]:
    prefixes = gin_config._LOCATION_PREFIXES
    added = [path for path in paths if path not in prefixes]
    prefixes.extend(added)
    try:
        yield
    finally:
        for path in added:
            prefixes.remove(path)


def _find_file(file: str | os.PathLike[str]) -> str:
    name = os.path.expanduser(os.fspath(file))
    for candidate in (name, name + '.gin'):
        if any(
            tf.io.gfile.exists(os.path.join(prefix, candidate)) for prefix in gin_config._LOCATION_PREFIXES
        ):
            return candidate
    wanted = name if name.endswith('.gin') else name + '.gin'
    raise ConfigError(
        f'there is no gin file {name!r}, neither by this path nor among the packaged ones'
        + _hint(wanted, packaged_files(), cutoff=0.3)
    )


def _hint(name: str, known: Collection[str], cutoff: float = 0.6) -> str:
    """The nearest name that exists, as the end of a message."""
    near = difflib.get_close_matches(name, known, n=1, cutoff=cutoff)
    return f'; did you mean {near[0]!r}?' if near else ''


def guarded(parse: Callable[..., object], *what: Any) -> None:
    """Parses or binds; gin's exceptions become one readable error."""
    try:
        parse(*what)
    except ConfigError:
        raise
    except (ValueError, SyntaxError, TypeError, KeyError, OSError, ImportError, RuntimeError) as error:
        raise ConfigError(_explain(error)) from None


def _explain(error: Exception) -> str:
    text = str(error).strip()
    place = ' '.join(line.strip() for line in text.splitlines()[1:] if line.strip())
    message = text.splitlines()[0] if text else type(error).__name__
    if match := re.search(r"No configurable matching (?:reference )?'@?([^'()]*)(?:\(\))?'", message):
        message = f'there is no {did_you_mean(match.group(1))}'
    elif match := re.search(r"Configurable '([^']*)' doesn't have a parameter named '([^']*)'", message):
        message = _unknown_parameter(match.group(1), match.group(2))
    elif match := re.search(r'Unable to open file: (\S+?)\. Searched', message):
        name = match.group(1)
        message = f'there is no gin file {name!r}' + _hint(name, packaged_files(), cutoff=0.3)
    elif isinstance(error, SyntaxError):
        message = f'this line cannot be read ({error.msg}): {(error.text or "").strip()}'
        place = f'line {error.lineno}' + (f' of {error.filename}' if error.filename else '')
    return f'configuration: {message}' + (f' [{place}]' if place else '')


def did_you_mean(selector: str) -> str:
    """A name that does not exist, with the nearest one that does."""
    registered = list(gin_config._REGISTRY._selector_map)
    ours = [name for name in registered if not name.startswith(('gin.', 'tf.keras'))]
    short = {name.split('.')[-1]: name for name in ours}
    by_case = {name.lower(): name for name in short}
    wanted = selector.split('.')[-1]
    near = difflib.get_close_matches(wanted, short, n=1) or [
        by_case[name] for name in difflib.get_close_matches(wanted.lower(), by_case, n=1)
    ]
    hint = f'; did you mean {".".join(short[near[0]].split(".")[-2:])!r}?' if near else ''
    return f'{selector!r}{hint}'


def _unknown_parameter(selector: str, parameter: str) -> str:
    target = gin_config._REGISTRY.get_match(selector).wrapped
    names = sorted(_parameters(target)[0])
    hint = _hint(parameter, names) or f'; it has {", ".join(names)}'
    return f'{selector} has no parameter {parameter!r}{hint}'


def _parameters(target: Any) -> tuple[set[str], bool]:
    """Parameters of a function or of a class with its bases, and whether it takes any other name."""
    if not inspect.isclass(target):
        parameters = list(inspect.signature(inspect.unwrap(target)).parameters.values())
        return {p.name for p in parameters}, any(p.kind is p.VAR_KEYWORD for p in parameters)
    names: set[str] = set()
    for cls in target.__mro__:
        if cls.__module__.startswith('keras.') or cls is object:
            return names | (_KERAS_ARGUMENTS if issubclass(target, keras.layers.Layer) else set()), False
        if '__init__' not in vars(cls):
            continue
        init = inspect.unwrap(vars(cls)['__init__'])
        parameters = list(inspect.signature(init).parameters.values())[1:]
        names |= {p.name for p in parameters if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)}
        rest = [p.name for p in parameters if p.kind is p.VAR_KEYWORD]
        if not rest:
            break
        if rest != ['kwargs']:  # such as **kwarg_modules: names are the user's
            return names, True
    return names, False


def _check_parameters() -> None:
    """Refuses parameters that gin lets pass because a constructor hands **kwargs on to its base."""
    for (_, selector), values in gin_config._CONFIG.items():
        if selector.startswith(('gin.', 'tf.keras')):
            continue
        names, takes_any = _parameters(gin_config._REGISTRY[selector].wrapped)
        for parameter in values:
            if not takes_any and parameter not in names:
                short = '.'.join(selector.split('.')[-2:])
                raise ConfigError('configuration: ' + _unknown_parameter(short, parameter))


def _check_macros() -> None:
    """Refuses `%names` that nothing defines."""
    defined = {scope for scope, selector in gin_config._CONFIG if selector == 'gin.macro'}
    for (_, selector), values in gin_config._CONFIG.items():
        for parameter, value in values.items():
            for reference in gin_config.iterate_references(value):
                name = '/'.join(reference.scopes)
                if reference.selector == 'gin.macro' and name not in defined:
                    near = difflib.get_close_matches(name, defined, n=1)
                    raise ConfigError(
                        f'configuration: {selector.split(".")[-1]}.{parameter} uses %{name}, which nothing '
                        'defines' + (f'; did you mean %{near[0]}?' if near else '')
                    )


# Types of parameters that are checked; others, such as sequences and layers, are for the constructors.
_SCALARS: dict[str, tuple[type, ...]] = {
    'int': (int,), 'float': (int, float), 'bool': (bool,), 'str': (str,), 'None': (type(None),),
}  # fmt: skip


def _check_types() -> None:
    """Refuses plain values of another type than the parameter's, before any work is done with them."""
    for (_, selector), values in gin_config._CONFIG.items():
        if selector.startswith(('gin.', 'tf.keras')):
            continue
        annotations = _annotations(gin_config._REGISTRY[selector].wrapped)
        for parameter, bound in values.items():
            names = [name.strip() for name in annotations.get(parameter, 'Any').split('|')]
            value = _without_macros(bound)
            if not set(names) <= _SCALARS.keys() or isinstance(value, gin_config.ConfigurableReference):
                continue
            if isinstance(value, float) and value.is_integer() and 'int' in names:
                continue  # such as 1e6
            kinds = {kind for name in names for kind in _SCALARS[name]}
            if not isinstance(value, tuple(kinds)) or (isinstance(value, bool) and bool not in kinds):
                short = '.'.join([selector.rpartition('.')[2], parameter])
                raise ConfigError(
                    f'configuration: {short} is {value!r}; it must be of type {" or ".join(names)}'
                )


def _annotations(target: Any) -> dict[str, str]:
    """Types of the parameters of a function, or of a class with its bases, as they are written."""
    functions = [target]
    if inspect.isclass(target):
        functions = [vars(cls)['__init__'] for cls in target.__mro__ if '__init__' in vars(cls)]
    found: dict[str, str] = {}
    for function in functions:
        written = getattr(inspect.unwrap(function), '__annotations__', {})
        found = {name: kind for name, kind in written.items() if isinstance(kind, str)} | found
    return found


def _without_macros(value: Any) -> Any:
    """The value behind `%name`, which `_check_macros` has found."""
    seen: set[str] = set()
    while isinstance(value, gin_config.ConfigurableReference) and value.selector == 'gin.macro':
        name = '/'.join(value.scopes)
        if name in seen:
            raise ConfigError(f'configuration: %{name} refers to itself')
        seen.add(name)
        value = gin_config._CONFIG[name, 'gin.macro']['value']
    return value
