"""From the rows of a journal to requests to MLflow.

A journal may come from somebody else: its rows name no file outside their own training folder, and nothing in
it names the server that is asked.
"""

from __future__ import annotations

import errno
import json
import os
import pathlib
import stat
from typing import TYPE_CHECKING, Any

from ddsp.errors import DDSPError
from ddsp.io.files import UnsafeNameError, inside, write_json
from experiments import masking
from experiments.tracking import store
from experiments.tracking.journal import Journal, Postponed, Rejected, Row, batches, count_unsent, read_rows

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mlflow import MlflowClient
    from mlflow.entities import Run

_METRICS_PER_REQUEST = 1000  # MLflow's limits
_PARAMS_PER_REQUEST = 100
_DIGEST_LENGTH = 36
_REFUSALS = ('INVALID_PARAMETER_VALUE', 'RESOURCE_DOES_NOT_EXIST')
_SYNC_SECS = 120.0
_NO_FILES = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES)
_STATUSES = ('RUNNING', 'SCHEDULED', 'FINISHED', 'FAILED', 'KILLED')
_MALFORMED = (KeyError, TypeError, ValueError, AttributeError, ArithmeticError, MemoryError, RecursionError)
_FIELDS: dict[str, dict[str, Any]] = {  # what a row of each kind must hold
    'metrics': {'metrics': dict, 'step': int, 'time': int},
    'params': {'params': dict, 'step': int},
    'tags': {'tags': dict},
    'input': {'name': str, 'digest': str, 'path': str, 'profile': dict},
    'artifact': {'path': str, 'folder': str},
    'image': {'path': str, 'key': str, 'step': int},
    'model': {'path': str, 'step': int},
    'status': {'status': str, 'time': int},
}

_VALUES: dict[str, Any] = {'metrics': int | float, 'params': str, 'tags': str}


def deliver(client: MlflowClient, run_id: str, rows: list[Row], folder: pathlib.Path) -> None:
    """Sends rows of a journal to a run, neighbouring metrics in one request.

    Raises:
      Rejected: A row is malformed, names a file outside `folder`, or MLflow will never take it.
      Postponed: The store takes no files at the moment.
      Exception: Whatever a server that is away raises.
    """
    for batch in batches(rows):
        _deliver_batch(client, run_id, batch, folder)


def _deliver_batch(client: MlflowClient, run_id: str, rows: list[Row], folder: pathlib.Path) -> None:
    """Sends rows that travel together."""
    from mlflow.exceptions import MlflowException

    for row in rows:
        if problem := _malformed(row):
            raise Rejected(f'row {row.get("n")} of {folder}: {problem}')
    try:
        if rows[0]['kind'] == 'metrics':
            _send_metrics(client, run_id, rows)
        else:
            row = dict(rows[0])
            if row['kind'] in ('artifact', 'image', 'model'):
                row['path'] = _own_path(row, folder)
            _send(client, run_id, row)
    except store.TrackingError:
        raise
    except DDSPError as error:  # a file outside the folder, a bundle that is damaged
        raise Rejected(str(error)) from error
    except (MlflowException, OSError) as error:
        if access := store.refused(error):
            raise access from error
        if isinstance(error, MlflowException) and error.error_code in _REFUSALS:
            raise Rejected(masking.clean(str(error).split('\n')[0])) from error
        if 'path' in rows[0] and (reason := _takes_no_files(error)):
            raise Postponed(f'{pathlib.Path(rows[0]["path"]).name}: {reason}') from error
        raise
    except _MALFORMED as error:
        raise Rejected(f'row {rows[0].get("n")} of {folder}: {type(error).__name__}: {error}') from error


def _malformed(row: Row) -> str:
    """What is wrong with the form of a row; '' when nothing is."""
    fields = _FIELDS.get(row['kind']) if isinstance(row.get('kind'), str) else None
    if fields is None:
        return f'unknown kind {row.get("kind")!r:.40}'
    for name, kind in fields.items():
        value = row.get(name)
        if not isinstance(value, kind) or (kind is int and not abs(value) < 2**63):
            return f'{name} is {value!r:.40}'
    for name in ('context', 'name', 'register_as'):
        if not isinstance(row.get(name), str | None):
            return f'{name} is {row[name]!r:.40}'
    wanted = _VALUES.get(row['kind'])
    if wanted and any(not isinstance(value, wanted) for value in row[row['kind']].values()):
        return f'a value of its {row["kind"]} is of a wrong type'
    if row['kind'] == 'status' and row['status'] not in _STATUSES:
        return f'status is {row["status"]!r:.40}'
    return ''


