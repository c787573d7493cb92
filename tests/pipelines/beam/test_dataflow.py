"""Dataflow without a cloud: Beam's real client against a service and a storage on loopback."""

import importlib.util
import pathlib
import sys
import threading
import time

import pytest

from ddsp.errors import ConfigError, DDSPError
from ddsp.io import gcs
from pipelines.beam import engines
from pipelines.options import PrepareOptions

pytest.importorskip('google.cloud.dataflow')
FLEXRS_COST_OPTIMIZED = WORKER_IP_PRIVATE = 2  # the client sends the numbers of names
LABEL = 'violin-prepare-3f2a1c'
IMAGE = '--sdk_container_image=europe-docker.pkg.dev/my-project/ddsp/worker:1'


@pytest.fixture
def service(monkeypatch, tmp_path, bucket_server):
    """The service; credentials come from it, and nothing waits."""
    from apache_beam.internal.gcp.auth import _Credentials
    from apache_beam.utils import retry

    from pipelines.beam import dataflow

    place = pathlib.Path(__file__).parents[1] / 'dataflow_server.py'
    spec = importlib.util.spec_from_file_location('dataflow_server', place)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    server = module.Server()
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    (tmp_path / 'key.json').write_text(module.key_file(server))
    monkeypatch.setenv('GOOGLE_APPLICATION_CREDENTIALS', str(tmp_path / 'key.json'))
    monkeypatch.setattr(_Credentials, '_credentials_init', False)
    monkeypatch.setattr(retry.Clock, 'sleep', lambda self, secs: server.calls.append(('WAIT', '')))
    monkeypatch.setitem(engines._POLL_SECS, 'dataflow', 0.01)
    monkeypatch.setattr(dataflow, '_LAST_WORDS_SECS', 0.0)
    yield server
    server.shutdown()
    server.server_close()


def options_of(service, *more, without=''):
    given = ['--project=my-project', '--region=europe-west4', '--temp_location=gs://bucket/tmp', IMAGE]
    kept = [option for option in given if not without or not option.startswith(f'--{without}=')]
    return [*kept, f'--dataflow_endpoint={service.url}', *more]


class Write:
    """A graph that leaves files on gs:// and counts."""

    def __call__(self, pipeline):
        import apache_beam as beam

        from pipelines.beam import dataflow

        def write(key):
            beam.metrics.Metrics.counter('ddsp.prepare', 'made/shards').inc()
            gcs.upload(f'content of {key}'.encode(), f'gs://bucket/out/{key}')
            return key

        hinted = pipeline | 'Names' >> beam.Create(['a', 'b', 'c']) | 'Spread' >> beam.Reshuffle()
        hints = dataflow.hints(pipeline.options)
        hinted | 'MakeShards' >> beam.Map(write).with_resource_hints(**hints)


def run(service, *more):
    told, seen = [], []
    counters = engines.run(
        'dataflow',
        options_of(service, *more),
        Write(),
        label=LABEL,
        follow=seen.append,
        tell=told.append,
    )
    return counters, told, seen


def staged(bucket_server):
    return {key for bucket, key in bucket_server.objects if key.startswith('tmp/')}


def test_a_job_is_staged_submitted_and_followed(service, bucket_server):
    service.counters = {'made/shards': 3, 'made/audio_ms': 1500}
    service.states = ['PENDING', 'RUNNING', 'RUNNING', 'DONE']
    counters, told, seen = run(service)
    assert counters == {'made/shards': 3, 'made/audio_ms': 1500}
    assert seen[-1] == counters
    assert len(seen) > 2
    (line,) = told
    assert 'was submitted' in line
    assert 'https://console.cloud.google.com/dataflow/jobs/europe-west4/job-0?project=my-project' in line
    (job,) = service.jobs.values()
    assert job['name'] == LABEL
    assert job['labels'] == {'application': 'ddsp'}
    (pool,) = job['environment']['workerPools']
    assert pool['workerHarnessContainerImage'] == IMAGE.partition('=')[2]
    assert pool['numThreadsPerWorker'] == 1
    assert pool['autoscalingSettings']['maxNumWorkers'] == 16
    assert any(name.endswith('pipeline.pb') for name in staged(bucket_server))


def test_the_graph_that_was_staged_runs(service, bucket_server):
    """What the service would execute, executed: the outputs are on gs://."""
    run(service)
    (name,) = (name for name in staged(bucket_server) if name.endswith('pipeline.pb'))
    result = run_staged(bucket_server.objects['bucket', name])
    found = result.metrics().query()['counters']
    assert {row.key.metric.name: row.committed for row in found}['made/shards'] == 3
    contents = {
        key: bucket_server.objects['bucket', key] for _, key in bucket_server.objects if 'out/' in key
    }
    assert contents == {f'out/{key}': f'content of {key}'.encode() for key in 'abc'}


