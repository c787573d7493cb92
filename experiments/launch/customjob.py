"""A job as CustomJobs of Vertex AI."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterator
from typing import Any

from ddsp.errors import ConfigError
from experiments.launch.job import Job

OPTIONS = {
    'project': 'project; that of the credentials by default',
    'region': 'region, such as europe-west4; needed',
    'machine_type': 'machine; the smallest with enough cores, memory and accelerators by default',
    'service_account': 'service account of the workload',
    'network': 'projects/NUMBER/global/networks/NAME, a peered network',
    'output': 'gs://BUCKET/FOLDER, the base output directory',
    'flex_start_minutes': 'waits in the queue for accelerators (Dynamic Workload Scheduler); 0: for ever',
}
ACCELERATORS = (
    'NVIDIA_TESLA_P100', 'NVIDIA_TESLA_V100', 'NVIDIA_TESLA_P4', 'NVIDIA_TESLA_T4', 'NVIDIA_TESLA_A100',
    'NVIDIA_A100_80GB', 'NVIDIA_L4', 'NVIDIA_H100_80GB', 'NVIDIA_H100_MEGA_80GB', 'NVIDIA_H200_141GB',
    'NVIDIA_B200', 'NVIDIA_GB200', 'NVIDIA_RTX_PRO_6000',
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class _Machine:
    name: str
    cpus: int
    memory_gb: float
    gpus: int = 0


def custom_jobs(job: Job) -> list[dict[str, Any]]:
    """The CustomJobs of a job: one with a chief and workers for a training, else one for each process.

    Workers that are independent are jobs of their own, because a CustomJob ends with its chief.

    Args:
      job: What is to run.

    Raises:
      ConfigError: Something that Vertex AI does not have: secrets, a machine, an accelerator.
    """
    if not job.image:
        raise ConfigError(
            'Vertex AI needs an image with ddsp in it: --image=REGION-docker.pkg.dev/PROJECT/...'
        )
    if job.secrets:
        raise ConfigError(
            f'a CustomJob has no place for the secret {job.secrets[0]}: whoever may see the job may read its '
            'variables. Let the image fetch it from Secret Manager when it starts, by the service account of '
            'the workload (--set service_account=), or run on Kubernetes, which keeps Secrets'
        )
    if job.trains_together or job.replicas == 1:
        return [_custom_job(job, job.name, job.replicas)]
    return [_custom_job(job, f'{job.name}-{i}', 1) for i in range(job.replicas)]


def _custom_job(job: Job, name: str, replicas: int) -> dict[str, Any]:
    pool = {
        'machineSpec': _machine_spec(job),
        'containerSpec': {
            'imageUri': job.image,
            'command': ['ddsp', *job.command],
            'env': [{'name': key, 'value': str(value)} for key, value in job.env.items()],
        },
    }
    spec: dict[str, Any] = {
        'workerPoolSpecs': [pool | {'replicaCount': count} for count in (1, replicas - 1) if count],
        'scheduling': _scheduling(job),
    }
    for option, field in (('service_account', 'serviceAccount'), ('network', 'network')):
        if value := job.options.get(option):
            spec[field] = value
    if output := job.options.get('output'):
        if not output.startswith('gs://'):
            raise ConfigError(f'output is {output!r}; expected gs://BUCKET/FOLDER')
        spec['baseOutputDirectory'] = {'outputUriPrefix': output}
    labels = {'application': 'ddsp', 'ddsp-job': job.name}
    return {'displayName': name, 'labels': labels, 'jobSpec': spec}


def _scheduling(job: Job) -> dict[str, Any]:
    flex = job.options.get('flex_start_minutes')
    if flex is not None and (job.spot or not flex.isdigit()):
        raise ConfigError(
            'flex_start_minutes and --spot exclude each other'
            if job.spot
            else f'flex_start_minutes is {flex!r}; expected minutes, such as 60, or 0'
        )
    found: dict[str, Any] = {'strategy': 'SPOT' if job.spot else 'STANDARD'}
    if flex is not None:
        found = {'strategy': 'FLEX_START', 'maxWaitDuration': f'{60 * int(flex)}s'}
    # How often is the service's choice; whether, and whether all workers start again, is ours.
    found['disableRetries'] = job.retries == 0
    found['restartJobOnWorkerRestart'] = job.trains_together and job.retries > 0
    if job.time_limit_minutes:
        found['timeout'] = f'{60 * job.time_limit_minutes}s'
    return found


def _machine_spec(job: Job) -> dict[str, Any]:
    kind = _accelerator(job)
    machine = job.options.get('machine_type') or _smallest(job, kind)
    accelerators = {'acceleratorType': kind, 'acceleratorCount': job.gpus} if kind else {}
    return {'machineType': machine, **accelerators}


def _accelerator(job: Job) -> str:
    """The accelerator in Vertex AI's words, such as NVIDIA_L4 for nvidia-l4; '' for none."""
    if not job.gpus:
        return ''
    kind = job.accelerator.upper().replace('-', '_')
    if kind in ACCELERATORS:
        return kind
    near = difflib.get_close_matches(kind, ACCELERATORS, 1)
    hint = f'did you mean {near[0]}?' if near else f'it must be one of {", ".join(ACCELERATORS)}'
    raise ConfigError(f'the accelerator is {job.accelerator!r}; {hint} (--accelerator)')


def _smallest(job: Job, kind: str) -> str:
    """The smallest machine that has what a process needs."""
    fitting = [
        machine
        for machine in _machines(kind)
        if machine.gpus == job.gpus and machine.cpus >= job.cpus and machine.memory_gb >= job.memory_gb
    ]
    if not fitting:
        wanted = f'{job.cpus} cores, {job.memory_gb} GB' + (f' and {job.gpus} {kind}' if kind else '')
        raise ConfigError(f'no machine with {wanted} is known here; name one with --set machine_type=')
    return min(fitting, key=lambda machine: (machine.cpus, machine.memory_gb)).name


def _machines(kind: str) -> Iterator[_Machine]:
    """Machines that carry an accelerator (with how many), or none."""
    if kind == 'NVIDIA_L4':
        for cpus, gpus in ((4, 1), (8, 1), (12, 1), (16, 1), (24, 2), (32, 1), (48, 4), (96, 8)):
            yield _Machine(f'g2-standard-{cpus}', cpus, 4 * cpus, gpus)
    elif kind in ('NVIDIA_TESLA_A100', 'NVIDIA_A100_80GB'):
        family, memory = ('a2-highgpu', 85) if kind == 'NVIDIA_TESLA_A100' else ('a2-ultragpu', 170)
        for gpus in (1, 2, 4, 8):
            yield _Machine(f'{family}-{gpus}g', 12 * gpus, memory * gpus, gpus)
    elif kind == 'NVIDIA_H100_80GB':
        for gpus in (1, 2, 4, 8):
            yield _Machine(f'a3-highgpu-{gpus}g', 26 * gpus, 234 * gpus, gpus)
    elif kind.startswith('NVIDIA_TESLA'):
        for cpus in (4, 8, 16, 32):
            for family, gb in (('standard', 3.75), ('highmem', 6.5)):
                for gpus in (1, 2, 4):
                    yield _Machine(f'n1-{family}-{cpus}', cpus, gb * cpus, gpus)
    elif not kind:
        for cpus in (4, 8, 16, 32, 48, 64, 80):
            for family, memory in (('highcpu', 1), ('standard', 4), ('highmem', 8)):
                yield _Machine(f'n2-{family}-{cpus}', cpus, memory * cpus)
