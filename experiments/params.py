"""A gin configuration as flat parameters with readable names, within MLflow's limits."""

from __future__ import annotations

import re

_BINDING = re.compile(r'^([\w./]+)\s*=\s*(.*)$')
_MAX_KEY, _MAX_VALUE = 250, 6000


def config_to_params(gin_config: str) -> dict[str, str]:
    """Flattens an operative gin configuration.

    Args:
      gin_config: Text such as gin writes: bindings, comments, values over several lines.

    Returns:
      Names such as `'Trainer.learning_rate'` to values as text. A module prefix is dropped where the name
      stays unique without it; scopes are kept (`'evaluate/Provider.batch_size'`).

    Example:
      >>> config_to_params('ddsp.training.Trainer.learning_rate = 0.001\\nbatch_size = 16')
      {'Trainer.learning_rate': '0.001', 'batch_size': '16'}
    """
    bindings = dict(_bindings(gin_config))
    short = {name: _without_modules(name) for name in bindings}
    taken = list(short.values())
    named = {name if taken.count(short[name]) > 1 else short[name]: value for name, value in bindings.items()}
    return {name[-_MAX_KEY:]: value[:_MAX_VALUE] for name, value in named.items()}


def _bindings(gin_config: str) -> list[tuple[str, str]]:
    """Name and value of each binding, continuation lines joined."""
    found: list[tuple[str, str]] = []
    for line in gin_config.splitlines():
        if not line.strip() or line.startswith('#') or line.startswith(('import ', 'include ', 'from ')):
            continue
        match = _BINDING.match(line)
        if match:
            found.append((match[1], match[2].rstrip('\\').strip()))
        elif found and line[0].isspace():
            name, value = found[-1]
            found[-1] = (name, f'{value} {line.strip().rstrip(chr(92)).strip()}'.strip())
    return found


def _without_modules(name: str) -> str:
    """'scope/package.module.Class.parameter' as 'scope/Class.parameter'."""
    scope, _, binding = name.rpartition('/')
    binding = '.'.join(binding.split('.')[-2:])
    return f'{scope}/{binding}' if scope else binding