def run_staged(content):
    """Runs a staged pipeline.pb in this process: only its environments (images) are replaced."""
    from apache_beam.options.pipeline_options import PipelineOptions
    from apache_beam.portability.api import beam_runner_api_pb2
    from apache_beam.runners.portability.fn_api_runner import FnApiRunner

    proto = beam_runner_api_pb2.Pipeline.FromString(content)
    for environment in proto.components.environments.values():
        environment.urn, environment.payload = 'beam:env:embedded_python:v1', b''
        del environment.dependencies[:]
    return FnApiRunner().run_via_runner_api(proto, PipelineOptions([]))


def test_a_preparation_is_the_same_on_dataflow_as_here(service, bucket_server, corpus, monkeypatch):
    """The command, Beam's client, the graph as it was staged, and what it publishes on gs://."""
    from pipelines.prepare import prepare_dataset

    def execute(job):
        place = job['environment']['sdkPipelineOptions']['options']['pipelineUrl']
        run_staged(gcs.read(place))

    monkeypatch.setenv('SOURCE_DATE_EPOCH', '0')
    service.execute = execute
    for file in corpus.iterdir():
        gcs.upload(file, f'gs://bucket/in/{file.name}')
    options = PrepareOptions(f0='yin', num_shards=2, workers=1)
    result = prepare_dataset(
        'gs://bucket/in', 'gs://bucket/there', 'tones', options=options, runner='dataflow',
        beam_options=options_of(service),
    )  # fmt: skip
    prepare_dataset('gs://bucket/in', 'gs://bucket/here', 'tones', options=options)
    assert len(service.jobs) == 1
    assert (result.accepted, sum(result.rejected.values()), result.duplicates) == (5, 3, 1)
    published = {
        root: {
            name.rpartition('/')[2]: content
            for (_, name), content in bucket_server.objects.items()
            if name.startswith(f'{root}/tones/1.0.0/') and not name.endswith('metrics.json')
        }
        for root in ('here', 'there')
    }
    assert len(published['here']) > 6
    assert published['there'] == published['here']


def test_everything_that_a_job_may_ask_for(service):
    run(
        service, '--max_num_workers=4', '--subnetwork=regions/europe-west4/subnetworks/private',
        '--service_account_email=worker@my-project.iam.gserviceaccount.com', '--flexrs_goal=COST_OPTIMIZED',
        '--disk_size_gb=30', '--labels=team=strings',
        '--f0_accelerator=type:nvidia-l4;count:1', '--f0_min_ram=16GB',
    )  # fmt: skip
    (job,) = service.jobs.values()
    environment = job['environment']
    (pool,) = environment['workerPools']
    assert job['labels'] == {'team': 'strings', 'application': 'ddsp'}
    assert environment['serviceAccountEmail'].startswith('worker@')
    assert environment['flexResourceSchedulingGoal'] == FLEXRS_COST_OPTIMIZED
    assert (pool['autoscalingSettings']['maxNumWorkers'], pool['diskSizeGb']) == (4, 30)
    assert pool['ipConfiguration'] == WORKER_IP_PRIVATE
    assert len(pool['sdkHarnessContainerImages']) == 2  # only one step has the GPU


def test_a_dry_run_asks_nobody(service, bucket_server):
    options = options_of(service, '--f0_accelerator=type:nvidia-l4;count:1')
    shown = engines.describe('dataflow', options, Write(), label='Violin_1')
    assert (shown['job'], shown['project'], shown['region']) == ('violin-1', 'my-project', 'europe-west4')
    assert shown['steps'] == ['Names', 'Spread', 'MakeShards']
    assert shown['image'] == IMAGE.partition('=')[2]
    assert shown['workers']['machineType'] == 'n2-standard-8'
    assert shown['hints'] == {'accelerator': 'type:nvidia-l4;count:1'}
    assert not service.calls
    assert not bucket_server.calls


def test_what_beam_finds_in_the_options_is_told(service):
    options = [option for option in options_of(service, '--project=My Project') if 'endpoint' not in option]
    with pytest.raises(ConfigError, match=r'Beam does not accept the options: Invalid Project ID'):
        engines.describe('dataflow', options, Write(), label=LABEL)


