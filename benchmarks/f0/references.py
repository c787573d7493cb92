"""What `python -m benchmarks.f0` compares with: the network of swift-f0 as it is, and pyin of librosa."""

from __future__ import annotations

import librosa
import numpy as np
import swift_f0

RATE = 16000
_HOP = 256  # of swift-f0


class Network:
    """swift-f0 without what `ddsp.f0` does to its pitch, interpolated where it is sure."""

    name = 'network'
    voiced_from = 0.5

    def __init__(self) -> None:
        self._detector = swift_f0.SwiftF0(threads=1)

    def predict(
        self, audio: np.ndarray, frame_rate: float, n_frames: int, viterbi: bool = True
    ) -> tuple[np.ndarray, np.ndarray]:
        """As `ddsp.f0.F0Estimator` says."""
        answer = self._detector.detect(np.pad(audio, (0, 2 * _HOP - len(audio) % _HOP)), RATE)
        times, sure = np.asarray(answer.timestamps), answer.confidence >= self.voiced_from
        wanted = np.arange(n_frames) / frame_rate
        confidence = np.interp(wanted, times, answer.confidence)
        if not sure.any():
            return np.zeros(n_frames), confidence
        return np.exp(np.interp(wanted, times[sure], np.log(answer.pitch_hz[sure]))), confidence


class Pyin:
    """pyin of librosa; its window is as long as the lowest pitch of the sounds demands.

    Args:
      lowest_hz: The lowest pitch.
    """

    name = 'pyin'
    voiced_from = 0.5

    def __init__(self, lowest_hz: float) -> None:
        self._lowest_hz = lowest_hz

    def predict(
        self, audio: np.ndarray, frame_rate: float, n_frames: int, viterbi: bool = True
    ) -> tuple[np.ndarray, np.ndarray]:
        """As `ddsp.f0.F0Estimator` says."""
        f0_hz, voiced, _ = librosa.pyin(
            audio, fmin=self._lowest_hz, fmax=2000, sr=RATE, hop_length=round(RATE / frame_rate),
            resolution=0.2, frame_length=1024 if self._lowest_hz > 50 else 2048,
        )  # fmt: skip
        f0_hz, voiced = (np.pad(x, (0, max(0, n_frames - len(x))))[:n_frames] for x in (f0_hz, voiced))
        return np.nan_to_num(f0_hz), voiced.astype(float)
