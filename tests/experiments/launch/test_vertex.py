"""Jobs on Vertex AI, against its types and a service on loopback."""

import importlib.util
import json
import pathlib
import socket
import threading

import pytest
from google.protobuf import json_format

from ddsp.errors import ConfigError
from ddsp.training.cluster import cluster_from_environment
from experiments.launch import customjob, vertex
from experiments.launch.executor import State
from experiments.launch.job import Job, LaunchError

FOLDER = pathlib.Path(__file__).parent
TRAIN = (
    'train',
    'gs://bucket/data/violin',
    '--save-dir',
    'gs://bucket/runs/violin',
    '--strategy',
    'multi_worker',
)
SWEEP = ('sweep', 'worker', 'postgresql://db/violin')
IMAGE = 'europe-docker.pkg.dev/my-project/ddsp/ddsp:1'
PARENT = 'projects/my-project/locations/europe-west4/customJobs'


def _load(name):
    spec = importlib.util.spec_from_file_location(name, FOLDER / f'{name}.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


service = _load('vertex_server')


@pytest.fixture
def server(monkeypatch, tmp_path):
    with service.Server() as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        (tmp_path / 'key.json').write_text(service.key_file(server))
        monkeypatch.setenv('GOOGLE_APPLICATION_CREDENTIALS', str(tmp_path / 'key.json'))
        monkeypatch.delenv('GOOGLE_CLOUD_PROJECT', raising=False)
        for name in ('AIPLATFORM', 'LOGGING'):
            monkeypatch.setenv(f'CLOUDSDK_API_ENDPOINT_OVERRIDES_{name}', server.url)
        monkeypatch.setattr(vertex, '_POLL_SECONDS', 0.01)
        # Newer credentials ask another service of Google in the background, for a header.
        kind = 'google.auth.credentials.CredentialsWithRegionalAccessBoundary'
        monkeypatch.setattr(
            f'{kind}._is_regional_access_boundary_lookup_required', lambda self: False, raising=False
        )
        yield server
        server.shutdown()


@pytest.fixture
def engine():
    return vertex.Vertex()


def job(command=TRAIN, **settings):
    options = {'region': 'europe-west4', **settings.pop('options', {})}
    return Job(**{'name': 'violin', 'command': command, 'image': IMAGE, 'options': options, **settings})


EVERYTHING = {
    'replicas': 3, 'gpus': 1, 'accelerator': 'nvidia-l4', 'spot': True, 'time_limit_minutes': 90,
    'env': {'MLFLOW_TRACKING_URI': 'https://mlflow.example'},
    'options': {
        'project': 'p', 'service_account': 'trainer@p.iam.gserviceaccount.com',
        'network': 'projects/1/global/networks/n', 'output': 'gs://bucket/out',
    },
}  # fmt: skip


@pytest.mark.parametrize(
    'settings',
    [
        {},
        EVERYTHING,
        EVERYTHING | {'command': SWEEP},
        {'gpus': 2, 'accelerator': 'NVIDIA_H100_80GB', 'cpus': 8, 'options': {'flex_start_minutes': '60'}},
        {'retries': 0, 'options': {'machine_type': 'c2-standard-8'}},
    ],
)
def test_what_is_submitted_is_of_the_services_type(engine, settings):
    told = json.loads(engine.describe(job(**settings)))
    for each in told if isinstance(told, list) else [told]:
        parsed = service.parse(each)
        # Nothing is lost on the way, and all names of constants are known.
        back = json_format.MessageToDict(parsed)
        assert _without_defaults(_normal(each)) == _without_defaults(back)


def _normal(value):
    """JSON as the service writes it: 64-bit integers are strings."""
    if isinstance(value, dict):
        return {key: str(one) if key == 'replicaCount' else _normal(one) for key, one in value.items()}
    return [_normal(one) for one in value] if isinstance(value, list) else value


def _without_defaults(value):
    if isinstance(value, dict):
        kept = {key: _without_defaults(one) for key, one in value.items()}
        return {key: one for key, one in kept.items() if one not in (False, [], {}, '')}
    return [_without_defaults(one) for one in value] if isinstance(value, list) else value


def _pool(told):
    return told['jobSpec']['workerPoolSpecs'][1]


@pytest.mark.parametrize(
    'plant',
    [
        lambda told: told.update(diplayName='x'),
        lambda told: told['jobSpec'].update(serviceAcount='x'),
        lambda told: told['jobSpec']['scheduling'].update(strategy='SPOTS'),
        lambda told: told['jobSpec']['scheduling'].update(timeout='90m'),
        lambda told: _pool(told).update(replicaCount='two'),
        lambda told: _pool(told)['machineSpec'].update(acceleratorType='NVIDIA_L5'),
        lambda told: _pool(told)['containerSpec'].update(image='x'),
        lambda told: _pool(told)['containerSpec']['env'][0].update(valueFrom={}),
    ],
)
def test_an_error_in_it_is_found(engine, plant):
    told = json.loads(engine.describe(job(**EVERYTHING)))
    plant(told)
    with pytest.raises(json_format.ParseError):
        service.parse(told)


def test_a_training_has_a_chief_and_workers(engine):
    told = json.loads(engine.describe(job(**EVERYTHING)))
    pools = told['jobSpec']['workerPoolSpecs']
    assert [pool['replicaCount'] for pool in pools] == [1, 2]
    assert pools[0]['machineSpec'] == pools[1]['machineSpec'] == {
        'machineType': 'g2-standard-4', 'acceleratorType': 'NVIDIA_L4', 'acceleratorCount': 1
    }  # fmt: skip
    assert pools[0]['containerSpec']['command'] == ['ddsp', *TRAIN]
    assert told['jobSpec']['scheduling'] == {
        'strategy': 'SPOT', 'disableRetries': False, 'restartJobOnWorkerRestart': True, 'timeout': '5400s'
    }  # fmt: skip
    assert told['jobSpec']['baseOutputDirectory'] == {'outputUriPrefix': 'gs://bucket/out'}
    assert told['jobSpec']['serviceAccount'] == 'trainer@p.iam.gserviceaccount.com'
    # What the service then sets, for the chief and for each worker.
    for kind, index, first in (('chief', 0, True), ('worker', 0, False)):
        cluster = {'chief': ['workerpool0-0:2222'], 'worker': ['workerpool1-0:2222', 'workerpool1-1:2222']}
        config = {'cluster': cluster, 'environment': 'cloud', 'task': {'type': kind, 'index': index}}
        found = cluster_from_environment({'TF_CONFIG': json.dumps(config)})
        assert found['cluster'] == cluster
        assert (found['task']['type'] == 'chief') is first


def test_workers_of_a_sweep_are_jobs_of_their_own(engine):
    told = json.loads(engine.describe(job(SWEEP, replicas=3)))
    assert [each['displayName'] for each in told] == ['violin-0', 'violin-1', 'violin-2']
    for each in told:
        (pool,) = each['jobSpec']['workerPoolSpecs']
        assert pool['replicaCount'] == 1
        assert each['labels'] == {'application': 'ddsp', 'ddsp-job': 'violin'}
        assert each['jobSpec']['scheduling']['restartJobOnWorkerRestart'] is False


@pytest.mark.parametrize(
    ('settings', 'machine'),
    [
        ({}, 'n2-standard-4'),
        ({'cpus': 4, 'memory_gb': 4}, 'n2-highcpu-4'),
        ({'cpus': 5, 'memory_gb': 60}, 'n2-highmem-8'),
        ({'gpus': 1, 'accelerator': 'nvidia-l4', 'memory_gb': 20}, 'g2-standard-8'),
        ({'gpus': 4, 'accelerator': 'nvidia-tesla-a100'}, 'a2-highgpu-4g'),
        ({'gpus': 1, 'accelerator': 'NVIDIA_TESLA_T4', 'memory_gb': 16}, 'n1-highmem-4'),
        (
            {'gpus': 8, 'accelerator': 'nvidia-b200', 'options': {'machine_type': 'a4-highgpu-8g'}},
            'a4-highgpu-8g',
        ),
    ],
)
def test_the_smallest_machine_that_has_it(engine, settings, machine):
    told = json.loads(engine.describe(job(**settings)))
    assert told['jobSpec']['workerPoolSpecs'][0]['machineSpec']['machineType'] == machine


def test_the_accelerators_are_those_of_the_service():
    from google.cloud import aiplatform_v1

    assert set(customjob.ACCELERATORS) <= {one.name for one in aiplatform_v1.AcceleratorType}


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        ({'image': ''}, 'Vertex AI needs an image with ddsp in it: --image='),
        (
            {'secrets': ('TOKEN',)},
            'a CustomJob has no place for the secret TOKEN: .* Secret Manager .* Kubernetes',
        ),
        (
            {'gpus': 1, 'accelerator': 'nvidia-l5'},
            r"the accelerator is 'nvidia-l5'; did you mean NVIDIA_L4\?",
        ),
        ({'gpus': 1}, "the accelerator is ''; it must be one of NVIDIA_TESLA_P100, "),
        ({'cpus': 500}, 'no machine with 500 cores, 8 GB is known here; name one with --set machine_type='),
        ({'gpus': 3, 'accelerator': 'nvidia-l4'}, 'no machine with 4 cores, 8 GB and 3 NVIDIA_L4 is known'),
        ({'options': {'output': '/data'}}, "output is '/data'; expected gs://BUCKET/FOLDER"),
        ({'options': {'flex_start_minutes': 'x'}}, "flex_start_minutes is 'x'; expected minutes, such as 60"),
        ({'spot': True, 'options': {'flex_start_minutes': '1'}}, 'flex_start_minutes and --spot exclude'),
    ],
)
def test_what_cannot_be_is_said(engine, settings, message):
    with pytest.raises(ConfigError, match=message):
        engine.describe(job(**settings))


