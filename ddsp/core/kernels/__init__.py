"""Fast versions of some definitions, and the switch that turns them off.

A definition says what an operation is; it is written to be read. Where that costs too much time or memory, a
kernel computes the same. `DDSP_KERNELS=off` in the environment, or `with kernels.switched(False)`, runs the
definitions alone. The tests compare values and gradients of every pair, and
docs/benchmarks/operations.md has the gain of each.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import os
from collections.abc import Callable, Iterator
from typing import ParamSpec, TypeVar

P = ParamSpec('P')
T = TypeVar('T')

PAIRS: dict[str, Callable] = {}  # address of the kernel, `module:function`, to its definition
_enabled = os.environ.get('DDSP_KERNELS', 'on').lower() not in ('off', '0', 'false')


def kernel(address: str) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Registers the fast version of a definition.

    Args:
      address: `module:function` of the kernel, imported when it is first needed. The function takes the
        definition's arguments, and returns `NotImplemented` where it does not support them.
    """

    def decorate(definition: Callable[P, T]) -> Callable[P, T]:
        PAIRS[address] = definition

        @functools.wraps(definition)
        def run(*args: P.args, **kwargs: P.kwargs) -> T:
            if _enabled:
                result = fast_version(address)(*args, **kwargs)
                if result is not NotImplemented:
                    return result
            return definition(*args, **kwargs)

        return run

    return decorate


def fast_version(address: str) -> Callable:
    """The kernel at an address."""
    module, name = address.split(':')
    return getattr(importlib.import_module(module), name)


@contextlib.contextmanager
def switched(on: bool) -> Iterator[None]:
    """Turns all kernels on or off; what was traced or compiled before stays as it was."""
    global _enabled
    before, _enabled = _enabled, on
    try:
        yield
    finally:
        _enabled = before
