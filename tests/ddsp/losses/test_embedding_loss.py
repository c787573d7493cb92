"""CREPE as a network and embedding losses. What needs the published weights is skipped where they are not."""

import keras
import numpy as np
import pytest
from keras import ops

from ddsp import losses, spectral_ops
from ddsp.errors import ConfigError
from ddsp.f0 import crepe_weights
from ddsp.f0.crepe_weights import Layer, Weights, WeightsError


@pytest.fixture
def small_network(monkeypatch, tmp_path) -> Weights:
    """CREPE's shape at size tiny with seeded random weights, in place of the published ones."""
    rng = np.random.default_rng(0)
    filters = (128, 16, 16, 16, 32, 64)
    layers, n_in = [], 1
    for i, n_out in enumerate(filters):
        width = 512 if i == 0 else 64
        kernel = rng.standard_normal((width, n_in, n_out)) / np.sqrt(width * n_in)
        values = (
            kernel,
            0.1 * rng.standard_normal(n_out),
            rng.uniform(0.5, 1.5, n_out),
            rng.standard_normal(n_out),
        )
        layers.append(Layer(*(v.astype(np.float32) for v in values)))
        n_in = n_out
    classifier = (rng.standard_normal((256, 360)) / 16).astype(np.float32)
    weights = Weights(tuple(layers), classifier, np.zeros(360, np.float32), tmp_path, '')
    spectral_ops.reset_crepe()
    monkeypatch.setattr(crepe_weights, 'load_weights', lambda size: weights)
    yield weights
    spectral_ops.reset_crepe()


@pytest.fixture
def published() -> None:
    """Skips where the weights of CREPE tiny are not found."""
    try:
        crepe_weights.find_weights('tiny')
    except WeightsError as error:
        pytest.skip(str(error))


