"""`ddsp runs` with its verbs, and `ddsp ui`."""
# ruff: noqa: B008 - typer's options are defaults

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import difflib
import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import typer

from experiments import metrics
from experiments.cli import output
from experiments.cli.app import app
from experiments.cli.grammar import App
from experiments.cli.options import FILTER, JSON, argument, option

if TYPE_CHECKING:
    from mlflow.entities import Run

    from experiments.reports.comparison import Comparison

_SIDE_BY_SIDE = 6  # up to this many runs are columns of a comparison, more are rows
_SHOWN_PARAMS = 5
_LINKED_RUNS, _LINKS = 100, 12  # most runs that `ddsp ui` looks at, and most links that it prints

_EXPERIMENTS = option(None, 'Only runs of this experiment; may be repeated.', '--experiment')
_BEST = option('', 'Metric to order by, best first.', '--best', metavar='<metric>')
_LIMIT = option(50, 'Maximum number of runs.', '--limit', min=1)

runs = App(no_args_is_help=True, rich_markup_mode='rich')
app.add_typer(
    runs, name='runs', rich_help_panel='Runs and models',
    help='List, export, compare and end runs; without a verb: list.',
    epilog='Example: [bold]ddsp runs list --best eval/spectral_loss[/bold]',
)  # fmt: skip


@runs.command('list', epilog='Example: [bold]ddsp runs list --experiment violin --limit 5[/bold]')
def list_(
    experiment: list[str] | None = _EXPERIMENTS,
    condition: str = option('', FILTER, '--filter'),
    best: str = _BEST,
    limit: int = _LIMIT,
    as_json: bool = JSON,
) -> int:
    """List runs, newest first or best first; changes nothing."""
    _print_runs(_find(experiment, condition, best, limit), best, as_json)
    return 0


@runs.command(
    epilog="Example: [bold]ddsp runs export runs.csv --filter 'metrics.`eval/spectral_loss` < 6'[/bold]"
)
def export(
    paths: list[pathlib.Path] = argument('FILE...', 'Tables to write, .csv or .parquet.'),
    experiment: list[str] | None = _EXPERIMENTS,
    condition: str = option('', FILTER, '--filter'),
    best: str = _BEST,
    limit: int = _LIMIT,
    as_json: bool = JSON,
) -> int:
    """List runs and write them with all parameters and metrics as tables."""
    from experiments.tracking import runs as tracked

    found = _find(experiment, condition, best, limit)
    for path in paths:
        tracked.export(found, path)
    _print_runs(found, best, as_json)
    return 0


@runs.command(epilog='Example: [bold]ddsp runs sync runs/violin-laptop[/bold]')
def sync(
    folder: pathlib.Path = argument('FOLDER', 'Training folder with entries that were not recorded.'),
    as_json: bool = JSON,
) -> int:
    """Record what a training could not record while the store was away."""
    from experiments.tracking import delivery

    count = delivery.sync(folder)
    entries = 'entry' if count == 1 else 'entries'
    output.print_json({'recorded': count}) if as_json else print(f'{count} {entries} recorded.')
    return 0


@runs.command(epilog='Example: [bold]ddsp runs end violin-1[/bold]')
def end(
    run: str = argument('RUN', 'Id (or its beginning), name or training folder.'),
    force: bool = option(False, 'Even if the run still shows signs of life.', '--force'),
    as_json: bool = JSON,
) -> int:
    """Mark a run as KILLED after its training has died."""
    from experiments.tracking import runs as tracked
    from experiments.tracking import store

    closed = tracked.end_run(store.client(), run, force)
    output.print_json({'ended': closed}) if as_json else print(f'{closed} is KILLED now.')
    return 0


def _find(experiments: list[str] | None, condition: str, best: str, limit: int) -> list[Run]:
    """Runs of the store; a store that does not exist yet is not made."""
    from experiments.tracking import runs as tracked
    from experiments.tracking import store

    if store.is_new():
        return []
    found = tracked.list_runs(
        store.client(), experiments=experiments, condition=condition, best=best, limit=limit
    )
    _check_metric(best, found)
    return found


