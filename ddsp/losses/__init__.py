"""Losses: differences that training makes small."""

from ddsp.losses.base import Loss, mean_difference
from ddsp.losses.group import LossGroup
from ddsp.losses.params import (
    FilteredNoiseConsistencyLoss,
    HarmonicConsistencyLoss,
    ParamLoss,
    amp_loss,
    freq_loss,
)
from ddsp.losses.spectral import SpectralLoss

__all__ = [
    'FilteredNoiseConsistencyLoss',
    'HarmonicConsistencyLoss',
    'Loss',
    'LossGroup',
    'ParamLoss',
    'SpectralLoss',
    'amp_loss',
    'freq_loss',
    'mean_difference',
]
