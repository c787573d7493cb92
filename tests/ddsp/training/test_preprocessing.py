"""Preprocessors against numpy: scales, rates, and where loudness and power come from."""

import keras
import numpy as np
import pytest
from keras import ops

from ddsp.analysis.loudness import loudness_db, power_db
from ddsp.training import preprocessing
from ddsp.training.preprocessing import F0LoudnessPreprocessor, F0PowerPreprocessor, OnlineF0PowerPreprocessor

pytestmark = pytest.mark.portable


def npy(x):
    return ops.convert_to_numpy(x)


@pytest.fixture
def features(rng):
    """A second of noise whose level moves, at 16 kHz, with 250 frames of pitch and loudness."""
    level = np.linspace(0.01, 0.3, 16000)
    return {
        'audio': (level * rng.normal(size=[2, 16000])).astype(np.float32),
        'f0_hz': rng.uniform(80, 800, [2, 250]).astype(np.float32),
        'loudness_db': rng.uniform(-80, 0, [2, 250]).astype(np.float32),
    }


@pytest.mark.parametrize('shape', [(), (3,), (3, 4), (3, 4, 5)])
def test_axes_are_added_behind_until_there_are_three(shape):
    x = np.arange(np.prod(shape, dtype=int), dtype=np.float32).reshape(shape)
    found = npy(preprocessing.at_least_3d(x))
    assert found.shape == (shape + (1, 1, 1))[: max(3, len(shape))]
    np.testing.assert_array_equal(found.ravel(), x.ravel())


def test_scales_span_zero_to_one_and_are_undone():
    midi = np.array([0.0, 21.0, 69.0, 127.0])
    hz = (440.0 * 2.0 ** ((midi - 69.0) / 12.0)).astype(np.float32)
    np.testing.assert_allclose(npy(preprocessing.scale_f0_hz(hz)), midi / 127.0, atol=1e-6)
    np.testing.assert_allclose(npy(preprocessing.inv_scale_f0_hz(midi / 127.0)), hz, rtol=1e-4)
    np.testing.assert_allclose(preprocessing.scale_db(np.array([-80.0, -60.0, 0.0])), [0.0, 0.25, 1.0])
    np.testing.assert_allclose(preprocessing.inv_scale_db(np.array([0.0, 0.25, 1.0])), [-80.0, -60.0, 0.0])


@pytest.mark.parametrize('kind', [F0LoudnessPreprocessor, F0PowerPreprocessor])
def test_what_a_preprocessor_scales_it_can_invert(kind, features):
    given = {**features, 'power_db': features['loudness_db']}
    layer = kind(time_steps=250, compute_loudness=False)
    found = layer(given)
    level = 'loudness_db' if kind is F0LoudnessPreprocessor else 'pw_db'
    scaled = 'ld_scaled' if kind is F0LoudnessPreprocessor else 'pw_scaled'
    assert set(found) == {'f0_hz', 'f0_scaled', level, scaled}
    f0_hz, level_db = layer.invert_scaling(found['f0_scaled'], found[scaled])
    np.testing.assert_allclose(npy(f0_hz)[..., 0], features['f0_hz'], rtol=1e-4)
    np.testing.assert_allclose(npy(level_db)[..., 0], features['loudness_db'], atol=1e-4)


@pytest.mark.parametrize('time_steps', [125, 250, 1000])
def test_features_come_at_the_rate_of_the_network(time_steps, features):
    found = F0LoudnessPreprocessor(time_steps=time_steps, compute_loudness=False)(features)
    wanted = np.arange(time_steps) * (250 / time_steps)
    for key in ('f0_hz', 'loudness_db'):
        expected = [np.interp(wanted, np.arange(250), row) for row in features[key]]
        assert found[key].shape == (2, time_steps, 1)
        np.testing.assert_allclose(npy(found[key])[..., 0], expected, rtol=1e-5, atol=1e-3)
    np.testing.assert_allclose(npy(found['ld_scaled']), npy(found['loudness_db']) / 80 + 1, atol=1e-6)


def test_a_last_axis_of_one_changes_nothing(features):
    layer = F0LoudnessPreprocessor(time_steps=100, compute_loudness=False)
    flat = layer(features)
    deep = layer({key: x[..., None] for key, x in features.items() if key != 'audio'})
    for key, value in flat.items():
        np.testing.assert_array_equal(npy(value), npy(deep[key]), key)


def test_loudness_is_that_of_the_audio_unless_told_otherwise(features):
    n_frames = 251  # centred frames of a second
    heard = F0LoudnessPreprocessor(time_steps=n_frames)(features)['loudness_db']
    np.testing.assert_allclose(npy(heard)[..., 0], loudness_db(features['audio']), atol=1e-2)
    silent = {key: x for key, x in features.items() if key != 'audio'}
    for layer, given in (
        (F0LoudnessPreprocessor(time_steps=250), silent),
        (F0LoudnessPreprocessor(time_steps=250, compute_loudness=False), features),
    ):
        np.testing.assert_array_equal(npy(layer(given)['loudness_db'])[..., 0], features['loudness_db'])


