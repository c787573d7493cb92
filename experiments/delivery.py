"""From the rows of an outbox to requests to MLflow."""

from __future__ import annotations

import json
import os
import pathlib
from typing import TYPE_CHECKING

from experiments import store
from experiments.outbox import Outbox, Rejected, Row

if TYPE_CHECKING:
    from mlflow import MlflowClient

_METRICS_PER_REQUEST = 1000  # MLflow's limits
_PARAMS_PER_REQUEST = 100
_DIGEST_LENGTH = 36


def deliver(client: MlflowClient, run_id: str, rows: list[Row]) -> None:
    """Sends rows of an outbox to a run, metrics of neighbouring rows in one request.

    Raises:
      Rejected: MLflow will never take a row.
      Exception: Whatever a server that is away raises.
    """
    from mlflow.exceptions import MlflowException

    waiting: list = []
    try:
        for row in rows:
            if row['kind'] == 'metrics':
                waiting += _metrics(row)
                continue
            _send_metrics(client, run_id, waiting)
            waiting = []
            _SENDERS[row['kind']](client, run_id, row)
        _send_metrics(client, run_id, waiting)
    except FileNotFoundError as error:
        raise Rejected(str(error)) from error
    except MlflowException as error:
        if error.error_code in ('INVALID_PARAMETER_VALUE', 'RESOURCE_DOES_NOT_EXIST'):
            raise Rejected(str(error).split('\n')[0]) from error
        raise


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
    client.log_inputs(run_id, [DatasetInput(entity, [InputTag('mlflow.data.context', 'training')])])
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


def sync(save_dir: str | os.PathLike[str]) -> int:
    """Delivers what a training could not: the rest of its outbox.

    Returns:
      Number of rows delivered.

    Raises:
      TrackingError: The folder holds no run, or the server still does not answer.
    """
    folder = pathlib.Path(save_dir)
    known = store.read_run_file(folder)
    if not known:
        raise store.TrackingError(f'{folder} is no training folder: it has no run.json.')
    client = store.client(known.get('tracking_uri'))
    outbox = Outbox(folder, lambda rows: deliver(client, known['run_id'], rows))
    waiting = len(outbox._pending)
    left = outbox.close(timeout=120.0)
    if left:
        raise store.TrackingError(f'{left} entries of {folder} could not be recorded: {outbox.problem}')
    return waiting
