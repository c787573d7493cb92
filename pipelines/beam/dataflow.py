"""Dataflow: what a job of this project needs, how it is found again, and its failures in plain words."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterable
from typing import Any

from ddsp.errors import ConfigError, DDSPError, require
from pipelines.beam import jobs
from pipelines.beam.sdk import PipelineOptions, PipelineResult, beam

_views = beam.options.pipeline_options

_LAST_WORDS_SECS = 30.0  # the service tells why a job failed a while after it has failed
_LOGIN = 'gcloud auth application-default login'
_EXAMPLE = '-- --project=ID --region=europe-west4 --temp_location=gs://BUCKET/tmp --sdk_container_image=IMAGE'
_FOLDER = re.compile('gs://[a-z0-9][-_a-z0-9.]+[a-z0-9]/.')
_DEFAULTS: dict[type[PipelineOptions], dict[str, Any]] = {
    # NumPy keeps the core of its process: a second thread would only make both slower and need more memory.
    _views.DebugOptions: {'number_of_worker_harness_threads': 1},
    _views.WorkerOptions: {
        'autoscaling_algorithm': 'THROUGHPUT_BASED', 'max_num_workers': 16, 'machine_type': 'n2-standard-8',
        'disk_size_gb': 50,
    },
}  # fmt: skip


class JobOptions(PipelineOptions):
    """Options of this project beside Beam's."""

    @classmethod
    def _add_argparse_args(cls, parser: Any) -> None:
        parser.add_argument(
            '--f0_accelerator',
            help='GPU for the step that makes shards, such as type:nvidia-l4;count:1;install-nvidia-driver, '
            'for a pitch estimator that uses one: those of ddsp run on the processor.',
        )
        parser.add_argument('--f0_min_ram', help='Memory of a worker for that step, such as 16GB.')


def hints(options: PipelineOptions) -> dict[str, str]:
    """Hints for the step that makes shards: `beam.ParDo(...).with_resource_hints(**hints(options))`."""
    asked = options.view_as(JobOptions)
    found = {'accelerator': asked.f0_accelerator, 'min_ram': asked.f0_min_ram}
    return {name: value for name, value in found.items() if value}


def check_places(root: str, sources: Iterable[str]) -> None:
    """Raises where remote workers could not see the datasets or a source."""
    for option, place in (('--output', root), *(('SOURCE', source) for source in sources)):
        seen = ('gs://', 'synthetic:', 'tfds:gs://') if option == 'SOURCE' else ('gs://',)
        if place.startswith(seen):
            continue
        advice = ''
        if option == 'SOURCE' and place.startswith('tfds:'):
            advice = (
                ' Copy the folder of the prepared dataset there and name it, such as '
                'tfds:gs://BUCKET/nsynth/full/2.3.3.'
            )
        elif option == 'SOURCE':
            advice = f' Copy it there first: gcloud storage cp -r {place} gs://BUCKET/'
        raise ConfigError(
            f'{option} is {place!r}, which Dataflow workers cannot see: it must be on gs://.{advice}'
        )


def complete(options: PipelineOptions) -> None:
    """Adds what a job needs to the options given.

    Raises:
      ConfigError: Something is missing or cannot work.
    """
    require('google.cloud.dataflow', 'to submit jobs to Dataflow')
    cloud, workers, setup = (
        options.view_as(v) for v in (_views.GoogleCloudOptions, _views.WorkerOptions, _views.SetupOptions)
    )
    cloud.project = cloud.project or os.environ.get('GOOGLE_CLOUD_PROJECT')
    cloud.region = cloud.region or os.environ.get('CLOUDSDK_COMPUTE_REGION')
    needed = {'project': cloud.project, 'region': cloud.region, 'temp_location': cloud.temp_location}
    missing = [f'--{name}' for name, value in needed.items() if not value]
    if missing:
        raise ConfigError(f'Dataflow needs {" and ".join(missing)}: ddsp prepare ... {_EXAMPLE}')
    if zone := re.fullmatch(r'([a-z]+-[a-z]+\d+)-[a-z]', cloud.region):
        raise ConfigError(f'region is {cloud.region!r}, a zone; its region is {zone[1]!r}.')
    cloud.staging_location = cloud.staging_location or cloud.temp_location
    for name in ('temp_location', 'staging_location'):
        place = getattr(cloud, name)
        if not _FOLDER.match(place):  # Beam would make a bucket of its own, or wait two minutes for it
            raise ConfigError(
                f'{name} is {place!r}; it must be a folder on gs://, such as gs://my-bucket/tmp.'
            )
    if not (workers.sdk_container_image or setup.setup_file or setup.extra_packages):
        raise ConfigError(
            'the workers would not have this package: name an image with --sdk_container_image (infra/docker '
            'builds one), or, for a trial, --setup_file=./setup.py.'
        )
    if (threads := options.view_as(_views.DebugOptions).number_of_worker_harness_threads) not in (None, 1):
        raise ConfigError(
            f'number_of_worker_harness_threads is {threads}; it must be 1: each thread would need a core and '
            'the memory of a process. --machine_type sets the number of processes, one for each core.'
        )
    accelerator = options.view_as(JobOptions).f0_accelerator
    if accelerator and not re.fullmatch(r'type:[\w-]+;count:\d+(;[\w:.-]+)*', accelerator):
        raise ConfigError(f"f0_accelerator is {accelerator!r}; it must be like 'type:nvidia-l4;count:1'.")
    for view, defaults in _DEFAULTS.items():
        for name, value in defaults.items():
            if getattr(options.view_as(view), name) is None:
                setattr(options.view_as(view), name, value)
    if workers.use_public_ips is None and workers.subnetwork:
        workers.use_public_ips = False  # a network of one's own has Private Google Access or can get it
    if workers.sdk_container_image and setup.sdk_location == 'default':
        setup.sdk_location = 'container'
    cloud.labels = [*(cloud.labels or []), 'application=ddsp']