def test_six_decibels_more_are_six_decibels_more(features):
    louder = {**features, 'audio': 2.0 * features['audio']}
    layers = [(F0LoudnessPreprocessor(time_steps=251), 'ld_scaled')]
    layers.append((F0PowerPreprocessor(time_steps=251), 'pw_scaled'))
    for layer, key in layers:
        change = npy(layer(louder)[key]) - npy(layer(features)[key])
        np.testing.assert_allclose(change, 20 * np.log10(2) / 80, atol=1e-4)


def test_rates_reach_the_loudness():
    """At 32 kHz and 100 frames per second, a tone of 1 kHz has the loudness and the frames of these rates."""
    tone = 0.1 * np.sin(2 * np.pi * 1000 * np.arange(32000) / 32000).astype(np.float32)[None]
    layer = F0LoudnessPreprocessor(time_steps=101, frame_rate=100, sample_rate=32000)
    found = layer({'audio': tone, 'f0_hz': np.full([1, 100], 1000.0), 'loudness_db': np.zeros([1, 100])})
    np.testing.assert_allclose(npy(found['loudness_db'])[..., 0], loudness_db(tone, 32000, 100), atol=1e-2)


@pytest.mark.parametrize('frame_size', [64, 1024])
def test_power_is_the_mean_square(frame_size, features):
    layer = F0PowerPreprocessor(time_steps=251, frame_size=frame_size)
    given = {key: features[key] for key in ('f0_hz', 'audio')}
    found = npy(layer(given)['pw_db'])[..., 0]
    expected = [power_db(x, frame_size=frame_size) for x in features['audio']]
    np.testing.assert_allclose(found, expected, atol=1e-2)
    known = np.full([2, 251], -33.0, np.float32)
    np.testing.assert_array_equal(npy(layer({**given, 'power_db': known})['pw_db'])[..., 0], known)


@pytest.mark.parametrize(('padding', 'n_frames'), [('center', 251), ('same', 250), ('valid', 235)])
def test_online_frames_are_those_of_the_stream(padding, n_frames, features):
    layer = OnlineF0PowerPreprocessor(compute_f0=False, padding=padding)
    f0_hz = np.full([2, n_frames], 220.0, np.float32)
    found = layer(features['audio'], f0_hz)
    expected = [power_db(x, frame_size=1024, padding=padding) for x in features['audio']]
    np.testing.assert_allclose(npy(found['pw_db'])[..., 0], expected, atol=1e-2)
    np.testing.assert_array_equal(npy(found['f0_confidence']), np.ones([2, n_frames, 1]))
    np.testing.assert_array_equal(npy(found['f0_hz'])[..., 0], f0_hz)
    with pytest.raises(ValueError, match=f'f0_hz has 99 frames; 16000 samples .* have {n_frames}'):
        layer(features['audio'], f0_hz[:, :99])
    with pytest.raises(ValueError, match=f'f0_confidence has 7 frames; .*{padding!r} padding'):
        layer(features['audio'], f0_hz, np.ones([2, 7], np.float32))


def test_online_features_are_those_of_the_audio_at_16_khz(features):
    layer = OnlineF0PowerPreprocessor(compute_f0=False)
    f0_hz = np.full([2, 251], 220.0, np.float32)
    at_48_khz = np.zeros([2, 48000], np.float32)
    found = layer({'audio': at_48_khz, 'audio_16k': features['audio'], 'f0_hz': f0_hz})
    np.testing.assert_array_equal(npy(found['pw_db']), npy(layer(features['audio'], f0_hz)['pw_db']))


def test_online_power_can_be_given(features):
    layer = OnlineF0PowerPreprocessor(compute_f0=False, compute_power=False)
    f0_hz = np.full([2, 251], 220.0, np.float32)
    found = layer({'audio': features['audio'], 'f0_hz': f0_hz, 'pw_db': np.full([2, 251], -40.0)})
    np.testing.assert_allclose(npy(found['pw_scaled']), 0.5)


@pytest.mark.parametrize(
    ('call', 'message'),
    [
        (lambda audio: F0PowerPreprocessor()(np.ones([1, 4])), 'needs power_db or audio; neither was given'),
        (lambda audio: OnlineF0PowerPreprocessor(), 'compute_f0 is True, but pitch is not computed'),
        (lambda audio: OnlineF0PowerPreprocessor(compute_f0=False)(audio), 'needs f0_hz'),
        (
            lambda audio: OnlineF0PowerPreprocessor(compute_f0=False, compute_power=False)(
                audio, np.ones([2, 251])
            ),
            'compute_power is False and pw_db was not given',
        ),
    ],
)
def test_what_is_missing_is_named(call, message, features):
    with pytest.raises(ValueError, match=message):
        call(features['audio'])


def test_features_stay_float32_under_mixed_precision(features):
    """8 bits of a mantissa would round a pitch to a quarter tone."""
    keras.mixed_precision.set_global_policy('mixed_bfloat16')
    try:
        found = F0LoudnessPreprocessor(time_steps=250, compute_loudness=False)(features)
    finally:
        keras.mixed_precision.set_global_policy('float32')
    np.testing.assert_array_equal(npy(found['f0_hz'])[..., 0], features['f0_hz'])
    assert {ops.dtype(x) for x in found.values()} == {'float32'}
