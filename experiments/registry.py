"""From what people call a model to a bundle on this disk, and the model registry."""

from __future__ import annotations

import os
import pathlib
import shutil
import tempfile
import urllib.parse
import urllib.request
from typing import TYPE_CHECKING

from ddsp.errors import DDSPError
from experiments import store
from experiments.mlflow_model import NAME, register

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

CHAMPION = 'champion'


class ModelNotFoundError(DDSPError):
    """An address that leads to no model bundle."""


def resolve_bundle(address: str | os.PathLike[str]) -> pathlib.Path:
    """Finds a model bundle, downloading it when it is not on this disk.

    Args:
      address: A bundle's directory, a training folder (its `bundle/`), `runs:/ID` or `runs:/ID/bundle`,
        `models:/NAME@ALIAS` or `models:/NAME/VERSION`, a run's id (or its beginning), or a run's name.

    Returns:
      Path of the bundle's directory.

    Raises:
      ModelNotFoundError: Nothing there is a bundle; the message says what was looked at.
      TrackingError: No run answers to the address, or the store cannot be used.
    """
    text = os.fspath(address)
    if text.startswith(('runs:/', 'models:/')):
        return _download(text)
    folder = pathlib.Path(text).expanduser()
    for candidate in (folder, folder / NAME):
        if (candidate / 'metadata.json').is_file():
            return candidate
    if folder.is_dir():
        raise ModelNotFoundError(
            f'{folder} holds no model bundle: there is no metadata.json in it or in {folder / NAME}. '
            'A training makes the bundle when it ends; `ddsp train` on the same --save-dir goes on.'
        )
    if os.sep in text or text.startswith('.'):
        raise ModelNotFoundError(f'{text}: no such directory.')
    run = store.find_run(store.client(), text)
    return _download(f'runs:/{run.info.run_id}/{NAME}')


def _download(uri: str) -> pathlib.Path:
    """A model of the store on this disk: where a local store has it, or in the cache."""
    from mlflow.exceptions import MlflowException

    client = store.client()
    try:
        if uri.startswith('runs:/'):
            model_id = model_of_run(client, uri.removeprefix('runs:/').partition('/')[0])
        else:
            model_id = _model_of_version(client, uri)
        folder = _local_copy(client, model_id)
    except (MlflowException, OSError) as error:
        raise ModelNotFoundError(f'{uri}: no model there ({str(error).splitlines()[0]}).') from None
    if not (folder / 'metadata.json').is_file():
        raise ModelNotFoundError(f'{uri} is no model bundle: metadata.json is missing.')
    return folder


def model_of_run(client: MlflowClient, reference: str) -> str:
    """Id of the newest model that a run has logged.

    Raises:
      ModelNotFoundError: It has none.
      TrackingError: There is no such run.
    """
    run = store.find_run(client, reference)
    outputs = run.outputs.model_outputs if run.outputs else []
    if not outputs:
        raise ModelNotFoundError(
            f'the run {run.info.run_name} ({run.info.run_id[:8]}, {run.info.status}) has no model. '
            'A training logs it when it ends.'
        )
    return max(outputs, key=lambda output: output.step).model_id


def _model_of_version(client: MlflowClient, uri: str) -> str:
    """Id of the model behind `models:/NAME@ALIAS`, `models:/NAME/VERSION` or `models:/ID`."""
    address = uri.removeprefix('models:/')
    if '@' in address:
        name, _, alias = address.rpartition('@')
        version = client.get_model_version_by_alias(name, alias)
    elif '/' in address:
        name, _, number = address.rpartition('/')
        version = client.get_model_version(name, number)
    else:
        return address
    return version.model_id or model_of_run(client, str(version.run_id))


def _local_copy(client: MlflowClient, model_id: str) -> pathlib.Path:
    """The files of a logged model, which never change: a local store's own, or a cached download."""
    from mlflow.artifacts import download_artifacts

    location = client.get_logged_model(model_id).artifact_location
    if location.startswith(('file:', '/')):
        return pathlib.Path(urllib.request.url2pathname(urllib.parse.urlparse(location).path))
    cache = (
        pathlib.Path(os.environ.get('XDG_CACHE_HOME') or pathlib.Path.home() / '.cache') / 'ddsp' / 'models'
    )
    folder = cache / model_id
    if not folder.is_dir():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as part:
            files = download_artifacts(artifact_uri=f'models:/{model_id}', dst_path=part)
            shutil.move(files, folder)
    return folder


def promote(reference: str, name: str, *, alias: str = CHAMPION) -> ModelVersion:
    """Registers a run's model and gives it an alias, which moves away from the version that had it.

    Args:
      reference: Run, as `store.find_run` takes it.
      name: Registered model's name; it is created when need be.
      alias: Such as `'champion'`.

    Returns:
      The model version. A run that is registered under the name already is not registered again.

    Raises:
      ModelNotFoundError: The run has no model.
      TrackingError: No such run.
    """
    client = store.client()
    run_id = store.find_run(client, reference).info.run_id
    version = register(client, model_of_run(client, run_id), name)
    client.set_registered_model_alias(name, alias, version.version)
    client.set_tag(run_id, 'ddsp.registered', f'{name}/{version.version}')
    return client.get_model_version(name, version.version)
