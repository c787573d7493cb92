"""`ddsp runs`, `ddsp compare` and `ddsp ui`."""

from __future__ import annotations

import contextlib
import datetime
import difflib
import pathlib
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from experiments.cli import output
from experiments.cli.app import app
from experiments.cli.options import JsonOption

if TYPE_CHECKING:
    from mlflow.entities import Run

    from experiments.reports.comparison import Comparison

PANEL = 'Tracking'
_METRIC = 'eval/spectral_loss'
_SIDE_BY_SIDE = 6  # so many runs are columns of a comparison; more are its lines
_SHOWN_PARAMS = 5
_LINKED_RUNS, _LINKS = 100, 12  # `ddsp ui` looks at so many runs, and prints so many links
_SHOWN_METRICS = ('losses/total_loss', 'eval/spectral_loss', 'eval/loudness_l1_db', 'eval/f0_l1_midi')


@app.command(
    rich_help_panel=PANEL,
    epilog='Example: [bold]ddsp runs --experiment violin --filter "metrics.`eval/spectral_loss` < 6" '
    '--csv runs.csv[/bold]',
)
def runs(
    experiment: Annotated[
        list[str] | None, typer.Option('--experiment', help='Only of this experiment; may be given again.')
    ] = None,
    condition: Annotated[
        str, typer.Option('--filter', help="Condition in MLflow's grammar, such as \"status = 'FINISHED'\".")
    ] = '',
    best: Annotated[str, typer.Option('--best', help='Order by this metric, best first.')] = '',
    limit: Annotated[int, typer.Option('--limit', min=1, help='Most runs to list.')] = 50,
    csv: Annotated[
        pathlib.Path | None, typer.Option('--csv', help='Write runs, parameters and metrics here.')
    ] = None,
    parquet: Annotated[pathlib.Path | None, typer.Option('--parquet', help='The same as Parquet.')] = None,
    sync: Annotated[
        pathlib.Path | None,
        typer.Option(
            '--sync', help='Training folder whose entries could not be recorded: record them now, and end.'
        ),
    ] = None,
    end: Annotated[
        str, typer.Option('--end', help='Run whose training is gone: mark it as KILLED, and stop there.')
    ] = '',
    force: Annotated[
        bool, typer.Option('--force', help='With --end: even if the run still gives signs of life.')
    ] = False,
    as_json: JsonOption = False,
) -> int:
    """List, filter and export runs."""
    from experiments.tracking import listing, reading, store

    if sync is not None:
        from experiments.tracking.delivery import sync as deliver

        count = deliver(sync)
        entries = 'entry' if count == 1 else 'entries'
        output.print_json({'recorded': count}) if as_json else print(f'{count} {entries} recorded.')
        return 0
    client = reading.reader()
    if end:
        closed = listing.end_run(client, end, force)
        output.print_json({'ended': closed}) if as_json else print(f'{closed} is KILLED now.')
        return 0
    found = listing.list_runs(client, experiments=experiment, condition=condition, best=best, limit=limit)
    _check_metric('--best', best, found)
    for path in (csv, parquet):
        if path is not None:
            listing.export(found, path)
    rows = [listing.row(run) for run in found]
    if as_json:
        output.print_json(rows)
    elif not rows:
        print(f'No runs in {store.shown_uri()}.')
    else:
        _print_runs(found, best)
    return 0


def _check_metric(option: str, metric: str, found: Sequence[Run]) -> None:
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
    raise ConfigError(f'{option} {metric!r}: none of the runs has this metric. {advice}')


def _print_runs(found: list[Run], best: str) -> None:
    """The runs as a table."""
    from experiments.reports.page import format_number
    from experiments.tracking import listing

    wanted = tuple(dict.fromkeys(([best] if best else []) + list(_SHOWN_METRICS)))
    metrics = [name for name in wanted if any(name in run.data.metrics for run in found)]
    rows = []
    for run in found:
        begun = datetime.datetime.fromtimestamp(run.info.start_time / 1000).strftime('%Y-%m-%d %H:%M')
        numbers = [
            format_number(run.data.metrics[name]) if name in run.data.metrics else '' for name in metrics
        ]
        rows.append((run.info.run_id[:8], run.info.run_name or '', listing.state(run), begun, *numbers))
    output.print_table('', ('Run', 'Name', 'Status', 'Started', *metrics), rows, numeric=metrics)


