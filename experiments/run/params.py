"""A gin configuration as flat parameters with readable names, within MLflow's limits."""

from __future__ import annotations

from typing import Any

from gin import config_parser

_MAX_KEY, _MAX_VALUE = 250, 6000


def config_to_params(gin_config: str) -> dict[str, str]:
    """Flattens an operative gin configuration: names such as `'Trainer.learning_rate'` to values as text.

    Macros are replaced. A module prefix is dropped where the name stays unique without it; scopes are kept
    (`'evaluate/Provider.batch_size'`).

    Example:
      >>> config_to_params('rate = 0.001\\nddsp.training.Trainer.learning_rate = %rate')
      {'rate': '0.001', 'Trainer.learning_rate': '0.001'}
    """
    bindings: dict[str, Any] = {}
    for statement in gin_statements(gin_config, _Name):
        if name := binding_name(statement):
            bindings[name] = statement.value
    short = {name: _without_modules(name) for name in bindings}
    taken = list(short.values())
    named = {name if taken.count(short[name]) > 1 else short[name]: name for name in bindings}
    return {
        key[-_MAX_KEY:]: repr(_resolved(bindings[name], bindings))[:_MAX_VALUE] for key, name in named.items()
    }


def gin_statements(text: str, reference: type[str] = str) -> list[Any]:
    """The statements of a gin text, with references and macros as text such as `@name()` and `%name`."""

    class Delegate(config_parser.ParserDelegate):
        """Keeps references as they are written."""

        def configurable_reference(self, name: str, evaluate: bool) -> str:
            return reference(f'@{name}()' if evaluate else f'@{name}')

        def macro(self, name: str) -> str:
            return reference(f'%{name}')

    return list(config_parser.ConfigParser(text, Delegate()))


def binding_name(statement: Any) -> str:
    """Name of a binding, `scope/module.Class.parameter`; '' for other statements."""
    if not isinstance(statement, config_parser.BindingStatement):
        return ''
    name = '.'.join(part for part in (statement.selector, statement.arg_name) if part)
    return f'{statement.scope}/{name}' if statement.scope else name


class _Name(str):
    """A reference, which is written without quotes."""

    __repr__ = str.__str__


def _resolved(value: Any, bindings: dict[str, Any], opened: tuple[str, ...] = ()) -> Any:
    """The value with macros replaced, but for those that nothing defines or that refer to themselves."""
    if isinstance(value, _Name) and value.startswith('%') and value[1:] in bindings and value not in opened:
        return _resolved(bindings[value[1:]], bindings, (*opened, value))
    if isinstance(value, (list, tuple)):
        return type(value)(_resolved(part, bindings, opened) for part in value)
    if isinstance(value, dict):
        return {key: _resolved(part, bindings, opened) for key, part in value.items()}
    return value


def _without_modules(name: str) -> str:
    """'scope/package.module.Class.parameter' as 'scope/Class.parameter'."""
    scope, _, binding = name.rpartition('/')
    binding = '.'.join(binding.split('.')[-2:])
    return f'{scope}/{binding}' if scope else binding
