"""The MLflow UI on the store in use: a server that ends with the command, and addresses of its pages."""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import pathlib
import socket
import subprocess
import sys
import tempfile
import time
import urllib.parse
from collections.abc import Sequence
from typing import Any

from experiments import masking
from experiments.tracking import database, store

_START_SECS, _STOP_SECS = 180.0, 10.0
_ENVIRONMENT = {
    'MLFLOW_DISABLE_TELEMETRY': 'true',
    'MLFLOW_SERVER_ENABLE_JOB_EXECUTION': 'false',  # eight more processes, for jobs of language-model agents
}

APP = 'ddsp'  # name of the entry point in the group `mlflow.app`, for `mlflow server --app-name`
# MLflow 3 has two modes and begins in the one for language-model applications; the browser keeps the choice.
_MODE = 'mlflow.workflowType_v1'
_SCRIPT = (
    f"<script>try {{ localStorage.getItem('{_MODE}') || localStorage.setItem('{_MODE}', "
    '\'"machine_learning"\') } catch {}</script>'
)
_LAYOUT = 'workflowType=machine_learning'  # the same in an address


def create_app() -> Any:
    """MLflow's web application; its first page chooses the model-training mode where none was chosen yet."""
    from mlflow.server import app as pages
    from mlflow.server.fastapi_app import app

    page = pathlib.Path(str(pages.static_folder)) / 'index.html'
    if page.exists() and 'serve' in pages.view_functions:
        text = page.read_text(encoding='utf-8').replace('<head>', f'<head>{_SCRIPT}', 1)
        pages.view_functions['serve'] = lambda: text
    return app


class UIServer:
    """An MLflow server over a store that has none, such as the SQLite file; use as a context."""

    def __init__(self, uri: str, host: str = '127.0.0.1', port: int = 0):
        self.host = host
        self.port = port or free_port(host)
        self._uri = uri
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed by __exit__
        self._process: subprocess.Popen | None = None

    @property
    def address(self) -> str:
        """Address of the server."""
        shown = 'localhost' if self.host in ('127.0.0.1', '0.0.0.0', '::') else self.host
        return f'http://{shown}:{self.port}'

    def __enter__(self) -> UIServer:
        store.client(self._uri, use=False)  # creates or migrates the database, or says what is wrong with it
        if not _is_free(self.host, self.port):
            raise store.TrackingError(
                f'port {self.port} of {self.host} is in use by another program. Give another --port; 0 takes '
                'a free one.'
            )
        command = [
            sys.executable, '-m', 'mlflow', 'server', '--host', self.host, '--port', str(self.port),
            '--workers', '1', *_app_options(), *_host_options(self.host, self.port),
        ]  # fmt: skip
        if path := database.sqlite_path(self._uri):  # new runs keep their artefacts beside the database
            command += ['--artifacts-destination', str(path.resolve().parent / 'mlartifacts')]
        # The address by the environment: command lines are for everyone to read, and it may hold a password.
        addresses = {'MLFLOW_TRACKING_URI': self._uri, 'MLFLOW_BACKEND_STORE_URI': self._uri}
        environment = {**os.environ, **_ENVIRONMENT, **addresses}
        self._process = subprocess.Popen(
            command, stdout=self._log, stderr=subprocess.STDOUT, env=environment, start_new_session=True
        )
        return self

    def wait_until_ready(self) -> None:
        """Waits for the server's first answer.

        Raises:
          TrackingError: It ended or did not answer in time; the message holds its last lines.
        """
        assert self._process is not None
        start = time.monotonic()
        here = '127.0.0.1' if self.host in ('0.0.0.0', '::') else self.host  # where it answers from here
        answered = False
        while not answered:
            answered = not store.server_problem(f'http://{here}:{self.port}', timeout=2.0)
            if self._process.poll() is not None or time.monotonic() - start > _START_SECS:
                raise store.TrackingError(
                    f'the MLflow server on port {self.port} did not start:\n{self._tail()}'
                )
            time.sleep(0 if answered else 0.3)

    def wait(self) -> int:
        """Waits until the server ends by itself; returns its exit status."""
        assert self._process is not None
        return self._process.wait()

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._end_group(self._process)
        self._log.close()

    def _end_group(self, process: subprocess.Popen) -> None:
        """Ends the server and its workers, which may go on answering after the server itself has ended."""
        import signal

        deadline = time.monotonic() + _STOP_SECS
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
            while time.monotonic() < deadline:
                process.poll()
                os.killpg(process.pid, 0)  # raises when none of them is left
                time.sleep(0.05)
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def _tail(self) -> str:
        """Last lines that the server wrote."""
        self._log.seek(0)
        return masking.clean('\n'.join(self._log.read().decode(errors='replace').splitlines()[-8:]))


def _app_options() -> list[str]:
    """The application that opens in model-training mode, where the installation has announced it."""
    announced = importlib.metadata.entry_points(group='mlflow.app', name=APP)
    here = f'{__name__}:{create_app.__name__}'  # an older installation may announce another place
    return ['--app-name', APP] if {entry.value for entry in announced} == {here} else []


def _host_options(host: str, port: int) -> list[str]:
    """MLflow answers only to known host names, and pages write only from known addresses; beyond the loopback
    those are this machine's."""
    if host in ('127.0.0.1', 'localhost', '::1'):
        return []
    names = sorted({'localhost', '127.0.0.1', host, socket.gethostname(), socket.getfqdn()})
    hosts = ','.join(f'{name}:*' for name in names)
    origins = ','.join(f'http://{name}:{port}' for name in names)
    return ['--allowed-hosts', hosts, '--cors-allowed-origins', origins]


def free_port(host: str = '127.0.0.1', preferred: int = 5000) -> int:
    """A port that nobody listens on; 5000 when it is free, as MLflow's users expect."""
    for port in (preferred, 0):
        if found := _is_free(host, port):
            return found
    raise store.TrackingError(f'no free port on {host}: is it an address of this machine?')


def _is_free(host: str, port: int) -> int:
    """The port when nobody listens on it (for 0 one that is free), else 0."""
    with socket.socket(socket.AF_INET6 if ':' in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return 0
        return probe.getsockname()[1]


def experiments_address(server: str) -> str:
    """Address of the list of experiments."""
    return f'{server}/#/experiments?{_LAYOUT}'


def charts_address(server: str, experiment_id: str, condition: str = '') -> str:
    """Address of the charts of an experiment's runs, those that match a condition in MLflow's grammar."""
    found = f'&searchFilter={urllib.parse.quote(condition)}' if condition else ''
    return f'{server}/#/experiments/{experiment_id}/runs?{_LAYOUT}&compareRunsMode=CHART{found}'


def run_address(server: str, run: tuple[str, str], artifact: str = '') -> str:
    """Address of a run, given as (experiment id, run id), or of one of its artefacts, which play there."""
    pane = f'/artifacts/{urllib.parse.quote(artifact)}' if artifact else ''
    return f'{server}/#/experiments/{run[0]}/runs/{run[1]}{pane}?{_LAYOUT}'


def comparison_address(server: str, runs: Sequence[tuple[str, str]]) -> str:
    """Address of MLflow's own comparison of runs."""
    experiments, ids = (list(dict.fromkeys(column)) for column in zip(*runs, strict=True))
    query = '&'.join(
        f'{name}={urllib.parse.quote(json.dumps(values))}'
        for name, values in (('runs', ids), ('experiments', experiments))
    )
    return f'{server}/#/compare-runs?{query}&{_LAYOUT}'
