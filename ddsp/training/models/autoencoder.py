"""The DDSP autoencoder (Engel et al., ICLR 2020, section 4)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ddsp import core
from ddsp.configurable import configurable_layer
from ddsp.training.models.model import Model


@configurable_layer('ddsp.training.models')
class Autoencoder(Model):
    """Features to controls to audio.

    Args:
      preprocessor: Layer from features to scaled features, or `None`.
      encoder: Layer that adds z, or `None`.
      decoder: Layer from features to the inputs of the synthesisers.
      processor_group: `ddsp.processors.ProcessorGroup`.
      losses: Losses of (target audio, synthesised audio), or one.
      **kwargs: Passed to `keras.Model`.
    """

    def __init__(
        self,
        preprocessor: Any = None,
        encoder: Any = None,
        decoder: Any = None,
        processor_group: Any = None,
        losses: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.preprocessor = preprocessor
        self.encoder = encoder
        self.decoder = decoder
        self.processor_group = processor_group
        self.loss_objs: Sequence[Any] = list(core.make_iterable(losses))

    def encode(self, features: Mapping[str, Any], training: bool = True) -> dict[str, Any]:
        """Features with those of the preprocessor and of the encoder added."""
        features = dict(features)
        if self.preprocessor is not None:
            features.update(self.preprocessor(features, training=training))
        if self.encoder is not None:
            features.update(self.encoder(features, training=training))
        return features

    def decode(self, features: Mapping[str, Any], training: bool = True) -> Any:
        """Audio `[batch, n_samples]` from encoded features."""
        features = {**features, **self.decoder(features, training=training)}
        return self.processor_group(features)

    def get_audio_from_outputs(self, outputs: Mapping[str, Any]) -> Any:
        """Audio `[batch, n_samples]`."""
        return outputs['audio_synth']

    def call(self, features: Mapping[str, Any], training: bool = True) -> dict[str, Any]:
        """Everything.

        Args:
          features: `f0_hz`, `loudness_db`, `audio`..., as in the dataset.
          training: Also compute the losses, which compare with `features['audio']`.

        Returns:
          The nested outputs of the processor group (`'harmonic/signal'`...), with `'audio_synth'` the result.
        """
        features = self.encode(features, training=training)
        features.update(self.decoder(features, training=training))
        result = self.processor_group(features, return_outputs_dict=True)
        outputs = dict(result['controls'])
        outputs['audio_synth'] = result['signal']
        if training:
            self._update_losses_dict(self.loss_objs, features['audio'], outputs['audio_synth'])
        return outputs
