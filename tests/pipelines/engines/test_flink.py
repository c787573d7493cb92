"""Flink publishes the same files as this process, also after a worker or a task manager was killed.

Job server and cluster run from single jars: sh infra/flink/get_engines.sh flink-jars
"""

import json
import os
import shutil
import signal
import threading
import time
import urllib.request

import numpy as np
import pytest

from ddsp.io.audio import write_wav
from pipelines.beam import portable

DRIVER = 'org.apache.beam.runners.flink.FlinkJobServerDriver'
JOB_MANAGER = 'org.apache.flink.runtime.entrypoint.StandaloneSessionClusterEntrypoint'
TASK_MANAGER = 'org.apache.flink.runtime.taskexecutor.TaskManagerRunner'
# Flink 1.19 looks into classes of Java 17.
OPENS = [
    f'--add-opens=java.base/{package}=ALL-UNNAMED'
    for package in ('java.lang', 'java.util', 'java.nio', 'java.net', 'sun.nio.ch')
]
# A task manager that is gone is missed after six seconds.
CONFIG = {
    'jobmanager.memory.process.size': '1g', 'taskmanager.numberOfTaskSlots': 2, 'taskmanager.cpu.cores': 2.0,
    'heartbeat.interval': 1000, 'heartbeat.timeout': 6000,
    'jobmanager.rpc.address': '127.0.0.1', 'jobmanager.bind-host': '127.0.0.1', 'rest.address': '127.0.0.1',
    'rest.bind-address': '127.0.0.1', 'taskmanager.host': '127.0.0.1',
} | {
    f'taskmanager.memory.{part}': size
    for part, size in {
        'task.heap.size': '256m', 'task.off-heap.size': '0m', 'framework.heap.size': '128m',
        'framework.off-heap.size': '64m', 'network.min': '192m', 'network.max': '192m',
        'managed.size': '128m', 'jvm-metaspace.size': '256m',
        'jvm-overhead.min': '64m', 'jvm-overhead.max': '64m',
    }.items()
}  # fmt: skip


@pytest.fixture
def java():
    """The beginning of a command that runs a class of the job server or of Flink."""
    folders = sorted(portable.jar_folder().glob('flink-*-job-server-*'))
    if not folders or shutil.which('java') is None:
        pytest.skip('the Flink job server is not here: sh infra/flink/get_engines.sh flink-jars (and Java)')
    return ['java', '-Xmx600m', *OPENS, '-cp', f'{folders[-1]}/*']


@pytest.fixture
def job_server(programs, java, request, tmp_path):
    """A function: the runner, and options that lead to a job server for a cluster and to a pool."""
    pool = request.getfixturevalue('pool')

    def start(master):
        port = programs.free_port()
        address = programs.start(
            'job server', *java, DRIVER, f'--flink-master={master}', f'--job-port={port}',
            '--artifact-port=0', '--expansion-port=0', f'--artifacts-dir={tmp_path}/artifacts',
            port=port,
        )  # fmt: skip
        programs.wait()
        return 'flink', (f'--job_endpoint={address}', '--parallelism=2', '--sdk_worker_parallelism=2', *pool)

    return start


@pytest.fixture
def flink_jars(job_server):
    """A job server with a Flink of two slots inside."""
    return job_server('[local]')


class Cluster:
    """A session cluster: a job manager, and a task manager with two slots.

    Task managers of one machine cannot share a pool: workers have the same names in each of them.
    """

    def __init__(self, programs, java, folder):
        self._programs, self._java, self._count = programs, java, 0
        self.rest = programs.free_port()
        self._folder = folder / 'flink'
        self._folder.mkdir()
        config = CONFIG | {'rest.port': self.rest, 'jobmanager.rpc.port': programs.free_port()}
        config |= {'io.tmp.dirs': str(self._folder)}
        (self._folder / 'flink-conf.yaml').write_text(''.join(f'{k}: {v}\n' for k, v in config.items()))
        self._run('job manager', JOB_MANAGER)
        programs.wait()

    def _run(self, name, main):
        command = *self._java, main, '--configDir', str(self._folder)
        self._programs.start(name, *command, port=self.rest)
        return self._programs.pid(name)

    def add_task_manager(self):
        """Starts one; returns its process."""
        self._count += 1
        return self._run(f'task manager {self._count}', TASK_MANAGER)

    def wait(self):
        """Waits for the task manager."""
        end = time.monotonic() + 120
        while not self._task_managers():
            assert time.monotonic() < end, 'no task manager has registered'
            time.sleep(0.2)

    def _task_managers(self):
        try:
            with urllib.request.urlopen(f'http://127.0.0.1:{self.rest}/overview', timeout=5) as answer:
                return json.load(answer)['taskmanagers']
        except OSError:  # 503 until the job manager leads
            return 0


@pytest.fixture
def cluster(programs, java, tmp_path):
    """A cluster."""
    made = Cluster(programs, java, tmp_path)
    made.task_manager = made.add_task_manager()
    made.wait()
    return made


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


@pytest.mark.slow
def test_a_lost_task_manager_changes_nothing(cluster, job_server, recordings, prepare, tmp_path):
    """Another one takes its place, and the cluster or the command starts the job again."""
    sources = recordings(45)
    expected, _ = prepare(sources, tmp_path / 'here')
    stop, killed = threading.Event(), []

    def kill_a_task_manager():
        while not stop.wait(0.01):
            if any((tmp_path / 'there').rglob('*.part')):  # a shard is being made
                os.kill(cluster.task_manager, signal.SIGKILL)
                killed.append(cluster.task_manager)
                cluster.add_task_manager()
                return

    killer = threading.Thread(target=kill_a_task_manager)
    killer.start()
    try:
        engine = job_server(f'127.0.0.1:{cluster.rest}')
        files, result = prepare(sources, tmp_path / 'there', engine)
    finally:
        stop.set()
        killer.join()
    assert killed
    assert files == expected
    assert result.accepted == 10
