"""Command-line flags as absl reads them, for the commands that take those of ddsp 3.7.0."""

from __future__ import annotations

import argparse

_IGNORED = ('--alsologtostderr', '--logtostderr')  # of absl: where its logs go


def boolean(text: str) -> bool:
    """A flag's value as absl reads it."""
    values = {'true': True, 't': True, '1': True, 'false': False, 'f': False, '0': False}
    if text.lower() not in values:
        raise argparse.ArgumentTypeError(f'{text!r} is neither true nor false')
    return values[text.lower()]


class FlagParser(argparse.ArgumentParser):
    """Reads flags as absl does: `--name=value`, `--name value`, `--switch`, `--noswitch`."""

    def __init__(self, **kwargs: str) -> None:
        super().__init__(allow_abbrev=False, formatter_class=argparse.ArgumentDefaultsHelpFormatter, **kwargs)  # type: ignore[arg-type]
        for name in _IGNORED:
            self.add_argument(name, type=boolean, nargs='?', const=True, default=True, help=argparse.SUPPRESS)

    def switch(self, name: str, text: str) -> None:
        """Adds a flag that is on or off."""
        self.add_argument(f'--{name}', type=boolean, nargs='?', const=True, default=False, help=text)
        self.add_argument(
            f'--no{name}', dest=name, action='store_const', const=False, default=argparse.SUPPRESS,
            help=argparse.SUPPRESS,
        )  # fmt: skip
