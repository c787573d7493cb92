"""Where runs are recorded: the MLflow store, its client, and looking runs up by what people call them.

Embedded default: `sqlite:///mlflow.db` in the working directory with artefacts in `mlartifacts/` beside it. A
server is used when `MLFLOW_TRACKING_URI` names one.
"""

from __future__ import annotations

import os
import pathlib
import re
import sys
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any

from ddsp.errors import DDSPError, require
from experiments import views

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

EXPERIMENT = 'ddsp'
_DEFAULTS = {  # MLflow's own wait for many minutes before they give up, draw bars and print addresses
    'MLFLOW_HTTP_REQUEST_MAX_RETRIES': '2',
    'MLFLOW_HTTP_REQUEST_TIMEOUT': '20',
    'MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR': 'false',
    'MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT': 'true',  # stdout is for results
}
# The UI opens an experiment in its model-training layout, not in the one for language-model applications.
_EXPERIMENT_TAGS = {'mlflow.experimentKind': 'custom_model_development', **views.view_tag()}

# MLflow's words for a database that does not answer, a connection that ended, a gateway without its server.
_AWAY_CODES = ('TEMPORARILY_UNAVAILABLE', 'INTERNAL_ERROR', 'BAD_REQUEST')


class TrackingError(DDSPError):
    """The tracking store cannot be used, or does not hold what was asked for."""


def tracking_uri() -> str:
    """Address of the store: `MLFLOW_TRACKING_URI`, or the SQLite file in the working directory (absolute)."""
    given = os.environ.get('MLFLOW_TRACKING_URI', '').strip()
    return given or f'sqlite:///{pathlib.Path.cwd() / "mlflow.db"}'


def server_problem(uri: str, timeout: float = 5.0) -> str:
    """Why a tracking server cannot be used; '' when it answers.

    Args:
      uri: Address such as `'http://127.0.0.1:5000'`.
      timeout: Seconds to wait.
    """
    try:
        with urllib.request.urlopen(uri.rstrip('/') + '/health', timeout=timeout) as answer:
            return '' if answer.status == 200 else f'answers with status {answer.status}'
    except urllib.error.HTTPError as error:
        # A server behind a login answers, and MLflow's client brings the token.
        return '' if error.code in (401, 403, 404) else f'answers with status {error.code}'
    except (OSError, ValueError) as error:
        return f'does not answer ({getattr(error, "reason", error)})'


def client(uri: str | None = None, *, use: bool = True) -> MlflowClient:
    """A client of the store.

    Args:
      uri: Its address; None for the store in use.
      use: Make it the store in use, as MLflow's own functions need it.

    Raises:
      MissingDependencyError: MLflow is not installed.
      TrackingError: The server does not answer, or the database cannot be opened.
    """
    for name, value in _DEFAULTS.items():
        os.environ.setdefault(name, value)
    uri = uri or tracking_uri()
    if uri.startswith('http') and (problem := server_problem(uri)):
        raise server_error(uri, problem)
    mlflow = require('mlflow', 'to track experiments')
    from experiments import quiet

    quiet.calm_loggers()
    try:
        if use:
            mlflow.set_tracking_uri(uri)  # which sets MLFLOW_TRACKING_URI too
        made = mlflow.MlflowClient(uri)
        made.search_experiments(
            max_results=1
        )  # creates or migrates the database now, not in the middle of a run
    except Exception as error:
        raise TrackingError(f'the tracking store {uri} cannot be used: {_first_line(error)}') from error
    quiet.calm_loggers()  # migrations set loggers up anew
    return made


class ServerDownError(TrackingError):
    """The tracking server does not answer."""


def server_error(uri: str, problem: str) -> ServerDownError:
    """The error for a server that does not answer, with what can be done."""
    return ServerDownError(
        f'the tracking server {uri} {problem}. Start it, or unset MLFLOW_TRACKING_URI to record '
        'runs in mlflow.db in the working directory.'
    )


def refusals() -> tuple[type[Exception], ...]:
    """What a client raises for a request that it refuses: MLflow's own exception where MLflow is in use."""
    exceptions = sys.modules.get('mlflow.exceptions')
    return (LookupError, *((exceptions.MlflowException,) if exceptions else ()))


def is_away(error: BaseException) -> bool:
    """Whether an error of the store may be gone when it is asked again: a server or database that is away."""
    cause: BaseException | None = error
    while cause is not None:
        module, name = type(cause).__module__.split('.')[0], type(cause).__name__
        if name == 'MlflowException':
            return getattr(cause, 'error_code', '') in _AWAY_CODES
        if isinstance(cause, ServerDownError | ConnectionError) or module in ('requests', 'urllib3'):
            return True
        if (module, name) == ('sqlalchemy', 'OperationalError'):
            return True
        cause = cause.__cause__
    return False


def _first_line(error: BaseException) -> str:
    """The sentence of an exception that is for people."""
    text = str(error).strip() or type(error).__name__
    return re.sub(r'\s+', ' ', text.split('\n')[0])[:300]