@app.command(
    rich_help_panel=PANEL, epilog='Example: [bold]ddsp compare violin-1 violin-2 --html compare.html[/bold]'
)
def compare(
    references: Annotated[
        list[str] | None,
        typer.Argument(metavar='RUN', help='Ids (or their beginnings), names or save_dirs.'),
    ] = None,
    experiment: Annotated[str, typer.Option('--experiment', help='Take the runs of this experiment.')] = '',
    condition: Annotated[
        str, typer.Option('--filter', help="Of them those that match, in MLflow's grammar.")
    ] = '',
    metric: Annotated[str, typer.Option('--metric', help='What --best goes by.')] = _METRIC,
    best: Annotated[int, typer.Option('--best', min=1, help='Of them the best so many by --metric.')] = 10,
    html: Annotated[
        pathlib.Path | None, typer.Option('--html', help='Write a page with players and pictures here.')
    ] = None,
    all_params: Annotated[
        bool, typer.Option('--all-params', help='Also parameters that do not differ.')
    ] = False,
    as_json: JsonOption = False,
) -> int:
    """Put runs side by side: differing parameters, metrics with the better one marked."""
    from experiments.reports import comparison as comparing
    from experiments.reports import significance
    from experiments.tracking import listing, reading, store

    if bool(references) == bool(experiment):
        raise typer.BadParameter('give two or more runs, or --experiment.')
    client = reading.reader()
    if references:
        found = [store.find_run(client, reference) for reference in references]
    else:
        found = listing.list_runs(
            client, experiments=[experiment], condition=condition, best=metric, limit=best
        )
    if references or len(found) > 1:
        _check_metric('--metric', metric if not references or metric != _METRIC else '', found)
    if len(found) < 2:
        raise store.TrackingError(f'{len(found)} run found; a comparison needs two.')
    result = comparing.compare(found, all_params=all_params)
    verdicts = [] if result.warnings else significance.significance(client, found)
    if html is not None:
        from experiments.reports.comparison_page import write_page

        write_page(client, found, result, html, verdicts)
    if as_json:
        output.print_json({**result.as_dict(), 'significance': verdicts})
        return 0
    if len(found) <= _SIDE_BY_SIDE:
        _print_comparison(result)
    else:
        _print_ranking(result, metric)
    for line in verdicts:
        print(line['text'])
    for warning in result.warnings:
        output.say(f'warning: {warning}')
    if html is not None:
        print(f'Page: {html}')
    _print_charts_link(found)
    return 0


def _print_charts_link(found: Sequence[Run]) -> None:
    """Where a tracking server draws the runs beside each other."""
    from experiments.tracking import store, views

    uri = store.tracking_uri()
    if uri.startswith('http'):
        pages = [(run.info.experiment_id, run.info.run_id) for run in found]
        print(f'Charts: {views.comparison_address(uri.rstrip("/"), pages)}')


def _print_comparison(result: Comparison) -> None:
    """Parameters and metrics as two tables, runs as columns; the best value of a row in bold green."""
    headings = tuple(
        f'{name} ({run_id[:8]})' for name, run_id in zip(result.names, result.run_ids, strict=True)
    )
    if result.params:
        rows = [(name, *values) for name, values in result.params.items()]
        output.print_table('Parameters that differ', ('', *headings), rows)
        print()
    rows = [
        (row.name, *(_number(value, index in row.best) for index, value in enumerate(row.values)))
        for row in result.metrics
    ]
    output.print_table('Metrics (* the best)', ('', *headings), rows, numeric=headings)


def _number(value: float | None, best: bool) -> Any:
    """A figure of a comparison; the best one stands out."""
    from experiments.reports.page import format_number

    shown = '' if value is None else format_number(value)
    return output.text(f'{shown} *', 'bold green') if best else f'{shown}  '


