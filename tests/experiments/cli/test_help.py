"""The help of every command, as a newcomer sees it in a terminal of 80 columns."""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import sys

import pytest
import typer

from experiments.cli.app import _load_commands, app
from pipelines.options import PrepareOptions

_load_commands()
COMMANDS = dict(typer.main.get_command(app).commands)
COMMANDS |= {f'runs {name}': command for name, command in COMMANDS.pop('runs').commands.items()}


@pytest.fixture(scope='module')
def helps():
    """Command to its help, in 80 columns."""
    script = (
        'from experiments.cli import main\n'
        f'for name in {sorted(COMMANDS)!r}:\n'
        '    print("@@@" + name)\n'
        '    main([*name.split(), "--help"])\n'
    )
    done = subprocess.run(
        [sys.executable, '-c', script], env={'COLUMNS': '80', 'PATH': '/usr/bin:/bin'},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    parts = (part.split('\n', 1) for part in done.stdout.split('@@@')[1:])
    return dict(parts)


@pytest.mark.parametrize('name', sorted(COMMANDS))
def test_help_is_whole_and_has_an_example(helps, name):
    text = helps[name]
    assert '\u2026' not in text  # nothing is cut
    assert max(map(len, text.splitlines())) <= 80
    joined = ' '.join(text.split())
    assert f'Example: ddsp {name} ' in joined
    assert '[bold]' not in text
    for param in COMMANDS[name].params:
        for option in [*param.opts, *param.secondary_opts]:
            if option.startswith('--'):
                assert option in joined
        words = getattr(param, 'help', None)
        if words:
            assert ' '.join(words.split()) in joined.replace('- ', '-'), option


def test_defaults_are_shown(helps):
    train = ' '.join(helps['train'].split()).replace('- ', '-')
    assert "[default: (the configuration's; laptop: 1600); x>=1]" in train
    assert '[default: (laptop; none with --gin-file)]' in train
    assert '[default: auto]' in train


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['train', 'x', '--preset', 'labtop'], "'labtop' is not one of laptop. Did you mean 'laptop'?"),
        (['train', 'x', '--strategy', 'tpus'], "Did you mean 'tpu'?"),
        (['prepare', 'x', '--alignment', 'middle'], "'middle' is not one of center, start."),
        (['prepare', 'x', '--f0', 'swfit'], "Did you mean 'swift'?"),
        (['evaluate', 'x', 'y', '--f0', 'crep'], "Did you mean 'crepe'?"),
        (['transfer', 'x', '--model', 'y', '--output', 'z', '--pitch-shift', '1e9'], '-60 to 60'),
        (['transfer', 'x', '--model', 'y', '--output', 'z', '--pitch-shift', 'nan'], "or 'auto'"),
        (['transfer', 'x', '--model', 'y', '--output', 'z', '--loudness-shift', 'nan'], '-60 to 60'),
    ],
)
def test_values_outside_of_a_closed_set_are_wrong_usage(workdir, ddsp, arguments, message):
    status, out, err = ddsp(*arguments)
    assert (status, out) == (2, '')
    assert message in err


def test_every_option_of_a_preparation_can_be_given():
    options = {param.name: param.default for param in COMMANDS['prepare'].params}
    written = {'splits': 'train=0.8,test=0.2', 'max_rejected': '100%', 'min_voiced': '0%'}
    for field in dataclasses.fields(PrepareOptions):
        if field.name != 'chunk_secs':  # of no use but to tests
            assert options[field.name] == written.get(field.name, field.default), field.name


def test_presets_are_listed_with_what_they_are_for(ddsp):
    status, out, err = ddsp('presets')
    assert (status, err) == (0, '')
    assert re.search(r'^laptop +\w+', out, re.M)
    assert list(json.loads(ddsp('presets', '--json')[1])) == re.findall(r'^(\S+)  ', out, re.M)
