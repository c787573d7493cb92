"""What every data provider can do."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import tensorflow as tf

from ddsp.errors import ConfigError
from ddsp.io.dataset import DatasetError

# What tf.data raises for records that are cut short, altered, or of other lengths than expected.
UNREADABLE = (tf.errors.DataLossError, tf.errors.InvalidArgumentError, tf.errors.NotFoundError)
_BATCHES_AHEAD = 2


class DataProvider:
    """Base of providers: subclasses implement `get_dataset(shuffle)`.

    Args:
      sample_rate: Sample rate in Hz.
      frame_rate: Feature frames per second.
    """

    # Whether get_batch takes `start`, the number of examples that a resumed training has seen.
    can_start_later = False

    def __init__(self, sample_rate: int, frame_rate: int) -> None:
        self._sample_rate = sample_rate
        self._frame_rate = frame_rate

    @property
    def sample_rate(self) -> int:
        """Sample rate in Hz."""
        return self._sample_rate

    @property
    def frame_rate(self) -> int:
        """Feature frames per second."""
        return self._frame_rate

    def get_dataset(self, shuffle: bool) -> tf.data.Dataset:
        """One pass over the examples, dictionaries of features."""
        raise NotImplementedError(f'{type(self).__name__} must implement get_dataset(shuffle)')

    def get_batch(
        self, batch_size: int, shuffle: bool = True, repeats: int = -1, drop_remainder: bool = True
    ) -> tf.data.Dataset:
        """Batches of examples.

        Args:
          batch_size: Examples of a batch.
          shuffle: Whether the order is random.
          repeats: Passes over the data; -1: without end.
          drop_remainder: Leave out a last batch that is not full.

        Returns:
          Dataset of dictionaries of tensors `[batch, ...]`.
        """
        return _batches(self.get_dataset(shuffle).repeat(repeats), batch_size, drop_remainder)

    def explain(self, error: Exception) -> DatasetError:
        """A readable error for what tf.data raised while reading."""
        return DatasetError(f'the data cannot be read: {str(error).strip().splitlines()[0]}')


class SeededProvider(DataProvider):
    """Base of providers whose order depends on a seed alone: they implement `get_examples`."""

    can_start_later = True

    def get_examples(self, shuffle: bool = True, repeats: int = -1, start: int = 0) -> tf.data.Dataset:
        """Examples, one after the other.

        Args:
          shuffle: Whether the order is random, anew in every pass.
          repeats: Passes over the data; -1: without end.
          start: Number of examples to skip.
        """
        raise NotImplementedError(f'{type(self).__name__} must implement get_examples(...)')

    def get_dataset(self, shuffle: bool = True) -> tf.data.Dataset:
        """One pass over the examples, dictionaries of features."""
        return self.get_examples(shuffle, repeats=1)

    def get_batch(
        self,
        batch_size: int,
        shuffle: bool = True,
        repeats: int = -1,
        drop_remainder: bool = True,
        start: int = 0,
        part: tuple[int, int] = (0, 1),
    ) -> tf.data.Dataset:
        """Batches of examples, in an order that depends on the seed alone.

        Args:
          batch_size: Examples of a batch.
          shuffle: Shuffle files and examples, anew in every pass.
          repeats: Passes over the data; -1: without end.
          drop_remainder: Leave out a last batch that is not full.
          start: Number of examples to skip, where an interrupted training goes on.
          part: (number, count): of every batch, the one of `count` equal parts with this number, for one of
            several processes; the examples of the others are not parsed.

        Returns:
          Dataset of dictionaries of tensors `[batch / count, ...]`.

        Raises:
          ConfigError: `batch_size` cannot be taken in equal parts.
        """
        number, count = part
        if batch_size % count:
            raise ConfigError(f'batch_size is {batch_size}, which {count} processes cannot share evenly')
        size = batch_size // count
        if count == 1:
            return _batches(self.get_examples(shuffle, repeats, start), batch_size, drop_remainder)

        def is_ours(n: tf.Tensor) -> tf.Tensor:
            return (n - start) % batch_size // size == number

        return _batches(self._some(is_ours, shuffle, repeats, start), size, drop_remainder)

    def _some(self, wanted: Any, shuffle: bool, repeats: int, start: int) -> tf.data.Dataset:
        """The examples whose number, counted from the beginning of the training, is wanted."""
        return numbered(self.get_examples(shuffle, repeats, start), start, wanted).map(lambda _, x: x)


def numbered(dataset: tf.data.Dataset, start: int, wanted: Any = None) -> tf.data.Dataset:
    """A dataset with numbers from `start` on; where only some are wanted, those."""
    pairs = dataset.enumerate(start)
    return pairs if wanted is None else pairs.filter(lambda n, _: wanted(n))


def _batches(examples: tf.data.Dataset, batch_size: int, drop_remainder: bool) -> tf.data.Dataset:
    """Prefetched batches; the workers of a job share each of them."""
    options = tf.data.Options()
    # By file, each worker would see passes of its own and the number of workers would change the training.
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    batches = examples.batch(batch_size, drop_remainder=drop_remainder).prefetch(_BATCHES_AHEAD)
    return batches.with_options(options)


def iterate(provider: DataProvider, dataset: Iterable) -> Iterator[Any]:
    """Iterates over a provider's batches; unreadable data is a DatasetError that names the file."""
    batches = iter(dataset)
    while True:
        try:
            batch = next(batches)
        except StopIteration:
            return
        except UNREADABLE as error:
            if not hasattr(provider, 'explain'):
                raise
            raise provider.explain(error) from error
        yield batch
