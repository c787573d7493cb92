"""HMM transcription against sums over all paths, and on a melody."""

import itertools

import numpy as np
import pytest
import scipy.special
import scipy.stats
from keras import ops

from ddsp import losses
from ddsp.errors import ConfigError

pytestmark = pytest.mark.portable


def all_paths(model: losses.HmmTranscriber, pitch: np.ndarray, amps: np.ndarray) -> tuple[float, tuple]:
    """Log likelihood and best path by enumerating every path of states."""
    n, stay = model.n_pitches, 1 - 1 / model.avg_length
    log_transition = np.log(np.where(np.eye(n), stay, (1 - stay) / (n - 1)))

    states = np.arange(n)
    silent = states == 0
    emission = scipy.stats.norm.logpdf(
        pitch[:, None], np.where(silent, n / 2, states), np.where(silent, n, model.midi_std)
    ) + scipy.stats.norm.logpdf(
        amps[:, None],
        np.where(silent, model.amps_off_center, model.amps_on_center),
        np.where(silent, model.amps_off_scale, model.amps_on_scale),
    )
    scores = {}
    for path in itertools.product(range(n), repeat=len(pitch)):
        changes = log_transition[list(path[:-1]), list(path[1:])].sum()
        scores[path] = -np.log(n) + changes + emission[range(len(path)), path].sum()
    return scipy.special.logsumexp(list(scores.values())), max(scores, key=scores.get)


@pytest.mark.parametrize('seed', [0, 1, 2])
def test_likelihood_and_best_path_are_those_over_all_paths(seed):
    rng = np.random.default_rng(seed)
    model = losses.HmmTranscriber(avg_length=3.0, n_pitches=5, midi_std=0.7, weight=2.0)
    pitch = rng.uniform(0, 5, (2, 5, 1)).astype(np.float32)
    amps = rng.uniform(-0.2, 1.8, (2, 5, 1)).astype(np.float32)
    expected = [all_paths(model, pitch[b, :, 0], amps[b, :, 0]) for b in range(2)]
    nll = [-likelihood / 5 for likelihood, _ in expected]
    np.testing.assert_allclose(model.nll(pitch, amps, per_example_loss=True), nll, rtol=1e-4)
    np.testing.assert_allclose(model(pitch, amps), 2 * np.mean(nll), rtol=1e-4)
    notes = ops.convert_to_numpy(model.predict_midi(pitch, amps, channel_dim=False))
    np.testing.assert_array_equal(notes, [path for _, path in expected])


def melody(n_frames: int = 150) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    notes = np.repeat([60, 64, 0], n_frames // 3)[None, :, None]
    pitch = np.where(
        notes > 0, notes + 0.3 * rng.standard_normal(notes.shape), rng.uniform(0, 127, notes.shape)
    )
    amps = np.where(notes > 0, 1.4, 0.0) + 0.05 * rng.standard_normal(notes.shape)
    return notes, pitch.astype(np.float32), amps.astype(np.float32)


def test_a_melody_is_transcribed_and_a_wrong_one_is_less_likely():
    notes, pitch, amps = melody()
    model = losses.HmmTranscriber(weight=0.5)
    predicted = model.predict_midi(pitch, amps)
    assert tuple(predicted.shape) == notes.shape
    np.testing.assert_array_equal(ops.convert_to_numpy(predicted), notes)
    jumpy = np.random.default_rng(1).permutation(150)
    assert float(model(pitch[:, jumpy], amps)) > float(model(pitch, amps))


def test_compiled_with_gradient(value_and_gradients, compiled):
    _, pitch, amps = melody(30)
    model = losses.HmmTranscriber()
    np.testing.assert_allclose(compiled(model.nll)(pitch, amps), model.nll(pitch, amps), rtol=1e-4)
    _, (pitch_gradient, amp_gradient) = value_and_gradients(model, pitch, amps)
    for gradient, which in ((pitch_gradient, 0), (amp_gradient, 1)):
        direction = np.random.default_rng(2).standard_normal(gradient.shape).astype(np.float32)
        shifted = []
        for sign in (1, -1):
            arguments = [pitch.copy(), amps.copy()]
            arguments[which] += sign * 1e-2 * direction
            shifted.append(float(model(*arguments)))
        np.testing.assert_allclose(
            (gradient * direction).sum(), (shifted[0] - shifted[1]) / 2e-2, rtol=2e-2, atol=1e-3
        )


def test_straight_through(value_and_gradients):
    value, (gradient,) = value_and_gradients(
        lambda x: ops.sum(losses.HmmTranscriber.straight_through(x, ops.round(x) * 10.0)),
        np.array([1.2, 2.7]),
    )
    assert float(value) == 40.0
    np.testing.assert_array_equal(gradient, [1.0, 1.0])


def test_limits_are_named():
    with pytest.raises(ConfigError, match=r'avg_length is 1 frames'):
        losses.HmmTranscriber(avg_length=1)
