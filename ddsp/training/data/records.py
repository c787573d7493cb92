"""Providers that read TFRecord files: prepared dataset directories, and upstream's file patterns."""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from typing import Any

import gin
import numpy as np
import tensorflow as tf

from ddsp import spectral_ops
from ddsp.io.dataset import Dataset, DatasetError, open_dataset
from ddsp.training.data.base import UNREADABLE, SeededProvider, numbered
from ddsp.training.data.record_files import Part
from ddsp.training.data.variation import Variation

_register = gin.register(module='ddsp.training.data')
_PARALLEL_FILES = 16
_MEMORY = 128 * 2**20  # bytes of records that are kept, or that wait to be drawn
_FRAME_SIZE = 1024  # CREPE's; the number of frames does not depend on it
_ENDLESS = 2**40


class RecordProvider(SeededProvider):
    """Base of providers that read records from TFRecord files; the order depends on the seed alone.

    Small datasets are kept in memory and shuffled as a whole, anew in every pass. Larger ones are read from
    many files at once, in an order of the files that is new in every pass, and shuffled in blocks.

    Args:
      sample_rate: Sample rate in Hz.
      frame_rate: Feature frames per second.
      seed: Random seed.
      cache: Keep the records in memory; None: where they take less than 128 MiB.
      variation: Crops and levels.
    """

    def __init__(
        self,
        sample_rate: int,
        frame_rate: int,
        *,
        seed: int = 0,
        cache: bool | None = None,
        variation: Variation | None = None,
    ) -> None:
        super().__init__(sample_rate, frame_rate)
        self.seed = seed
        self.cache = cache
        self._variation = variation

    def _parts(self) -> Sequence[Part]:
        """The files."""
        raise NotImplementedError

    def _parse(self, record: tf.Tensor) -> dict[str, tf.Tensor]:
        """The features of a serialised example."""
        raise NotImplementedError

    def _example_bytes(self) -> int:
        """Size of an example, about."""
        raise NotImplementedError

    def get_examples(self, shuffle: bool = True, repeats: int = -1, start: int = 0) -> tf.data.Dataset:
        """Examples, one after the other; see the base class."""
        return self._some(None, shuffle, repeats, start)

    def _some(self, wanted: Any, shuffle: bool, repeats: int, start: int) -> tf.data.Dataset:
        """All examples, or those whose number is wanted: the others are not parsed, nor read from memory."""
        first, skip = divmod(start, max(self._count, 1)) if start else (0, 0)
        passes = tf.data.Dataset.range(first, repeats if repeats >= 0 else _ENDLESS)
        if self._is_cached:
            kept, count = self._kept_records, self._count
            order = passes.flat_map(lambda epoch: self._order(epoch, count, shuffle)).skip(skip)
            records = numbered(order, start, wanted).map(lambda n, i: (n, tf.gather(kept, i)))
        else:
            read = passes.flat_map(lambda epoch: self._pass(epoch, shuffle)).skip(skip)
            records = numbered(read, start, wanted)

        def example(number: tf.Tensor, record: tf.Tensor) -> dict[str, tf.Tensor]:
            features = self._parse(record)
            if self._variation is None:
                return features
            return self._variation(features, number, self.seed, random=shuffle)

        return records.map(example, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)

    @functools.cached_property
    def _count(self) -> int:
        """Number of examples."""
        return sum(len(part) for part in self._parts())

    @functools.cached_property
    def _is_cached(self) -> bool:
        if self.cache is None:
            return sum(part.bytes for part in self._parts()) < _MEMORY
        return self.cache

    @functools.cached_property
    def _kept_records(self) -> tf.Tensor:
        """All records [n], in the order of the files."""
        try:
            with tf.init_scope():  # also when asked for within a graph
                records = self._read(*self._columns())
                return next(iter(records.batch(max(self._count, 1))), tf.constant([], tf.string))
        except UNREADABLE as error:
            raise self.explain(error) from error

    def _columns(self) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Paths, records to skip and to take of all files."""
        parts = self._parts()
        takes = [part.take if part.take >= 0 else _ENDLESS for part in parts]
        skips = tf.constant([part.skip for part in parts], tf.int64)
        return tf.constant([part.path for part in parts]), skips, tf.constant(takes, tf.int64)

    def _read(self, paths: tf.Tensor, skips: tf.Tensor, takes: tf.Tensor) -> tf.data.Dataset:
        """Serialised examples of files, of several by turns."""
        return self._by_turns(
            tf.data.Dataset.from_tensor_slices((paths, skips, takes)),
            lambda path, skip, take: tf.data.TFRecordDataset(path).skip(skip).take(take),
        )

    def _by_turns(self, files: tf.data.Dataset, read: Any) -> tf.data.Dataset:
        """One example of each of several files, then the next ones."""
        return files.interleave(
            read,
            cycle_length=min(len(self._parts()), _PARALLEL_FILES),
            num_parallel_calls=tf.data.AUTOTUNE,
            deterministic=True,
        )

    def read_order(self) -> list[int]:
        """Numbers of the examples, counted file after file, in the order in which they come unshuffled."""
        ends = np.cumsum([0, *(len(part) for part in self._parts())])
        files = tf.data.Dataset.from_tensor_slices((ends[:-1], ends[1:]))
        return [int(i) for i in self._by_turns(files, tf.data.Dataset.range).as_numpy_iterator()]

    def _order(self, epoch: tf.Tensor, count: int, shuffle: bool) -> tf.data.Dataset:
        """Numbers of the kept records in the order of a pass."""
        if not shuffle:
            return tf.data.Dataset.range(count)
        order = tf.random.experimental.stateless_shuffle(tf.range(count, dtype=tf.int64), self._key(epoch, 0))
        return tf.data.Dataset.from_tensor_slices(order)

    def _pass(self, epoch: tf.Tensor, shuffle: bool) -> tf.data.Dataset:
        """Serialised examples of a pass, read from the files."""
        if not shuffle:
            return self._read(*self._columns())
        order = tf.random.experimental.stateless_shuffle(tf.range(len(self._parts())), self._key(epoch, 0))
        records = self._read(*(tf.gather(column, order) for column in self._columns()))
        # Dataset.shuffle takes no seed that depends on the pass, without which a resumed training would have
        # to read everything again; so blocks are shuffled, and the next one is read meanwhile.
        blocks = records.batch(int(np.clip(_MEMORY // self._example_bytes(), 16, 10000))).enumerate(1)
        shuffled = blocks.map(
            lambda i, block: tf.random.experimental.stateless_shuffle(block, self._key(epoch, i))
        )
        return shuffled.prefetch(1).unbatch()

    def _key(self, epoch: tf.Tensor, block: Any) -> tf.Tensor:
        return tf.stack([tf.cast(epoch, tf.int64), tf.cast(block, tf.int64) + self.seed * 2**32])

    def explain(self, error: Exception) -> DatasetError:
        """Finds the file that cannot be read."""
        for part in self._parts():
            n = 0
            try:
                for record in tf.data.TFRecordDataset(part.path):
                    self._parse(record)
                    n += 1
            except UNREADABLE as cause:
                if isinstance(cause, tf.errors.InvalidArgumentError):
                    return DatasetError(f'{part.path}: {self._explain_record(record, cause)} (example {n})')
                what = 'is missing' if isinstance(cause, tf.errors.NotFoundError) else 'is damaged'
                return DatasetError(
                    f'{part.path} {what} (after {n} examples): {cause.message}. Prepare the dataset again'
                )
        return super().explain(error)

    def _explain_record(self, record: tf.Tensor, cause: Exception) -> str:
        """What is wrong with a record that cannot be parsed."""
        return str(cause).strip().splitlines()[0]


class _PlainProvider(RecordProvider):
    """Base of providers of examples with upstream's features, whose lengths are known.

    Args:
      sample_rate: Sample rate in Hz.
      frame_rate: Feature frames per second.
      record_secs: Length of the examples in the files, in seconds.
      seed, cache, crop_secs, gain_db: As in `DatasetProvider`.
    """

    def __init__(
        self,
        sample_rate: int,
        frame_rate: int,
        record_secs: float,
        *,
        seed: int,
        cache: bool | None,
        crop_secs: float | None,
        gain_db: tuple[float, float] | None,
    ) -> None:
        variation = None
        if crop_secs is not None or gain_db is not None:
            variation = Variation(sample_rate, frame_rate, crop_secs, gain_db)
            variation.check_length(record_secs)
        super().__init__(sample_rate, frame_rate, seed=seed, cache=cache, variation=variation)
        self.example_secs = record_secs if crop_secs is None else crop_secs

    def _feature_lengths(self) -> dict[str, int]:
        """Number of values of each feature of an example in the files."""
        raise NotImplementedError

    def _example_bytes(self) -> int:
        return 4 * sum(self._feature_lengths().values())

    def _parse(self, record: tf.Tensor) -> dict[str, tf.Tensor]:
        spec = {key: tf.io.FixedLenFeature([n], tf.float32) for key, n in self._feature_lengths().items()}
        return tf.io.parse_single_example(record, spec)

    def _explain_record(self, record: tf.Tensor, cause: Exception) -> str:
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


@gin.configurable(module='ddsp.training.data')  # also where it is made by hand: see rates.py
class DatasetProvider(_PlainProvider):
    """Examples of a prepared dataset directory, whose own metadata say what is in it.

    Args:
      path: As in `ddsp.io.dataset.open_dataset`, or an open dataset.
      split: Name of the split.
      seed: Random seed.
      cache: Keep the records in memory; None: where they take less than 128 MiB.
      crop_secs: Length to cut out of each example, at random where they are shuffled; None: all of it.
      gain_db: (lowest, highest) change of level of shuffled examples, dB; None: none.

    Raises:
      DatasetError: There is no finished dataset or no such split, or files are missing or have another size
        than was written.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | Dataset = gin.REQUIRED,
        split: str = 'train',
        seed: int = 0,
        cache: bool | None = None,
        crop_secs: float | None = None,
        gain_db: tuple[float, float] | None = None,
    ) -> None:
        self.dataset = path if isinstance(path, Dataset) else open_dataset(path)
        super().__init__(
            self.dataset.sample_rate, self.dataset.frame_rate, self.dataset.example_secs, seed=seed,
            cache=cache, crop_secs=crop_secs, gain_db=gain_db,
        )  # fmt: skip
        self.split = split
        self.centered = self.dataset.centered
        paths = self.dataset.files(split)
        self._rows = list(zip(paths, self.dataset.manifest['splits'][split]['files'], strict=True))
        self._check_sizes()

    def _check_sizes(self) -> None:
        for part, (path, row) in zip(self._parts(), self._rows, strict=True):
            if part.bytes != row['bytes']:
                raise DatasetError(
                    f'{path} is damaged: it has {part.bytes} bytes where {row["bytes"]} were written. '
                    'Prepare the dataset again'
                )

    def _parts(self) -> Sequence[Part]:
        return [Part(path, count=row['examples']) for path, row in self._rows]

    def _feature_lengths(self) -> dict[str, int]:
        return self.dataset.feature_lengths()


