"""Jobs as processes of this machine, watched by one that starts them again."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import os
import pathlib
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import ClassVar

from ddsp.errors import ConfigError
from ddsp.io import files
from experiments.launch import records, tail
from experiments.launch.executor import Executor, State
from experiments.launch.job import Job, LaunchError

DESCRIPTION, STATE, LOCK = 'local.json', 'state.json', '.lock'
_START_SECS, _END_SECS = 30.0, 120.0


class Local(Executor):
    """This machine. A handle is the folder of the job."""

    name: ClassVar[str] = 'local'

    def describe(self, job: Job) -> str:
        """The command of each process, as a shell would take it."""
        words = ['ddsp', *job.command]
        lines = [f'# {job.replicas} processes on this machine, started again up to {job.retries} times']
        lines += [f'export {name}={shlex.quote(value)}' for name, value in job.env.items()]
        return '\n'.join([*lines, *[f'{shlex.join(words)} &'] * job.replicas]) + '\n'

    def submit(self, job: Job) -> str:
        """Starts the process that watches the others."""
        for name in job.secrets:
            if name not in os.environ:
                raise ConfigError(f'--secret {name}: the variable {name} is not set here')
        folder = records.job_folder(job.name)
        folder.mkdir(parents=True, exist_ok=True)
        files.write_json(folder / DESCRIPTION, dataclasses.asdict(job))
        with open(folder / 'supervisor.log', 'wb') as log:
            process = subprocess.Popen(
                [sys.executable, '-m', 'experiments.launch.supervisor', str(folder)],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        end = time.monotonic() + _START_SECS
        while not (folder / STATE).exists():
            if process.poll() is not None or time.monotonic() > end:
                raise LaunchError(f'the job did not start; see {folder / "supervisor.log"}')
            time.sleep(0.05)
        return str(folder)

    def state(self, handle: str) -> State:
        """What the watching process has written, if it lives."""
        folder = pathlib.Path(handle)
        found = _state_file(folder)
        if not found:
            return State.UNKNOWN
        state = State(found['state'])
        if state.ended or _is_watched(folder):
            return state
        found = _state_file(folder)  # it may have ended meanwhile
        return State(found['state']) if State(found['state']).ended else State.FAILED

    def logs(self, handle: str, follow: bool = False) -> Iterator[str]:
        """Lines of the logs."""
        folder = pathlib.Path(handle)
        replicas = json.loads((folder / DESCRIPTION).read_text())['replicas']
        yield from tail.lines(folder, replicas, follow, lambda: not self.state(handle).going_on)

    def cancel(self, handle: str) -> None:
        """Lets the processes save and end; after two minutes they are killed."""
        folder = pathlib.Path(handle)
        if not self.state(handle).going_on:
            return
        watching = _state_file(folder)['pid']
        with contextlib.suppress(ProcessLookupError):
            os.kill(watching, signal.SIGTERM)
        end = time.monotonic() + _END_SECS
        while _is_watched(folder):
            if time.monotonic() > end:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(watching, signal.SIGKILL)
                raise LaunchError(f'the processes of {folder.name} did not end and were killed')
            time.sleep(0.1)


def _state_file(folder: pathlib.Path) -> dict:
    try:
        found: dict = json.loads((folder / STATE).read_text())
        return found
    except FileNotFoundError:
        return {}


def _is_watched(folder: pathlib.Path) -> bool:
    """Whether the watching process lives: it holds a lock."""
    with open(folder / LOCK, 'ab') as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False