def test_the_running_job_of_the_same_name_is_followed(service, bucket_server):
    service.counters = {'made/shards': 2}
    job = service.add(LABEL)
    counters, told, _ = run(service)
    assert counters == {'made/shards': 2}
    assert (
        f'is running already and is followed: https://console.cloud.google.com/dataflow/jobs/europe-west4/{job}'
        in told[0]
    )
    assert list(service.jobs) == [job]
    assert not staged(bucket_server)


def test_a_job_that_somebody_starts_meanwhile_is_followed(service):
    def start_first(method, path):
        if method == 'POST' and path.endswith('/jobs') and not service.jobs:
            service.add(LABEL)

    service.refuse = start_first
    _, told, _ = run(service)
    assert list(service.jobs) == ['job-0']
    assert 'is followed' in told[0]


def test_an_ended_job_of_the_same_name_is_not_taken_for_it(service):
    service.add(LABEL)
    service.jobs['job-0']['ended'] = 'FAILED'
    run(service)
    assert list(service.jobs) == ['job-0', 'job-1']


def refusing(service, status, message, method='POST', path='/jobs'):
    service.refuse = lambda m, p: (status, message) if m == method and p.endswith(path) else None


@pytest.mark.parametrize(
    ('status', 'message', 'expected'),
    [
        (409, 'is being cancelled', f'a job named {LABEL} is there and is ending.*same command again'),
        (403, 'Quota CPUS exceeded', 'a quota of the project my-project is used up.*CPUS.*--max_num_workers'),
        (403, 'missing dataflow.jobs.create', 'no permission in the project my-project.*roles/dataflow.dev'),
        (429, 'too many requests', 'a quota of the project'),
        (400, 'region is not supported', 'in europe-west4 of my-project.*gcloud compute regions list'),
        (503, 'try later', 'does not answer .503: try later.*Wait, then run the same command again'),
        (401, 'invalid authentication', 'the credentials.*gcloud auth application-default login'),
    ],
)
def test_what_the_service_refuses_is_one_sentence_with_a_way_on(service, status, message, expected):
    refusing(service, status, message)
    with pytest.raises(DDSPError, match=expected) as told:
        run(service)
    assert '\n' not in str(told.value)
    waits = service.calls.count(('WAIT', ''))
    assert waits == (3 if status == 503 else 0)  # Beam asks again where it may help


def test_an_unknown_region_is_found_before_anything_is_staged(service, bucket_server):
    refusing(service, 404, 'location europe-west4 was not found', method='GET')
    with pytest.raises(DDSPError, match=r'Dataflow does not accept the job in europe-west4.*--region'):
        run(service)
    assert not staged(bucket_server)


def test_a_service_that_is_down_for_a_moment_is_asked_again(service):
    answers = [(503, 'try later'), (503, 'try later')]
    service.refuse = lambda m, p: answers.pop() if m == 'POST' and p.endswith('/jobs') and answers else None
    run(service)
    assert len(service.jobs) == 1


def test_a_job_that_fails_says_why(service):
    service.states = ['RUNNING', 'FAILED']
    service.messages = [
        'Traceback (most recent call last):\n  File "x.py", line 1\nValueError: no space left\n',
        'The work item was attempted 4 times without success.',
    ]
    expected = 'job failed: ValueError: no space left. Run the same command again.*europe-west4/job-0'
    with pytest.raises(DDSPError, match=expected):
        run(service)


def test_a_job_that_fails_without_a_word_is_told_as_such(service):
    service.states = ['FAILED']
    with pytest.raises(DDSPError, match=r'the service gave no reason \(FAILED\)'):
        run(service)


def test_a_job_that_somebody_cancels_is_told_as_such(service):
    service.states = ['RUNNING', 'CANCELLED']
    with pytest.raises(DDSPError, match=r'the Dataflow job was cancelled. Run the same command again'):
        run(service)


def test_credentials_that_expire_on_the_way_leave_the_job_running(service):
    def refuse(method, path):
        return (401, 'token expired') if method == 'GET' and path.endswith('job-0') else None

    service.refuse = refuse
    with pytest.raises(DDSPError, match=r'application-default login.*finds the job, which goes on'):
        run(service)
    assert 'ended' not in service.jobs['job-0']


def test_expired_credentials_are_told_at_once(service, bucket_server):
    service.tokens = False
    started = time.monotonic()
    with pytest.raises(DDSPError, match=r'Token has expired.*gcloud auth application-default login'):
        run(service)
    assert time.monotonic() - started < 5
    assert not bucket_server.calls


