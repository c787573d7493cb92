"""Jobs on the real control plane of Kubernetes with JobSet, which infra/kubernetes/control_plane.py runs.

There are no nodes: the tests write how the pods end, and the real controllers decide what follows.
"""

import contextlib
import importlib.util
import os
import pathlib
import time

import pytest

from experiments.launch.executor import State
from experiments.launch.job import Job, LaunchError
from experiments.launch.kubernetes import Kubernetes

pytestmark = pytest.mark.slow
FOLDER = pathlib.Path(__file__).parent
TRAIN, SWEEP = ('train', '/data/violin'), ('sweep', 'worker', '/data/sweeps/violin')


@pytest.fixture
def cluster(monkeypatch):
    kubeconfig = os.environ.get('DDSP_TEST_KUBECONFIG')
    if not kubeconfig:
        pytest.skip(
            'DDSP_TEST_KUBECONFIG names no control plane of Kubernetes (infra/kubernetes/control_plane.py)'
        )
    from kubernetes import client, config

    monkeypatch.setenv('KUBECONFIG', kubeconfig)
    config.load_kube_config(kubeconfig)
    return Cluster(client)


class Cluster:
    """The pods of a JobSet, and what a node would say of them."""

    def __init__(self, client):
        self.core, self.batch, self.objects = (
            client.CoreV1Api(),
            client.BatchV1Api(),
            client.CustomObjectsApi(),
        )
        self.error = client.ApiException

    def pods(self, name):
        """Names by index, of those that have not ended."""
        found = self.core.list_namespaced_pod(
            'default', label_selector=f'jobset.sigs.k8s.io/jobset-name={name}'
        ).items
        return {
            int(pod.metadata.labels['batch.kubernetes.io/job-completion-index']): pod.metadata.name
            for pod in found
            if pod.status.phase in ('Pending', 'Running') and not pod.metadata.deletion_timestamp
        }

    def end(self, name, index, code, condition=None):
        """A pod has ended with an exit status."""
        ended = {'exitCode': code, 'reason': 'Error' if code else 'Completed'}
        status = {
            'phase': 'Failed' if code else 'Succeeded',
            'containerStatuses': [
                {
                    'name': 'ddsp', 'image': 'i', 'imageID': '', 'ready': False, 'restartCount': 0,
                    'state': {'terminated': ended},
                }
            ],
        }  # fmt: skip
        if condition:
            now = time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())
            status['conditions'] = [{'type': condition, 'status': 'True', 'lastTransitionTime': now}]
        self.core.patch_namespaced_pod_status(self.pods(name)[index], 'default', {'status': status})


def until(condition, what):
    for _ in range(300):
        if condition():
            return
        time.sleep(0.2)
    pytest.fail(f'a minute later: not {what}')


@pytest.fixture
def submitted(cluster):
    """Submits jobs of two processes and removes them after the test."""
    engine, names = Kubernetes(), []

    def submit(command, **settings):
        name = f'test-{time.time_ns() % 10**9}'
        names.append(name)
        handle = engine.submit(Job(name=name, command=command, image='i:1', replicas=2, **settings))
        until(lambda: len(cluster.pods(name)) == 2, 'two pods')
        return engine, handle, name

    yield submit
    for name in names:
        with contextlib.suppress(cluster.error):  # the test has removed it
            cluster.objects.delete_namespaced_custom_object(
                'jobset.x-k8s.io', 'v1alpha2', 'default', 'jobsets', name
            )


def test_workers_of_a_training_start_again_together(cluster, submitted):
    engine, handle, name = submitted(TRAIN, retries=1)
    assert engine.state(handle) is State.WAITING
    before = set(cluster.pods(name).values())
    cluster.end(name, 0, 75)
    until(lambda: len(set(cluster.pods(name).values()) - before) == 2, 'two new pods')
    cluster.end(name, 1, 143)
    until(lambda: engine.state(handle) is State.FAILED, 'failed, as one restart was allowed')


def test_workers_of_a_sweep_start_again_alone(cluster, submitted):
    engine, handle, name = submitted(SWEEP, retries=1)
    before = cluster.pods(name)
    cluster.end(name, 0, 137)
    until(lambda: cluster.pods(name).get(0) not in (None, before[0]), 'a new pod')
    assert cluster.pods(name)[1] == before[1]
    cluster.end(name, 1, 143, condition='DisruptionTarget')  # is not counted
    until(lambda: cluster.pods(name).get(1) not in (None, before[1]), 'a new pod')
    assert list(engine.logs(handle)) == [
        '[0] (ended with exit status 137, Error)', '[1] (ended with exit status 143, Error)'
    ]  # fmt: skip
    for index in (0, 1):
        cluster.end(name, index, 0)
    until(lambda: engine.state(handle) is State.DONE, 'done')
    engine.cancel(handle)
    assert engine.state(handle) is State.DONE


@pytest.mark.parametrize('command', [TRAIN, SWEEP])
@pytest.mark.parametrize('code', [1, 2])
def test_a_mistake_of_the_user_ends_it(cluster, submitted, command, code):
    engine, handle, name = submitted(command, retries=5)
    cluster.end(name, 1, code)
    until(lambda: engine.state(handle) is State.FAILED, 'failed')


def test_a_job_is_cancelled_and_a_name_taken_once(cluster, submitted):
    engine, handle, name = submitted(TRAIN)
    with pytest.raises(LaunchError, match=f'JobSet {name} in namespace default exists already'):
        engine.submit(Job(name=name, command=TRAIN, image='i:1'))
    engine.cancel(handle)
    until(lambda: not cluster.pods(name), 'no pods')
    assert engine.state(handle) is State.UNKNOWN


def test_what_no_job_can_have_is_in_the_log(cluster):
    engine = Kubernetes()
    name = f'test-{time.time_ns() % 10**9}'
    handle = engine.submit(Job(name=name, command=SWEEP, image='i:1', retries=-1))
    until(lambda: list(engine.logs(handle)), 'a warning')
    assert 'backoffLimitPerIndex: Invalid value: -1' in next(engine.logs(handle))
    engine.cancel(handle)


def test_every_manifest_of_the_tests_is_accepted(cluster):
    spec = importlib.util.spec_from_file_location('manifests', FOLDER / 'test_kubernetes.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for settings in module.EVERY_KIND:
        manifest = module.manifest_of(Kubernetes(), **settings)
        manifest['metadata'].pop('namespace', None)
        strictly = {'dry_run': 'All', 'field_validation': 'Strict'}
        cluster.objects.create_namespaced_custom_object(
            'jobset.x-k8s.io', 'v1alpha2', 'default', 'jobsets', manifest, **strictly
        )
        job = {'apiVersion': 'batch/v1', 'kind': 'Job', 'metadata': {'name': 'x'}}
        template = manifest['spec']['replicatedJobs'][0]['template']
        cluster.batch.create_namespaced_job('default', {**job, **template}, **strictly)