def reference_network(weights: Weights, frames: np.ndarray) -> np.ndarray:
    """CREPE in float64, by explicit sums over windows."""
    x = frames[:, :, None].astype(np.float64)
    for i, layer in enumerate(weights.layers):
        width, stride = len(layer.kernel), 4 if i == 0 else 1
        n_out = -(-x.shape[1] // stride)
        missing = max(0, (n_out - 1) * stride + width - x.shape[1])
        x = np.pad(x, [(0, 0), (missing // 2, missing - missing // 2), (0, 0)])
        windows = np.lib.stride_tricks.sliding_window_view(x, width, axis=1)[:, ::stride]
        x = np.einsum('ntcw,wco->nto', windows, layer.kernel.astype(np.float64)) + layer.bias
        x = np.maximum(x, 0) * layer.scale + layer.shift
        x = x.reshape(len(x), n_out // 2, 2, -1).max(2)
    logits = x.reshape(len(x), -1) @ weights.classifier.astype(np.float64) + weights.classifier_bias
    return 1 / (1 + np.exp(-logits))


def test_the_network_is_crepe(small_network):
    frames = np.random.default_rng(1).standard_normal((3, 1024)).astype(np.float32)
    model = spectral_ops.PretrainedCREPE('tiny')
    normalised = (frames - frames.mean(1, keepdims=True)) / frames.std(1, keepdims=True)
    np.testing.assert_allclose(model(frames), reference_network(small_network, normalised), atol=1e-4)


def test_embedding_loss_with_gradient(small_network, value_and_gradients):
    rng = np.random.default_rng(2)
    target, audio = rng.standard_normal((2, 2, 4096)).astype(np.float32)
    loss = losses.PretrainedCREPEEmbeddingLoss(weight=0.5, activation_layer='conv5-maxpool')
    embed = losses.PretrainedCREPE('tiny', 'conv5-maxpool')
    a, b = (ops.convert_to_numpy(embed(x)) for x in (target, audio))
    assert a.shape == (2, 5, 8 * 32)  # 1 + 4096 / 1024 centred frames
    np.testing.assert_allclose(loss(target, audio), 0.5 * 20 * 1.7 * np.abs(a - b).mean(), rtol=1e-4)
    assert float(loss(audio, audio)) == 0.0
    _, (_, to_audio) = value_and_gradients(loss, target, audio)
    assert np.isfinite(to_audio).all()
    assert np.abs(to_audio).max() > 0
    _, (_, at_silence) = value_and_gradients(loss, target, np.zeros_like(audio))
    assert np.isfinite(at_silence).all()
    clone = type(loss).from_config(loss.get_config())
    np.testing.assert_allclose(clone(target, audio), loss(target, audio))


def test_frames_of_the_embedding_are_normalised(small_network):
    audio = 0.01 * np.random.default_rng(3).standard_normal((1, 3000)).astype(np.float32) + 0.5
    frames = ops.convert_to_numpy(losses.PretrainedCREPE().frame_audio(audio))
    assert frames.shape == (1, 3, 1024)
    np.testing.assert_allclose(frames.mean(-1), 0, atol=1e-5)
    np.testing.assert_allclose(frames.std(-1), 1, rtol=5e-3)


def test_any_network_makes_an_embedding_loss():
    model = keras.layers.Dense(3, kernel_initializer='ones')
    a, b = np.ones((1, 4), np.float32), np.zeros((1, 4), np.float32)
    assert float(losses.EmbeddingLoss(2.0, 'L2', model)(a, b)) == 2 * 16.0
    with pytest.raises(ConfigError, match='EmbeddingLoss needs pretrained_model'):
        losses.EmbeddingLoss()(a, b)


def test_activations_become_pitch_and_confidence():
    bins = np.arange(360)
    activations = np.stack([0.8 * np.exp(-0.5 * ((bins - c) / 1.2) ** 2) for c in (5.0, 100.3, 354.0)])
    f0_hz, confidence = spectral_ops.PretrainedCREPE.activations_to_f0_and_confidence(activations)
    cents = 1997.3794084376191 + 20 * np.array([5.0, 100.3, 354.0])
    np.testing.assert_allclose(1200 * np.log2(ops.convert_to_numpy(f0_hz) / 10), cents, atol=1.0)
    np.testing.assert_allclose(ops.convert_to_numpy(confidence)[:, 0], activations.max(1), rtol=1e-6)


def test_viterbi_keeps_to_the_path_where_one_frame_jumps(small_network):
    model = spectral_ops.PretrainedCREPE('tiny', hop_size=1024)
    acts = np.zeros((1, 9, 360), np.float32)
    acts[0, range(9), [100, 101, 102, 300, 104, 105, 106, 107, 108]] = 0.9
    path = model.viterbi_decode(acts)
    assert path.shape == (1, 9)
    assert abs(path[0, 3] - 103) <= 4
    np.testing.assert_array_equal(np.delete(path[0], 3), [100, 101, 102, 104, 105, 106, 107, 108])
    transition, emission = model.create_hmm()
    np.testing.assert_allclose(transition.sum(1), 1)
    np.testing.assert_allclose(emission.sum(1), 1)
    for viterbi in (False, True):
        f0_hz, confidence = model.predict_f0_and_confidence(np.zeros((2, 4096), np.float32), viterbi)
        assert tuple(f0_hz.shape) == tuple(confidence.shape) == (2, 5)


def test_the_published_network_hears_a_tone(published):
    t = np.arange(8000) / 16000
    tone = sum(np.sin(2 * np.pi * 330 * h * t) / h for h in range(1, 8)).astype(np.float32)
    f0_hz, confidence = spectral_ops.PretrainedCREPE('tiny').predict_f0_and_confidence(tone, padding='valid')
    assert abs(1200 * np.log2(np.median(f0_hz) / 330)) < 20
    assert np.median(confidence) > 0.8
    loss = losses.PretrainedCREPEEmbeddingLoss()
    other = np.sin(2 * np.pi * 500 * t).astype(np.float32)
    assert float(loss(tone[None], other[None])) > 3 * float(loss(tone[None], 0.5 * tone[None]))


def test_compute_f0_follows_a_tone():
    t = np.arange(16000) / 16000
    tone = sum(np.sin(2 * np.pi * 220 * h * t) / h for h in range(1, 8)).astype(np.float32)
    f0_hz, confidence = spectral_ops.compute_f0(tone, 100)
    assert len(f0_hz) == len(confidence) == 101
    assert abs(1200 * np.log2(np.median(f0_hz) / 220)) < 20


def test_what_is_not_there_is_named(monkeypatch, tmp_path):
    with pytest.raises(ConfigError, match=r"CREPE has no size 'huge'; it can be 'tiny', 'small'"):
        losses.PretrainedCREPE('huge')
    with pytest.raises(ConfigError, match=r"activation_layer is 'conv7'; it can be 'conv1-BN'"):
        losses.PretrainedCREPE('tiny', 'conv7')
    with pytest.raises(ConfigError, match=r"model_size_or_path is '/nowhere.keras': neither a size"):
        spectral_ops.PretrainedCREPE('/nowhere.keras')
    spectral_ops.reset_crepe()
    monkeypatch.setenv('DDSP_CREPE_WEIGHTS', str(tmp_path))
    with pytest.raises(WeightsError, match='DDSP_CREPE_WEIGHTS'):
        losses.PretrainedCREPE('large')
