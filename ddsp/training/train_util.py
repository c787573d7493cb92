"""The training loop, and finding what it wrote."""

from __future__ import annotations

import itertools
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import gin
import tensorflow as tf

from ddsp.errors import ConfigError
from ddsp.training import checkpoints
from ddsp.training.checkpoints import get_latest_checkpoint
from ddsp.training.cluster import cluster_from_environment, get_strategy
from ddsp.training.data import SeededProvider, iterate
from ddsp.training.loop import Best, Interrupted, Loop, Means, StopRequest
from ddsp.training.steps.report import WorkerLostError, check_positive, worker_lost

__all__ = [
    'Interrupted',
    'TrainingCallback',
    'cluster_from_environment',
    'expand_path',
    'get_latest_checkpoint',
    'get_latest_file',
    'get_latest_operative_config',
    'get_strategy',
    'train',
    'write_gin_config',
]


class TrainingCallback:
    """What a training loop tells to whoever watches it. All methods may be left out."""

    def on_train_begin(self, *, start_step: int, num_steps: int, save_dir: str, gin_config: str) -> None:
        """Weights exist and are restored; no step was made yet."""

    def on_step(self, step: int) -> None:
        """After every step; must be cheap."""

    def on_summary(self, step: int, metrics: dict[str, float]) -> None:
        """Every `steps_per_summary` steps: means over the steps since the last one."""

    def on_save(self, step: int, checkpoint: str) -> None:
        """A checkpoint was taken; `checkpoint` is its prefix. Its files are whole soon after: it is written
        while training goes on. The model has the weights that it is evaluated with."""

    def on_train_end(self, step: int, reason: str) -> None:
        """`'done'`, `'early_stop'`, `'interrupted'` or `'failed'`."""


def expand_path(file_path: str | os.PathLike[str]) -> str:
    """The path with `~` and environment variables expanded."""
    return os.path.expanduser(os.path.expandvars(os.fspath(file_path)))


def get_latest_file(
    dir_path: str | os.PathLike[str], prefix: str = 'operative_config-', suffix: str = '.gin'
) -> str:
    """The file `<prefix><number><suffix>` with the highest number.

    Raises:
      FileNotFoundError: There is none.
    """
    directory = expand_path(dir_path)
    names = tf.io.gfile.listdir(directory) if tf.io.gfile.isdir(directory) else []
    pattern = re.compile(re.escape(prefix) + r'(\d+)' + re.escape(suffix))
    numbered = [(int(match.group(1)), name) for name in names if (match := pattern.fullmatch(name))]
    if not numbered:
        raise FileNotFoundError(f'no file {prefix}N{suffix} in {directory}')
    return os.path.join(directory, max(numbered)[1])


def get_latest_operative_config(restore_dir: str | os.PathLike[str]) -> str:
    """The newest `operative_config-N.gin` in a directory, or in that of a checkpoint."""
    path = expand_path(restore_dir)
    directory = path if tf.io.gfile.isdir(path) else os.path.dirname(path)
    try:
        return get_latest_file(directory)
    except FileNotFoundError:
        return get_latest_file(directory, prefix='operative_config', suffix='.gin')


def write_gin_config(summary_writer: Any, save_dir: str | os.PathLike[str] | None, step: int) -> str:
    """Writes the operative configuration to `<save_dir>/operative_config-<step>.gin`.

    Args:
      summary_writer: A TensorBoard writer that gets it as a text, or `None`.
      save_dir: `None` or `''`: not written.
      step: Number in the name.

    Returns:
      The configuration.
    """
    config = gin.operative_config_str()
    if save_dir:
        tf.io.gfile.makedirs(os.fspath(save_dir))
        path = os.path.join(os.fspath(save_dir), f'operative_config-{step}.gin')
        with tf.io.gfile.GFile(path, 'w') as file:
            file.write(config)
    if summary_writer is not None:
        with summary_writer.as_default():
            tf.summary.text('gin/' + f'operative_config-{step}', gin.markdown(config), step=step)
    return config


def _begin(
    trainer: Any, data_provider: Any, batch_size: int, folders: Sequence[str | None]
) -> tuple[Iterator[Any], int]:
    """Builds and restores a trainer; returns the batches from there on, and the step."""
    batches = _batches(trainer, data_provider, batch_size)
    first = next(batches, None)
    if first is None:
        raise ConfigError(
            f'the dataset gives no batch: it has fewer than batch_size = {batch_size} examples, or none at '
            'all'
        )
    if not trainer.built:
        trainer.build(first)
    _restore(trainer, folders)
    if trainer.step:
        return _batches(trainer, data_provider, batch_size, trainer.step), trainer.step
    return itertools.chain([first], batches), 0


