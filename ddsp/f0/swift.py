"""The estimator `'swift'`: the small network of the package swift-f0, which carries its weights.

The network answers every 16 ms; between its frames log frequency is interpolated by a monotone cubic.
"""

from __future__ import annotations

import hashlib
import pathlib

import numpy as np
import scipy.interpolate

from ddsp.errors import require
from ddsp.f0.framing import SAMPLE_RATE, VOICED, fill_unvoiced

_HOP = 256
_MIN_SAMPLES = 2048


class Swift:
    """Pitch from 47 to 2094 Hz by swift-f0; needs that package (and onnxruntime with it)."""

    name = 'swift'

    def __init__(self) -> None:
        module = require('swift_f0', "for the pitch estimator 'swift'")
        # One thread: whoever has several recordings runs several workers.
        self._detector = module.SwiftF0(threads=1)
        weights = pathlib.Path(str(module.__file__)).with_name('model.onnx').read_bytes()
        self.weights_sha256 = hashlib.sha256(weights).hexdigest()

    def predict(
        self, audio: np.ndarray, frame_rate: float, n_frames: int, viterbi: bool = True
    ) -> tuple[np.ndarray, np.ndarray]:
        """Pitch of each frame, as `F0Estimator` says. The network needs no decoding: `viterbi` is ignored."""
        # A whole number of hops, so that the network sees the end as well.
        missing = max(_MIN_SAMPLES - len(audio), -len(audio) % _HOP)
        result = self._detector.detect(
            np.pad(np.asarray(audio, np.float32), (0, missing + _HOP)), SAMPLE_RATE
        )
        pitch, confidence = result.pitch_hz, result.confidence
        wanted = np.arange(n_frames) / frame_rate
        times = np.asarray(result.timestamps)
        voiced = confidence >= VOICED
        confident = np.interp(wanted, times, confidence).astype(np.float32)
        bridged = fill_unvoiced(pitch, voiced)
        if not voiced.any() or len(times) < 2:
            return np.zeros(n_frames, np.float32), confident
        curve = scipy.interpolate.PchipInterpolator(times, np.log(bridged))
        f0_hz = np.exp(curve(np.clip(wanted, times[0], times[-1])))
        return f0_hz.astype(np.float32), confident
