"""`python -m benchmarks.scale`: how a preparation grows with inputs, hours and length of recordings.

python -m benchmarks.scale                                     # all of it; see the times in docs/scale.md
python -m benchmarks.scale --only inputs --counts 1000,10000   # tiny recordings: the graph's own cost
python -m benchmarks.scale --only inputs --engine portable     # on Beam's job service with a worker pool
python -m benchmarks.scale --only hours --hours 0.1,1,10       # CPU seconds per hour of audio
python -m benchmarks.scale --only workers --turns 3            # two workers beside one, in turns
python -m benchmarks.scale --only length                       # memory by the length of a recording
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import pathlib
import resource
import shutil
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

from benchmarks.prepare import cpu_seconds, descendants, memory_of, run_parts, write_recording

KIND = 'wav 16 kHz mono'
SERVICE = 'apache_beam.runners.portability.local_job_service_main'
POOL = 'apache_beam.runners.worker.worker_pool_main'
FILE_SECS = 600.0
# f0 is looked for ten times a second only: what is measured is the rest.
OPTIONS = {'f0': 'yin', 'f0_rate': 10, 'hop_secs': 4.0, 'workers': 1}
_TINY = 160  # samples: 10 ms
_USABLE = 100
Row = dict[str, Any]


def write_tiny(folder: pathlib.Path, count: int) -> pathlib.Path:
    """`count` different recordings of 10 ms, in folders of a thousand; and some for each split to be used."""
    folder.mkdir(parents=True)
    for i in range(_USABLE):
        write_recording(folder / f'{i}.wav', 4.0, KIND, i)
    size = 2 * _TINY
    chunks = b'RIFF', 36 + size, b'WAVE', b'fmt ', 16, 1, 1, 16000, 32000, 2, 16, b'data', size
    header = struct.pack('<4sI4s4sIHHIIHH4sI', *chunks)
    for i in range(count - _USABLE):
        place = folder / f'{i // 1000:03d}'
        if i % 1000 == 0:
            place.mkdir()
        (place / f'{i:06d}.wav').write_bytes(header + struct.pack('<I', i).ljust(size, b'\0'))
    return folder


def prepare(inputs: str, root: str, options: str, engine: str, flags: str) -> None:
    """Prepares in a process of its own and prints what it cost."""
    from pipelines import PrepareOptions, prepare_dataset

    cpu, wall = cpu_seconds(), time.monotonic()
    result = prepare_dataset(
        inputs, root, 'scale', options=PrepareOptions(**json.loads(options)), runner=engine,
        beam_options=tuple(flags.split()),
    )  # fmt: skip
    row = {'audio_s': result.audio_made, 'wall_s': time.monotonic() - wall, 'cpu_s': cpu_seconds() - cpu}
    row |= {'driver_mb': resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3}
    row |= {'f0_s': result.costs['f0'], 'analysis_s': sum(result.costs.values())}
    print(json.dumps(row | {'shards': result.shards_made, 'load': os.getloadavg()[0]}))


def run(inputs: pathlib.Path, engine: str = 'local', flags: str = '', **options: Any) -> Row:
    """One preparation in a process of its own, and the highest memory of any process below it."""
    code = 'import sys; from benchmarks.scale import prepare; prepare(*sys.argv[1:])'
    root = inputs.with_name(f'{inputs.name} out')
    given = [str(inputs), str(root), json.dumps(OPTIONS | options), engine, flags]
    process = subprocess.Popen([sys.executable, '-c', code, *given], stdout=subprocess.PIPE, text=True)
    with peaks(process.pid) as found:
        output, _ = process.communicate()
    shutil.rmtree(root, ignore_errors=True)
    if process.returncode:
        raise SystemExit(f'the preparation of {inputs} failed')
    found.pop(process.pid, None)
    row: Row = json.loads(output)
    return row | ({'worker_mb': max(found.values())} if found else {})


@contextlib.contextmanager
def peaks(*pids: int) -> Iterator[dict[int, float]]:
    """The highest PSS of some processes and all below them, MB."""
    found: dict[int, float] = {}
    stop = threading.Event()

    def watch() -> None:
        while not stop.wait(0.5):
            for pid, mb in memory_of({each for root in pids for each in descendants(root)}).items():
                found[pid] = max(found.get(pid, 0.0), mb)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield found
    finally:
        stop.set()
        watcher.join()


@contextlib.contextmanager
def servers(work: pathlib.Path) -> Iterator[tuple[str, list[subprocess.Popen[bytes]]]]:
    """Beam's job service and a worker pool: the flags that lead to them, and their processes."""
    path = os.pathsep.join((os.path.dirname(sys.executable), os.environ['PATH']))
    environment = os.environ | {'PATH': path, 'OMP_NUM_THREADS': '1', 'OPENBLAS_NUM_THREADS': '1'}
    started, ports = [], []
    for module, option in ((SERVICE, '--job_port'), (POOL, '--service_port')):
        with socket.socket() as free:
            free.bind(('127.0.0.1', 0))
            ports.append(free.getsockname()[1])
        with open(work / f'{module}.log', 'wb') as log:
            command = [sys.executable, '-m', module, f'{option}={ports[-1]}']
            started.append(subprocess.Popen(command, env=environment, stdout=log, stderr=log))
    try:
        for port in ports:
            await_port(port)
        job, pool = (f'127.0.0.1:{port}' for port in ports)
        yield f'--job_endpoint={job} --environment_type=EXTERNAL --environment_config={pool}', started
    finally:
        for process in started:
            for pid in reversed(list(descendants(process.pid))):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, 9)
            process.wait()