@gin.configurable(module='ddsp.training.train_util')
def train(
    data_provider: Any,
    trainer: Any,
    batch_size: int = 32,
    num_steps: int = 1000000,
    steps_per_summary: int = 300,
    steps_per_save: int = 300,
    save_dir: str | None = 'runs/ddsp_run',
    restore_dir: str | None = 'runs/ddsp_run',
    early_stop_loss_value: float | None = None,
    report_loss_to_hypertune: bool = False,
    early_stop_patience: int | None = None,
    early_stop_min_delta: float = 0.0,
    best_metric: str = 'losses/total_loss',
    keep_best: bool = False,
    callbacks: Sequence[TrainingCallback] = (),
    warn: Callable[[str], None] | None = None,
) -> str:
    """Trains until `num_steps`, going on from the newest checkpoint.

    Ctrl-C and SIGTERM stop after the step in progress: the state is saved, and the same call goes on from
    there. With several workers all stop when one is asked to, and the first one writes and reports.

    The model is left with the moving average of its weights, where the trainer has one.

    Args:
      data_provider: A `ddsp.training.data.DataProvider`.
      trainer: A `ddsp.training.trainers.Trainer`.
      batch_size: Examples of a step, over all replicas.
      num_steps: Steps in total, those before a restart included.
      steps_per_summary: Steps between metrics.
      steps_per_save: Steps between checkpoints.
      save_dir: For checkpoints and the operative configuration; `''` or `None`: nothing is written.
      restore_dir: Where to go on from when `save_dir` has no checkpoint; may be the same, or `None`.
      early_stop_loss_value: Stop when the mean total loss of a summary is at most this.
      report_loss_to_hypertune: Not supported (the service is gone); must be False.
      early_stop_patience: Number of summaries without a better `best_metric` after which training stops.
      early_stop_min_delta: Smallest decrease that counts as better.
      best_metric: Name of a metric of the summaries; the smaller the better.
      keep_best: The checkpoint at which `best_metric` was best stays, whatever its age.
      callbacks: Told about the progress.
      warn: Called with a sentence about what goes wrong, such as harmonics that have died; by default it is
        printed to the standard error output.

    Returns:
      Why it ended: `'done'` or `'early_stop'`.

    Raises:
      ConfigError: A number of steps or examples is not above 0, or the dataset gives no batch.
      Interrupted: A signal stopped it (a KeyboardInterrupt with `exit_code`).
      NonFiniteError: A loss or a gradient is not finite; the state of before is saved.
      WorkerLostError: Another worker is gone: start all again.
      CheckpointError: A checkpoint cannot be written or read.
    """
    if report_loss_to_hypertune:
        raise ConfigError(
            'train.report_loss_to_hypertune is True; the service is gone: use `ddsp sweep` instead'
        )
    check_positive(
        'train', batch_size=batch_size, steps_per_summary=steps_per_summary, steps_per_save=steps_per_save
    )  # fmt: skip
    save_dir = expand_path(save_dir) if save_dir else ''
    batches, start_step = _begin(trainer, data_provider, batch_size, [save_dir, restore_dir])
    if not trainer.is_chief:
        save_dir, callbacks = '', ()
    config = write_gin_config(None, save_dir, start_step)
    for callback in callbacks:
        callback.on_train_begin(
            start_step=start_step, num_steps=num_steps, save_dir=save_dir, gin_config=config
        )
    best = Best(best_metric, early_stop_min_delta, save_dir if keep_best or early_stop_patience else '')
    best.restore(start_step)

    def is_enough(loss: float, best: Best) -> bool:
        low = early_stop_loss_value is not None and loss <= early_stop_loss_value
        return low or (early_stop_patience is not None and best.stale >= early_stop_patience)

    loop = Loop(
        trainer, lambda: next(batches), Means(batch_size, getattr(data_provider, 'example_secs', None)),
        best, save_dir,
        lambda step: write_gin_config(None, save_dir, step), callbacks,
        (warn or _print_warning) if trainer.is_chief else (lambda text: None),
    )  # fmt: skip
    reason = 'failed'
    try:
        with StopRequest() as stop:
            reason = loop.run(num_steps, steps_per_summary, steps_per_save, is_enough, stop)
            if reason == 'interrupted':
                raise Interrupted(stop.signal, trainer.step, save_dir)
        trainer.finish()
    except worker_lost() as error:  # also where batches are taken: workers agree on them
        if trainer.is_alone:
            raise
        raise WorkerLostError.after(trainer.step, error) from error
    finally:
        for callback in callbacks:
            callback.on_train_end(trainer.step, reason)
    return reason


def _print_warning(text: str) -> None:
    print(f'Warning: {text}', file=sys.stderr, flush=True)


def _batches(trainer: Any, provider: Any, batch_size: int, step: int = 0) -> Iterator:
    """The batches that an uninterrupted training would see after `step` steps."""
    options: dict[str, Any] = {}
    if step and getattr(provider, 'can_start_later', False):
        options['start'] = step * batch_size
    part = getattr(trainer.strategy, 'part', (0, 1))
    if part[1] > 1 and isinstance(provider, SeededProvider):  # each process reads its own examples alone
        return iterate(provider, provider.get_batch(batch_size, part=part, **options))
    dataset = provider.get_batch(batch_size, shuffle=True, repeats=-1, **options)
    return iterate(provider, trainer.distribute_dataset(dataset))


def _restore(trainer: Any, directories: Sequence[str | None]) -> None:
    for directory in directories:
        if directory and checkpoints.has_checkpoint(expand_path(directory)):
            trainer.restore(expand_path(directory))
            return
