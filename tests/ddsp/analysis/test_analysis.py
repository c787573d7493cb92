"""What recordings are measured by: against librosa, scipy, and computations by hand."""

import itertools
from fractions import Fraction

import librosa
import numpy as np
import pytest
import scipy.signal

from ddsp.analysis import framing, loudness, notes, sequences
from ddsp.errors import ConfigError


@pytest.fixture
def audio(rng):
    """Half a second of noise whose level moves."""
    return (rng.normal(size=8000) * np.linspace(0.001, 0.3, 8000)).astype(np.float32)


@pytest.mark.parametrize('sample_rate', [16000, 44100])
def test_the_weighting_is_that_of_librosa(sample_rate):
    hz = np.fft.rfftfreq(2048, 1 / sample_rate)[1:]
    np.testing.assert_allclose(loudness.a_weighting_db(hz), librosa.A_weighting(hz, min_db=-80.0), atol=2e-2)
    assert loudness.a_weighting_db(np.zeros(1), min_db=-77.0) == [-77.0]
    assert loudness.a_weighting_db(np.array([1000.0])) == pytest.approx(0.0, abs=1e-3)
    power = loudness.a_weighting_power(sample_rate, 2048)
    np.testing.assert_allclose(10 * np.log10(power[1:]), loudness.a_weighting_db(hz), atol=1e-3)
    with pytest.raises(ValueError, match='read-only'):
        power[0] = 1.0


