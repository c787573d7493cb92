"""`python -m benchmarks.prepare`: what preparing costs beside f0, with two workers, in memory, and again.

python -m benchmarks.prepare                     # all of it, some minutes
python -m benchmarks.prepare --only formats      # seconds of audio per CPU second, by format
python -m benchmarks.prepare --only workers      # one worker and two, the same bytes
python -m benchmarks.prepare --only memory --hours 10
python -m benchmarks.prepare --only incremental  # one recording added to many
python -m benchmarks.prepare --only command --seconds 20 --upstream-python ENV/bin/python  # beside ddsp 3.7.0
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import json
import os
import pathlib
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import soundfile
from rich.console import Console
from rich.table import Table

from benchmarks.f0 import crepe_package
from ddsp.f0.crepe_weights import load_weights
from pipelines import PrepareOptions, prepare_dataset
from pipelines.records import read_examples

# name: (suffix, rate, channels, soundfile format and subtype)
FORMATS: dict[str, tuple[str, int, int, str, str]] = {
    'wav 16 kHz mono': ('wav', 16000, 1, 'WAV', 'PCM_16'),
    'wav 44.1 kHz stereo': ('wav', 44100, 2, 'WAV', 'PCM_16'),
    'wav 96 kHz 24 bit stereo': ('wav', 96000, 2, 'WAV', 'PCM_24'),
    'flac 44.1 kHz stereo': ('flac', 44100, 2, 'FLAC', 'PCM_16'),
    'mp3 44.1 kHz stereo': ('mp3', 44100, 2, 'MP3', 'MPEG_LAYER_III'),
    'ogg 44.1 kHz stereo': ('ogg', 44100, 2, 'OGG', 'VORBIS'),
}
_SECONDS = 10.0  # of sound that is made at once


@functools.lru_cache(maxsize=2)
def sound(rate: int, channels: int, seed: int) -> np.ndarray:
    """Ten seconds of a melody with noise [n, channels]."""
    rng = np.random.default_rng(seed)
    t = np.arange(int(_SECONDS * rate)) / rate
    hz = 110.0 * 2 ** (((2 * t).astype(int) * 5 + seed * 7) % 24 / 12)
    mono = 0.15 * sum(np.sin(2 * np.pi * k * hz * t) / k for k in range(1, 9))
    mono = mono * (0.6 + 0.4 * np.sin(2 * np.pi * 0.5 * t)) + 0.001 * rng.standard_normal(len(t))
    return np.stack([mono, 0.8 * mono], 1)[:, :channels].astype(np.float32)


def write_recording(path: pathlib.Path, seconds: float, kind: str, seed: int) -> None:
    """A recording in one of `FORMATS`, written piece by piece."""
    _, rate, channels, container, subtype = FORMATS[kind]
    with soundfile.SoundFile(path, 'w', rate, channels, subtype, format=container) as file:
        for start in np.arange(0, seconds, _SECONDS):
            level = np.float32(0.5 + 0.5 * (start / _SECONDS * 0.618 % 1))
            file.write(level * sound(rate, channels, seed)[: int((seconds - start) * rate)])


def write_corpus(folder: pathlib.Path, count: int, seconds: float, kind: str) -> pathlib.Path:
    """`count` recordings of `seconds` each."""
    folder.mkdir(parents=True)
    for i in range(count):
        write_recording(folder / f'{i:03d}.{FORMATS[kind][0]}', seconds, kind, i)
    return folder


def cpu_seconds() -> float:
    """Of this process and of those that it started and that have ended."""
    return sum(
        use.ru_utime + use.ru_stime
        for use in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    )


def measure(inputs: pathlib.Path, root: pathlib.Path, options: PrepareOptions) -> dict[str, Any]:
    """Prepares and says what that cost."""
    cpu, wall = cpu_seconds(), time.monotonic()
    result = prepare_dataset(inputs, root, 'bench', options=options)
    wall, cpu = time.monotonic() - wall, cpu_seconds() - cpu
    row: dict[str, Any] = {'audio_s': sum(result.audio_seconds.values()), 'cpu_s': cpu, 'wall_s': wall}
    row |= {'stages': result.costs, 'made_s': result.audio_made, 'shards_made': result.shards_made}
    return row | {'path': str(result.path)}


def formats(work: pathlib.Path, args: argparse.Namespace) -> list[dict[str, Any]]:
    """Seconds of audio per CPU second of everything but f0."""
    rows = []
    options = PrepareOptions(f0='yin', workers=1)
    measure(write_corpus(work / 'warm', 1, 10, 'wav 16 kHz mono'), work / 'warm_out', options)
    for kind in FORMATS:
        inputs = write_corpus(work / kind, 4, args.seconds / 4, kind)
        row = {'format': kind, **measure(inputs, work / f'{kind} out', options)}
        row['beside_f0_s'] = row['cpu_s'] - row['stages']['f0']
        row['audio_s_per_cpu_s'] = row['audio_s'] / row['beside_f0_s']
        rows.append(row)
        shutil.rmtree(work / f'{kind} out')
        shutil.rmtree(inputs)
    return rows


def digest(path: str) -> str:
    """Of all records of a version."""
    files = sorted(pathlib.Path(path).glob('*.tfrecord*'))
    return hashlib.sha256(b''.join(hashlib.sha256(file.read_bytes()).digest() for file in files)).hexdigest()


def workers(work: pathlib.Path, args: argparse.Namespace) -> list[dict[str, Any]]:
    """One worker, two, and what two cores can do: two processes with half of the recordings each."""
    inputs = write_corpus(work / 'workers', args.recordings, args.each, 'wav 44.1 kHz stereo')
    halves = [work / 'half 0', work / 'half 1']
    for i, file in enumerate(sorted(inputs.iterdir())):
        halves[i % 2].mkdir(exist_ok=True)
        os.link(file, halves[i % 2] / file.name)
    rows = []
    for _ in range(args.turns):
        for count in (1, 2):
            options = PrepareOptions(f0=args.f0, workers=count)
            row = {'workers': str(count), **measure(inputs, work / 'workers out', options)}
            rows.append({**row, 'records': digest(row['path'])[:12]})
            shutil.rmtree(work / 'workers out')
        rows.append({'workers': '1 and 1', **side_by_side(halves, args.f0), 'records': ''})
    return rows


def side_by_side(folders: list[pathlib.Path], f0: str) -> dict[str, Any]:
    """Processes that have nothing to do with each other, at the same time; begins when all have imported."""
    code = (
        'import sys; from benchmarks.prepare import child; print("ready", flush=True); '
        'sys.stdin.readline(); child(*sys.argv[1:4], 1)'
    )
    commands = [[sys.executable, '-c', code, str(path), f'{path} out', f0] for path in folders]
    pipes = {'stdin': subprocess.PIPE, 'stdout': subprocess.PIPE, 'text': True}
    processes = [subprocess.Popen(command, **pipes) for command in commands]  # type: ignore[call-overload]
    for process in processes:
        process.stdout.readline()
    started = time.monotonic()
    for process in processes:
        process.stdin.write('\n')
        process.stdin.flush()
    found = [json.loads(process.communicate()[0]) for process in processes]
    wall = time.monotonic() - started
    for path in folders:
        shutil.rmtree(f'{path} out')
    total = {name: sum(row[name] for row in found) for name in ('audio_s', 'cpu_s', 'made_s', 'shards_made')}
    stages = {name: sum(row['stages'][name] for row in found) for name in found[0]['stages']}
    return {**total, 'wall_s': wall, 'stages': stages}


def memory_of(pids: set[int]) -> dict[int, float]:
    """PSS of processes, MB: what is shared counts by parts."""
    found = {}
    for pid in pids:
        try:
            lines = pathlib.Path(f'/proc/{pid}/smaps_rollup').read_text().splitlines()
            found[pid] = next(int(line.split()[1]) for line in lines if line.startswith('Pss:')) / 1e3
        except (OSError, StopIteration):
            continue
    return found


def descendants(pid: int) -> Iterator[int]:
    """A process and all below it; each of its threads has children of its own."""
    yield pid
    for file in pathlib.Path(f'/proc/{pid}/task').glob('*/children'):
        try:
            children = file.read_text().split()
        except OSError:
            continue
        for child in children:
            yield from descendants(int(child))


def memory(work: pathlib.Path, args: argparse.Namespace) -> list[dict[str, Any]]:
    """Highest PSS of any process while hours of audio are prepared."""
    rows = []
    seconds = args.hours * 3600
    cases = {'one file': (1, seconds), 'files of 1 minute': (round(seconds / 60), 60.0)}
    for name, (count, each) in cases.items():
        if args.input not in ('', name):
            continue
        inputs = write_corpus(work / name, count, each, 'wav 16 kHz mono')
        peaks: dict[int, float] = {}
        code = 'import sys; from benchmarks.prepare import child; child(*sys.argv[1:], hop_secs=4.0)'
        command = [sys.executable, '-c', code, str(inputs), str(work / f'{name} out'), args.f0]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        stop = threading.Event()

        def watch(pid: int = process.pid, peaks: dict[int, float] = peaks, stop: Any = stop) -> None:
            while not stop.wait(0.5):
                for found, mb in memory_of(set(descendants(pid))).items():
                    peaks[found] = max(peaks.get(found, 0.0), mb)

        watcher = threading.Thread(target=watch)
        watcher.start()
        output, _ = process.communicate()
        stop.set()
        watcher.join()
        row = {'input': name, **json.loads(output), 'driver_mb': peaks.pop(process.pid)}
        rows.append(row | {'worker_mb': max(peaks.values())})
        print(rows[-1], file=sys.stderr)
        shutil.rmtree(work / f'{name} out')
        shutil.rmtree(inputs)
    return rows


def child(inputs: str, root: str, f0: str, count: int = 2, hop_secs: float = 1.0) -> None:
    """Prepares in a process of its own."""
    options = PrepareOptions(f0=f0, workers=count, hop_secs=hop_secs)
    print(json.dumps(measure(pathlib.Path(inputs), pathlib.Path(root), options)))


def incremental(work: pathlib.Path, args: argparse.Namespace) -> list[dict[str, Any]]:
    """Everything, then with one recording more, then the same again."""
    inputs = write_corpus(work / 'incremental', args.recordings, 30, 'wav 16 kHz mono')
    held_back = work / 'held back.wav'
    (inputs / '003.wav').rename(held_back)
    options = PrepareOptions(f0=args.f0, workers=1)
    rows = [{'run': 'first', **measure(inputs, work / 'out', options)}]
    held_back.rename(inputs / '003.wav')
    rows.append({'run': 'one recording added', **measure(inputs, work / 'out', options)})
    rows.append({'run': 'nothing changed', **measure(inputs, work / 'out', options)})
    at_once = measure(inputs, work / 'at once', options)
    assert digest(at_once['path']) == digest(rows[-1]['path'])
    return rows


def command(work: pathlib.Path, args: argparse.Namespace) -> list[dict[str, Any]]:
    """`ddsp_prepare_tfrecord` here and of ddsp 3.7.0, which knows CREPE full alone: the whole command."""
    if not args.upstream_python:
        return []
    inputs = write_corpus(work / 'command', 1, args.seconds, 'wav 44.1 kHz stereo')
    stand_in = work / 'stand in'  # for the package crepe, where it could not be installed
    stand_in.mkdir()
    shutil.copy(crepe_package.__file__, stand_in / 'crepe.py')
    crepe_package.save_weights(load_weights('full'), str(stand_in / 'full.npz'))
    theirs = {'PYTHONPATH': str(stand_in), 'CREPE_NPZ': str(stand_in / 'full.npz')}
    sides: dict[str, tuple[str, dict[str, str], list[str]]] = {
        'here, crepe-full': (sys.executable, {}, ['--f0=crepe-full']),
        'here, swift': (sys.executable, {}, ['--f0=swift']),
        'ddsp 3.7.0': (args.upstream_python, theirs, []),
    }
    rows = []
    for turn in range(args.turns):
        for side, (python, variables, more) in sides.items():
            program = pathlib.Path(python).with_name('ddsp_prepare_tfrecord')
            flags = [f'--input_audio_filepatterns={inputs}/*.wav', '--num_shards=1', *more]
            flags.append(f'--output_tfrecord_path={work}/{side} {turn}/train.tfrecord')
            cpu, wall = cpu_seconds(), time.monotonic()
            call = [python, str(program), *flags]
            done = subprocess.run(call, env=os.environ | variables, capture_output=True, check=False)
            cpu, wall = cpu_seconds() - cpu, time.monotonic() - wall
            if done.returncode:
                raise SystemExit(done.stderr.decode())
            (file,) = (work / f'{side} {turn}').glob('train.tfrecord*')
            found = list(read_examples(str(file)))
            row = {'command of': side, 'audio_s': args.seconds, 'cpu_s': cpu, 'wall_s': wall}
            row |= {'cpu_s_per_audio_s': cpu / args.seconds, 'examples': len(found)}
            rows.append(row | {'median_f0_hz': float(np.median(np.concatenate([e['f0_hz'] for e in found])))})
    return rows


PARTS = {
    'formats': formats,
    'workers': workers,
    'memory': memory,
    'incremental': incremental,
    'command': command,
}


def main() -> int:
    """Runs the parts and prints a table of each."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--only', choices=list(PARTS), help='one part')
    parser.add_argument('--seconds', type=float, default=480, help='of audio for each format')
    parser.add_argument('--recordings', type=int, default=24, help='for workers and incremental')
    parser.add_argument('--each', type=float, default=60, help='seconds of a recording for workers')
    parser.add_argument('--turns', type=int, default=2, help='times that one and two workers take turns')
    parser.add_argument('--hours', type=float, default=1.0, help='of audio for memory')
    parser.add_argument(
        '--input', default='', choices=['', 'one file', 'files of 1 minute'], help='for memory'
    )
    parser.add_argument('--f0', default='swift', help='estimator for workers and memory')
    parser.add_argument('--upstream-python', help='interpreter with ddsp 3.7.0, for command')
    parser.add_argument('--work', help='folder for the files; a temporary one by default')
    parser.add_argument('--out', help='write the rows as JSON')
    run_parts(PARTS, parser.parse_args())
    return 0


