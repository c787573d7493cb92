"""The command's frame: help, texts and exit codes."""

from __future__ import annotations

import errno
import os
import re
import shlex
import signal
import subprocess
import sys
import time

import pytest
import typer

from ddsp.errors import ConfigError
from ddsp.version import __version__
from experiments.cli import app as frame
from experiments.cli.grammar import modern

COMMANDS = (
    'doctor', 'prepare', 'inspect', 'train', 'evaluate', 'transfer', 'sweep', 'export', 'ui', 'demo',
    'runs', 'promote', 'presets',
)  # fmt: skip


VERBS = ('list', 'export', 'sync', 'end', 'compare')
LEAVES = (*(name for name in COMMANDS if name != 'runs'), *(f'runs {verb}' for verb in VERBS))


def _command(name: str):
    """A command, such as 'train' or 'runs list'."""
    frame._load_commands()
    command = typer.main.get_command(frame.app)
    for word in name.split():
        command = command.commands[word]
    return command


def _plain(text: str) -> str:
    """Help without boxes, colours and line breaks."""
    return re.sub(r'\s+', ' ', re.sub(r'\x1b\[[0-9;]*m|[│╭╮╰╯─]', ' ', text))


def test_help_lists_every_command_in_the_order_of_the_work(ddsp):
    status, out, err = ddsp('--help')
    assert status == 0
    assert err == ''
    for command in COMMANDS:
        assert f' {command} ' in _plain(out)
    work = ('prepare', 'inspect', 'train', 'evaluate', 'sweep', 'runs', 'transfer', 'export', 'ui', 'doctor')
    places = [out.index(f'│ {command} ') for command in work]
    assert places == sorted(places)


@pytest.mark.parametrize(
    ('old', 'new', 'notes'),
    [
        ('runs', 'runs list', 0),
        ('runs --json', 'runs list --json', 0),
        ('runs --help', 'runs --help', 0),
        ('runs list --best m', 'runs list --best m', 0),
        ('runs --sync folder --json', 'runs sync folder --json', 1),
        ('runs --end=r --force', 'runs end r --force', 1),
        ('runs --best m --csv a.csv --parquet b.parquet', 'runs export --best m a.csv b.parquet', 2),
        ('compare a b --html c.html', 'runs compare a b --html c.html', 1),
        ('compare --experiment e --metric m --best 5', 'runs compare --experiment e --best m --limit 5', 3),
        ('runs compare --metric=m', 'runs compare --best=m', 1),
        ('sweep s d --sweep-dir f', 'sweep s d --save-dir f', 1),
        ('demo --workdir=f', 'demo --save-dir=f', 1),
        ('prepare s --root r', 'prepare s --output r', 1),
        ('train d --save-dir f', 'train d --save-dir f', 0),
    ],
)
def test_old_spellings_work_with_a_note(capsys, old, new, notes):
    assert modern(old.split()) == new.split()
    out, err = capsys.readouterr()
    assert (out, err.count('\n'), err.count('the old spelling goes with the next release')) == (
        '',
        notes,
        notes,
    )


@pytest.mark.parametrize('command', COMMANDS)
def test_help_of_each_command_has_an_example(ddsp, command):
    status, out, err = ddsp(command, '--help')
    assert status == 0
    assert err == ''
    assert f'Example: ddsp {command}' in _plain(out)


@pytest.mark.parametrize('name', LEAVES)
def test_the_examples_are_understood(name):
    command = _command(name)
    examples = re.findall(r'\[bold\]ddsp (.*?)\[/bold\]', command.epilog)
    assert examples
    for example in examples:
        assert example.startswith(f'{name} ')
        words = shlex.split(example.removeprefix(name))
        with command.make_context(name, words) as context:
            assert context.params


@pytest.mark.parametrize('command', LEAVES)
def test_each_option_has_a_help_text(command):
    parameters = _command(command).params
    assert parameters
    for parameter in parameters:
        assert parameter.help, f'{command} {parameter.name}'


def test_help_answers_at_once_and_imports_no_framework():
    code = (
        'import sys; from experiments.cli import main; main(["--help"]); '
        'heavy = {"tensorflow", "keras", "mlflow", "apache_beam", "optuna", "matplotlib", "numpy", "scipy"}; '
        'sys.exit(str(heavy & set(sys.modules)) if heavy & set(sys.modules) else 0)'
    )
    start = time.perf_counter()
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert time.perf_counter() - start < 5  # about 0.3 s on an idle machine


