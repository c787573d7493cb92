"""`crepe.predict` of the package crepe 0.0.12 to 0.0.16, with its published network built in Keras.

The package cannot be built where GitHub is out of reach. Nothing of this project is imported here: under the
name `crepe` this file serves ddsp 3.7.0 in its own, older environment; CREPE_NPZ names a file of weights that
`save_weights` wrote.
"""

from __future__ import annotations

import functools
import os
import types
from typing import Any

import numpy as np

RATE, WINDOW, N_BINS = 16000, 1024, 360


def save_weights(weights: Any, path: str) -> None:
    """Writes weights (`ddsp.f0.crepe_weights.Weights`) for `predict` as a numpy archive."""
    arrays = {'classifier': weights.classifier, 'classifier_bias': weights.classifier_bias}
    for i, layer in enumerate(weights.layers):
        arrays |= {f'{name}_{i}': getattr(layer, name) for name in ('kernel', 'bias', 'scale', 'shift')}
    np.savez(path, **arrays)


def predict(
    audio: np.ndarray,
    sr: int,
    model_capacity: str = 'full',
    viterbi: bool = False,
    center: bool = True,
    step_size: float = 10,
    verbose: int = 1,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The package's own call: times (s), f0 (Hz), confidence, each [n_frames]; salience [n_frames, 360]."""
    if sr != RATE or model_capacity != 'full':
        raise ValueError(f'16 kHz and the full network only, not {sr} Hz and {model_capacity!r}')
    network = _stored_network()
    salience = network.activations(audio, step_size, center)
    f0_hz, confidence = network.decode(salience, viterbi)
    return np.arange(len(f0_hz)) * step_size / 1000.0, f0_hz, confidence, salience


@functools.lru_cache(maxsize=1)
def _stored_network() -> CrepePredict:
    stored = np.load(os.environ['CREPE_NPZ'])
    names = ('kernel', 'bias', 'scale', 'shift')
    layers = [types.SimpleNamespace(**{name: stored[f'{name}_{i}'] for name in names}) for i in range(6)]
    return CrepePredict(
        types.SimpleNamespace(
            layers=layers, classifier=stored['classifier'], classifier_bias=stored['classifier_bias']
        )
    )


class CrepePredict:
    """The network in Keras, and how the package frames its input and decodes its output.

    Args:
      weights: The published weights (`ddsp.f0.crepe_weights.Weights`, or what has its attributes).
    """

    def __init__(self, weights: Any) -> None:
        import keras

        layers = keras.layers
        inputs = keras.Input((WINDOW,))
        values = layers.Reshape((WINDOW, 1, 1))(inputs)
        for i, layer in enumerate(weights.layers):
            width, _, channels = layer.kernel.shape
            convolution = layers.Conv2D(
                channels, (width, 1), strides=(1 if i else 4, 1), padding='same', activation='relu'
            )
            # The mean is 0 and the variance 1: `scale` and `shift` hold them already.
            normalise = layers.BatchNormalization(epsilon=0.0)
            values = layers.MaxPool2D((2, 1))(normalise(convolution(values)))
            convolution.set_weights([layer.kernel[:, None], layer.bias])
            normalise.set_weights(
                [layer.scale, layer.shift, np.zeros_like(layer.shift), np.ones_like(layer.scale)]
            )
        classifier = layers.Dense(N_BINS, activation='sigmoid')
        outputs = classifier(layers.Flatten()(layers.Permute((2, 1, 3))(values)))
        classifier.set_weights([weights.classifier, weights.classifier_bias])
        self._model = keras.Model(inputs, outputs)

    def activations(self, audio: np.ndarray, step_ms: float = 10, center: bool = True) -> np.ndarray:
        """Activations [n_frames, 360] at 16 kHz; frames centred on multiples of `step_ms`, or from there."""
        padded = np.pad(np.asarray(audio, np.float32), WINDOW // 2 if center else 0)
        hop = int(RATE * step_ms / 1000)
        frames = np.lib.stride_tricks.sliding_window_view(padded, WINDOW)[::hop].copy()
        frames -= frames.mean(axis=1, keepdims=True)
        frames /= np.clip(frames.std(axis=1, keepdims=True), 1e-8, None)
        return self._model.predict(frames, verbose=0)

    def predict(
        self, audio: np.ndarray, viterbi: bool = True, step_ms: float = 10
    ) -> tuple[np.ndarray, np.ndarray]:
        """Pitch in Hz and confidence, each [n_frames]."""
        return self.decode(self.activations(audio, step_ms), viterbi)

    def decode(self, salience: np.ndarray, viterbi: bool) -> tuple[np.ndarray, np.ndarray]:
        """Pitch in Hz and confidence, each [n_frames], of activations [n_frames, 360]."""
        centres = likeliest_path(salience.argmax(axis=1)) if viterbi else salience.argmax(axis=1)
        cents = [local_average_cents(row, centre) for row, centre in zip(salience, centres, strict=True)]
        return 10 * 2 ** (np.array(cents) / 1200), salience.max(axis=1)


def local_average_cents(salience: np.ndarray, centre: int) -> float:
    """Mean of the cents of up to nine bins around a centre, weighted by their salience [360]."""
    cents = np.linspace(0, 7180, N_BINS) + 1997.3794084376191
    near = slice(max(0, centre - 4), min(N_BINS, centre + 5))
    return float((salience[near] * cents[near]).sum() / salience[near].sum())


def likeliest_path(observed: np.ndarray) -> np.ndarray:
    """Viterbi decoding of crepe's hidden Markov model with its full matrices, in float64."""
    bins = np.arange(N_BINS)
    move = np.maximum(12 - np.abs(bins[:, None] - bins), 0).astype(np.float64)
    with np.errstate(divide='ignore'):
        move = np.log(move / move.sum(axis=1, keepdims=True))
    emission = np.log(np.eye(N_BINS) * 0.1 + np.full((N_BINS, N_BINS), 0.9 / N_BINS))
    score = np.log(1 / N_BINS) + emission[:, observed[0]]
    back = []
    for symbol in observed[1:]:
        paths = score[:, None] + move
        back.append(paths.argmax(axis=0))
        score = paths.max(axis=0) + emission[:, symbol]
    path = [int(score.argmax())]
    for origin in reversed(back):
        path.append(int(origin[path[-1]]))
    return np.array(path[::-1])
