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
    """What a training left.

    Attributes:
      run_id: Of the MLflow run.
      save_dir: Training folder.
      bundle: The model bundle.
      metrics: Newest value of every metric, training and evaluation.
      step: Steps done.
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
    """Trains, saves the bundle, evaluates and records all of it; goes on where an earlier call was
    interrupted.

    Args:
      dataset: Dataset directory.
      preset: Packaged preset such as `'laptop'`, parsed first; the default when there is no `gin_files`
        either.
      gin_files: Gin files, later ones win.
      gin_params: Bindings, which win over all files.
      save_dir: Training folder; None for `runs/DATASET-PRESET`. Once a step was saved, a folder stays with
        the settings it was begun with, of which only `num_steps` may change.
      experiment: MLflow experiment.
      run_name: Of the MLflow run; None for the folder's name.
      num_steps: Steps in total; None for the configuration's.
      batch_size: Examples in a step; None for the configuration's.
      seed: Of the initial weights, the order of the examples and the noise.
      callbacks: Told about the progress, after the tracker.
      tags: Further tags of the run.
      evaluate: Evaluate on the split `test` at the end, when the dataset has one.
      register_as: Name under which the model is registered.
      progress: `progress(done, total, text)`.
      warn: Called with a sentence for all that makes training hard in the dataset, and for what goes
        wrong in a training, such as harmonics that have died.
      buffer: When the tracking server is down, train all the same: the run is recorded when it is back.
      strategy: Devices: see `train_util.get_strategy`. Of several workers the first one records.
      restart: Move aside what lies in the training folder, and begin anew.

    Returns:
      What was made.

    Raises:
      DDSPError: Dataset, configuration, folder or tracking store cannot be used.
    """
    check_backend()
    _check_arguments(gin_files, seed, strategy)
    data = open_dataset(dataset)
    warnings = check_dataset(data)
    bindings = _bindings(gin_params, num_steps, batch_size, seed)
    files = configure(data, preset, gin_files, bindings)
    folder = local_folder(save_dir, '--save-dir') if save_dir else _default_folder(data, files)
    wanted, notes = _settings(data, files, bindings)
    tell = warn or (lambda text: None)
    if not _is_chief(strategy):  # another of the workers records the run and makes the bundle
        training_folder.check(folder, wanted, _shown)
        training = _Training(data, folder, seed, _devices(strategy), warn)
        training.run(None, callbacks, progress)
        return RunResult('', folder, folder / mlflow_model.NAME, training.metrics, training.step, None)
    from experiments.tracking.tracker import OUTCOMES, MLflowTracker

    with (
        training_folder.owned(folder, wanted, notes, _shown, restart=restart, warn=tell),
        crash.logged(folder, *OUTCOMES),
    ):
        for warning in warnings:
            tell(warning)
        devices = _devices(strategy)  # workers find each other before anything is computed
        with MLflowTracker(
            folder, experiment=experiment, run_name=run_name or folder.name, tags=tags, dataset=data,
            buffer=buffer,
        ) as tracker:  # fmt: skip
            training = _Training(data, folder, seed, devices, warn)
            training.run(tracker, callbacks, progress)
            return training.finish(tracker, evaluate, register_as, progress)


def check_backend() -> None:
    """Refuses a Keras backend that nothing can be trained with; needs no Keras.

    Raises:
      ConfigError: `KERAS_BACKEND` names one.
    """
    backend = os.environ.get('KERAS_BACKEND') or 'tensorflow'
    if backend not in _BACKENDS:
        raise ConfigError(
            f'KERAS_BACKEND is {backend!r}; trainings run on {" or ".join(_BACKENDS)}. Set it to one of '
            'them, or unset it.'
        )


def _check_arguments(gin_files: Sequence[str], seed: int, strategy: str) -> None:
    """What can be told without the dataset."""
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
    """One training with what it needs and what comes out of it."""

    def __init__(
        self,
        data: Dataset,
        folder: pathlib.Path,
        seed: int,
        strategy: Any,
        warn: Callable[[str], None] | None,
    ) -> None:
        import keras

        from ddsp.training import models, trainers
        from ddsp.training.data import DatasetProvider
        from experiments.run.watchers import LastMetrics

        self._data = data
        self._folder = folder
        self._warn = warn
        self._provider = DatasetProvider(data, 'train', seed=seed)
        keras.utils.set_random_seed(seed)
        with strategy.scope():
            self._model = models.get_model()
            self._trainer = trainers.get_trainer_class()(self._model, strategy)
        self._last = LastMetrics(folder)

    @property
    def metrics(self) -> dict[str, float]:
        """Newest values of the metrics of the training."""
        return dict(self._last.metrics)

    @property
    def step(self) -> int:
        """Steps done."""
        return self._trainer.step

    def run(
        self, tracker: MLflowTracker | None, callbacks: Sequence[TrainingCallback], progress: Progress | None
    ) -> None:
        """Trains."""
        from ddsp.training import train_util
        from experiments.run.watchers import ProgressWatcher

        watchers: list[Any] = [self._last]
        held_out = self._held_out_watcher(tracker) if tracker else []
        if tracker is not None:
            watchers = [tracker, self._last, *held_out]
        watchers += [ProgressWatcher(progress)] if progress else []
        try:
            train_util.train(
                self._provider, self._trainer, save_dir=str(self._folder), restore_dir=str(self._folder),
                callbacks=[*watchers, *callbacks], warn=self._warn,
            )  # fmt: skip
        except Exception as error:
            if type(error).__name__ == 'TrialPruned':  # it is compared with the others too
                for watcher in held_out:
                    watcher.on_train_end(self.step, 'done')
            raise

    def _held_out_watcher(self, tracker: MLflowTracker) -> list[Any]:
        """Listens to held-out examples by step, when there are any."""
        from ddsp.training.data import DatasetProvider
        from experiments.run.watchers import HeldOutWatcher

        count = min(_HELD_OUT_EXAMPLES, self._data.splits.get('test', 0))
        if not count:
            return []
        provider = DatasetProvider(self._data, 'test')
        batch = next(iter(provider.get_batch(count, shuffle=False, repeats=1)))
        watcher = HeldOutWatcher(
            tracker, self._last, self._model, batch, self._data.sample_rate, self._data.frame_rate,
            self._folder / 'media' / 'steps',
        )  # fmt: skip
        return [watcher]

    def finish(
        self, tracker: MLflowTracker, evaluate: bool, register_as: str | None, progress: Progress | None
    ) -> RunResult:
        """Saves the bundle, evaluates it, records pictures, sound and model."""
        from ddsp import inference
        from experiments.run import advice

        bundle = inference.save_bundle(
            self._folder / mlflow_model.NAME, self._model, self._data, metrics=self._last.metrics
        )
        metrics = dict(self._last.metrics)
        page = None
        if self._last.losses:
            picture = figures.loss_curve(self._folder / 'media' / 'loss.png', self._last.losses)
            tracker.log_artifact(picture, 'media')
        if evaluate and self._data.splits.get('test'):
            metrics, page = self._evaluate(tracker, bundle, metrics, progress)
            inference.add_metrics(bundle, metrics)
        tracker.log_model(bundle, self._trainer.step, register_as)
        words = advice.after_training(self._last.losses.get('losses/total_loss', []), self._last.held_out)
        return RunResult(tracker.run_id, self._folder, bundle, metrics, self._trainer.step, page, words)

    def _evaluate(
        self,
        tracker: MLflowTracker,
        bundle: pathlib.Path,
        metrics: dict[str, float],
        progress: Progress | None,
    ) -> tuple[dict[str, float], pathlib.Path | None]:
        """Evaluates on the held-out split and records figures, sound and pictures."""
        from experiments.run.evaluation import evaluate_model

        loss = self._folder / 'media' / 'loss.png'
        result = evaluate_model(
            bundle, self._data.address, 'test', folder=self._folder / 'media', progress=progress,
            facts={'run': tracker.run_id or 'not recorded yet', 'steps': str(self._trainer.step)},
            pictures=[loss] if loss.exists() else [],
        )  # fmt: skip
        tracker.log_metrics(result.metrics, self._trainer.step)
        for path in result.files:
            tracker.log_artifact(path, 'media')
        if result.listen_page:
            tracker.log_artifact(result.listen_page)
        if result.rows_file:
            tracker.log_artifact(result.rows_file, 'evaluation')
        return {**metrics, **result.metrics}, result.listen_page


def _bindings(
    gin_params: Sequence[str], num_steps: int | None, batch_size: int | None, seed: int
) -> list[str]:
    """The caller's bindings, then what the arguments say."""
    bindings = [*gin_params, f'Trainer.seed = {seed}']
    bindings += [f'train.num_steps = {num_steps}'] if num_steps is not None else []
    bindings += [f'train.batch_size = {batch_size}'] if batch_size is not None else []
    return bindings


def configure(data: Dataset, preset: str, gin_files: Sequence[str], bindings: Sequence[str]) -> list[str]:
    """Sets the configuration, with rates and lengths from the dataset.

    Args:
      data: The dataset.
      preset: Packaged preset, parsed first; the default when there is no `gin_files` either.
      gin_files: Gin files, later ones win.
      bindings: Bindings, which win over all files.

    Returns:
      The files.

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


def _default_folder(data: Dataset, files: Sequence[str]) -> pathlib.Path:
    """`runs/DATASET-CONFIGURATION`: the same command finds it again."""
    return pathlib.Path('runs') / re.sub(r'[^\w.-]+', '_', f'{data.name}-{pathlib.Path(files[-1]).stem}')


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


def _shown(name: str, value: Any) -> str:
    """A setting as people write it."""
    if name == 'dataset':
        return f'the dataset of digest {str(value)[:12]}'
    return f'{name} {", ".join(value) if isinstance(value, list) and value else "none"}'


def check_dataset(data: Dataset) -> list[str]:
    """What about a dataset makes training hard, found before any time is spent on it.

    Args:
      data: The dataset.

    Returns:
      A sentence for each warning; none when all is well.

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
