"""Timbre transfer: pitch and loudness of a performance in a model's range, files of any length."""

import tracemalloc

import numpy as np
import pytest

from ddsp import inference
from ddsp.errors import ConfigError, DDSPError
from ddsp.f0 import VOICED
from ddsp.inference import dynamics, synthesis
from ddsp.io import audio as audio_files

FRAME_RATE = 250
G3_TO_A5 = {'pitch_midi': {'mean': 69.0, 'quantiles': np.linspace(55, 81, 101).tolist()}}


def _hz(midi):
    return 440.0 * 2.0 ** ((np.asarray(midi, np.float64) - 69) / 12)


def _statistics(low_db, high_db):
    return {'notes': {'loudness_db': {'quantiles': np.linspace(low_db, high_db, 101).tolist()}}}


def _range(values):
    return float(np.subtract(*np.quantile(values, [0.95, 0.05])))


def _phrases(levels_db, secs=0.8, rest=0.2):
    """Loudness and voicing of notes of given levels with attack, decay and rests between them."""
    time = np.arange(int(secs * FRAME_RATE)) / FRAME_RATE
    shape = -20.0 * np.exp(-time / 0.03) - 4.0 * time + 0.5 * np.sin(2 * np.pi * 5 * time)
    pause = np.full(int(rest * FRAME_RATE), -75.0)
    loudness = np.concatenate([np.concatenate([level + shape, pause]) for level in levels_db])
    return loudness, loudness > -70


@pytest.mark.parametrize(
    ('midi', 'octaves'),
    [
        ([62], 0),  # D4: inside, though nearer to the mean an octave higher
        ([55, 60, 81], 0),
        ([53.5, 60, 67], 0),  # a little outside
        ([43, 45], 1),
        ([31], 2),
        ([93, 96], -2),
        ([50, 57, 60, 60, 62, 64, 67, 69], 0),  # one low note of eight is not worth leaving the octave
        ([50, 50, 52, 60], 1),
    ],
)
def test_only_what_lies_outside_moves_and_by_the_fewest_octaves(midi, octaves):
    assert dynamics.octaves_into_range(_hz(np.repeat(midi, 50)), G3_TO_A5) == octaves


def test_wrong_frames_do_not_move_a_recording():
    f0_hz = np.concatenate([_hz(np.full(95, 60.0)), np.full(5, 40.0)])
    assert dynamics.octaves_into_range(f0_hz, G3_TO_A5) == 0


def test_without_a_known_range_nothing_moves():
    assert dynamics.octaves_into_range(_hz([20]), {}) == 0
    assert dynamics.octaves_into_range(np.zeros(0), G3_TO_A5) == 0


@pytest.mark.parametrize('levels', [(-30, -28, -31, -29), (-50, -20, -35, -15), (-40, -40, -10, -10)])
@pytest.mark.parametrize('target', [(-45.0, -5.0), (-12.0, -8.0)])
def test_dynamics_stay_those_of_the_performance(levels, target):
    loudness, voiced = _phrases(levels)
    matched = dynamics.matched_loudness(loudness, voiced, _statistics(*target), FRAME_RATE)
    assert abs(_range(matched[voiced]) - _range(loudness[voiced])) <= 6.0
    np.testing.assert_array_equal(matched[~voiced], loudness[~voiced])  # silence stays silence
    # The change is slow: no note is bent, nothing thumps.
    change = (matched - loudness)[voiced]
    assert np.ptp(change) <= 2 * 3.0
    inside = np.diff(matched - loudness)[voiced[1:] & voiced[:-1]]
    assert np.abs(inside).max() * FRAME_RATE < 20.0  # dB a second


def test_level_is_matched_and_phrases_come_nearer_to_the_models_range():
    loudness, voiced = _phrases((-40, -36, -32, -28))
    wide = dynamics.matched_loudness(loudness, voiced, _statistics(-45.0, -5.0), FRAME_RATE)
    narrow = dynamics.matched_loudness(loudness, voiced, _statistics(-27.0, -23.0), FRAME_RATE)
    assert np.median(wide[voiced]) == pytest.approx(-25.0, abs=1.0)
    assert _range(narrow[voiced]) < _range(loudness[voiced]) < _range(wide[voiced])


def test_nothing_is_played_louder_than_the_model_has_heard():
    loudness, voiced = _phrases((-60, -60, -60, -20))
    matched = dynamics.matched_loudness(loudness, voiced, _statistics(-20.0, -10.0), FRAME_RATE)
    assert np.quantile(matched[voiced], 0.95) <= -10.0


def test_recordings_keep_their_dynamics(recordings):
    names = ['sms_singing-female.wav', 'medleysolos_train_flute_00.flac', 'mdb_resyn_nightowl_08.wav']
    for name in names:
        audio = audio_files.load_audio(recordings / name)[: 12 * 16000]
        features = inference.compute_features(audio, 16000, estimator='yin')
        voiced = (features['f0_confidence'] >= VOICED) & (features['loudness_db'] > -70)
        before = features['loudness_db']
        matched = dynamics.matched_loudness(before, voiced, _statistics(-50.0, 10.0), FRAME_RATE)
        assert abs(_range(matched[voiced]) - _range(before[voiced])) <= 6.0, name
        assert np.abs(np.diff(matched - before))[voiced[1:] & voiced[:-1]].max() * FRAME_RATE < 20.0, name


@pytest.mark.parametrize('value', ['up', 1e9, -61, float('nan'), float('inf'), None])
def test_shifts_beyond_reason_are_refused_with_what_is_allowed(tiny_bundle, tone_audio, value):
    with pytest.raises(ConfigError, match=r"must be a number from -60 to 60 or 'auto'"):
        inference.transfer(tiny_bundle, tone_audio, 16000, pitch_shift_semitones=value)
    if value != 'up':
        with pytest.raises(ConfigError, match=r'loudness_shift_db is .* a number from -60 to 60$'):
            inference.transfer(tiny_bundle, tone_audio, 16000, loudness_shift_db=value)


