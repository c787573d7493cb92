"""Callbacks of a training besides its tracking: progress, latest metrics, held-out examples."""

from __future__ import annotations

import math
import pathlib
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ddsp.io.audio import write_wav
from ddsp.io.progress import Progress
from ddsp.training.train_util import TrainingCallback
from experiments.reports import figures
from experiments.tracking.delivery import metric_rows

if TYPE_CHECKING:
    from experiments.tracking.tracker import MLflowTracker


HELD_OUT = 'held_out/'  # how the names of these metrics begin
# Listening to held-out examples during a training takes at most this share of its time.
_SAMPLING_SHARE = 0.02


class ProgressWatcher(TrainingCallback):
    """Passes steps, loss and speed to a progress bar."""

    def __init__(self, progress: Progress):
        self._progress = progress
        self._total = 0
        self._text = ''

    def on_train_begin(self, *, start_step: int, num_steps: int, save_dir: str, gin_config: str) -> None:
        """Shows the first step."""
        self._total = num_steps
        self._progress(start_step, num_steps, 'compiling')

    def on_step(self, step: int) -> None:
        """Advances the bar."""
        self._progress(step, self._total, self._text)

    def on_summary(self, step: int, metrics: Mapping[str, float]) -> None:
        """Shows loss and speed."""
        loss, speed = metrics.get('losses/total_loss', math.nan), metrics.get('speed/steps_per_sec', math.nan)
        self._text = f'loss {loss:.3g}, {speed:.2f} steps/s'
        self._progress(step, self._total, self._text)


class LastMetrics(TrainingCallback):
    """Keeps the latest value of every metric, and the history of the losses.

    Args:
      folder: Training folder, whose journal holds what earlier processes measured; None begins anew.
    """

    def __init__(self, folder: pathlib.Path | None = None) -> None:
        self.metrics: dict[str, float] = {}
        self.losses: dict[str, list[tuple[int, float]]] = {}
        self.step = 0
        self.held_out_step = -1  # of the newest held-out losses
        self.held_out: list[tuple[int, float]] = []  # steps and spectral losses
        self._folder = folder

    def on_train_begin(self, *, start_step: int, num_steps: int, save_dir: str, gin_config: str) -> None:
        """Reads the journal: a finished training that is run again makes no step, and has its old figures."""
        for row in metric_rows(self._folder) if self._folder and start_step else ():
            if row['step'] > start_step:
                continue
            if row.get('training'):
                self.on_summary(row['step'], row['metrics'])
            elif any(name.startswith(HELD_OUT) for name in row['metrics']):
                self.on_held_out(row['step'], row['metrics'])
        self.step = start_step

    def on_summary(self, step: int, metrics: Mapping[str, float]) -> None:
        """Remembers the metrics."""
        self.step = step
        self.metrics.update({name: float(value) for name, value in metrics.items()})
        for name, value in metrics.items():
            if name.startswith('losses/'):
                self.losses.setdefault(name, []).append((step, float(value)))

    def on_held_out(self, step: int, metrics: Mapping[str, float]) -> None:
        """Remembers held-out losses."""
        self.held_out_step = step
        self.metrics.update(metrics)
        if f'{HELD_OUT}spectral_loss' in metrics:
            self.held_out.append((step, float(metrics[f'{HELD_OUT}spectral_loss'])))


class HeldOutWatcher(TrainingCallback):
    """Synthesises held-out examples at the beginning, at the end and now and then between, and records
    losses, spectrograms and sound by step.

    Args:
      tracker: Where to record.
      last: Gets the losses, too.
      model: The model in training.
      batch: Held-out examples with `audio` [batch, n_samples], `f0_hz` [batch, n_frames].
      sample_rate: Sample rate in Hz.
      frame_rate: Frame rate in Hz.
      folder: Where to write pictures and sound.
    """

    def __init__(
        self,
        tracker: MLflowTracker,
        last: LastMetrics,
        model: Any,
        batch: Mapping[str, Any],
        sample_rate: int,
        frame_rate: float,
        folder: pathlib.Path,
    ):
        self._tracker = tracker
        self._last = last
        self._model = model
        self._batch = batch
        self._sample_rate = sample_rate
        self._frame_rate = frame_rate
        self._folder = folder
        self._next = 0.0

    def on_train_begin(self, *, start_step: int, num_steps: int, save_dir: str, gin_config: str) -> None:
        """Samples the untrained model, for comparison."""
        if start_step == 0:
            self._sample(0)

    def on_save(self, step: int, checkpoint: str) -> None:
        """Samples when enough time has passed."""
        if time.monotonic() >= self._next and self._last.held_out_step != step:
            self._sample(step)

    def on_train_end(self, step: int, reason: str) -> None:
        """Samples the result, however short the training was."""
        if reason in ('done', 'early_stop') and self._last.held_out_step != step:
            self._sample(step)

    def _sample(self, step: int) -> None:
        """Synthesises the examples; records losses and the first one's spectrogram."""
        start = time.monotonic()
        outputs, losses = self._model(self._batch, return_losses=True, training=True)
        values = {f'{HELD_OUT}{name}': float(value) for name, value in losses.items()}
        self._tracker.log_metrics(values, step)
        self._last.on_held_out(step, values)
        audio = np.asarray(self._model.get_audio_from_outputs(outputs))[0]
        picture = figures.spectrogram_pair(
            self._folder / f'step_{step:07d}.png',
            np.asarray(self._batch['audio'])[0],
            audio,
            self._sample_rate,
            f0_hz=np.asarray(self._batch['f0_hz'])[0],
            frame_rate=self._frame_rate,
            titles=('Target', f'Synthesised at step {step}'),
        )
        self._tracker.log_image(picture, 'held_out/spectrogram', step)
        sounds = {f'step_{step:07d}.wav': audio}
        if step == 0:
            sounds['target.wav'] = np.asarray(self._batch['audio'])[0]
        for name, sound in sounds.items():
            write_wav(self._folder / name, sound, self._sample_rate)
            self._tracker.log_artifact(self._folder / name, 'media/steps')
        self._next = time.monotonic() + (time.monotonic() - start) / _SAMPLING_SHARE
