"""`ddsp doctor` and `ddsp prepare`."""

from __future__ import annotations

from typing import Annotated

import typer

from experiments.cli import output
from experiments.cli.app import app

PANEL = 'Data'


@app.command(rich_help_panel=PANEL, epilog='Example: [bold]ddsp doctor --json[/bold]')
def doctor(as_json: Annotated[bool, typer.Option('--json', help='Print JSON.')] = False) -> int:
    """Show what is installed and usable here, and what is missing."""
    from experiments import doctor as checks

    report = checks.run_checks()
    missing = [check for check in report if check.state == checks.MISSING]
    if as_json:
        output.print_json({'ok': not missing, 'checks': [vars(check) for check in report]})
        return int(bool(missing))
    marks = {
        checks.OK: '[green]ok[/green]',
        checks.WARNING: '[yellow]--[/yellow]',
        checks.MISSING: '[red]missing[/red]',
    }
    rows = [(marks[check.state], check.name, check.found, check.advice) for check in report]
    output.print_table('', ('', 'What', 'Found', 'Advice'), rows)
    if missing:
        output.say(f'{len(missing)} required {"thing is" if len(missing) == 1 else "things are"} missing.')
    return int(bool(missing))