def _check_metric(metric: str, found: Sequence[Run]) -> None:
    """Refuses a metric to order by that none of the runs has; those that have it come first.

    Raises:
      ConfigError: The message names the nearest metric.
    """
    from ddsp.errors import ConfigError

    known = {name for run in found for name in run.data.metrics}
    if not metric or not found or metric in known:
        return
    close = difflib.get_close_matches(metric, sorted(known), n=1)
    advice = f'Did you mean {close[0]!r}?' if close else f'They have: {", ".join(sorted(known)) or "none"}.'
    raise ConfigError(f'--best {metric!r}: none of the runs has this metric. {advice}')


def _print_runs(found: list[Run], best: str, as_json: bool) -> None:
    """The runs as a table, or as JSON."""
    from experiments.reports.page import format_number
    from experiments.tracking import runs as tracked
    from experiments.tracking import store

    if as_json:
        return output.print_json([tracked.row(run) for run in found])
    if not found:
        return print(f'No runs in {store.shown_uri()}.')
    wanted = dict.fromkeys([*([best] if best else []), *metrics.shown('list')])
    names = [name for name in wanted if any(name in run.data.metrics for run in found)]
    rows = []
    for run in found:
        begun = datetime.datetime.fromtimestamp(run.info.start_time / 1000).strftime('%Y-%m-%d %H:%M')
        values = [format_number(run.data.metrics[name]) if name in run.data.metrics else '' for name in names]
        rows.append((run.info.run_id[:8], run.info.run_name or '', tracked.state(run), begun, *values))
    output.print_table('', ('Run', 'Name', 'Status', 'Started', *names), rows, numeric=names)


@runs.command(epilog='Example: [bold]ddsp runs compare violin-1 violin-2 --html compare.html[/bold]')
def compare(
    references: list[str] | None = argument(
        'RUN', 'Ids (or their beginnings), names or training folders.', None
    ),
    experiment: str = option('', 'Take the best runs of this experiment.', '--experiment'),
    condition: str = option('', FILTER, '--filter'),
    best: str = option(metrics.OBJECTIVE, 'Metric to order by, best first.', '--best', metavar='<metric>'),
    limit: int = option(10, 'Maximum number of runs to take from --experiment.', '--limit', min=1),
    html: pathlib.Path | None = option(None, 'Write a page with players and pictures here.', '--html'),
    all_params: bool = option(False, 'Show parameters that do not differ too.', '--all-params'),
    as_json: bool = JSON,
) -> int:
    """Put runs side by side: parameters that differ, and metrics with the best marked."""
    from experiments.reports import comparison
    from experiments.tracking import store

    if bool(references) == bool(experiment):
        raise typer.BadParameter('give two or more runs, or --experiment.')
    if store.is_new():
        raise store.TrackingError(f'no runs in {store.shown_uri()}.')
    client = store.client()
    if references:
        found = [store.find_run(client, reference) for reference in references]
        _check_metric('' if best == metrics.OBJECTIVE else best, found)
    else:
        found = _find([experiment], condition, best, limit)
    if len(found) < 2:
        raise store.TrackingError(f'{len(found)} run found; a comparison needs two.')
    result = comparison.compare(found, all_params=all_params)
    verdicts = [] if result.warnings else comparison.significance(client, found)
    if html is not None:
        comparison.write_page(client, found, result, html, verdicts)
    if as_json:
        output.print_json({**dataclasses.asdict(result), 'significance': verdicts})
        return 0
    _print_comparison(result) if len(found) <= _SIDE_BY_SIDE else _print_ranking(result, best)
    for line in verdicts:
        print(line['text'])
    for warning in result.warnings:
        output.say(f'warning: {warning}')
    if html is not None:
        print(f'Page: {html}')
    uri = store.tracking_uri()
    if uri.startswith('http'):  # a server, which draws the runs beside each other
        from experiments.tracking import ui as pages

        places = [(run.info.experiment_id, run.info.run_id) for run in found]
        print(f'Charts: {pages.comparison_address(uri.rstrip("/"), places)}')
    return 0


def _print_comparison(result: Comparison) -> None:
    """Parameters and metrics as two tables, runs as columns; the best value of a row in bold green."""
    headings = tuple(f'{run.name} ({run.run_id[:8]})' for run in result.runs)
    if result.params:
        rows = [(name, *values) for name, values in result.params.items()]
        output.print_table('Parameters that differ', ('', *headings), rows)
        print()
    rows = [
        (name, *(_number(value, index in row.best) for index, value in enumerate(row.values)))
        for name, row in result.metrics.items()
    ]
    output.print_table('Metrics (* the best)', ('', *headings), rows, numeric=headings)


