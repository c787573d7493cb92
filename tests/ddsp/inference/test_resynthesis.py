"""Resynthesis of any length, rooms, transfer, and what MLflow calls."""

import concurrent.futures

import numpy as np
import pytest
import scipy.signal

from ddsp import inference
from ddsp.errors import ConfigError, DDSPError
from ddsp.inference import synthesis
from ddsp.inference.pyfunc import _load_pyfunc


@pytest.mark.parametrize('n_samples', [100, 16000, 20001])
def test_audio_of_any_length_comes_back_in_its_length(tiny_bundle, tone_audio, n_samples):
    audio = tiny_bundle.resynthesize(np.resize(tone_audio, n_samples), 16000)
    assert audio.shape == (n_samples,)
    assert np.all(np.isfinite(audio))


def test_audio_at_another_rate_is_resampled(tiny_bundle, tone_audio):
    assert tiny_bundle.resynthesize(np.repeat(tone_audio, 2), 32000).shape == (16000,)


def test_noise_depends_on_the_seed_alone(tiny_bundle, tone_features):
    first, again, other = (tiny_bundle.synthesize(tone_features, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert np.any(first != other)


def test_threads_with_different_lengths_get_what_each_gets_alone(tiny_bundle, tone_features):
    lengths = [40, 250, 90, 170, 60, 210, 130, 20]
    jobs = [({key: value[:n] for key, value in tone_features.items() if key != 'audio'}, n) for n in lengths]
    # Notes and noise of different seeds: a thread that gets another's settings is noticed by either.
    alone = [tiny_bundle.synthesize(features, seed=n) for features, n in jobs]
    before = [dict(vars(p)) for p in tiny_bundle.model.processor_group.processors]
    with concurrent.futures.ThreadPoolExecutor(len(jobs)) as pool:
        for _ in range(4):
            together = pool.map(lambda job: tiny_bundle.synthesize(job[0], seed=job[1]), jobs)
            for expected, audio in zip(alone, together, strict=True):
                np.testing.assert_array_equal(audio, expected)
    assert [dict(vars(p)) for p in tiny_bundle.model.processor_group.processors] == before


def test_pitch_is_kept(tiny_bundle, tone_features):
    from ddsp.f0 import estimate_f0

    audio = tiny_bundle.synthesize({**tone_features, 'f0_hz': np.full(250, 300.0)}, reverb=False)
    f0_hz, confidence = estimate_f0(audio, 16000, estimator='yin')
    voiced = confidence > 0.5
    assert voiced.mean() > 0.8
    assert np.median(np.abs(1200 * np.log2(f0_hz[voiced] / 300))) < 5


def test_windows_join_to_what_one_pass_gives(tiny_bundle, tone_features, monkeypatch):
    long = {key: np.tile(value, 4)[None] for key, value in tone_features.items() if key != 'audio'}
    whole = tiny_bundle.synthesizer.controls(long)
    monkeypatch.setattr(synthesis, '_WINDOW_FRAMES', 500)
    monkeypatch.setattr(synthesis, '_CONTEXT_FRAMES', 200)
    monkeypatch.setattr(synthesis, '_LENGTHS', (500,))
    windows = tiny_bundle.synthesizer.controls(long)
    for key, value in whole.items():
        assert windows[key].shape == value.shape
        # The network's memory is longer than this context of 0.8 s; what is left of it is small.
        np.testing.assert_allclose(windows[key], value, atol=2e-2 * np.abs(value).max(), err_msg=key)


def test_room_is_the_difference_between_wet_and_dry(tiny_bundle, tone_features):
    wet = tiny_bundle.synthesize(tone_features)
    dry = tiny_bundle.synthesize(tone_features, reverb=False)
    room = tiny_bundle.impulse_response()
    assert room[0] == 0
    assert room.shape == (400,)
    expected = dry + scipy.signal.fftconvolve(dry.astype(np.float64), room)[: len(dry)]
    np.testing.assert_allclose(wet, expected, atol=1e-5)
    np.testing.assert_allclose(inference.transfer_room(tiny_bundle, dry, 16000), expected, atol=1e-5)


def test_dereverberation_is_resynthesis_without_the_room(tiny_bundle, tone_audio):
    np.testing.assert_array_equal(
        inference.dereverberate(tiny_bundle, tone_audio, 16000),
        tiny_bundle.resynthesize(tone_audio, 16000, reverb=False),
    )


@pytest.mark.parametrize(('f0_hz', 'octaves'), [(55.0, 24), (220.0, 0), (900.0, -24)])
def test_transfer_moves_by_octaves_to_the_models_pitch(tiny_bundle, f0_hz, octaves):
    time = np.arange(16000) / 16000
    audio = sum(np.sin(2 * np.pi * f0_hz * h * time) / h for h in range(1, 5)) * 0.2
    result = inference.transfer(tiny_bundle, audio, 16000)
    assert result.pitch_shift_semitones == octaves  # the model's mean pitch is MIDI 57, 220 Hz
    assert np.median(result.f0_hz) == pytest.approx(f0_hz * 2 ** (octaves / 12), rel=0.01)
    assert result.audio.shape == (16000,)


def test_transfer_matches_the_loudness_of_the_dataset(tiny_bundle, tone_audio):
    quiet = inference.transfer(tiny_bundle, 0.01 * tone_audio, 16000)
    loud = inference.transfer(tiny_bundle, tone_audio, 16000)
    np.testing.assert_allclose(np.median(quiet.loudness_db), np.median(loud.loudness_db), atol=1.0)
    assert quiet.loudness_shift_db - loud.loudness_shift_db == pytest.approx(40, abs=1.5)
    as_is = inference.transfer(tiny_bundle, tone_audio, 16000, match_loudness=False, loudness_shift_db=-6.0)
    assert as_is.loudness_shift_db == pytest.approx(-6.0)


def test_transfer_makes_what_has_no_pitch_quieter(tiny_bundle, tone_audio, rng):
    noise = 0.1 * rng.normal(size=8000).astype(np.float32)
    audio = np.concatenate([tone_audio[:8000], noise])
    result = inference.transfer(tiny_bundle, audio, 16000, match_loudness=False)
    before = tiny_bundle.features(audio, 16000)['loudness_db']
    change = result.loudness_db - before
    assert abs(np.median(change[20:100])) < 0.5
    assert np.median(change[150:]) < -15


def test_arguments_of_transfer_are_checked(tiny_bundle, tone_audio):
    with pytest.raises(ConfigError, match="pitch_shift_semitones is 'up'; it must be a number or 'auto'"):
        inference.transfer(tiny_bundle, tone_audio, 16000, pitch_shift_semitones='up')
    with pytest.raises(DDSPError, match='audio must be mono'):
        inference.transfer(tiny_bundle, np.zeros([10, 2]), 16000)


def test_mlflow_gets_audio_for_audio(tiny_bundle, tone_audio):
    model = _load_pyfunc(str(tiny_bundle.path))
    batch = np.stack([tone_audio, 0.5 * tone_audio])
    result = model.predict({'audio': batch}, {'pitch_shift_semitones': 2.0})['audio']
    assert result.shape == (2, 16000)
    with pytest.raises(DDSPError, match=r'audio must be \[batch, n_samples\]'):
        model.predict(tone_audio)


def test_long_audio_has_the_features_of_its_parts(tiny_bundle, tone_audio):
    long = np.tile(tone_audio, 45)  # three pieces
    features = tiny_bundle.features(long, 16000)
    assert features['f0_hz'].shape == features['loudness_db'].shape == (45 * 250,)
    # The signal repeats every second, and so do its features, also at the joints of the pieces.
    for key, tolerance in (('loudness_db', 0.01), ('f0_hz', 1.0)):
        seconds = features[key].reshape(45, 250)[1:-1]
        np.testing.assert_allclose(seconds, np.broadcast_to(seconds[:1], seconds.shape), atol=tolerance)
