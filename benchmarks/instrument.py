"""`python -m benchmarks.instrument A.mp3 B.mp3`: how good an instrument is after some CPU time.

python -m benchmarks.instrument one.mp3 two.mp3 --marks 600,1200,2400
python -m benchmarks.instrument one.mp3 two.mp3 --upstream-python ENV/bin/python --trials "laptop|upstream"
python -m benchmarks.instrument one.mp3 two.mp3 --trials "laptop|batch 16:laptop:16:learning_rate=3e-3"

All of the first recording and the beginning of the second are trained on, the end of the second is held out.
All trials see the same records. At every mark (CPU seconds of training) the held-out examples are played;
afterwards pitch and loudness are taken from the generated audio, by one measure for all.

`--steps` counts marks in steps: CPU seconds of a step depend on what else the machine does. A trial trained
on crops (`LegacyTFRecordProvider.crop_secs = 2.0`) plays the held-out examples whole.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import platform
import re
import subprocess
import sys
import tempfile
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

HERE = pathlib.Path(__file__).resolve().parent
RATE, FRAME_RATE = 16000, 250
HELD_OUT_SECS, EXAMPLE_SECS = 40.0, 4.0
# name: (gin files, bindings, batch, runs on ddsp 3.7.0)
_SOLO = ['models/solo_instrument.gin', 'optimization/base.gin']
_LAPTOP_SIZE = [
    'RnnFcDecoder.rnn_channels = 192',
    'RnnFcDecoder.ch = 192',
    'RnnFcDecoder.layers_per_stack = 2',
    'Reverb.reverb_length = 16000',
    'learning_rate = 2e-3',
    'Trainer.lr_decay_steps = 200',
    'Trainer.lr_decay_rate = 0.9',
]
TRIALS: dict[str, tuple[list[str], list[str], int, bool]] = {
    'laptop': (['presets/laptop.gin'], [], 4, False),
    'solo_instrument': (_SOLO, [], 16, False),
    'upstream': (_SOLO, [], 16, True),
    'upstream, size and rate of laptop': (_SOLO, _LAPTOP_SIZE, 4, True),
}


def trial_of(text: str) -> tuple[str, tuple[list[str], list[str], int, bool]]:
    """A trial by its name, or `name:TRIAL:BATCH:BINDING;BINDING` from one that exists."""
    if text in TRIALS:
        return text, TRIALS[text]
    name, base, batch, bindings = text.split(':', 3)
    files, before, _, upstream = TRIALS[base]
    return name, (files, [*before, *filter(None, bindings.split(';'))], int(batch), upstream)


def make_data(recordings: list[str], work: pathlib.Path) -> None:
    """Datasets `train` and `test` under `work`; what exists stays."""
    import soundfile

    from ddsp.io.audio import load_audio
    from pipelines import PrepareOptions, prepare_dataset

    first, second = (load_audio(path, RATE) for path in recordings)
    cut = len(second) - int(HELD_OUT_SECS * RATE)
    for split, pieces in (('train', [first, second[:cut]]), ('test', [second[cut:]])):
        folder = work / f'{split}_audio'
        folder.mkdir(parents=True, exist_ok=True)
        for i, piece in enumerate(pieces):
            soundfile.write(folder / f'{i}.wav', piece, RATE, subtype='PCM_16')
        hop = 1.0 if split == 'train' else 4.0
        options = PrepareOptions(splits={split: 1.0}, hop_secs=hop, sample_rate=RATE, frame_rate=FRAME_RATE)
        prepare_dataset(str(folder), str(work / 'data'), split, options=options)


def crop_settings(bindings: list[str]) -> tuple[list[str], dict[str, Any]]:
    """What a trial on crops needs beside `crop_secs`: bindings to train with, and entries of the task."""
    found = [re.search(r'crop_secs *= *([\d.]+)', binding) for binding in bindings]
    secs = [float(match.group(1)) for match in found if match]

    def lengths(secs: float) -> list[str]:
        samples = [f'{name}.n_samples = {round(secs * RATE)}' for name in ('Harmonic', 'FilteredNoise')]
        return [*samples, f'F0LoudnessPreprocessor.time_steps = {round(secs * FRAME_RATE)}']

    if not secs:
        return [], {'crop_secs': None, 'play_params': []}
    return lengths(secs[-1]), {'crop_secs': secs[-1], 'play_params': lengths(EXAMPLE_SECS)}


def run_trial(
    name: str, trial: Any, python: str, work: pathlib.Path, marks: list[int], seed: int, count_steps: bool
) -> list[dict]:
    """Trains in a process of its own; one row for each mark."""
    from ddsp.io.dataset import open_dataset

    files, bindings, batch, _ = trial
    out = work / 'out' / name.replace(' ', '_').replace(',', '')
    out.mkdir(parents=True, exist_ok=True)
    patterns = {
        split: f'{open_dataset(work / "data" / split).path}/{split}-{split}.tfrecord*'
        for split in ('train', 'test')
    }
    cropped, crop_task = crop_settings(bindings)
    task = {
        **patterns, 'gin_files': files, 'gin_params': [f'batch_size = {batch}', *bindings, *cropped],
        'batch_size': batch, 'marks': marks, 'out': str(out), 'seed': seed, 'count_steps': count_steps,
        **crop_task,
    }  # fmt: skip
    command = [python, str(HERE / 'instrument_child.py'), json.dumps(task)]
    with tempfile.TemporaryDirectory() as elsewhere, open(out / 'log.txt', 'w') as log:
        # Started in an empty folder: an interpreter with another ddsp must not find this one.
        child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, cwd=elsewhere, text=True)
        lines = [json.loads(line[7:]) for line in child.stdout or () if line.startswith('RESULT ')]
    if child.wait():
        raise SystemExit(f'{name} failed: see {out / "log.txt"}')
    return [{'trial': name, 'batch': batch, **line, **measure(out / f'{line["mark"]}.npz')} for line in lines]


def measure(path: pathlib.Path) -> dict[str, float]:
    """Spectral loss, loudness and pitch of the generated audio against those of the recording."""
    from ddsp import losses
    from ddsp.analysis.loudness import loudness_db
    from ddsp.f0 import estimate_f0, voiced_threshold
    from ddsp.training import metrics

    rows = np.load(path)
    loss = losses.SpectralLoss(mag_weight=1.0, logmag_weight=1.0)
    spectral, loudness, pitch, outliers, cents = [], [], [], [], []
    for audio, generated in zip(rows['audio'], rows['audio_gen'], strict=True):
        generated = generated[: len(audio)]
        spectral.append(float(loss(audio[None], generated[None])))
        levels = [loudness_db(x, RATE, FRAME_RATE, padding='center') for x in (audio, generated)]
        loudness.append(float(np.abs(levels[0] - levels[1]).mean()))
        (f0_hz, sure), (f0_generated, _) = (estimate_f0(x, RATE, FRAME_RATE) for x in (audio, generated))
        voiced = (sure >= voiced_threshold('auto')) & (f0_hz > 0)
        errors = metrics.l1_distance(metrics.hz_to_midi(f0_generated), metrics.hz_to_midi(f0_hz))[voiced]
        if len(errors):
            outliers.append(bool(errors.mean() > metrics.OUTLIER_MIDI_THRESH))
            pitch.append(float(errors.mean()))
            cents.append(100 * errors)
    inside = [value for value, out in zip(pitch, outliers, strict=True) if not out]
    return {
        'spectral_loss': float(np.mean(spectral)), 'loudness_l1_db': float(np.mean(loudness)),
        'f0_l1_midi': float(np.mean(inside)) if inside else float('nan'),
        'f0_median_cents': float(np.median(np.concatenate(cents))),
        'f0_outlier_ratio': float(np.mean(outliers)), 'examples': len(spectral),
    }  # fmt: skip


def show(rows: list[dict[str, Any]]) -> None:
    """Prints the table."""
    columns = ('trial', 'batch', 'CPU s', 'steps', 'spectral loss', 'loudness L1 dB', 'f0 L1 MIDI',
               'f0 cents', 'outliers', 'peak MB')  # fmt: skip
    table = Table(*columns)
    for row in rows:
        table.add_row(
            row['trial'], str(row['batch']), f'{row["cpu_s"]:.0f}', str(row['step']),
            f'{row["spectral_loss"]:.2f}', f'{row["loudness_l1_db"]:.2f}', f'{row["f0_l1_midi"]:.3f}',
            f'{row["f0_median_cents"]:.1f}',
            f'{row["f0_outlier_ratio"]:.2f}', f'{row["peak_mb"]:.0f}',
        )  # fmt: skip
    Console().print(table)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('recordings', nargs=2, metavar='AUDIO')
    parser.add_argument(
        '--marks', default='300,600,1200', help='CPU seconds of training, separated by commas'
    )
    parser.add_argument('--steps', action='store_true', help='marks are steps')
    parser.add_argument(
        '--trials', default='laptop', help='separated by |: names, or name:TRIAL:BATCH:BINDING;BINDING'
    )
    parser.add_argument('--upstream-python', help='interpreter with ddsp 3.7.0')
    parser.add_argument('--work', default='', help='folder for data and audio; a temporary one by default')
    parser.add_argument('--json', default='', help='append the rows to this file')
    parser.add_argument('--seed', type=int, default=0)
    args = parser.parse_args()
    work = pathlib.Path(args.work or tempfile.mkdtemp(prefix='instrument-')).resolve()
    make_data(args.recordings, work)
    rows: list[dict[str, Any]] = []
    for text in args.trials.split('|'):
        name, trial = trial_of(text)
        if trial[3] and not args.upstream_python:
            parser.error(f'{name} needs --upstream-python')
        python = args.upstream_python if trial[3] else sys.executable
        marks = [int(mark) for mark in args.marks.split(',')]
        rows += run_trial(name, trial, python, work, marks, args.seed, args.steps)
        if args.json:
            with open(args.json, 'a') as file:
                for row in rows[-len(marks) :]:
                    file.write(
                        json.dumps({**row, 'machine': platform.processor() or platform.machine()}) + '\n'
                    )
    show(rows)


if __name__ == '__main__':
    main()
