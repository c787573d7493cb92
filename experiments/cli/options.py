"""Arguments and options that several commands have."""

from __future__ import annotations

import difflib
from typing import Annotated, Any

import typer

_MODEL_HELP = 'Bundle, training folder, run, runs:/ID or models:/NAME@ALIAS.'

DatasetArgument = Annotated[
    str,
    typer.Argument(metavar='DATASET', help='Dataset directory: its version, its name, or a root with one.'),
]
ModelArgument = Annotated[str, typer.Argument(metavar='MODEL', help=_MODEL_HELP)]
ModelOption = Annotated[str, typer.Option('--model', help=_MODEL_HELP)]
ExperimentOption = Annotated[str, typer.Option('--experiment', help='MLflow experiment.')]


def choice(*names: str) -> dict[str, Any]:
    """Arguments of `typer.Option` for an option that takes one of some names; the empty default stays."""

    def check(value: str) -> str:
        if value and value not in names:
            near = difflib.get_close_matches(value, names, 1)
            hint = f' Did you mean {near[0]!r}?' if near else ''
            raise typer.BadParameter(f'{value!r} is not one of {", ".join(names)}.{hint}')
        return value

    return {'metavar': f'<{"|".join(names)}>', 'callback': check}


def f0_choice() -> dict[str, Any]:
    """The same for pitch estimators, which packages can add to."""

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


JsonOption = Annotated[bool, typer.Option('--json', help='Print JSON.')]
