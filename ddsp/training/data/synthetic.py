"""Tones made on the fly, whose pitch is known: for trying models without recordings, and for benchmarks."""

from __future__ import annotations

import gin
import tensorflow as tf

from ddsp import spectral_ops
from ddsp.training.data.base import SeededProvider

_register = gin.register(module='ddsp.training.data')
_KNOTS = 8  # random values in an example, joined by straight lines
_HARMONICS = 20
_MIDI = (48.0, 84.0)


@_register
class SyntheticProvider(SeededProvider):
    """Harmonic tones with gliding pitch, moving level, a spectrum of their own and some noise.

    Each example is a function of (seed, its number), so that every pass over `n_examples` is the same and a
    resumed training goes on with the next. They are made by the processors that read data.

    Args:
      n_examples: Examples of a pass.
      example_secs: Length of an example, s.
      sample_rate: Sample rate in Hz.
      frame_rate: Feature frames per second.
      centered: Whether these have one frame more.
      seed: Random seed of the examples.
    """

    def __init__(
        self,
        n_examples: int = 1000,
        example_secs: float = 4.0,
        sample_rate: int = 16000,
        frame_rate: int = 250,
        centered: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__(sample_rate, frame_rate)
        self.n_examples = n_examples
        self.example_secs = example_secs
        self.centered = centered
        self.seed = seed

    def get_examples(self, shuffle: bool = True, repeats: int = -1, start: int = 0) -> tf.data.Dataset:
        """Examples, one after the other; shuffled, each pass has an order of its own."""
        first, skip = divmod(start, self.n_examples)
        passes = tf.data.Dataset.range(first, repeats if repeats >= 0 else 2**40)

        def order(epoch: tf.Tensor) -> tf.data.Dataset:
            numbers = tf.range(self.n_examples, dtype=tf.int64)
            if shuffle:
                numbers = tf.random.experimental.stateless_shuffle(numbers, self._key(epoch, 0))
            return tf.data.Dataset.from_tensor_slices(numbers)

        numbers = passes.flat_map(order).skip(skip)
        return numbers.map(self._example, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)

    def _key(self, number: tf.Tensor, purpose: int) -> tf.Tensor:
        return tf.stack([tf.cast(number, tf.int64), tf.constant(self.seed * 2**16 + purpose, tf.int64)])

    def _example(self, number: tf.Tensor) -> dict[str, tf.Tensor]:
        n_samples = round(self.example_secs * self.sample_rate)
        n_frames = round(self.example_secs * self.frame_rate) + int(self.centered)
        middle = tf.random.stateless_uniform((), self._key(number, 1), *_MIDI)
        glide = tf.random.stateless_uniform((_KNOTS,), self._key(number, 2), -2.0, 2.0)
        level_db = tf.random.stateless_uniform((_KNOTS,), self._key(number, 3), -40.0, -12.0)
        slope = tf.random.stateless_uniform((), self._key(number, 4), 0.8, 2.5)
        noise = tf.random.stateless_normal((n_samples,), self._key(number, 5), 0.0, 0.003)
        f0_hz = 440.0 * 2.0 ** ((_lines(middle + glide, n_samples) - 69.0) / 12.0)
        level = 10.0 ** (_lines(level_db, n_samples) / 20.0)
        turns = tf.cumsum(tf.cast(f0_hz, tf.float64) / self.sample_rate)
        harmonics = tf.range(1, _HARMONICS + 1, dtype=tf.float64)[:, None]
        phases = tf.cast(2 * 3.141592653589793 * ((harmonics * turns) % 1.0), tf.float32)
        numbers = tf.cast(harmonics, tf.float32)
        heard = tf.cast(numbers * f0_hz < self.sample_rate / 2, tf.float32)
        weights = numbers**-slope / tf.reduce_sum(numbers**-slope)
        audio = level * (tf.reduce_sum(weights * heard * tf.sin(phases), axis=0) + noise)
        hop = self.sample_rate // self.frame_rate
        frames = tf.minimum(tf.range(n_frames) * hop, n_samples - 1)
        loudness = spectral_ops.compute_loudness(audio, self.sample_rate, self.frame_rate)
        loudness = tf.concat([loudness, loudness[-1:]], 0)[:n_frames]
        return {
            'audio': audio,
            'f0_hz': tf.gather(f0_hz, frames),
            'f0_confidence': tf.ones([n_frames]),
            'loudness_db': tf.ensure_shape(loudness, (n_frames,)),
        }


def _lines(knots: tf.Tensor, n: int) -> tf.Tensor:
    """Values [n] on straight lines between knots at equal distances."""
    places = tf.linspace(0.0, float(_KNOTS - 1), n)
    left = tf.minimum(tf.cast(places, tf.int32), _KNOTS - 2)
    share = places - tf.cast(left, tf.float32)
    return (1.0 - share) * tf.gather(knots, left) + share * tf.gather(knots, left + 1)