def test_a_training_from_its_start_to_its_end(server, engine):
    handle = engine.submit(job(replicas=2))
    assert handle == f'{PARENT}/100'
    assert engine.address(handle) == (
        'https://console.cloud.google.com/vertex-ai/locations/europe-west4/training/100?project=my-project'
    )
    for told, state in (
        ('QUEUED', State.WAITING), ('PENDING', State.WAITING), ('RUNNING', State.RUNNING),
        ('CANCELLING', State.RUNNING), ('SUCCEEDED', State.DONE), ('FAILED', State.FAILED),
        ('EXPIRED', State.FAILED), ('NEW_IN_2030', State.UNKNOWN),
    ):  # fmt: skip
        server.state = told
        assert engine.state(handle) is state
    server.state = 'SUCCEEDED'
    engine.cancel(handle)
    assert engine.state(handle) is State.DONE
    server.state = 'RUNNING'
    engine.cancel(handle)
    assert engine.state(handle) is State.CANCELLED
    server.jobs.clear()
    engine.cancel(handle)
    assert engine.state(handle) is State.UNKNOWN


def test_every_state_of_the_service_is_known():
    from google.cloud import aiplatform_v1

    names = {state.name.removeprefix('JOB_STATE_') for state in aiplatform_v1.JobState}
    assert names - {'UNSPECIFIED'} == set(vertex._STATES)