def _print_ranking(result: Comparison, metric: str) -> None:
    """One line a run: the metrics that people look at first, and some of the parameters that differ."""
    rows_of = {row.name: row for row in result.metrics}
    metrics = [name for name in dict.fromkeys([metric, *_SHOWN_METRICS]) if name in rows_of]
    params = list(result.params)[:_SHOWN_PARAMS]
    rows = []
    for index, (name, run_id) in enumerate(zip(result.names, result.run_ids, strict=True)):
        figures = [_number(rows_of[shown].values[index], index in rows_of[shown].best) for shown in metrics]
        rows.append((name, run_id[:8], *figures, *(result.params[shown][index] for shown in params)))
    columns = ('Run', 'Id', *metrics, *params)
    output.print_table('Runs (* the best)', columns, rows, numeric=metrics)
    print(f'{len(result.params)} parameters differ, {len(result.metrics)} metrics: --json has them all.')


@app.command(rich_help_panel=PANEL, epilog='Example: [bold]ddsp ui --port 5001 --no-browser[/bold]')
def ui(
    host: Annotated[str, typer.Option('--host', help='Address to listen on.')] = '127.0.0.1',
    port: Annotated[int, typer.Option('--port', min=0, max=65535, help='Port; 0 takes a free one.')] = 0,
    browser: Annotated[bool, typer.Option('--browser/--no-browser', help='Open the web browser.')] = True,
    run: Annotated[
        list[str] | None,
        typer.Option('--run', help='Open this run (id, name or save_dir); given again, compare them.'),
    ] = None,
    experiment: Annotated[str, typer.Option('--experiment', help='Open this experiment.')] = '',
) -> int:
    """Open the MLflow UI on the store in use; Ctrl-C ends it."""
    from experiments.tracking import store
    from experiments.tracking.ui import UIServer

    uri = store.tracking_uri()
    client = store.client(uri)
    links = _links(client, run or [], experiment)
    if uri.startswith('http'):  # there is a server already
        _show(uri.rstrip('/'), links, browser)
        return 0
    with UIServer(uri, host, port) as server:
        with output.waiting('Starting the MLflow server (up to half a minute)'):
            server.wait_until_ready()
        _show(server.address, links, browser)
        print('Ctrl-C ends it.', flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            return server.wait()
    return 0


def _links(client: Any, references: Sequence[str], experiment: str) -> list[tuple[str, Callable[[str], str]]]:
    """Where the UI is opened, and what else to look at: titles, and addresses by the server's."""
    from experiments.tracking import store, views

    if references:
        runs = [store.find_run(client, reference) for reference in references]
    else:
        runs = store.search(client, experiments=[experiment] if experiment else None, limit=_LINKED_RUNS)
    if not runs:
        return [('MLflow UI', views.start_address)]
    pages = [(run.info.experiment_id, run.info.run_id) for run in runs]
    found: list[tuple[str, Callable[[str], str]]]
    if len(references) > 1:
        found = [('MLflow UI', partial(views.comparison_address, runs=pages))]
    elif references:
        found = [('MLflow UI', partial(views.run_address, run=pages[0]))]
        return [*found, ('Listen', partial(views.run_address, run=pages[0], artifact='listen.html'))]
    else:
        here = pages[0][0]
        store.experiment_id(client, client.get_experiment(here).name)  # gives an older experiment its view
        found = [('MLflow UI', partial(views.view_address, experiment_id=here))]
        runs = [run for run in runs if run.info.experiment_id == here]
    for run in runs:
        page, sweep = (run.info.experiment_id, run.info.run_id), run.data.tags.get('sweep_id')
        if run.data.tags.get('sweep_role') == 'summary':
            key = views.sweep_key(str(sweep))
            found.append((f'Sweep {sweep}', partial(views.view_address, experiment_id=page[0], key=key)))
            found.append(('  its page', partial(views.run_address, run=page, artifact='compare.html')))
        elif not sweep:
            found.append((run.info.run_name or page[1][:8], partial(views.run_address, run=page)))
    return found[:_LINKS]


def _show(server: str, links: list[tuple[str, Callable[[str], str]]], browser: bool) -> None:
    """Prints addresses and opens the first on request."""
    for title, address in links:
        print(f'{title}: {address(server)}', flush=True)
    if browser:
        import webbrowser

        with contextlib.suppress(webbrowser.Error):
            webbrowser.open(links[0][1](server))
