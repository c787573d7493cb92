"""What README.md and docs/ name exists: pages, files, commands and their options.

`make docs` checks the links between the pages of the site; here is the rest.
"""

from __future__ import annotations

import pathlib
import re
import shlex
from collections.abc import Iterator

import pytest
import typer

ROOT = pathlib.Path(__file__).resolve().parents[1]
PAGES = sorted([*ROOT.glob('*.md'), *(ROOT / 'docs').rglob('*.md'), *(ROOT / 'infra').rglob('*.md')])
CODE = sorted(
    path
    for folder in ('ddsp', 'pipelines', 'experiments', 'benchmarks', 'infra')
    for path in (ROOT / folder).rglob('*')
    if path.suffix in ('.py', '.sh', '.yaml', '.gin', '.html')
)


@pytest.mark.parametrize('page', PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files(page: pathlib.Path):
    for address in re.findall(r'\]\(([^)\s:#]+)(?:#[^)]*)?\)', page.read_text()):
        assert (page.parent / address).exists(), address


def test_pages_that_code_names_exist():
    named = {(path, name) for path in CODE for name in re.findall(r'\bdocs/[\w/-]+\.md', path.read_text())}
    assert named
    assert not [f'{path}: {name}' for path, name in sorted(named) if not (ROOT / name).exists()]


def commands() -> Iterator[tuple[str, list[str]]]:
    """Lines of code blocks that call ddsp, with the page's name."""
    for page in PAGES:
        for block in re.findall(r'^ *```\w*\n(.*?)^ *```', page.read_text(), re.DOTALL | re.MULTILINE):
            for line in block.replace('\\\n', ' ').splitlines():
                words = shlex.split(line, comments=True) if re.search(r'\bddsp ', line) else []
                while words and '=' in words[0]:  # such as KERAS_BACKEND=jax
                    words = words[1:]
                if words[:1] == ['ddsp']:
                    yield page.name, words[1:]


def test_commands_and_options_exist():
    from experiments.cli import data, jobs, models, tracking, training  # noqa: F401
    from experiments.cli.app import app

    found = list(commands())
    assert len(found) > 20
    for page, words in found:
        command = typer.main.get_command(app)
        while hasattr(command, 'commands') and words and not words[0].startswith('-'):
            assert words[0] in command.commands, f'{page}: {words[0]}'
            command, words = command.commands[words[0]], words[1:]
        known = {name for option in command.params for name in (*option.opts, *option.secondary_opts)}
        end = words.index('--') if '--' in words else len(words)  # options of Beam follow, or another command
        if command.name == 'launch' and not {'...', 'train|sweep|evaluate|prepare'} & set(words):
            jobs.parse(tuple(word for word in words[end + 1 :] if word[0] not in '<>'))
        for word in words[:end]:
            if word.startswith('--'):
                assert word.partition('=')[0] in {*known, '--help'}, f'{page}: {command.name} {word}'
