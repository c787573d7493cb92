"""Jobs on Vertex AI, as CustomJobs.

The services are asked by their REST interface with Google's library for credentials: their own client takes
five seconds to import and brings 120 MB. A test compares what is sent with what that client sends.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterator
from typing import Any, ClassVar

from ddsp.errors import ConfigError, require
from experiments.launch import customjob
from experiments.launch.executor import Executor, State
from experiments.launch.job import Job, LaunchError

_STATES = {
    'QUEUED': State.WAITING, 'PENDING': State.WAITING, 'PAUSED': State.WAITING, 'RUNNING': State.RUNNING,
    'UPDATING': State.RUNNING, 'CANCELLING': State.RUNNING, 'SUCCEEDED': State.DONE,
    'PARTIALLY_SUCCEEDED': State.DONE, 'FAILED': State.FAILED, 'EXPIRED': State.FAILED,
    'CANCELLED': State.CANCELLED,
}  # fmt: skip
_SCOPE = 'https://www.googleapis.com/auth/cloud-platform'
_SIGN_IN = 'sign in by gcloud auth application-default login, or name a key in GOOGLE_APPLICATION_CREDENTIALS'
_POLL_SECONDS = 10.0
_TIMEOUT = (10, 60)


class Vertex(Executor):
    """Jobs on Vertex AI.

    A handle is `projects/PROJECT/locations/REGION/customJobs/ID`, where workers that are independent of each
    other have their IDs with commas between.
    """

    name: ClassVar[str] = 'vertex'
    options: ClassVar[dict[str, str]] = customjob.OPTIONS

    def describe(self, job: Job) -> str:
        """The CustomJob, or several of them, as JSON."""
        jobs = customjob.custom_jobs(job)
        return json.dumps(jobs[0] if len(jobs) == 1 else jobs, indent=2)

    def submit(self, job: Job) -> str:
        """Creates the CustomJobs: all, or none where one is refused."""
        jobs = customjob.custom_jobs(job)
        region = job.options.get('region', '')
        if not re.fullmatch(r'[a-z]+-[a-z]+\d+', region):
            raise ConfigError(f'the region is {region!r}; expected --set region=NAME, such as europe-west4')
        google = _Google(region)
        parent = f'projects/{job.options.get("project") or google.project}/locations/{region}'
        made: list[str] = []
        try:
            for each in jobs:
                answer = google.vertex('POST', f'{parent}/customJobs', each)
                made.append(str(answer['name']).rpartition('/')[2])
        except LaunchError:
            for one in made:  # some workers of a sweep alone would go unnoticed
                google.vertex('POST', f'{parent}/customJobs/{one}:cancel', {})
            raise
        return f'{parent}/customJobs/{",".join(made)}'

    def state(self, handle: str) -> State:
        """What the service says."""
        google, names = _find(handle)
        return _joint([_state(google.job(name)) for name in names])

    def logs(self, handle: str, follow: bool = False) -> Iterator[str]:
        """Lines from Cloud Logging, some seconds late, and why a job failed."""
        google, names = _find(handle)
        reading = _Reading(google, names)
        ended = False
        while True:
            found = [google.job(name) for name in names]
            if not any(found):
                raise LaunchError(
                    f'Vertex AI has no job {handle}; those that it has: gcloud ai custom-jobs list --region='
                )
            yield from reading.lines(found)
            if ended or not follow:
                yield from _last_words(found)
                return
            ended = _joint([_state(one) for one in found]).ended  # the last lines arrive some seconds later
            time.sleep(_POLL_SECONDS)

    def cancel(self, handle: str) -> None:
        """Asks the service to end what has not ended."""
        google, names = _find(handle)
        for name in names:
            found = google.job(name)
            if found is not None and not _state(found).ended:
                google.vertex('POST', f'{name}:cancel', {})

    def address(self, handle: str) -> str:
        """Page of the job, or of the list of jobs."""
        _, project, _, region, _, ids = _parts(handle)[0].split('/')
        console = 'https://console.cloud.google.com/vertex-ai'
        if ',' in ids:
            return f'{console}/training/custom-jobs?project={project}'
        return f'{console}/locations/{region}/training/{ids}?project={project}'


def _find(handle: str) -> tuple[_Google, list[str]]:
    match = _parts(handle)
    return _Google(match[2]), [f'{match[1]}/{one}' for one in match[3].split(',')]


def _parts(handle: str) -> re.Match[str]:
    match = re.fullmatch(r'(projects/[^/]+/locations/([^/]+)/customJobs)/(\d+(?:,\d+)*)', handle)
    if match is None:
        raise LaunchError(
            f'the job is {handle!r}; expected projects/PROJECT/locations/REGION/customJobs/ID, as submitting '
            'printed it'
        )
    return match


def _state(found: dict[str, Any] | None) -> State:
    told = str((found or {}).get('state', '')).removeprefix('JOB_STATE_')
    return _STATES.get(told, State.UNKNOWN)


def _joint(states: list[State]) -> State:
    """Where several jobs stand that are one for the user."""
    if any(state.going_on for state in states):
        begun = any(state is State.RUNNING or state.ended for state in states)
        return State.RUNNING if begun else State.WAITING
    for state in (State.FAILED, State.CANCELLED, State.UNKNOWN):
        if state in states:
            return state
    return State.DONE


def _last_words(jobs: list[dict[str, Any] | None]) -> Iterator[str]:
    """Why jobs failed, in the service's words."""
    for number, job in enumerate(jobs):
        if job and job.get('error'):
            yield f'[{number}] ({_one_line(job["error"].get("message", "failed"))})'


