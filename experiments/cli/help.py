"""Help that is whole in a terminal of 80 columns."""

from __future__ import annotations

import re
from typing import Any

import typer
from typer.core import TyperCommand


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


class App(typer.Typer):
    """An application of such commands."""

    def command(self, *args: Any, **kwargs: Any) -> Any:
        """As `typer.Typer.command`."""
        return super().command(*args, **{'cls': Command, **kwargs})
