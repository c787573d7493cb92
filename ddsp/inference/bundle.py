"""Model bundles: a directory with everything that it takes to use a trained model.

A bundle may come from anybody. It is data: its configuration is read by `ddsp.training.safe_config`, its
weights are numbers, and none of its files leads outside.
"""

from __future__ import annotations

import dataclasses
import datetime
import functools
import importlib.metadata
import os
import pathlib
import re
import shutil
import sys
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from ddsp.errors import ConfigError, DDSPError
from ddsp.inference.features import FeatureSettings, compute_features, mono, resample
from ddsp.inference.synthesis import Synthesizer
from ddsp.io import bundle_files, files
from ddsp.io.bundle_files import CONFIG, FILES, METADATA, SCHEMA_VERSION, STATISTICS, WEIGHTS, BundleError
from ddsp.io.dataset import Dataset
from ddsp.io.progress import Progress
from ddsp.training import config, models, safe_config
from ddsp.version import __version__


@dataclasses.dataclass
class Bundle:
    """A trained model with what is known about it.

    Attributes:
      path: Its directory.
      model: The model.
      metadata: Content of metadata.json.
      statistics: Content of statistics.json: of the dataset that it was trained on.
      config: Its gin configuration.
    """

    path: pathlib.Path
    model: Any
    metadata: dict[str, Any]
    statistics: dict[str, Any]
    config: str

    @property
    def sample_rate(self) -> int:
        """Sample rate of its audio in Hz."""
        return self.metadata['sample_rate']

    @property
    def frame_rate(self) -> int:
        """Feature frames per second."""
        return self.metadata['frame_rate']

    @property
    def hop_size(self) -> int:
        """Samples of a frame."""
        return self.metadata['hop_size']

    @functools.cached_property
    def synthesizer(self) -> Synthesizer:
        """The model, run on features of any length."""
        return Synthesizer(self.model, self.hop_size)

    def features(
        self, audio: np.ndarray, sample_rate: int, progress: Progress | None = None
    ) -> dict[str, np.ndarray]:
        """Features of audio as the model was trained on them.

        Args:
          audio: Mono signal `[n_samples]`.
          sample_rate: Sample rate in Hz.
          progress: `progress(done, total, text)`.

        Returns:
          `f0_hz`, `f0_confidence`, `loudness_db` `[n_frames]`, and `audio` at the rate of the model.
        """
        features = compute_features(
            audio, sample_rate, **dataclasses.asdict(self.feature_settings), progress=progress
        )
        return {**features, 'audio': resample(mono(audio), sample_rate, self.sample_rate)}

    @property
    def feature_settings(self) -> FeatureSettings:
        """How the features that it was trained on were made."""
        return FeatureSettings(
            self.frame_rate,
            self.metadata['centered'],
            self.metadata.get('alignment', 'center'),
            self.metadata['f0_estimator'],
        )

    def resynthesize(
        self, audio: np.ndarray, sample_rate: int, *, reverb: bool = True, seed: int = 0
    ) -> np.ndarray:
        """Audio through the model.

        Args:
          audio: Mono signal `[n_samples]` of any length.
          sample_rate: Sample rate in Hz.
          reverb: Whether to apply the learned room.
          seed: Random seed of the noise.

        Returns:
          `[n_samples at the model's sample_rate]`, float32.
        """
        return self.synthesize(self.features(audio, sample_rate), reverb=reverb, seed=seed)

    def synthesize(
        self, features: Mapping[str, np.ndarray], *, reverb: bool = True, seed: int = 0
    ) -> np.ndarray:
        """Features to audio.

        Args:
          features: `f0_hz` (Hz) and `loudness_db` (dB), `[n_frames]` each, at the model's frame rate; `audio`
            too when the model has an encoder.
          reverb: Whether to apply the learned room.
          seed: Random seed of the noise.

        Returns:
          `[n_samples]`, float32: as long as `features['audio']` where that is given, else `n_frames *
          hop_size`.
        """
        batch = {
            key: np.asarray(value, np.float32)[None] for key, value in features.items() if key != 'audio_16k'
        }
        blocks = [parts['audio'][0] for parts in self.synthesizer.stream(batch, seed, reverb)]
        audio = np.concatenate(blocks)
        n_samples = len(features['audio']) if 'audio' in features else len(features['f0_hz']) * self.hop_size
        return np.pad(audio, (0, max(0, n_samples - len(audio))))[:n_samples]

    def impulse_response(self) -> np.ndarray | None:
        """The learned room `[n]`, at the model's sample rate; its first sample, the dry path, is 0."""
        reverb = self.synthesizer.reverb
        if reverb is None:
            return None
        controls = reverb.get_controls(np.zeros([1, self.hop_size], np.float32))
        response = np.array(controls['ir'][0], np.float32).reshape(-1)
        response[0] = 0.0
        return response


def save_bundle(
    path: str | os.PathLike[str],
    model: Any,
    dataset: Dataset,
    *,
    metrics: Mapping[str, float] | None = None,
    gin_config: str | None = None,
) -> pathlib.Path:
    """Writes a bundle, whole or not at all; one that is there is replaced.

    The bundle is read back before it is put in place, so that what was saved is known to work.

    Args:
      path: Directory of the bundle.
      model: The trained model.
      dataset: What it was trained on.
      metrics: What it reached, for metadata.json.
      gin_config: The configuration that makes the model; by default the one in use.

    Returns:
      The directory.

    Raises:
      BundleError: It cannot be written, or the configuration does not make the model.
    """
    path = pathlib.Path(path)
    text = safe_config.model_config_str() if gin_config is None else gin_config
    try:
        with files.replacing_folder(path, METADATA, FILES) as part:
            part.mkdir(parents=True)
            (part / CONFIG).write_text(text, encoding='utf-8')
            model.save_weights(part / WEIGHTS)
            shutil.copyfile(dataset.file(STATISTICS), part / STATISTICS)
            metadata = _metadata(model, dataset, metrics or {})
            metadata['sha256'] = {
                name: files.file_sha256(part / name) for name in (CONFIG, WEIGHTS, STATISTICS)
            }
            bundle_files.write_metadata(part, metadata)
            _check_same_weights(load_bundle(part).model, model)
    except OSError as error:
        if isinstance(error, DDSPError):
            raise
        raise BundleError(f'the bundle {path} cannot be written: {error}') from error
    return path


