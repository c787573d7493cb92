"""The grammar of the command line: help that fits 80 columns, and spellings of earlier releases."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

_ORDER = (  # of the work
    'prepare', 'inspect', 'train', 'presets', 'evaluate', 'sweep', 'launch', 'jobs', 'runs', 'promote',
    'transfer', 'export', 'ui', 'doctor', 'demo',
)  # fmt: skip
# Options of `ddsp runs` that have become commands of it.
_VERBS = {'--sync': 'sync', '--end': 'end', '--csv': 'export', '--parquet': 'export'}
_RENAMED = {
    'sweep': {'--sweep-dir': '--save-dir'},
    'demo': {'--workdir': '--save-dir'},
    'prepare': {'--root': '--output'},
    'compare': {'--metric': '--best'},
}


class Command(TyperCommand):
    """A command whose help is in two columns: rich's table has five, and cuts words that do not fit."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Writes the help as plain text."""
        markup, self.rich_markup_mode = self.rich_markup_mode, None
        epilog, self.epilog = self.epilog, re.sub(r'\[/?bold\]', '', self.epilog or '')
        try:
            super().format_help(ctx, formatter)
        finally:
            self.rich_markup_mode, self.epilog = markup, epilog


class Group(TyperGroup):
    """The commands in the order of the work, in which help shows them."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Names of the commands."""
        return sorted(self.commands, key=_ORDER.index)


class App(typer.Typer):
    """An application of such commands."""

    def command(self, *args: Any, **kwargs: Any) -> Any:
        """As `typer.Typer.command`."""
        return super().command(*args, **{'cls': Command, **kwargs})


def modern(words: Sequence[str]) -> list[str]:
    """A command line in today's grammar; each spelling of an earlier release is named on stderr."""
    words = list(words)
    if words[:1] == ['compare']:
        _note('ddsp compare', 'ddsp runs compare')
        words = ['runs', *words]
    if words[:1] == ['runs']:
        verb = words[1] if len(words) > 1 else '--'
        if verb.startswith('-') and verb not in ('-h', '--help'):
            words = ['runs', *_with_verb(words[1:])]
    command = next((word for word in words[:2] if word != 'runs'), '')
    if command == 'compare':
        words = _with_limit(words)
    renamed = _RENAMED.get(command, {})
    for index, word in enumerate(words):
        name, equals, value = word.partition('=')
        if name in renamed:
            _note(name, renamed[name])
            words[index] = renamed[name] + equals + value
    return words


def _with_verb(words: list[str]) -> list[str]:
    """Arguments of `ddsp runs` without a verb: those of `list`, or of the verb that was an option."""
    kept, verb = [], 'list'
    for word in words:
        name, equals, value = word.partition('=')
        if name in _VERBS:
            verb = _VERBS[name]
            _note(f'ddsp runs {name}', f'ddsp runs {verb}')
            kept += [value] if equals else []
        else:
            kept.append(word)
    return [verb, *kept]


def _with_limit(words: list[str]) -> list[str]:
    """`--best 5` of a comparison was a count."""
    for index, word in enumerate(words[:-1]):
        if word == '--best' and words[index + 1].isdigit():
            _note('--best COUNT', '--limit COUNT')
            words[index] = '--limit'
    return words


def _note(old: str, new: str) -> None:
    print(f'Note: `{old}` is now `{new}`; the old spelling goes with the next release.', file=sys.stderr)
