"""What every model can do: losses beside outputs, restoring, audio."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import keras
from keras import ops

from ddsp.errors import ConfigError


class _LossBook:
    """Losses and metrics of the call in progress; a plain object, so that Keras does not track it."""

    def __init__(self) -> None:
        self.losses: dict[str, Any] = {}
        self.metrics: dict[str, Any] = {}


class Model(keras.Model):
    """A Keras model that is called with a dictionary of features and gives outputs, and losses on request.

    Subclasses implement `call`, which reports losses through `_update_losses_dict`, and
    `get_audio_from_outputs`.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.autocast = False  # parts decide about their precision; features stay as they are
        self._book = _LossBook()

    def build(self, input_shape: Any = None) -> None:
        """Layers are built by the first call."""
        self.built = True

    def __call__(self, *args: Any, return_losses: bool = False, **kwargs: Any) -> Any:
        """Calls the model.

        Args:
          *args: Usually one dictionary of features.
          return_losses: Also return the losses.
          **kwargs: Passed to `call`, such as `training`.

        Returns:
          The outputs, or (outputs, losses) with `losses['total_loss']` their sum.

        Raises:
          ConfigError: Losses are wanted and the model has none.
        """
        self._book = _LossBook()
        args = tuple(dict(arg) if isinstance(arg, Mapping) else arg for arg in args)
        outputs = super().__call__(*args, **kwargs)
        if not return_losses:
            return outputs
        if not self._book.losses:
            name = type(self).__name__
            raise ConfigError(
                f'{name}.losses is empty: nothing would be learned, at a loss of 0. It needs at least one, '
                f'such as {name}.losses = [@losses.SpectralLoss()]'
            )
        losses = dict(self._book.losses)
        losses['total_loss'] = self.sum_losses(losses)
        return outputs, losses

    @property
    def loss_metrics(self) -> dict[str, Any]:
        """Parts of the losses of the last call that are watched but not added (one for each FFT size...)."""
        return dict(self._book.metrics)

    def _update_losses_dict(self, loss_objs: Sequence[Any], *args: Any, **kwargs: Any) -> None:
        """Evaluates losses and keeps them for `__call__`."""
        for loss in loss_objs:
            if hasattr(loss, 'loss_and_metrics'):
                losses, metrics = loss.loss_and_metrics(*args, **kwargs)
                self._book.metrics.update(metrics)
            else:
                losses = loss.get_losses_dict(*args, **kwargs)
            self._book.losses.update(losses)

    def sum_losses(self, losses_dict: Mapping[str, Any]) -> Any:
        """Sum of the losses; 0 when there are none."""
        return sum(losses_dict.values(), ops.convert_to_tensor(0.0, 'float32'))

    def restore(
        self,
        checkpoint_path: str | os.PathLike[str],
        verbose: bool = True,
        restore_keys: Sequence[str] | None = None,
    ) -> None:
        """Restores weights from a training checkpoint; the model must have been called once.

        Args:
          checkpoint_path: A directory (its newest checkpoint) or a checkpoint `.../ckpt-N`.
          verbose: Say what was restored.
          restore_keys: Attributes to restore, such as `['decoder']`; all by default.

        Raises:
          CheckpointError: There is no checkpoint, or it belongs to another model.
        """
        from ddsp.training import checkpoints  # TensorFlow's file format: imported when it is needed

        restored = checkpoints.restore_model(self, checkpoint_path, restore_keys)
        if verbose:
            print(f'restored {", ".join(restore_keys) if restore_keys else "the model"} from {restored}')

    def get_audio_from_outputs(self, outputs: Mapping[str, Any]) -> Any:
        """Audio `[batch, n_samples]` in the outputs of a call; subclasses implement it."""
        raise NotImplementedError(f'{type(self).__name__} must implement get_audio_from_outputs(outputs)')

    def call(self, features: Any, training: bool = False) -> Any:
        """Outputs from features; subclasses implement it."""
        raise NotImplementedError(f'{type(self).__name__} must implement call(...)')
