"""From the features of a dataset to what a network sees."""

from __future__ import annotations

from typing import Any

import gin
from keras import ops

from ddsp import core, spectral_ops
from ddsp.core import Tensor
from ddsp.training import nn

F0_RANGE = 127.0  # MIDI numbers
DB_RANGE = spectral_ops.DB_RANGE

_register = gin.register(module='ddsp.training.preprocessing')


def at_least_3d(x: Tensor) -> Tensor:
    """A scalar, `[batch]` or `[batch, time]` as `[batch, time, 1]`; three axes stay.

    Example:
      >>> tuple(at_least_3d([[1.0, 2.0]]).shape)
      (1, 2, 1)
    """
    x = ops.convert_to_tensor(x)
    while len(x.shape) < 3:
        x = x[None] if len(x.shape) == 0 else x[..., None]
    return x


def scale_db(db: Tensor) -> Tensor:
    """dB in [-80, 0] to [0, 1].

    Example:
      >>> scale_db(-40.0)
      0.5
    """
    return db / DB_RANGE + 1.0


def inv_scale_db(db_scaled: Tensor) -> Tensor:
    """[0, 1] to dB in [-80, 0].

    Example:
      >>> inv_scale_db(0.5)
      -40.0
    """
    return (db_scaled - 1.0) * DB_RANGE


def scale_f0_hz(f0_hz: Tensor) -> Tensor:
    """Hz to MIDI number / 127.

    Example:
      >>> round(float(scale_f0_hz(440.0)), 4)  # MIDI 69
      0.5433
    """
    return core.hz_to_midi(f0_hz) / F0_RANGE


def inv_scale_f0_hz(f0_scaled: Tensor) -> Tensor:
    """MIDI number / 127 to Hz.

    Example:
      >>> round(float(inv_scale_f0_hz(69 / 127)), 2)
      440.0
    """
    return core.midi_to_hz(f0_scaled * F0_RANGE)


@_register
class F0LoudnessPreprocessor(nn.DictLayer):
    """Pitch and loudness at the network's frame rate, raw and scaled to about [0, 1].

    Args:
      time_steps: Frames of the output.
      frame_rate: Frames per second at which loudness is computed.
      sample_rate: Sample rate in Hz.
      compute_loudness: Compute loudness from `audio`, when there is any. Otherwise, and when there is no
        audio, the given `loudness_db` is used.
      **kwargs: Passed to `nn.DictLayer`.
    """

    def __init__(
        self,
        time_steps: int = 1000,
        frame_rate: int = 250,
        sample_rate: int = 16000,
        compute_loudness: bool = True,
        **kwargs: Any,
    ) -> None:
        kwargs.setdefault('output_keys', ['f0_hz', 'loudness_db', 'f0_scaled', 'ld_scaled'])
        super().__init__(autocast=False, **kwargs)
        self.time_steps = time_steps
        self.frame_rate = frame_rate
        self.sample_rate = sample_rate
        self.compute_loudness = compute_loudness

    def call(self, loudness_db: Tensor, f0_hz: Tensor, audio: Tensor | None = None) -> Any:
        """Resamples and scales.

        Args:
          loudness_db: `[batch, n_frames(, 1)]`, dB.
          f0_hz: `[batch, n_frames(, 1)]`, Hz.
          audio: `[batch, n_samples]`.

        Returns:
          `f0_hz`, `loudness_db`, `f0_scaled` and `ld_scaled`, each `[batch, time_steps, 1]`.
        """
        if self.compute_loudness and audio is not None:
            loudness_db = spectral_ops.compute_loudness(
                audio, sample_rate=self.sample_rate, frame_rate=self.frame_rate
            )
        f0_hz = self.resample(f0_hz)
        loudness_db = self.resample(loudness_db)
        return f0_hz, loudness_db, scale_f0_hz(f0_hz), scale_db(loudness_db)

    @staticmethod
    def invert_scaling(f0_scaled: Tensor, ld_scaled: Tensor) -> tuple[Tensor, Tensor]:
        """`f0_hz` and `loudness_db` from their scaled forms."""
        return inv_scale_f0_hz(f0_scaled), inv_scale_db(ld_scaled)

    def resample(self, x: Tensor) -> Tensor:
        """`[batch, n_frames(, 1)]` -> `[batch, time_steps, 1]`, linearly."""
        x = at_least_3d(x)
        return x if x.shape[1] == self.time_steps else core.resample(x, self.time_steps)


