"""What is exported sounds like the model."""

import json

import numpy as np
import pytest
import soundfile
import tensorflow as tf

from ddsp import export
from ddsp.errors import DDSPError
from ddsp.export.saved_model import ExportError


def test_impulse_response_is_the_learned_one(tiny_bundle, tmp_path):
    path = export.export_impulse_response(tiny_bundle, tmp_path / 'room.wav')
    samples, rate = soundfile.read(path, dtype='float32')
    assert rate == 16000
    np.testing.assert_allclose(samples, tiny_bundle.impulse_response(), atol=1e-7)
    wet_and_dry, _ = soundfile.read(
        export.export_impulse_response(tiny_bundle, tmp_path / 'dry.wav', dry=True)
    )
    assert wet_and_dry[0] == 1.0


def test_impulse_response_at_another_rate_keeps_its_gain(tiny_bundle, tmp_path):
    path = export.export_impulse_response(tiny_bundle, tmp_path, sample_rate=44100)
    assert path.name == 'impulse_response_44100_hz.wav'
    samples, rate = soundfile.read(path)
    original = tiny_bundle.impulse_response()
    assert rate == 44100
    frequencies = np.array([200.0, 1000.0, 3000.0])

    def response(x, sample_rate):
        return np.abs(np.exp(-2j * np.pi * frequencies[:, None] * np.arange(len(x)) / sample_rate) @ x)

    np.testing.assert_allclose(response(samples, 44100), response(original, 16000), rtol=0.1, atol=1e-4)


def test_saved_model_runs_without_this_package(tiny_bundle, tmp_path, tone_features):
    path = export.export_saved_model(tiny_bundle, tmp_path / 'model', seed=4)
    facts = json.loads((path / 'export.json').read_text())
    assert facts['max_difference_from_model'] < 1e-5
    serve = tf.saved_model.load(str(path)).signatures['serving_default']
    batch = {key: np.stack([tone_features[key]] * 2).astype(np.float32) for key in ('f0_hz', 'loudness_db')}
    audio = serve(**{key: tf.constant(value) for key, value in batch.items()})['audio'].numpy()
    assert audio.shape == (2, facts['n_samples'])
    np.testing.assert_allclose(audio, tiny_bundle.synthesizer(batch, seed=4)['audio'], atol=1e-5)


def test_what_cannot_be_exported_is_refused(tiny_bundle, tmp_path):
    import dataclasses

    class Part:
        encoder = object()

    with pytest.raises(ExportError, match='has an encoder'):
        export.export_saved_model(dataclasses.replace(tiny_bundle, model=Part()), tmp_path / 'x')
    with pytest.raises(DDSPError, match='has no reverb'):
        export.export_impulse_response(_WithoutRoom(tiny_bundle), tmp_path / 'x.wav')


class _WithoutRoom:
    def __init__(self, bundle):
        self.path, self.sample_rate = bundle.path, bundle.sample_rate

    def impulse_response(self):
        return None


def test_an_export_replaces_an_export_and_nothing_else(tiny_bundle, tmp_path):
    target = tmp_path / 'model'
    target.mkdir()
    (target / 'thesis.txt').write_text('mine')
    for marker in (None, 'export.json'):
        if marker:
            (target / marker).write_text('{}')
        with pytest.raises(DDSPError, match=r'model holds other files \(.*\); nothing was changed'):
            export.export_saved_model(tiny_bundle, target, n_frames=50)
    assert (target / 'thesis.txt').read_text() == 'mine'
    (target / 'thesis.txt').unlink()
    (target / 'export.json').unlink()
    for n_frames in (50, 60):
        export.export_saved_model(tiny_bundle, target, n_frames=n_frames)
    assert json.loads((target / 'export.json').read_text())['n_frames'] == 60
    assert [path.name for path in tmp_path.iterdir()] == ['model']


def test_an_export_does_not_touch_its_bundle(tiny_bundle):
    before = {path.name: path.read_bytes() for path in tiny_bundle.path.iterdir()}
    weights = tiny_bundle.path / 'weights.weights.h5'
    for make, path in [
        (export.export_saved_model, tiny_bundle.path),
        (export.export_saved_model, tiny_bundle.path / 'exported'),
        (export.export_impulse_response, weights),
        (export.export_impulse_response, tiny_bundle.path),
    ]:
        with pytest.raises(
            DDSPError, match=r'the output .* (is|lies in) the input .*\. Give another output\.'
        ):
            make(tiny_bundle, path)
    assert {path.name: path.read_bytes() for path in tiny_bundle.path.iterdir()} == before
