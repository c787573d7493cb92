"""What a job service, Flink and Spark need beside the options that the user gave: workers, jars, retries."""

from __future__ import annotations

import json
import os
import pathlib
import re
import shutil
import socket
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from ddsp.errors import ConfigError, DDSPError
from ddsp.io.gcs import cache_folder
from pipelines.beam.sdk import PipelineOptions, beam
from pipelines.options import cores

_RETRIES = 3  # of a job that lost a worker or a task manager
_RETRY_MS = 2000
_KEEP_WORKERS_MS = 60_000  # Flink would end its Python workers after each step and start others
_TIMEOUT_SECS = 5.0
_LOCAL_MASTERS = re.compile(r'\[(local|auto)\]|local(\[.+\])?')
_JAR = re.compile(r'beam-runners-(flink|spark)-([\d.]+)-job-server-([\d.]+)\.jar')
# When a worker died Prism says the first, or the second of a step that is under way; Flink says the third,
# and one of the others when a task manager is gone.
_LOST_WORKER = re.compile(
    'SDK worker disconnected|send on closed channel|CANCELLED: client cancelled|'
    'TaskManager with id .* is no longer reachable|Heartbeat of TaskManager with id .* timed out'
)

Result = TypeVar('Result')


class FlinkRetryOptions(PipelineOptions):
    """Options of Beam's Flink job server that the Python SDK passes on without knowing them."""

    @classmethod
    def _add_argparse_args(cls, parser: Any) -> None:
        parser.add_argument(
            '--number_of_execution_retries', type=int, help='Times that a failed Flink job is restarted.'
        )
        parser.add_argument('--execution_retry_delay', type=int, help='Milliseconds before a restart.')


def flags(runner: str, given: Sequence[str]) -> list[str]:
    """The options that an engine needs beside those given.

    Args:
      runner: `'portable'`, `'flink'` or `'spark'`.
      given: Beam options of the user, such as `['--job_endpoint=localhost:8099']`.

    Raises:
      ConfigError: An option is missing, or client and cluster have different versions.
      DDSPError: Java, the jar of the job server, the job service, the cluster or the worker pool is missing
        or does not answer.
    """
    options = PipelineOptions(list(given))
    endpoint, master = _value(options, 'job_endpoint'), ''
    found = []
    if endpoint and endpoint != 'embed':
        _reach(
            endpoint, '--job_endpoint',
            f'no job service answers at {endpoint} (--job_endpoint). Start it, or correct the address.',
        )  # fmt: skip
    elif runner == 'portable' and not endpoint:
        raise ConfigError(
            'the portable runner needs the address of a job service: -- --job_endpoint=localhost:8099'
        )
    elif runner != 'portable':
        master = _value(options, 'flink_master' if runner == 'flink' else 'spark_master_url')
        found += _flink(options, master, given) if runner == 'flink' else []
        found += _job_server(runner, options, [*given, *found])
    if runner == 'flink':
        found += _unless_given(given, 'number_of_execution_retries', _RETRIES)
        found += _unless_given(given, 'execution_retry_delay', _RETRY_MS)
        found += _unless_given(given, 'environment_cache_millis', _KEEP_WORKERS_MS)
        # The Python SDK joins the steps: Flink's job server fails where a Flatten and another step read one
        # collection (apache/beam issue 34647).
        if not any('pre_optimize=' in word for word in given):
            found.append('--experiments=pre_optimize=all')
    here = _is_here(endpoint) if endpoint else bool(_LOCAL_MASTERS.fullmatch(master))
    return found + _workers(options, here)


def run_again(attempt: Callable[[], Result], tell: Callable[[str], None] = lambda text: None) -> Result:
    """Runs a job, and again where it lost a worker: shards that are finished are not made again.

    Flink and Prism give such a job up. Beam's own job service, which is meant for tests, waits for ever for a
    worker that died, and a job there looks like one with a long recording: neither counters nor states tell
    them apart. Interrupt it and run the same command again.

    Args:
      attempt: Submits the job and waits for its end; raises where it failed.
      tell: Called with what the user should know.

    Raises:
      DDSPError: The job lost a worker each time.
    """
    left = _RETRIES
    while True:
        try:
            return attempt()
        except Exception as error:
            if not _LOST_WORKER.search(f'{error} {error.__cause__}'):
                raise
            if not left:
                raise DDSPError(
                    f'the job lost a worker {_RETRIES + 1} times: it was killed, perhaps for want of memory. '
                    'Give the workers more and run the same command again: shards that are finished are not '
                    'made again.'
                ) from error
            left -= 1
        tell(f'a worker died; the job goes on with what is not finished ({left} more times at most)')


def jar_folder() -> pathlib.Path:
    """Where `infra/flink/get_engines.sh` puts job servers."""
    return cache_folder() / 'beam'


def _workers(options: PipelineOptions, here: bool) -> list[str]:
    """Where Python runs; `here`: the engine does on this machine."""
    kind, config = _value(options, 'environment_type'), _value(options, 'environment_config')
    named = _value(options, 'environment_options') or []
    if not kind:
        if here and not config and not named:
            return ['--environment_type=LOOPBACK']
        raise ConfigError(
            'the workers of the engine must be told where Python is: -- --environment_type=EXTERNAL '
            '--environment_config=localhost:50000 for a worker pool beside each task manager, or '
            '--environment_type=DOCKER --environment_config=IMAGE.'
        )
    if kind == 'EXTERNAL':
        address = config or dict(item.partition('=')[::2] for item in named).get('external_service_address')
        if not address:
            raise ConfigError(
                '--environment_type=EXTERNAL needs the address of the worker pool: '
                '--environment_config=localhost:50000'
            )
        if here and not address.startswith('{'):
            _reach(
                address, '--environment_config',
                f'no worker pool answers at {address} (--environment_config). Start it: python -m '
                f'apache_beam.runners.worker.worker_pool_main --service_port={address.rpartition(":")[2]}',
            )  # fmt: skip
    return []


