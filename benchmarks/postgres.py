"""A PostgreSQL cluster of one's own, in a temporary folder on a free port: for tests and benchmarks."""

from __future__ import annotations

import contextlib
import glob
import os
import pathlib
import pwd
import shutil
import socket
import subprocess
import tempfile
import time

_START_S = 60.0


def find_program(name: str) -> str | None:
    """Path of a PostgreSQL program; Debian keeps the server's in folders by version, off the PATH."""
    return shutil.which(name) or max(glob.glob(f'/usr/lib/postgresql/*/bin/{name}'), default=None)


class PostgresCluster:
    """A running cluster with the superuser `ddsp`; use as a context.

    Args:
      passwords: Let other users in by password alone; without it, all are let in.

    Example:
      with PostgresCluster() as cluster:
        study = optuna.create_study(storage=cluster.create_database('sweeps'))
    """

    def __init__(self, passwords: bool = False) -> None:
        self._passwords = passwords
        self._folder = pathlib.Path(tempfile.mkdtemp(prefix='ddsp-postgres-'))
        self._user = _unprivileged_user()
        with socket.socket() as probe:
            probe.bind(('127.0.0.1', 0))
            self.port = probe.getsockname()[1]
        self._process: subprocess.Popen | None = None
        self._databases = 0

    def __enter__(self) -> PostgresCluster:
        try:
            return self._initialise()
        except BaseException:
            self.__exit__()
            raise

    def _initialise(self) -> PostgresCluster:
        if self._user:
            shutil.chown(self._folder, self._user)
        data = self._folder / 'data'
        # Trust is for this machine's loopback alone, on a port that nobody knows, while a test runs.
        initialise = self._program('initdb', '-D', data, '-U', 'ddsp', '--auth=trust', '-E', 'UTF8')
        subprocess.run(initialise, check=True, stdout=subprocess.DEVNULL, cwd='/')
        if self._passwords:
            rules = ('ddsp', 'trust'), ('all', 'scram-sha-256')
            lines = [f'host all {user} 127.0.0.1/32 {method}\n' for user, method in rules]
            (data / 'pg_hba.conf').write_text(''.join(lines))
        self.start()
        return self

    def start(self) -> None:
        """Starts the server on its data, at first and after `stop`; returns when it answers."""
        data = self._folder / 'data'
        serve = self._program('postgres', '-D', data, '-p', self.port, '-h', '127.0.0.1', '-k', self._folder)
        with (self._folder / 'log').open('ab') as log:
            self._process = subprocess.Popen(serve, stdout=log, stderr=log, cwd='/')
        deadline = time.monotonic() + _START_S
        while True:
            with contextlib.suppress(subprocess.CalledProcessError):
                self._execute('SELECT 1')
                return
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f'PostgreSQL did not start:\n{(self._folder / "log").read_text()}')
            time.sleep(0.2)

    def create_database(self, name: str = '') -> str:
        """Makes an empty database; returns its address."""
        self._databases += 1
        name = name or f'test_{self._databases}'
        self._execute(f'CREATE DATABASE {name}')
        return f'postgresql+psycopg://ddsp@127.0.0.1:{self.port}/{name}'

    def create_superuser(self, name: str, password: str) -> None:
        """Makes a user who may do everything."""
        self._execute(f"CREATE ROLE {name} SUPERUSER LOGIN PASSWORD '{password}'")

    def log(self) -> str:
        """All that the server wrote."""
        return (self._folder / 'log').read_text(errors='replace')

    def stop(self, mode: str = 'fast') -> None:
        """Stops the server: `'fast'` ends all connections, `'immediate'` is as a power cut."""
        if self._process is not None and self._process.poll() is None:
            subprocess.run(
                self._program('pg_ctl', 'stop', '-D', self._folder / 'data', '-m', mode),
                check=False, stdout=subprocess.DEVNULL, cwd='/',
            )  # fmt: skip
            self._process.wait(timeout=30)

    def __exit__(self, *_: object) -> None:
        self.stop('immediate')
        shutil.rmtree(self._folder, ignore_errors=True)

    def _program(self, name: str, *arguments: object) -> list[str]:
        """A command line; the server refuses to run as root."""
        path = find_program(name)
        if path is None:
            raise RuntimeError(f'{name} is not installed (package postgresql)')
        change = ['runuser', '-u', self._user, '--'] if self._user else []
        return [*change, path, *map(str, arguments)]

    def _execute(self, statement: str) -> None:
        subprocess.run(
            [find_program('psql') or 'psql', '-h', '127.0.0.1', '-p', str(self.port), '-U', 'ddsp', '-d',
             'postgres', '-qc', statement],
            check=True, capture_output=True,
        )  # fmt: skip


def _unprivileged_user() -> str:
    """Whom to become when this is root; '' otherwise."""
    if os.geteuid() != 0:
        return ''
    known = {entry.pw_name for entry in pwd.getpwall()}
    return 'postgres' if 'postgres' in known else 'nobody'