def test_no_arguments_shows_the_help(ddsp):
    status, out, err = ddsp()
    assert status == 2
    assert 'Usage: ddsp' in _plain(out)
    assert err == ''


def test_version(ddsp):
    assert ddsp('--version') == (0, f'ddsp {__version__}\n', '')


def test_misspelt_command_suggests_the_nearest(ddsp):
    status, out, err = ddsp('prepair')
    assert (status, out) == (2, '')
    assert err == "ddsp: No such command 'prepair'. Did you mean 'prepare'?\nTry 'ddsp --help'.\n"


def test_misspelt_verb_suggests_the_nearest(ddsp):
    status, out, err = ddsp('runs', 'exprot')
    assert (status, out) == (2, '')
    assert "No such command 'exprot'. Did you mean 'export'?" in err


def test_misspelt_option_suggests_the_nearest(ddsp):
    status, out, err = ddsp('runs', '--limt', '3')
    assert (status, out) == (2, '')
    assert err == (
        "ddsp runs list: No such option: --limt (Possible options: --limit)\nTry 'ddsp runs list --help'.\n"
    )


def test_missing_argument(ddsp):
    status, _, err = ddsp('train')
    assert status == 2
    assert "Missing argument 'DATASET'" in err
    assert "Try 'ddsp train --help'." in err


def _raising(monkeypatch, error: BaseException):
    """Makes `ddsp doctor` fail with an error."""
    from experiments import doctor

    def fail():
        raise error

    monkeypatch.setattr(doctor, 'run_checks', fail)


@pytest.mark.parametrize(
    ('error', 'status', 'message'),
    [
        (ConfigError('hop 3 is wrong; 4 is right'), 1, 'Error: hop 3 is wrong; 4 is right\n'),
        (
            OSError(errno.ENOSPC, 'No space', '/data/x'),
            1,
            'Error: /data/x: the disk is full. Free some space',
        ),
        (
            PermissionError(errno.EACCES, 'denied', '/somewhere/x'),
            1,
            'Error: /somewhere/x: no permission to read or write',
        ),
        (FileNotFoundError(errno.ENOENT, 'gone', 'x.wav'), 1, 'Error: x.wav: No such file or directory.'),
        (MemoryError(), 1, 'Error: not enough memory.'),
        (ZeroDivisionError('by zero'), 1, 'Error: ZeroDivisionError: by zero\nThis is a defect of ddsp'),
        (KeyboardInterrupt(), 130, 'Interrupted. Run the same command again to resume.\n'),
        (KeyboardInterrupt('interrupted after 7 steps'), 130, 'Interrupted after 7 steps.\n'),
    ],
)
def test_errors_are_one_message_without_a_traceback(ddsp, monkeypatch, error, status, message):
    _raising(monkeypatch, error)
    returned, out, err = ddsp('doctor')
    assert (returned, out) == (status, '')
    assert err.startswith(message)
    assert 'Traceback' not in err


@pytest.mark.parametrize('arguments', [('--debug', 'doctor'), ('doctor', '--debug')])
def test_debug_shows_the_traceback_wherever_it_stands(ddsp, monkeypatch, arguments):
    _raising(monkeypatch, ConfigError('wrong'))
    status, _, err = ddsp(*arguments)
    assert status == 1
    assert 'Traceback' in err
    assert err.endswith('Error: wrong\n')


def test_interruption_brings_its_own_exit_code(ddsp, monkeypatch):
    stop = KeyboardInterrupt('interrupted after 3 steps: saved in run')
    stop.exit_code = 143
    _raising(monkeypatch, stop)
    assert ddsp('doctor')[0] == 143


def test_sigterm_ends_a_command_like_ctrl_c(ddsp, monkeypatch):
    from experiments import doctor

    monkeypatch.setattr(doctor, 'run_checks', lambda: os.kill(os.getpid(), signal.SIGTERM) or time.sleep(5))
    status, _, err = ddsp('doctor')
    assert (status, err) == (143, 'Interrupted. Run the same command again to resume.\n')
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_closed_pipe_is_silent():
    command = f'{sys.executable} -m experiments.cli --help | head -1'
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=False)
    assert done.stderr == ''
