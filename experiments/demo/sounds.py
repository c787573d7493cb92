"""What the demo plays: a held-out example, variations of it, another instrument's melody in its voice."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from ddsp.inference import Bundle, dereverberate, transfer
from ddsp.io.audio import load_audio, write_wav
from ddsp.io.progress import Progress
from ddsp.training.data import DatasetProvider
from experiments.reports import figures, page

_STEPS = 5
# Sections of the page: heading, sounds and pictures.
_SECTIONS = (
    (
        'A melody of another instrument',
        ('melody of another instrument', 'the melody in the voice of the model'),
        ('spectrograms of the transfer',),
    ),
    (
        'A recording that the model has not heard',
        ('held-out recording', 'resynthesis', 'an octave lower', 'without the room'),
        ('spectrograms of the resynthesis', 'its pitch and loudness'),
    ),
)


def make_sounds(
    bundle: Bundle,
    dataset: str | os.PathLike[str],
    split: str,
    example: int,
    folder: pathlib.Path,
    *,
    seed: int = 0,
    progress: Progress | None = None,
) -> dict[str, dict[str, str]]:
    """Makes WAVs and pictures.

    Args:
      bundle: The model.
      dataset: Its dataset.
      split: Held out from the training.
      example: Number of the example of that split.
      folder: Where to write.
      seed: Of the noise and of the melody.
      progress: `progress(done, total, text)`.

    Returns:
      `'sounds'` and `'pictures'`: what it is to the file.
    """
    step = _Steps(progress)
    writer = _Writer(folder, bundle.sample_rate)
    features = _example(dataset, split, example)
    target = features.pop('audio')
    step('resynthesis')
    resynthesis = bundle.synthesize(features, seed=seed)
    writer.wav('held-out recording', 'target', target)
    writer.wav('resynthesis', 'resynthesis', resynthesis)
    _draw_resynthesis(bundle, writer, target, features, resynthesis)

    step('an octave lower')
    lower = {**features, 'f0_hz': features['f0_hz'] / 2}
    writer.wav('an octave lower', 'octave-lower', bundle.synthesize(lower, seed=seed))

    step('without the room')
    if bundle.impulse_response() is not None:
        writer.wav(
            'without the room', 'without-room', dereverberate(bundle, target, bundle.sample_rate, seed)
        )

    step('timbre transfer')
    _transfer(bundle, writer, seed)
    step('done')
    return {'sounds': writer.sounds, 'pictures': writer.pictures}


def write_page(
    home: pathlib.Path, sounds: Mapping[str, str], pictures: Mapping[str, str], metrics: Mapping[str, float]
) -> pathlib.Path:
    """Writes `listen.html`: what the demo made, and the held-out examples that the training left.

    Args:
      home: Folder of the demo.
      sounds: As `make_sounds` gives them.
      pictures: As `make_sounds` gives them.
      metrics: Metrics of the held-out examples.

    Returns:
      The page.
    """
    examples = []
    for title, names, drawn in _SECTIONS:
        clips = [page.Clip.of(name.capitalize(), sounds[name]) for name in names if name in sounds]
        examples.append(page.Example(title, clips, [pictures[name] for name in drawn if name in pictures]))
    media = home / 'run' / 'media'
    for target in sorted(media.glob('example_*_target.wav')):
        name = target.name.removesuffix('_target.wav')
        files = [('Target', target), ('Synthesised', media / f'{name}_synthesized.wav')]
        examples.append(
            page.Example(
                name.replace('_', ' ').capitalize(),
                [page.Clip.of(label, path) for label, path in files if path.exists()],
                [path for path in [media / f'{name}_spectrogram.png'] if path.exists()],
            )
        )
    loss = media / 'loss.png'
    text = page.listen_page(
        'What the demo learned', examples, metrics=metrics, facts={'folder': home.name},
        pictures=[loss] if loss.exists() else [],
    )  # fmt: skip
    path = home / 'listen.html'
    path.write_text(text, encoding='utf-8')
    return path


class _Steps:
    """Counts the progress."""

    def __init__(self, progress: Progress | None):
        self._progress = progress
        self._done = 0

    def __call__(self, text: str) -> None:
        if self._progress:
            self._progress(min(self._done, _STEPS - 1), _STEPS - 1, text)
        self._done += 1


class _Writer:
    """Writes files and remembers what they are."""

    def __init__(self, folder: pathlib.Path, sample_rate: int):
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self._sample_rate = sample_rate
        self.sounds: dict[str, str] = {}
        self.pictures: dict[str, str] = {}

    def wav(self, what: str, name: str, audio: np.ndarray) -> None:
        path = self.folder / f'{name}.wav'
        write_wav(path, audio, self._sample_rate)
        self.sounds[what] = str(path)

    def picture(self, what: str, name: str) -> pathlib.Path:
        path = self.folder / f'{name}.png'
        self.pictures[what] = str(path)
        return path


def _example(dataset: str | os.PathLike[str], split: str, number: int) -> dict[str, np.ndarray]:
    """One example of a split, each feature [n]."""
    examples: Any = DatasetProvider(dataset, split).get_dataset(shuffle=False)
    record = next(iter(examples.skip(number)))
    return {key: record[key].numpy() for key in ('audio', 'f0_hz', 'f0_confidence', 'loudness_db')}


def _draw_resynthesis(
    bundle: Bundle, writer: _Writer, target: np.ndarray, features: dict[str, np.ndarray], audio: np.ndarray
) -> None:
    heard = bundle.features(audio, bundle.sample_rate)
    estimator = bundle.metadata['f0_estimator']
    wanted, got = _voiced(features, estimator), _voiced(heard, estimator)
    figures.spectrogram_pair(
        writer.picture('spectrograms of the resynthesis', 'resynthesis'), target, audio, bundle.sample_rate,
        f0_hz=wanted['f0_hz'], synthesized_f0_hz=got['f0_hz'], frame_rate=bundle.frame_rate,
        titles=('Held-out recording', 'Resynthesis'),
    )  # fmt: skip
    figures.feature_curves(
        writer.picture('its pitch and loudness', 'resynthesis-features'), wanted, got, bundle.frame_rate
    )


def _transfer(bundle: Bundle, writer: _Writer, seed: int) -> None:
    from pipelines.synthetic.corpus import synthesize_melody

    source = writer.folder / 'transfer-input.wav'
    synthesize_melody(source, seed=seed + 1)
    writer.sounds['melody of another instrument'] = str(source)
    melody = load_audio(source, bundle.sample_rate)
    result = transfer(bundle, melody, bundle.sample_rate, seed=seed)
    writer.wav('the melody in the voice of the model', 'transfer', result.audio)
    heard = _voiced(bundle.features(melody, bundle.sample_rate), bundle.metadata['f0_estimator'])
    figures.spectrogram_pair(
        writer.picture('spectrograms of the transfer', 'transfer'), melody,
        result.audio[: len(melody)], bundle.sample_rate, f0_hz=heard['f0_hz'],
        synthesized_f0_hz=result.f0_hz, frame_rate=bundle.frame_rate,
        titles=('Melody of another instrument', 'In the voice of the model'),
    )  # fmt: skip


def _voiced(features: dict[str, np.ndarray], estimator: str) -> dict[str, np.ndarray]:
    """f0 with gaps where there is no pitch, for drawing."""
    from ddsp.f0 import voiced_threshold

    sure = (features['f0_confidence'] >= voiced_threshold(estimator)) & (features['loudness_db'] > -60)
    return {**features, 'f0_hz': np.where(sure, features['f0_hz'], np.nan)}
