"""Arguments and options that several commands have."""

from __future__ import annotations

from typing import Annotated

import typer

_MODEL_HELP = 'Bundle, training folder, run, runs:/ID or models:/NAME@ALIAS.'

DatasetArgument = Annotated[
    str,
    typer.Argument(metavar='DATASET', help='Dataset directory: its version, its name, or a root with one.'),
]
ModelArgument = Annotated[str, typer.Argument(metavar='MODEL', help=_MODEL_HELP)]
ModelOption = Annotated[str, typer.Option('--model', help=_MODEL_HELP)]
ExperimentOption = Annotated[str, typer.Option('--experiment', help='MLflow experiment.')]
JsonOption = Annotated[bool, typer.Option('--json', help='Print JSON.')]