class _Reading:
    """How far the logs of some jobs were read."""

    def __init__(self, google: _Google, names: list[str]) -> None:
        self._google = google
        self._ids = [name.rpartition('/')[2] for name in names]
        self._resource = '/'.join(names[0].split('/')[:2])
        self._since = ''
        self._seen: set[str] = set()

    def lines(self, jobs: list[dict[str, Any] | None]) -> Iterator[str]:
        """Lines since the last time. The last ones are asked for again: workers do not write in order."""
        since = self._since or min(job['createTime'] for job in jobs if job)
        wanted = ' OR '.join(f'"{one}"' for one in self._ids)
        question = {
            'resourceNames': [self._resource],
            'filter': f'resource.type="ml_job" resource.labels.job_id=({wanted}) timestamp>="{since}"',
            'orderBy': 'timestamp asc',
            'pageSize': 1000,
        }
        now = time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime(time.time() - 120))
        while True:
            answer = self._google.logging('POST', 'entries:list', question)
            for entry in answer.get('entries', []):
                if entry['insertId'] not in self._seen:
                    self._seen.add(entry['insertId'])
                    yield self._line(entry)
            if not answer.get('nextPageToken'):
                break
            question['pageToken'] = answer['nextPageToken']
        self._since = max(since, now)

    def _line(self, entry: dict[str, Any]) -> str:
        payload = entry.get('jsonPayload', {})
        text = str(entry.get('textPayload', payload.get('message', ''))).rstrip('\n')
        labels = {**entry.get('labels', {}), **entry.get('resource', {}).get('labels', {})}
        task = re.fullmatch(r'workerpool(\d)-(\d+)', labels.get('task_name', ''))
        if task is None:
            return text  # the service itself speaks
        number = int(task[1]) + int(task[2])  # the chief is alone in the first pool
        return f'[{number + self._ids.index(labels["job_id"])}] {text}'