def test_missing_credentials_are_told_at_once(service, bucket_server, monkeypatch, tmp_path):
    monkeypatch.delenv('GOOGLE_APPLICATION_CREDENTIALS')
    monkeypatch.setenv('CLOUDSDK_CONFIG', str(tmp_path))
    monkeypatch.setenv('NO_GCE_CHECK', 'true')
    started = time.monotonic()
    with pytest.raises(DDSPError, match=r'no credentials for Google Cloud. Run gcloud auth'):
        run(service)
    assert time.monotonic() - started < 5
    assert not bucket_server.calls


def test_a_missing_bucket_is_told_before_anything_is_submitted(service, bucket_server):
    bucket_server.missing.add('bucket')
    with pytest.raises(DDSPError, match=r"no bucket 'bucket'.*gcloud storage buckets create gs://bucket"):
        run(service)
    assert not service.jobs


def interrupted_run(service):
    def interrupt(counters):
        raise KeyboardInterrupt

    engines.run(
        'dataflow', options_of(service), Write(), label=LABEL, follow=interrupt, tell=lambda text: None
    )


def test_ctrl_c_cancels_the_job(service):
    with pytest.raises(KeyboardInterrupt, match=f'{LABEL} was cancelled. Run the same command again'):
        interrupted_run(service)
    assert service.jobs['job-0']['ended'] == 'CANCELLED'


def test_a_job_that_cannot_be_cancelled_is_told_with_a_command(service):
    refusing(service, 403, 'not yours', method='PUT', path='job-0')
    command = 'gcloud dataflow jobs cancel job-0 --region=europe-west4 --project=my-project'
    with pytest.raises(KeyboardInterrupt, match=f'not yours.*goes on: {command}'):
        interrupted_run(service)


def test_ctrl_c_while_a_job_is_submitted_says_how_to_find_it(service):
    def interrupt(pipeline):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt, match=r'was being submitted.*same command finds it'):
        engines.run('dataflow', options_of(service), interrupt, label=LABEL, tell=lambda text: None)


@pytest.mark.parametrize(
    ('without', 'more', 'expected'),
    [
        ('project', [], 'Dataflow needs --project: ddsp prepare'),
        ('region', [], 'Dataflow needs --region'),
        ('temp_location', [], 'Dataflow needs --temp_location'),
        ('region', ['--region=europe-west4-a'], "a zone; its region is 'europe-west4'"),
        (
            'temp_location',
            ['--temp_location=/tmp/x'],
            "temp_location is '/tmp/x'; it must be a folder on gs://",
        ),
        ('temp_location', ['--temp_location=gs://b/tmp'], "temp_location is 'gs://b/tmp'; it must be"),
        ('temp_location', ['--temp_location=gs://bucket'], "temp_location is 'gs://bucket'; it must be"),
        ('sdk_container_image', [], '--sdk_container_image'),
        ('', ['--number_of_worker_harness_threads=8'], 'it must be 1'),
        ('', ['--f0_accelerator=nvidia-l4'], "must be like 'type:nvidia-l4;count:1'"),
    ],
)
def test_what_is_missing_or_wrong_is_told_at_once(service, monkeypatch, without, more, expected):
    for name in ('GOOGLE_CLOUD_PROJECT', 'CLOUDSDK_COMPUTE_REGION'):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ConfigError, match=expected):
        engines.check('dataflow', options_of(service, *more, without=without))
    assert not service.calls


def test_a_missing_client_is_one_line_with_the_command(service, monkeypatch):
    monkeypatch.setitem(sys.modules, 'google.cloud.dataflow', None)
    command = "pip install 'google-cloud-dataflow-client>=0.13,<0.14' 'google-api"
    with pytest.raises(DDSPError, match=f'google.cloud.dataflow is needed to submit.*Run: {command}'):
        engines.check('dataflow', options_of(service))


@pytest.mark.parametrize(
    ('root', 'sources', 'expected'),
    [
        ('data', ['gs://bucket/in'], "--output is 'data'.*must be on gs://"),
        ('gs://bucket/data', ['gs://bucket/in', 'recordings/'], "SOURCE is 'recordings/'.*gcloud storage cp"),
        ('gs://bucket/data', ['tfds:nsynth'], "SOURCE is 'tfds:nsynth'.*such as tfds:gs://BUCKET/"),
    ],
)
def test_places_that_workers_cannot_see_are_refused(root, sources, expected):
    from pipelines.beam import dataflow

    with pytest.raises(ConfigError, match=expected):
        dataflow.check_places(root, sources)
    dataflow.check_places(
        'gs://bucket/data', ['gs://bucket/in/*.wav', 'tfds:gs://bucket/nsynth/full/2.3.3', 'synthetic:60']
    )
