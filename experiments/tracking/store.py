"""Where runs are recorded: the MLflow store, its client, and looking runs up by what people call them.

Embedded default: `sqlite:///mlflow.db` in the working directory with artefacts in `mlartifacts/` beside it. A
server is used when `MLFLOW_TRACKING_URI` names one.
"""

from __future__ import annotations

import contextlib
import difflib
import json
import os
import pathlib
import re
import urllib.error
import urllib.parse
import urllib.request
from typing import TYPE_CHECKING, Any

from ddsp.errors import ConfigError, require
from ddsp.io.files import inside
from experiments import masking
from experiments.tracking import database
from experiments.tracking.database import ServerDownError, TrackingError

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
_EXPERIMENT_TAGS = {'mlflow.experimentKind': 'custom_model_development'}

_LONGEST_NAME = 500  # of an experiment, MLflow's limit
# MLflow's words for a database that does not answer, a connection that ended, a gateway without its server.
_AWAY_CODES = ('TEMPORARILY_UNAVAILABLE', 'INTERNAL_ERROR', 'BAD_REQUEST')
_REFUSED_CODES = {'UNAUTHENTICATED': 401, 'CUSTOMER_UNAUTHORIZED': 401, 'PERMISSION_DENIED': 403}


class AccessError(TrackingError):
    """The tracking server asks for a login, or does not let it do what was asked."""


def tracking_uri() -> str:
    """Address of the store: `MLFLOW_TRACKING_URI`, or the SQLite file in the working directory (absolute).

    The login in an address such as `http://ann:secret@host` moves to where MLflow keeps logins, the variables
    `MLFLOW_TRACKING_USERNAME` and `MLFLOW_TRACKING_PASSWORD`.
    """
    given = os.environ.get('MLFLOW_TRACKING_URI', '').strip()
    if given.startswith(('http://', 'https://')):
        parts = urllib.parse.urlsplit(given)
        login, _, place = parts.netloc.rpartition('@')
        if login:
            user, _, password = map(urllib.parse.unquote, login.partition(':'))
            os.environ['MLFLOW_TRACKING_USERNAME'], os.environ['MLFLOW_TRACKING_PASSWORD'] = user, password
            given = parts._replace(netloc=place).geturl()
            os.environ['MLFLOW_TRACKING_URI'] = given
    return given or f'sqlite:///{pathlib.Path.cwd() / "mlflow.db"}'


def shown_uri() -> str:
    """Address of the store as it may be shown and written down."""
    return masking.shown(tracking_uri())


def server_problem(uri: str, timeout: float = 5.0) -> str:
    """Why a tracking server cannot be used; '' when it answers within `timeout` seconds."""
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
      ServerDownError: The server does not answer.
      TrackingError: The database cannot be opened.
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
        database.prepare(uri)
        if use:
            mlflow.set_tracking_uri(uri)  # which sets MLFLOW_TRACKING_URI too
        made = mlflow.MlflowClient(uri)
        made.search_experiments(max_results=1)  # says now what is wrong, not in the middle of a run
    except TrackingError:
        raise
    except Exception as error:
        if access := refused(error):
            raise access from error
        reason = masking.clean(_first_line(error))
        advice = '. Another process holds it: try again, or end that process' if 'is locked' in reason else ''
        raise TrackingError(
            f'the tracking store {masking.shown(uri)} cannot be used: {reason}{advice}'
        ) from error
    quiet.calm_loggers()  # migrations set loggers up anew
    return made


def client_problem(uri: str) -> str:
    """Why a store cannot be used with the login in use; '' when it can."""
    try:
        client(uri, use=False)
    except TrackingError as error:
        return str(error)
    return ''


def is_new() -> bool:
    """Whether nothing was ever recorded in the store: an SQLite file that is yet to be made."""
    path = database.sqlite_path(tracking_uri())
    return path is not None and not path.exists()


