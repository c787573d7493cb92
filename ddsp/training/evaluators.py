"""Evaluators: measures, and audio to hear, of a model on batches of a dataset."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Mapping
from typing import Any

import gin
import numpy as np

from ddsp.io.audio import write_wav
from ddsp.training import metrics

_register = gin.register(module='ddsp.training.evaluators')


class BaseEvaluator:
    """Base of evaluators.

    Args:
      sample_rate: Sample rate in Hz.
      frame_rate: Feature frames per second.
    """

    def __init__(self, sample_rate: int, frame_rate: int) -> None:
        self.set_rates(sample_rate, frame_rate)

    def set_rates(self, sample_rate: int, frame_rate: int) -> None:
        """Sets the rates."""
        self.sample_rate = sample_rate
        self.frame_rate = frame_rate

    def set_reference(self, estimator: str) -> None:
        """Names the estimator that made the pitch of the data, where the data say so."""

    def evaluate(
        self, batch: Mapping[str, Any], output: Mapping[str, Any], losses: Mapping[str, Any]
    ) -> None:
        """Takes a batch in: its features, the model's outputs (with `audio_gen`) and losses."""

    def sample(
        self, batch: Mapping[str, Any], outputs: Mapping[str, Any], step: int, save_dir: str
    ) -> list[str]:
        """Writes what there is to hear or see of a batch; returns the paths."""
        return []

    def flush(self, step: int) -> dict[str, float]:
        """The measures since the last flush."""
        return {}


@_register
class BasicEvaluator(BaseEvaluator):
    """Mean losses (`losses/...`); WAV files of target and generated audio."""

    def __init__(self, sample_rate: int, frame_rate: int) -> None:
        super().__init__(sample_rate, frame_rate)
        self._losses: dict[str, list[float]] = {}

    def evaluate(
        self, batch: Mapping[str, Any], output: Mapping[str, Any], losses: Mapping[str, Any]
    ) -> None:
        """Takes the losses of a batch in."""
        for key, value in losses.items():
            self._losses.setdefault(key, []).append(float(value))

    def sample(
        self, batch: Mapping[str, Any], outputs: Mapping[str, Any], step: int, save_dir: str
    ) -> list[str]:
        """Writes `<save_dir>/samples/<step>-<example>-{target,generated}.wav`."""
        folder = pathlib.Path(os.path.expanduser(save_dir)) / 'samples'
        folder.mkdir(parents=True, exist_ok=True)
        paths = []
        pairs = zip(np.asarray(batch['audio']), np.asarray(outputs['audio_gen']), strict=True)
        for i, pair in enumerate(pairs):
            for name, audio in zip(('target', 'generated'), pair, strict=True):
                paths.append(str(folder / f'{step}-{i}-{name}.wav'))
                write_wav(paths[-1], audio, self.sample_rate)
        return paths

    def flush(self, step: int) -> dict[str, float]:
        """Means of the losses."""
        losses, self._losses = self._losses, {}
        return {f'losses/{key}': float(np.mean(values)) for key, values in losses.items()}


@_register
class F0LdEvaluator(BaseEvaluator):
    """Pitch and loudness of the generated audio against the original.

    Args:
      sample_rate: Sample rate in Hz.
      frame_rate: Feature frames per second.
      run_f0_crepe: Also estimate the pitch of the generated audio, which takes time.
      estimator: Pitch estimator for the generated audio, as in `ddsp.f0.estimate_f0`.
    """

    def __init__(
        self, sample_rate: int, frame_rate: int, run_f0_crepe: bool = True, estimator: str = 'auto'
    ) -> None:
        super().__init__(sample_rate, frame_rate)
        self._estimator = estimator
        self._loudness = metrics.LoudnessMetrics(sample_rate, frame_rate)
        self._f0 = (
            metrics.F0CrepeMetrics(sample_rate, frame_rate, estimator=estimator) if run_f0_crepe else None
        )

    def set_reference(self, estimator: str) -> None:
        """Names the estimator that made the pitch of the data: its confidence says which frames count."""
        if self._f0 is not None:
            self._f0 = metrics.F0CrepeMetrics(
                self.sample_rate, self.frame_rate, estimator=self._estimator, reference=estimator
            )

    def evaluate(
        self, batch: Mapping[str, Any], output: Mapping[str, Any], losses: Mapping[str, Any]
    ) -> None:
        """Takes a batch in."""
        self._loudness.update_state(batch, output['audio_gen'])
        if self._f0 is not None:
            self._f0.update_state(batch, output['audio_gen'])

    def flush(self, step: int) -> dict[str, float]:
        """`loudness_db`, `f0_dist` (semitones) and `outlier_ratio`."""
        values = self._loudness.flush(step)
        return values | (self._f0.flush(step) if self._f0 is not None else {})
