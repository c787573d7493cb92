"""A job as a JobSet of Kubernetes (jobset.x-k8s.io)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from ddsp.errors import ConfigError
from experiments.launch.job import MISTAKES, Job

API, KIND = 'jobset.x-k8s.io/v1alpha2', 'JobSet'
CONTAINER = 'ddsp'
OPTIONS = {
    'namespace': "namespace; that of kubeconfig's context by default",
    'context': 'context of kubeconfig; the current one by default',
    'service_account': 'service account of the pods',
    'volume': 'CLAIM:/path, a persistent volume claim and where it appears; several with commas between',
    'secret': 'the Secret that holds the values of --secret, by the same names',
    'queue': 'local queue of Kueue',
    'tpu_topology': "such as 2x4: the accelerators are TPU chips, and a pod has one host's",
    'node_selector': 'LABEL=VALUE that nodes must have; several with commas between',
}
_PORT = 12355
# A process has this long to save its checkpoint after SIGTERM.
_GRACE_SECONDS = 60
_LABEL = 'jobset.sigs.k8s.io'


def jobset(job: Job) -> dict[str, Any]:
    """The JobSet of a job: one indexed Job, a pod for each process.

    The pods of a training are started again together, at most `job.retries` times. Other pods are
    independent: each is started again alone. Exit status 1 and 2 (a mistake of the user) end the whole.

    Args:
      job: What is to run.

    Raises:
      ConfigError: No image, or an option that cannot be read.
    """
    if not job.image:
        raise ConfigError('a pod needs an image with ddsp in it: --image=REGISTRY/ddsp:TAG (infra/docker)')
    labels = {'app.kubernetes.io/name': 'ddsp', 'app.kubernetes.io/managed-by': 'ddsp-launch'}
    queue = {'kueue.x-k8s.io/queue-name': job.options['queue']} if job.options.get('queue') else {}
    metadata: dict[str, Any] = {'name': job.name, 'labels': labels | queue}
    if namespace := job.options.get('namespace'):
        metadata['namespace'] = namespace
    return {
        'apiVersion': API,
        'kind': KIND,
        'metadata': metadata,
        'spec': {
            'network': {'enableDNSHostnames': True},
            'failurePolicy': {
                'maxRestarts': job.retries if job.trains_together else 0,
                'rules': [
                    {
                        'name': 'not_mended_by_a_restart',
                        'action': 'FailJobSet',
                        'onJobFailureReasons': ['PodFailurePolicy', 'DeadlineExceeded'],
                    }
                ],
            },
            'replicatedJobs': [
                {'name': 'worker', 'replicas': 1, 'template': {'spec': _indexed_job(job, labels)}}
            ],
        },
    }


def _indexed_job(job: Job, labels: dict[str, str]) -> dict[str, Any]:
    rules: list[dict[str, Any]] = [
        {
            'action': 'FailJob',
            'onExitCodes': {'containerName': CONTAINER, 'operator': 'In', 'values': list(MISTAKES)},
        }
    ]
    if job.trains_together:
        again: dict[str, Any] = {'backoffLimit': 0}  # the JobSet starts all of them again
    else:
        again = {'backoffLimitPerIndex': job.retries}
        # A machine that is taken away is no failure of the worker.
        rules.append(
            {'action': 'Ignore', 'onPodConditions': [{'type': 'DisruptionTarget', 'status': 'True'}]}
        )
    if job.time_limit_minutes:
        again['activeDeadlineSeconds'] = 60 * job.time_limit_minutes
    return {
        'completionMode': 'Indexed',
        'completions': job.replicas,
        'parallelism': job.replicas,
        **again,
        'podFailurePolicy': {'rules': rules},
        'template': {'metadata': {'labels': labels}, 'spec': _pod(job)},
    }


def _pod(job: Job) -> dict[str, Any]:
    spec: dict[str, Any] = {
        'restartPolicy': 'Never',
        'terminationGracePeriodSeconds': _GRACE_SECONDS,
        'automountServiceAccountToken': False,
        'securityContext': {
            'runAsNonRoot': True,
            'fsGroup': 1000,  # the user of infra/docker/Dockerfile can write to volumes
            'seccompProfile': {'type': 'RuntimeDefault'},
        },
    }
    if account := job.options.get('service_account'):
        spec['serviceAccountName'] = account
    selector, tolerations = _nodes(job)
    if selector:
        spec['nodeSelector'] = selector
    if tolerations:
        spec['tolerations'] = tolerations
    claims = _volumes(job.options.get('volume', ''))
    spec['containers'] = [_container(job, [path for _, path in claims])]
    if claims:
        spec['volumes'] = [
            {'name': f'volume-{i}', 'persistentVolumeClaim': {'claimName': claim}}
            for i, (claim, _) in enumerate(claims)
        ]
    return spec


def _container(job: Job, paths: Iterable[str]) -> dict[str, Any]:
    requests = {'cpu': str(job.cpus), 'memory': f'{job.memory_gb}Gi'}
    limits = {'memory': requests['memory']}
    if job.gpus:
        limits[_device(job)] = str(job.gpus)
    container: dict[str, Any] = {
        'name': CONTAINER,
        'image': job.image,
        'command': ['ddsp', *job.command],
        'env': _environment(job),
        'resources': {'requests': requests, 'limits': limits},
        'securityContext': {'allowPrivilegeEscalation': False, 'capabilities': {'drop': ['ALL']}},
    }
    if job.trains_together:
        container['ports'] = [{'containerPort': _PORT}]
    mounts = [{'name': f'volume-{i}', 'mountPath': path} for i, path in enumerate(paths)]
    if mounts:
        container['volumeMounts'] = mounts
    return {key: value for key, value in container.items() if value}


def _environment(job: Job) -> list[dict[str, Any]]:
    """Variables of the job, secrets by reference, and what `ddsp.training.cluster` makes TF_CONFIG of."""
    found: list[dict[str, Any]] = [{'name': name, 'value': str(value)} for name, value in job.env.items()]
    if job.secrets and not job.options.get('secret'):
        raise ConfigError(
            f'the values of {", ".join(job.secrets)} come from a Secret: --set secret=NAME (kubectl create '
            f'secret generic NAME --from-literal={job.secrets[0]}=...)'
        )
    for name in job.secrets:
        reference = {'name': job.options['secret'], 'key': name}
        found.append({'name': name, 'valueFrom': {'secretKeyRef': reference}})
    if job.trains_together:
        found.append({'name': 'WORKERS', 'value': str(job.replicas)})
        for name, label in (
            ('JOBSET_NAME', 'jobset-name'), ('REPLICATED_JOB_NAME', 'replicatedjob-name'),
            ('JOB_INDEX', 'job-index'),
        ):  # fmt: skip
            field = {'fieldPath': f"metadata.labels['{_LABEL}/{label}']"}
            found.append({'name': name, 'valueFrom': {'fieldRef': field}})
    return found


def _device(job: Job) -> str:
    return 'google.com/tpu' if job.options.get('tpu_topology') else 'nvidia.com/gpu'


def _nodes(job: Job) -> tuple[dict[str, str], list[dict[str, str]]]:
    """Which nodes: labels and taints as Google's clusters have them, and labels that were given."""
    selector: dict[str, str] = {}
    tolerations = []
    topology = job.options.get('tpu_topology')
    if topology and not (job.gpus and job.accelerator):
        raise ConfigError(
            'tpu_topology needs the chips of a host and their kind: --gpus=4 '
            '--accelerator=tpu-v5-lite-podslice'
        )
    if job.gpus:
        tolerations.append({'key': _device(job), 'operator': 'Exists', 'effect': 'NoSchedule'})
    if job.accelerator:
        kind = 'cloud.google.com/gke-tpu-accelerator' if topology else 'cloud.google.com/gke-accelerator'
        selector[kind] = job.accelerator
    if topology:
        selector['cloud.google.com/gke-tpu-topology'] = topology
    if job.spot:
        spot = 'cloud.google.com/gke-spot'
        selector[spot] = 'true'
        tolerations.append({'key': spot, 'operator': 'Equal', 'value': 'true', 'effect': 'NoSchedule'})
    for pair in filter(None, job.options.get('node_selector', '').split(',')):
        label, equals, value = pair.partition('=')
        if not (label and equals):
            raise ConfigError(f'node_selector is {pair!r}; expected LABEL=VALUE')
        selector[label] = value
    return selector, tolerations


def _volumes(text: str) -> list[tuple[str, str]]:
    """`'claim:/data,other:/models'` as pairs."""
    found = []
    for part in filter(None, text.split(',')):
        match = re.fullmatch(r'([a-z0-9]([a-z0-9.-]*[a-z0-9])?):(/[^:]+)', part)
        if match is None:
            raise ConfigError(f'volume is {part!r}; expected CLAIM:/path, such as ddsp-data:/data')
        found.append((match[1], match[3]))
    return found
