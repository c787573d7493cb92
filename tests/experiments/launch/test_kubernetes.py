"""Jobs on Kubernetes, by the real client against an API on loopback."""

import copy
import importlib.util
import os
import pathlib
import socket
import sys
import threading

import jsonschema
import kubernetes_validate
import pytest
import yaml

from ddsp.errors import ConfigError, MissingDependencyError
from ddsp.training.cluster import cluster_from_environment
from experiments.launch import kubernetes
from experiments.launch.executor import State
from experiments.launch.job import Job, LaunchError

FOLDER = pathlib.Path(__file__).parent
TRAIN = ('train', '/data/violin', '--save-dir', '/data/runs/violin', '--strategy', 'multi_worker')
SWEEP = ('sweep', 'worker', '/data/sweeps/violin')
MANIFEST = pathlib.Path(__file__).resolve().parents[3] / 'infra' / 'kubernetes' / 'train.yaml'


def _load(name):
    spec = importlib.util.spec_from_file_location(name, FOLDER / f'{name}.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


service = _load('kubernetes_server')


@pytest.fixture
def server(monkeypatch, tmp_path):
    with service.Server() as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        (tmp_path / 'kubeconfig').write_text(yaml.safe_dump(server.kubeconfig()))
        monkeypatch.setenv('KUBECONFIG', str(tmp_path / 'kubeconfig'))
        monkeypatch.setattr(kubernetes, '_POLL_SECONDS', 0.01)
        yield server
        server.shutdown()


@pytest.fixture
def engine():
    return kubernetes.Kubernetes()


def job(command=SWEEP, **settings):
    return Job(**{'name': 'violin', 'command': command, 'image': 'registry.example/ddsp:1', **settings})


def manifest_of(engine, *arguments, **settings):
    return yaml.safe_load(engine.describe(job(*arguments, **settings)))


def parts(manifest):
    """The indexed Job, its pod and the container."""
    (replicated,) = manifest['spec']['replicatedJobs']
    indexed = replicated['template']['spec']
    pod = indexed['template']['spec']
    (container,) = pod['containers']
    return indexed, pod, container


EVERYTHING = {
    'replicas': 3, 'gpus': 2, 'accelerator': 'nvidia-l4', 'spot': True, 'time_limit_minutes': 90,
    'env': {'MLFLOW_TRACKING_URI': 'https://mlflow.example'}, 'secrets': ('MLFLOW_TRACKING_PASSWORD',),
    'options': {
        'namespace': 'team', 'service_account': 'trainer', 'volume': 'ddsp-data:/data,models:/models',
        'secret': 'tracking', 'queue': 'gpus', 'node_selector': 'topology.kubernetes.io/zone=a',
    },
}  # fmt: skip


EVERY_KIND = [
    {},
    {'command': TRAIN},
    {'command': TRAIN, 'replicas': 2},
    EVERYTHING,
    EVERYTHING | {'command': TRAIN},
    {'gpus': 4, 'accelerator': 'tpu-v5-lite-podslice', 'options': {'tpu_topology': '2x4'}},
    {'retries': 0},
]


@pytest.mark.parametrize('settings', EVERY_KIND)
def test_what_is_submitted_fits_the_schemas(engine, settings):
    service.check_jobset(manifest_of(engine, **settings))


@pytest.mark.parametrize(
    'plant',
    [
        lambda manifest: manifest['spec'].update(failurePolice={}),
        lambda manifest: manifest['spec']['failurePolicy'].update(maxRestarts='3'),
        lambda manifest: manifest['spec']['failurePolicy']['rules'][0].update(action='FailJob'),
        lambda manifest: manifest['spec']['failurePolicy']['rules'][0].pop('name'),
        lambda manifest: manifest['spec']['network'].update(enableDnsHostnames=True),
        lambda manifest: parts(manifest)[0].update(backoffLimitPerindex=1),
        lambda manifest: parts(manifest)[0]['podFailurePolicy']['rules'][0].update(action=1),
        lambda manifest: parts(manifest)[1]['tolerations'][0].update(operater='Exists'),
        lambda manifest: parts(manifest)[1]['volumes'][0].update(persistentVolumeClaim={'name': 'x'}),
        lambda manifest: parts(manifest)[2]['resources'].update(limit={}),
        lambda manifest: parts(manifest)[2]['securityContext'].update(runAsNonroot=True),
    ],
)
def test_an_error_in_it_is_found(engine, plant):
    manifest = copy.deepcopy(manifest_of(engine, **EVERYTHING))
    plant(manifest)
    with pytest.raises((jsonschema.ValidationError, kubernetes_validate.ValidationError)):
        service.check_jobset(manifest)


def test_workers_of_a_training_find_each_other_and_start_again_together(engine):
    manifest = manifest_of(engine, TRAIN, replicas=3, retries=5)
    indexed, _, container = parts(manifest)
    labels = {
        'jobset-name': manifest['metadata']['name'], 'replicatedjob-name': 'worker', 'job-index': '0',
    }  # what JobSet gives a pod  # fmt: skip
    environ = {'JOB_COMPLETION_INDEX': '1'}  # what an indexed Job sets
    for variable in container['env']:
        if 'value' in variable:
            environ[variable['name']] = variable['value']
        else:
            label = variable['valueFrom']['fieldRef']['fieldPath'].split('/')[1].rstrip("']")
            environ[variable['name']] = labels[label]
    found = cluster_from_environment(environ)
    port = container['ports'][0]['containerPort']
    assert found['cluster']['worker'] == [f'violin-worker-0-{i}.violin:{port}' for i in range(3)]
    assert found['task'] == {'type': 'worker', 'index': 1}
    assert manifest['spec']['network']['enableDNSHostnames'] is True
    assert indexed['completions'] == indexed['parallelism'] == 3
    assert (indexed['backoffLimit'], manifest['spec']['failurePolicy']['maxRestarts']) == (0, 5)
    assert 'backoffLimitPerIndex' not in indexed
    assert container['command'] == ['ddsp', *TRAIN]


def test_other_workers_start_again_alone(engine):
    manifest = manifest_of(engine, replicas=3, retries=5)
    indexed, pod, container = parts(manifest)
    assert (indexed['backoffLimitPerIndex'], manifest['spec']['failurePolicy']['maxRestarts']) == (5, 0)
    assert pod['restartPolicy'] == 'Never'  # what both policies of a Job need
    assert 'env' not in container
    assert cluster_from_environment({'JOB_COMPLETION_INDEX': '1'}) is None
    mistakes, taken = indexed['podFailurePolicy']['rules']
    assert mistakes['action'] == 'FailJob'
    assert mistakes['onExitCodes']['values'] == [1, 2]
    assert taken['action'] == 'Ignore'
    assert taken['onPodConditions'][0]['type'] == 'DisruptionTarget'


def test_where_and_with_what_it_runs(engine):
    manifest = manifest_of(engine, **EVERYTHING)
    indexed, pod, container = parts(manifest)
    assert manifest['metadata']['namespace'] == 'team'
    assert manifest['metadata']['labels']['kueue.x-k8s.io/queue-name'] == 'gpus'
    assert indexed['activeDeadlineSeconds'] == 5400
    assert pod['serviceAccountName'] == 'trainer'
    assert pod['automountServiceAccountToken'] is False
    assert pod['nodeSelector'] == {
        'cloud.google.com/gke-accelerator': 'nvidia-l4', 'cloud.google.com/gke-spot': 'true',
        'topology.kubernetes.io/zone': 'a',
    }  # fmt: skip
    assert [one['key'] for one in pod['tolerations']] == ['nvidia.com/gpu', 'cloud.google.com/gke-spot']
    assert container['resources']['limits'] == {'memory': '8Gi', 'nvidia.com/gpu': '2'}
    assert {mount['mountPath'] for mount in container['volumeMounts']} == {'/data', '/models'}
    assert container['env'] == [
        {'name': 'MLFLOW_TRACKING_URI', 'value': 'https://mlflow.example'},
        {
            'name': 'MLFLOW_TRACKING_PASSWORD',
            'valueFrom': {'secretKeyRef': {'name': 'tracking', 'key': 'MLFLOW_TRACKING_PASSWORD'}},
        },
    ]
    assert container['securityContext']['allowPrivilegeEscalation'] is False
    assert pod['securityContext']['runAsNonRoot'] is True


def test_a_tpu(engine):
    options = {'tpu_topology': '2x4'}
    manifest = manifest_of(engine, gpus=4, accelerator='tpu-v5-lite-podslice', options=options)
    _, pod, container = parts(manifest)
    assert container['resources']['limits']['google.com/tpu'] == '4'
    assert pod['nodeSelector'] == {
        'cloud.google.com/gke-tpu-accelerator': 'tpu-v5-lite-podslice',
        'cloud.google.com/gke-tpu-topology': '2x4',
    }


def test_the_manifest_of_the_repository_is_what_the_command_prints(engine):
    settings = {
        'replicas': 2,
        'retries': 20,
        'options': {'volume': 'ddsp-data:/data'},
        'image': 'ddsp:latest',
    }
    assert yaml.safe_load(MANIFEST.read_text()) == manifest_of(engine, TRAIN, **settings)


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        ({'image': ''}, 'a pod needs an image with ddsp in it: --image='),
        ({'secrets': ('TOKEN',)}, r'the values of TOKEN come from a Secret: --set secret=NAME \(kubectl'),
        ({'options': {'volume': 'data'}}, "volume is 'data'; expected CLAIM:/path, such as ddsp-data:/data"),
        ({'options': {'node_selector': 'zone'}}, "node_selector is 'zone'; expected LABEL=VALUE"),
        ({'options': {'tpu_topology': '2x4'}}, 'tpu_topology needs the chips of a host and their kind'),
    ],
)
def test_what_cannot_be_is_said(engine, settings, message):
    with pytest.raises(ConfigError, match=message):
        engine.describe(job(**settings))


