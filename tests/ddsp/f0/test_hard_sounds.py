"""Pitch where estimators used to fail: low strings, moving speech, tones beyond the range, silence."""

import itertools

import numpy as np
import pytest
import scipy.signal

from benchmarks.f0.material import spoken_again
from ddsp.analysis.sequences import likeliest_path
from ddsp.errors import DDSPError
from ddsp.f0 import estimate_f0, get_estimator, voiced_threshold
from ddsp.f0.crepe import N_BINS, activations_to_f0
from ddsp.io.audio import load_audio

RATE = 16000
INNER = slice(15, -15)


def harmonics(track, levels):
    phase = 2 * np.pi * np.cumsum(track) / RATE
    return sum(level * np.sin(k * phase + k * k) for k, level in levels.items()) / 4


def cents(f0_hz, reference):
    return np.abs(1200 * np.log2(np.maximum(f0_hz, 1e-3) / np.maximum(reference, 1e-3)))


def pitch(audio, estimator, frame_rate=100):
    f0_hz, confidence = estimate_f0(audio.astype(np.float32), RATE, frame_rate, estimator)
    return f0_hz, confidence >= voiced_threshold(estimator)


KINDS = {
    'strong': {k: 1 / k for k in range(1, 30)},
    'weak': {k: (0.03 if k == 1 else 1) / k for k in range(1, 30)},
    'odd': {k: 1 / k for k in range(1, 30, 2)},
    'sine': {1: 1.0},
}


@pytest.mark.parametrize('estimator', ['swift', 'yin'])
@pytest.mark.parametrize('kind', KINDS)
def test_low_strings_are_heard(estimator, kind, rng):
    right = []
    for hz in (30.9, 34.6, 38.9, 41.2, 43.7, 46.2):
        audio = harmonics(np.full(RATE, hz), KINDS[kind]) + 1e-3 * rng.standard_normal(RATE)
        f0_hz, voiced = pitch(audio, estimator)
        right.append(((cents(f0_hz, hz) < 10) & voiced)[INNER])
    assert np.mean(right) > 0.9


def test_clean_sines_are_heard_below_the_network():
    right = []
    for hz in np.geomspace(50, 195, 8):
        f0_hz, voiced = pitch(harmonics(np.full(RATE, hz), {1: 1}), 'swift')
        right.append(((cents(f0_hz, hz) < 5) & voiced)[INNER])
    assert np.mean(right) > 0.95


def test_hum_below_the_music_is_no_note():
    hum = 5e-4 * np.sin(2 * np.pi * 50 * np.arange(RATE) / RATE)
    tone = harmonics(np.full(RATE, 220.0), KINDS['strong'])
    _, voiced = pitch(np.concatenate([tone, hum, tone]), 'swift')
    assert voiced[110:190].mean() < 0.1


@pytest.mark.parametrize('hz', [2150, 2461, 2893, 3137, 3495, 4000])
def test_yin_refuses_what_lies_above_its_range(hz):
    _, voiced = pitch(harmonics(np.full(RATE, float(hz)), {1: 1}), 'yin')
    assert not voiced.any()


def moving_voice():
    """Pitch and level that move at once, as in speech: pulses through two formants."""
    times = np.arange(3 * RATE) / RATE
    track = 120 * 2 ** (0.3 * np.sin(2 * np.pi * 1.7 * times))
    phase = 2 * np.pi * np.cumsum(track) / RATE
    source = sum(np.cos(k * phase) for k in range(1, 40))
    level = np.exp(2.5 * np.sin(2 * np.pi * 5.1 * times))
    for formant in (500, 1500):
        pole = 0.97 * np.exp(2j * np.pi * formant / RATE)
        source = scipy.signal.lfilter([1], [1, -2 * pole.real, abs(pole) ** 2], source)
    audio = level * source
    return 0.5 * audio / np.abs(audio).max(), track[:: RATE // 100]


def test_the_network_is_not_made_worse_where_pitch_and_level_move(recordings):
    """The waveform alone follows the louder part of a frame."""
    audio, truth = spoken_again(load_audio(recordings / 'sms_speech-male.wav'))
    refined, _ = pitch(audio, 'swift')
    answer = get_estimator('swift')._detector.detect(audio.astype(np.float32), RATE)
    times, sure = np.asarray(answer.timestamps), answer.confidence >= 0.5
    network = np.exp(np.interp(np.arange(len(truth)) / 100, times[sure], np.log(answer.pitch_hz[sure])))
    right = [np.mean(cents(f[: len(truth)], truth)[truth > 0] < 50) for f in (refined, network)]
    assert right[0] > right[1] - 0.005


def test_yin_voices_moving_speech():
    audio, truth = moving_voice()
    f0_hz, voiced = pitch(audio, 'yin')
    assert voiced[INNER].mean() > 0.75
    assert np.mean(cents(f0_hz, truth)[voiced] < 50) > 0.85


def test_crepes_path_begins_anew_behind_silence():
    """Silent frames all have the same meaningless highest bin, and the path may move by 11 bins a frame."""
    activations = np.full((40, N_BINS), 0.01, np.float32)
    activations[:20, 5] = 0.5  # silence
    activations[20:23, 200] = 0.9
    activations[23:, 5] = 0.5  # silence again
    silent = np.ones(40, bool)
    silent[20:23] = False
    f0_hz, _ = activations_to_f0(activations, True, silent)
    alone, _ = activations_to_f0(activations[20:23])
    np.testing.assert_allclose(f0_hz[20:23], alone)


def test_crepe_hears_gated_notes():
    try:
        get_estimator('crepe-tiny')
    except DDSPError as error:
        pytest.skip(str(error))
    notes = [harmonics(np.full(RATE // 5, hz), KINDS['strong']) for hz in (150.0, 420.0, 200.0, 600.0)]
    pause = np.zeros(RATE // 5)
    audio = np.concatenate([part for note in notes for part in (pause, note)])
    f0_hz, _ = pitch(audio, 'crepe-tiny')
    for i, hz in enumerate((150.0, 420.0, 200.0, 600.0)):
        inside = f0_hz[40 * i + 23 : 40 * i + 37]
        assert np.mean(cents(inside, hz) < 50) > 0.9


def test_the_likeliest_path_is_the_best_of_all(rng):
    local, moves = rng.standard_normal((5, 3)), rng.standard_normal((4, 3, 3))

    def step(i, score):
        paths = score + moves[i - 1]
        return paths.max(axis=1) + local[i], paths.argmax(axis=1)

    def total(path):
        return sum(local[i, state] for i, state in enumerate(path)) + sum(
            moves[i, path[i + 1], path[i]] for i in range(4)
        )

    best = max(itertools.product(range(3), repeat=5), key=total)
    assert tuple(likeliest_path(local[0], step, 5)) == best
