"""Measures of how well generated audio keeps loudness and pitch.

Pitch errors are in MIDI (semitones) over the frames where the reference is sure of a pitch. An example is an
outlier when they are more than an octave in the mean (Engel et al., ICLR 2020, section 5); one without such
frames has no pitch to be compared and counts nowhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ddsp import core, f0
from ddsp.analysis.loudness import loudness_db

MIN_F0_CONFIDENCE = 0.85  # of the paper's CREPE; upstream's functions take it when no estimator is named
OUTLIER_MIDI_THRESH = 12.0  # semitones


def squeeze(input_vector: Any) -> np.ndarray:
    """The array without axes of size 1 (a single value keeps one)."""
    vector = np.squeeze(np.asarray(input_vector))
    return vector[None] if vector.ndim == 0 else vector


def l1_distance(prediction: Any, ground_truth: Any) -> np.ndarray:
    """`|prediction - ground_truth|`, element by element over the shorter length.

    Example:
      >>> l1_distance([1.0, 2.0, 3.0], [1.5, 2.0])
      array([0.5, 0. ])
    """
    a, b = squeeze(prediction), squeeze(ground_truth)
    n = min(len(a), len(b))
    return np.abs(a[:n] - b[:n])


def is_outlier(ground_truth_f0_conf: Any, threshold: float = MIN_F0_CONFIDENCE) -> bool:
    """Upstream's name for a reference without a frame that is sure: it has no pitch to be compared."""
    return bool(np.max(np.asarray(ground_truth_f0_conf)) < threshold)


def pitch_errors(f0_hz: Any, f0_hz_gen: Any, f0_confidence: Any, threshold: float) -> np.ndarray:
    """Errors of the frames where the reference is sure of a pitch.

    Args:
      f0_hz: Reference `[n_frames]`, Hz.
      f0_hz_gen: Pitch of the generated audio `[n_frames]`, Hz.
      f0_confidence: Confidence of the reference `[n_frames]`.
      threshold: Confidence from which a frame is sure: `ddsp.f0.voiced_threshold` of the estimator that
        made the reference.

    Returns:
      Semitones, one for each such frame.

    Example:
      >>> pitch_errors([440.0, 440.0, 0.0], [880.0, 440.0, 440.0], [0.9, 0.2, 0.9], threshold=0.5)
      array([12.])
    """
    distance = l1_distance(hz_to_midi(squeeze(f0_hz)), hz_to_midi(squeeze(f0_hz_gen)))
    sure = (squeeze(f0_confidence) >= threshold) & (squeeze(f0_hz) > 0)
    return distance[sure[: len(distance)]]


def is_pitch_outlier(distance: float) -> bool:
    """Whether an example with this mean error, in semitones, is an outlier."""
    return not distance <= OUTLIER_MIDI_THRESH


def pitch_totals(distances: Sequence[float]) -> dict[str, float]:
    """Figures of all examples that have a pitch.

    Args:
      distances: Mean pitch error of each, in semitones.

    Returns:
      `f0_dist`, the mean without outliers, and `outlier_ratio`, as far as there are examples for them.

    Example:
      >>> pitch_totals([0.25, 0.75, 24.0, 0.5])
      {'f0_dist': 0.5, 'outlier_ratio': 0.25}
    """
    inside = [distance for distance in distances if not is_pitch_outlier(distance)]
    totals = {'f0_dist': float(np.mean(inside))} if inside else {}
    if distances:
        totals['outlier_ratio'] = (len(distances) - len(inside)) / len(distances)
    return totals