def metric_rows(folder: pathlib.Path) -> list[Row]:
    """The metrics in a folder's journal, delivered or not."""
    return [row for row in read_rows(folder) if row.get('kind') == 'metrics' and not _malformed(row)]


def _own_path(row: Row, folder: pathlib.Path) -> pathlib.Path:
    """The file or model that a row names: a regular file inside the folder, or a folder of such files."""
    source = f'row {row.get("n")} of {folder}'
    for name in filter(None, (row.get('folder'), row.get('key'))):  # the places in the run
        inside(folder, name, source)
    name = row['path']
    if name.startswith('/'):  # as journals were written before
        place = pathlib.Path(name)
        name = (
            place.relative_to(folder.resolve()).as_posix() if place.is_relative_to(folder.resolve()) else name
        )
    path = inside(folder, name, source)
    try:
        for place in (path, *(path.rglob('*') if row['kind'] == 'model' else ())):
            inside(folder, place.relative_to(folder).as_posix(), source)
            mode = place.stat().st_mode
            if not (stat.S_ISREG(mode) or (row['kind'] == 'model' and stat.S_ISDIR(mode))):
                raise UnsafeNameError(f'{source} names {row["path"]!r}, which is not a regular file.')
    except OSError as error:
        raise UnsafeNameError(f'{source} names {row["path"]!r}: {error.strerror}.') from error
    return path


def _takes_no_files(error: Exception) -> str:
    """Why a file cannot be stored although the store answers; '' when the store is away."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno in _NO_FILES:
            return f'{os.strerror(cause.errno)} in the store of artefacts'
        status = getattr(getattr(cause, 'response', None), 'status_code', 0)
        if status >= 500 or status == 413:
            return f'the server answers with status {status}'
        cause = cause.__cause__ or cause.__context__
    return ''


def _send(client: MlflowClient, run_id: str, row: Row) -> None:
    """Sends one row that is not of metrics."""
    from experiments.tracking import mlflow_model

    match row['kind']:
        case 'params':
            _send_params(client, run_id, row)
        case 'tags':
            _send_tags(client, run_id, row['tags'])
        case 'input':
            _send_input(client, run_id, row)
        case 'artifact':
            client.log_artifact(run_id, str(row['path']), row['folder'] or None)
        case 'image':
            _send_image(client, run_id, row)
        case 'model':
            mlflow_model.log_bundle(
                client, run_id, row['path'], step=row['step'], register_as=row.get('register_as'),
                name=row.get('name') or mlflow_model.NAME,
            )  # fmt: skip
        case 'status':
            client.set_terminated(run_id, row['status'], end_time=row['time'])


def _send_metrics(client: MlflowClient, run_id: str, rows: list[Row]) -> None:
    from mlflow.entities import Metric

    metrics = [
        Metric(name, value, row['time'], row['step'])
        for row in rows
        for name, value in row['metrics'].items()
    ]
    for start in range(0, len(metrics), _METRICS_PER_REQUEST):
        client.log_batch(run_id, metrics=metrics[start : start + _METRICS_PER_REQUEST])


def _send_params(client: MlflowClient, run_id: str, row: Row) -> None:
    """Parameters of MLflow are written once; what a resumed training changes is added with its step."""
    from mlflow.entities import Param

    known = client.get_run(run_id).data.params
    params = []
    for name, value in row['params'].items():
        if name not in known:
            params.append(Param(name, value))
        elif known[name] != value and f'{name} from step {row["step"]}' not in known:
            params.append(Param(f'{name} from step {row["step"]}', value))
    for start in range(0, len(params), _PARAMS_PER_REQUEST):
        client.log_batch(run_id, params=params[start : start + _PARAMS_PER_REQUEST])


def _send_tags(client: MlflowClient, run_id: str, tags: Mapping[str, str]) -> None:
    from mlflow.entities import RunTag

    client.log_batch(run_id, tags=[RunTag(name, value) for name, value in tags.items()])


def _send_input(client: MlflowClient, run_id: str, row: Row) -> None:
    from mlflow.entities import Dataset as DatasetEntity
    from mlflow.entities import DatasetInput, InputTag

    entity = DatasetEntity(
        name=row['name'], digest=row['digest'][:_DIGEST_LENGTH], source_type='local',
        source=json.dumps({'uri': row['path']}), profile=json.dumps(row['profile']),
    )  # fmt: skip
    context = InputTag('mlflow.data.context', row.get('context', 'training'))
    client.log_inputs(run_id, [DatasetInput(entity, [context])])
    _send_tags(client, run_id, {'ddsp.dataset_digest': row['digest'], 'ddsp.dataset': row['path']})


def _send_image(client: MlflowClient, run_id: str, row: Row) -> None:
    from PIL import Image, UnidentifiedImageError  # comes with matplotlib, which drew it

    try:
        with Image.open(row['path']) as image:
            image.load()
    except (UnidentifiedImageError, Image.DecompressionBombError, SyntaxError) as error:
        raise ValueError(str(error)) from error
    client.log_image(run_id, image, key=row['key'], step=row['step'])


def create_run(folder: pathlib.Path, client: MlflowClient) -> dict[str, Any]:
    """Creates the run that a folder's `run.json` describes, and notes its id there; returns the contents."""
    wanted = store.read_run_file(folder)
    experiment_id = store.experiment_id(client, wanted['experiment'])
    run = _made_before(client, wanted) if wanted.get('asked') else None
    if run is None:
        write_json(folder / 'run.json', {**wanted, 'asked': True})
        run = client.create_run(
            experiment_id, start_time=wanted['start_time'], run_name=wanted['run_name'], tags=wanted['tags']
        )
    made = {'run_id': run.info.run_id, 'experiment_id': experiment_id, 'tracking_uri': store.shown_uri()}
    known = {**wanted, **made}
    known.pop('asked', None)
    write_json(folder / 'run.json', known)
    return known