def test_a_sweep_from_its_start_to_its_end(server, engine):
    handle = engine.submit(job(SWEEP, replicas=3))
    assert handle == f'{PARENT}/100,101,102'
    assert engine.address(handle).endswith('/training/custom-jobs?project=my-project')
    for states, state in (
        ('PENDING PENDING PENDING', State.WAITING), ('PENDING SUCCEEDED PENDING', State.RUNNING),
        ('FAILED RUNNING SUCCEEDED', State.RUNNING), ('FAILED CANCELLED SUCCEEDED', State.FAILED),
        ('SUCCEEDED SUCCEEDED SUCCEEDED', State.DONE),
    ):  # fmt: skip
        server.states = dict(zip(('100', '101', '102'), states.split(), strict=True))
        assert engine.state(handle) is state
    server.states = {'100': 'SUCCEEDED', '101': 'RUNNING', '102': 'PENDING'}
    engine.cancel(handle)
    assert server.states == {'100': 'SUCCEEDED', '101': 'CANCELLED', '102': 'CANCELLED'}


def test_a_sweep_of_which_a_part_is_refused_leaves_nothing_running(server, engine):
    server.refuse = lambda method, path: (
        (429, {'message': 'Quota exceeded for aiplatform.googleapis.com/custom_model_training_cpus.'})
        if len(server.jobs) == 2 and path.endswith('customJobs')
        else None
    )
    with pytest.raises(LaunchError, match=r'Quota exceeded .*_cpus; ask for more quota, or take fewer'):
        engine.submit(job(SWEEP, replicas=3))
    assert server.states == {'100': 'CANCELLED', '101': 'CANCELLED'}


