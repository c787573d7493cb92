"""What engines need beside the user's options, and what is said where something is missing."""

import http.server
import json
import os
import pathlib
import socket
import threading

import pytest

from ddsp.errors import ConfigError, DDSPError
from pipelines.beam import portable
from pipelines.beam.sdk import beam

EXTERNAL = '--environment_type=EXTERNAL'


@pytest.fixture
def listener():
    """The address of somebody who listens."""
    with socket.create_server(('127.0.0.1', 0)) as server:
        yield f'127.0.0.1:{server.getsockname()[1]}'


@pytest.fixture
def nobody():
    """An address at which nobody listens."""
    with socket.socket() as server:
        server.bind(('127.0.0.1', 0))
        return f'127.0.0.1:{server.getsockname()[1]}'


@pytest.fixture
def cluster():
    """A Flink cluster as far as its REST interface goes: two task managers with two and three slots."""
    answers = {
        '/overview': {'taskmanagers': 2, 'slots-total': 5, 'flink-version': '1.20.3'},
        '/taskmanagers': {'taskmanagers': [{'slotsNumber': 2}, {'slotsNumber': 3}]},
    }

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps(answers[self.path]).encode())

        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    server.answers = answers
    server.address = f'127.0.0.1:{server.server_port}'
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def jars(monkeypatch, tmp_path):
    """A cache with job servers, and a Java."""
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    folder = portable.jar_folder()
    folder.mkdir(parents=True)
    for engine in ('flink-1.20', 'flink-2.2', 'spark-3'):
        (folder / f'beam-runners-{engine}-job-server-{beam.__version__}.jar').touch()
    java = tmp_path / 'bin' / 'java'
    java.parent.mkdir()
    java.write_text('#!/bin/sh\n')
    java.chmod(0o755)
    monkeypatch.setenv('PATH', str(java.parent), prepend=os.pathsep)
    return folder


def test_a_job_service_on_this_machine_gets_workers_of_this_process(listener):
    assert portable.flags('portable', [f'--job_endpoint={listener}']) == ['--environment_type=LOOPBACK']
    given = [f'--job_endpoint={listener}', EXTERNAL, f'--environment_config={listener}']
    assert portable.flags('portable', given) == []


def test_flink_within_the_job_server_gets_jar_slots_and_retries(jars, monkeypatch):
    monkeypatch.setattr(os, 'sched_getaffinity', lambda pid: {0, 1, 2}, raising=False)
    assert portable.flags('flink', ['--flink_version=1.20']) == [
        '--parallelism=3', '--sdk_worker_parallelism=3',
        f'--flink_job_server_jar={jars}/beam-runners-flink-1.20-job-server-{beam.__version__}.jar',
        '--number_of_execution_retries=3', '--execution_retry_delay=2000',
        '--environment_cache_millis=60000', '--experiments=pre_optimize=all', '--environment_type=LOOPBACK',
    ]  # fmt: skip
    given = ['--parallelism=2', '--number_of_execution_retries=0']
    found = portable.flags('flink', given)
    assert '--sdk_worker_parallelism=2' in found
    assert not [flag for flag in found if flag.startswith(('--parallelism', '--number_of'))]


def test_a_flink_cluster_is_asked_for_its_version_and_slots(jars, cluster):
    given = [f'--flink_master={cluster.address}', EXTERNAL, '--environment_config=localhost:50000']
    found = portable.flags('flink', given)
    assert found[:3] == ['--flink_version=1.20', '--parallelism=5', '--sdk_worker_parallelism=3']
    assert found[3].endswith(f'/beam-runners-flink-1.20-job-server-{beam.__version__}.jar')


def test_spark_gets_its_jar(jars):
    jar = jars / f'beam-runners-spark-3-job-server-{beam.__version__}.jar'
    assert portable.flags('spark', []) == [f'--spark_job_server_jar={jar}', '--environment_type=LOOPBACK']


def test_options_that_only_the_job_server_knows_reach_it():
    options = portable.PipelineOptions(['--number_of_execution_retries=3', '--execution_retry_delay=7'])
    known = options.get_all_options(drop_default=True)
    assert known == {'number_of_execution_retries': 3, 'execution_retry_delay': 7}


def refused(error, message, runner, *given):
    with pytest.raises(error) as caught:
        portable.flags(runner, given)
    assert message in str(caught.value)
    assert '\n' not in str(caught.value)


