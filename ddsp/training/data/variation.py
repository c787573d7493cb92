"""Random crops and levels, which make more of few recordings.

Everything random is a function of (seed, number of the example), so that a resumed training goes on with the
numbers that the uninterrupted one would have drawn.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from fractions import Fraction

import tensorflow as tf

from ddsp.errors import ConfigError
from ddsp.io.dataset import PADDED_LOUDNESS_DB

_LEVELS = ('loudness_db', 'power_db')
_RATE_16K = 16000


@dataclasses.dataclass(frozen=True)
class Variation:
    """How examples are varied.

    Args:
      sample_rate: Sample rate in Hz.
      frame_rate: Feature frames per second.
      crop_secs: Length to cut out of each example, s; None takes it whole.
      gain_db: Lowest and highest change of level, dB; None changes nothing.

    Raises:
      ConfigError: The crop is not a whole number of frames, or the gains are in the wrong order.
    """

    sample_rate: int
    frame_rate: int
    crop_secs: float | None = None
    gain_db: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if self.crop_secs is not None:
            frames = Fraction(str(self.crop_secs)) * self.frame_rate
            if frames.denominator != 1 or frames <= 0:
                nearest = max(round(frames), 1) / self.frame_rate
                raise ConfigError(
                    f'crop_secs {self.crop_secs} is {float(frames):g} frames at frame_rate '
                    f'{self.frame_rate}; it must be a whole number above 0: the nearest length is '
                    f'{nearest:g} s'
                )
        if self.gain_db is not None and (len(self.gain_db) != 2 or self.gain_db[0] > self.gain_db[1]):
            raise ConfigError(f'gain_db is {self.gain_db}; it must be (lowest, highest) in dB')

    def check_length(self, example_secs: float) -> None:
        """Refuses a crop that is longer than an example."""
        if self.crop_secs is not None and self.crop_secs > example_secs:
            raise ConfigError(
                f'crop_secs is {self.crop_secs:g}, but the examples have {example_secs:g} s: at most this'
            )

    def __call__(
        self, example: Mapping[str, tf.Tensor], number: tf.Tensor, seed: int, random: bool = True
    ) -> dict[str, tf.Tensor]:
        """An example, varied.

        Args:
          example: Features, `audio` [n_samples] and frame-wise ones [n_frames].
          number: Number of the example in the training; with the seed it decides what is drawn.
          seed: Random seed.
          random: False takes the beginning and leaves the level.

        Returns:
          The features with the length of the crop.
        """
        varied = dict(example)
        if self.crop_secs is not None:
            varied = self._crop(varied, _key(number, seed, 0), random)
        if self.gain_db is not None and random:
            varied = self._amplify(varied, _key(number, seed, 1))
        return varied

    def _crop(self, example: dict[str, tf.Tensor], key: tf.Tensor, random: bool) -> dict[str, tf.Tensor]:
        """A crop that begins on a frame, and lies before the padding where it can."""
        assert self.crop_secs is not None
        frames = round(self.crop_secs * self.frame_rate)
        # One frame more where the dataset is centred. All rates must have a sample where the crop begins.
        extra = int(example['f0_hz'].shape[0]) % self._multiple(example)
        grid = self.frame_rate // math.gcd(self.frame_rate, _RATE_16K) if 'audio_16k' in example else 1
        start = tf.zeros((), tf.int64)
        if random:
            real = (example['f0_confidence'] > 0) | (example['loudness_db'] > PADDED_LOUDNESS_DB)
            end = tf.reduce_max(tf.where(real, tf.range(1, tf.size(real, tf.int64) + 1), 0))
            last = tf.clip_by_value(end - frames, 0, tf.size(real, tf.int64) - frames - extra)
            start = grid * tf.random.stateless_uniform((), key, 0, last // grid + 1, tf.int64)
        cropped = {}
        for name, values in example.items():
            rate = {'audio': self.sample_rate, 'audio_16k': _RATE_16K}.get(name, self.frame_rate)
            if name in ('audio', 'audio_16k') or values.shape == example['f0_hz'].shape:
                length = round(self.crop_secs * rate) + (extra if rate == self.frame_rate else 0)
                first = start * rate // self.frame_rate
                values = tf.ensure_shape(values[first : first + length], (length,))
            cropped[name] = values
        return cropped

    def _multiple(self, example: Mapping[str, tf.Tensor]) -> int:
        """Frames of an example without the extra one of a centred dataset."""
        return int(example['audio'].shape[0]) * self.frame_rate // self.sample_rate

    def _amplify(self, example: dict[str, tf.Tensor], key: tf.Tensor) -> dict[str, tf.Tensor]:
        """Changes the level, and loudness with it, without exceeding full scale."""
        assert self.gain_db is not None
        gain_db = tf.random.stateless_uniform((), key, *self.gain_db)
        peak = tf.maximum(tf.reduce_max(tf.abs(example['audio'])), 1e-6)
        headroom = tf.maximum(-20 * tf.math.log(peak) / math.log(10), 0)
        gain_db = tf.minimum(gain_db, headroom)
        gain = 10 ** (gain_db / 20)
        varied = dict(example)
        for name in ('audio', 'audio_16k'):
            if name in varied:
                varied[name] = gain * varied[name]
        real = varied['loudness_db'] > PADDED_LOUDNESS_DB
        for name in _LEVELS:
            if name in varied:
                level = tf.maximum(varied[name] + gain_db, PADDED_LOUDNESS_DB)
                varied[name] = tf.where(real, level, varied[name])
        return varied


def _key(number: tf.Tensor, seed: int, purpose: int) -> tf.Tensor:
    return tf.stack([tf.cast(number, tf.int64), tf.constant(2 * seed + purpose + 2**40, tf.int64)])