def submit(
    options: PipelineOptions, construct: Callable[[beam.Pipeline], None], tell: Callable[[str], None]
) -> PipelineResult:
    """Submits a job, or finds the one of the same name that is running; nothing is staged for that."""
    from apache_beam.runners.dataflow.internal.apiclient import DataflowJobAlreadyExistsError
    from google.api_core.exceptions import Conflict

    _check_credentials(options)
    _check_buckets(options)
    result, found = _running(options), 'is running already and is followed'
    if result is None:
        try:
            result, found = jobs.assemble(options, construct).run(), 'was submitted'
        except (Conflict, DataflowJobAlreadyExistsError):
            result = _running(options)
            if result is None:
                raise
    name = options.view_as(_views.GoogleCloudOptions).job_name
    tell(f'The Dataflow job {name} {found}: {address(result, options)}')
    return result


def describe(options: PipelineOptions, construct: Callable[[beam.Pipeline], None]) -> dict[str, Any]:
    """What the service would get; nothing is staged, and neither network nor credentials are needed."""
    from apache_beam.runners.dataflow.internal import apiclient
    from google.protobuf import json_format

    options.view_as(_views.TestOptions).dry_run = True
    job = jobs.assemble(options, construct).run().job  # type: ignore[attr-defined] # of a dry run
    environment = apiclient.Environment(
        packages=[], options=job.options, environment_version='8', proto_pipeline=job.proto_pipeline,
        proto_pipeline_staged_url=f'{job.google_cloud_options.staging_location}/pipeline.pb',
    )  # fmt: skip
    request = json_format.MessageToDict(environment.proto._pb)
    (pool,) = request['workerPools']
    images = sorted({image['containerImage'] for image in pool.pop('sdkHarnessContainerImages')})
    for name in ('taskrunnerSettings', 'workerHarnessContainerImage', 'packages', 'kind'):
        pool.pop(name, None)
    cloud = job.google_cloud_options
    return {
        'project': cloud.project, 'region': cloud.region, 'temp_location': cloud.temp_location,
        'image': ', '.join(images), 'workers': pool,
        'labels': list(cloud.labels), 'service_account': cloud.service_account_email,
        'flexrs_goal': cloud.flexrs_goal, 'experiments': request.get('experiments', []),
        'service_options': request.get('serviceOptions', []),
        'hints': hints(options), 'steps': jobs.steps_of(job.proto_pipeline),
    }  # fmt: skip


def address(result: PipelineResult, options: PipelineOptions) -> str:
    """Where a job is seen in the browser."""
    cloud, job = options.view_as(_views.GoogleCloudOptions), _job_id(result)
    place = f'https://console.cloud.google.com/dataflow/jobs/{cloud.region}/{job}'
    return f'{place}?project={cloud.project}'


def _job_id(result: PipelineResult) -> str:
    return result.job_id()  # type: ignore[attr-defined] # Dataflow's has one


def cancel_command(result: PipelineResult, options: PipelineOptions) -> str:
    """The command that cancels a job from anywhere."""
    cloud = options.view_as(_views.GoogleCloudOptions)
    return f'gcloud dataflow jobs cancel {_job_id(result)} --region={cloud.region} --project={cloud.project}'


