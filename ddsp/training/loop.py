"""The loop of `train_util.train`: steps, summaries, checkpoints, warnings, and reasons to stop."""

from __future__ import annotations

import io
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from types import FrameType
from typing import Any

import numpy as np
import tensorflow as tf

from ddsp.training.steps.report import STOP, TOTAL_LOSS, NonFiniteError

_BEST = 'best.jsonl'
_DEAD_DB = -100.0  # a harmonic part that is taught by the recordings never stays there
_SILENT_DB = -80.0  # recordings below are nothing to learn harmonics from
_PATIENCE = 2  # summaries: within the first steps the level may fall and come back


class Interrupted(KeyboardInterrupt):
    """A signal ended the training; its state is saved.

    Attributes:
      exit_code: What a command should exit with: 130 after Ctrl-C, 143 after SIGTERM.
      step: Steps done.
      save_dir: Where the state was saved; `''`: nowhere.
    """

    def __init__(self, signal_number: int, step: int, save_dir: str) -> None:
        self.exit_code = 128 + signal_number
        self.step = step
        self.save_dir = save_dir
        where = f'saved in {save_dir}; the same command goes on from there' if save_dir else 'not saved'
        super().__init__(f'interrupted after {step} steps: {where}')


class StopRequest:
    """Within, the first Ctrl-C or SIGTERM only sets `requested`; a second Ctrl-C interrupts at once."""

    def __init__(self) -> None:
        self.requested = False
        self.signal = int(signal.SIGINT)
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: Any) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.requested and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.requested = True
        self.signal = number


class Means:
    """Means of metrics and rates since the last summary."""

    def __init__(self, batch_size: int, example_secs: float | None) -> None:
        self.audio_secs = batch_size * example_secs if example_secs else None
        self.reset()

    def reset(self) -> None:
        """Starts anew."""
        self.sums: dict[str, float] = {}
        self.n = 0
        self.restart_clock()

    def restart_clock(self) -> None:
        """Measures rates from now on."""
        self.n_timed = 0
        self.waited = 0.0
        self.start = time.perf_counter()

    def add(self, metrics: Mapping[str, Any], waited: float) -> None:
        """Takes the metrics of a step, and the seconds that it waited for data."""
        for key, value in metrics.items():
            if key != STOP:
                self.sums[key] = self.sums.get(key, 0.0) + float(value)
        self.n += 1
        self.n_timed += 1
        self.waited += waited

    def summary(self, learning_rate: float) -> dict[str, float]:
        """Means and rates."""
        elapsed = max(time.perf_counter() - self.start, 1e-9)
        means = {key: value / self.n for key, value in self.sums.items()}
        means['optimizer/learning_rate'] = learning_rate
        means['speed/steps_per_sec'] = self.n_timed / elapsed
        means['speed/data_wait_share'] = self.waited / elapsed
        if self.audio_secs:
            means['speed/audio_secs_per_sec'] = self.audio_secs * self.n_timed / elapsed
        return means


class Best:
    """The best value of a metric so far, and for how many summaries it has not become better.

    Args:
      metric: Name of a metric of the summaries; the smaller the better.
      min_delta: Smallest decrease that counts as better.
      directory: Where the state lies beside the checkpoints; `''`: nowhere.
    """

    def __init__(self, metric: str, min_delta: float, directory: str) -> None:
        self.metric, self.min_delta, self.directory = metric, min_delta, directory
        self.value, self.step, self.stale, self.improved = float('inf'), -1, 0, False

    def restore(self, step: int) -> None:
        """Reads the state as it was at the checkpoint of `step`."""
        path = os.path.join(self.directory, _BEST)
        if not self.directory or not step or not tf.io.gfile.exists(path):
            return
        with tf.io.gfile.GFile(path) as file:
            states = [json.loads(line) for line in file.read().splitlines()]
        found = [s for s in states if s['saved'] <= step and s['metric'] == self.metric]
        if found:
            self.value, self.step, self.stale = (found[-1][key] for key in ('value', 'step', 'stale'))

    def update(self, metrics: Mapping[str, float]) -> None:
        """Takes a summary."""
        value = metrics.get(self.metric, float('inf'))
        if value < self.value - self.min_delta:
            self.value, self.stale, self.improved = value, 0, True
        else:
            self.stale += 1

    def before_save(self, step: int) -> Sequence[int]:
        """Notes the state before a checkpoint is written; gives the steps whose checkpoints stay."""
        if self.improved:
            self.step, self.improved = step, False
        state = {'saved': step, 'metric': self.metric, 'value': self.value, 'step': self.step,
                 'stale': self.stale}  # fmt: skip
        if self.step >= 0 and self.directory:
            tf.io.gfile.makedirs(self.directory)
            with tf.io.gfile.GFile(os.path.join(self.directory, _BEST), 'a') as file:
                file.write(json.dumps(state) + '\n')
        return (self.step,)


