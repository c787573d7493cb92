"""`python -m docs.f0_accuracy --audio FOLDER`: accuracy of the pitch estimators, as the tables of docs/f0.md.

Sounds with exact pitch are made here; FOLDER holds recordings with a MANIFEST.csv (columns file and
median_f0_hz). Raw pitch accuracy is that of mir_eval: the share of the frames with pitch whose estimate is
near the truth, whether the estimator calls them voiced or not. Frames are 10 ms apart.
"""

from __future__ import annotations

import argparse
import csv
import pathlib
import tempfile
from collections.abc import Iterator

import mir_eval.melody
import numpy as np

from ddsp.audio import load_audio
from ddsp.errors import DDSPError
from ddsp.f0 import VOICED, estimate_f0, get_estimator
from ddsp.loudness import loudness_db
from pipelines.synthetic_corpus import load_truth, synthesize_corpus

RATE, FRAME_RATE = 16000, 100
TRUTH_RATE = 250  # of the synthetic corpus
_AUDIBLE_DB = 30.0  # below the loudest frame
NOTES = {
    'saxophone': 'altosax_', 'shanai': 'shanai_', 'bagpipe': 'bagpipe_', 'double bass': 'doublebass_',
    'flute, oboe, trumpet, violin': ('sms_flute-A4', 'sms_oboe-A4', 'sms_trumpet-A4', 'sms_violin-B3'),
    'soprano': 'sms_soprano', 'organ': 'sms_organ',
}  # fmt: skip
SPEECH = ('sms_speech-female.wav', 'sms_speech-male.wav', 'voice_speech_librivox.wav')
Sound = tuple[np.ndarray, np.ndarray]  # audio at 16 kHz; pitch of its frames, 0 where there is none


def tones() -> Iterator[Sound]:
    """Tones of eight harmonics from 50 to 1900 Hz, with 1 % of noise."""
    times = np.arange(RATE) / RATE
    rng = np.random.default_rng(0)
    for hz in np.geomspace(50, 1900, 16):
        tone = sum(np.sin(2 * np.pi * k * hz * times) / k for k in range(1, 9) if k * hz < RATE / 2)
        truth = np.full(FRAME_RATE, hz)
        truth[:5] = truth[-5:] = 0
        yield 0.2 * tone + 0.002 * rng.standard_normal(RATE), truth