def test_a_job_from_its_start_to_its_end(server, engine):
    handle = engine.submit(job())
    assert handle == 'here/one/music/violin'
    assert server.jobsets['music', 'violin'] == manifest_of(engine)
    assert engine.state(handle) is State.WAITING
    server.add_pod('violin', 0)
    assert engine.state(handle) is State.RUNNING
    for end, state in (('Completed', State.DONE), ('Failed', State.FAILED)):
        server.jobsets['music', 'violin']['status'] = {'terminalState': end}
        assert engine.state(handle) is state
        engine.cancel(handle)  # leaves what has ended
        assert engine.state(handle) is state
    server.jobsets['music', 'violin'].pop('status')
    server.jobsets['music', 'violin']['metadata']['deletionTimestamp'] = '2026-01-01T00:00:00Z'
    assert engine.state(handle) is State.CANCELLED
    engine.cancel(handle)
    engine.cancel(handle)
    assert engine.state(handle) is State.UNKNOWN
    assert not server.jobsets
    assert engine.address(handle) == ''


def test_another_context_has_another_namespace(server, engine):
    assert engine.submit(job(options={'context': 'two'})) == 'two/default/violin'
    assert engine.submit(job(options={'context': 'two', 'namespace': 'team'})) == 'two/team/violin'
    assert set(server.jobsets) == {('default', 'violin'), ('team', 'violin')}


