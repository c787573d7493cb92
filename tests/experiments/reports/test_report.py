"""Pictures of audio and of training."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from experiments.reports import figures

RATE = 16000


def tone(frequency: float, seconds: float = 1.0, level: float = 0.5) -> np.ndarray:
    return level * np.sin(2 * np.pi * frequency * np.arange(int(seconds * RATE)) / RATE)


def pixels(path) -> np.ndarray:
    return np.asarray(Image.open(path).convert('RGB'), float)


@pytest.mark.parametrize('frequency', [100.0, 440.0, 3000.0])
def test_a_tone_is_where_its_frequency_is_and_as_loud_as_it_is(frequency):
    level, bands, times = figures.spectrogram_db(tone(frequency), RATE)
    middle = level[:, len(times) // 2]
    half_a_bin = RATE / 1024 / 2
    assert bands[middle.argmax()] == pytest.approx(frequency, rel=0.03, abs=half_a_bin)
    assert middle.max() == pytest.approx(20 * np.log10(0.5), abs=1.5)  # scalloping of the Hann window: 1.4 dB
    assert middle[bands > 2.2 * frequency].max(initial=-200) < middle.max() - 60


def test_time_runs_from_zero_to_the_end():
    audio = np.concatenate([np.zeros(RATE), tone(500.0)])
    level, _, times = figures.spectrogram_db(audio, RATE)
    assert times[0] == 0
    assert times[-1] == pytest.approx(2.0, abs=0.01)
    loud = level.max(axis=0) > -40
    assert times[loud].min() == pytest.approx(1.0, abs=0.04)


def test_audio_shorter_than_a_window():
    level, bands, times = figures.spectrogram_db(np.zeros(10), RATE)
    assert level.shape == (len(bands), len(times))
    assert np.isfinite(level).all()


def test_pair_has_two_panels_on_one_scale(tmp_path):
    f0 = np.full(250, 440.0)
    f0[:50] = np.nan
    path = figures.spectrogram_pair(
        tmp_path / 'sub' / 'pair.png', tone(440), tone(440, level=0.05), RATE, f0_hz=f0, synthesized_f0_hz=f0
    )
    picture = pixels(path)
    height, width, _ = picture.shape
    assert (width, height) == (1210, 462)
    brightness = picture.sum(axis=2)
    left, right = brightness[60:400, 85:570], brightness[60:400, 620:1100]
    # On one scale the quieter tone is darker; on scales of their own they would be equal.
    assert np.quantile(left, 0.97) > np.quantile(right, 0.97)


def test_f0_is_drawn_only_where_there_is_one(tmp_path):
    cyan = np.array([0x35, 0xE0, 0xD0], float)

    def drawn(f0):
        path = figures.spectrogram_pair(tmp_path / 'p.png', np.zeros(RATE), np.zeros(RATE), RATE, f0_hz=f0)
        return int((np.abs(pixels(path)[:, :600] - cyan).max(axis=2) < 40).sum())

    nowhere, half, everywhere = (drawn(np.where(np.arange(250) < n, 300.0, 0.0)) for n in (0, 125, 250))
    assert nowhere < half < everywhere  # the legend alone is in all of them
    assert half - nowhere == pytest.approx((everywhere - nowhere) / 2, rel=0.1)


def test_curves_and_loss(tmp_path):
    features = {'f0_hz': np.linspace(200, 400, 250), 'loudness_db': np.linspace(-60, -20, 250)}
    shifted = {name: value * 1.05 for name, value in features.items()}
    curves = figures.feature_curves(tmp_path / 'curves.png', features, shifted)
    loss = figures.save(
        figures.losses({'losses/total_loss': [(1, 10.0), (2, 5.0)], 'losses/x': []}), tmp_path / 'loss.png'
    )
    for path in (curves, loss):
        assert pixels(path).std() > 10


def test_a_loss_of_one_summary_is_visible(tmp_path):
    one = pixels(figures.save(figures.losses({'losses/total_loss': [(1, 10.0)]}), tmp_path / 'one.png'))
    none = pixels(figures.save(figures.losses({'losses/total_loss': []}), tmp_path / 'none.png'))
    blue = np.array([0x1F, 0x5F, 0xA8], float)
    assert (np.abs(one - blue).max(axis=2) < 20).sum() > 10
    assert (np.abs(none - blue).max(axis=2) < 20).sum() == 0


def test_few_colours_look_the_same_in_fewer_bytes(tmp_path):
    rng = np.random.default_rng(0)
    sound = tone(440.0) + 0.01 * rng.standard_normal(RATE)
    made, axis = figures.figure(6, 3)
    level, _, _ = figures.spectrogram_db(sound, RATE)
    axis.imshow(level, cmap='magma', aspect='auto')
    few = figures.save(made, tmp_path / 'few.png')
    made.savefig(tmp_path / 'all.png')
    assert few.stat().st_size < 0.5 * (tmp_path / 'all.png').stat().st_size
    assert np.abs(pixels(few) - pixels(tmp_path / 'all.png')).mean() < 4


@pytest.mark.parametrize(
    ('pairs', 'drawn', 'scale'),
    [
        ([(0, 100.0), (50, 10.0)], [(0, 100.0), (50, 10.0)], 'log'),
        ([], [], 'log'),
        ([(0, np.nan), (1, 2.0), (2, np.inf)], [(1, 2.0)], 'log'),
        ([(0, -1.0), (1, 0.0)], [(0, -1.0), (1, 0.0)], 'linear'),
    ],
)
def test_lines_are_where_their_values_are(pairs, drawn, scale):
    (axis,) = figures.losses({'a': pairs, 'b': [(0, 3.0)]}, 'losses/x').axes
    first, second = axis.lines
    assert list(zip(*first.get_data(), strict=True)) == drawn
    assert second.get_color() != first.get_color()
    assert (axis.get_yscale(), axis.get_title()) == (scale, 'losses/x')
