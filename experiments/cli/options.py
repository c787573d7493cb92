"""Arguments and options of commands, and those that several have."""

from __future__ import annotations

import difflib
import pathlib
from typing import Any

import typer

MODEL = 'Bundle, training folder, run, runs:/ID or models:/NAME@ALIAS.'
FILTER = "Filter in MLflow's syntax, such as \"status = 'FINISHED'\"."
SEED: dict[str, Any] = {'min': 0, 'max': 2**32 - 1}


def argument(metavar: str, help: str, default: Any = ...) -> Any:
    """An argument."""
    return typer.Argument(default, metavar=metavar, help=help)


def option(default: Any, help: str, *names: str, shown: str | bool = True, **more: Any) -> Any:
    """An option, named as its parameter unless `names` are given.

    Args:
      default: Default value; `...` makes the option mandatory.
      help: Help text.
      *names: Names such as '--json', or '--power/--no-power'.
      shown: What the help shows as the default where that is not the value itself.
      **more: For `typer.Option`.
    """
    return typer.Option(default, *names, help=help, show_default=shown, **more)


DATASET = argument('DATASET', 'Dataset directory: its version, its name, or a root with one.')
EXPERIMENT = option('ddsp', 'MLflow experiment.', '--experiment')
JSON = option(False, 'Print JSON.', '--json')


def choice(*names: str) -> dict[str, Any]:
    """Arguments of `option` for one that takes one of some names; the empty default stays."""

    def check(value: str) -> str:
        if value and value not in names:
            near = difflib.get_close_matches(value, names, 1)
            hint = f' Did you mean {near[0]!r}?' if near else ''
            raise typer.BadParameter(f'{value!r} is not one of {", ".join(names)}.{hint}')
        return value

    return {'metavar': f'<{"|".join(names)}>', 'callback': check}


def presets_of_package() -> dict[str, str]:
    """Names of the packaged configurations and what they are for: the first line of each."""
    import ddsp

    folder = pathlib.Path(str(ddsp.__file__)).parent / 'training' / 'gin' / 'presets'
    return {
        path.stem: path.read_text().partition('\n')[0].strip('# ') for path in sorted(folder.glob('*.gin'))
    }


def f0_choice() -> dict[str, Any]:
    """Arguments of `option` for a pitch estimator, to which packages can add theirs."""

    def check(value: str) -> str:
        from ddsp.errors import DDSPError
        from ddsp.f0 import get_estimator

        try:
            if value != 'auto':
                get_estimator(value)
        except DDSPError as error:
            raise typer.BadParameter(str(error)) from None
        return value

    return {'metavar': '<auto|swift|yin|crepe|crepe-SIZE|...>', 'callback': check}