def test_logs_are_followed_to_the_end(server, engine):
    handle = engine.submit(job(replicas=2))
    server.state = 'RUNNING'
    server.write('100', 'service', 'Job is running.')
    server.write('100', 'workerpool0-0', 'one')
    server.write('100', 'workerpool1-0', 'two')
    server.write('7', 'workerpool0-0', 'of another job')
    lines = engine.logs(handle, follow=True)
    assert [next(lines) for _ in range(3)] == ['Job is running.', '[0] one', '[1] two']
    server.write('100', 'workerpool0-0', 'three', seconds_ago=30)  # late: it belongs before what was read
    assert next(lines) == '[0] three'
    server.state, server.errors['100'] = (
        'FAILED',
        'The replica workerpool0-0 exited with status 1.\nSee the logs.',
    )
    server.write('100', 'workerpool0-0', 'Error: no audio')
    assert list(lines) == [
        '[0] Error: no audio', '[0] (The replica workerpool0-0 exited with status 1. See the logs)'
    ]  # fmt: skip
    assert len(list(engine.logs(handle))) == 6


def test_logs_of_a_sweep_have_the_numbers_of_its_workers(server, engine):
    handle = engine.submit(job(SWEEP, replicas=2))
    server.write('101', 'workerpool0-0', 'a trial')
    assert list(engine.logs(handle)) == ['[1] a trial']


def test_a_busy_service_is_asked_again_about_what_it_knows(server, engine):
    handle = engine.submit(job())
    refusals = iter([(503, {'message': 'busy'}), (429, {'message': 'slow down'}), None])
    server.refuse = lambda method, path: next(refusals, None)
    assert engine.state(handle) is State.WAITING


@pytest.mark.parametrize(
    ('status', 'error', 'message'),
    [
        (400, {'message': 'Unable to parse `training_pipeline`'}, 'Vertex AI refused it: Unable to parse'),
        (
            401,
            {'message': 'invalid authentication'},
            r'does not accept the credentials \(invalid.*; sign in by',
        ),
        (
            403,
            {'message': "Permission 'aiplatform.customJobs.create' denied"},
            'denied; whoever submits needs roles',
        ),
        (
            403,
            {'message': 'Vertex AI API has not been used', 'details': [{'reason': 'SERVICE_DISABLED'}]},
            'has not been used; switch it on: gcloud services enable aiplatform.googleapis.com',
        ),
        (
            404,
            {'message': 'Project p not found'},
            'Project p not found; check --set project= and --set region=',
        ),
        (429, {'message': 'Quota exceeded'}, 'Quota exceeded; ask for more quota'),
        (
            503,
            {'message': 'The service is unavailable.'},
            r'cannot do it now \(The service is unavailable\); try',
        ),
    ],
)
def test_refusals_are_one_sentence_with_a_way_on(server, engine, status, error, message):
    server.refuse = lambda method, path: (status, error)
    with pytest.raises(LaunchError, match=message) as raised:
        engine.submit(job())
    assert '\n' not in str(raised.value)