def test_logs_are_followed_over_restarts_to_the_end(server, engine):
    handle = engine.submit(job(replicas=2))
    first, second = server.add_pod('violin', 0), server.add_pod('violin', 1, phase='Pending')
    second['status']['conditions'] = [
        {'type': 'PodScheduled', 'status': 'False', 'message': 'Insufficient nvidia.com/gpu'}
    ]
    server.write(first, 'one', 'two')
    lines = engine.logs(handle, follow=True)
    assert [next(lines) for _ in range(3)] == [
        '[0] one', '[0] two', '[1] (waits for a node: Insufficient nvidia.com/gpu)'
    ]  # fmt: skip
    second['status'] = {'phase': 'Running', 'containerStatuses': [_container(waiting='ErrImagePull')]}
    assert next(lines) == '[1] (waits: ErrImagePull: no such image)'
    second['status'] = {'phase': 'Failed', 'containerStatuses': [_container(ended=(137, 'OOMKilled'))]}
    server.write(second, 'started', '')
    again = server.add_pod('violin', 1)
    server.write(again, 'started again')
    server.write(first, 'three')
    assert [next(lines) for _ in range(5)] == [
        '[0] three', '[1] started', '[1] ', '[1] (ended with exit status 137, OOMKilled)', '[1] started again'
    ]  # fmt: skip
    server.write(again, 'done')
    server.jobsets['music', 'violin']['status'] = {'terminalState': 'Completed'}
    assert list(lines) == ['[1] done']
    asked = [query for _, path, query in server.calls if path.endswith('/log')]
    assert 'sinceSeconds' not in asked[0]
    assert int(asked[-1]['sinceSeconds']) >= 10
    assert len(list(engine.logs(handle))) == 8  # all that is known now, at once


def test_why_there_are_no_pods_is_said(server, engine):
    handle = engine.submit(job())
    server.warnings = [
        ('violin-worker-0', 'FailedCreate', 'exceeded quota: team'),
        ('violin', 'JobCreationFailed', 'Job "violin-worker-0" is invalid'),
        ('another', 'FailedCreate', 'no'),
    ]
    lines = engine.logs(handle, follow=True)
    assert next(lines) == '(FailedCreate: exceeded quota: team)'
    assert next(lines) == '(JobCreationFailed: Job "violin-worker-0" is invalid)'
    server.write(server.add_pod('violin', 0), 'begun')
    assert next(lines) == '[0] begun'


