"""`python -m experiments.launch.supervisor FOLDER`: runs the processes of a local job, and starts them again.

The workers of a training end and start together; other processes are on their own. What ends with exit status
1 or 2 is a mistake of the user, which a repetition does not mend.
"""

from __future__ import annotations

import fcntl
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time
from types import FrameType

from ddsp.io import files
from experiments.launch.executor import State
from experiments.launch.job import MISTAKES, Job
from experiments.launch.local import DESCRIPTION, LOCK, STATE

_POLL_SECS = 0.2
_GRACE_SECS = 60.0  # to notice that another worker is gone, or to save after SIGTERM


class Group:
    """Processes that start and end together."""

    def __init__(self, job: Job, folder: pathlib.Path, numbers: range) -> None:
        self.job, self.folder, self.numbers = job, folder, numbers
        self.left = job.retries
        self.failed = self.done = False
        self.processes: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        """Starts all of them."""
        ports = free_ports(len(self.numbers)) if self.job.trains_together else []
        command = [sys.executable, '-m', 'experiments.cli', *self.job.command]
        self.processes = []
        for index, number in enumerate(self.numbers):
            environment = {**os.environ, **self.job.env}
            if ports:
                cluster = {'worker': [f'127.0.0.1:{port}' for port in ports]}
                task = {'type': 'worker', 'index': index}
                environment['TF_CONFIG'] = json.dumps({'cluster': cluster, 'task': task})
            with open(self.folder / f'{number}.log', 'ab') as log:
                self.processes.append(
                    subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)
                )

    def check(self) -> None:
        """Looks how the processes do; starts them again when one has failed."""
        codes = [process.poll() for process in self.processes]
        bad = next((code for code in codes if code), 0)
        self.done = not any(code is None for code in codes) and not bad
        if not bad:
            return
        self.end(signal.SIGTERM if bad in MISTAKES else None)
        if bad in MISTAKES or not self.left:
            self.failed = True
            return
        self.left -= 1
        print(f'processes {list(self.numbers)} ended with {codes}; {self.left} retries left', flush=True)
        self.start()

    def end(self, number: int | None) -> None:
        """Waits for the processes' end, after a signal or after some patience with those that still run."""
        if number is None:
            self._wait(_GRACE_SECS)
            number = signal.SIGTERM
        for process in self.processes:
            if process.poll() is None:
                process.send_signal(number)
        self._wait(_GRACE_SECS)
        for process in self.processes:
            if process.poll() is None:
                process.kill()
            process.wait()

    def _wait(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end and any(process.poll() is None for process in self.processes):
            time.sleep(_POLL_SECS)


class _Cancelled(BaseException):
    """SIGTERM."""


def run(folder: pathlib.Path, job: Job) -> State:
    """Runs a job to its end."""
    numbers = [range(job.replicas)] if job.trains_together else [range(i, i + 1) for i in range(job.replicas)]
    groups = [Group(job, folder, each) for each in numbers]
    try:
        for group in groups:
            group.start()
        while True:
            for group in groups:
                if not (group.done or group.failed):
                    group.check()
            if all(group.done or group.failed for group in groups):
                return State.FAILED if any(group.failed for group in groups) else State.DONE
            time.sleep(_POLL_SECS)
    except _Cancelled:
        for group in groups:
            group.end(signal.SIGTERM)
        return State.CANCELLED


def main(folder: pathlib.Path) -> int:
    """Runs the job of a folder, and writes where it stands."""

    def cancel(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise _Cancelled

    described = json.loads((folder / DESCRIPTION).read_text())
    job = Job(**{**described, 'command': tuple(described['command']), 'secrets': tuple(described['secrets'])})
    with open(folder / LOCK, 'ab') as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        signal.signal(signal.SIGTERM, cancel)
        write = {'pid': os.getpid(), 'state': State.RUNNING.value}
        files.write_json(folder / STATE, write)
        state = run(folder, job)
        files.write_json(folder / STATE, {**write, 'state': state.value})
    return 0


def free_ports(count: int) -> list[int]:
    """Ports of the loopback that nobody uses; all are different."""
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(('127.0.0.1', 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


if __name__ == '__main__':
    raise SystemExit(main(pathlib.Path(sys.argv[1])))