def experiment_id(mlflow_client: MlflowClient, name: str) -> str:
    """Id of an experiment by name; it is created, or brought back from deletion, when need be."""
    from mlflow.exceptions import MlflowException

    found = mlflow_client.get_experiment_by_name(name)
    if found is None:
        try:
            return mlflow_client.create_experiment(
                name, artifact_location=_artifact_location(name), tags=_EXPERIMENT_TAGS
            )
        except MlflowException:  # another process was quicker
            found = mlflow_client.get_experiment_by_name(name)
            if found is None:
                raise
    if found.lifecycle_stage == 'deleted':
        mlflow_client.restore_experiment(found.experiment_id)
    for key, value in _EXPERIMENT_TAGS.items():
        if key not in found.tags:  # a view that somebody has saved under the same name stays
            mlflow_client.set_experiment_tag(found.experiment_id, key, value)
    return found.experiment_id


def _artifact_location(name: str) -> str | None:
    """Folder for an embedded store's artefacts, beside its database; a server chooses its own."""
    uri = tracking_uri()
    if not uri.startswith('sqlite:///'):
        return None
    folder = pathlib.Path(uri.removeprefix('sqlite:///')).resolve().parent / 'mlartifacts'
    return (folder / re.sub(r'[^\w.-]+', '_', name)).as_uri()


def find_run(mlflow_client: MlflowClient, reference: str) -> Run:
    """A run by its id, the beginning of its id, its name (the newest of that name), or its save_dir.

    Raises:
      TrackingError: No run, or more than one, answers to `reference`.
    """
    folder_id = run_id_of(pathlib.Path(reference))
    if folder_id:
        reference = folder_id
    if re.fullmatch(r'[0-9a-f]{32}', reference):
        try:
            return mlflow_client.get_run(reference)
        except refusals():
            raise TrackingError(f'no run {reference} in {tracking_uri()}.') from None
    runs = search(mlflow_client, f"attributes.run_name = '{quoted(reference)}'", limit=1)
    if runs:
        return runs[0]
    everything = search(mlflow_client)
    starting = [run for run in everything if len(reference) >= 4 and run.info.run_id.startswith(reference)]
    if len(starting) == 1:
        return starting[0]
    if starting:
        raise TrackingError(
            f'{len(starting)} runs have an id that begins with {reference!r}; give more of it.'
        )
    raise TrackingError(f'no run {reference!r} in {tracking_uri()}.{_nearest(reference, everything)}')


def _nearest(reference: str, runs: list[Run]) -> str:
    """A sentence with the most similar run name, or how to list them."""
    import difflib

    close = difflib.get_close_matches(reference, [run.info.run_name or '' for run in runs], n=1)
    return f' Did you mean {close[0]!r}?' if close else ' `ddsp runs` lists them.'


def quoted(text: str) -> str:
    """Text for a filter string of MLflow, whose grammar has no escape for a single quote."""
    return text.replace("'", '')


def search(
    mlflow_client: MlflowClient,
    filter_string: str = '',
    *,
    experiments: list[str] | None = None,
    order: list[str] | None = None,
    limit: int | None = None,
) -> list[Run]:
    """Runs that match a filter, newest first.

    Args:
      mlflow_client: Client of the store.
      filter_string: In MLflow's grammar, such as `"metrics.`losses/total_loss` < 5"`.
      experiments: Names; None takes all of them.
      order: MLflow's order_by clauses.
      limit: Most runs to return; None for all.

    Raises:
      TrackingError: An experiment does not exist, or the filter cannot be parsed.
    """
    known = {found.name: found.experiment_id for found in mlflow_client.search_experiments()}
    for name in experiments or []:
        if name not in known:
            raise TrackingError(f'no experiment {name!r}; there are: {", ".join(sorted(known)) or "none"}.')
    ids = [known[name] for name in experiments] if experiments else list(known.values())
    runs: list[Run] = []
    token = None
    try:
        while ids and (limit is None or len(runs) < limit):
            page = mlflow_client.search_runs(
                ids,
                filter_string,
                max_results=min(limit or 1000, 1000),
                order_by=order or ['attributes.start_time DESC'],
                page_token=token,
            )
            runs += page
            token = page.token
            if not token:
                break
    except refusals() as error:
        raise TrackingError(f'the filter {filter_string!r} is not understood: {_first_line(error)}') from None
    return runs[:limit]


def run_id_of(save_dir: pathlib.Path) -> str:
    """The MLflow run of a training folder, from its `run.json`; '' when it has none."""
    return str(read_run_file(save_dir).get('run_id', ''))


def read_run_file(save_dir: pathlib.Path) -> dict[str, Any]:
    """The contents of `save_dir/run.json`; empty when there is none or it is not readable as JSON."""
    import json

    try:
        return json.loads((save_dir / 'run.json').read_text())
    except (OSError, ValueError):
        return {}