class _Google:
    """Two services of Google: Vertex AI in a region, and Cloud Logging."""

    def __init__(self, region: str) -> None:
        purpose = 'to run jobs on Vertex AI'
        auth = require('google.auth', purpose)
        self._requests = require('requests', purpose)
        session = require('google.auth.transport.requests', purpose).AuthorizedSession
        self._errors = auth.exceptions
        try:
            credentials, self._project = auth.default(scopes=[_SCOPE])
        except auth.exceptions.DefaultCredentialsError as error:
            raise LaunchError(
                f'there are no credentials for Google Cloud ({_one_line(error)}); {_SIGN_IN}'
            ) from None
        self._session = session(credentials)
        from urllib3.util import Retry

        # Questions are repeated where the service is busy; what changes something is not.
        again = Retry(
            total=3, backoff_factor=0.5, status_forcelist=(429, 503), allowed_methods=['GET'],
            raise_on_status=False,
        )  # fmt: skip
        for scheme in ('https://', 'http://'):
            self._session.mount(scheme, self._requests.adapters.HTTPAdapter(max_retries=again))
        # The variables by which gcloud finds private endpoints.
        self._vertex = os.environ.get(
            'CLOUDSDK_API_ENDPOINT_OVERRIDES_AIPLATFORM', f'https://{region}-aiplatform.googleapis.com/'
        )
        self._logging = os.environ.get(
            'CLOUDSDK_API_ENDPOINT_OVERRIDES_LOGGING', 'https://logging.googleapis.com/'
        )

    @property
    def project(self) -> str:
        """The project of the credentials."""
        found = os.environ.get('GOOGLE_CLOUD_PROJECT') or self._project
        if not found:
            raise ConfigError('the project is not known; name it with --set project=')
        return found

    def job(self, name: str) -> dict[str, Any] | None:
        """A CustomJob; None where there is none."""
        return self._call('GET', f'{self._vertex}v1/{name}', None, missing_ok=True)

    def vertex(self, method: str, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """Asks Vertex AI."""
        return self._call(method, f'{self._vertex}v1/{path}', body) or {}

    def logging(self, method: str, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """Asks Cloud Logging."""
        return self._call(method, f'{self._logging}v2/{path}', body) or {}

    def _call(
        self, method: str, url: str, body: dict[str, Any] | None, missing_ok: bool = False
    ) -> dict[str, Any] | None:
        try:
            answer = self._session.request(method, url, json=body, timeout=_TIMEOUT)
        except self._errors.RefreshError as error:
            raise LaunchError(
                f'the credentials of Google Cloud have expired ({_one_line(error)}); {_SIGN_IN}'
            ) from None
        except (self._errors.TransportError, self._requests.RequestException) as error:
            raise LaunchError(
                f'{url.split("/")[2]} does not answer ({_one_line(error)}); is the region right, and does '
                'this machine reach Google Cloud?'
            ) from None
        if answer.status_code == 404 and missing_ok:
            return None
        if answer.status_code >= 400:
            raise LaunchError(_explain(answer))
        return answer.json()


def _explain(answer: Any) -> str:
    try:
        told = answer.json()['error']
    except (ValueError, KeyError, TypeError):
        told = {}
    said, status = _one_line(told.get('message') or answer.text or answer.reason), answer.status_code
    off = any(detail.get('reason') == 'SERVICE_DISABLED' for detail in told.get('details', []))
    if off:
        return (
            f'{said}; switch it on: gcloud services enable aiplatform.googleapis.com logging.googleapis.com'
        )
    if status == 401:
        return f'Google Cloud does not accept the credentials ({said}); {_SIGN_IN}'
    if status == 403:
        return (
            f'{said}; whoever submits needs roles/aiplatform.user and roles/logging.viewer, and '
            'roles/iam.serviceAccountUser on the service account of the workload'
        )
    if status == 404:
        return f'{said}; check --set project= and --set region='
    if status == 429:
        return f'{said}; ask for more quota, or take fewer or other machines, --spot or another region'
    if status >= 500:
        return f'Google Cloud cannot do it now ({said}); try again in a minute'
    return f'Vertex AI refused it: {said}'


def _one_line(text: Any) -> str:
    return ' '.join(str(text).split())[:300].rstrip('. ')
