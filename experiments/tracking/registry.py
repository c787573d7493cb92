"""From what people call a model to a bundle on this disk, and the model registry."""

from __future__ import annotations

import os
import pathlib
import re
import shutil
import tempfile
import urllib.parse
import urllib.request
from typing import TYPE_CHECKING

from ddsp.errors import ConfigError, DDSPError
from ddsp.io.files import inside
from experiments.metrics import best_of, lower_is_better
from experiments.tracking import store
from experiments.tracking.mlflow_model import NAME, register

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run
    from mlflow.entities.model_registry import ModelVersion

CHAMPION = 'champion'
_LONGEST_NAME = 255  # of models and aliases, MLflow's limit


def check_model_name(name: str, option: str = '--name') -> None:
    """Refuses what is not a name of a registered model, by a ConfigError with the nearest one."""
    if not name.strip() or len(name) > _LONGEST_NAME or not name.isprintable() or set(name) & set('/:'):
        better = re.sub(r'[/:]+', '-', name).strip(' -')
        nearest = f', such as {better!r}' if better.isprintable() and 0 < len(better) <= _LONGEST_NAME else ''
        raise ConfigError(
            f"{option} {name!r}: a model's name is 1 to {_LONGEST_NAME} characters without / and :{nearest}."
        )


def check_alias(alias: str) -> None:
    """Refuses what is not an alias of a model's version, by a ConfigError."""
    reserved = alias.lower() == 'latest' or re.fullmatch(r'[vV]\d+', alias)
    if reserved or len(alias) > _LONGEST_NAME or not re.fullmatch(r'[\w-]+', alias):
        raise ConfigError(
            f"--alias {alias!r}: an alias is letters, digits, _ and -, and neither 'latest' nor a "
            f'version such as v1, such as {CHAMPION!r}.'
        )


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
        if access := store.refused(error):
            raise access from None
        raise ModelNotFoundError(f'{uri}: no model there ({str(error).splitlines()[0]}).') from None
    if not (folder / 'metadata.json').is_file():
        raise ModelNotFoundError(f'{uri} is not a model bundle: metadata.json is missing.')
    return folder


def model_of_run(client: MlflowClient, reference: str) -> str:
    """Id of the newest model that a run has logged; ModelNotFoundError where there is none."""
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
    folder = inside(cache, model_id, 'the tracking server')
    if not folder.is_dir():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as part:
            files = download_artifacts(artifact_uri=f'models:/{model_id}', dst_path=part)
            shutil.move(files, folder)
    return folder


def promote(
    reference: str, name: str, *, alias: str = CHAMPION, better_by: str = ''
) -> tuple[ModelVersion, bool]:
    """Registers a run's model and gives it an alias, which moves away from the version that had it.

    Args:
      reference: Run, as `store.find_run` takes it.
      name: Registered model's name; it is created when need be.
      alias: Such as `'champion'`.
      better_by: Metric; the alias moves only when the run is better by it than the one that has the alias.

    Returns:
      The version that has the alias now, and whether the alias has moved. A run that is registered under the
      name already is not registered again.

    Raises:
      ModelNotFoundError: The run has no model.
      TrackingError: No such run, or it has no such metric.
      ConfigError: The name or the alias is none.
    """
    check_model_name(name)
    check_alias(alias)
    client = store.client()
    run = store.find_run(client, reference)
    model_id = model_of_run(client, run.info.run_id)
    _check_files(client, run, model_id)
    if better_by:
        holder = _holder(client, name, alias)
        if holder is not None and not _better(client, run, holder, better_by):
            return holder, False
    version = register(client, model_id, name)
    client.set_registered_model_alias(name, alias, version.version)
    client.set_tag(run.info.run_id, 'ddsp.registered', f'{name}/{version.version}')
    return client.get_model_version(name, version.version), True


def _check_files(client: MlflowClient, run: Run, model_id: str) -> None:
    """Refuses a model whose files are gone, before anything is changed in the registry."""
    from mlflow.artifacts import list_artifacts
    from mlflow.exceptions import MlflowException

    try:
        files = {
            entry.path.rpartition('/')[2] for entry in list_artifacts(artifact_uri=f'models:/{model_id}')
        }
    except (MlflowException, OSError) as error:
        if store.is_away(error) or store.refused(error):
            raise
        files = set()
    if 'metadata.json' not in files:
        raise ModelNotFoundError(
            f'the files of the model of {run.info.run_name} ({run.info.run_id[:8]}) are gone from '
            f'{client.get_logged_model(model_id).artifact_location}; nothing was changed.'
        )


def _holder(client: MlflowClient, name: str, alias: str) -> ModelVersion | None:
    """The version that has an alias."""
    from mlflow.exceptions import MlflowException

    try:
        return client.get_model_version_by_alias(name, alias)
    except MlflowException:
        return None


def _better(client: MlflowClient, run: Run, holder: ModelVersion, metric: str) -> bool:
    """Whether a run is better than the one that made a version; a nan is better than nothing."""
    if metric not in run.data.metrics:
        known = ', '.join(sorted(run.data.metrics))
        raise store.TrackingError(f'the run {run.info.run_name} has no metric {metric!r}; it has: {known}.')
    values = (client.get_run(str(holder.run_id)).data.metrics.get(metric), run.data.metrics[metric])
    if values[0] is None:
        return True
    better = best_of(metric, values)
    if lower_is_better(metric) is None:
        raise store.TrackingError(f'no value of {metric!r} is better than another; choose another metric.')
    return better == {1}
