"""Callbacks that watch a training beside its tracking: progress, last metrics, held-out examples."""

from __future__ import annotations

import math
import pathlib
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ddsp.audio import write_wav
from ddsp.training.train_util import TrainingCallback
from experiments import report

if TYPE_CHECKING:
    import optuna

    from experiments.sweep_spec import SweepSpec
    from experiments.track import MLflowTracker

Progress = Callable[[float, float, str], None]

# Listening to held-out examples during a training takes at most this share of its time.
_SAMPLING_SHARE = 0.02


class ProgressWatcher(TrainingCallback):
    """Passes steps, loss and speed to a progress bar."""

    def __init__(self, progress: Progress):
        self._progress = progress
        self._total = 0
        self._text = ''

    def on_train_begin(self, *, start_step: int, num_steps: int, save_dir: str, gin_config: str) -> None:
        """Shows where the training starts."""
        self._total = num_steps
        self._progress(start_step, num_steps, 'compiling')

    def on_step(self, step: int) -> None:
        """One step more."""
        self._progress(step, self._total, self._text)

    def on_summary(self, step: int, metrics: Mapping[str, float]) -> None:
        """New loss and speed."""
        loss, speed = metrics.get('losses/total_loss', math.nan), metrics.get('speed/steps_per_sec', math.nan)
        self._text = f'loss {loss:.3g}, {speed:.2f} steps/s'
        self._progress(step, self._total, self._text)


class LastMetrics(TrainingCallback):
    """Keeps the newest value of every metric, and the course of the losses."""

    def __init__(self) -> None:
        self.metrics: dict[str, float] = {}
        self.losses: dict[str, list[tuple[int, float]]] = {}
        self.step = 0

    def on_train_begin(self, *, start_step: int, num_steps: int, save_dir: str, gin_config: str) -> None:
        """A finished training that is called again makes no step."""
        self.step = start_step

    def on_summary(self, step: int, metrics: Mapping[str, float]) -> None:
        """Remembers the metrics."""
        self.step = step
        self.metrics.update({name: float(value) for name, value in metrics.items()})
        for name, value in metrics.items():
            if name.startswith('losses/'):
                self.losses.setdefault(name, []).append((step, float(value)))


class HeldOutWatcher(TrainingCallback):
    """Listens to held-out examples now and then: losses, spectrograms and sound by step.

    Args:
      tracker: Where they are recorded; None records nothing.
      model: The model in training.
      batch: Held-out examples with `audio` [batch, n_samples], `f0_hz` [batch, n_frames].
      sample_rate: Hz.
      frame_rate: Frames a second.
      folder: Where pictures are written.
    """

    def __init__(
        self,
        tracker: MLflowTracker,
        model: Any,
        batch: Mapping[str, Any],
        sample_rate: int,
        frame_rate: float,
        folder: pathlib.Path,
    ):
        self._tracker = tracker
        self._model = model
        self._batch = batch
        self._sample_rate = sample_rate
        self._frame_rate = frame_rate
        self._folder = folder
        self._next = 0.0

    def on_train_begin(self, *, start_step: int, num_steps: int, save_dir: str, gin_config: str) -> None:
        """The untrained model is the yardstick."""
        if start_step == 0:
            self._sample(0)

    def on_save(self, step: int, checkpoint: str) -> None:
        """Samples when enough time has passed since the last time."""
        if time.monotonic() >= self._next:
            self._sample(step)

    def _sample(self, step: int) -> None:
        """Synthesises the examples; records losses and the first one's spectrogram."""
        start = time.monotonic()
        outputs, losses = self._model(self._batch, return_losses=True, training=True)
        values = {f'held_out/{name}': float(value) for name, value in losses.items()}
        self._tracker.log_metrics(values, step)
        audio = np.asarray(self._model.get_audio_from_outputs(outputs))[0]
        picture = report.spectrogram_pair(
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


class PruningWatcher(TrainingCallback):
    """Reports a sweep's trial to Optuna, and ends it when it is not worth going on.

    Args:
      trial: Optuna's trial.
      spec: The sweep.
      report: Told about the progress.
    """

    def __init__(self, trial: optuna.Trial, spec: SweepSpec, report: Callable[[str], None]):
        self._trial = trial
        self._spec = spec
        self._report = report

    def on_summary(self, step: int, metrics: Mapping[str, float]) -> None:
        """Ends the training by `optuna.TrialPruned` when the pruner says so."""
        value = metrics.get(self._spec.prune_on)
        self._report(f'step {step}' + ('' if value is None else f', {self._spec.prune_on} {value:.4g}'))
        if value is None or self._spec.pruner == 'none':
            return
        self._trial.report(value if self._spec.minimize else -value, step)
        if self._trial.should_prune():
            import optuna

            raise optuna.TrialPruned(f'pruned at step {step}')
