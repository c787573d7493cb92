"""Checks JSON that comes from elsewhere, in one place, before anything in it is used."""

from __future__ import annotations

import math
import re
from typing import Any

COUNT = range(2**53)  # a whole number that is not negative
TEXT = re.compile(r'(?s).*')
NUMBER = float


def fault(value: Any, shape: Any, place: str = 'it') -> str:
    """Says what is wrong with a value from a JSON file.

    Args:
      value: The value.
      shape: What it should be: a type (`float` takes any finite number), a pattern for text, a range of whole
        numbers, a tuple of alternatives (`None` for null), `[shape]` for a list, `{'name': shape}` for an
        object with these members (`'name?'` may be missing, others are ignored) or `{pattern: shape}` for an
        object whose names all match.
      place: Where the value is, for the message.

    Returns:
      A clause such as `"splits.train.examples is 'x'"`; '' where nothing is wrong.

    Example:
      >>> fault({'name': 'violin', 'bytes': -1}, {'name': TEXT, 'bytes': COUNT})
      'bytes is -1'
    """
    if isinstance(shape, tuple):
        faults = [fault(value, each, place) for each in shape]
        return '' if '' in faults else faults[0]
    if isinstance(shape, list) and isinstance(value, list):
        found = (fault(each, shape[0], f'{place}[{i}]') for i, each in enumerate(value))
        return next(filter(None, found), '')
    if isinstance(shape, dict) and isinstance(value, dict):
        return _member_fault(value, shape, '' if place == 'it' else f'{place}.') or ''
    return '' if _fits(value, shape) else f'{place} is {_short(value)}'


def _member_fault(value: dict[str, Any], shape: dict[Any, Any], prefix: str) -> str:
    for key, inner in shape.items():
        if isinstance(key, re.Pattern):
            members = list(value)
            wrong = next((name for name in members if not key.fullmatch(name)), None)
            if wrong is not None:
                return f'{prefix.rstrip(".") or "it"} has a member named {_short(wrong)}'
        else:
            members = [key.rstrip('?')] if key.rstrip('?') in value or not key.endswith('?') else []
        for name in members:
            if name not in value:
                return f'{prefix.rstrip(".") or "it"} has no {name!r}'
            if found := fault(value[name], inner, f'{prefix}{name}'):
                return found
    return ''


def _fits(value: Any, shape: Any) -> bool:
    if shape is None:
        return value is None
    if isinstance(shape, re.Pattern):
        return isinstance(value, str) and shape.fullmatch(value) is not None
    if isinstance(shape, range):
        return isinstance(value, int) and not isinstance(value, bool) and value in shape
    if shape is float:
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        return number and abs(value) < 2**1000 and math.isfinite(value)
    return isinstance(shape, type) and isinstance(value, shape)


def _short(value: Any) -> str:
    text = ascii(value)
    return text if len(text) <= 80 else f'{text[:77]}...'