def _flink(options: PipelineOptions, master: str, given: Sequence[str]) -> list[str]:
    """Version and slots of a cluster; slots for one that starts within the job server."""
    if _LOCAL_MASTERS.fullmatch(master):
        wanted = _value(options, 'parallelism')
        slots = wanted if wanted > 0 else cores()
        found = _unless_given(given, 'parallelism', slots)
        return found + _unless_given(given, 'sdk_worker_parallelism', slots)
    url = master if '://' in master else f'http://{master}'
    overview = _ask(f'{url}/overview')
    version = '.'.join(overview['flink-version'].split('.')[:2])
    known = beam.options.pipeline_options.FlinkRunnerOptions.PUBLISHED_FLINK_VERSIONS
    if version not in known:
        raise ConfigError(
            f'the cluster at {url} runs Flink {overview["flink-version"]}; Beam {beam.__version__} works '
            f'with {", ".join(known)}.'
        )
    asked = _value(options, 'flink_version')
    if _is_given(given, 'flink_version') and asked != version:
        raise ConfigError(
            f'--flink_version is {asked} and the cluster at {url} runs {overview["flink-version"]}: they '
            f'must be equal. Leave the option out, or give --flink_version={version}.'
        )
    managers = _ask(f'{url}/taskmanagers')['taskmanagers']
    slots = max((manager['slotsNumber'] for manager in managers), default=0)
    if not slots:
        raise DDSPError(f'the Flink cluster at {url} has no task manager. Start one and try again.')
    return [
        *_unless_given(given, 'flink_version', version),
        *_unless_given(given, 'parallelism', overview['slots-total']),
        *_unless_given(given, 'sdk_worker_parallelism', slots),  # one process for each slot of a task manager
    ]


def _job_server(runner: str, options: PipelineOptions, known: Sequence[str]) -> list[str]:
    """The jar that translates Beam's graph for the engine, and Java for it."""
    launcher = _value(options, 'job_server_java_launcher')
    if shutil.which(launcher) is None:
        raise DDSPError(
            f'{runner} needs Java 11 or newer for its job server, and {launcher!r} was not found. Install it '
            '(Debian: openjdk-17-jre-headless), or name it by --job_server_java_launcher, or name a job '
            'server that runs already by --job_endpoint.'
        )
    option = f'{runner}_job_server_jar'
    asked = _of(known, f'{runner}_version')
    version = asked or _value(options, f'{runner}_version')
    jar = _value(options, option)
    if not jar:
        path = jar_folder() / f'beam-runners-{runner}-{version}-job-server-{beam.__version__}.jar'
        if not path.exists():
            raise DDSPError(
                f'{path} is missing, the job server of Beam {beam.__version__} for {runner} {version}. '
                f'Fetch it once: sh infra/flink/get_engines.sh {runner} {version} {beam.__version__}; or '
                f'name it by --{option}.'
            )
        return [f'--{option}={path}']
    if '://' not in jar and not os.path.exists(jar):
        raise DDSPError(f'{jar} (--{option}) does not exist.')
    named = _JAR.search(jar)
    if named and named.groups() != (runner, asked or named[2], beam.__version__):
        raise ConfigError(
            f'{jar} (--{option}) is for {named[1]} {named[2]} and Beam {named[3]}; it must be for {runner} '
            f'{asked or named[2]} and Beam {beam.__version__}.'
        )
    return []


def _ask(url: str) -> dict[str, Any]:
    """What the REST interface of a Flink cluster says."""
    try:
        with urllib.request.urlopen(url, timeout=_TIMEOUT_SECS) as answer:
            found: dict[str, Any] = json.load(answer)
            return found
    except (OSError, ValueError) as error:
        reason = getattr(error, 'reason', error)
        raise DDSPError(
            f'no Flink cluster answers at {url} ({reason}): correct --flink_master, or start the cluster.'
        ) from error


def _reach(address: str, option: str, otherwise: str) -> None:
    """Raises where nobody listens."""
    host, _, port = address.rpartition(':')
    if not host or not port.isdigit():
        raise ConfigError(f'{option} is {address!r}; it must be HOST:PORT, such as localhost:50000.')
    try:
        socket.create_connection((host.strip('[]'), int(port)), _TIMEOUT_SECS).close()
    except OSError as error:
        raise DDSPError(otherwise) from error


def _is_here(endpoint: str) -> bool:
    host = endpoint.rpartition(':')[0].strip('[]')
    return endpoint == 'embed' or host in ('localhost', '::1') or host.startswith('127.')


def _value(options: PipelineOptions, name: str) -> Any:
    return options.get_all_options()[name]


def _is_given(given: Sequence[str], name: str) -> bool:
    return any(word.partition('=')[0] == f'--{name}' for word in given)


def _unless_given(given: Sequence[str], name: str, value: object) -> list[str]:
    return [] if _is_given(given, name) else [f'--{name}={value}']


def _of(found: Sequence[str], name: str) -> str:
    """The value of an option among those found."""
    return next((word.partition('=')[2] for word in found if word.startswith(f'--{name}=')), '')