def add_metrics(path: str | os.PathLike[str], metrics: Mapping[str, float]) -> None:
    """Completes the metrics in the metadata of a bundle."""
    path = pathlib.Path(path)
    metadata = bundle_files.read_metadata(path)
    metadata['metrics'] = {**metadata.get('metrics', {}), **metrics}
    bundle_files.write_metadata(path, metadata)


def load_bundle(path: str | os.PathLike[str]) -> Bundle:
    """Opens a bundle.

    Args:
      path: Its directory.

    Returns:
      The bundle, its model ready to be used.

    Raises:
      BundleError: There is none, or a file is missing or damaged; the message names it.
    """
    path = pathlib.Path(path)
    bundle_files.check_files(path)
    metadata = bundle_files.read_metadata(path)
    for name, digest in metadata.get('sha256', {}).items():
        if files.file_sha256(path / name) != digest:
            raise BundleError(f'{path / name} is damaged: it is not the file that was saved')
    try:
        text = (path / CONFIG).read_bytes().decode('utf-8')
    except UnicodeDecodeError as error:
        raise BundleError(f'{path / CONFIG} is damaged: it is not UTF-8 text ({error})') from None
    model = _make_model(path / CONFIG, text, metadata)
    try:
        bundle_files.check_weights(path / WEIGHTS)
        model.load_weights(path / WEIGHTS)
    except DDSPError:
        raise
    except Exception as error:  # whatever HDF5 and Keras make of it
        raise BundleError(
            f'{path / WEIGHTS} cannot be read: it is damaged or belongs to another {CONFIG} '
            f'({_reason(error)})'
        ) from error
    return Bundle(path, model, metadata, bundle_files.read_json(path / STATISTICS), text)


def untrained(bundle: Bundle, seed: int = 0) -> Bundle:
    """The same model with fresh weights, to compare with."""
    keras.utils.set_random_seed(seed)
    model = _make_model(bundle.path / CONFIG, bundle.config, bundle.metadata)
    return dataclasses.replace(bundle, model=model)


def _make_model(source: pathlib.Path, text: str, metadata: Mapping[str, Any]) -> Any:
    """Makes the model of a configuration and creates its weights."""
    with config.isolated():
        try:
            safe_config.parse_model(text, source)
        except ConfigError as error:
            raise BundleError(str(error)) from error
        try:
            named = config.is_bound('get_model.model')
            model = models.get_model() if named else models.Autoencoder()
            model(_silence(metadata), training=False)
        except Exception as error:  # plain values of any kind meet any constructor
            raise BundleError(f'{source} does not make a model: {_reason(error)}') from error
    return model


def _reason(error: Exception) -> str:
    """The line of a message that says what was wrong; Keras puts the layer first."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    keras_line = lines[0].startswith('Exception encountered') and len(lines) > 1
    return re.sub('\x1b\\[\\d*m', '', lines[1 if keras_line else 0])[:300]


def _silence(metadata: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Features of one silent example, to create the weights with."""
    secs = metadata['example_secs']
    n_frames = round(secs * metadata['frame_rate']) + int(metadata['centered'])
    features = {key: np.zeros([1, n_frames], np.float32) for key in ('f0_hz', 'f0_confidence')}
    features['loudness_db'] = np.full([1, n_frames], -80.0, np.float32)
    features['audio'] = np.zeros([1, round(secs * metadata['sample_rate'])], np.float32)
    features['audio_16k'] = np.zeros([1, round(secs * 16000)], np.float32)
    return features


def _metadata(model: Any, dataset: Dataset, metrics: Mapping[str, float]) -> dict[str, Any]:
    packages = ('tensorflow', 'keras', 'numpy')
    return {
        'schema_version': SCHEMA_VERSION,
        'sample_rate': dataset.sample_rate,
        'frame_rate': dataset.frame_rate,
        'hop_size': dataset.sample_rate // dataset.frame_rate,
        'example_secs': dataset.example_secs,
        'centered': dataset.centered,
        'alignment': dataset.manifest.get('alignment', 'center'),
        'f0_estimator': dataset.manifest['f0_estimator'],
        'dataset': {'name': dataset.name, 'version': dataset.version, 'digest': dataset.digest},
        'parameters': int(sum(np.prod(v.shape) for v in model.trainable_variables)),
        'metrics': {key: float(value) for key, value in metrics.items()},
        'versions': {
            'ddsp': __version__,
            'python': '.'.join(map(str, sys.version_info[:3])),
            **{name: importlib.metadata.version(name) for name in packages},
        },
        'created': datetime.datetime.now(datetime.UTC).isoformat(timespec='seconds'),
    }


def _check_same_weights(loaded: Any, model: Any) -> None:
    for kept, ours in zip(loaded.weights, model.weights, strict=True):
        if not np.array_equal(keras.ops.convert_to_numpy(kept), keras.ops.convert_to_numpy(ours)):
            raise BundleError(f'the weight {ours.path} is not what was saved')