def test_audio_must_be_mono(tiny_bundle):
    with pytest.raises(DDSPError, match='audio must be mono'):
        inference.transfer(tiny_bundle, np.zeros([10, 2]), 16000)


def test_transfer_plays_at_the_level_of_the_dataset(tiny_bundle, tone_audio):
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
    assert result.warnings == []


def test_a_drum_is_called_unpitched(tiny_bundle, rng):
    time = np.arange(4000) / 16000
    drum = np.tile(rng.normal(size=4000) * np.exp(-time / 0.05), 8).astype(np.float32) * 0.3
    warnings = inference.transfer(tiny_bundle, drum, 16000).warnings
    assert len(warnings) == 1
    assert warnings[0].startswith('unpitched: only ')
    assert inference.transfer(tiny_bundle, np.zeros(16000), 16000).warnings[0].startswith('silent: ')


@pytest.fixture
def short_windows(monkeypatch):
    """Windows of two seconds, so that a test of some seconds has several."""
    monkeypatch.setattr(synthesis, '_WINDOW_FRAMES', 500)
    monkeypatch.setattr(synthesis, '_CONTEXT_FRAMES', 200)
    monkeypatch.setattr(synthesis, '_LENGTHS', (500,))


def _write_song(path, tone_audio, secs, sample_rate=16000):
    with audio_files.wav_writer(path, sample_rate, subtype='FLOAT') as wav:
        for second in range(secs):
            wav.write(tone_audio * (0.3 + 0.6 * np.sin(second) ** 2))


def test_a_file_gives_the_samples_of_its_audio_in_one_go(tiny_bundle, tone_audio, tmp_path, short_windows):
    source, target = tmp_path / 'in.wav', tmp_path / 'out.wav'
    _write_song(source, tone_audio, 21)
    shown = []
    report = inference.transfer_file(tiny_bundle, source, target, progress=lambda *step: shown.append(step))
    audio = audio_files.load_audio(source)
    whole = inference.transfer(tiny_bundle, audio, 16000)
    # In one piece: features of the whole, one run of network and processors.
    features = {'f0_hz': whole.f0_hz[None], 'loudness_db': whole.loudness_db[None]}
    one_go = tiny_bundle.synthesizer(features)['audio'][0]
    np.testing.assert_allclose(whole.audio, one_go, atol=1e-4)
    written = audio_files.load_audio(target)
    assert len(written) == report.n_samples == len(audio)
    np.testing.assert_allclose(written, whole.audio, atol=1e-4)
    assert shown[-1] == (21, 21, 'synthesis')
    assert [text for *_, text in shown].count('pitch and loudness') == 2


class _Constant:
    """A pitch estimator that costs nothing."""

    name = 'constant'

    def predict(self, audio, frame_rate, n_frames, viterbi=True):
        return np.full(n_frames, 220.0), np.ones(n_frames)


def _peak(function):
    """Most memory that Python and NumPy held while the function ran, bytes."""
    tracemalloc.start()
    function()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


def test_memory_of_listening_does_not_grow_with_the_length():
    settings = inference.features.FeatureSettings(estimator=_Constant())
    second = np.zeros(16000, np.float32)

    def listen(secs):
        return _peak(
            lambda: inference.features.stream_features((second for _ in range(secs)), 16000, settings)
        )

    assert listen(600) - listen(60) < 540 * 5000  # 3 kB of features a second; audio would be 64


@pytest.mark.slow
def test_memory_of_playing_does_not_grow_with_the_length(tiny_bundle, short_windows):
    def play(secs):
        frames = np.ones([1, secs * FRAME_RATE], np.float32)
        features = {'f0_hz': 220 * frames, 'loudness_db': -20 * frames}
        return _peak(lambda: [None for _ in tiny_bundle.synthesizer.stream(features)])

    play(10)
    assert play(60) - play(20) < 40 * 5000


def test_a_file_is_not_played_over_itself(tiny_bundle, tone_audio, tmp_path):
    source = tmp_path / 'in.wav'
    audio_files.write_wav(source, tone_audio, 16000)
    before = source.read_bytes()
    with pytest.raises(DDSPError, match=r'the output .* is the input'):
        inference.transfer_file(tiny_bundle, source, tmp_path / '.' / 'in.wav')
    assert source.read_bytes() == before


def test_a_file_at_another_rate(tiny_bundle, tone_audio, tmp_path):
    source, target = tmp_path / 'in.wav', tmp_path / 'out.wav'
    audio_files.write_wav(source, np.repeat(tone_audio, 3), 44100)
    report = inference.transfer_file(tiny_bundle, source, target)
    written, rate = audio_files.load_audio(target, None), audio_files.probe(target).sample_rate
    assert (len(written), rate) == (report.n_samples, 16000)
    assert report.n_samples == round(48000 * 16000 / 44100)


def test_a_result_that_is_clipped_is_told(tiny_bundle, tone_audio, tmp_path, monkeypatch):
    audio_files.write_wav(tmp_path / 'in.wav', tone_audio, 16000)
    loud = np.where(np.arange(16000) < 160, 2.0, 0.5)[None]
    monkeypatch.setattr(type(tiny_bundle.synthesizer), 'stream', lambda *args: iter([{'audio': loud}]))
    report = inference.transfer_file(tiny_bundle, tmp_path / 'in.wav', tmp_path / 'out.wav')
    assert report.warnings == ['1 % of the result was beyond full scale and is clipped']
