"""Jobs on a Slurm cluster: a script for sbatch, and Slurm's own commands.

submitit was looked at: it pickles a Python function into the job, where ours is a command line; what it would
save is the script below.
"""

from __future__ import annotations

import pathlib
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from typing import ClassVar

from experiments.launch import records, tail
from experiments.launch.executor import Executor, State
from experiments.launch.job import MISTAKES, Job, LaunchError

_DIRECTIVES = ('partition', 'account', 'qos', 'constraint', 'gres', 'nodes', 'reservation')
_SAVE_SECS = 120  # from SIGTERM to the end of the time limit
_STATES = {
    'PENDING': State.WAITING, 'REQUEUED': State.WAITING, 'SUSPENDED': State.WAITING,
    'RUNNING': State.RUNNING, 'COMPLETING': State.RUNNING, 'CONFIGURING': State.WAITING,
    'COMPLETED': State.DONE, 'CANCELLED': State.CANCELLED,
    'FAILED': State.FAILED, 'TIMEOUT': State.FAILED, 'NODE_FAIL': State.FAILED, 'OUT_OF_MEMORY': State.FAILED,
    'BOOT_FAIL': State.FAILED, 'DEADLINE': State.FAILED, 'PREEMPTED': State.WAITING,
}  # fmt: skip


class Slurm(Executor):
    """A Slurm cluster, from a machine that has its commands. A handle is `ID:FOLDER`.

    The working directory, the job's folder and those of the command must be on storage that the nodes share.
    """

    name: ClassVar[str] = 'slurm'
    options: ClassVar[dict[str, str]] = {name: f'#SBATCH --{name}' for name in _DIRECTIVES} | {
        'mount': 'folders that the container sees, as apptainer --bind takes them'
    }

    def describe(self, job: Job) -> str:
        """The script."""
        return script(job, records.job_folder(job.name))

    def submit(self, job: Job) -> str:
        """Gives the script to sbatch, with the variables of this process."""
        folder = records.job_folder(job.name)
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / 'job.sbatch'
        path.write_text(self.describe(job))
        number = _slurm('sbatch', '--parsable', str(path)).strip().partition(';')[0]
        return f'{number}:{folder}'

    def state(self, handle: str) -> State:
        """What squeue, scontrol or the accounting know."""
        number = handle.partition(':')[0]
        for command in (
            ['squeue', '--noheader', '--jobs', number, '--format', '%T'],
            ['scontrol', '--oneliner', 'show', 'job', number],
            ['sacct', '--noheader', '--allocations', '--parsable2', '--jobs', number, '--format', 'State'],
        ):
            try:
                said = _slurm(*command)
            except LaunchError as error:
                if 'Unable to contact' in str(error) or 'is not installed' in str(error):
                    raise
                continue  # it has forgotten the job, or keeps no accounts
            found = re.search(r'(?:JobState=)?\b([A-Z_]{4,})\b', said)
            if found and found[1] in _STATES:
                return _STATES[found[1]]
        return State.UNKNOWN

    def logs(self, handle: str, follow: bool = False) -> Iterator[str]:
        """Lines of the logs of the tasks."""
        folder = pathlib.Path(handle.partition(':')[2])
        yield from tail.lines(
            folder, records.read(folder.name).replicas, follow,
            lambda: not self.state(handle).going_on,
        )  # fmt: skip

    def cancel(self, handle: str) -> None:
        """Lets Slurm end the job: SIGTERM, then SIGKILL."""
        if self.state(handle).going_on:
            _slurm('scancel', handle.partition(':')[0])


def script(job: Job, folder: pathlib.Path) -> str:
    """The script of a job: an allocation in which srun starts the processes, and starts them again.

    The tasks of a training end and start together; others are on their own. After SIGTERM (a preemption, the
    end of the time limit) the job is queued again, and goes on from its last checkpoint.
    """
    quoted = shlex.quote(str(folder))
    settings = {
        'job-name': f'ddsp-{job.name}', 'ntasks': job.replicas, 'cpus-per-task': job.cpus,
        'mem-per-cpu': f'{max(1, job.memory_gb * 1024 // job.cpus)}M',
        'output': f'{folder}/slurm.log', 'open-mode': 'append', 'requeue': '', 'signal': f'TERM@{_SAVE_SECS}',
    }  # fmt: skip
    if job.gpus:
        settings['gpus-per-task'] = f'{job.accelerator}:{job.gpus}' if job.accelerator else job.gpus
    if job.time_limit_minutes:
        settings['time'] = job.time_limit_minutes
    settings |= {name: value for name, value in job.options.items() if name in _DIRECTIVES}
    lines = ['#!/bin/bash', *(f'#SBATCH --{n}{"=" if v != "" else ""}{v}' for n, v in settings.items())]
    lines += [f'export {name}={shlex.quote(value)}' for name, value in job.env.items()]
    command, mistakes = shlex.join(_command(job)), '|'.join(map(str, (0, *MISTAKES)))
    srun = f'srun --open-mode=append --output={quoted}/%t.log'
    if job.trains_together:
        lines += [
            f'for attempt in $(seq 0 {job.retries}); do',
            '  export MASTER_PORT=$((20000 + (SLURM_JOB_ID * 50 + attempt) % 20000))',
            f'  {srun} --kill-on-bad-exit=1 --wait=60 {command}',
            '  code=$?',
            f'  case $code in {mistakes}|143) break;; esac',
            '  echo "attempt $attempt ended with $code"',
            'done',
        ]
    else:
        task = (
            f'for attempt in $(seq 0 {job.retries}); do {command}; code=$?; '
            f'case $code in {mistakes}|143) break;; esac; echo "ended with $code"; done; exit $code'
        )
        lines += [f'{srun} --kill-on-bad-exit=0 bash -c {shlex.quote(task)}', 'code=$?']
    lines += [
        f'if [ $code = 143 ] && [ "${{SLURM_RESTART_COUNT:-0}}" -lt {job.retries} ]; then',
        '  scontrol requeue "$SLURM_JOB_ID"',
        'fi',
        'exit $code',
    ]
    return '\n'.join(lines) + '\n'


def _command(job: Job) -> list[str]:
    if not job.image:
        return [sys.executable, '-m', 'experiments.cli', *job.command]
    mounts = ['--bind', job.options['mount']] if job.options.get('mount') else []
    return ['apptainer', 'exec', *(['--nv'] if job.gpus else []), *mounts, job.image, 'ddsp', *job.command]


def _slurm(*command: str) -> str:
    """Output of one of Slurm's commands."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    except FileNotFoundError:
        raise LaunchError(
            f'{command[0]} is not installed here: run this on a login node of the Slurm cluster'
        ) from None
    except subprocess.TimeoutExpired:
        raise LaunchError(f'{command[0]} gave no answer in 60 s: is slurmctld running?') from None
    if done.returncode:
        said = ' '.join(done.stderr.split())[:300]
        raise LaunchError(f'{command[0]} failed: {said}')
    return done.stdout