def compute_audio_features(
    audio: Any, frame_rate: int = 250, estimator: Any = 'auto'
) -> dict[str, np.ndarray]:
    """Pitch and loudness of 16 kHz audio.

    Args:
      audio: `[n_samples]`, at 16 kHz.
      frame_rate: Frames per second.
      estimator: Pitch estimator, as in `ddsp.f0.estimate_f0`.

    Returns:
      `audio` `[1, n_samples]`, `loudness_db`, `f0_hz` and `f0_confidence` `[n_frames]`.
    """
    audio = squeeze(audio).astype(np.float32)
    f0_hz, f0_confidence = f0.estimate_f0(audio, 16000, frame_rate, estimator, padding='center')
    loudness = loudness_db(audio, 16000, frame_rate, padding='center')
    return {'audio': audio[None], 'loudness_db': loudness, 'f0_hz': f0_hz, 'f0_confidence': f0_confidence}


def hz_to_midi(f0_hz: Any) -> np.ndarray:
    """Hz to MIDI in numpy; 0 Hz is MIDI 0.

    Example:
      >>> hz_to_midi([0.0, 440.0, 880.0])
      array([ 0., 69., 81.])
    """
    f0_hz = np.asarray(f0_hz, np.float64)
    with np.errstate(divide='ignore'):
        return np.where(f0_hz > 0, 69.0 + 12.0 * np.log2(np.maximum(f0_hz, 1e-9) / 440.0), 0.0)


def f0_dist_conf_thresh(
    f0_hz: Any, f0_hz_gen: Any, f0_confidence: Any, f0_confidence_thresh: float = MIN_F0_CONFIDENCE
) -> float | None:
    """Mean pitch error over the frames where the reference is sure.

    Args:
      f0_hz: Reference `[n_frames]`, Hz.
      f0_hz_gen: Pitch of the generated audio `[n_frames]`, Hz.
      f0_confidence: Confidence of the reference `[n_frames]`.
      f0_confidence_thresh: Confidence from which a frame is sure.

    Returns:
      Semitones, or `None` where no frame is sure.
    """
    errors = pitch_errors(f0_hz, f0_hz_gen, f0_confidence, f0_confidence_thresh)
    return float(np.mean(errors)) if len(errors) else None


class BaseMetrics:
    """Base of measures that are collected over batches and read by `flush`.

    Args:
      sample_rate: Sample rate in Hz.
      frame_rate: Feature frames per second.
      name: Name of the measure.
    """

    def __init__(self, sample_rate: int, frame_rate: int, name: str) -> None:
        self.sample_rate = sample_rate
        self.frame_rate = frame_rate
        self.name = name

    def update_state(self, *args: Any) -> None:
        """Adds a batch."""
        raise NotImplementedError(f'{type(self).__name__} must implement update_state')

    def flush(self, step: int) -> dict[str, float]:
        """The values so far, which are then forgotten."""
        raise NotImplementedError(f'{type(self).__name__} must implement flush')


class LoudnessMetrics(BaseMetrics):
    """`loudness_db`: mean over examples of the mean difference of loudness, dB."""

    def __init__(self, sample_rate: int, frame_rate: int, name: str = 'loudness') -> None:
        super().__init__(sample_rate, frame_rate, name)
        self._distances: list[float] = []

    def update_state(self, batch: Mapping[str, Any], audio_gen: Any) -> None:
        """Adds a batch.

        Args:
          batch: With `audio` `[batch, n_samples]`.
          audio_gen: Generated audio `[batch, n_samples]`.
        """
        for reference, generated in zip(np.asarray(batch['audio']), np.asarray(audio_gen), strict=True):
            pair = (loudness_db(x, self.sample_rate, self.frame_rate) for x in (reference, generated))
            self._distances.append(float(np.mean(l1_distance(*pair))))

    def flush(self, step: int) -> dict[str, float]:
        """`{'loudness_db': mean}`; nothing where no batch came."""
        values, self._distances = self._distances, []
        return {'loudness_db': float(np.mean(values))} if values else {}