def server_error(uri: str, problem: str) -> ServerDownError:
    """The error for a server that does not answer, with what can be done."""
    return ServerDownError(
        f'the tracking server {masking.shown(uri)} {problem}. Start it, or unset MLFLOW_TRACKING_URI to '
        'record runs in mlflow.db in the working directory.'
    )


def refusals() -> type[Exception]:
    """What a client raises for a request that it refuses."""
    from mlflow.exceptions import MlflowException

    return MlflowException


def refused(error: BaseException) -> AccessError | None:
    """What a server's refusal means for people; None for any other error."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, AccessError):
            return cause
        code, text = _status_of(cause), str(cause)
        if code in (401, 403):
            return _refusal(code, text)
        if 'too many 500' in text and login() == ('', True):  # of MLflow's own basic authentication
            return AccessError(
                f'the tracking server {shown_uri()} cannot read the token of MLFLOW_TRACKING_TOKEN. If it '
                'has the basic authentication of MLflow, set MLFLOW_TRACKING_USERNAME and '
                'MLFLOW_TRACKING_PASSWORD instead.'
            )
        cause = cause.__cause__
    return None


def _refusal(code: int, text: str) -> AccessError:
    """The error for a status of 401 or 403 with the server's words."""
    server, (user, token) = f'the tracking server {shown_uri()}', login()
    if 'Invalid Host header' in text:
        host = urllib.parse.urlsplit(shown_uri()).netloc
        return AccessError(f'{server} does not know its name: start it with {host} in --allowed-hosts.')
    if code == 403:
        action = re.search(r'/mlflow(?:-artifacts)?/([\w/-]+)', text)
        return AccessError(
            f'{server} does not allow {repr(user) if user else "this login"} to do that'
            f'{f" ({action[1]})" if action else ""}. Who made the experiment or the model, or an '
            'administrator, can grant EDIT on it; or make your own with another --experiment or --name.'
        )
    if not user and not token:
        return AccessError(
            f'{server} asks for a login: set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or '
            'MLFLOW_TRACKING_TOKEN.'
        )
    given = f'the login of {user!r}' if user else 'the token'
    names = 'MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD' if user else 'MLFLOW_TRACKING_TOKEN'
    return AccessError(f'{server} refuses {given}: check {names}.')


def _status_of(error: BaseException) -> int:
    """HTTP status of a refusal by MLflow or by its store of artefacts; 0 for other errors."""
    code = _REFUSED_CODES.get(str(getattr(error, 'error_code', '')), 0)
    return code or int(getattr(getattr(error, 'response', None), 'status_code', 0) or 0)


def login() -> tuple[str, bool]:
    """The user name that MLflow's client sends, '' without one, and whether there is a token."""
    from mlflow.utils.credentials import read_mlflow_creds  # which knows its file too

    found = read_mlflow_creds()
    user = found.username if found.username and found.password else ''
    return user or '', bool(os.environ.get('MLFLOW_TRACKING_TOKEN'))


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

    check_experiment(name)
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
        if key not in found.tags:
            with contextlib.suppress(MlflowException):  # a hint for the UI, on an experiment of somebody else
                mlflow_client.set_experiment_tag(found.experiment_id, key, value)
    return found.experiment_id


def check_experiment(name: str) -> None:
    """Refuses what is not a name of an experiment, by a ConfigError."""
    if not name.strip() or len(name) > _LONGEST_NAME or not name.isprintable():
        raise ConfigError(
            f'--experiment {name!r}: give a name of 1 to {_LONGEST_NAME} printable characters, such as '
            f'{EXPERIMENT!r}.'
        )