def corpus(seconds: float) -> Iterator[Sound]:
    """The synthetic corpus."""
    with tempfile.TemporaryDirectory() as folder:
        synthesize_corpus(folder, seconds=seconds)
        for path in sorted(pathlib.Path(folder).glob('audio/*.wav')):
            truth = load_truth(pathlib.Path(folder) / 'truth' / f'{path.stem}.npz')
            audio = load_audio(path)
            wanted, known = (
                np.arange(len(audio) * FRAME_RATE // RATE) / FRAME_RATE,
                np.arange(len(truth.f0_hz)),
            )
            voiced = np.interp(wanted, known / TRUTH_RATE, truth.voiced) == 1
            yield audio, np.where(voiced, np.interp(wanted, known / TRUTH_RATE, truth.f0_hz), 0)


def resynthesised(folder: pathlib.Path) -> Iterator[Sound]:
    """A voice that was synthesised again from its pitch track, which is exact therefore."""
    audio = load_audio(folder / 'mdb_resyn_nightowl_08.wav')
    times, f0_hz = np.loadtxt(folder / 'mdb_resyn_nightowl_08_f0.csv', delimiter=',').T
    wanted = np.arange(len(audio) * FRAME_RATE // RATE) / FRAME_RATE
    near = np.clip(np.searchsorted(times, wanted), 1, len(times) - 1)
    steady = (f0_hz[near] > 0) & (f0_hz[near - 1] > 0)
    yield audio, np.where(steady, np.interp(wanted, times, f0_hz), 0)


def notes(folder: pathlib.Path, start: str | tuple[str, ...]) -> Iterator[Sound]:
    """Single notes: their pitch is that of the manifest in all audible frames."""
    with (folder / 'MANIFEST.csv').open(newline='') as file:
        rows = [row for row in csv.DictReader(file) if row['file'].startswith(start)]
    for row in rows:
        audio = load_audio(folder / row['file'])
        loud = loudness_db(audio, RATE, FRAME_RATE)[: len(audio) * FRAME_RATE // RATE]
        yield audio, np.where(loud > loud.max() - _AUDIBLE_DB, float(row['median_f0_hz']), 0)


def sung_notes(folder: pathlib.Path) -> Iterator[Sound]:
    """Songs with the notes that a musician heard; a voice moves within and between them."""
    for path in sorted(folder.glob('vocadito_*.wav')):
        audio = load_audio(path)
        truth = np.zeros(len(audio) * FRAME_RATE // RATE)
        for onset, hz, seconds in np.loadtxt(folder / f'{path.stem}_notesA1.csv', delimiter=','):
            truth[round(onset * FRAME_RATE) : round((onset + seconds) * FRAME_RATE)] = hz
        yield audio, truth


def accuracy(sounds: list[Sound], estimator: str) -> tuple[float, float, float]:
    """Raw pitch accuracy at 50 and at 10 cents, and the share of the frames with pitch that is voiced."""
    right = {50: 0.0, 10: 0.0}
    frames = voiced = 0.0
    for audio, truth in sounds:
        f0_hz, confidence = estimate_f0(audio, RATE, FRAME_RATE, estimator)
        f0_hz, confidence = f0_hz[: len(truth)].astype(float), confidence[: len(truth)]
        times, pitched = np.arange(len(truth)) / FRAME_RATE, truth > 0
        signed = np.where(confidence >= VOICED, f0_hz, -f0_hz)
        arguments = mir_eval.melody.to_cent_voicing(times, truth, times, signed)
        for cents in right:
            score = mir_eval.melody.raw_pitch_accuracy(*arguments, cent_tolerance=cents)
            right[cents] += score * pitched.sum()
        frames += pitched.sum()
        voiced += (confidence >= VOICED)[pitched].sum()
    return right[50] / frames, right[10] / frames, voiced / frames


def speech_agreement(folder: pathlib.Path, estimators: list[str]) -> list[str]:
    """How far estimators agree on speech, which has no truth here: rows of a table."""
    tracks: dict[str, list[np.ndarray]] = {name: [] for name in estimators}
    for file in SPEECH:
        audio = load_audio(folder / file)
        for name in estimators:
            tracks[name].append(np.stack(estimate_f0(audio, RATE, FRAME_RATE, name)))
    joined = {name: np.concatenate(parts, axis=1) for name, parts in tracks.items()}
    rows = []
    for i, a in enumerate(estimators):
        for b in estimators[i + 1 :]:
            both = (joined[a][1] >= VOICED) & (joined[b][1] >= VOICED)
            cents = 1200 * np.abs(np.log2(joined[a][0][both] / joined[b][0][both]))
            octave = np.mean(cents > 900)
            rows.append(f'| {a}, {b} | {both.sum()} | {np.mean(cents < 50):.1%} | {octave:.1%} |')
    return rows


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(prog='python -m docs.f0_accuracy', description=__doc__.splitlines()[0])
    parser.add_argument('--audio', type=pathlib.Path, help='folder of recordings; without: made sounds only')
    parser.add_argument('--estimators', default='swift,yin,crepe-tiny,crepe-full', help='comma-separated')
    parser.add_argument('--seconds', type=float, default=30, help='of the synthetic corpus (default: 30)')
    args = parser.parse_args()
    estimators = []
    for name in args.estimators.split(','):
        try:
            get_estimator(name)
            estimators.append(name)
        except DDSPError as error:
            print(f'left out {name}: {error}')
    groups: dict[str, tuple[list[Sound], bool]] = {
        'tones, 50 to 1900 Hz': (list(tones()), True),
        'synthetic corpus': (list(corpus(args.seconds)), True),
    }
    if args.audio:
        groups['voice, resynthesised'] = (list(resynthesised(args.audio)), True)
        for label, start in NOTES.items():
            groups[f'notes: {label}'] = (list(notes(args.audio, start)), False)
        groups['singing (vocadito)'] = (list(sung_notes(args.audio)), False)
    print('| | s | ' + ' | '.join(estimators) + ' |\n|---|---|' + '---|' * len(estimators))
    for label, (sounds, exact) in groups.items():
        seconds = sum(len(audio) for audio, _ in sounds) / RATE
        cells = []
        for name in estimators:
            near, nearest, voiced = accuracy(sounds, name)
            cells.append(f'{near:.1%}' + (f' ({nearest:.1%})' if exact else '') + f', {voiced:.0%}')
        print(f'| {label} | {seconds:.0f} | ' + ' | '.join(cells) + ' |', flush=True)
    if args.audio:
        print('\n| speech | frames both voiced | within 50 cents | an octave apart |\n|---|---|---|---|')
        print('\n'.join(speech_agreement(args.audio, estimators)))


if __name__ == '__main__':
    main()
