"""Providers of training data."""

from ddsp.training.data.base import DataProvider, SeededProvider, iterate
from ddsp.training.data.multi import BaseMultiProvider, MixedProvider, ZippedProvider
from ddsp.training.data.records import DatasetProvider, LegacyTFRecordProvider, TFRecordProvider
from ddsp.training.data.synthetic import SyntheticProvider
from ddsp.training.data.tfds import ExperimentalDataProvider, NSynthTfds, TfdsProvider

__all__ = [
    'BaseMultiProvider',
    'DataProvider',
    'DatasetProvider',
    'ExperimentalDataProvider',
    'LegacyTFRecordProvider',
    'MixedProvider',
    'NSynthTfds',
    'SeededProvider',
    'SyntheticProvider',
    'TFRecordProvider',
    'TfdsProvider',
    'ZippedProvider',
    'iterate',
]