def _number(value: float | None, best: bool) -> Any:
    """A figure of a comparison; the best one stands out."""
    from experiments.reports.page import format_number

    shown = '' if value is None else format_number(value)
    return output.text(f'{shown} *', 'bold green') if best else f'{shown}  '


def _print_ranking(result: Comparison, best: str) -> None:
    """One line a run: the metrics that people look at first, and some of the parameters that differ."""
    names = [name for name in dict.fromkeys([best, *metrics.shown('list')]) if name in result.metrics]
    params = list(result.params)[:_SHOWN_PARAMS]
    rows = []
    for index, run in enumerate(result.runs):
        figures = [
            _number(row.values[index], index in row.best) for row in (result.metrics[name] for name in names)
        ]
        rows.append((run.name, run.run_id[:8], *figures, *(result.params[shown][index] for shown in params)))
    output.print_table('Runs (* the best)', ('Run', 'Id', *names, *params), rows, numeric=names)
    print(f'{len(result.params)} parameters differ, {len(result.metrics)} metrics: --json has them all.')


@app.command(rich_help_panel='This machine', epilog='Example: [bold]ddsp ui --port 5001 --no-browser[/bold]')
def ui(
    host: str = option('127.0.0.1', 'Address to listen on.'),
    port: int = option(0, 'Port; 0 takes a free one.', min=0, max=65535),
    browser: bool = option(True, 'Open the web browser.'),
    run: list[str] | None = option(
        None, 'Open this run (id, name or training folder); repeat to compare runs.', '--run'
    ),
    experiment: str = option('', 'Open this experiment.'),
) -> int:
    """Open the MLflow UI; Ctrl-C ends it."""
    from experiments.tracking import store
    from experiments.tracking.ui import UIServer

    uri = store.tracking_uri()
    client = store.client(uri)
    if uri.startswith('http'):  # there is a server already
        if port or host != '127.0.0.1':
            raise typer.BadParameter(f'--host and --port are for a server of your own; {uri} is one already.')
        _show(links(client, uri.rstrip('/'), run or [], experiment), browser)
        if user := store.login()[0]:
            print(f'The browser asks for the login of {user!r}.')
        return 0
    with UIServer(uri, host, port) as server:
        found = links(client, server.address, run or [], experiment)
        with output.waiting('Starting the MLflow server (up to half a minute)'):
            server.wait_until_ready()
        _show(found, browser)
        print('Ctrl-C ends it.', flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            return server.wait()
    return 0


def links(client: Any, server: str, references: Sequence[str], experiment: str) -> list[tuple[str, str]]:
    """What the UI has to show, as titles and addresses; it is opened at the first."""
    from experiments.tracking import runs as tracked
    from experiments.tracking import store
    from experiments.tracking import ui as pages

    if references:
        places = [_place(store.find_run(client, reference)) for reference in references]
        if len(places) > 1:
            return [('MLflow UI', pages.comparison_address(server, places))]
        return [
            ('MLflow UI', pages.run_address(server, places[0])),
            ('Listen', pages.run_address(server, places[0], 'listen.html')),
        ]
    found = store.search(client, experiments=[experiment] if experiment else None, limit=_LINKED_RUNS)
    if not found:
        return [('MLflow UI', pages.experiments_address(server))]
    here = found[0].info.experiment_id
    shown = [('MLflow UI', pages.charts_address(server, here))]
    for run in found:
        sweep = run.data.tags.get('sweep_id', '')
        if run.info.experiment_id != here:
            continue
        if run.data.tags.get('sweep_role') == 'summary':
            shown.append((f'Sweep {sweep}', pages.charts_address(server, here, tracked.of_sweep(sweep))))
            shown.append(('  its page', pages.run_address(server, _place(run), 'compare.html')))
        elif not sweep:
            shown.append((tracked.title(run), pages.run_address(server, _place(run))))
    return shown[:_LINKS]


def _place(run: Run) -> tuple[str, str]:
    return run.info.experiment_id, run.info.run_id


def _show(links: list[tuple[str, str]], browser: bool) -> None:
    """Prints addresses and opens the first on request."""
    for title, address in links:
        print(f'{title}: {address}', flush=True)
    if browser:
        import webbrowser

        with contextlib.suppress(webbrowser.Error):
            webbrowser.open(links[0][1])
