"""Models: encoder, decoder, synthesisers and losses in one object."""

from __future__ import annotations

from typing import Any

import gin

from ddsp.training.models.autoencoder import Autoencoder
from ddsp.training.models.model import Model

__all__ = ['Autoencoder', 'Model', 'get_model']


@gin.configurable(module='ddsp.training.models')
def get_model(model: Any = gin.REQUIRED) -> Model:
    """The model that the configuration names (`get_model.model = @models.Autoencoder()`)."""
    return model
