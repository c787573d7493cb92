"""Devices to train on: one, several, several machines, a TPU; and how a launcher describes them."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from typing import Any

import keras
import tensorflow as tf

from ddsp.errors import ConfigError
from ddsp.training.meshes import DeviceMesh, get_mesh

STRATEGIES = ('auto', 'default', 'mirrored', 'multi_worker', 'tpu')
_PORT = 12355


def get_strategy(
    tpu: str = '', cluster_config: str | dict = '', strategy: str = 'auto'
) -> tf.distribute.Strategy | DeviceMesh:
    """The distribution strategy for the hardware at hand.

    With `KERAS_BACKEND=jax` it is a `DeviceMesh`, which meets the other processes, too.

    Args:
      tpu: Address of a TPU (`'local'` on a TPU VM); `''`: none. Never run on a TPU by the authors.
      cluster_config: Cluster as in TF_CONFIG, JSON or a dictionary, for several workers; `''`: what the
        launcher says (`cluster_from_environment`) with `strategy='multi_worker'`, else this machine alone.
      strategy: `'auto'` takes what the other arguments and the devices ask for: `'tpu'`, `'multi_worker'`,
        `'mirrored'` over two GPUs or more, or `'default'` (one GPU, or the CPU).

    Returns:
      TPUStrategy, MultiWorkerMirroredStrategy, MirroredStrategy, or the default strategy; on JAX, the mesh of
      all devices of this process, of all processes (`'multi_worker'`), or of one device (`'default'`).

    Raises:
      ConfigError: An unknown strategy, no TPU for `'tpu'`, a `cluster_config` that is not JSON, or no cluster
        for `'multi_worker'`.

    Example:
      >>> get_strategy(strategy='default').num_replicas_in_sync
      1
    """
    if strategy not in STRATEGIES:
        raise ConfigError(f'strategy is {strategy!r}; it must be one of {", ".join(STRATEGIES)}')
    cluster = _parse(cluster_config) if cluster_config else None
    if strategy == 'multi_worker' and not cluster:
        cluster = cluster_from_environment()
        if not cluster:
            raise ConfigError(
                'several workers need to know each other: set TF_CONFIG, or start them by Slurm (srun), a '
                'Kubernetes JobSet, Vertex AI or SkyPilot, which say so in the environment'
            )
    if keras.backend.backend() == 'jax':
        return get_mesh(tpu, cluster, strategy)
    if tpu or strategy == 'tpu':
        return _tpu(tpu or 'local')
    if cluster:
        os.environ['TF_CONFIG'] = json.dumps(cluster)
        return tf.distribute.MultiWorkerMirroredStrategy()
    if strategy == 'mirrored' or (strategy == 'auto' and len(tf.config.list_logical_devices('GPU')) > 1):
        return tf.distribute.MirroredStrategy()
    return tf.distribute.get_strategy()


def _tpu(address: str) -> tf.distribute.Strategy:
    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver(tpu=address)
        tf.config.experimental_connect_to_cluster(resolver)
        tf.tpu.experimental.initialize_tpu_system(resolver)
        return tf.distribute.TPUStrategy(resolver)
    except (tf.errors.OpError, ValueError, OSError) as error:
        raise ConfigError(
            f'no TPU at {address!r} ({str(error).splitlines()[0][:100]}); take another strategy: '
            f'{", ".join(name for name in STRATEGIES if name != "tpu")}'
        ) from error


def _parse(cluster_config: str | dict) -> dict[str, Any]:
    try:
        return json.loads(cluster_config) if isinstance(cluster_config, str) else cluster_config
    except ValueError as error:
        raise ConfigError(f'cluster_config is not JSON: {error}') from None


def cluster_from_environment(environ: Mapping[str, str] | None = None) -> dict[str, Any] | None:
    """The cluster, as in TF_CONFIG, from what a launcher left in the environment.

    Understood are `TF_CONFIG` itself (which Vertex AI sets), Vertex AI's `CLUSTER_SPEC`, Slurm's variables,
    those of an indexed Job in a Kubernetes JobSet (`kubernetes_cluster`), and SkyPilot's.

    Args:
      environ: Variables; those of this process by default.

    Returns:
      `{'cluster': {'worker': ['host:port', ...]}, 'task': {'type': 'worker', 'index': 0}}`, or None where
      there is one process alone.
    """
    environ = os.environ if environ is None else environ
    if environ.get('TF_CONFIG'):
        return _parse(environ['TF_CONFIG'])
    if environ.get('CLUSTER_SPEC'):
        return vertex_cluster(_parse(environ['CLUSTER_SPEC']))
    if int(environ.get('SLURM_NTASKS', environ.get('SLURM_STEP_NUM_TASKS', '1'))) > 1:
        return slurm_cluster(environ)
    if 'JOB_COMPLETION_INDEX' in environ and 'JOBSET_NAME' in environ:
        return kubernetes_cluster(environ)
    if len(environ.get('SKYPILOT_NODE_IPS', '').split()) > 1:
        return skypilot_cluster(environ)
    return None


def slurm_cluster(environ: Mapping[str, str]) -> dict[str, Any]:
    """The cluster of a Slurm step (`srun`): one worker a task, in the order of the nodes.

    Args:
      environ: With SLURM_STEP_NODELIST (or SLURM_JOB_NODELIST), SLURM_STEP_TASKS_PER_NODE (or
        SLURM_TASKS_PER_NODE) and SLURM_PROCID; MASTER_PORT is the port of a node's first worker (12355), the
        next ones follow.

    Example:
      >>> slurm_cluster({
      ...     'SLURM_STEP_NODELIST': 'n[1-2]', 'SLURM_STEP_TASKS_PER_NODE': '1(x2)', 'SLURM_PROCID': '1'
      ... })
      {'cluster': {'worker': ['n1:12355', 'n2:12355']}, 'task': {'type': 'worker', 'index': 1}}
    """
    port = int(environ.get('MASTER_PORT', _PORT))
    hosts = _expand_hosts(_needed(environ, 'SLURM_STEP_NODELIST', 'SLURM_JOB_NODELIST'))
    counts = _expand_counts(_needed(environ, 'SLURM_STEP_TASKS_PER_NODE', 'SLURM_TASKS_PER_NODE'))
    if len(counts) != len(hosts):
        raise ConfigError(f'Slurm names {len(hosts)} nodes but tasks for {len(counts)}')
    workers = [f'{host}:{port + i}' for host, n in zip(hosts, counts, strict=True) for i in range(n)]
    return _cluster(workers, int(_needed(environ, 'SLURM_PROCID')))


def kubernetes_cluster(environ: Mapping[str, str]) -> dict[str, Any]:
    """The cluster of an indexed Job in a JobSet: pods have names by their index.

    The name of a pod is `<jobset>-<replicated job>-<job index>-<pod index>.<subdomain>`, where the subdomain
    is the JobSet's headless service.

    Args:
      environ: With JOBSET_NAME, REPLICATED_JOB_NAME, JOB_INDEX, JOB_COMPLETION_INDEX, WORKERS (pods of the
        job) and optionally SUBDOMAIN (the JobSet's name by default) and MASTER_PORT (12355):
        `ddsp launch kubernetes` sets them.
    """
    port = environ.get('MASTER_PORT', _PORT)
    jobset, job = _needed(environ, 'JOBSET_NAME'), _needed(environ, 'REPLICATED_JOB_NAME')
    n_workers, index = int(_needed(environ, 'WORKERS')), int(_needed(environ, 'JOB_COMPLETION_INDEX'))
    subdomain = environ.get('SUBDOMAIN') or jobset
    prefix = f'{jobset}-{job}-{environ.get("JOB_INDEX", "0")}'
    return _cluster([f'{prefix}-{i}.{subdomain}:{port}' for i in range(n_workers)], index)


def vertex_cluster(spec: Mapping[str, Any]) -> dict[str, Any]:
    """The cluster of a CustomJob of Vertex AI: the chief, which is alone in the first pool, then the workers.

    Args:
      spec: The contents of CLUSTER_SPEC.

    Example:
      >>> vertex_cluster({
      ...     'cluster': {'workerpool0': ['a:2222'], 'workerpool1': ['b:2222', 'c:2222']},
      ...     'task': {'type': 'workerpool1', 'index': 1},
      ... })
      {'cluster': {'worker': ['a:2222', 'b:2222', 'c:2222']}, 'task': {'type': 'worker', 'index': 2}}
    """
    task, pools = spec['task'], spec['cluster']
    workers: list[str] = []
    first = 0
    for pool in sorted(pools):
        if pool == task['type']:
            first = len(workers)
        workers += pools[pool]
    return _cluster(workers, first + int(task['index']))


def skypilot_cluster(environ: Mapping[str, str]) -> dict[str, Any]:
    """The cluster of a task of SkyPilot: one worker a node.

    Args:
      environ: With SKYPILOT_NODE_IPS (one a line), SKYPILOT_NODE_RANK and optionally MASTER_PORT (12355).

    Example:
      >>> skypilot_cluster({'SKYPILOT_NODE_IPS': '10.0.0.1\\n10.0.0.2', 'SKYPILOT_NODE_RANK': '1'})
      {'cluster': {'worker': ['10.0.0.1:12355', '10.0.0.2:12355']}, 'task': {'type': 'worker', 'index': 1}}
    """
    port = environ.get('MASTER_PORT', _PORT)
    workers = [f'{ip}:{port}' for ip in _needed(environ, 'SKYPILOT_NODE_IPS').split()]
    return _cluster(workers, int(_needed(environ, 'SKYPILOT_NODE_RANK')))


def _cluster(workers: list[str], index: int) -> dict[str, Any]:
    if not 0 <= index < len(workers):
        raise ConfigError(f'this worker has the number {index} of {len(workers)} workers, counted from 0')
    return {'cluster': {'worker': workers}, 'task': {'type': 'worker', 'index': index}}


def _needed(environ: Mapping[str, str], *names: str) -> str:
    for name in names:
        if environ.get(name):
            return environ[name]
    raise ConfigError(f'the environment variable {" or ".join(names)} is not set')


def _expand_hosts(text: str) -> list[str]:
    """`'n[1-2,05],gpu'` as n1, n2, n05, gpu."""
    hosts = []
    for match in re.finditer(r'([^,\[]+)(?:\[([^\]]*)\])?([^,]*)', text):
        prefix, numbers, suffix = match.groups()
        if numbers is None:
            hosts.append(prefix + suffix)
            continue
        for part in numbers.split(','):
            low, _, high = part.partition('-')
            for number in range(int(low), int(high or low) + 1):
                hosts.append(f'{prefix}{number:0{len(low)}d}{suffix}')
    return hosts


def _expand_counts(text: str) -> list[int]:
    """`'2(x3),1'` as 2, 2, 2, 1."""
    counts = []
    for part in text.split(','):
        match = re.fullmatch(r'(\d+)(?:\(x(\d+)\))?', part)
        if match is None:
            raise ConfigError(f'Slurm says {text!r} for the tasks of the nodes; expected such as 2(x3),1')
        counts += [int(match.group(1))] * int(match.group(2) or 1)
    return counts
