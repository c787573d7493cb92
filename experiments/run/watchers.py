"""Callbacks of a training besides its tracking: progress, latest metrics, held-out examples, and advice."""

from __future__ import annotations

import dataclasses
import math
import pathlib
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ddsp.io.audio import write_wav
from ddsp.io.progress import Progress
from ddsp.training.train_util import TrainingCallback
from experiments.reports import figures
from experiments.tracking.delivery import metric_rows

if TYPE_CHECKING:
    from experiments.tracking.tracker import MLflowTracker


Course = Sequence[tuple[int, float]]  # steps and losses

HELD_OUT = 'held_out/'  # how the names of these metrics begin
# Listening to held-out examples during a training takes at most this share of its time.
_SAMPLING_SHARE = 0.02
_FALLING = 0.04  # share of the loss, from one quarter of the training to the next
_RISEN = 0.04  # share of the held-out loss, above its best


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


@dataclasses.dataclass(eq=False)
class HeldOutWatcher(TrainingCallback):
    """Synthesises held-out examples at the beginning, at the end and now and then between, and records
    losses, spectrograms and sound by step.
    """

    tracker: MLflowTracker
    last: LastMetrics  # gets the losses, too
    model: Any
    batch: Mapping[str, Any]  # held-out examples: `audio` [batch, n_samples], `f0_hz` [batch, n_frames]
    sample_rate: int  # in Hz
    frame_rate: float  # in Hz
    folder: pathlib.Path  # for pictures and sound
    _next: float = 0.0

    def on_train_begin(self, *, start_step: int, num_steps: int, save_dir: str, gin_config: str) -> None:
        """Samples the untrained model, for comparison."""
        if start_step == 0:
            self._sample(0)

    def on_save(self, step: int, checkpoint: str) -> None:
        """Samples when enough time has passed."""
        if time.monotonic() >= self._next and self.last.held_out_step != step:
            self._sample(step)

    def on_train_end(self, step: int, reason: str) -> None:
        """Samples the result, however short the training was."""
        if reason in ('done', 'early_stop') and self.last.held_out_step != step:
            self._sample(step)

    def _sample(self, step: int) -> None:
        """Synthesises the examples; records losses and the first one's spectrogram."""
        start = time.monotonic()
        outputs, losses = self.model(self.batch, return_losses=True, training=True)
        values = {f'{HELD_OUT}{name}': float(value) for name, value in losses.items()}
        self.tracker.log_metrics(values, step)
        self.last.on_held_out(step, values)
        audio = np.asarray(self.model.get_audio_from_outputs(outputs))[0]
        picture = figures.spectrogram_pair(
            self.folder / f'step_{step:07d}.png',
            np.asarray(self.batch['audio'])[0],
            audio,
            self.sample_rate,
            f0_hz=np.asarray(self.batch['f0_hz'])[0],
            frame_rate=self.frame_rate,
            titles=('Target', f'Synthesised at step {step}'),
        )
        self.tracker.log_image(picture, 'held_out/spectrogram', step)
        sounds = {f'step_{step:07d}.wav': audio}
        if step == 0:
            sounds['target.wav'] = np.asarray(self.batch['audio'])[0]
        for name, sound in sounds.items():
            write_wav(self.folder / name, sound, self.sample_rate)
            self.tracker.log_artifact(self.folder / name, 'media/steps')
        self._next = time.monotonic() + (time.monotonic() - start) / _SAMPLING_SHARE


def after_training(losses: Course, held_out: Course) -> str:
    """One sentence when a training was too short or too long, '' when it was neither.

    Both courses are pairs of step and loss: of the training, and of held-out examples.
    """
    if len(held_out) > 1:
        best_step, best = min(held_out, key=lambda point: point[1])
        last_step, last = held_out[-1]
        if last > best * (1 + _RISEN) and best_step < last_step:
            return (
                f'The held-out loss was best at step {best_step} ({best:.3g}) and rose to {last:.3g} at step '
                f'{last_step}: the model memorises its recordings. Train on more of them, or stop '
                f'there with --steps {max(best_step, 1)}.'
            )
    quarter = max(1, len(losses) // 4)
    if len(losses) < 2 * quarter:
        return ''
    before, after = (
        sum(value for _, value in part) / quarter
        for part in (losses[-2 * quarter : -quarter], losses[-quarter:])
    )
    if after < before * (1 - _FALLING):
        step = losses[-1][0]
        return (
            f'The loss was still falling at step {step} ({before:.3g} to {after:.3g} over the last quarter): '
            f'more steps may sound better, such as --steps {2 * step}.'
        )
    return ''
