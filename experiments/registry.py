"""From what people call a model to a bundle on this disk, and the model registry."""

from __future__ import annotations

import os
import pathlib
from typing import TYPE_CHECKING

from ddsp.errors import DDSPError
from experiments import store
from experiments.mlflow_model import NAME

if TYPE_CHECKING:
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
    """Brings a model of the store to this disk (a local store's is used where it lies)."""
    client = store.client()
    if uri.startswith('runs:/'):
        reference, _, path = uri.removeprefix('runs:/').partition('/')
        uri = f'runs:/{store.find_run(client, reference).info.run_id}/{path or NAME}'
    from mlflow.artifacts import download_artifacts
    from mlflow.exceptions import MlflowException

    try:
        folder = pathlib.Path(download_artifacts(artifact_uri=uri))
    except (MlflowException, OSError) as error:
        raise ModelNotFoundError(f'{uri}: no model there ({str(error).splitlines()[0]}).') from None
    if not (folder / 'metadata.json').is_file():
        raise ModelNotFoundError(f'{uri} is no model bundle: metadata.json is missing.')
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
    from mlflow import register_model
    from mlflow.exceptions import MlflowException

    uri = f'runs:/{run_id}/{NAME}'
    _download(uri)  # says why, when there is none
    try:
        client.get_registered_model(name)
        versions = [
            found for found in client.search_model_versions(f"name='{name}'") if found.run_id == run_id
        ]
    except MlflowException:
        versions = []
    version = versions[0] if versions else register_model(uri, name)
    client.set_registered_model_alias(name, alias, version.version)
    client.set_tag(run_id, 'ddsp.registered', f'{name}/{version.version}')
    return client.get_model_version(name, version.version)
