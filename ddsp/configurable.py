"""Gin and Keras in one class."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TypeVar

import gin

Class = TypeVar('Class', bound=type)


def configurable_layer(module: str) -> Callable[[Class], Class]:
    """`gin.configurable` for Keras layers and models.

    Keras reads the signature of a layer's constructor, which gin's wrapper hides: here it is kept.

    Args:
      module: Under which gin knows the class, such as `'ddsp.processors'`.

    Returns:
      A class decorator: gin injects parameters wherever the class is constructed.
    """

    def decorate(layer: Class) -> Class:
        signature = inspect.signature(layer.__init__)
        configured = gin.configurable(layer, module=module)
        configured.__init__.__signature__ = signature
        return configured

    return decorate
