"""`python -m benchmarks.f0 --audio FOLDER`: pitch accuracy, the tables of docs/benchmarks/pitch.md.

Sounds with exact pitch are made here; FOLDER holds recordings with a MANIFEST.csv (columns file and
median_f0_hz). Raw pitch accuracy is that of mir_eval: the share of the frames with pitch whose estimate is
near the truth, whether the estimator calls them voiced or not: within 50 cents, in brackets within 10. Then
voicing recall / false alarm, in percent of the frames with and without pitch. Frames are 10 ms apart.
"""

from __future__ import annotations

import argparse
import csv
import pathlib
import tempfile
from collections.abc import Iterator

import mir_eval.melody
import numpy as np

from benchmarks.f0 import material
from benchmarks.f0.material import FRAME_RATE, RATE, SPEECH, Sound
from benchmarks.f0.references import Network, Pyin
from ddsp.analysis.loudness import loudness_db
from ddsp.errors import DDSPError
from ddsp.f0 import F0Estimator, estimate_f0, get_estimator, voiced_threshold
from ddsp.io.audio import load_audio
from pipelines.synthetic.corpus import load_truth, synthesize_corpus

TRUTH_RATE = 250  # of the synthetic corpus
_AUDIBLE_DB = 30.0  # below the loudest frame
NOTES = {
    'saxophone': 'altosax_', 'shanai': 'shanai_', 'bagpipe': 'bagpipe_', 'double bass': 'doublebass_',
    'flute, oboe, trumpet, violin': ('sms_flute-A4', 'sms_oboe-A4', 'sms_trumpet-A4', 'sms_violin-B3'),
    'soprano': 'sms_soprano', 'organ': 'sms_organ',
}  # fmt: skip


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


def accuracy(sounds: list[Sound], estimator: str | F0Estimator) -> tuple[float, float, float, float]:
    """Raw pitch accuracy at 50 and at 10 cents, voicing recall and voicing false alarm."""
    truths, estimates = [], []
    for audio, truth in sounds:
        f0_hz, confidence = estimate_f0(audio, RATE, FRAME_RATE, estimator)
        counted = truth >= 0  # the others count as nothing
        voiced = confidence[: len(truth)] >= voiced_threshold(estimator)
        f0_hz = np.maximum(f0_hz[: len(truth)].astype(float), 1e-3)
        truths.append(truth[counted])
        estimates.append(np.where(voiced, f0_hz, -f0_hz)[counted])
    truth, estimate = np.concatenate(truths), np.concatenate(estimates)
    times = np.arange(len(truth)) / FRAME_RATE
    arguments = mir_eval.melody.to_cent_voicing(times, truth, times, estimate)
    near, nearest = (
        mir_eval.melody.raw_pitch_accuracy(*arguments, cent_tolerance=cents) for cents in (50, 10)
    )
    return near, nearest, *mir_eval.melody.voicing_measures(arguments[0], arguments[2])


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
            both = np.logical_and(*(joined[name][1] >= voiced_threshold(name) for name in (a, b)))
            cents = 1200 * np.abs(np.log2(joined[a][0][both] / joined[b][0][both]))
            octave = np.mean(cents > 900)
            rows.append(f'| {a}, {b} | {both.sum()} | {np.mean(cents < 50):.1%} | {octave:.1%} |')
    return rows


def hard_sounds(folder: pathlib.Path | None) -> dict[str, list[Sound]]:
    """Groups of benchmarks/material.py; without a folder of recordings, those that need none."""
    groups = {f'30 to 47 Hz, {kind}': material.low_strings(kind) for kind in ('strong', 'weak', 'odd')}
    for low, high in ((30, 46.9), (47, 100), (100, 2000), (2150, 4000)):
        groups[f'sines, {low:.0f} to {high:.0f} Hz'] = material.sines(low, high)
    if folder:
        speech, music = material.speech(folder), material.music(folder)
        groups |= {'speech': speech, 'speech, gated': material.gated(speech), 'music': music}
        groups |= {f'music, noise at {db} dB': material.with_noise(music, db) for db in (20, 10, 0)}
        groups['speech, noise at 10 dB'] = material.with_noise(speech, 10)
        groups |= {f'music, room: {room}': material.in_room(music, folder / file)
                   for room, file in material.ROOMS.items()}  # fmt: skip
        groups |= {f'music, church, tail {db:+} dB': material.in_church(music, db) for db in (-9, -3, 3)}
    return groups


def known_sounds(folder: pathlib.Path | None, seconds: float) -> dict[str, list[Sound]]:
    """Tones, the synthetic corpus, and recordings with one note or known notes."""
    groups = {'tones, 50 to 1900 Hz': list(tones()), 'synthetic corpus': list(corpus(seconds))}
    if folder:
        groups['voice, resynthesised'] = list(resynthesised(folder))
        groups |= {f'notes: {label}': list(notes(folder, start)) for label, start in NOTES.items()}
        groups['singing (vocadito)'] = list(sung_notes(folder))
    return groups


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(prog='python -m benchmarks.f0', description=__doc__.splitlines()[0])
    parser.add_argument('--audio', type=pathlib.Path, help='folder of recordings; without: made sounds only')
    parser.add_argument('--estimators', default='swift,network,yin,pyin,crepe-tiny,crepe-full')
    parser.add_argument('--seconds', type=float, default=30, help='of the synthetic corpus (default: 30)')
    args = parser.parse_args()
    references: dict[str, F0Estimator] = {'network': Network(), 'pyin': Pyin(55)}
    estimators = []
    for name in args.estimators.split(','):
        try:
            estimators.append(name if name in references else get_estimator(name).name)
        except DDSPError as error:
            print(f'left out {name}: {error}')
    print('| | s | ' + ' | '.join(estimators) + ' |\n|---|---|' + '---|' * len(estimators))
    for label, sounds in (known_sounds(args.audio, args.seconds) | hard_sounds(args.audio)).items():
        low = any(((truth > 0) & (truth < 55)).any() for _, truth in sounds)
        references['pyin'] = Pyin(28 if low else 55)
        cells = []
        for name in estimators:
            near, nearest, recall, false_alarm = accuracy(sounds, references.get(name, name))
            cells.append(f'{near:.1%} ({nearest:.1%}), {recall:.0%} / {false_alarm:.0%}')
        seconds = sum(len(audio) for audio, _ in sounds) / RATE
        print(f'| {label} | {seconds:.0f} | ' + ' | '.join(cells) + ' |', flush=True)
    if args.audio:
        named = [name for name in estimators if name not in references]
        print('\n| speech | frames both voiced | within 50 cents | an octave apart |\n|---|---|---|---|')
        print('\n'.join(speech_agreement(args.audio, named)))


if __name__ == '__main__':
    main()
