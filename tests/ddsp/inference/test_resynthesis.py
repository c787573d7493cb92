"""Resynthesis of any length, rooms, transfer, and what MLflow calls."""

import concurrent.futures

import keras
import numpy as np
import pytest
import scipy.signal

from ddsp import effects, inference, processors, synths
from ddsp.errors import DDSPError
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


def test_a_server_answers_requests_of_different_lengths_at_once(tiny_bundle, tone_audio):
    model = _load_pyfunc(str(tiny_bundle.path))
    requests = [tone_audio[None, :n] for n in (16000, 4000, 9000, 12000)]
    alone = [model.predict(audio)['audio'] for audio in requests]
    with concurrent.futures.ThreadPoolExecutor(len(requests)) as pool:
        for expected, found in zip(alone, pool.map(model.predict, requests), strict=True):
            np.testing.assert_array_equal(found['audio'], expected)


@pytest.fixture
def small_windows(monkeypatch):
    """Windows of two seconds, so that a test of a few seconds has several."""
    monkeypatch.setattr(synthesis, '_WINDOW_FRAMES', 500)
    monkeypatch.setattr(synthesis, '_CONTEXT_FRAMES', 200)
    monkeypatch.setattr(synthesis, '_LENGTHS', (500,))


@pytest.mark.parametrize('reverb', [True, False])
def test_blocks_are_what_one_piece_gives(tiny_bundle, tone_features, small_windows, reverb):
    long = {key: np.tile(value, 7)[None, :1709] for key, value in tone_features.items() if key != 'audio'}
    whole = tiny_bundle.synthesizer(long, seed=3, reverb=reverb)
    blocks = list(tiny_bundle.synthesizer.stream(long, seed=3, reverb=reverb))
    assert len(blocks) > 4
    assert max(block['audio'].shape[1] for block in blocks) <= 500 * 64
    for key, expected in whole.items():
        found = np.concatenate([block[key] for block in blocks], axis=1)
        np.testing.assert_allclose(found, expected, atol=2e-6, err_msg=key)


class _Controls:
    """A model without weights: its controls are waves along the time that `f0_confidence` holds."""

    preprocessor = encoder = None

    def __init__(self, dag, **channels):
        self.processor_group = processors.ProcessorGroup(dag=dag)
        self.channels = channels

    def encode(self, features, training):
        return {**features, 'f0': features['f0_hz'][..., None]}

    def decoder(self, features, training):
        time = features['f0_confidence'][..., None]
        return {
            key: keras.ops.sin(time * np.linspace(1, 9, n, dtype=np.float32))
            for key, n in self.channels.items()
        }


class _Unknown(processors.Processor):
    """An effect of which the package does not know how far it looks."""

    def get_controls(self, audio):
        return {'audio': audio}

    def get_signal(self, audio):
        return audio - keras.ops.mean(audio, axis=1, keepdims=True)


@pytest.mark.parametrize('kind', ['inharmonic', 'sinusoidal', 'wavetable', 'unknown effect'])
def test_blocks_of_other_synthesizers_are_what_one_piece_gives(kind, small_windows):
    tone = {
        'inharmonic': (synths.Harmonic(name='tone'), ['amps', 'many', 'f0', 'shifts']),
        'sinusoidal': (synths.Sinusoidal(name='tone'), ['shifts', 'many']),
        'wavetable': (synths.Wavetable(name='tone'), ['amps', 'many', 'f0']),
        'unknown effect': (synths.Harmonic(name='tone'), ['amps', 'many', 'f0']),
    }[kind]
    effect = (effects.FIRFilter(name='effect'), ['tone/signal', 'magnitudes'])
    if kind == 'unknown effect':
        effect = (_Unknown(name='effect'), ['tone/signal'])
    model = _Controls([tone, effect], amps=1, many=20, shifts=20, magnitudes=9)
    synthesizer = synthesis.Synthesizer(model, 64)
    time = np.arange(1777, dtype=np.float32)[None] / 250
    features = {'f0_hz': 220 * 2 ** np.sin(time), 'f0_confidence': time}
    whole = synthesizer(features)['audio']
    blocks = [block['audio'] for block in synthesizer.stream(features)]
    assert len(blocks) == 1 if kind == 'unknown effect' else len(blocks) > 4
    np.testing.assert_allclose(np.concatenate(blocks, axis=1), whole, atol=2e-5 * np.abs(whole).max())


@pytest.mark.parametrize('inharmonic', [False, True])
def test_the_phase_of_ten_minutes_in_blocks_is_that_of_float64(inharmonic, rng):
    n_frames, hop, size, ahead = 150000, 64, 9000, 60
    f0_hz = 220 * 2 ** np.cumsum(rng.normal(0, 0.002, n_frames + ahead)).clip(-2, 2)
    controls = {'f0_hz': f0_hz.astype(np.float32)[None, :, None]}
    frequency = controls['f0_hz'].astype(np.float64)
    if inharmonic:
        controls['harmonic_shifts'] = rng.uniform(-0.01, 0.01, (1, n_frames + ahead, 5)).astype(np.float32)
        harmonics = frequency * np.arange(1, 6)
        frequency = harmonics + harmonics.astype(np.float32) * controls['harmonic_shifts']
    now, following = frequency[:, :n_frames], frequency[:, 1 : n_frames + 1]
    expected = 2 * np.pi / 16000 * np.sum(hop * now + (hop - 1) / 2 * (following - now), axis=1)
    phase, oscillator = None, synths.Harmonic(sample_rate=16000)
    for start in range(0, n_frames, size):
        block = {key: x[:, start : start + size + ahead] for key, x in controls.items()}
        passed = min(size, n_frames - start)
        phase = synthesis._phase_after(oscillator, block, passed, hop, phase)
    error = np.asarray(phase.radians())[0] - expected
    assert np.abs(np.remainder(error + np.pi, 2 * np.pi) - np.pi).max() < 1e-6


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


def test_dereverberation_takes_away_the_echo_of_a_known_room(tiny_bundle, tone_audio):
    bundle = inference.load_bundle(tiny_bundle.path)
    (room,) = bundle.synthesizer.reverb.trainable_variables
    found = {}
    for gain in (0.8, -0.5):
        echo = np.zeros(room.shape, np.float32)
        echo.reshape(-1)[300] = gain
        room.assign(echo)
        found[gain] = inference.dereverberate(bundle, tone_audio, 16000)
        heard = bundle.resynthesize(tone_audio, 16000)
        np.testing.assert_allclose(heard[300:], found[gain][300:] + gain * found[gain][:-300], atol=1e-5)
    np.testing.assert_array_equal(found[0.8], found[-0.5])
    assert np.abs(found[0.8]).max() > 1e-3


@pytest.mark.parametrize(('f0_hz', 'octaves'), [(55.0, 12), (220.0, 0), (800.0, -12)])
def test_transfer_moves_by_octaves_into_the_models_range(tiny_bundle, f0_hz, octaves):
    time = np.arange(16000) / 16000
    audio = sum(np.sin(2 * np.pi * f0_hz * h * time) / h for h in range(1, 5)) * 0.2
    result = inference.transfer(tiny_bundle, audio, 16000)
    assert result.pitch_shift_semitones == octaves  # the model's range is MIDI 45 to 69, 110 to 440 Hz
    assert np.median(result.f0_hz) == pytest.approx(f0_hz * 2 ** (octaves / 12), rel=0.01)
    assert result.audio.shape == (16000,)


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