def _made_before(client: MlflowClient, wanted: Mapping[str, Any]) -> Run | None:
    """The run that a store made without being able to say so, for its connection broke."""
    folder = wanted['tags'].get('ddsp.save_dir', '')
    condition = (
        f'attributes.start_time = {wanted["start_time"]} AND {store.equals("tags.`ddsp.save_dir`", folder)}'
    )
    found = store.search(client, condition, experiments=[wanted['experiment']])
    return next((run for run in found if run.data.tags.get('ddsp.save_dir') == folder), None)


def sync(save_dir: str | os.PathLike[str]) -> int:
    """Delivers what a training could not: the rest of its outbox, the run itself included.

    Returns the number of rows delivered.

    Raises:
      TrackingError: The folder holds no run, or the server still does not answer.
    """
    folder = pathlib.Path(save_dir)
    known = store.read_run_file(folder)
    if not known:
        raise store.TrackingError(f'{folder} is not a training folder: it has no run.json.')
    if known.get('run_id') and not count_unsent(folder):
        return 0
    journal = Journal(folder)
    waiting = count_unsent(folder)
    # Only the store in use is asked, whatever the folder says: it may be somebody else's.
    begun_in, here = masking.shown(known.get('tracking_uri', '')), store.shown_uri()
    if known.get('run_id') and begun_in != here:
        raise store.TrackingError(
            f'the run of {folder} was begun in {begun_in}, and the store in use is {here}. If you trust that '
            f'address: MLFLOW_TRACKING_URI={begun_in} ddsp runs sync {folder}'
        )
    client = store.client()
    run_id = known.get('run_id') or create_run(folder, client)['run_id']
    try:
        client.get_run(run_id)
    except store.refusals() as error:
        if store.is_away(error) or store.refused(error):
            raise
        raise store.TrackingError(f'the run {run_id} of {folder} is not in {here}.') from error
    journal.start(lambda rows: deliver(client, run_id, rows, folder))
    left = journal.close(timeout=_SYNC_SECS)
    if left:
        raise store.TrackingError(f'{left} entries of {folder} could not be recorded: {journal.problem}')
    if journal.rejected:
        raise store.TrackingError(
            f'{len(journal.rejected)} of {waiting} entries of {folder} were refused: '
            f'{"; ".join(journal.rejected[:3])}'
        )
    return waiting