@_register
class TFRecordProvider(_PlainProvider):
    """Examples of TFRecord files that match a pattern, as upstream's and our preparation write them.

    Args:
      file_pattern: Pattern such as `'data/train.tfrecord*'`, or several.
      example_secs: Length of an example in the files, s.
      sample_rate: Sample rate in Hz.
      frame_rate: Feature frames per second.
      centered: Whether these have one frame more.
      seed: Random seed.
      cache: Keep the records in memory; None: where they take less than 128 MiB.
      crop_secs: Length to cut out of each example, at random where they are shuffled; None: all of it.
      gain_db: (lowest, highest) change of level of shuffled examples, dB; None: none.

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
        seed: int = 0,
        cache: bool | None = None,
        crop_secs: float | None = None,
        gain_db: tuple[float, float] | None = None,
    ) -> None:
        super().__init__(
            sample_rate, frame_rate, example_secs, seed=seed, cache=cache, crop_secs=crop_secs,
            gain_db=gain_db,
        )  # fmt: skip
        self._file_pattern = file_pattern or self.default_file_pattern
        self._record_secs = example_secs
        self.centered = centered

    @property
    def default_file_pattern(self) -> str:
        """Pattern when none is given; there is none for this class."""
        raise NotImplementedError(f"{type(self).__name__} needs file_pattern, such as 'data/train.tfrecord*'")

    def get_feature_length(self, centered: bool) -> int:
        """Frames of an example."""
        padding = 'center' if centered else 'same'
        hop = 16000 // self.frame_rate
        return spectral_ops.get_framed_lengths(round(16000 * self._record_secs), _FRAME_SIZE, hop, padding)[0]

    @functools.cached_property
    def _found(self) -> list[Part]:
        paths = sorted(tf.io.gfile.glob(self._file_pattern))
        if not paths:
            raise DatasetError(f'no file matches {self._file_pattern!r} ({type(self).__name__}.file_pattern)')
        return [Part(path) for path in paths]

    def _parts(self) -> Sequence[Part]:
        return self._found

    def _feature_lengths(self) -> dict[str, int]:
        lengths = {'audio': round(self._record_secs * self.sample_rate)}
        if self._has_audio_16k and self._records_hold_audio_16k:
            lengths['audio_16k'] = round(self._record_secs * 16000)
        return lengths | dict.fromkeys(
            ('f0_hz', 'f0_confidence', 'loudness_db'), self.get_feature_length(self.centered)
        )

    @functools.cached_property
    def _records_hold_audio_16k(self) -> bool:
        """Upstream writes it always, we only where it is not the same as `audio`."""
        with tf.init_scope():  # also when asked for within a graph
            for record in tf.data.TFRecordDataset(self._parts()[0].path).take(1):
                return 'audio_16k' in tf.train.Example.FromString(record.numpy()).features.feature
        return self.sample_rate != 16000


@_register
class LegacyTFRecordProvider(TFRecordProvider):
    """`TFRecordProvider` for datasets made before version 3 of upstream, which have no `audio_16k`."""

    _has_audio_16k = False
