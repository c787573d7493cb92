"""`ddsp transfer`, `ddsp export` and `ddsp promote`: what a trained model is for."""

from __future__ import annotations

from typing import Annotated

import typer

from experiments.cli import output
from experiments.cli.app import app

PANEL = 'Models'


@app.command(rich_help_panel=PANEL, epilog='Example: [bold]ddsp promote violin-2 --name violin[/bold]')
def promote(
    run: Annotated[str, typer.Argument(metavar='RUN', help='Id (or its beginning), name or save_dir.')],
    name: Annotated[
        str, typer.Option('--name', help='Name in the model registry; the experiment when not given.')
    ] = '',
    alias: Annotated[str, typer.Option('--alias', help='Alias to give it.')] = 'champion',
    as_json: Annotated[bool, typer.Option('--json', help='Print JSON.')] = False,
) -> int:
    """Register a run's model and make it the champion."""
    from experiments import registry, store

    if not name:
        client = store.client()
        name = client.get_experiment(store.find_run(client, run).info.experiment_id).name
    version = registry.promote(run, name, alias=alias)
    address = f'models:/{name}@{alias}'
    if as_json:
        output.print_json({'name': name, 'version': int(version.version), 'alias': alias, 'address': address})
    else:
        print(f'{name} version {version.version} is now {address}')
    return 0
