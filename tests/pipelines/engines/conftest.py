"""Engines on loopback: Beam's own job service, Prism and Flink, with a pool of Python workers.

`sh infra/flink/get_engines.sh` brings those that are not Python packages. Logs lie in `tmp_path` and are
shown when a test fails.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
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
from pipelines.beam.plan import plan_shards
from pipelines.beam.shards import read_failures, read_metrics

from ddsp.f0 import get_estimator
from ddsp.io.audio import write_wav
from pipelines.beam import portable
from pipelines.beam.runner import build, run_shards
from pipelines.beam.sdk import PipelineOptions, beam
from pipelines.options import PrepareOptions
from pipelines.sources.finding import find_sources
from pipelines.sources.probing import Inputs, probe_sources
from pipelines.sources.splits import split_sources

BEAM_JOBS = 'apache_beam.runners.portability.local_job_service_main'
WORKER_POOL = 'apache_beam.runners.worker.worker_pool_main'


@dataclasses.dataclass(frozen=True)
class Request:
    """What is to be made: the plans of shards, in a folder that all workers see."""

    plans: tuple
    folder: pathlib.Path


class Programs:
    """Servers of one test, each with its log and its children."""

    def __init__(self, folder):
        self._folder, self._running = folder, {}
        # The pool starts its workers as `python`.
        path = os.pathsep.join((os.path.dirname(sys.executable), os.environ['PATH']))
        self._environ = {**os.environ, 'PATH': path, 'OMP_NUM_THREADS': '1', 'OPENBLAS_NUM_THREADS': '1'}

    def start(self, name, *command, port):
        """Starts one and waits until it listens; returns its address."""
        with open(self._folder / f'{name}.log', 'wb') as log:
            self._running[name] = subprocess.Popen(
                command, env=self._environ, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip
        end = time.monotonic() + 60
        while time.monotonic() < end and self._running[name].poll() is None:
            with contextlib.suppress(OSError), socket.create_connection(('127.0.0.1', port), 1):
                return f'127.0.0.1:{port}'
            time.sleep(0.05)
        raise AssertionError(f'{name} does not listen on port {port}')

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


def free_port():
    with socket.socket() as server:
        server.bind(('127.0.0.1', 0))
        return server.getsockname()[1]


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
    return 'portable', (f'--job_endpoint={address}', *pool)


@pytest.fixture
def prism(programs, request):
    """Beam's engine in Go."""
    program = portable.jar_folder() / f'prism-{beam.__version__}'
    if not program.exists():
        pytest.skip(f'Prism {beam.__version__} was not built: sh infra/flink/get_engines.sh prism')
    pool, port = request.getfixturevalue('pool'), free_port()
    address = programs.start('prism', program, f'--job_port={port}', '--serve_http=false', port=port)
    return 'portable', (f'--job_endpoint={address}', *pool)


@pytest.fixture
def flink(request):
    """Flink with two task slots inside the job server, which the client starts."""
    jars = sorted(portable.jar_folder().glob(f'beam-runners-flink-*-job-server-{beam.__version__}.jar'))
    if not jars or shutil.which('java') is None:
        pytest.skip('the Flink job server is not here: sh infra/flink/get_engines.sh flink (with Java 11)')
    jar = f'--flink_job_server_jar={jars[-1]}'
    pool = request.getfixturevalue('pool')
    return 'flink', ('--flink_master=[local]', '--parallelism=2', jar, *pool)


@pytest.fixture
def engine(request):
    """One of the engines above, by name: a runner and the options that lead to it."""
    return request.getfixturevalue(request.param)


@pytest.fixture
def make_request(tmp_path):
    """A function: a request for ten recordings of so many seconds; the same ones for the same number."""

    def make(seconds, name):
        recordings, work, folder = (tmp_path / part for part in (f'recordings{seconds}', 'work', name))
        for path in (recordings, work, folder):
            path.mkdir(exist_ok=True)
        t = np.arange(16000 * seconds) / 16000
        for i in range(10):
            tone = sum(np.sin(2 * np.pi * (180 + 25 * i) * k * t) / k for k in range(1, 6))
            write_wav(recordings / f'{i}.wav', 0.2 * tone * (1 + 0.5 * np.sin(4 * t)), 16000)
        options = PrepareOptions(f0='yin', num_shards=4)
        rows = probe_sources(find_sources(recordings), Inputs(work), lambda *_: None)
        pieces = split_sources(rows, options.splits, options.example_secs)
        return Request(tuple(plan_shards(pieces, options, get_estimator('yin'))), folder)

    return make


@pytest.fixture
def job_servers_end(monkeypatch):
    """Job servers that Beam starts end with the test, not with the process."""
    ends, before = [], signal.getsignal(signal.SIGINT)
    monkeypatch.setattr('atexit.register', lambda end, *args: ends.append(end))
    yield
    for end in ends:
        end()
    signal.signal(signal.SIGINT, before)


def submit(options, request):
    """Runs a job and waits for its end."""
    pipeline = beam.Pipeline(options=PipelineOptions(options))
    build(pipeline, [[plan] for plan in request.plans], request.folder)
    result = pipeline.run()
    result.wait_until_finish()
    return result


@pytest.fixture
def published_bytes(job_servers_end):
    """A function: hashes of the files that an engine (None: this process) makes, and its counters."""

    def run(engine, request):
        if engine:
            runner, given = engine
            name = {'portable': 'PortableRunner', 'flink': 'FlinkRunner'}[runner]
            options = [*given, *portable.flags(runner, given), f'--runner={name}']
            result = portable.run_again(lambda: submit(options, request))
            assert read_failures(result) == []
            counters = read_metrics(result)
        else:
            counters = run_shards(list(request.plans), request.folder, 1)
        files = (request.folder / plan.key for plan in request.plans)
        return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}, counters

    return run