@pytest.mark.parametrize(('n_fft', 'rate'), [(512, 250), (1024, 100)])
def test_loudness_is_the_weighted_power_of_a_spectrogram(n_fft, rate, audio):
    spectrum = librosa.stft(np.float64(audio), n_fft=n_fft, hop_length=16000 // rate, pad_mode='constant')
    weights = 10 ** (librosa.A_weighting(np.fft.rfftfreq(n_fft, 1 / 16000), min_db=-80.0) / 10)
    expected = 10 * np.log10(np.mean(weights[:, None] * np.abs(spectrum) ** 2, axis=0))
    found = loudness.loudness_db(audio, 16000, rate, n_fft)
    np.testing.assert_allclose(found, np.maximum(expected, -80.0), atol=5e-3)
    shifted = loudness.loudness_db(audio, 16000, rate, n_fft, ref_db=20.0)
    np.testing.assert_allclose(shifted, np.maximum(found - 20.0, -80.0), atol=1e-4)


@pytest.mark.parametrize('function', [loudness.loudness_db, loudness.power_db])
def test_levels_follow_the_gain_down_to_the_floor(function, audio):
    level = function(audio)
    np.testing.assert_allclose(function(0.5 * audio), level + 20 * np.log10(0.5), atol=1e-3)
    np.testing.assert_array_equal(function(np.zeros(8000)), np.full(126, -80.0))
    np.testing.assert_array_equal(function(np.zeros(8000), range_db=50.0), np.full(126, -50.0))
    np.testing.assert_allclose(
        function(1e-3 * audio, range_db=60.0), np.maximum(level - 60.0, -60.0), atol=1e-3
    )


@pytest.mark.parametrize('function', [loudness.loudness_db, loudness.power_db])
@pytest.mark.parametrize(('sample_rate', 'frame_rate'), [(16000, 250), (44100, 250), (44100, 300)])
def test_a_click_is_in_the_frames_around_it(function, sample_rate, frame_rate):
    """Frame i is centred on its time at any pair of rates, to the sample."""
    click = np.zeros(sample_rate, np.float32)
    frame = round(0.7 * frame_rate)
    click[round(frame * sample_rate / frame_rate)] = 1.0
    level = function(click, sample_rate, frame_rate)
    heard = np.flatnonzero(level > -80.0)
    assert len(level) == frame_rate + 1
    assert heard[0] <= frame <= heard[-1]
    assert abs((heard[0] + heard[-1]) / 2 - frame) <= 0.5
    assert len(heard) == pytest.approx(512 * frame_rate / sample_rate, abs=2)


def test_a_batch_is_its_rows_and_power_is_a_mean_square(audio):
    pair = np.stack([audio, audio[::-1]])
    np.testing.assert_array_equal(loudness.loudness_db(pair)[1], loudness.loudness_db(pair[1]))
    sine = np.sin(2 * np.pi * 500 * np.arange(8000) / 16000)
    np.testing.assert_allclose(loudness.power_db(sine)[8:-8], 10 * np.log10(0.5), atol=1e-3)
    squares = scipy.signal.convolve(np.float64(audio) ** 2, np.ones(64) / 64)[63:-63]
    found = loudness.power_db(audio, 16000, 1000, 64, padding='valid')
    np.testing.assert_allclose(found, 10 * np.log10(np.maximum(squares[::16], 1e-8)), atol=1e-3)


@pytest.mark.parametrize(
    ('call', 'message'),
    [
        (lambda: loudness.loudness_db(np.zeros([2, 3, 4])), r'audio has shape \(2, 3, 4\); it can be'),
        (lambda: loudness.loudness_db(np.zeros(99), n_fft=511), 'n_fft is 511; an even number.* such as 512'),
        (lambda: loudness.power_db(np.zeros(99), frame_size=0), 'n_fft is 0; an even number.* such as 2'),
        (lambda: loudness.loudness_db(np.zeros(99), padding='valid'), 'audio has 99 samples, less than one'),
        (lambda: loudness.loudness_db(np.zeros(99), padding='full'), "padding is 'full'; it can be 'same'"),
        (lambda: loudness.loudness_db(np.zeros(99), frame_rate=0), 'frame_rate=0 must be above 0'),
        (lambda: framing.get_framed_lengths(9, 4, 5), 'hop_size is 5 samples with frame_size=4'),
        (lambda: framing.check_hop(4, 0), 'hop_size is 0 samples'),
    ],
)
def test_what_cannot_be_measured_is_named(call, message):
    with pytest.raises(ConfigError, match=message):
        call()


@pytest.mark.parametrize('padding', framing.PADDINGS)
@pytest.mark.parametrize(('n', 'frame', 'hop'), [(100, 10, 10), (103, 16, 5), (16, 16, 3), (1000, 7, 7)])
def test_frames_are_counted_by_laying_them_out(padding, n, frame, hop):
    n_frames, padded = framing.get_framed_lengths(n, frame, hop, padding)
    if padding == 'same':
        starts = range(0, n, hop)  # one for each hop that begins within the signal
        assert padded == starts[-1] + frame
    else:
        assert padded == n + (frame if padding == 'center' else 0)
        starts = range(0, padded - frame + 1, hop)
    assert n_frames == len(starts)
    exact, same_number, (before, after) = framing.frame_positions(n, 1000 * hop, 1000, frame, padding)
    assert (exact, same_number) == (hop, n_frames)
    assert n + before + after >= starts[-1] + frame


@pytest.mark.parametrize(('rate', 'frames'), [(44100, 250), (48000, 250), (22050, 100), (16000, 300)])
def test_positions_are_the_nearest_samples_without_drift(rate, frames):
    hop = framing.exact_hop(rate, frames)
    assert hop == Fraction(rate, frames)
    found = framing.nearest_samples(100_000, hop)
    exact = [i * hop for i in range(0, 100_000, 997)]
    assert max(abs(int(p) - e) for p, e in zip(found[::997], exact, strict=True)) <= Fraction(1, 2)
    assert int(framing.nearest_samples(2, Fraction(5, 2))[1]) == 3  # halves go up


def test_the_window_is_the_one_of_scipy():
    for size in (2, 7, 512):
        np.testing.assert_allclose(
            framing.hann_window(size), scipy.signal.get_window('hann', size), atol=1e-7
        )
    assert framing.hann_window(512) is framing.hann_window(512)
    assert not framing.hann_window(512).flags.writeable


@pytest.mark.parametrize('size', [1, 3, 4, 9])
def test_smoothing_is_a_mean_with_zeros_beyond_the_ends(size, rng):
    x = rng.normal(size=[2, 20])
    before = (size - 1) // 2
    padded = np.pad(x, ((0, 0), (before, size - 1 - before)))
    expected = np.stack([padded[:, i : i + 20] for i in range(size)]).mean(0)
    np.testing.assert_allclose(notes.smooth(x, size), expected, atol=1e-6)
    np.testing.assert_allclose(notes.smooth(x[0], size), expected[0], atol=1e-6)


def test_a_frame_is_on_from_the_ratio_of_the_formula(rng):
    level, sure = rng.uniform(-60, -10, 300), rng.uniform(0.5, 1.0, 300)
    on, ratio = notes.detect_notes(level, sure, note_threshold=1.2, smoothing=3, f0_confidence_threshold=0.8)
    mean = np.convolve(sure**2, np.ones(3) / 3, 'same')
    expected = (level + 80) * mean / ((np.mean(level) + 80) * 0.8**2)
    np.testing.assert_allclose(ratio, expected, rtol=1e-5)
    np.testing.assert_array_equal(on, expected >= 1.2)
    silent, _ = notes.detect_notes(np.full(300, -80.0), np.ones(300))
    assert not silent.any()
    both, _ = notes.detect_notes(np.stack([level, level]), np.stack([sure, sure]))
    np.testing.assert_array_equal(both[0], both[1])


@pytest.mark.parametrize('seed', range(5))
def test_the_path_is_the_best_of_all_paths(seed):
    """Six frames of four states: the 4,096 paths are counted one by one."""
    rng = np.random.default_rng(seed)
    scores, moves = rng.normal(size=[6, 4]), rng.normal(size=[4, 4])

    def step(i, before):
        total = before[:, None] + moves  # from, to
        return total.max(0) + scores[i], total.argmax(0)

    def score(path):
        return scores[range(6), path].sum() + moves[path[:-1], path[1:]].sum()

    best = max((np.array(p) for p in itertools.product(range(4), repeat=6)), key=score)
    np.testing.assert_array_equal(sequences.likeliest_path(scores[0], step, 6), best)


def test_paths_of_a_batch_do_not_meet(rng):
    scores = rng.normal(size=[7, 3, 5])  # frames, batch, states

    def step_of(x):
        def step(i, before):
            stay, move = before, np.roll(before, 1, axis=-1) - 0.5
            here = np.broadcast_to(np.arange(5), before.shape)
            return np.maximum(stay, move) + x[i], np.where(stay >= move, here, (here - 1) % 5)

        return step

    together = sequences.likeliest_path(scores[0], step_of(scores), 7)
    assert together.shape == (3, 7)
    for b in range(3):
        alone = sequences.likeliest_path(scores[0, b], step_of(scores[:, b]), 7)
        np.testing.assert_array_equal(together[b], alone)
    np.testing.assert_array_equal(
        sequences.likeliest_path(scores[0], step_of(scores), 1)[:, 0], scores[0].argmax(-1)
    )