class F0CrepeMetrics(BaseMetrics):
    """`f0_dist` (semitones) and `outlier_ratio` with the pitch taken from the generated audio.

    Args:
      sample_rate: Sample rate in Hz.
      frame_rate: Feature frames per second.
      name: Name of the measure.
      estimator: Pitch estimator for the generated audio; any of `ddsp.f0`, not only CREPE.
      reference: The estimator that made the batches' `f0_confidence`; None: the same.
    """

    def __init__(
        self,
        sample_rate: int,
        frame_rate: int,
        name: str = 'f0_crepe',
        estimator: str = 'auto',
        reference: str | None = None,
    ) -> None:
        super().__init__(sample_rate, frame_rate, name)
        self._estimator = estimator
        self._threshold = f0.voiced_threshold(reference or estimator)
        self._distances: list[float] = []

    def update_state(self, batch: Mapping[str, Any], audio_gen: Any) -> None:
        """Adds a batch.

        Args:
          batch: With `f0_hz` and `f0_confidence` `[batch, n_frames]`.
          audio_gen: Generated audio `[batch, n_samples]`.
        """
        for f0_hz, confidence, audio in zip(
            np.asarray(batch['f0_hz']), np.asarray(batch['f0_confidence']), np.asarray(audio_gen), strict=True
        ):
            if is_outlier(confidence, self._threshold):  # saves the estimate: nothing to compare with
                continue
            generated, _ = f0.estimate_f0(audio, self.sample_rate, self.frame_rate, self._estimator)
            distance = f0_dist_conf_thresh(f0_hz, generated, confidence, self._threshold)
            if distance is not None:
                self._distances.append(distance)

    def flush(self, step: int) -> dict[str, float]:
        """`{'f0_dist': mean, 'outlier_ratio': share}`, as far as there are examples for them."""
        values, self._distances = pitch_totals(self._distances), []
        return values


class F0Metrics(BaseMetrics):
    """`f0_dist`, raw pitch accuracy and raw chroma accuracy of a pitch that a model predicts.

    Accuracy is the share of voiced frames within the tolerance (Salamon et al. 2014); chroma accuracy ignores
    octaves.

    Args:
      sample_rate: Sample rate in Hz.
      frame_rate: Feature frames per second.
      rpa_tolerance: Tolerance in cents.
      name: Name of the measure.
      reference: The estimator that made the batches' `f0_confidence`.
    """

    def __init__(
        self,
        sample_rate: int,
        frame_rate: int,
        rpa_tolerance: float = 50,
        name: str = 'f0',
        reference: str = 'auto',
    ) -> None:
        super().__init__(sample_rate, frame_rate, name)
        self._threshold = f0.voiced_threshold(reference)
        self._tolerance = rpa_tolerance / 100.0
        self._rows: list[tuple[float, ...]] = []

    def update_state(self, batch: Mapping[str, Any], f0_hz_predict: Any) -> None:
        """Adds a batch.

        Args:
          batch: With `f0_hz` and `f0_confidence` `[batch, n_frames(, 1)]`.
          f0_hz_predict: `[batch, n_frames(, 1)]`, Hz; the reference is brought to its number of frames.
        """
        predicted = np.asarray(f0_hz_predict).reshape(len(f0_hz_predict), -1)
        n = predicted.shape[1]
        reference, confidence = (
            np.asarray(core.resample(np.asarray(batch[key]).reshape(len(predicted), -1), n))
            for key in ('f0_hz', 'f0_confidence')
        )
        for truth, sure, guess in zip(reference, confidence, predicted, strict=True):
            error = pitch_errors(truth, guess, sure, self._threshold)
            if not len(error):
                continue
            chroma = np.abs((error + 6.0) % 12.0 - 6.0)
            right = (error <= self._tolerance, chroma <= self._tolerance)
            self._rows.append((float(error.mean()), *(float(np.mean(x)) for x in right)))

    def flush(self, step: int) -> dict[str, float]:
        """`f0_dist` (semitones), `raw_pitch_accuracy`, `raw_chroma_accuracy`."""
        rows, self._rows = self._rows, []
        names = ('f0_dist', 'raw_pitch_accuracy', 'raw_chroma_accuracy')
        return dict(zip(names, np.mean(rows, axis=0).tolist(), strict=True)) if rows else {}
