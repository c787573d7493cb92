"""MLflow tracking of a preparation: its parameters, figures, dataset and page."""

from __future__ import annotations

import os
import pathlib
import shutil
import sys
import tempfile
import time
from typing import TYPE_CHECKING, Any

from ddsp.io.dataset import open_dataset
from experiments.tracking import store
from experiments.tracking.delivery import deliver
from experiments.tracking.run_tags import code_revision
from experiments.tracking.tracker import dataset_row

if TYPE_CHECKING:
    from ddsp.io.dataset import Dataset
    from pipelines import PrepareResult

_ASKING = ('MLFLOW_TRACKING_URI', 'MLFLOW_RUN_ID', 'MLFLOW_EXPERIMENT_NAME')


def is_asked_for() -> bool:
    """Whether the environment asks for tracking: `MLFLOW_TRACKING_URI`, `MLFLOW_RUN_ID` or
    `MLFLOW_EXPERIMENT_NAME` is set, or this process has an active MLflow run.
    """
    return any(os.environ.get(name) for name in _ASKING) or bool(_active_run())


def log_preparation(result: PrepareResult, experiment: str = store.EXPERIMENT) -> str:
    """Records a preparation in MLflow: in the active run, in that of `MLFLOW_RUN_ID`, or in one of its own.

    Args:
      result: What `prepare_dataset` gave.
      experiment: MLflow experiment, where a run of its own is made.

    Returns:
      The run's id.

    Raises:
      TrackingError: The store cannot be used.
    """
    dataset = open_dataset(result.path)
    client = store.client()
    run_id = _active_run() or os.environ.get('MLFLOW_RUN_ID', '')
    own = not run_id
    if own:
        name = os.environ.get('MLFLOW_EXPERIMENT_NAME') or experiment
        run = client.create_run(
            store.experiment_id(client, name), run_name=f'prepare {dataset.name} {dataset.version}',
            tags=code_revision() | {'ddsp.kind': 'preparation'},
        )  # fmt: skip
        run_id = run.info.run_id
    with tempfile.TemporaryDirectory() as folder:
        deliver(client, run_id, _rows(dataset, result, pathlib.Path(folder)), pathlib.Path(folder))
    if own:
        client.set_terminated(run_id, 'FINISHED')
    return run_id


def _active_run() -> str:
    """The id of this process's active MLflow run; '' without one."""
    mlflow = sys.modules.get('mlflow')  # where it was never imported, nothing can be active
    run = mlflow.active_run() if mlflow is not None else None
    return run.info.run_id if run else ''


def _rows(dataset: Dataset, result: PrepareResult, folder: pathlib.Path) -> list[dict[str, Any]]:
    """What MLflow is told, as rows for `experiments.tracking.delivery`; writes their files into `folder`."""
    from experiments.reports.dataset_page import inspect_page
    from pipelines.inspect.health import check
    from pipelines.inspect.inspection import inspect_dataset

    pipeline = dataset.json('pipeline.json', {'parameters': dict})
    params = {f'prepare.{name}': str(value) for name, value in pipeline['parameters'].items()}
    params |= {'prepare.f0_estimator': dataset.manifest['f0_estimator']}
    metrics = {f'prepare/{name}': float(value) for name, value in result.metrics.items()}
    for split, statistics in result.statistics.items():
        metrics[f'dataset/{split}_examples'] = float(statistics['examples'])
        metrics[f'dataset/{split}_audio_seconds'] = float(statistics['audio_seconds'])
        metrics[f'dataset/{split}_voiced_share'] = float(statistics['voiced_share'])
    metrics['prepare/wall_seconds'] = result.wall_seconds
    inspection = inspect_dataset(dataset)
    (folder / 'inspect.html').write_text(inspect_page(inspection, check(inspection)), encoding='utf-8')
    for name in ('pipeline.json', 'statistics.json', 'rejected.jsonl'):
        shutil.copyfile(dataset.file(name), folder / name)
    rows: list[dict[str, Any]] = [
        {'kind': 'params', 'params': params, 'step': 0},
        {'kind': 'metrics', 'metrics': metrics, 'step': 0, 'time': int(time.time() * 1000)},
        {'kind': 'input', **dataset_row(dataset), 'context': 'preparation'},
    ]
    for path in sorted(folder.iterdir()):
        rows.append({'kind': 'artifact', 'path': path.name, 'folder': 'dataset'})
    return rows
