"""Framework noise stays off the terminal, and comes back when something fails."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import warnings

import pytest

from experiments import quiet


def test_what_native_code_writes_is_hidden(capfd):
    with quiet.native_noise_hidden():
        os.write(2, b'from C++\n')
    os.write(2, b'afterwards\n')
    assert capfd.readouterr().err == 'afterwards\n'


def test_a_failure_replays_what_was_hidden(capfd):
    def load():
        with quiet.native_noise_hidden():
            os.write(2, b'undefined symbol: x\n')
            raise ImportError('libx.so')

    with pytest.raises(ImportError):
        load()
    assert 'undefined symbol: x' in capfd.readouterr().err


def test_descriptor_two_is_given_back(capfd):
    before = len(os.listdir('/proc/self/fd'))
    for _ in range(5):
        with quiet.native_noise_hidden():
            pass
        with pytest.raises(ValueError), quiet.native_noise_hidden():
            raise ValueError
    assert len(os.listdir('/proc/self/fd')) == before


def test_warnings_are_hidden_within_only(monkeypatch):
    for name in quiet._ENVIRONMENT:
        monkeypatch.setenv(name, quiet._ENVIRONMENT[name])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter('always')
        with quiet.terminal():
            warnings.warn('inside', stacklevel=1)
        warnings.warn('outside', stacklevel=1)
    assert [str(warning.message) for warning in caught] == ['outside']


def test_loggers_are_calm():
    logging.getLogger('mlflow').setLevel(logging.INFO)
    quiet.calm_loggers()
    assert not logging.getLogger('mlflow').isEnabledFor(logging.WARNING)


@pytest.mark.parametrize('arguments', [['doctor', '--json'], ['runs']])
def test_good_commands_leave_stderr_empty(arguments, tmp_path):
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(('TF_', 'MLFLOW', 'CUDA'))
    }
    done = subprocess.run(
        [sys.executable, '-m', 'experiments.cli', *arguments],
        capture_output=True, text=True, cwd=tmp_path, env=environment, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, '')