def await_port(port: int) -> None:
    """Waits until somebody listens."""
    for _ in range(600):
        with contextlib.suppress(OSError), socket.create_connection(('127.0.0.1', port), 1):
            return
        time.sleep(0.1)
    raise SystemExit(f'nothing listens on port {port}')


def cpu_of(process: subprocess.Popen[bytes]) -> float:
    """CPU seconds of a process and all below it, the ended ones too."""
    total = 0
    for pid in descendants(process.pid):
        with contextlib.suppress(OSError):
            fields = pathlib.Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()
            total += sum(map(int, fields[11:15]))
    return total / os.sysconf('SC_CLK_TCK')


def inputs(work: pathlib.Path, args: argparse.Namespace) -> list[Row]:
    """Time and memory by the number of inputs, which are tiny."""
    rows = []
    for count in args.counts:
        folder = write_tiny(work / f'{count} inputs', count)
        for engine in args.engine:
            row = {'engine': engine, 'inputs': count}
            if engine == 'local':
                row |= run(folder)
            else:
                with servers(work) as (flags, started), peaks(*(each.pid for each in started)) as found:
                    row |= run(folder, engine, flags)
                    row['cpu_s'] += sum(map(cpu_of, started))
                    row['service_mb'] = found.get(started[0].pid, 0.0)
                    row['worker_mb'] = max(mb for pid, mb in found.items() if pid != started[0].pid)
            row['ms_per_input'] = 1000 * (row['cpu_s'] - row['analysis_s']) / count
            rows.append(row)
            print(json.dumps(row), file=sys.stderr)
        shutil.rmtree(folder)
    columns = dict.fromkeys(name for row in rows for name in row)
    return [{name: row.get(name, 0.0) for name in columns} for row in rows]


def hours(work: pathlib.Path, args: argparse.Namespace) -> list[Row]:
    """CPU seconds per hour of audio, in recordings of ten minutes at most."""
    rows = []
    for count in args.hours:
        folder = write_hours(work / f'{count} h', count)
        row = {'hours': count, **run(folder, workers=args.workers)}
        row['cpu_s_per_hour'] = row['cpu_s'] / count
        row['beside_f0_per_hour'] = (row['cpu_s'] - row['f0_s']) / count
        row['audio_s_per_cpu_s'] = 3600 / row['beside_f0_per_hour']
        rows.append(row)
        print(json.dumps(row), file=sys.stderr)
        shutil.rmtree(folder)
    return rows


def write_hours(folder: pathlib.Path, count: float, each: float = FILE_SECS) -> pathlib.Path:
    """Hours of audio in recordings of the same length."""
    folder.mkdir(parents=True)
    number = max(1, round(3600 * count / each))
    for i in range(number):
        write_recording(folder / f'{i:04d}.wav', min(each, 3600 * count) + 0.01 * i, KIND, i)
    return folder


def workers(work: pathlib.Path, args: argparse.Namespace) -> list[Row]:
    """One worker and two in turns, on an hour of audio."""
    folder = write_hours(work / 'an hour', args.pair_hours, 60)
    rows: list[Row] = []
    for turn in range(args.turns):
        for count in (1, 2) if turn % 2 == 0 else (2, 1):
            rows.append({'workers': count, **run(folder, workers=count, f0_rate=None)})
            rows[-1].setdefault('worker_mb', 0.0)
            print(json.dumps(rows[-1]), file=sys.stderr)
        one, two = (next(r['wall_s'] for r in rows[-2:] if r['workers'] == n) for n in (1, 2))
        print(f'turn {turn}: two workers are {one / two:.2f} times as fast as one', file=sys.stderr)
    return rows


def length(work: pathlib.Path, args: argparse.Namespace) -> list[Row]:
    """Memory of one process for a single recording, by its length in minutes."""
    rows = []
    for minutes in args.minutes:
        folder = write_hours(work / f'{minutes} min', minutes / 60, minutes * 60)
        rows.append({'minutes': minutes, **run(folder)})
        shutil.rmtree(folder)
    return rows


PARTS = {'inputs': inputs, 'hours': hours, 'workers': workers, 'length': length}


def numbers(kind: type) -> Any:
    """A parser of numbers with commas between them."""
    return lambda text: [kind(part) for part in text.split(',')]


def main() -> int:
    """Runs the parts and prints a table of each."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--only', choices=list(PARTS), help='one part')
    parser.add_argument('--counts', type=numbers(int), default=[1000, 10000, 100000], help='of inputs')
    parser.add_argument('--engine', type=numbers(str), default=['local', 'portable'], help='for inputs')
    parser.add_argument('--hours', type=numbers(float), default=[0.1, 1.0, 10.0], help='of audio')
    parser.add_argument('--workers', type=int, default=1, help='for hours')
    parser.add_argument('--pair-hours', type=float, default=1.0, help='hours of audio for workers')
    parser.add_argument('--turns', type=int, default=2, help='for workers')
    parser.add_argument('--minutes', type=numbers(float), default=[1.0, 10.0, 60.0], help='for length')
    parser.add_argument('--work', help='folder for the files; a temporary one by default')
    parser.add_argument('--out', help='write the rows as JSON')
    run_parts(PARTS, parser.parse_args())
    return 0


if __name__ == '__main__':
    raise SystemExit(main())
