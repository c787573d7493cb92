"""The training loop, and finding what it wrote."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterator, Sequence
from typing import Any

import gin
import tensorflow as tf

from ddsp.errors import ConfigError
from ddsp.training import checkpoints
from ddsp.training.checkpoints import get_latest_checkpoint
from ddsp.training.data.base import UNREADABLE
from ddsp.training.signals import Interrupted, StopRequest
from ddsp.training.trainers import NonFiniteError

__all__ = [
    'Interrupted',
    'TrainingCallback',
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
        """A checkpoint was written; `checkpoint` is its prefix."""

    def on_train_end(self, step: int, reason: str) -> None:
        """`'done'`, `'early_stop'`, `'interrupted'` or `'failed'`."""


def get_strategy(tpu: str = '', cluster_config: str | dict = '') -> tf.distribute.Strategy:
    """The distribution strategy for the hardware at hand.

    Args:
      tpu: Address of a TPU (`'local'` on a TPU VM); `''`: none.
      cluster_config: Cluster as in TF_CONFIG, JSON or a dictionary, for several workers; `''`: this machine
        alone.

    Returns:
      TPUStrategy, MultiWorkerMirroredStrategy, MirroredStrategy over two GPUs or more, or the default
      strategy (one GPU, or the CPU).

    Raises:
      ConfigError: `cluster_config` is not JSON.
    """
    if tpu:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver(tpu=tpu)
        tf.config.experimental_connect_to_cluster(resolver)
        tf.tpu.experimental.initialize_tpu_system(resolver)
        return tf.distribute.TPUStrategy(resolver)
    if cluster_config:
        try:
            config = json.loads(cluster_config) if isinstance(cluster_config, str) else cluster_config
        except ValueError as error:
            raise ConfigError(f'cluster_config is not JSON: {error}') from None
        os.environ['TF_CONFIG'] = json.dumps(config)
        return tf.distribute.MultiWorkerMirroredStrategy()
    if len(tf.config.list_logical_devices('GPU')) > 1:
        return tf.distribute.MirroredStrategy()
    return tf.distribute.get_strategy()


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


class _Means:
    """Means of metrics and rates since the last summary."""

    def __init__(self, batch_size: int, example_secs: float | None) -> None:
        self.audio_secs = batch_size * example_secs if example_secs else None
        self.reset()

    def reset(self) -> None:
        self.sums: dict[str, float] = {}
        self.n = 0
        self.waited = 0.0
        self.start = time.perf_counter()

    def add(self, metrics: dict[str, Any], waited: float) -> None:
        for key, value in metrics.items():
            self.sums[key] = self.sums.get(key, 0.0) + float(value)
        self.n += 1
        self.waited += waited

    def summary(self, learning_rate: float) -> dict[str, float]:
        elapsed = max(time.perf_counter() - self.start, 1e-9)
        means = {key: value / self.n for key, value in self.sums.items()}
        means['optimizer/learning_rate'] = learning_rate
        means['speed/steps_per_sec'] = self.n / elapsed
        means['speed/data_wait_share'] = self.waited / elapsed
        if self.audio_secs:
            means['speed/audio_secs_per_sec'] = self.audio_secs * self.n / elapsed
        return means


@gin.configurable(module='ddsp.training.train_util')
def train(
    data_provider: Any,
    trainer: Any,
    batch_size: int = 32,
    num_steps: int = 1000000,
    steps_per_summary: int = 300,
    steps_per_save: int = 300,
    save_dir: str | None = '/tmp/ddsp',
    restore_dir: str | None = '/tmp/ddsp',
    early_stop_loss_value: float | None = None,
    report_loss_to_hypertune: bool = False,
    callbacks: Sequence[TrainingCallback] = (),
) -> str:
    """Trains until `num_steps`, going on from the newest checkpoint.

    Ctrl-C and SIGTERM stop after the step in progress: the state is saved, and the same call goes on from
    there.

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
      callbacks: Told about the progress.

    Returns:
      Why it ended: `'done'` or `'early_stop'`.

    Raises:
      Interrupted: A signal stopped it (a KeyboardInterrupt with `exit_code`).
      NonFiniteError: A loss or a gradient is not finite; the state of before is saved.
      CheckpointError: A checkpoint cannot be written or read.
    """
    if report_loss_to_hypertune:
        raise ConfigError(
            'train.report_loss_to_hypertune is True; the service is gone: use `ddsp sweep` instead'
        )
    save_dir = expand_path(save_dir) if save_dir else ''
    batches = iter(trainer.distribute_dataset(data_provider.get_batch(batch_size, shuffle=True, repeats=-1)))
    first = _first_batch(batches, data_provider, batch_size)
    if not trainer.built:
        trainer.build(first)
    _restore(trainer, [save_dir, restore_dir])
    start_step = trainer.step
    if start_step:
        batches = iter(trainer.distribute_dataset(_batches_from(data_provider, batch_size, start_step)))
        first = None
    config = write_gin_config(None, save_dir, start_step)
    for callback in callbacks:
        callback.on_train_begin(
            start_step=start_step, num_steps=num_steps, save_dir=save_dir, gin_config=config
        )
    reason = 'failed'
    try:
        with StopRequest() as stop:
            loop = _Loop(trainer, batches, first, batch_size, data_provider, save_dir, callbacks)
            reason = loop.run(num_steps, steps_per_summary, steps_per_save, early_stop_loss_value, stop)
            if reason == 'interrupted':
                raise Interrupted(stop.signal, trainer.step, save_dir)
    finally:
        for callback in callbacks:
            callback.on_train_end(trainer.step, reason)
    return reason


class _Loop:
    """The loop of `train`, with what it needs at every step."""

    def __init__(
        self,
        trainer: Any,
        batches: Iterator,
        first: Any,
        batch_size: int,
        data_provider: Any,
        save_dir: str,
        callbacks: Sequence[TrainingCallback],
    ) -> None:
        self.trainer = trainer
        self.batches = batches
        self.first = first
        self.provider = data_provider
        self.save_dir = save_dir
        self.callbacks = callbacks
        self.means = _Means(batch_size, getattr(data_provider, 'example_secs', None))
        self.saved = -1

    def run(
        self,
        num_steps: int,
        steps_per_summary: int,
        steps_per_save: int,
        early_stop_loss_value: float | None,
        stop: StopRequest,
    ) -> str:
        """Steps until there is a reason to end, which is returned."""
        step = start = self.trainer.step
        reason = 'done'
        while step < num_steps:
            self._step()
            step += 1
            if step == start + 1 and num_steps - start > 1:
                self.means.reset()  # the first step is mostly compilation
            for callback in self.callbacks:
                callback.on_step(step)
            if self.means.n and (step % steps_per_summary == 0 or step == num_steps):
                loss = self._summarize(step)
                if early_stop_loss_value is not None and loss <= early_stop_loss_value:
                    reason = 'early_stop'
                    break
            if step % steps_per_save == 0:
                self._save(step)
            if stop.requested:
                reason = 'interrupted'
                break
        self._save(step)
        return reason

    def _step(self) -> None:
        before = time.perf_counter()
        batch = self.first if self.first is not None else _next_batch(self.batches, self.provider)
        self.first = None
        waited = time.perf_counter() - before
        try:
            metrics = self.trainer.train_step_with_metrics(batch)
        except NonFiniteError:
            self._save(self.trainer.step)
            raise
        self.means.add(metrics, waited)

    def _summarize(self, step: int) -> float:
        metrics = self.means.summary(self.trainer.learning_rate)
        self.means.reset()
        for callback in self.callbacks:
            callback.on_summary(step, metrics)
        return metrics['losses/total_loss']

    def _save(self, step: int) -> None:
        if not self.save_dir or step == self.saved:
            return
        prefix = self.trainer.save(self.save_dir)
        write_gin_config(None, self.save_dir, step)
        self.saved = step
        for callback in self.callbacks:
            callback.on_save(step, prefix)


def _next_batch(batches: Iterator, provider: Any) -> Any:
    """The next batch; unreadable data is a DatasetError that names the file."""
    try:
        return next(batches)
    except UNREADABLE as error:
        if not hasattr(provider, 'explain'):
            raise
        raise provider.explain(error) from error


def _first_batch(batches: Iterator, provider: Any, batch_size: int) -> Any:
    try:
        return _next_batch(batches, provider)
    except StopIteration:
        raise ConfigError(
            f'the dataset gives no batch: it has fewer than batch_size = {batch_size} examples, or none at '
            'all'
        ) from None


def _batches_from(data_provider: Any, batch_size: int, step: int) -> tf.data.Dataset:
    """The batches that an uninterrupted training would see after `step` steps."""
    if getattr(data_provider, 'can_start_later', False):
        return data_provider.get_batch(batch_size, shuffle=True, repeats=-1, start=step * batch_size)
    return data_provider.get_batch(batch_size, shuffle=True, repeats=-1)


def _restore(trainer: Any, directories: Sequence[str | None]) -> None:
    for directory in directories:
        if directory and checkpoints.has_checkpoint(expand_path(directory)):
            trainer.restore(expand_path(directory))
            return
