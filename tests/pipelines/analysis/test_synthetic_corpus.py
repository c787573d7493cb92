"""The corpus that is made: what it promises about pitch, level and itself."""

import numpy as np
import pytest

from ddsp.io.audio import AudioError, load_audio
from pipelines.synthetic.corpus import load_truth, synthesize_corpus, synthesize_melody


@pytest.fixture(scope='module')
def corpus(tmp_path_factory):
    return synthesize_corpus(tmp_path_factory.mktemp('corpus'), seconds=30, seed=3)


def test_it_has_the_files_that_it_names(corpus):
    assert [path.name for path in corpus.files] == ['take_01.wav', 'take_02.wav']
    assert corpus.made == 2
    for wav, truth in zip(corpus.files, corpus.truths, strict=True):
        audio, known = load_audio(wav, None), load_truth(truth)
        assert len(audio) == 15 * 16000
        assert len(known.f0_hz) == len(known.loudness_db) == len(known.voiced) == 15 * 250


def test_the_harmonics_are_where_the_truth_says(corpus):
    """Demodulated by the true pitch, the fundamental stands still."""
    audio, known = load_audio(corpus.files[0]), load_truth(corpus.truths[0])
    track = np.interp(np.arange(len(audio)), np.arange(len(known.f0_hz)) * 64, known.f0_hz)
    analytic = audio * np.exp(-2j * np.pi * np.cumsum(track) / 16000)
    smooth = np.convolve(analytic, np.hanning(801) / 400, 'same')[::64]
    steady = known.voiced[1:] & known.voiced[:-1] & (known.loudness_db[1:] > -30)
    turn = np.angle(smooth[1:] * np.conj(smooth[:-1]))[steady] * 250 / (2 * np.pi)
    assert np.abs(np.median(turn)) < 0.2  # Hz
    assert (np.abs(turn) < 4).mean() > 0.95


def test_the_level_is_what_the_truth_says(corpus):
    audio, known = load_audio(corpus.files[0]), load_truth(corpus.truths[0])
    frames = np.lib.stride_tricks.sliding_window_view(np.pad(audio, 512), 1024)[::64][: len(known.f0_hz)]
    measured = 10 * np.log10(np.square(frames, dtype=np.float64).mean(axis=1) + 1e-12)
    difference = (measured - known.loudness_db)[known.voiced]
    assert abs(np.median(difference)) < 0.5
    assert np.percentile(np.abs(difference), 90) < 3


def test_it_is_expressive_and_never_silent(corpus):
    truths = [load_truth(path) for path in corpus.truths]
    f0 = np.concatenate([t.f0_hz[t.voiced] for t in truths])
    level = np.concatenate([t.loudness_db[t.voiced] for t in truths])
    assert 190 < f0.min() < 330
    assert 500 < f0.max() < 900
    assert np.percentile(level, 99) - np.percentile(level, 1) > 15
    for path in corpus.files:
        audio = load_audio(path)
        assert np.abs(audio).max() < 1
        rms = np.sqrt(np.square(audio.reshape(-1, 400)).mean(axis=1))
        assert -78 < 20 * np.log10(rms.min()) < -70


def test_louder_is_brighter(corpus):
    audio, known = load_audio(corpus.files[0]), load_truth(corpus.truths[0])
    frames = np.lib.stride_tricks.sliding_window_view(np.pad(audio, 512), 1024)[::64][: len(known.f0_hz)]
    power = np.abs(np.fft.rfft(frames * np.hanning(1024))) ** 2
    centroid = (power @ np.arange(513)) / power.sum(axis=1) * 16000 / 1024 / known.f0_hz  # in harmonics
    quiet = known.voiced & (known.loudness_db < np.percentile(known.loudness_db[known.voiced], 25))
    loud = known.voiced & (known.loudness_db > np.percentile(known.loudness_db[known.voiced], 75))
    assert np.median(centroid[loud]) > 1.15 * np.median(centroid[quiet])


def test_the_same_seed_gives_the_same_bytes_and_another_does_not(corpus, tmp_path):
    again = synthesize_corpus(tmp_path / 'a', seconds=30, seed=3)
    other = synthesize_corpus(tmp_path / 'b', seconds=15, seed=4)
    for ours, theirs in zip(corpus.files + corpus.truths, again.files + again.truths, strict=True):
        assert ours.read_bytes() == theirs.read_bytes()
    assert other.files[0].read_bytes() != corpus.files[0].read_bytes()


def test_it_goes_on_where_it_stopped(tmp_path):
    calls = []
    first = synthesize_corpus(tmp_path, seconds=30, progress=lambda *call: calls.append(call))
    assert [call[:2] for call in calls] == [(15.0, 30), (30.0, 30)]
    before = first.files[1].read_bytes()
    first.files[1].write_bytes(before[:1000])  # interrupted, or damaged
    again = synthesize_corpus(tmp_path, seconds=30)
    assert again.made == 1
    assert again.files[1].read_bytes() == before
    assert synthesize_corpus(tmp_path, seconds=30).made == 0


def test_the_melody_is_another_instrument(tmp_path, corpus):
    audio = load_audio(synthesize_melody(tmp_path / 'melody.wav', seed=1))
    assert len(audio) == 8 * 16000
    truth = load_truth(tmp_path / 'melody.npz')
    assert truth.voiced.mean() > 0.6
    spectra = []
    for sound in (audio, load_audio(corpus.files[0])):
        power = np.abs(np.fft.rfft(sound[: 8 * 16000])) ** 2
        spectra.append(power[: 8 * 1500].sum() / power.sum())
    assert spectra[0] > spectra[1]  # darker than the bowed one


def test_wrong_arguments_and_places(tmp_path):
    with pytest.raises(ValueError, match='sample_rate is 16001; it must be a multiple of 250'):
        synthesize_corpus(tmp_path, sample_rate=16001)
    (tmp_path / 'file').write_text('')
    with pytest.raises(AudioError, match='cannot be written'):
        synthesize_corpus(tmp_path / 'file', seconds=2)