def test_a_missing_job_service_is_named(nobody):
    refused(ConfigError, 'needs the address of a job service: -- --job_endpoint=localhost:8099', 'portable')
    refused(DDSPError, f'no job service answers at {nobody}', 'portable', f'--job_endpoint={nobody}')
    refused(ConfigError, "--job_endpoint is 'here'; it must be HOST:PORT", 'flink', '--job_endpoint=here')


def test_missing_workers_are_named(listener, nobody):
    pool = f'no worker pool answers at {nobody} (--environment_config). Start it: python -m apache_beam'
    at = f'--job_endpoint={listener}'
    refused(DDSPError, pool, 'portable', at, EXTERNAL, f'--environment_config={nobody}')
    refused(
        DDSPError, pool, 'portable', at, EXTERNAL, f'--environment_option=external_service_address={nobody}'
    )
    refused(ConfigError, 'needs the address of the worker pool', 'portable', at, EXTERNAL)
    refused(ConfigError, 'must be told where Python is', 'portable', at, f'--environment_config={listener}')


def test_a_cluster_elsewhere_needs_workers_of_its_own(jars, cluster):
    refused(ConfigError, 'must be told where Python is', 'flink', f'--flink_master={cluster.address}')


def test_java_and_the_jar_are_named_where_they_are_missing(jars, monkeypatch):
    missing = f'job-server-{beam.__version__}.jar is missing, the job server of Beam {beam.__version__} for'
    command = f'sh infra/flink/get_engines.sh flink 2.1 {beam.__version__}'
    refused(DDSPError, f'{missing} flink 2.1. Fetch it once: {command}', 'flink', '--flink_version=2.1')
    refused(
        DDSPError, 'x.jar (--flink_job_server_jar) does not exist', 'flink', '--flink_job_server_jar=x.jar'
    )
    monkeypatch.setenv('PATH', '')
    refused(DDSPError, "flink needs Java 11 or newer for its job server, and 'java' was not found", 'flink')


def test_the_command_of_the_message_exists():
    root = pathlib.Path(__file__).parents[3]
    assert (root / 'infra' / 'flink' / 'get_engines.sh').is_file()


def test_client_and_cluster_must_have_the_same_version(jars, cluster, nobody):
    at = f'--flink_master={cluster.address}'
    refused(ConfigError, '--flink_version is 2.2 and the cluster', 'flink', at, '--flink_version=2.2')
    jar = jars / f'beam-runners-flink-2.2-job-server-{beam.__version__}.jar'
    refused(ConfigError, 'it must be for flink 1.20 and Beam', 'flink', at, f'--flink_job_server_jar={jar}')
    old = jars / 'beam-runners-flink-1.20-job-server-2.50.0.jar'
    old.touch()
    refused(ConfigError, 'is for flink 1.20 and Beam 2.50.0', 'flink', f'--flink_job_server_jar={old}')
    cluster.answers['/overview']['flink-version'] = '1.9.1'
    refused(ConfigError, f'runs Flink 1.9.1; Beam {beam.__version__} works with 1.', 'flink', at)
    refused(DDSPError, f'no Flink cluster answers at http://{nobody}', 'flink', f'--flink_master={nobody}')


def test_a_cluster_without_task_managers_is_named(jars, cluster):
    cluster.answers['/taskmanagers'] = {'taskmanagers': []}
    refused(DDSPError, 'has no task manager', 'flink', f'--flink_master={cluster.address}')


def test_only_a_job_that_lost_a_worker_runs_again():
    told, errors = [], [RuntimeError('SDK worker disconnected: x'), RuntimeError('send on closed channel')]

    def attempt():
        if errors:
            raise errors.pop()
        return 'done'

    assert portable.run_again(attempt, told.append) == 'done'
    assert told[0] == 'a worker died; the job goes on with what is not finished (2 more times at most)'
    assert len(told) == 2
    errors += [RuntimeError('SDK worker disconnected')] * 9
    with pytest.raises(DDSPError, match='lost a worker 4 times: it was killed, perhaps for want of memory'):
        portable.run_again(attempt)
    assert len(errors) == 5
    errors[:] = [RuntimeError('no space left')] * 2
    with pytest.raises(RuntimeError, match='no space left'):
        portable.run_again(attempt)
    assert len(errors) == 1
