"""From features to a latent code z."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gin
import keras
from keras import ops

from ddsp import core, spectral_ops
from ddsp.core import Tensor
from ddsp.training import nn

_register = gin.register(module='ddsp.training.encoders')

# FFT size and overlap that give about so many frames in 4 s at 16 kHz.
_MFCC_FRAMES = {63: (2048, 0.5), 125: (1024, 0.5), 250: (1024, 0.75), 500: (512, 0.75), 1000: (256, 0.75)}


def _mfccs(audio: Tensor, sample_rate: int, fft_size: int, overlap: float) -> Tensor:
    """30 MFCCs of the bands up to 8 kHz, whatever the rate; `fft_size` is that of 16 kHz."""
    return spectral_ops.compute_mfcc(
        audio,
        lo_hz=20.0,
        hi_hz=min(8000.0, sample_rate / 2),
        fft_size=round(fft_size * sample_rate / 16000),
        mel_bins=128,
        mfcc_bins=30,
        overlap=overlap,
        pad_end=True,
        sample_rate=sample_rate,
    )


class ZEncoder(nn.DictLayer):
    """Base of encoders: subclasses implement `compute_z(*inputs)`.

    `f0_scaled` is always the last input: it tells the number of frames to which z is brought.

    Args:
      input_keys: Keys of `compute_z`'s inputs; by default its parameters.
      **kwargs: Passed to `nn.DictLayer`.
    """

    def __init__(self, input_keys: Sequence[str] | None = None, **kwargs: Any) -> None:
        keys = list(input_keys) if input_keys else self.get_argument_names('compute_z')
        super().__init__(input_keys=[*keys, 'f0_scaled'], output_keys=['z'], **kwargs)

    def call(self, *args: Any, **unused_kwargs: Any) -> Any:
        """z `[batch, n_frames, z_dims]`."""
        return self.expand_z(self.compute_z(*args[:-1]), args[-1].shape[1])

    def expand_z(self, z: Tensor, time_steps: int) -> Tensor:
        """`[batch, z_dims]` or `[batch, time, z_dims]` to `[batch, time_steps, z_dims]`, linearly."""
        if len(z.shape) == 2:
            z = z[:, None, :]
        return z if z.shape[1] == time_steps else core.resample(z, time_steps)

    def compute_z(self, *inputs: Any) -> Any:
        """z `[batch, (time,) z_dims]`; subclasses implement it."""
        raise NotImplementedError(f'{type(self).__name__} must implement compute_z(*inputs)')


@_register
class MfccTimeDistributedRnnEncoder(ZEncoder):
    """MFCCs, normalised over time, through an RNN and a linear layer at every step.

    Args:
      rnn_channels: Units of the RNN.
      rnn_type: `'gru'` or `'lstm'`.
      z_dims: Channels of z.
      z_time_steps: Frames of 4 s: 63, 125, 250, 500 or 1000.
      sample_rate: Sample rate of the audio, Hz.
      **kwargs: Passed to `nn.DictLayer`.

    Raises:
      ValueError: Another `z_time_steps`.
    """

    def __init__(
        self,
        rnn_channels: int = 512,
        rnn_type: str = 'gru',
        z_dims: int = 32,
        z_time_steps: int = 250,
        sample_rate: int = 16000,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.sample_rate = sample_rate
        if z_time_steps not in _MFCC_FRAMES:
            raise ValueError(f'z_time_steps is {z_time_steps}; it must be one of {sorted(_MFCC_FRAMES)}')
        self.fft_size, self.overlap = _MFCC_FRAMES[z_time_steps]
        self.z_norm = nn.Normalize('instance')
        self.rnn = nn.Rnn(rnn_channels, rnn_type)
        self.dense_out = keras.layers.Dense(z_dims)

    def compute_z(self, audio: Tensor) -> Tensor:
        """`[batch, n_samples]` -> `[batch, time, z_dims]`."""
        mfccs = _mfccs(audio, self.sample_rate, self.fft_size, self.overlap)
        return self.dense_out(self.rnn(self.z_norm(mfccs)))


@_register
class MfccRnnEncoder(ZEncoder):
    """MFCCs, normalised over time, through an RNN to one z for the whole example.

    Args:
      rnn_channels: Units of the RNN.
      rnn_type: `'gru'` or `'lstm'`.
      z_dims: Channels of z.
      mean_aggregate: Average the RNN's outputs over time, or use all of them.
      sample_rate: Sample rate of the audio, Hz.
      **kwargs: Passed to `nn.DictLayer`.
    """

    def __init__(
        self,
        rnn_channels: int = 512,
        rnn_type: str = 'gru',
        z_dims: int = 512,
        mean_aggregate: bool = False,
        sample_rate: int = 16000,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.sample_rate = sample_rate
        self.mean_aggregate = mean_aggregate
        self.z_norm = nn.Normalize('instance')
        self.rnn = nn.Rnn(rnn_channels, rnn_type)
        self.dense_z = keras.layers.Dense(z_dims)

    def compute_z(self, audio: Tensor) -> Tensor:
        """`[batch, n_samples]` -> `[batch, z_dims]`."""
        mfccs = _mfccs(audio, self.sample_rate, 1024, 0.75)
        z = self.rnn(self.z_norm(mfccs))
        z = ops.mean(z, axis=1) if self.mean_aggregate else ops.reshape(z, (-1, z.shape[1] * z.shape[2]))
        return self.dense_z(z)


@_register
class AggregateFeaturesEncoder(ZEncoder):
    """The mean over time of a linear layer on pitch and loudness."""

    def __init__(self, ch: int = 512, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.dense = keras.layers.Dense(ch)

    def compute_z(self, f0_scaled: Tensor, ld_scaled: Tensor) -> Tensor:
        """`[batch, n_frames, 1]` twice -> `[batch, ch]`."""
        return ops.mean(self.dense(ops.concatenate([f0_scaled, ld_scaled], axis=-1)), axis=1)


@_register
class OneHotEncoder(ZEncoder):
    """A learned vector for each value of a label.

    Args:
      one_hot_key: Feature that holds the label, an integer.
      vocab_size: Number of labels.
      n_dims: Channels of z.
      skip_expand: Leave z with one time step.
      **kwargs: Passed to `nn.DictLayer`.
    """

    def __init__(
        self,
        one_hot_key: str = 'instrument',
        vocab_size: int = 1024,
        n_dims: int = 256,
        skip_expand: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(input_keys=[one_hot_key], **kwargs)
        self.skip_expand = skip_expand
        self.embedding = nn.get_embedding(vocab_size, n_dims)

    def compute_z(self, one_hot: Tensor) -> Tensor:
        """Labels `[batch]` or `[batch, 1]` -> `[batch, 1, n_dims]`."""
        one_hot = ops.cast(one_hot, 'int32')
        return self.embedding(one_hot[:, None] if len(one_hot.shape) == 1 else one_hot)

    def expand_z(self, z: Tensor, time_steps: int) -> Tensor:
        """As in `ZEncoder`, unless `skip_expand`."""
        return z if self.skip_expand else super().expand_z(z, time_steps)
