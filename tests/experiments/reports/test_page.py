"""Pages with players."""

from __future__ import annotations

import base64
import html.parser
import io

import numpy as np
import pytest
import soundfile

from experiments.reports import figures, page


class Elements(html.parser.HTMLParser):
    """Collects the elements of a page."""

    def __init__(self, text: str):
        super().__init__()
        self.found: list[tuple[str, dict]] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        if tag not in ('meta', 'img', 'link'):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def of(self, tag: str) -> list[dict]:
        return [attributes for name, attributes in self.found if name == tag]


@pytest.fixture
def picture(tmp_path):
    return figures.save(figures.losses({'losses/total_loss': [(1, 2.0), (2, 1.0)]}), tmp_path / 'loss.png')


def listen(title: str, examples: list[page.Example], **rest) -> str:
    return page.render(
        'listen.html', title=title, examples=examples, **{'metrics': {}, 'facts': {}, 'pictures': [], **rest}
    )


def test_players_hold_the_sound(picture):
    audio = 0.5 * np.sin(np.arange(8000) / 10).astype(np.float32)
    example = page.Example(
        'First <take>', [page.Clip('Target', audio, 16000)], [picture], {'spectral_loss': 1.25}
    )
    text = listen('Run & co', [example], metrics={'eval/x': 0.5}, facts={'run': 'abc'}, pictures=[picture])
    elements = Elements(text)
    assert elements.open == []  # every element is closed
    (player,) = elements.of('audio')
    kind, _, data = player['src'].partition(',')
    assert kind == 'data:audio/wav;base64'
    assert 'controls' in player
    played, rate = soundfile.read(io.BytesIO(base64.b64decode(data)), dtype='float32')
    assert rate == 16000
    np.testing.assert_allclose(played, audio, atol=1 / 32768)
    assert len(elements.of('img')) == 2
    assert all(image['src'].startswith('data:image/png;base64,') for image in elements.of('img'))
    assert 'First &lt;take&gt;' in text
    assert 'Run &amp; co' in text
    assert '1.25' in text


def test_players_come_before_figures_and_pictures(picture):
    examples = [
        page.Example(f'Take {i}', [page.Clip(f'clip {i}', np.zeros(10), 8000)], [picture], {'x': 1.0})
        for i in range(4)
    ]
    text = listen('Run', examples, metrics={'eval/x': 0.5}, pictures=[picture])
    last_player = text.rindex('<audio')
    assert last_player < text.index('<table')
    assert last_player < text.index('<img')


def test_the_demos_page_plays_all_that_it_made(tmp_path, picture):
    from experiments.demo import sounds as demo_sounds

    media = tmp_path / 'run' / 'media'
    media.mkdir(parents=True)
    names = ['held-out recording', 'resynthesis', 'an octave lower', 'melody of another instrument',
             'the melody in the voice of the model']  # fmt: skip
    paths = [media / 'example_000_target.wav', media / 'example_000_synthesized.wav']
    paths += [tmp_path / f'{i}.wav' for i in range(len(names))]
    for path in paths:
        soundfile.write(path, np.zeros(80), 8000)
    sounds = {name: str(tmp_path / f'{i}.wav') for i, name in enumerate(names)}
    path = demo_sounds.write_page(
        tmp_path, sounds, {'spectrograms of the transfer': str(picture)}, {'x': 1.0}
    )
    text = path.read_text()
    assert Elements(text).open == []
    assert text.count('<audio') == 7
    for name in names:
        assert f'<figcaption>{name.capitalize()}</figcaption>' in text


def test_nothing_is_loaded_from_elsewhere(picture):
    text = listen('x', [page.Example('y', [page.Clip('z', np.zeros(10), 8000)], [picture])])
    assert 'http' not in text
    assert 'src="/' not in text
    assert '<link' not in text
    assert '<script' not in text


def test_loud_audio_is_clipped_not_wrapped():
    played, _ = soundfile.read(io.BytesIO(page.wav_bytes(np.array([2.0, -2.0]), 8000)))
    assert played[0] > 0.99
    assert played[1] < -0.99


@pytest.mark.parametrize(
    ('value', 'shown'),
    [
        (0.0, '0'),
        (1.23456, '1.235'),
        (0.00001234, '1.234e-05'),
        (123456.0, '1.235e+05'),
        (float('nan'), 'nan'),
        (12, '12'),
    ],
)
def test_numbers(value, shown):
    assert page.format_number(value) == shown
