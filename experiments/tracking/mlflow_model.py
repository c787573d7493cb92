"""A model bundle as an MLflow model: the same directory with MLflow's own files beside.

Written as MLflow's flavours are: `save_model` here, loading in `ddsp.inference.pyfunc`, which does not need
MLflow.
"""

from __future__ import annotations

import importlib.metadata
import os
import pathlib
import re
import shutil
import sys
from typing import TYPE_CHECKING, Any

import numpy as np

from ddsp.io import bundle_files
from ddsp.version import __version__
from experiments import metrics
from experiments.tracking import store

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

NAME = 'bundle'
_LOADER = 'ddsp.inference.pyfunc'
_NEEDED = ('tensorflow', 'keras', 'numpy', 'scipy', 'gin-config', 'soundfile', 'soxr')
_EXAMPLE_SECS = 1.0


def log_bundle(
    client: MlflowClient,
    run_id: str,
    bundle: str | os.PathLike[str],
    *,
    step: int = 0,
    register_as: str | None = None,
    name: str = NAME,
) -> str:
    """Logs a bundle to a run; that of a step is logged once, however often a finished training is called.

    Args:
      client: Client of the store.
      run_id: The run that made it.
      bundle: Directory of the bundle.
      step: Training step of its weights; the run's metrics of that step belong to the model.
      register_as: Name in the model registry, or None.
      name: Name of the logged model.
    """
    from mlflow.models import Model

    model_id = _logged_before(client, run_id, step)
    if model_id is None:
        experiment_id = client.get_run(run_id).info.experiment_id
        created = client.create_logged_model(experiment_id, name=name, source_run_id=run_id)
        model_id = created.model_id
        Model.log(
            artifact_path=None, name=name, flavor=sys.modules[__name__], run_id=run_id, model_id=model_id,
            bundle=bundle, step=step, validate_serving_input=False,
        )  # fmt: skip
        client.finalize_logged_model(model_id, 'READY')
    if register_as:
        register(client, model_id, register_as)
    return f'models:/{model_id}'


def register(client: MlflowClient, model_id: str, name: str) -> ModelVersion:
    """Registers a logged model under a name; a model that is registered there already keeps its version.

    The version's description has the figures of its run and leads to it.
    """
    from mlflow import register_model

    for version in client.search_model_versions(store.equals('name', name)):
        if version.name == name and (model_id == version.model_id or model_id in (version.source or '')):
            return version
    version = register_model(f'models:/{model_id}', name)
    run_id = client.get_logged_model(model_id).source_run_id
    if run_id is None:
        return version
    return client.update_model_version(name, version.version, _description(client, run_id))


def _description(client: MlflowClient, run_id: str) -> str:
    """What the registry shows of a version, in Markdown: a link to its run and the figures that count."""
    run = client.get_run(run_id)
    link = f'#/experiments/{run.info.experiment_id}/runs/{run_id}'
    title = re.sub(r'([\[\]\\<>*_`])', r'\\\1', run.info.run_name or run_id[:8])
    lines = [
        f'Run [{title}]({link}), [sound]({link}/artifacts/listen.html)',
        '',
        '| Metric | Value |',
        '|---|---|',
    ]
    for name, value in sorted(run.data.metrics.items()):
        if metrics.is_shown(name, 'model'):
            unit = metrics.find(name).unit
            lines.append(f'| {name}{f" ({unit})" if unit else ""} | {value:.4g} |')
    return '\n'.join(lines)


def _logged_before(client: MlflowClient, run_id: str, step: int) -> str | None:
    """Id of the run's model of a step, when it was logged whole."""
    outputs = client.get_run(run_id).outputs
    for output in outputs.model_outputs if outputs else []:
        if output.step == step and client.get_logged_model(output.model_id).status == 'READY':
            return output.model_id
    return None


def save_model(path: str, mlflow_model: Any, bundle: str | os.PathLike[str], **_: Any) -> None:
    """Writes bundle and MLflow files into `path`; called by `mlflow.models.Model.log`."""
    import mlflow.pyfunc

    bundle, folder = pathlib.Path(bundle), pathlib.Path(path)
    bundle_files.check_files(bundle)
    metadata = bundle_files.read_metadata(bundle)
    folder.mkdir(parents=True, exist_ok=True)
    for name in bundle_files.FILES:  # nothing else that may lie in the folder
        shutil.copyfile(bundle / name, folder / name)
    mlflow_model.signature = signature(metadata)
    _save_example(mlflow_model, path, metadata)
    (folder / 'requirements.txt').write_text('\n'.join(requirements()) + '\n')
    (folder / 'python_env.yaml').write_text(
        f'python: {".".join(map(str, sys.version_info[:3]))}\nbuild_dependencies: [pip]\n'
        'dependencies: ["-r requirements.txt"]\n'
    )
    mlflow.pyfunc.add_to_model(
        mlflow_model, loader_module=_LOADER, python_env={'virtualenv': 'python_env.yaml'}, code=None
    )
    mlflow_model.save(os.path.join(path, 'MLmodel'))


def signature(metadata: dict[str, Any]) -> Any:
    """Audio in, audio out, with what can be set about it."""
    from mlflow.models import ModelSignature
    from mlflow.types import ParamSchema, ParamSpec, Schema, TensorSpec

    audio = Schema([TensorSpec(np.dtype(np.float32), (-1, -1), 'audio')])
    params = ParamSchema(
        [
            ParamSpec('sample_rate', 'long', int(metadata['sample_rate'])),
            ParamSpec('pitch_shift_semitones', 'double', 0.0),
            ParamSpec('loudness_shift_db', 'double', 0.0),
        ]
    )
    return ModelSignature(inputs=audio, outputs=audio, params=params)


def _save_example(mlflow_model: Any, path: str, metadata: dict[str, Any]) -> None:
    """One second of a gliding tone as the input example."""
    from mlflow.models.utils import _save_example as save

    sample_rate = int(metadata['sample_rate'])
    time = np.arange(int(_EXAMPLE_SECS * sample_rate)) / sample_rate
    audio = np.round(0.5 * np.sin(2 * np.pi * (220 * time + 55 * time**2)), 4).astype(np.float32)
    save(mlflow_model, {'audio': audio[np.newaxis]}, path)


def requirements() -> list[str]:
    """What a server needs to load the model, at the versions that made it."""
    return [f'ddsp=={__version__}', *(f'{name}=={importlib.metadata.version(name)}' for name in _NEEDED)]
