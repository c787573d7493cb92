"""Every engine makes the same bytes, also after a worker was killed in the middle."""

import os
import signal
import sys
import threading
import time

import pytest
from pipelines.beam.shards import AT_SUFFIX

# Takes the place of Java: Beam's own job service, on the port that the client asks for.
STAND_IN = """#!{python}
import pathlib, sys
from apache_beam.runners.portability import local_job_service_main as service
pathlib.Path(__file__ + '.words').write_text('\\n'.join(sys.argv[1:]))
service.run(['--job_port', sys.argv[sys.argv.index('--job-port') + 1]])
"""


def counted(counters):
    """Counters without times, which differ."""
    return {name: value for name, value in counters.items() if 'cpu' not in name and 'wall' not in name}


@pytest.fixture
def expected(make_request, published_bytes):
    """A function: bytes and counters of ten recordings in this process."""

    def make(seconds):
        made, counters = published_bytes(None, make_request(seconds, 'expected'))
        return made, counted(counters)

    return make


@pytest.mark.parametrize('engine', ['job_service', 'prism', 'flink'], indirect=True)
def test_the_bytes_are_the_same(engine, make_request, published_bytes, expected):
    made, counters = published_bytes(engine, make_request(3, 'made'))
    assert (made, counted(counters)) == expected(3)
    assert counters['made/recordings'] == 10
    assert counters['cpu_seconds/f0'] > 0


def test_the_flink_client_starts_its_job_server(pool, make_request, published_bytes, expected, tmp_path):
    """The client's half: our options, the start of the job server, submission, metrics."""
    jar, java = tmp_path / 'job-server.jar', tmp_path / 'java'
    jar.touch()
    java.write_text(STAND_IN.format(python=sys.executable))
    java.chmod(0o755)
    options = (
        '--flink_master=[local]', '--parallelism=2', f'--flink_job_server_jar={jar}',
        f'--job_server_java_launcher={java}', *pool,
    )  # fmt: skip
    made, counters = published_bytes(('flink', options), make_request(3, 'made'))
    assert (made, counted(counters)) == expected(3)
    words = java.with_name('java.words').read_text().split('\n')
    assert words[:4] == ['-jar', str(jar), '--flink-master', '[local]']


def kill_a_worker(folder, stop):
    """Kills the worker that first notes the recording that it works on."""
    while not stop.wait(0.01):
        for file in folder.glob(f'*{AT_SUFFIX}'):
            time.sleep(0.5)
            os.kill(int(file.stem), signal.SIGKILL)
            return


@pytest.fixture
def killer():
    """A function that kills the first worker of a request, in the middle of its work."""
    stop, threads = threading.Event(), []

    def start(folder):
        threads.append(threading.Thread(target=kill_a_worker, args=(folder, stop)))
        threads[-1].start()
        return threads[-1]

    yield start
    stop.set()
    for thread in threads:
        thread.join()


@pytest.mark.slow
@pytest.mark.parametrize('engine', ['prism', 'flink'], indirect=True)
def test_a_killed_worker_changes_nothing(engine, killer, make_request, published_bytes, expected):
    """Flink restarts its job; Prism's is submitted again. Beam's own job service would wait for ever."""
    wanted = make_request(45, 'made')
    killing = killer(wanted.folder)
    made, _ = published_bytes(engine, wanted)
    assert not killing.is_alive()
    assert made == expected(45)[0]
