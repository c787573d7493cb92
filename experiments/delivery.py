"""From the rows of an outbox to requests to MLflow."""

from __future__ import annotations

import errno
import json
import os
import pathlib
from typing import TYPE_CHECKING, Any

from experiments import store
from experiments.files import write_json
from experiments.outbox import Outbox, Postponed, Rejected, Row, batches, has_unsent

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mlflow import MlflowClient
    from mlflow.entities import Run

_METRICS_PER_REQUEST = 1000  # MLflow's limits
_PARAMS_PER_REQUEST = 100
_DIGEST_LENGTH = 36
_REFUSALS = ('INVALID_PARAMETER_VALUE', 'RESOURCE_DOES_NOT_EXIST')
_NO_FILES = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES)


def deliver(client: MlflowClient, run_id: str, rows: list[Row]) -> None:
    """Sends rows of an outbox to a run, neighbouring metrics in one request.

    Raises:
      Rejected: MLflow will never take a row.
      Postponed: The store takes no files at the moment.
      Exception: Whatever a server that is away raises.
    """
    for batch in batches(rows):
        _deliver_batch(client, run_id, batch)


def _deliver_batch(client: MlflowClient, run_id: str, rows: list[Row]) -> None:
    """Sends rows that travel together."""
    from mlflow.exceptions import MlflowException

    try:
        if rows[0]['kind'] == 'metrics':
            _send_metrics(client, run_id, [metric for row in rows for metric in _metrics(row)])
        else:
            _SENDERS[rows[0]['kind']](client, run_id, rows[0])
    except FileNotFoundError as error:
        raise Rejected(str(error)) from error
    except (MlflowException, OSError) as error:
        if isinstance(error, MlflowException) and error.error_code in _REFUSALS:
            raise Rejected(str(error).split('\n')[0]) from error
        if 'path' in rows[0] and (reason := _takes_no_files(error)):
            raise Postponed(f'{pathlib.Path(rows[0]["path"]).name}: {reason}') from error
        raise


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


def _metrics(row: Row) -> list:
    from mlflow.entities import Metric

    return [Metric(name, value, row['time'], row['step']) for name, value in row['metrics'].items()]


def _send_metrics(client: MlflowClient, run_id: str, metrics: list) -> None:
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


def _send_tags(client: MlflowClient, run_id: str, row: Row) -> None:
    from mlflow.entities import RunTag

    client.log_batch(run_id, tags=[RunTag(name, str(value)) for name, value in row['tags'].items()])


def _send_input(client: MlflowClient, run_id: str, row: Row) -> None:
    from mlflow.entities import Dataset as DatasetEntity
    from mlflow.entities import DatasetInput, InputTag

    entity = DatasetEntity(
        name=row['name'], digest=row['digest'][:_DIGEST_LENGTH], source_type='local',
        source=json.dumps({'uri': row['path']}), profile=json.dumps(row['profile']),
    )  # fmt: skip
    context = InputTag('mlflow.data.context', row.get('context', 'training'))
    client.log_inputs(run_id, [DatasetInput(entity, [context])])
    _send_tags(client, run_id, {'tags': {'ddsp.dataset_digest': row['digest'], 'ddsp.dataset': row['path']}})


def _send_artifact(client: MlflowClient, run_id: str, row: Row) -> None:
    client.log_artifact(run_id, row['path'], row['folder'] or None)


def _send_image(client: MlflowClient, run_id: str, row: Row) -> None:
    from PIL import Image  # comes with matplotlib, which drew it

    with Image.open(row['path']) as image:
        client.log_image(run_id, image, key=row['key'], step=row['step'])


def _send_model(client: MlflowClient, run_id: str, row: Row) -> None:
    from experiments import mlflow_model

    mlflow_model.log_bundle(client, run_id, row['path'], step=row['step'], register_as=row['register_as'])


def _send_status(client: MlflowClient, run_id: str, row: Row) -> None:
    client.set_terminated(run_id, row['status'], end_time=row['time'])


_SENDERS = {
    'params': _send_params,
    'tags': _send_tags,
    'input': _send_input,
    'artifact': _send_artifact,
    'image': _send_image,
    'model': _send_model,
    'status': _send_status,
}


def create_run(folder: pathlib.Path, client: MlflowClient) -> dict[str, Any]:
    """Creates the run that a folder's `run.json` describes, and notes its id there.

    Returns:
      The contents of `run.json`.
    """
    wanted = store.read_run_file(folder)
    experiment_id = store.experiment_id(client, wanted['experiment'])
    run = _made_before(client, wanted) if wanted.get('asked') else None
    if run is None:
        write_json(folder / 'run.json', {**wanted, 'asked': True})
        run = client.create_run(
            experiment_id, start_time=wanted['start_time'], run_name=wanted['run_name'], tags=wanted['tags']
        )
    made = {'run_id': run.info.run_id, 'experiment_id': experiment_id, 'tracking_uri': store.tracking_uri()}
    known = {**wanted, **made}
    known.pop('asked', None)
    write_json(folder / 'run.json', known)
    return known


def _made_before(client: MlflowClient, wanted: Mapping[str, Any]) -> Run | None:
    """The run that a store made without being able to say so, for its connection broke."""
    condition = (
        f'attributes.start_time = {wanted["start_time"]} AND '
        f"tags.`ddsp.save_dir` = '{store.quoted(wanted['tags'].get('ddsp.save_dir', ''))}'"
    )
    found = store.search(client, condition, experiments=[wanted['experiment']], limit=1)
    return found[0] if found else None


def sync(save_dir: str | os.PathLike[str]) -> int:
    """Delivers what a training could not: the rest of its outbox, the run itself included.

    Returns:
      Number of rows delivered.

    Raises:
      TrackingError: The folder holds no run, or the server still does not answer.
    """
    folder = pathlib.Path(save_dir)
    known = store.read_run_file(folder)
    if not known:
        raise store.TrackingError(f'{folder} is no training folder: it has no run.json.')
    if known['run_id'] and not has_unsent(folder):
        return 0
    # A run that was never made goes into the store in use; any other is where it was begun.
    client = store.client(known['tracking_uri'] if known['run_id'] else None)
    run_id = known['run_id'] or create_run(folder, client)['run_id']
    outbox = Outbox(folder, lambda rows: deliver(client, run_id, rows))
    waiting = outbox.waiting
    left = outbox.close(timeout=120.0)
    if left:
        raise store.TrackingError(f'{left} entries of {folder} could not be recorded: {outbox.problem}')
    return waiting
