"""One training from dataset to evaluated model, tracked."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ddsp.errors import ConfigError
from ddsp.io import gcs
from ddsp.io.dataset import Dataset, DatasetError, open_dataset
from ddsp.io.progress import Progress
from experiments import crash
from experiments.files import local_folder
from experiments.reports import figures
from experiments.run import training_folder
from experiments.tracking import mlflow_model, store

if TYPE_CHECKING:
    from ddsp.training.train_util import TrainingCallback
    from experiments.tracking.tracker import MLflowTracker


DEFAULT_PRESET = 'laptop'
_CHECKED_EXAMPLES = 50  # of each split, before a training: half a second
_HELD_OUT_EXAMPLES = 4
_BACKENDS = ('tensorflow', 'jax')
_COUNTS = ('batch_size', 'num_steps', 'steps_per_summary', 'steps_per_save')
_MAX_SEED = 2**32 - 1  # NumPy's


@dataclasses.dataclass(frozen=True)
class RunResult:
    """What a training produced.

    Attributes:
      run_id: Id of the MLflow run.
      save_dir: Training folder.
      bundle: The model bundle.
      metrics: Latest value of every metric, training and evaluation.
      step: Number of steps done.
      listen_page: Page with held-out examples; None without an evaluation.
      advice: A sentence when the training was too short or too long.
    """

    run_id: str
    save_dir: pathlib.Path
    bundle: pathlib.Path
    metrics: dict[str, float]
    step: int
    listen_page: pathlib.Path | None
    advice: str = ''


def train_run(
    dataset: str | os.PathLike[str],
    *,
    preset: str = '',
    gin_files: Sequence[str] = (),
    gin_params: Sequence[str] = (),
    save_dir: str | os.PathLike[str] | None = None,
    experiment: str = store.EXPERIMENT,
    run_name: str | None = None,
    num_steps: int | None = None,
    batch_size: int | None = None,
    seed: int = 0,
    callbacks: Sequence[TrainingCallback] = (),
    tags: Mapping[str, str] | None = None,
    evaluate: bool = True,
    register_as: str | None = None,
    progress: Progress | None = None,
    warn: Callable[[str], None] | None = None,
    buffer: bool = False,
    strategy: str = 'auto',
    restart: bool = False,
) -> RunResult:
    """Trains a model, saves its bundle, evaluates it and records all of it in MLflow.

    The same call goes on where an earlier one was interrupted.

    Args:
      dataset: Dataset directory.
      preset: Packaged preset such as `'laptop'`, parsed first; the default when there is no `gin_files`
        either.
      gin_files: Gin files, later ones win.
      gin_params: Bindings, which win over all files.
      save_dir: Training folder; None for `runs/DATASET-PRESET`. Once a step was saved, a folder stays with
        the settings it was begun with, of which only `num_steps` may change.
      experiment: MLflow experiment.
      run_name: Name of the MLflow run; None for the folder's name.
      num_steps: Total number of steps; None for the configuration's.
      batch_size: Examples per step; None for the configuration's.
      seed: Random seed of the initial weights, the order of the examples and the noise.
      callbacks: Called after the tracker.
      tags: Further tags of the run.
      evaluate: Whether to evaluate on the split `test` at the end, if the dataset has one.
      register_as: Name under which the model is registered.
      progress: `progress(done, total, text)`.
      warn: Called with a sentence for each problem of the dataset and of the training, such as dead
        harmonics.
      buffer: Train even when the tracking server is down: the run is recorded when it is back.
      strategy: Devices, see `train_util.get_strategy`. Only the first of several workers records.
      restart: Move aside what lies in the training folder, and begin anew.

    Raises:
      DDSPError: Dataset, configuration, folder or tracking store cannot be used.
    """
    check_backend()
    _check_arguments(gin_files, seed, strategy)
    data, tell = open_dataset(dataset), warn or (lambda text: None)
    warnings = check_dataset(data)
    counts = {'num_steps': num_steps, 'batch_size': batch_size}
    bindings = [*gin_params, f'Trainer.seed = {seed}']
    bindings += [f'train.{name} = {count}' for name, count in counts.items() if count is not None]
    files = configure(data, preset, gin_files, bindings)
    name = re.sub(r'[^\w.-]+', '_', f'{data.name}-{pathlib.Path(files[-1]).stem}')
    folder = local_folder(save_dir or pathlib.Path('runs') / name, '--save-dir')
    wanted, notes = _settings(data, files, bindings)
    if not _is_chief(strategy):  # another of the workers records the run and makes the bundle
        training_folder.check(folder, wanted)
        training = _Training(data, folder, seed, _devices(strategy))
        training.run(callbacks, progress, warn)
        metrics = dict(training.last.metrics)
        return RunResult('', folder, folder / mlflow_model.NAME, metrics, training.trainer.step, None)
    from experiments.tracking.tracker import OUTCOMES, MLflowTracker

    with (
        training_folder.owned(folder, wanted, notes, restart=restart, warn=tell),
        crash.logged(folder, *OUTCOMES),
    ):
        for warning in warnings:
            tell(warning)
        devices = _devices(strategy)  # workers find each other before anything is computed
        with MLflowTracker(
            folder, experiment=experiment, run_name=run_name or folder.name, tags=tags, dataset=data,
            buffer=buffer,
        ) as tracker:  # fmt: skip
            training = _Training(data, folder, seed, devices)
            training.run(callbacks, progress, warn, tracker)
            return training.finish(tracker, evaluate, register_as, progress)


def check_backend() -> None:
    """Refuses a Keras backend (`KERAS_BACKEND`) that cannot train, without importing Keras."""
    backend = os.environ.get('KERAS_BACKEND') or 'tensorflow'
    if backend not in _BACKENDS:
        raise ConfigError(
            f'KERAS_BACKEND is {backend!r}; trainings run on {" or ".join(_BACKENDS)}. Set it to one of '
            'them, or unset it.'
        )


def _check_arguments(gin_files: Sequence[str], seed: int, strategy: str) -> None:
    """Checks what needs no dataset."""
    from ddsp.training.cluster import STRATEGIES

    if not 0 <= seed <= _MAX_SEED:
        raise ConfigError(f'seed is {seed}; it must be a whole number from 0 to {_MAX_SEED}')
    if strategy not in STRATEGIES:
        raise ConfigError(f'strategy is {strategy!r}; it must be one of {", ".join(STRATEGIES)}')
    for path in gin_files:
        if pathlib.Path(path).is_dir():
            raise ConfigError(f'{path} is a folder; --gin-file needs a file')


def _check_counts() -> None:
    """Numbers of the training loop, as the configuration has them."""
    import gin

    for name, value in gin.get_bindings('ddsp.training.train_util.train').items():
        whole = isinstance(value, int) and not isinstance(value, bool)
        if name in _COUNTS and not (whole and value >= 1):
            raise ConfigError(f'train.{name} is {value!r}; it must be a whole number of at least 1')


class _Training:
    """One training: its model, its trainer, and what comes out of it."""

    def __init__(self, data: Dataset, folder: pathlib.Path, seed: int, devices: Any) -> None:
        import keras

        from ddsp.training import models, trainers
        from experiments.run.watchers import LastMetrics

        self._data = data
        self._folder = folder
        self._seed = seed
        keras.utils.set_random_seed(seed)
        with devices.scope():
            self._model = models.get_model()
            self.trainer = trainers.get_trainer_class()(self._model, devices)
        self.last = LastMetrics(folder)

    def run(
        self,
        callbacks: Sequence[TrainingCallback],
        progress: Progress | None,
        warn: Callable[[str], None] | None,
        tracker: MLflowTracker | None = None,
    ) -> None:
        """Trains; a tracker records and listens to held-out examples."""
        from ddsp.training import train_util
        from ddsp.training.data import DatasetProvider
        from experiments.run.watchers import HeldOutWatcher, ProgressWatcher

        watchers: list[Any] = [tracker, self.last] if tracker else [self.last]
        watchers += [ProgressWatcher(progress)] if progress else []
        held_out: list[HeldOutWatcher] = []
        count = min(_HELD_OUT_EXAMPLES, self._data.splits.get('test', 0))
        if tracker and count:
            provider = DatasetProvider(self._data, 'test')
            batch = next(iter(provider.get_batch(count, shuffle=False, repeats=1)))
            held_out.append(HeldOutWatcher(
                tracker, self.last, self._model, batch, self._data.sample_rate, self._data.frame_rate,
                self._folder / 'media' / 'steps',
            ))  # fmt: skip
        try:
            train_util.train(
                DatasetProvider(self._data, 'train', seed=self._seed), self.trainer,
                save_dir=str(self._folder), restore_dir=str(self._folder),
                callbacks=[*watchers, *held_out, *callbacks], warn=warn,
            )  # fmt: skip
        except Exception as error:
            if type(error).__name__ == 'TrialPruned':  # it is compared with the others all the same
                for watcher in held_out:
                    watcher.on_train_end(self.trainer.step, 'done')
            raise

    def finish(
        self, tracker: MLflowTracker, evaluate: bool, register_as: str | None, progress: Progress | None
    ) -> RunResult:
        """Saves the bundle, evaluates it on the held-out split, records figures, sound and model."""
        from ddsp import inference
        from experiments.run.evaluation import evaluate_model
        from experiments.run.watchers import after_training

        last, media, step = self.last, self._folder / 'media', self.trainer.step
        metrics, page, pictures = dict(last.metrics), None, []
        bundle = inference.save_bundle(
            self._folder / mlflow_model.NAME, self._model, self._data, metrics=metrics
        )
        if last.losses:
            pictures.append(figures.save(figures.losses(last.losses), media / 'loss.png'))
            tracker.log_artifact(pictures[0], 'media')
        if evaluate and self._data.splits.get('test'):
            result = evaluate_model(
                bundle, self._data.address, 'test', folder=media, progress=progress, pictures=pictures,
                facts={'run': tracker.run_id or 'not recorded yet', 'steps': str(step)},
            )  # fmt: skip
            metrics, page = metrics | result.metrics, result.listen_page
            tracker.log_metrics(result.metrics, step)
            for path, place in result.artifacts.items():
                tracker.log_artifact(path, place)
            inference.add_metrics(bundle, metrics)
        tracker.log_model(bundle, step, register_as)
        words = after_training(last.losses.get('losses/total_loss', []), last.held_out)
        return RunResult(tracker.run_id, self._folder, bundle, metrics, step, page, words)


def configure(data: Dataset, preset: str, gin_files: Sequence[str], bindings: Sequence[str]) -> list[str]:
    """Sets the configuration, with rates and lengths from the dataset; returns its files.

    The preset (the default when there are no `gin_files` either) is parsed first; later files win, and
    bindings win over all of them.

    Raises:
      ConfigError: A name or a value that cannot work.
    """
    from ddsp.training import config, rates, safe_config

    files = ([f'presets/{preset or DEFAULT_PRESET}.gin'] if preset or not gin_files else []) + list(gin_files)
    config.parse_config(files, bindings)
    rates.configure_for_dataset(data)
    safe_config.check_parts()
    _check_counts()
    return files


def _devices(strategy: str) -> Any:
    """The distribution strategy; several workers leave TF_CONFIG in the environment."""
    from ddsp.training import train_util

    return train_util.get_strategy(cluster_config=os.environ.get('TF_CONFIG', ''), strategy=strategy)


def _is_chief(strategy: str) -> bool:
    """Whether this process speaks for all workers of a distributed training, known before they meet."""
    from ddsp.training.cluster import cluster_from_environment

    distributed = strategy == 'multi_worker' or os.environ.get('TF_CONFIG')
    cluster = (cluster_from_environment() if distributed else None) or {}
    task = cluster.get('task', {})
    if 'chief' in cluster.get('cluster', {}):
        return task.get('type') == 'chief'
    return int(task.get('index', 0)) == 0


def _settings(
    data: Dataset, files: Sequence[str], bindings: Sequence[str]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """What a training folder stays with, and what is noted beside it."""
    kept = [binding for binding in bindings if not binding.startswith('train.num_steps')]
    address = data.address if gcs.is_gcs(data.address) else str(data.path.resolve())
    wanted = {'dataset': data.digest, 'gin_files': list(files), 'gin_params': kept}
    return wanted, {'dataset_address': address}


def check_dataset(data: Dataset) -> list[str]:
    """A sentence for each thing that makes training on a dataset hard, before any time is spent on it.

    Raises:
      DatasetError: No training can work with it.
    """
    from pipelines.inspect import health
    from pipelines.inspect.inspection import inspect_dataset

    findings = health.check(inspect_dataset(data, _CHECKED_EXAMPLES))
    for found in findings:
        if found.level == health.ERROR:
            raise DatasetError(f'{data.path} cannot teach a model: {found}')
    return [str(found) for found in findings if found.level == health.WARNING]
