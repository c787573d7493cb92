"""Flink publishes the same files as this process, also after a worker was killed in the middle.

The job server runs from single jars, with Flink inside: sh infra/flink/get_engines.sh flink-jars
"""

import os
import shutil
import signal
import socket
import threading

import numpy as np
import pytest

from ddsp.io.audio import write_wav
from pipelines.beam import portable

DRIVER = 'org.apache.beam.runners.flink.FlinkJobServerDriver'
# Flink 1.19 looks into classes of Java 17.
OPENS = [
    f'--add-opens=java.base/{package}=ALL-UNNAMED'
    for package in ('java.lang', 'java.util', 'java.nio', 'java.net', 'sun.nio.ch')
]


@pytest.fixture
def flink_jars(programs, request, tmp_path):
    """A job server with two task slots, and a pool of Python workers."""
    folders = sorted(portable.jar_folder().glob('flink-*-job-server-*'))
    if not folders or shutil.which('java') is None:
        pytest.skip('the Flink job server is not here: sh infra/flink/get_engines.sh flink-jars (and Java)')
    pool = request.getfixturevalue('pool')
    with socket.socket() as server:
        server.bind(('127.0.0.1', 0))
        port = server.getsockname()[1]
    address = programs.start(
        'job server', 'java', *OPENS, '-cp', f'{folders[-1]}/*', DRIVER, '--flink-master=[local]',
        f'--job-port={port}', '--artifact-port=0', '--expansion-port=0',
        f'--artifacts-dir={tmp_path}/artifacts',
        port=port,
    )  # fmt: skip
    getattr(programs, 'wait', lambda: None)()
    return 'flink', (f'--job_endpoint={address}', '--parallelism=2', '--sdk_worker_parallelism=2', *pool)


@pytest.fixture
def recordings(tmp_path):
    """A function: ten recordings of so many seconds."""

    def write(seconds):
        folder = tmp_path / 'recordings'
        folder.mkdir()
        t = np.arange(16000 * seconds) / 16000
        for i in range(10):
            tone = sum(np.sin(2 * np.pi * (180 + 25 * i) * k * t) / k for k in range(1, 6))
            write_wav(folder / f'{i}.wav', 0.2 * tone * (1 + 0.5 * np.sin(4 * t)), 16000)
        return folder

    return write


def counted(result):
    """Counters without times, which differ."""
    return {name: n for name, n in result.metrics.items() if 'cpu' not in name and 'wall' not in name}


@pytest.mark.slow
def test_flink_publishes_the_same_files(flink_jars, recordings, prepare, tmp_path):
    sources = recordings(3)
    expected, here = prepare(sources, tmp_path / 'here')
    files, there = prepare(sources, tmp_path / 'there', flink_jars)
    assert (files, counted(there)) == (expected, counted(here))
    assert there.accepted == 10
    assert there.costs['f0'] > 0


def kill_a_worker(root, stop, killed):
    """Kills the worker that first begins a shard: its process is in the name of the unfinished file."""
    while not stop.wait(0.01):
        for path in root.rglob('*.part'):
            pid = path.name.split('.')[-2]
            if pid.isdigit():
                os.kill(int(pid), signal.SIGKILL)
                killed.append(pid)
                return


@pytest.mark.slow
def test_a_killed_worker_changes_nothing_on_flink(flink_jars, recordings, prepare, tmp_path):
    """The job is submitted again, and shards that are finished are not made again."""
    sources = recordings(45)
    expected, _ = prepare(sources, tmp_path / 'here')
    stop, killed = threading.Event(), []
    killer = threading.Thread(target=kill_a_worker, args=(tmp_path / 'there', stop, killed))
    killer.start()
    try:
        files, _ = prepare(sources, tmp_path / 'there', flink_jars)
    finally:
        stop.set()
        killer.join()
    assert killed
    assert files == expected