def test_what_the_services_type_refuses_is_said(server, engine, monkeypatch):
    monkeypatch.setattr(customjob, '_scheduling', lambda job: {'stratgy': 'SPOT'})
    with pytest.raises(LaunchError, match=r'Vertex AI refused it: Invalid JSON payload received.*stratgy'):
        engine.submit(job())


def test_no_service_no_credentials_no_job(server, engine, monkeypatch, tmp_path):
    handle = engine.submit(job())
    with pytest.raises(ConfigError, match="the region is ''; expected --set region=NAME"):
        engine.submit(job(options={'region': ''}))
    with pytest.raises(LaunchError, match="the job is '100'; expected projects/PROJECT/"):
        engine.state('100')
    with pytest.raises(LaunchError, match=r'Vertex AI has no job .*/7'):
        list(engine.logs(f'{PARENT}/7'))
    with socket.socket() as closed:
        closed.bind(('127.0.0.1', 0))
        port = closed.getsockname()[1]
    monkeypatch.setenv('CLOUDSDK_API_ENDPOINT_OVERRIDES_AIPLATFORM', f'http://127.0.0.1:{port}/')
    with pytest.raises(
        LaunchError, match=rf'127.0.0.1:{port} does not answer \(.*refused.*is the region right'
    ):
        engine.submit(job())
    server.tokens = False
    with pytest.raises(
        LaunchError, match=r'the credentials of Google Cloud have expired \(.*; sign in by gcloud'
    ):
        engine.state(handle)
    monkeypatch.setenv('GOOGLE_APPLICATION_CREDENTIALS', str(tmp_path / 'missing.json'))
    with pytest.raises(
        LaunchError, match=r'there are no credentials for Google Cloud \(.*; sign in by gcloud'
    ):
        engine.submit(job())


def test_credentials_without_a_project(server, engine, monkeypatch):
    monkeypatch.setattr('google.auth.default', lambda scopes: (object(), None))
    with pytest.raises(ConfigError, match='the project is not known; name it with --set project='):
        engine.submit(job())


def test_it_is_what_the_services_own_client_sends(server, engine):
    """The client of google-cloud-aiplatform, sent to the same place."""
    from google.cloud.aiplatform_v1.services.job_service import JobServiceClient
    from google.cloud.aiplatform_v1.services.job_service.transports.rest import JobServiceRestTransport
    from google.oauth2.credentials import Credentials

    handle = engine.submit(
        job(**EVERYTHING | {'options': {**EVERYTHING['options'], 'project': 'my-project'}})
    )
    engine.state(handle)
    engine.cancel(handle)
    ours, server.calls = server.calls, []
    client = JobServiceClient(
        transport=JobServiceRestTransport(
            host=server.url.removeprefix('http://').rstrip('/'),
            url_scheme='http',
            credentials=Credentials('a'),
        )
    )
    made = client.create_custom_job(parent=PARENT.rpartition('/')[0], custom_job=dict_to_job(ours[0][2]))
    client.get_custom_job(name=made.name)
    client.cancel_custom_job(name=made.name)
    theirs = [(method, path.replace('/101', '/100'), body) for method, path, body in server.calls]
    assert _comparable(ours[0]) == _comparable(theirs[0])
    # Before a job is cancelled we ask whether it has ended.
    assert [call[:2] for call in theirs] == [call[:2] for call in ours[:2] + ours[3:]]


def dict_to_job(told):
    from google.cloud import aiplatform_v1

    return aiplatform_v1.CustomJob.from_json(json.dumps(told))


def _comparable(call):
    """A call whose constants are names, as the client may send numbers for them."""
    method, path, body = call
    return method, path, _without_defaults(json_format.MessageToDict(service.parse(body)))