@_register
class F0PowerPreprocessor(F0LoudnessPreprocessor):
    """`F0LoudnessPreprocessor` with power (dB, unweighted) in place of loudness.

    Args:
      time_steps: Frames of the output.
      frame_rate: Frames per second at which power is computed.
      sample_rate: Sample rate in Hz.
      frame_size: Samples over which power is averaged.
      **kwargs: Passed to `nn.DictLayer`.
    """

    def __init__(
        self,
        time_steps: int = 1000,
        frame_rate: int = 250,
        sample_rate: int = 16000,
        frame_size: int = 64,
        **kwargs: Any,
    ) -> None:
        kwargs.setdefault('output_keys', ['f0_hz', 'pw_db', 'f0_scaled', 'pw_scaled'])
        super().__init__(time_steps, frame_rate, sample_rate, **kwargs)
        self.frame_size = frame_size

    # Inputs are found by the names of the parameters, which are other ones here.
    def call(self, f0_hz: Tensor, power_db: Tensor | None = None, audio: Tensor | None = None) -> Any:  # type: ignore[override]
        """Resamples and scales.

        Args:
          f0_hz: `[batch, n_frames(, 1)]`, Hz.
          power_db: `[batch, n_frames(, 1)]`, dB; computed from the audio when it is not given.
          audio: `[batch, n_samples]`.

        Returns:
          `f0_hz`, `pw_db`, `f0_scaled` and `pw_scaled`, each `[batch, time_steps, 1]`.

        Raises:
          ValueError: Neither power nor audio is given.
        """
        if power_db is None:
            if audio is None:
                raise ValueError('F0PowerPreprocessor needs power_db or audio; neither was given')
            power_db = spectral_ops.compute_power(
                audio, sample_rate=self.sample_rate, frame_rate=self.frame_rate, frame_size=self.frame_size
            )
        f0_hz = self.resample(f0_hz)
        pw_db = self.resample(power_db)
        return f0_hz, pw_db, scale_f0_hz(f0_hz), scale_db(pw_db)

    @staticmethod
    def invert_scaling(f0_scaled: Tensor, pw_scaled: Tensor) -> tuple[Tensor, Tensor]:
        """`f0_hz` and `pw_db` from their scaled forms."""
        return inv_scale_f0_hz(f0_scaled), inv_scale_db(pw_scaled)


@_register
class OnlineF0PowerPreprocessor(nn.DictLayer):
    """Power (and pitch) framed exactly as a streaming application sees them; nothing is resampled.

    Args:
      frame_rate: Frames per second.
      frame_size: Samples of a frame.
      padding: `'center'`, `'same'` or `'valid'`, as in `spectral_ops.pad`.
      compute_power: Compute power from the audio, or take `pw_db` from the input.
      compute_f0: Compute pitch from the audio inside the graph. Not available: set it to False and give
        `f0_hz`, which the datasets hold.
      crepe_saved_model_path: Accepted for upstream's configurations; it has no effect.
      viterbi: Accepted for upstream's configurations; it has no effect.
      **kwargs: Passed to `nn.DictLayer`.

    Raises:
      ValueError: `compute_f0` is True.
    """

    sample_rate = 16000  # features are those of the 16 kHz audio

    def __init__(
        self,
        frame_rate: int = 250,
        frame_size: int = 1024,
        padding: str = 'center',
        compute_power: bool = True,
        compute_f0: bool = True,
        crepe_saved_model_path: str = 'full',
        viterbi: bool = False,
        **kwargs: Any,
    ) -> None:
        kwargs.setdefault('output_keys', ['f0_hz', 'pw_db', 'f0_scaled', 'pw_scaled', 'f0_confidence'])
        super().__init__(autocast=False, **kwargs)
        if compute_f0:
            raise ValueError(
                'OnlineF0PowerPreprocessor.compute_f0 is True, but pitch is not computed inside the graph; '
                'set compute_f0 = False and give f0_hz, which prepared datasets hold'
            )
        self.frame_rate = frame_rate
        self.frame_size = frame_size
        self.padding = padding
        self.compute_power = compute_power

    def call(
        self,
        audio: Tensor,
        f0_hz: Tensor = None,
        f0_confidence: Any = None,
        audio_16k: Any = None,
        pw_db: Any = None,
    ) -> Any:
        """Computes and checks the frames.

        Args:
          audio: `[batch, n_samples]`.
          f0_hz: `[batch, n_frames(, 1)]`, Hz.
          f0_confidence: `[batch, n_frames(, 1)]`; ones when not given.
          audio_16k: The audio at 16 kHz, when `audio` is at another rate.
          pw_db: Power, when it is not computed.

        Returns:
          `f0_hz`, `pw_db`, `f0_scaled`, `pw_scaled`, `f0_confidence`, each `[batch, n_frames, 1]`.

        Raises:
          ValueError: An input has another number of frames than the length of the audio implies.
        """
        audio = audio if audio_16k is None else audio_16k
        if f0_hz is None:
            raise ValueError('OnlineF0PowerPreprocessor needs f0_hz')
        if self.compute_power:
            pw_db = spectral_ops.compute_power(
                audio, frame_rate=self.frame_rate, frame_size=self.frame_size, padding=self.padding
            )
        elif pw_db is None:
            raise ValueError('OnlineF0PowerPreprocessor.compute_power is False and pw_db was not given')
        f0_confidence = ops.ones_like(f0_hz) if f0_confidence is None else f0_confidence
        found = {'f0_hz': f0_hz, 'pw_db': pw_db, 'f0_confidence': f0_confidence}
        found = {key: at_least_3d(value) for key, value in found.items()}
        expected, _ = spectral_ops.get_framed_lengths(
            audio.shape[1], self.frame_size, self.sample_rate // self.frame_rate, self.padding
        )
        for key, value in found.items():
            if value.shape[1] != expected:
                raise ValueError(
                    f'{key} has {value.shape[1]} frames; {audio.shape[1]} samples at {self.frame_rate} '
                    'frames per '
                    f'second with {self.padding!r} padding have {expected}'
                )
        f0_hz, pw_db = found['f0_hz'], found['pw_db']
        return f0_hz, pw_db, scale_f0_hz(f0_hz), scale_db(pw_db), found['f0_confidence']
