"""Providers of TensorFlow Datasets and of saved tf.data datasets."""

from __future__ import annotations

import gin
import tensorflow as tf

from ddsp.errors import require
from ddsp.training.data.base import DataProvider

_register = gin.register(module='ddsp.training.data')


@_register
class ExperimentalDataProvider(DataProvider):
    """A dataset written by `tf.data.Dataset.save`.

    Args:
      data_dir: Its directory.
      sample_rate: Of `audio`, Hz.
      frame_rate: Of the frame-wise features, frames per second.
    """

    def __init__(self, data_dir: str, sample_rate: int, frame_rate: int) -> None:
        super().__init__(sample_rate, frame_rate)
        self._data_dir = data_dir

    def get_dataset(self, shuffle: bool = True) -> tf.data.Dataset:
        """One pass over the examples."""
        dataset = tf.data.Dataset.load(self._data_dir)
        return dataset.shuffle(1024) if shuffle else dataset


class TfdsProvider(DataProvider):
    """A prepared dataset of TensorFlow Datasets.

    Args:
      name: Such as `'nsynth/gansynth_subset.f0_and_loudness:2.3.0'`.
      split: Such as `'train'` or `'train[:50%]'`.
      data_dir: Where the prepared dataset lies; nothing is downloaded.
      sample_rate: Of `audio`, Hz.
      frame_rate: Of the frame-wise features, frames per second.
    """

    def __init__(self, name: str, split: str, data_dir: str, sample_rate: int, frame_rate: int) -> None:
        super().__init__(sample_rate, frame_rate)
        self._name = name
        self._split = split
        self._data_dir = data_dir

    def get_dataset(self, shuffle: bool = True) -> tf.data.Dataset:
        """One pass over the examples, as the dataset holds them."""
        tfds = require('tensorflow_datasets', f'to read {self._name}')
        return tfds.load(
            self._name, data_dir=self._data_dir, split=self._split, shuffle_files=shuffle, download=False
        )


@_register
class NSynthTfds(TfdsProvider):
    """The acoustic subset of NSynth (Engel et al. 2017) with pitch and loudness.

    The default `data_dir` is a public bucket: fast within its region only. Copy it for serious work.

    Args:
      name: Name in TensorFlow Datasets.
      split: `'train'`, `'valid'` or `'test'`.
      data_dir: Where the prepared dataset lies.
      sample_rate: Of `audio`, Hz.
      frame_rate: Of the frame-wise features, frames per second.
      include_note_labels: Also `pitch`, `instrument_source`, `instrument_family` and `instrument`.
    """

    def __init__(
        self,
        name: str = 'nsynth/gansynth_subset.f0_and_loudness:2.3.0',
        split: str = 'train',
        data_dir: str = 'gs://tfds-data/datasets',
        sample_rate: int = 16000,
        frame_rate: int = 250,
        include_note_labels: bool = True,
    ) -> None:
        super().__init__(name, split, data_dir, sample_rate, frame_rate)
        self._include_note_labels = include_note_labels

    def get_dataset(self, shuffle: bool = True) -> tf.data.Dataset:
        """One pass over the examples, flat: `audio`, `f0_hz`, `f0_confidence`, `loudness_db`..."""

        def flat(example: dict) -> dict:
            features = {
                'audio': example['audio'],
                'f0_hz': example['f0']['hz'],
                'f0_confidence': example['f0']['confidence'],
                'loudness_db': example['loudness']['db'],
            }
            if self._include_note_labels:
                features |= {
                    'pitch': example['pitch'],
                    'instrument_source': example['instrument']['source'],
                    'instrument_family': example['instrument']['family'],
                    'instrument': example['instrument']['label'],
                }
            return features

        return super().get_dataset(shuffle).map(flat, num_parallel_calls=tf.data.AUTOTUNE)
