"""Jobs as task files of SkyPilot, which finds machines on many clouds."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from typing import Any, ClassVar

from ddsp.errors import ConfigError, require
from experiments.launch.executor import Executor, State
from experiments.launch.job import Job, LaunchError


class SkyPilot(Executor):
    """Writes task files. SkyPilot is not driven from here: its own commands submit and follow them."""

    name: ClassVar[str] = 'skypilot'
    options: ClassVar[dict[str, str]] = {
        'infra': 'CLOUD[/REGION[/ZONE]], such as gcp/europe-west4; the cheapest that has it by default',
        'mount': 'gs://BUCKET:/path, storage and where it appears; several with commas between',
    }

    def describe(self, job: Job) -> str:
        """The task as YAML."""
        yaml = require('yaml', 'to write a task of SkyPilot')
        return yaml.safe_dump(task(job), sort_keys=False, width=110)

    def submit(self, job: Job) -> str:
        """Says what to type."""
        task(job)
        secrets = ''.join(f' --secret {name}' for name in job.secrets)
        raise LaunchError(
            f'SkyPilot is driven by its own command: write the task by --dry-run >{job.name}.yaml, then run: '
            f'sky jobs launch{secrets} {job.name}.yaml'
        )

    def state(self, handle: str) -> State:
        """Says what to type."""
        raise LaunchError('SkyPilot knows where its jobs stand: sky jobs queue')

    def logs(self, handle: str, follow: bool = False) -> Iterator[str]:
        """Says what to type."""
        raise LaunchError(f'SkyPilot has the logs of its jobs: sky jobs logs --name {handle}')

    def cancel(self, handle: str) -> None:
        """Says what to type."""
        raise LaunchError(f'SkyPilot ends its jobs: sky jobs cancel --name {handle}')


def task(job: Job) -> dict[str, Any]:
    """The task of a job: a node for each process.

    Args:
      job: What is to run.

    Raises:
      ConfigError: No image, GPUs of no kind, or an option that cannot be read.
    """
    if not job.image:
        raise ConfigError('the nodes need an image with ddsp in it: --image=REGISTRY/ddsp:TAG (infra/docker)')
    found: dict[str, Any] = {'name': job.name, 'num_nodes': job.replicas, 'resources': _resources(job)}
    if job.env:
        found['envs'] = {name: str(value) for name, value in job.env.items()}
    if job.secrets:
        found['secrets'] = dict.fromkeys(job.secrets)  # asked for by --secret NAME, never written
    if mounts := _mounts(job.options.get('mount', '')):
        found['file_mounts'] = mounts
    limit = ['timeout', str(60 * job.time_limit_minutes)] if job.time_limit_minutes else []
    # Workers of a training find each other by the variables of SkyPilot (ddsp.training.cluster). The shell is
    # replaced, so that SIGTERM reaches ddsp, which saves.
    found['run'] = 'exec ' + shlex.join([*limit, 'ddsp', *job.command])
    return found


def _resources(job: Job) -> dict[str, Any]:
    found: dict[str, Any] = {'cpus': f'{job.cpus}+', 'memory': f'{job.memory_gb}+'}
    if infra := job.options.get('infra'):
        found['infra'] = infra
    if job.gpus:
        if not job.accelerator:
            raise ConfigError(
                'SkyPilot needs the kind of the GPUs: --accelerator=L4 (sky gpus list shows them)'
            )
        found['accelerators'] = f'{job.accelerator}:{job.gpus}'
    found['use_spot'] = job.spot
    found['image_id'] = f'docker:{job.image}'
    found['job_recovery'] = {'max_restarts_on_errors': job.retries}
    return found


def _mounts(text: str) -> dict[str, Any]:
    """`'gs://bucket:/data'` as file_mounts."""
    found = {}
    for part in filter(None, text.split(',')):
        source, _, path = part.rpartition(':')
        if '://' not in source or not path.startswith('/') or path.startswith('//'):
            raise ConfigError(f'mount is {part!r}; expected gs://BUCKET:/path')
        found[path] = {'source': source, 'mode': 'MOUNT'}
    return found
