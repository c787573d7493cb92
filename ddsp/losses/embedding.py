"""Losses in the space of a trained network."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gin
import keras
from keras import ops

from ddsp import core, spectral_ops
from ddsp.core import Tensor
from ddsp.errors import ConfigError
from ddsp.losses.base import Loss, check_loss_type, mean_difference
from ddsp.spectral_ops.crepe import make_crepe_network

# What makes the embedding loss of each layer about as large as a spectral loss.
_LAYER_SCALES = {
    'conv1-BN': 1.3, 'conv1-maxpool': 1.0, 'conv2-BN': 1.4, 'conv2-maxpool': 1.1, 'conv3-BN': 1.9,
    'conv3-maxpool': 1.6, 'conv4-BN': 1.5, 'conv4-maxpool': 1.4, 'conv5-BN': 1.9, 'conv5-maxpool': 1.7,
    'conv6-BN': 30.0, 'conv6-maxpool': 25.0, 'classifier': 130.0,
}  # fmt: skip


@gin.register(module='ddsp.losses')
class PretrainedCREPE(keras.layers.Layer):
    """Activations of a layer of CREPE: what a pitch tracker hears in audio at 16 kHz.

    Args:
      model_capacity: 'tiny', 'small', 'medium', 'large' or 'full'; weights: `ddsp.f0.crepe_weights`.
      activation_layer: 'conv1-BN', 'conv1-maxpool', ... 'conv6-maxpool', or 'classifier'.
      name: Name of the layer.
      trainable: Whether the weights change in training.
    """

    def __init__(
        self,
        model_capacity: str = 'tiny',
        activation_layer: str = 'conv5-maxpool',
        name: str = 'pretrained_crepe',
        trainable: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(name=name, trainable=trainable, autocast=False, **kwargs)
        if activation_layer not in _LAYER_SCALES:
            raise ConfigError(
                f'activation_layer is {activation_layer!r}; it can be ' + ', '.join(map(repr, _LAYER_SCALES))
            )
        self.model_capacity = model_capacity
        self.activation_layer = activation_layer
        network = make_crepe_network(model_capacity)
        output = network.get_layer(activation_layer).output
        self.network = keras.Model(network.input, output, name=f'crepe_{activation_layer}')
        self.network.trainable = trainable

    def frame_audio(self, audio: Tensor, hop_length: int = 1024, center: bool = True) -> Tensor:
        """Normalised frames.

        Args:
          audio: [batch, n_samples], 16 kHz.
          hop_length: Distance between frames, samples.
          center: Pad by half a frame at both ends.

        Returns:
          [batch, n_frames, 1024], each frame with mean 0 and standard deviation 1.
        """
        audio = spectral_ops.to_mono(audio)
        if center:
            audio = core.pad_axis(audio, (512, 512), axis=-1)
        frames = spectral_ops.frame(audio, 1024, hop_length)
        # Not CREPE's own floor of 1e-8: a loss would have gradients of 1e8 in silence.
        frames = frames - ops.mean(frames, axis=-1, keepdims=True)
        deviation = core.safe_sqrt(ops.mean(frames * frames, axis=-1, keepdims=True))
        return frames / (deviation + 1e-5)

    def call(self, audio: Tensor) -> Tensor:
        """Activations [batch, n_frames, n_features] of audio [batch, n_samples]."""
        frames = self.frame_audio(audio)
        batch, n_frames = ops.shape(frames)[:2]
        activations = self.network(ops.reshape(frames, (-1, 1024)), training=False)
        n_features = 1
        for size in activations.shape[1:]:
            n_features *= size
        return ops.reshape(activations, (batch, n_frames, n_features))

    def get_config(self) -> dict[str, Any]:
        """Arguments that make the same layer."""
        names = ('model_capacity', 'activation_layer')
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}


@gin.register(module='ddsp.losses')
@keras.saving.register_keras_serializable('ddsp')
class EmbeddingLoss(Loss):
    """Difference of two sounds as a trained network hears them.

    Args:
      weight: Weight of the loss.
      loss_type: 'L1', 'L2' or 'COSINE'.
      pretrained_model: From audio [batch, n_samples] to an embedding of any shape.
      name: Name of the loss.
    """

    def __init__(
        self,
        weight: float = 1.0,
        loss_type: str = 'L1',
        pretrained_model: Callable[[Tensor], Tensor] | None = None,
        name: str = 'embedding_loss',
        **kwargs: Any,
    ) -> None:
        super().__init__(name=name, **kwargs)
        self.weight = weight
        self.loss_type = check_loss_type(loss_type)
        self.pretrained_model = pretrained_model

    def call(self, target_audio: Tensor, audio: Tensor) -> Tensor:
        """Scalar loss of two [batch, n_samples] signals."""
        if self.pretrained_model is None:
            raise ConfigError('EmbeddingLoss needs pretrained_model: a function from audio to an embedding')
        target, value = (self.pretrained_model(core.tf_float32(x)) for x in (target_audio, audio))
        return self.weight * mean_difference(target, value, self.loss_type)

    def get_config(self) -> dict[str, Any]:
        """Arguments that make the same loss."""
        model = self.pretrained_model
        return {
            **super().get_config(), 'weight': self.weight, 'loss_type': self.loss_type,
            'pretrained_model': None if model is None else keras.saving.serialize_keras_object(model),
        }  # fmt: skip

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> EmbeddingLoss:
        """Makes the loss, and its network, from `get_config`."""
        config = dict(config)
        if config.get('pretrained_model') is not None:
            config['pretrained_model'] = keras.saving.deserialize_keras_object(config['pretrained_model'])
        return cls(**config)


@gin.register(module='ddsp.losses')
@keras.saving.register_keras_serializable('ddsp')
class PretrainedCREPEEmbeddingLoss(EmbeddingLoss):
    """Difference of two sounds as CREPE hears them: perceptual, and sensitive to pitch.

    The paper's unsupervised model uses it (Engel et al., ICLR 2020). The weight is scaled by 20
    and by a factor of the layer, so that 1 is about the size of a spectral loss.

    Args:
      weight: Weight of the loss.
      loss_type: 'L1', 'L2' or 'COSINE'.
      model_capacity: 'tiny', 'small', 'medium', 'large' or 'full'; weights: `ddsp.f0.crepe_weights`.
      activation_layer: Whose activations are compared, see `PretrainedCREPE`.
      name: Name of the loss.
    """

    def __init__(
        self,
        weight: float = 1.0,
        loss_type: str = 'L1',
        model_capacity: str = 'tiny',
        activation_layer: str = 'classifier',
        name: str = 'pretrained_crepe_embedding_loss',
        **kwargs: Any,
    ) -> None:
        model = PretrainedCREPE(model_capacity, activation_layer)
        scaled = 20.0 * _LAYER_SCALES[activation_layer] * weight
        super().__init__(scaled, loss_type, model, name=name, **kwargs)
        self._arguments = {
            'weight': weight, 'model_capacity': model_capacity, 'activation_layer': activation_layer,
        }  # fmt: skip

    def get_config(self) -> dict[str, Any]:
        """Arguments that make the same loss."""
        config = {**super().get_config(), **self._arguments}
        del config['pretrained_model']
        return config

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> PretrainedCREPEEmbeddingLoss:
        """Makes the loss from `get_config`."""
        return cls(**config)
