"""A model as a TensorFlow SavedModel: pitch and loudness in, audio out, without this package."""

from __future__ import annotations

import os
import pathlib
from typing import Any

import numpy as np
import tensorflow as tf

from ddsp.errors import DDSPError
from ddsp.inference import Bundle
from ddsp.io import files

_MARKER = 'export.json'
_MADE = (_MARKER, 'saved_model.pb', 'fingerprint.pb', 'variables', 'assets')
_TOLERANCE = 1e-4  # of full scale, between the exported model and this one


class ExportError(DDSPError):
    """A model that cannot be exported, or whose export does not sound like it."""


def export_saved_model(
    bundle: Bundle,
    path: str | os.PathLike[str],
    *,
    n_frames: int | None = None,
    reverb: bool = True,
    seed: int = 0,
) -> pathlib.Path:
    """Writes a SavedModel, loads it again and compares its output with the model's.

    The signature `serving_default` takes `f0_hz` and `loudness_db` `[batch, n_frames]` and gives `audio`
    `[batch, n_samples]`. `export.json` beside it holds rates and the difference that was measured.

    Args:
      bundle: A model without an encoder.
      path: Directory to write. An earlier export is replaced; other content is not.
      n_frames: Frames of an input; by default those of a training example.
      reverb: Whether to apply the learned room.
      seed: Random seed of the noise, which is the same at every call.

    Returns:
      The directory.

    Raises:
      ExportError: The model has an encoder, or the exported model's output differs.
      DDSPError: The directory holds other files, or is the bundle.
    """
    if bundle.model.encoder is not None:
        raise ExportError(
            f'the model {bundle.path} has an encoder, which needs audio: it cannot be exported yet'
        )
    n_frames = n_frames or round(bundle.metadata['example_secs'] * bundle.frame_rate)
    path = pathlib.Path(path)
    files.check_output(path, bundle.path)
    try:
        with files.replacing_folder(path, _MARKER, _MADE) as part:
            module = _Module(bundle, n_frames, reverb, seed)
            tf.saved_model.save(module, str(part), signatures={'serving_default': module.serve})
            difference = _round_trip(bundle, part, n_frames, reverb, seed)
            description = {
                'sample_rate': bundle.sample_rate,
                'frame_rate': bundle.frame_rate,
                'n_frames': n_frames,
                'n_samples': n_frames * bundle.hop_size,
                'reverb': reverb,
                'max_difference_from_model': difference,
            }
            files.write_json(part / _MARKER, description)
    except (OSError, tf.errors.OpError) as error:
        raise ExportError(f'{path} cannot be written: {error}') from error
    return path


class _Module(tf.Module):
    """What is saved: the weights and one function."""

    def __init__(self, bundle: Bundle, n_frames: int, reverb: bool, seed: int) -> None:
        super().__init__()
        self.weights = [weight.value for weight in bundle.model.weights]
        spec = tf.TensorSpec([None, n_frames], tf.float32)

        @tf.function(input_signature=[spec, spec])
        def serve(f0_hz: tf.Tensor, loudness_db: tf.Tensor) -> dict[str, Any]:
            features = {'f0_hz': f0_hz, 'loudness_db': loudness_db}
            return {'audio': bundle.synthesizer.graph(features, seed=seed, reverb=reverb)}

        self.serve = serve


def _round_trip(bundle: Bundle, folder: pathlib.Path, n_frames: int, reverb: bool, seed: int) -> float:
    """Largest difference between both models on a glide; an ExportError above the tolerance."""
    steps = np.linspace(0.0, 1.0, n_frames, dtype=np.float32)[None]
    features = {'f0_hz': 220.0 * 2.0**steps, 'loudness_db': -40.0 + 30.0 * np.sin(np.pi * steps)}
    expected = bundle.synthesizer(features, seed=seed, reverb=reverb)['audio']
    loaded = tf.saved_model.load(str(folder)).signatures['serving_default']
    audio = loaded(**{key: tf.constant(value) for key, value in features.items()})['audio'].numpy()
    difference = float(np.max(np.abs(audio - expected)))
    if not difference <= _TOLERANCE:
        raise ExportError(
            f'the exported model differs from {bundle.path} by {difference:.2g} of full scale, more than '
            f'{_TOLERANCE}'
        )
    return difference
