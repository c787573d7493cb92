"""Providers of TensorFlow Datasets and of saved tf.data datasets."""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from typing import Any

import gin
import tensorflow as tf

from ddsp.errors import require
from ddsp.io.dataset import DatasetError
from ddsp.training.data.base import DataProvider
from ddsp.training.data.records import Part, RecordProvider

_register = gin.register(module='ddsp.training.data')


@_register
class ExperimentalDataProvider(DataProvider):
    """A dataset written by `tf.data.Dataset.save`.

    Args:
      data_dir: Its directory.
      sample_rate: Sample rate in Hz.
      frame_rate: Feature frames per second.
    """

    def __init__(self, data_dir: str, sample_rate: int, frame_rate: int) -> None:
        super().__init__(sample_rate, frame_rate)
        self._data_dir = data_dir

    def get_dataset(self, shuffle: bool = True) -> tf.data.Dataset:
        """One pass over the examples."""
        dataset = tf.data.Dataset.load(self._data_dir)
        return dataset.shuffle(1024) if shuffle else dataset


@_register
class TfdsProvider(RecordProvider):
    """A prepared dataset of TensorFlow Datasets, in TFRecord files.

    Args:
      name: Such as `'nsynth/gansynth_subset.f0_and_loudness:2.3.0'`, or `''` where `data_dir` is the version
        directory itself.
      split: Such as `'train'` or `'train[:50%]'`.
      data_dir: Where the prepared dataset lies; nothing is downloaded.
      sample_rate: Sample rate in Hz.
      frame_rate: Feature frames per second.
      seed: Random seed of the order.
      cache: Keep the records in memory; None: where they take less than 128 MiB.

    Raises:
      DatasetError: There is no such dataset or split, or it is not kept in TFRecord files.
    """

    def __init__(
        self,
        name: str,
        split: str,
        data_dir: str,
        sample_rate: int,
        frame_rate: int,
        seed: int = 0,
        cache: bool | None = None,
    ) -> None:
        super().__init__(sample_rate, frame_rate, seed=seed, cache=cache)
        self._name = name
        self._split = split
        self._data_dir = os.path.expanduser(os.fspath(data_dir))

    @functools.cached_property
    def _builder(self) -> Any:
        tfds = require('tensorflow_datasets', f'to read {self._name or self._data_dir}')
        try:
            if not self._name:
                return tfds.builder_from_directory(self._data_dir)
            return tfds.builder(self._name, data_dir=self._data_dir)
        except (tfds.core.registered.DatasetNotFoundError, FileNotFoundError) as error:
            raise DatasetError(
                f'no TFDS dataset {self._name!r} in {self._data_dir}: {str(error).splitlines()[0]}'
            ) from None

    def _parts(self) -> Sequence[Part]:
        info = self._builder.info
        if info.file_format is None or info.file_format.value != 'tfrecord':
            raise DatasetError(
                f'{self._builder.data_path} is not kept in TFRecord files but in {info.file_format}'
            )
        if not info.splits:
            raise DatasetError(f'{self._builder.data_path} is not prepared: it has no splits')
        try:
            instructions = info.splits[self._split].file_instructions
        except (KeyError, ValueError):
            known = ', '.join(sorted(info.splits))
            raise DatasetError(
                f'{self._builder.data_path} has no split {self._split!r}; its splits are {known}'
            ) from None
        return [Part(str(i.filename), i.skip, i.take, i.examples_in_shard) for i in instructions]

    def _example_bytes(self) -> int:
        info = self._builder.info.splits[self._split.split('[')[0]]
        return max(1, info.num_bytes // max(1, info.num_examples))

    def _parse(self, record: tf.Tensor) -> dict[str, tf.Tensor]:
        return self._builder.info.features.deserialize_example(record)


@_register
class NSynthTfds(TfdsProvider):
    """The acoustic subset of NSynth (Engel et al. 2017) with pitch and loudness.

    The default `data_dir` is a public bucket: fast within its region only. Copy it for serious work.

    Args:
      name: Name in TensorFlow Datasets.
      split: `'train'`, `'valid'` or `'test'`.
      data_dir: Where the prepared dataset lies.
      sample_rate: Sample rate in Hz.
      frame_rate: Feature frames per second.
      include_note_labels: Also `pitch`, `instrument_source`, `instrument_family` and `instrument`.
      seed: Random seed of the order.
      cache: Keep the records in memory; None: where they take less than 128 MiB.
    """

    example_secs = 4.0

    def __init__(
        self,
        name: str = 'nsynth/gansynth_subset.f0_and_loudness:2.3.0',
        split: str = 'train',
        data_dir: str = 'gs://tfds-data/datasets',
        sample_rate: int = 16000,
        frame_rate: int = 250,
        include_note_labels: bool = True,
        seed: int = 0,
        cache: bool | None = None,
    ) -> None:
        super().__init__(name, split, data_dir, sample_rate, frame_rate, seed, cache)
        self._include_note_labels = include_note_labels

    def _parse(self, record: tf.Tensor) -> dict[str, tf.Tensor]:
        """Flat: `audio`, `f0_hz`, `f0_confidence`, `loudness_db`..."""
        example = super()._parse(record)
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
