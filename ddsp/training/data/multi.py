"""Providers made of others."""

from __future__ import annotations

from collections.abc import Sequence

import gin
import tensorflow as tf

from ddsp.errors import ConfigError
from ddsp.training.data.base import DataProvider

_register = gin.register(module='ddsp.training.data')


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


@_register
class ZippedProvider(BaseMultiProvider):
    """Tuples with an example (or a batch) of each provider."""

    def get_dataset(self, shuffle: bool = True) -> tf.data.Dataset:
        """Tuples of examples."""
        return tf.data.Dataset.zip(tuple(p.get_dataset(shuffle) for p in self.data_providers))

    def get_batch(
        self, batch_size: int, shuffle: bool = True, repeats: int = -1, drop_remainder: bool = False
    ) -> tf.data.Dataset:
        """Tuples of batches; each provider gives its share of `batch_size`."""
        sizes = [int(batch_size * ratio) for ratio in self.batch_size_ratios]
        return tf.data.Dataset.zip(
            tuple(
                p.get_batch(size, shuffle, repeats, drop_remainder)
                for p, size in zip(self.data_providers, sizes, strict=True)
            )
        )


@_register
class MixedProvider(BaseMultiProvider):
    """Examples drawn from the providers by their shares."""

    def get_dataset(self, shuffle: bool = True) -> tf.data.Dataset:
        """Examples of all of them, in random alternation."""
        datasets = [p.get_dataset(shuffle) for p in self.data_providers]
        total = sum(self.batch_size_ratios)
        weights = [ratio / total for ratio in self.batch_size_ratios]
        return tf.data.Dataset.sample_from_datasets(datasets, weights=weights)
