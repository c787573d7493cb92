"""Losses: differences that training makes small."""

from ddsp.losses.base import Loss, mean_difference
from ddsp.losses.embedding import EmbeddingLoss, PretrainedCREPE, PretrainedCREPEEmbeddingLoss
from ddsp.losses.group import LossGroup
from ddsp.losses.hmm import HmmTranscriber
from ddsp.losses.params import (
    FilteredNoiseConsistencyLoss,
    HarmonicConsistencyLoss,
    ParamLoss,
    amp_loss,
    freq_loss,
)
from ddsp.losses.sinusoidal import (
    KDEConsistencyLoss,
    TWMLoss,
    WassersteinConsistencyLoss,
    wasserstein_distance,
)
from ddsp.losses.spectral import SpectralLoss

__all__ = [
    'EmbeddingLoss',
    'FilteredNoiseConsistencyLoss',
    'HarmonicConsistencyLoss',
    'HmmTranscriber',
    'KDEConsistencyLoss',
    'Loss',
    'LossGroup',
    'ParamLoss',
    'PretrainedCREPE',
    'PretrainedCREPEEmbeddingLoss',
    'SpectralLoss',
    'TWMLoss',
    'WassersteinConsistencyLoss',
    'amp_loss',
    'freq_loss',
    'mean_difference',
    'wasserstein_distance',
]
