"""A bundle as MLflow loads it (`mlflow.pyfunc.load_model`): audio in, audio out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ddsp.errors import DDSPError
from ddsp.inference.bundle import Bundle, load_bundle
from ddsp.inference.transfer import transfer


class BundleModel:
    """What MLflow calls.

    Args:
      bundle: The model.
    """

    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle

    def predict(self, model_input: Any, params: Mapping[str, Any] | None = None) -> dict[str, np.ndarray]:
        """Plays recordings with the model.

        Args:
          model_input: `{'audio': [batch, n_samples]}`, or the array itself.
          params: `sample_rate` (Hz; the model's by default), `pitch_shift_semitones`, `loudness_shift_db`.

        Returns:
          `{'audio': [batch, n_samples]}` at the model's sample rate.

        Raises:
          DDSPError: The audio has another shape.
        """
        params = params or {}
        audio = model_input['audio'] if isinstance(model_input, Mapping) else model_input
        audio = np.asarray(audio, np.float32)
        if audio.ndim != 2:
            raise DDSPError(f'audio must be [batch, n_samples]; it has shape {audio.shape}')
        results = [
            transfer(
                self.bundle,
                signal,
                int(params.get('sample_rate', self.bundle.sample_rate)),
                pitch_shift_semitones=float(params.get('pitch_shift_semitones', 0.0)),
                loudness_shift_db=float(params.get('loudness_shift_db', 0.0)),
                match_loudness=False,
            ).audio
            for signal in audio
        ]
        return {'audio': np.stack(results)}


def _load_pyfunc(path: str) -> BundleModel:
    """The entry point by which MLflow loads the bundle."""
    return BundleModel(load_bundle(path))