class HarmonicsWatch:
    """Detects a harmonic part that has died.

    Amplitudes that were pushed to the floor of `exp_sigmoid` get no gradient any more: they stay there, the
    noise alone imitates the recordings, and the loss goes on falling a little, so that nobody sees it.
    """

    def __init__(self) -> None:
        self._dead, self._said = 0, False

    def check(self, step: int, metrics: Mapping[str, float]) -> str:
        """Takes the metrics of a summary; a sentence when there is something to say, once, else `''`.

        Args:
          step: Steps done.
          metrics: `energy/harmonic_db` and `energy/target_db`, where the model has a harmonic part.
        """
        level, target = metrics.get('energy/harmonic_db', 0.0), metrics.get('energy/target_db', -120.0)
        self._dead = self._dead + 1 if level < _DEAD_DB and target > _SILENT_DB else 0
        if self._dead < _PATIENCE or self._said:
            return ''
        self._said = True
        return (
            f'step {step}: dead harmonics: the harmonic part stays at {level:.0f} dB where the recordings '
            f'have {target:.0f} dB, and the noise alone imitates them. Begin again in a new folder with a '
            'longer warm-up (Trainer.lr_warmup_steps, 100 or more) or a smaller Trainer.learning_rate'
        )


class Loop:
    """The loop of `train`, with what it needs at every step.

    Args:
      trainer: The trainer.
      next_batch: Gives a batch.
      means: For the summaries.
      best: For checkpoints that stay, and for early stopping.
      save_dir: `''`: nothing is written.
      write_config: `write_config(step)` beside each checkpoint.
      callbacks: Told about the progress.
      warn: Called with a sentence about what goes wrong.
    """

    def __init__(
        self,
        trainer: Any,
        next_batch: Callable[[], Any],
        means: Means,
        best: Best,
        save_dir: str,
        write_config: Callable[[int], Any],
        callbacks: Sequence[Any],
        warn: Callable[[str], None],
    ) -> None:
        self.trainer = trainer
        self.next_batch = next_batch
        self.means = means
        self.best = best
        self.save_dir = save_dir
        self.write_config = write_config
        self.callbacks = callbacks
        self.warn = warn
        self.harmonics = HarmonicsWatch()
        self.saved = -1

    def run(
        self,
        num_steps: int,
        steps_per_summary: int,
        steps_per_save: int,
        is_enough: Callable[[float, Best], bool],
        stop: StopRequest,
    ) -> str:
        """Steps until there is a reason to end, which is returned."""
        step = start = self.trainer.step
        reason = 'done'
        while step < num_steps:
            metrics = self._step(stop)
            step += 1
            if step == start + 1 and num_steps - start > 1:
                self.means.restart_clock()  # the first step is mostly compilation
            for callback in self.callbacks:
                callback.on_step(step)
            due = step % steps_per_summary == 0 or step == num_steps
            if due and is_enough(self._summarize(step), self.best):
                reason = 'early_stop'
                break
            if step % steps_per_save == 0:
                self._save(step)
            if self._must_stop(metrics, stop):
                reason = 'interrupted'
                break
        self._save(step)
        self.trainer.wait_for_save()
        return reason

    def _step(self, stop: StopRequest) -> Mapping[str, Any]:
        before = time.perf_counter()
        batch = self.next_batch()
        waited = time.perf_counter() - before
        try:
            metrics = self.trainer.train_step_with_metrics(batch, stop=stop.requested)
        except NonFiniteError as error:
            self._save(self.trainer.step)
            self._save_tensors(error)
            self.trainer.wait_for_save()
            raise
        self.means.add(metrics, waited)
        return metrics

    def _must_stop(self, metrics: Mapping[str, Any], stop: StopRequest) -> bool:
        """With several workers: all after the same step, the one in which they told each other."""
        if float(metrics.get(STOP, 0.0)) > 0 and not stop.requested:
            stop.requested, stop.signal = True, int(signal.SIGTERM)
            return True
        alone = getattr(self.trainer, 'is_alone', True)
        return stop.requested if alone else float(metrics[STOP]) > 0

    def _summarize(self, step: int) -> float:
        metrics = self.means.summary(self.trainer.learning_rate)
        self.means.reset()
        self.best.update(metrics)
        for callback in self.callbacks:
            callback.on_summary(step, metrics)
        if warning := self.harmonics.check(step, metrics):
            self.warn(warning)
        return metrics[TOTAL_LOSS]

    def _save(self, step: int) -> None:
        if step == self.saved:
            return
        self.saved = step
        if not self.save_dir:
            return
        prefix = self.trainer.save(self.save_dir, wait=False, pinned=self.best.before_save(step))
        self.write_config(step)
        with self.trainer.averaged_weights():
            for callback in self.callbacks:
                callback.on_save(step, prefix)

    def _save_tensors(self, error: NonFiniteError) -> None:
        """Saves the batch and what was not finite, for whoever looks for the reason."""
        if not self.save_dir or not error.tensors:
            return
        path = os.path.join(self.save_dir, f'non_finite-{self.trainer.step}.npz')
        content = io.BytesIO()
        named: dict[str, Any] = {name.replace('/', '.'): value for name, value in error.tensors.items()}
        np.savez(content, **named)
        with tf.io.gfile.GFile(path, 'wb') as file:
            file.write(content.getvalue())
        error.args = (f'{error.args[0]}. The batch and these tensors are in {path}', *error.args[1:])
