"""The published CREPE networks: the same numbers as `crepe.predict`, whose network is built in Keras here."""

import numpy as np
import pytest

from benchmarks.crepe_cost import example_sound
from benchmarks.f0.crepe_package import RATE, CrepePredict, likeliest_path, local_average_cents
from ddsp.f0 import crepe, estimate_f0
from ddsp.f0.crepe import Crepe, activations_to_f0
from ddsp.f0.crepe_engine import CrepeEngine
from ddsp.f0.crepe_weights import Layer, Weights, WeightsError, load_weights
from ddsp.f0.framing import window_audio
from ddsp.io.audio import load_audio


def published(size):
    try:
        return load_weights(size)
    except WeightsError as error:
        pytest.skip(str(error))


@pytest.fixture(scope='module', params=['tiny', 'full'])
def package(request):
    return request.param, CrepePredict(published(request.param))


def seconds_of(size):
    return 3.0 if size == 'tiny' else 0.4


def test_activations_are_those_of_the_network(package):
    size, reference = package
    audio = example_sound(seconds_of(size))
    n_frames = len(audio) // 160 + 1
    here = CrepeEngine(load_weights(size)).activations(window_audio(audio, n_frames, 100, 1024))
    np.testing.assert_allclose(here, reference.activations(audio), atol=1e-5)


@pytest.mark.parametrize('viterbi', [True, False])
def test_pitch_and_confidence_are_those_of_predict(package, viterbi):
    size, reference = package
    audio = example_sound(seconds_of(size))
    f0_hz, confidence = estimate_f0(audio, RATE, 100, f'crepe-{size}', viterbi, 'center')
    wanted_hz, wanted_confidence = reference.predict(audio, viterbi)
    assert np.abs(1200 * np.log2(f0_hz / wanted_hz)).max() < 0.1
    np.testing.assert_allclose(confidence, wanted_confidence, atol=1e-5)


def test_a_recording_with_unpitched_parts(recordings):
    reference = CrepePredict(published('tiny'))
    audio = load_audio(recordings / 'sms_speech-male.wav')
    n_frames = len(audio) // 160 + 1
    f0_hz, confidence = Crepe('tiny').predict(audio, 100, n_frames)
    wanted_hz, wanted_confidence = reference.predict(audio)
    near = np.abs(1200 * np.log2(f0_hz / wanted_hz)) < 1
    # The rest are ties between equally likely paths, which the package leaves to rounding.
    assert near[confidence > 0.5].all()
    assert near.mean() > 0.96
    np.testing.assert_allclose(confidence, wanted_confidence, atol=1e-4)


def test_decoding_is_that_of_the_full_matrices(rng):
    observed = np.clip(np.cumsum(rng.integers(-9, 10, 300)) + 180, 0, 359)
    observed[::17] = rng.integers(0, 360, len(observed[::17]))  # octave errors and worse
    salience = rng.uniform(0, 0.1, (300, 360)).astype(np.float32)
    salience[np.arange(300), observed] = 1.0
    path, here = likeliest_path(observed), crepe._likeliest_path(observed)
    assert log_likelihood(here, observed) == pytest.approx(log_likelihood(path, observed), abs=1e-4)
    cents = [local_average_cents(row, centre) for row, centre in zip(salience, here, strict=True)]
    f0_hz, _ = activations_to_f0(salience)
    np.testing.assert_allclose(1200 * np.log2(f0_hz / 10), cents, atol=0.01)


def log_likelihood(path, observed):
    """Of a path under crepe's hidden Markov model."""
    weights = np.maximum(12 - np.abs(np.arange(360)[:, None] - np.arange(360)), 0)
    move = np.log((weights / weights.sum(axis=1, keepdims=True))[path[:-1], path[1:]])
    return move.sum() + np.log(np.where(path == observed, 0.1 + 0.9 / 360, 0.9 / 360)).sum()


def test_a_tie_is_decided_alike_wherever_the_signal_begins(rng):
    observed = np.repeat([250, 140, 300, 180], 40)  # a leap of 110 bins may begin at several frames
    whole = crepe._likeliest_path(np.concatenate((rng.integers(0, 360, 57), [250] * 60, observed)))
    assert np.array_equal(
        whole[-len(observed) :], crepe._likeliest_path(np.append([250] * 60, observed))[60:]
    )


@pytest.mark.parametrize('n_frames', [1, 3, 33])
def test_negative_scales_and_odd_batches(rng, n_frames):
    """Normalisation is folded into the next layer; a negative scale turns the maximum into a minimum."""
    layers, before = [], 1
    for i, channels in enumerate((12, 8, 8, 8, 12, 16)):
        kernel = rng.normal(0, 0.05, (64 if i else 512, before, channels)).astype(np.float32)
        bias, scale, shift = rng.normal(0, 0.5, (3, channels)).astype(np.float32)
        layers.append(Layer(kernel, bias, scale, shift))
        before = channels
    classifier = rng.normal(0, 0.2, (64, 360)).astype(np.float32)
    weights = Weights(tuple(layers), classifier, np.zeros(360, np.float32), 'made here', '')
    audio = rng.normal(0, 1, (n_frames - 1) * 160 + 1).astype(np.float32)
    here = CrepeEngine(weights).activations(window_audio(audio, n_frames, 100, 1024))
    np.testing.assert_allclose(here, CrepePredict(weights).activations(audio), atol=2e-5)
