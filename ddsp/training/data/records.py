"""Providers that read TFRecord files: prepared dataset directories, and upstream's file patterns."""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence
from typing import Any

import gin
import numpy as np
import tensorflow as tf

from ddsp import spectral_ops
from ddsp.dataset import Dataset, DatasetError, open_dataset
from ddsp.training.data.base import UNREADABLE, DataProvider

_register = gin.register(module='ddsp.training.data')
_PARALLEL_FILES = 16
_SHUFFLE_BYTES = 256 * 2**20  # memory for examples that wait to be drawn
_FRAME_SIZE = 1024  # CREPE's; the number of frames does not depend on it
_ENDLESS = 2**40


class _RecordProvider(DataProvider):
    """Reads float features of fixed lengths from TFRecord files; the order depends on the seed alone."""

    can_start_later = True
    seed = 0

    def _files(self) -> Sequence[str]:
        raise NotImplementedError

    def _feature_lengths(self) -> dict[str, int]:
        raise NotImplementedError

    def _count(self) -> int:
        """Number of examples."""
        return sum(count_records(path) for path in self._files())

    def get_dataset(self, shuffle: bool = True) -> tf.data.Dataset:
        """One pass over the examples, dictionaries of features."""
        records = self._pass(tf.constant(0, tf.int64), shuffle)
        return records.map(self._parse, num_parallel_calls=tf.data.AUTOTUNE)

    def get_batch(
        self,
        batch_size: int,
        shuffle: bool = True,
        repeats: int = -1,
        drop_remainder: bool = True,
        start: int = 0,
    ) -> tf.data.Dataset:
        """Batches of examples, in an order that depends on the seed alone.

        Args:
          batch_size: Examples of a batch.
          shuffle: Shuffle files and examples, anew in every pass.
          repeats: Passes over the data; -1: without end.
          drop_remainder: Leave out a last batch that is not full.
          start: Begin after so many examples, where an interrupted training goes on.

        Returns:
          Dataset of dictionaries of tensors `[batch, ...]`.
        """
        first, skip = divmod(start, max(self._count(), 1)) if start else (0, 0)
        passes = tf.data.Dataset.range(first, repeats if repeats >= 0 else _ENDLESS)
        records = passes.flat_map(lambda epoch: self._pass(epoch, shuffle)).skip(skip)
        examples = records.map(self._parse, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
        return examples.batch(batch_size, drop_remainder=drop_remainder).prefetch(2)

    def _pass(self, epoch: tf.Tensor, shuffle: bool) -> tf.data.Dataset:
        """Serialised examples of one pass."""
        paths = tf.constant(list(self._files()))
        if shuffle:
            paths = tf.random.experimental.stateless_shuffle(paths, self._key(epoch, 0))
        records = tf.data.Dataset.from_tensor_slices(paths).interleave(
            tf.data.TFRecordDataset,
            cycle_length=min(len(self._files()), _PARALLEL_FILES),
            num_parallel_calls=tf.data.AUTOTUNE,
            deterministic=True,
        )
        if not shuffle:
            return records
        # Dataset.shuffle takes no seed that depends on the pass, without which a resumed training would have
        # to read everything again; so blocks are shuffled.
        blocks = records.batch(self._shuffle_buffer()).enumerate(1)
        return blocks.map(
            lambda i, block: tf.random.experimental.stateless_shuffle(block, self._key(epoch, i))
        ).unbatch()

    def _key(self, epoch: tf.Tensor, block: Any) -> tf.Tensor:
        return tf.stack([tf.cast(epoch, tf.int64), tf.cast(block, tf.int64) + self.seed * 2**32])

    def _shuffle_buffer(self) -> int:
        example_bytes = 4 * sum(self._feature_lengths().values())
        return int(np.clip(_SHUFFLE_BYTES // example_bytes, 16, 10000))

    def _parse(self, record: tf.Tensor) -> dict[str, tf.Tensor]:
        spec = {key: tf.io.FixedLenFeature([n], tf.float32) for key, n in self._feature_lengths().items()}
        return tf.io.parse_single_example(record, spec)

    def explain(self, error: Exception) -> DatasetError:
        """Finds the file that cannot be read."""
        for path in self._files():
            n = 0
            try:
                for record in tf.data.TFRecordDataset(path):
                    self._parse(record)
                    n += 1
            except UNREADABLE as cause:
                if isinstance(cause, tf.errors.InvalidArgumentError):
                    return DatasetError(f'{path}: {self._explain_lengths(record)} (example {n})')
                what = 'is missing' if isinstance(cause, tf.errors.NotFoundError) else 'is damaged'
                return DatasetError(
                    f'{path} {what} (after {n} examples): {cause.message}. Prepare the dataset again'
                )
        return super().explain(error)

    def _explain_lengths(self, record: tf.Tensor) -> str:
        features = tf.train.Example.FromString(record.numpy()).features.feature
        wrong = []
        for key, expected in self._feature_lengths().items():
            found = len(features[key].float_list.value) if key in features else None
            if found is None:
                wrong.append(f'there is no feature {key!r} (there are {", ".join(sorted(features))})')
            elif found != expected:
                wrong.append(f'{key!r} has {found} values, {expected} were expected')
        return (
            '; '.join(wrong) + '. Do sample_rate, frame_rate, example_secs and centered of the provider '
            'agree with those that the dataset was prepared with?'
        )


@_register
class DatasetProvider(_RecordProvider):
    """Examples of a prepared dataset directory, whose own metadata say what is in it.

    Args:
      path: As in `ddsp.dataset.open_dataset`, or an open dataset.
      split: Name of the split.
      seed: Of the order of the examples.

    Raises:
      DatasetError: There is no finished dataset or no such split, or files are missing or have another size
        than was written.
    """

    def __init__(
        self, path: str | os.PathLike[str] | Dataset = gin.REQUIRED, split: str = 'train', seed: int = 0
    ) -> None:
        self.dataset = path if isinstance(path, Dataset) else open_dataset(path)
        super().__init__(self.dataset.sample_rate, self.dataset.frame_rate)
        self.split = split
        self.seed = seed
        self.example_secs = self.dataset.example_secs
        self.centered = self.dataset.centered
        self._paths = self.dataset.files(split)
        self._check_sizes()

    def _check_sizes(self) -> None:
        rows = self.dataset.manifest['splits'][self.split]['files']
        for path, row in zip(self._paths, rows, strict=True):
            try:
                size = tf.io.gfile.stat(path).length
            except tf.errors.NotFoundError:
                raise DatasetError(f'{path} is missing. Prepare the dataset again') from None
            if size != row['bytes']:
                raise DatasetError(
                    f'{path} is damaged: it has {size} bytes where {row["bytes"]} were written. Prepare the '
                    'dataset again'
                )

    def _files(self) -> Sequence[str]:
        return self._paths

    def _feature_lengths(self) -> dict[str, int]:
        return self.dataset.feature_lengths()

    def _count(self) -> int:
        return self.dataset.splits[self.split]

    def _shuffle_buffer(self) -> int:
        return min(super()._shuffle_buffer(), max(self._count(), 1))


@_register
class TFRecordProvider(_RecordProvider):
    """Examples of TFRecord files that match a pattern, as upstream's and our preparation write them.

    Args:
      file_pattern: Pattern such as `'data/train.tfrecord*'`, or several.
      example_secs: Length of an example, s.
      sample_rate: Of `audio`, Hz.
      frame_rate: Of `f0_hz`, `f0_confidence` and `loudness_db`, frames per second.
      centered: Whether these have one frame more.

    Raises:
      DatasetError: No file matches.
    """

    _has_audio_16k = True

    def __init__(
        self,
        file_pattern: str | Sequence[str] | None = None,
        example_secs: float = 4,
        sample_rate: int = 16000,
        frame_rate: int = 250,
        centered: bool = False,
    ) -> None:
        super().__init__(sample_rate, frame_rate)
        self._file_pattern = file_pattern or self.default_file_pattern
        self.example_secs = example_secs
        self.centered = centered
        self._paths: list[str] | None = None

    @property
    def default_file_pattern(self) -> str:
        """Pattern when none is given; there is none for this class."""
        raise NotImplementedError(f"{type(self).__name__} needs file_pattern, such as 'data/train.tfrecord*'")

    def get_feature_length(self, centered: bool) -> int:
        """Frames of an example."""
        padding = 'center' if centered else 'same'
        hop = 16000 // self.frame_rate
        return spectral_ops.get_framed_lengths(round(16000 * self.example_secs), _FRAME_SIZE, hop, padding)[0]

    def _files(self) -> Sequence[str]:
        if self._paths is None:
            self._paths = sorted(tf.io.gfile.glob(self._file_pattern))
            if not self._paths:
                raise DatasetError(
                    f'no file matches {self._file_pattern!r} ({type(self).__name__}.file_pattern)'
                )
        return self._paths

    def _feature_lengths(self) -> dict[str, int]:
        lengths = {'audio': round(self.example_secs * self.sample_rate)}
        if self._has_audio_16k and self._records_hold_audio_16k():
            lengths['audio_16k'] = round(self.example_secs * 16000)
        return lengths | dict.fromkeys(
            ('f0_hz', 'f0_confidence', 'loudness_db'), self.get_feature_length(self.centered)
        )

    def _records_hold_audio_16k(self) -> bool:
        """Upstream writes it always, we only where it is not the same as `audio`."""
        if not hasattr(self, '_audio_16k'):
            self._audio_16k = self.sample_rate != 16000
            with tf.init_scope():  # also when asked for within a graph
                first = list(tf.data.TFRecordDataset(self._files()[0]).take(1))
            for record in first:
                self._audio_16k = 'audio_16k' in tf.train.Example.FromString(record.numpy()).features.feature
        return self._audio_16k


@_register
class LegacyTFRecordProvider(TFRecordProvider):
    """`TFRecordProvider` for datasets made before version 3 of upstream, which have no `audio_16k`."""

    _has_audio_16k = False


def count_records(path: str) -> int:
    """Number of records in a TFRecord file, from their headers alone.

    Raises:
      DatasetError: The file ends within a record.
    """
    count, position = 0, 0
    with tf.io.gfile.GFile(path, 'rb') as file:
        size = file.size()
        while position < size:
            header = file.read(8)
            if len(header) < 8:
                raise DatasetError(f'{path} is damaged: it ends within record {count}')
            position += (
                8 + 4 + struct.unpack('<Q', header)[0] + 4
            )  # length, its checksum, data, their checksum
            count += 1
            if position < size:
                file.seek(position)
    if position != size:
        raise DatasetError(f'{path} is damaged: it ends within record {count - 1}')
    return count
