"""The tracking server of `infra/mlflow/compose.yaml` without its containers: for tests and benchmarks.

Commands, environment, SQL and configuration are those of the files. Only what a container would bring
differs: the names of hosts, ports and folders.
"""

from __future__ import annotations

import os
import pathlib
import re
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from typing import Any

import yaml

from benchmarks.postgres import PostgresCluster, find_program
from experiments.tracking import store
from experiments.tracking.ui import free_port

INFRA = pathlib.Path(__file__).resolve().parents[1] / 'infra' / 'mlflow'
SECRETS = (
    'POSTGRES_PASSWORD', 'MLFLOW_DB_PASSWORD', 'SWEEPS_DB_PASSWORD', 'MLFLOW_AUTH_ADMIN_PASSWORD',
    'MLFLOW_FLASK_SERVER_SECRET_KEY',
)  # fmt: skip
_START_SECS = 300.0


def interpolated(value: Any, variables: Mapping[str, str]) -> Any:
    """A part of a compose file with its `${NAME:?}` and `${NAME:-DEFAULT}` filled in."""
    if isinstance(value, dict):
        return {name: interpolated(entry, variables) for name, entry in value.items()}
    if isinstance(value, list):
        return [interpolated(entry, variables) for entry in value]
    if not isinstance(value, str):
        return value

    def fill(match: re.Match[str]) -> str:
        name, kind, default = match.groups()
        if kind == ':-':
            return variables.get(name) or default
        return variables[name]

    return re.sub(r'\$\{(\w+)(?:(:-|:\?)([^}]*))?\}', fill, value)


class TrackingServer:
    """PostgreSQL and MLflow with logins; use as a context.

    Args:
      folder: For artefacts and the server's log.
    """

    def __init__(self, folder: pathlib.Path):
        self.folder = folder
        self.port = free_port(preferred=0)
        self.secrets = {name: secrets.token_hex(12) for name in SECRETS}
        self.cluster = PostgresCluster(passwords=True)
        variables = {**self.secrets, 'MLFLOW_ARTIFACTS': str(folder / 'artifacts')}
        self._services = interpolated(yaml.safe_load((INFRA / 'compose.yaml').read_text()), variables)[
            'services'
        ]
        self._process: subprocess.Popen | None = None

    @property
    def address(self) -> str:
        """Address of the server."""
        return f'http://127.0.0.1:{self.port}'

    def login(self, user: str = 'admin', password: str = '') -> dict[str, str]:
        """The environment of somebody who uses the server."""
        password = password or self.secrets['MLFLOW_AUTH_ADMIN_PASSWORD']
        return {
            'MLFLOW_TRACKING_URI': self.address,
            'MLFLOW_TRACKING_USERNAME': user,
            'MLFLOW_TRACKING_PASSWORD': password,
        }

    def database(self, user: str, name: str) -> str:
        """Address of a database with a user's password."""
        password = self.secrets[f'{user.upper()}_DB_PASSWORD']
        return f'postgresql://{user}:{password}@127.0.0.1:{self.cluster.port}/{name}'

    def __enter__(self) -> TrackingServer:
        self.cluster.__enter__()
        try:
            self.cluster.create_superuser('postgres', self.secrets['POSTGRES_PASSWORD'])
            self.make_databases()
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def make_databases(self) -> None:
        """What the service `databases` does."""
        service = self._services['databases']
        program, *arguments = self._outside(service['command'], service)
        command = [find_program(program) or program, *arguments]
        subprocess.run(command, env=self._environment(service), check=True, capture_output=True, text=True)

    def start(self) -> None:
        """Starts the service `mlflow`, at first and after `kill`; returns when it answers."""
        service = self._services['mlflow']
        program, *arguments = self._outside(service['entrypoint'] + service['command'], service)
        command = [str(pathlib.Path(sys.executable).with_name(program)), *arguments]
        with (self.folder / 'server.log').open('ab') as log:
            self._process = subprocess.Popen(
                command, env=self._environment(service), stdout=log, stderr=subprocess.STDOUT,
                start_new_session=True, cwd=self.folder,
            )  # fmt: skip
        deadline = time.monotonic() + _START_SECS
        while store.server_problem(self.address, timeout=2.0):
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f'MLflow did not start:\n{self.log()[-3000:]}')
            time.sleep(0.3)

    def kill(self) -> None:
        """Ends the server and its workers at once, as a power cut."""
        if self._process is not None and self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def log(self) -> str:
        """All that the server wrote."""
        return (self.folder / 'server.log').read_text(errors='replace')

    def __exit__(self, *_: object) -> None:
        self.kill()
        self.cluster.__exit__()

    def _environment(self, service: Mapping[str, Any]) -> dict[str, str]:
        """A service's environment, and of this machine's only what a program needs to run."""
        given = dict(
            zip(service['environment'], self._outside(service['environment'].values(), service), strict=True)
        )
        here = {name: os.environ[name] for name in ('PATH', 'HOME', 'LANG') if name in os.environ}
        return {**here, **given, 'PGHOST': '127.0.0.1', 'PGPORT': str(self.cluster.port)}

    def _outside(self, words: Any, service: Mapping[str, Any]) -> list[str]:
        """Words of a service as they are without a container: ports, and files that are mounted."""
        mounted = dict(volume.split(':')[1::-1] for volume in service['volumes'] if volume.startswith('./'))
        swapped = {inside: str(INFRA / outside) for inside, outside in mounted.items()}
        swapped['--port=5000'] = f'--port={self.port}'
        return [swapped.get(word, word) for word in words]
