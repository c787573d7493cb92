"""What commands print: tables for people, JSON for machines, progress while they wait."""

from __future__ import annotations

import contextlib
import json
import math
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ddsp.io.progress import Progress
from experiments import masking


def console(stderr: bool = False) -> Console:
    """A console made anew, so that a redirected stream is honoured; wide where nobody's window limits it."""
    stream = sys.stderr if stderr else sys.stdout
    return Console(file=stream, highlight=False, width=None if stream.isatty() else 160)


def say(message: str) -> None:
    """A message beside the results: stderr."""
    print(masking.clean(message), file=sys.stderr, flush=True)


def print_json(value: Any) -> None:
    """One JSON document on stdout; what JSON has no number for, such as nan, is null."""
    print(json.dumps(_as_json(value), indent=2, ensure_ascii=False, default=str, allow_nan=False))


def _as_json(value: Any) -> Any:
    """A value without numbers that JSON does not know."""
    if isinstance(value, Mapping):
        return {str(name): _as_json(entry) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_as_json(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def text(value: Any, style: str = '') -> Text:
    """A text as it is: brackets are no markup, and control characters do nothing to the terminal."""
    shown = ''.join(sign if sign.isprintable() or sign == '\n' else '\ufffd' for sign in str(value))
    return Text(shown, style=style)


def print_table(
    title: str,
    columns: Sequence[str],
    rows: Iterable[Sequence[Any]],
    numeric: Sequence[str] = (),
    *,
    header: bool = True,
) -> None:
    """A table on stdout; columns named in `numeric` are aligned to the right.

    Cells are shown as they are; those that `text` has made keep their style.
    """
    made = Table(
        title=text(title) if title else None, title_justify='left', header_style='bold', box=None,
        pad_edge=False, show_header=header,
    )  # fmt: skip
    for column in columns:
        made.add_column(text(column), justify='right' if column in numeric else 'left', overflow='fold')
    for row in rows:
        made.add_row(*(cell if isinstance(cell, Text) else text(cell) for cell in row))
    console().print(made)


@contextlib.contextmanager
def waiting(message: str) -> Iterator[None]:
    """A sign of life on a terminal."""
    shown = console(stderr=True)
    if not shown.is_terminal:
        yield
        return
    with shown.status(text(masking.clean(message))):
        yield


@contextlib.contextmanager
def progress(description: str, *, enabled: bool = True, interval: float = 20.0) -> Iterator[Progress]:
    """A bar on the terminal, or a line every `interval` seconds where stderr is not a terminal.

    Yields `progress(done, total, text)`, where total 0 means that it is unknown; it shows nothing unless
    `enabled` (for `--json`).
    """
    if not enabled:
        yield lambda done, total, text: None
    elif sys.stderr.isatty():
        yield from _bar(description)
    else:
        yield _lines(description, interval)


def _bar(description: str) -> Iterator[Progress]:
    """A rich progress bar on stderr."""
    from rich import progress as bars

    columns = (
        bars.TextColumn('{task.description}', style='bold', markup=False), bars.BarColumn(bar_width=30),
        bars.MofNCompleteColumn(), bars.TimeElapsedColumn(), bars.TimeRemainingColumn(),
        bars.TextColumn('{task.fields[text]}', markup=False),
    )  # fmt: skip
    with bars.Progress(*columns, console=Console(stderr=True), refresh_per_second=4) as bar:
        task = bar.add_task(description, total=None, text='')
        yield lambda done, total, text='': bar.update(task, completed=done, total=total or None, text=text)


def _lines(description: str, interval: float) -> Progress:
    """Plain lines on stderr, at most one every `interval` seconds."""
    last = time.monotonic()

    def update(done: float, total: float, text: str = '') -> None:
        nonlocal last
        if time.monotonic() - last >= interval:
            last = time.monotonic()
            say(f'{description}: {done:.0f} of {f"{total:.0f}" if total else "?"}  {text}')

    return update
