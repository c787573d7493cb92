"""Crash logs: the cause of an unexpected error is on disk, without passwords, once."""

from __future__ import annotations

import sys

import pytest

from ddsp.errors import ConfigError
from experiments import crash


def test_an_unexpected_error_leaves_its_traceback_versions_and_configuration(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, 'argv', ['ddsp', 'sweep', '--storage', 'postgresql://me:p@ss/w@host/db'])
    with pytest.raises(ZeroDivisionError) as caught, crash.logged(tmp_path / 'run'):
        _ = 1 / 0
    (log,) = (tmp_path / 'run').glob('crash-*.log')
    text = log.read_text()
    assert 'ZeroDivisionError: division by zero' in text
    assert 'test_crash.py' in text
    for name in ('ddsp 4.', 'Python 3.', 'keras 3.', 'Configuration'):
        assert name in text
    assert 'postgresql://***@host/db' in text
    assert 'p@ss' not in text
    assert crash.write(tmp_path / 'elsewhere', caught.value) == log  # one error, one log
    assert not (tmp_path / 'elsewhere').exists()


@pytest.mark.parametrize('error', [ConfigError('a typo'), KeyboardInterrupt(), LookupError('foreseen')])
def test_what_is_foreseen_leaves_no_log(tmp_path, error):
    with pytest.raises(type(error)), crash.logged(tmp_path, 'LookupError'):
        raise error
    assert list(tmp_path.iterdir()) == []


def test_a_log_that_cannot_be_written_hides_nothing(tmp_path):
    (tmp_path / 'file').write_text('x')
    assert crash.write(tmp_path / 'file', ValueError('x')) is None
    with pytest.raises(ValueError, match='the cause'), crash.logged(tmp_path / 'file'):
        raise ValueError('the cause')