def run_parts(parts: dict[str, Any], args: argparse.Namespace) -> None:
    """Runs `args.only` or all parts in a folder within `args.work`, shows their rows, writes `args.out`."""
    results = {}
    with tempfile.TemporaryDirectory(dir=args.work) as work:
        for name in [args.only] if args.only else parts:
            results[name] = parts[name](pathlib.Path(work), args)
            if results[name]:
                show(name, results[name])
    if args.out:
        pathlib.Path(args.out).write_text(json.dumps(results, indent=1) + '\n')


def show(name: str, rows: list[dict[str, Any]]) -> None:
    """A table of numbers; what is longer is left to the JSON."""
    table = Table(title=name, title_justify='left')
    names = [key for key in rows[0] if key not in ('path', 'stages')]
    for key in names:
        table.add_column(key, justify='left' if isinstance(rows[0][key], str) else 'right')
    stages = list(rows[0].get('stages', {}))
    for stage in stages:
        table.add_column(stage, justify='right')
    for row in rows:
        cells = [row[key] for key in names] + [row['stages'].get(stage, 0.0) for stage in stages]
        table.add_row(*(cell if isinstance(cell, str) else f'{cell:.1f}' for cell in cells))
    Console(width=200).print(table)


if __name__ == '__main__':
    os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')
    raise SystemExit(main())