def _artifact_location(name: str) -> str | None:
    """Folder for an embedded store's artefacts, beside its database; a server chooses its own."""
    path = database.sqlite_path(tracking_uri())
    if path is None:
        return None
    folder = re.sub(r'[^\w.-]+', '_', name)[:100].strip('.') or '_'
    return inside(path.resolve().parent / 'mlartifacts', folder, '--experiment').as_uri()


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
        except refusals() as error:
            if access := refused(error):
                raise access from None
            raise TrackingError(f'no run {reference} in {shown_uri()}.') from None
    for run in search(mlflow_client, equals('attributes.run_name', reference)):
        if run.info.run_name == reference:
            return run
    everything = search(mlflow_client)
    starting = [run for run in everything if len(reference) >= 4 and run.info.run_id.startswith(reference)]
    if len(starting) == 1:
        return starting[0]
    if starting:
        raise TrackingError(
            f'{len(starting)} runs have an id that begins with {reference!r}; give more of it.'
        )
    close = difflib.get_close_matches(reference, [run.info.run_name or '' for run in everything], n=1)
    advice = f'Did you mean {close[0]!r}?' if close else '`ddsp runs` lists them.'
    raise TrackingError(f'no run {reference!r} in {shown_uri()}. {advice}')


def equals(field: str, text: str) -> str:
    """Condition in MLflow's grammar, which has no escape, that a field holds a text.

    A text with both kinds of quotes finds a little more than itself: the caller compares again.
    """
    for quote in '\'"':
        if quote not in text:
            return f'{field} = {quote}{text}{quote}'
    return f"{field} LIKE '{text.replace(chr(39), '_')}'"


def search(
    mlflow_client: MlflowClient,
    filter_string: str = '',
    *,
    experiments: list[str] | None = None,
    order: list[str] | None = None,
    limit: int | None = None,
) -> list[Run]:
    """Runs that match a filter in MLflow's grammar, such as "metrics.`losses/total_loss` < 5", newest first.

    Args:
      mlflow_client: Client of the store.
      filter_string: The filter.
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
                ids, filter_string, max_results=min(limit or 1000, 1000), page_token=token,
                order_by=order or ['attributes.start_time DESC'],
            )  # fmt: skip
            runs += page
            token = page.token
            if not token:
                break
    except refusals() as error:
        if access := refused(error):
            raise access from None
        raise TrackingError(f'the filter {filter_string!r} is not understood: {_first_line(error)}') from None
    return runs[:limit]


def run_id_of(save_dir: pathlib.Path) -> str:
    """The MLflow run of a training folder, from its `run.json`; '' when it has none."""
    return read_run_file(save_dir).get('run_id', '')


_RUN_FILE = {
    'run_id': str, 'experiment_id': str, 'experiment': str, 'run_name': str | None, 'tags': dict,
    'tracking_uri': str, 'start_time': int,
}  # fmt: skip
_RUN_ID = re.compile(r'([A-Za-z0-9][\w-]{0,255})?', re.ASCII)  # what MLflow takes


def read_run_file(save_dir: pathlib.Path) -> dict[str, Any]:
    """The contents of `save_dir/run.json`; empty when there is none or it is not readable as JSON.

    Raises:
      TrackingError: It is not what a training has written.
    """
    path = save_dir / 'run.json'
    try:
        content = json.loads(inside(save_dir, 'run.json', str(save_dir)).read_text(encoding='utf-8'))
    except (OSError, ValueError, RecursionError):
        return {}
    if not isinstance(content, dict):
        raise TrackingError(f'{path} is damaged: it does not hold an object.')
    for name, kind in _RUN_FILE.items():
        if name in content and not isinstance(content[name], kind):
            raise TrackingError(f'{path} is damaged: {name} is {content[name]!r:.60}.')
    tags = content.get('tags', {})
    if not all(isinstance(text, str) for pair in tags.items() for text in pair):
        raise TrackingError(f'{path} is damaged: a tag is not a text.')
    if not _RUN_ID.fullmatch(content.get('run_id', '')):
        raise TrackingError(f'{path} is damaged: run_id is {content["run_id"]!r:.60}.')
    return content