def _container(waiting=None, ended=None):
    state = {'waiting': {'reason': waiting, 'message': 'no such image'}} if waiting else {}
    if ended:
        state = {'terminated': {'exitCode': ended[0], 'reason': ended[1]}}
    return {'name': 'ddsp', 'image': 'i', 'imageID': '', 'ready': False, 'restartCount': 0, 'state': state}


def test_a_busy_cluster_is_asked_again_about_what_it_knows(server, engine):
    handle = engine.submit(job())
    refusals = iter([(503, 'busy'), (429, 'slow down'), None])
    server.refuse = lambda method, path: next(refusals, None)
    assert engine.state(handle) is State.WAITING


REFUSALS = [
    (
        (403, service.status(403, 'Forbidden', 'jobsets is forbidden: User "me" cannot create resource')),
        r'JobSet violin in namespace music: jobsets is forbidden: User "me" cannot create resource; ask for '
        r'a role that may create it, or take another --set namespace=',
    ),
    (
        (403, service.status(403, 'Forbidden', 'exceeded quota: team, requested: count/jobsets=1')),
        'exceeded quota: team, requested: count/jobsets=1; ask for',
    ),
    ((404, '404 page not found\n'), 'JobSet is not installed in this cluster: kubectl apply'),
    (
        (404, service.status(404, 'NotFound', 'namespaces "music" not found', 'music')),
        'namespaces "music" not found; kubectl get namespaces lists what is there',
    ),
    (
        (429, service.status(429, 'TooManyRequests', 'slow down')),
        r'cannot do it now \(slow down\); try again',
    ),
    ((503, 'busy'), r'the cluster cannot do it now \(busy\); try again in a minute'),
]


@pytest.mark.parametrize(('refusal', 'message'), REFUSALS)
def test_refusals_are_one_sentence_with_a_way_on(server, engine, refusal, message):
    server.refuse = lambda method, path: refusal
    with pytest.raises(LaunchError, match=message) as raised:
        engine.submit(job())
    assert '\n' not in str(raised.value)
    assert len([call for call in server.calls if call[0] == 'POST']) == 1


def test_a_name_is_taken_once(server, engine):
    engine.submit(job())
    with pytest.raises(
        LaunchError,
        match='exists already; take another --name, or remove it: kubectl delete jobset violin -n music',
    ):
        engine.submit(job())


def test_what_the_schema_refuses_is_said(server, engine):
    with pytest.raises(LaunchError, match=r'the cluster refused it: JobSet.* "violin" is invalid'):
        engine.submit(job(env={'A': 'b'}, options={'queue': 'q'}, retries='three'))


def test_no_cluster_no_credentials_no_job(server, engine, monkeypatch, tmp_path):
    handle = engine.submit(job())
    server.token = 'another'
    with pytest.raises(LaunchError, match='does not accept the credentials of kubeconfig; sign in again'):
        engine.state(handle)
    with socket.socket() as closed:
        closed.bind(('127.0.0.1', 0))
        port = closed.getsockname()[1]
    pathlib.Path(os.environ['KUBECONFIG']).write_text(yaml.safe_dump(server.kubeconfig(port)))
    for call in (lambda: engine.submit(job()), lambda: engine.cancel(handle)):
        with pytest.raises(
            LaunchError, match=rf'the cluster at http://127.0.0.1:{port} does not answer \(.*refused'
        ):
            call()
    with pytest.raises(LaunchError, match=r'no cluster is configured \(.*three.*\); sign in'):
        engine.submit(job(options={'context': 'three'}))
    monkeypatch.setenv('KUBECONFIG', str(tmp_path / 'missing'))
    with pytest.raises(LaunchError, match='no cluster is configured'):
        engine.submit(job())
    with pytest.raises(LaunchError, match="the job is 'violin'; expected"):
        engine.state('violin')


def test_logs_of_no_job(server, engine):
    with pytest.raises(
        LaunchError, match='there is no JobSet violin in namespace music; those that are there'
    ):
        list(engine.logs('here/one/music/violin'))


def test_a_missing_package_is_one_sentence(server, engine, monkeypatch):
    monkeypatch.setitem(sys.modules, 'kubernetes.client', None)
    with pytest.raises(MissingDependencyError, match=r"Run: pip install 'kubernetes>=32,<38'"):
        engine.submit(job())
