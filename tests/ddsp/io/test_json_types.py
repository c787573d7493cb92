"""What JSON must hold."""

import re

import pytest

from ddsp.io.json_types import COUNT, NUMBER, TEXT, fault

SHAPE = {
    'name': re.compile('[a-z]+'),
    'size?': COUNT,
    'parts': [{'secs': (NUMBER, None)}],
    'more?': {TEXT: bool},
}


@pytest.mark.parametrize(
    ('change', 'text'),
    [
        ({}, ''),
        ({'size': 3, 'more': {'a': True}, 'other': object()}, ''),
        ({'parts': [{'secs': None}, {'secs': 1}, {'secs': 0.5}]}, ''),
        ({'name': 'a\n'}, r"name is 'a\n'"),
        ({'name': 3}, 'name is 3'),
        ({'size': -1}, 'size is -1'),
        ({'size': True}, 'size is True'),
        ({'size': 1.0}, 'size is 1.0'),
        ({'size': 10**400}, f'size is 1{"0" * 76}...'),
        ({'parts': {}}, 'parts is {}'),
        ({'parts': [{'secs': 1}, []]}, 'parts[1] is []'),
        ({'parts': [{}]}, "parts[0] has no 'secs'"),
        ({'parts': [{'secs': float('nan')}]}, 'parts[0].secs is nan'),
        ({'parts': [{'secs': 10**400}]}, f'parts[0].secs is 1{"0" * 76}...'),
        ({'more': {'a': 1}}, 'more.a is 1'),
        ({'more': None}, 'more is None'),
    ],
)
def test_the_first_fault_is_named(change, text):
    assert fault({'name': 'a', 'parts': []} | change, SHAPE) == text


def test_values_that_are_no_object():
    assert fault([], SHAPE) == 'it is []'
    assert fault({}, SHAPE) == "it has no 'name'"
    assert fault({'A': 1}, {re.compile('[a-z]'): COUNT}) == "it has a member named 'A'"
