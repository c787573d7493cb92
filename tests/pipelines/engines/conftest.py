"""Engines on loopback: Beam's own job service, Prism and Flink, with a pool of Python workers.

`sh infra/flink/get_engines.sh` brings those that are not Python packages. Logs lie in `tmp_path` and are
shown when a test fails.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
import soundfile

from ddsp.io import gcs
from ddsp.io.files import file_sha256
from pipelines import PrepareOptions, prepare_dataset
from pipelines.beam import portable
from pipelines.beam.sdk import beam
from pipelines.synthetic.corpus import synthesize_corpus

BEAM_JOBS = 'apache_beam.runners.portability.local_job_service_main'
WORKER_POOL = 'apache_beam.runners.worker.worker_pool_main'
_LARGE = 10_000_000


def free_port():
    with socket.socket() as server:
        server.bind(('127.0.0.1', 0))
        return server.getsockname()[1]


class Programs:
    """Servers of one test, each with its log and its children."""

    def __init__(self, folder):
        self._folder, self._running, self._ports = folder, {}, {}
        # The pool starts its workers as `python`.
        path = os.pathsep.join((os.path.dirname(sys.executable), os.environ['PATH']))
        self._environ = {**os.environ, 'PATH': path, 'OMP_NUM_THREADS': '1', 'OPENBLAS_NUM_THREADS': '1'}

    def start(self, name, *command, port):
        """Starts one; returns its address."""
        with open(self._folder / f'{name}.log', 'wb') as log:
            self._running[name] = subprocess.Popen(
                command, env=self._environ, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip
        self._ports[name] = port
        return f'127.0.0.1:{port}'

    def wait(self):
        """Waits until all listen."""
        end = time.monotonic() + 60
        for name, port in self._ports.items():
            while not listens(port):
                alive = time.monotonic() < end and self._running[name].poll() is None
                assert alive, f'{name} does not listen on port {port}'
                time.sleep(0.05)

    free_port = staticmethod(free_port)

    def pid(self, name):
        """Process of one."""
        return self._running[name].pid

    def stop(self):
        """Stops all with what they started, and prints their logs: pytest shows them on failure."""
        for name, program in self._running.items():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(program.pid, signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                program.wait(5)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(program.pid, signal.SIGKILL)
            program.wait()
            print(f'--- {name}\n{(self._folder / f"{name}.log").read_text(errors="replace")[-4000:]}')


def listens(port):
    with contextlib.suppress(OSError), socket.create_connection(('127.0.0.1', port), 1):
        return True
    return False


@pytest.fixture
def programs(tmp_path):
    """Starts servers; they end with the test."""
    started = Programs(tmp_path)
    yield started
    started.stop()


@pytest.fixture
def pool(programs):
    """Options that lead to a pool of Python workers."""
    port = free_port()
    address = programs.start(
        'pool', sys.executable, '-m', WORKER_POOL, f'--service_port={port}', port=port
    )  # fmt: skip
    return ('--environment_type=EXTERNAL', f'--environment_config={address}')


@pytest.fixture
def job_service(programs, pool):
    """Beam's own job service."""
    port = free_port()
    address = programs.start('service', sys.executable, '-m', BEAM_JOBS, f'--job_port={port}', port=port)
    programs.wait()
    return 'portable', (f'--job_endpoint={address}', *pool)


@pytest.fixture
def prism(programs, request):
    """Beam's engine in Go."""
    program = portable.jar_folder() / f'prism-{beam.__version__}'
    if not program.exists():
        pytest.skip(f'Prism {beam.__version__} was not built: sh infra/flink/get_engines.sh prism')
    pool, port = request.getfixturevalue('pool'), free_port()
    address = programs.start('prism', program, f'--job_port={port}', '--serve_http=false', port=port)
    programs.wait()
    return 'portable', (f'--job_endpoint={address}', *pool)


@pytest.fixture
def flink(request):
    """Flink with two task slots inside the job server, which the client starts."""
    jars = sorted(portable.jar_folder().glob(f'beam-runners-flink-*-job-server-{beam.__version__}.jar'))
    if not jars or shutil.which('java') is None:
        pytest.skip('the Flink job server is not here: sh infra/flink/get_engines.sh flink (with Java 11)')
    jar = f'--flink_job_server_jar={jars[-1]}'
    pool = request.getfixturevalue('pool')
    request.getfixturevalue('programs').wait()
    return 'flink', ('--flink_master=[local]', '--parallelism=2', jar, *pool)


@pytest.fixture
def engine(request):
    """One of the engines above, by name: a runner and the options that lead to it."""
    return request.getfixturevalue(request.param)


def tone(hz, seconds, rate=16000):
    """A harmonic tone that swells."""
    t = np.arange(int(seconds * rate)) / rate
    return 0.2 * (1 + 0.5 * np.sin(4 * t)) * sum(np.sin(2 * np.pi * hz * k * t) / k for k in range(1, 6))


@pytest.fixture(scope='session')
def wide_corpus(tmp_path_factory):
    """All odd inputs and recordings of the synthetic instrument: two hundred files."""
    odd_inputs = load('../sources/odd_inputs.py')
    folder = tmp_path_factory.mktemp('wide')
    odd = len(odd_inputs.write(folder))
    synthesize_corpus(folder / 'synthetic', seconds=300)
    (folder / 'synthetic' / 'truth').rename(tmp_path_factory.mktemp('truth') / 'truth')
    for i in range(200 - odd - 20):
        soundfile.write(folder / f'tone {i}.wav', tone(150 + 3 * i, 1 + 0.05 * i), 16000)
    return folder


def load(name):
    """A module of the tests beside this folder."""
    place = pathlib.Path(__file__).parent / name
    spec = importlib.util.spec_from_file_location(place.stem, place)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


OPTIONS = PrepareOptions(f0='yin', num_shards=2, workers=1)


@pytest.fixture
def job_servers_end(monkeypatch):
    """Job servers that Beam starts end with the test, not with the process."""
    ends, before = [], signal.getsignal(signal.SIGINT)
    monkeypatch.setattr('atexit.register', lambda end, *args: ends.append(end))
    yield
    for end in ends:
        end()
    signal.signal(signal.SIGINT, before)


def content(path):
    """Names and bytes of a published version; all but metrics.json, which holds times.

    Of large files the sha256.
    """
    if gcs.is_gcs(path):
        addresses = [found.address for found in gcs.list_objects(path)]
        files = {address.rpartition('/')[2]: gcs.read(address) for address in addresses}
    else:
        files = {
            file.name: file.read_bytes() if file.stat().st_size < _LARGE else file_sha256(file)
            for file in path.iterdir()
        }
    del files['metrics.json']
    return files


@pytest.fixture
def prepare(job_servers_end, monkeypatch):
    """A function: prepares with an engine (None: in this process); gives the files and the result."""
    monkeypatch.setenv('SOURCE_DATE_EPOCH', '0')

    def run(sources, root, engine=None, options=OPTIONS):
        runner, beam_options = engine or ('local', ())
        result = prepare_dataset(
            sources, root, 'notes', options=options, runner=runner, beam_options=beam_options
        )
        return content(result.path), result

    return run
