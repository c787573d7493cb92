"""What the demo plays: a held-out example, variations of it, another instrument's melody in its voice."""

from __future__ import annotations

import itertools
import pathlib
from collections.abc import Mapping

import numpy as np

from ddsp.inference import Bundle, dereverberate, transfer
from ddsp.io.audio import load_audio, write_wav
from ddsp.io.dataset import Dataset
from ddsp.io.progress import Progress
from experiments.reports import figures, page
from experiments.run.evaluation import examples, voiced_f0, write_example

Files = dict[str, str]  # what it is -> the file

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
    dataset: Dataset,
    split: str,
    example: int,
    folder: pathlib.Path,
    seed: int,
    progress: Progress,
) -> tuple[Files, Files]:
    """Makes WAVs and pictures of an example of a held-out split: what each is to its file.

    The seed is that of the noise and of the melody.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rate = bundle.sample_rate
    sounds: Files = {}

    def keep(what: str, name: str, audio: np.ndarray) -> None:
        sounds[what] = str(folder / f'{name}.wav')
        write_wav(sounds[what], audio, rate)

    progress(0, 4, 'resynthesis')
    features = next(itertools.islice(examples(dataset, split, example + 1), example, None))
    _, files = write_example(
        bundle, features, {'example': example}, bundle.metadata['f0_estimator'], folder, 'held-out'
    )
    target, resynthesis, spectrograms, curves = map(str, files)
    sounds |= {'held-out recording': target, 'resynthesis': resynthesis}
    progress(1, 4, 'an octave lower')
    lower = bundle.synthesize({**features, 'f0_hz': features['f0_hz'] / 2}, seed=seed)
    keep('an octave lower', 'octave-lower', lower)
    progress(2, 4, 'without the room')
    if bundle.impulse_response() is not None:
        keep('without the room', 'without-room', dereverberate(bundle, features['audio'], rate, seed))
    progress(3, 4, 'timbre transfer')
    source = folder / 'transfer-input.wav'
    sounds['melody of another instrument'] = str(source)
    sung, picture = _transfer(bundle, source, folder, seed)
    keep('the melody in the voice of the model', 'transfer', sung)
    progress(4, 4, 'done')
    return sounds, {
        'spectrograms of the resynthesis': spectrograms,
        'its pitch and loudness': curves,
        'spectrograms of the transfer': picture,
    }


def write_page(
    home: pathlib.Path, sounds: Files, pictures: Files, metrics: Mapping[str, float]
) -> pathlib.Path:
    """Writes `listen.html`: what the demo made, and the held-out examples that the training left."""
    sections = []
    for title, names, drawn in _SECTIONS:
        clips = [page.Clip.of(name.capitalize(), sounds[name]) for name in names if name in sounds]
        sections.append(page.Example(title, clips, [pictures[name] for name in drawn if name in pictures]))
    media = home / 'run' / 'media'
    for target in sorted(media.glob('example_*_target.wav')):
        name = target.name.removesuffix('_target.wav')
        clips = [
            page.Clip.of('Target', target), page.Clip.of('Synthesised', media / f'{name}_synthesized.wav')
        ]  # fmt: skip
        spectrogram = [*media.glob(f'{name}_spectrogram.png')]
        sections.append(page.Example(name.replace('_', ' ').capitalize(), clips, spectrogram))
    path = home / 'listen.html'
    text = page.render(
        'listen.html', title='What the demo learned', examples=sections, metrics=metrics,
        facts={'folder': home.name}, pictures=[*media.glob('loss.png')],
    )  # fmt: skip
    path.write_text(text, encoding='utf-8')
    return path


def _transfer(
    bundle: Bundle, source: pathlib.Path, folder: pathlib.Path, seed: int
) -> tuple[np.ndarray, str]:
    """A melody, written to `source`, in the voice of the model, and its picture."""
    from pipelines.synthetic.corpus import synthesize_melody

    rate = bundle.sample_rate
    synthesize_melody(source, seed=seed + 1)
    melody = load_audio(source, rate)
    result = transfer(bundle, melody, rate, seed=seed)
    f0 = voiced_f0(bundle.features(melody, rate), bundle.metadata['f0_estimator'])
    picture = figures.spectrogram_pair(
        folder / 'transfer.png', melody, result.audio[: len(melody)], rate,
        f0_hz=f0, synthesized_f0_hz=result.f0_hz, frame_rate=bundle.frame_rate,
        titles=('Melody of another instrument', 'In the voice of the model'),
    )  # fmt: skip
    return result.audio, str(picture)