def explain(
    error: Exception, options: PipelineOptions, result: PipelineResult | None = None, state: str = ''
) -> DDSPError:
    """One sentence for a failure of the service, with what to do; `state` is that of a job that has ended."""
    if result is not None and state:
        where = f'Its page: {address(result, options)}'
        if state == 'CANCELLED':
            return DDSPError(f'the Dataflow job was cancelled. {jobs.AGAIN} {where}')
        reasons = '; '.join(_last_words(result)) or f'the service gave no reason ({state})'
        return DDSPError(f'the Dataflow job failed: {reasons}. {jobs.AGAIN} {where}')
    cloud = options.view_as(_views.GoogleCloudOptions)
    again = 'then run the same command again'
    if result is not None:
        again += f': it finds the job, which goes on ({address(result, options)})'
    code, told = getattr(error, 'code', None), _told(error)
    credentials = type(error).__module__ == 'google.auth.exceptions' or 'metadata from plugin' in told
    if credentials or code == 401:
        return DDSPError(f'Google Cloud does not accept the credentials ({told}). Run {_LOGIN}, {again}.')
    if code == 409:
        return DDSPError(
            f'a job named {cloud.job_name} is there and is ending ({told}). Wait for its end, {again}.'
        )
    if code == 429 or (code == 403 and 'quota' in told.lower()):
        return DDSPError(
            f'a quota of the project {cloud.project} is used up ({told}). Lower --max_num_workers, take '
            f'another --region or ask for more (https://console.cloud.google.com/iam-admin/quotas), {again}.'
        )
    if code == 403:
        return DDSPError(
            f'no permission in the project {cloud.project} ({told}). Ask its owner for the roles in '
            f'infra/README.md, such as roles/dataflow.developer, {again}.'
        )
    if code in (400, 404):
        return DDSPError(
            f'Dataflow does not accept the job in {cloud.region} of {cloud.project} ({told}). Compare '
            f"--region with 'gcloud compute regions list' and --project with 'gcloud projects list', {again}."
        )
    if isinstance(code, int) and code >= 500:
        return DDSPError(f'Dataflow does not answer ({code}: {told}), also when asked again. Wait, {again}.')
    return DDSPError(f'the job cannot be submitted: {jobs.cause(told)}. Put that right, {again}.')


def _told(error: Exception) -> str:
    """What the service said, without the request."""
    text = str(getattr(error, 'message', '') or error)
    return ' '.join(re.sub(r'^[A-Z]+ https?://\S+: ', '', text).split())[:500].rstrip('.')


def _last_words(result: PipelineResult) -> list[str]:
    """The last errors that the service reports of a job; those with a traceback are the user's own."""
    client = result._runner.dataflow_client  # type: ignore[attr-defined]
    end = time.monotonic() + _LAST_WORDS_SECS
    while True:
        found, _ = client.list_messages(_job_id(result), minimum_importance='JOB_MESSAGE_ERROR')
        texts = [message.message_text for message in found]
        if texts or time.monotonic() > end:
            break
        time.sleep(2)
    best = [text for text in texts if 'Traceback' in text] or texts
    return list(dict.fromkeys(jobs.cause(text) for text in best))[-2:]


def _running(options: PipelineOptions) -> PipelineResult | None:
    """The job of this name that the service is working on."""
    from apache_beam.runners.dataflow.dataflow_metrics import DataflowMetrics
    from apache_beam.runners.dataflow.dataflow_runner import DataflowPipelineResult, DataflowRunner
    from apache_beam.runners.dataflow.internal.apiclient import DataflowApplicationClient
    from google.cloud import dataflow

    cloud, runner = options.view_as(_views.GoogleCloudOptions), DataflowRunner()
    runner.dataflow_client = DataflowApplicationClient(options)
    request = dataflow.ListJobsRequest(
        project_id=cloud.project, location=cloud.region, name=cloud.job_name,
        filter=dataflow.ListJobsRequest.Filter.ACTIVE,
    )  # fmt: skip
    ending = (dataflow.JobState.JOB_STATE_CANCELLING, dataflow.JobState.JOB_STATE_CANCELLED)
    for job in runner.dataflow_client._jobs_client.list_jobs(request):
        if job.name == cloud.job_name and job.current_state not in ending:
            result = DataflowPipelineResult(job, runner, options)
            result.metric_results = DataflowMetrics(runner.dataflow_client, result, None)
            return result
    return None


def _check_credentials(options: PipelineOptions) -> None:
    """Raises at once where Beam would look for credentials for half a minute and go on without."""
    import google.auth
    from google.auth.exceptions import DefaultCredentialsError, GoogleAuthError
    from google.auth.transport.requests import Request

    cloud = options.view_as(_views.GoogleCloudOptions)
    if cloud.no_auth:
        return
    try:
        credentials, _ = google.auth.default(scopes=cloud.gcp_oauth_scopes)
        if not credentials.valid:
            credentials.refresh(Request())
    except DefaultCredentialsError as error:
        raise DDSPError(
            f'there are no credentials for Google Cloud. Run {_LOGIN}, or set GOOGLE_APPLICATION_CREDENTIALS '
            'to the key file of a service account, then run the same command again.'
        ) from error
    except GoogleAuthError as error:
        raise explain(error, options) from error


def _check_buckets(options: PipelineOptions) -> None:
    """Raises where a bucket that Beam stages into is missing."""
    from apache_beam.io.gcp.gcsio import GcsIO

    cloud = options.view_as(_views.GoogleCloudOptions)
    for place in filter(None, (cloud.temp_location, cloud.staging_location)):
        bucket = place.split('/')[2]
        if GcsIO(pipeline_options=options).get_bucket(bucket) is None:
            raise DDSPError(
                f'there is no bucket {bucket!r}, which {place} is in. Create it: '
                f'gcloud storage buckets create gs://{bucket} --project={cloud.project} '
                f'--location={cloud.region}'
            )
