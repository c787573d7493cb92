"""Providers made of others."""

from __future__ import annotations

from collections.abc import Sequence

import gin
import numpy as np
import tensorflow as tf

from ddsp.errors import ConfigError
from ddsp.training.data.base import DataProvider, SeededProvider

_register = gin.register(module='ddsp.training.data')
_BLOCK = 1024  # choices that are drawn at once


@_register
class BaseMultiProvider(DataProvider):
    """Base of providers that combine others of equal rates.

    Args:
      data_providers: The providers.
      batch_size_ratios: Share of each in a batch, scaled to sum 1; without it every share is 1.

    Raises:
      ConfigError: The rates differ, or there is not one share for each provider.
    """

    def __init__(
        self, data_providers: Sequence[DataProvider], batch_size_ratios: Sequence[float] = ()
    ) -> None:
        providers = list(data_providers)
        rates = {(p.sample_rate, p.frame_rate) for p in providers}
        if len(rates) != 1:
            raise ConfigError(
                f'data_providers must have equal rates; (sample_rate, frame_rate) are {sorted(rates)}'
            )
        if batch_size_ratios and len(batch_size_ratios) != len(providers):
            raise ConfigError(
                f'batch_size_ratios has {len(batch_size_ratios)} values for {len(providers)} data_providers'
            )
        super().__init__(*rates.pop())
        self.data_providers = providers
        total = sum(batch_size_ratios)
        self.batch_size_ratios = [r / total for r in batch_size_ratios] or [1.0] * len(providers)
        self.can_start_later = all(p.can_start_later for p in providers)
        self.example_secs = getattr(providers[0], 'example_secs', None)


@_register
class ZippedProvider(BaseMultiProvider):
    """Tuples with an example (or a batch) of each provider."""

    def get_dataset(self, shuffle: bool = True) -> tf.data.Dataset:
        """Tuples of examples."""
        return tf.data.Dataset.zip(tuple(p.get_dataset(shuffle) for p in self.data_providers))

    def get_batch(
        self,
        batch_size: int,
        shuffle: bool = True,
        repeats: int = -1,
        drop_remainder: bool = False,
        start: int = 0,
    ) -> tf.data.Dataset:
        """Tuples of batches; each provider gives its share of `batch_size`.

        Args:
          batch_size: Examples of a batch, before it is shared out.
          shuffle: Whether the order is random.
          repeats: Passes over each provider's data; -1: without end.
          drop_remainder: Leave out a last batch that is not full.
          start: Number of examples to skip, a multiple of `batch_size`.
        """
        sizes = [int(batch_size * ratio) for ratio in self.batch_size_ratios]
        batches = []
        for provider, size in zip(self.data_providers, sizes, strict=True):
            later = {'start': start // batch_size * size} if start else {}
            batches.append(provider.get_batch(size, shuffle, repeats, drop_remainder, **later))
        return tf.data.Dataset.zip(tuple(batches))


@_register
class MixedProvider(BaseMultiProvider):
    """Examples drawn from the providers by their shares.

    Args:
      data_providers: The providers.
      batch_size_ratios: Share of each.
      seed: Random seed of the choice among them.
    """

    def __init__(
        self, data_providers: Sequence[DataProvider], batch_size_ratios: Sequence[float] = (), seed: int = 0
    ) -> None:
        super().__init__(data_providers, batch_size_ratios)
        self.seed = seed

    def get_dataset(self, shuffle: bool = True) -> tf.data.Dataset:
        """Examples of all of them in random alternation, until each was passed through once."""
        datasets = [p.get_dataset(shuffle) for p in self.data_providers]
        return tf.data.Dataset.sample_from_datasets(datasets, weights=self._weights(), seed=self.seed)

    def get_batch(
        self,
        batch_size: int,
        shuffle: bool = True,
        repeats: int = -1,
        drop_remainder: bool = True,
        start: int = 0,
    ) -> tf.data.Dataset:
        """Batches of examples; without end, their order depends on the seeds alone.

        Args:
          batch_size: Examples of a batch.
          shuffle: Whether the providers shuffle.
          repeats: Passes over all; -1: without end.
          drop_remainder: Leave out a last batch that is not full.
          start: Number of examples to skip, where an interrupted training goes on.
        """
        if repeats >= 0 or not self.can_start_later:
            return super().get_batch(batch_size, shuffle, repeats, drop_remainder)
        return _Endless(self).get_batch(batch_size, shuffle, repeats, drop_remainder, start)

    def _weights(self) -> list[float]:
        total = sum(self.batch_size_ratios)
        return [ratio / total for ratio in self.batch_size_ratios]

    def choices(self, block: tf.Tensor) -> tf.Tensor:
        """The provider of each example of a block [1024] of the training."""
        edges = tf.constant(np.cumsum(self._weights())[:-1], tf.float32)
        key = tf.stack([tf.cast(block, tf.int64), tf.constant(self.seed, tf.int64)])
        drawn = tf.random.stateless_uniform((_BLOCK,), key)
        return tf.searchsorted(edges, drawn, side='right', out_type=tf.int64)


class _Endless(SeededProvider):
    """The endless stream of a MixedProvider of providers that can start later."""

    def __init__(self, mixed: MixedProvider) -> None:
        super().__init__(mixed.sample_rate, mixed.frame_rate)
        self._mixed = mixed

    def get_examples(self, shuffle: bool = True, repeats: int = -1, start: int = 0) -> tf.data.Dataset:
        """Examples by the choices from `start` on; each provider goes on where it was then."""
        block, inside = divmod(start, _BLOCK)
        providers = self._mixed.data_providers
        seen = np.zeros(len(providers), np.int64)
        for i in range(block + 1):
            chosen = self._mixed.choices(tf.constant(i)).numpy()
            seen += np.bincount(chosen[: _BLOCK if i < block else inside], minlength=len(seen))
        choices = tf.data.Dataset.range(block, 2**40).map(self._mixed.choices).unbatch().skip(inside)
        streams = [_stream(p, shuffle, int(n)) for p, n in zip(providers, seen, strict=True)]
        return tf.data.Dataset.choose_from_datasets(streams, choices)


def _stream(provider: DataProvider, shuffle: bool, start: int) -> tf.data.Dataset:
    """A provider's examples without end."""
    if isinstance(provider, SeededProvider):
        return provider.get_examples(shuffle, -1, start)
    return provider.get_batch(1, shuffle, -1, start=start).unbatch()  # type: ignore[call-arg]
