"""Jobs on Kubernetes, as JobSets."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterator
from typing import Any, ClassVar

from ddsp.errors import require
from experiments.launch import jobset
from experiments.launch.executor import Executor, State
from experiments.launch.job import Job, LaunchError

_GROUP, _VERSION = jobset.API.split('/')
_INSTALL_JOBSET = (
    'JobSet is not installed in this cluster: kubectl apply --server-side -f https://github.com/kubernetes-sigs/'
    'jobset/releases/download/v0.12.0/manifests.yaml'
)
_POLL_SECONDS = 5.0
# For connecting, and for each piece of an answer.
_TIMEOUT = (10, 60)
_WAITING = {'ContainerCreating', 'PodInitializing'}


class Kubernetes(Executor):
    """Jobs on Kubernetes: a JobSet each, driven with kubeconfig as kubectl is.

    A handle is `[CONTEXT/]NAMESPACE/NAME`.
    """

    name: ClassVar[str] = 'kubernetes'
    options: ClassVar[dict[str, str]] = jobset.OPTIONS

    def describe(self, job: Job) -> str:
        """The JobSet as YAML."""
        yaml = require('yaml', 'to write a JobSet')
        return yaml.safe_dump(jobset.jobset(job), sort_keys=False, width=110)

    def submit(self, job: Job) -> str:
        """Creates a JobSet."""
        body = jobset.jobset(job)
        cluster = _Cluster(job.options.get('context', ''))
        namespace = job.options.get('namespace') or cluster.namespace
        with cluster.errors(f'JobSet {job.name} in namespace {namespace}', 'create'):
            cluster.jobsets('create', namespace, body=body, field_validation='Strict')
        return '/'.join(filter(None, [cluster.context, namespace, job.name]))

    def state(self, handle: str) -> State:
        """What JobSet and pods say."""
        cluster, namespace, name = _find(handle)
        found = cluster.read(namespace, name)
        if found is None:
            return State.UNKNOWN
        ended = {'Completed': State.DONE, 'Failed': State.FAILED}.get(
            found.get('status', {}).get('terminalState', '')
        )
        if ended:
            return ended
        if found['metadata'].get('deletionTimestamp'):
            return State.CANCELLED
        running = any(pod.status.phase in ('Running', 'Succeeded') for pod in cluster.pods(namespace, name))
        return State.RUNNING if running else State.WAITING

    def logs(self, handle: str, follow: bool = False) -> Iterator[str]:
        """Lines of all pods, and why they wait or ended; pods that were started again are followed, too."""
        cluster, namespace, name = _find(handle)
        seen: dict[str, _Reading] = {}
        warned: set[str] = set()
        while True:
            # Asked for before the logs are read: what is written in between is not missed.
            state = self.state(handle)
            if state is State.UNKNOWN and not seen:
                raise LaunchError(
                    f'there is no JobSet {name} in namespace {namespace}; those that are there: kubectl get '
                    f'jobsets -n {namespace}'
                )
            pods = cluster.pods(namespace, name)
            if not pods and not state.ended:
                warnings = [one for one in cluster.warnings(namespace, name) if one not in warned]
                warned.update(warnings)
                yield from warnings
            for pod in pods:
                reading = seen.setdefault(pod.metadata.uid, _Reading(pod))
                yield from (f'[{reading.index}] {line}' for line in reading.lines(cluster, pod))
            if not (follow and state.going_on):
                return
            time.sleep(_POLL_SECONDS)

    def cancel(self, handle: str) -> None:
        """Deletes the JobSet and with it its pods and logs."""
        cluster, namespace, name = _find(handle)
        found = cluster.read(namespace, name)
        if found is None or found.get('status', {}).get('terminalState'):
            return  # an ended JobSet keeps its logs until somebody deletes it
        with cluster.errors(f'JobSet {name} in namespace {namespace}', 'delete'):
            cluster.jobsets('delete', namespace, name=name)


class _Reading:
    """How far the log of a pod was read."""

    def __init__(self, pod: Any) -> None:
        labels = {**(pod.metadata.annotations or {}), **(pod.metadata.labels or {})}
        self.index = labels.get('batch.kubernetes.io/job-completion-index', '0')
        self._last = ''  # time of the last line: the service writes nanoseconds in front of each
        self._asked = 0.0
        self._said: set[str] = set()

    def lines(self, cluster: _Cluster, pod: Any) -> Iterator[str]:
        """Lines since the last time, then what the cluster says about the pod and did not say before."""
        if pod.status.phase in ('Running', 'Succeeded', 'Failed'):
            asked, now = self._asked, time.monotonic()
            since = {'since_seconds': int(now - asked) + 10} if asked else {}
            for line in cluster.log(pod, **since).splitlines():
                moment, _, text = line.partition(' ')
                if moment > self._last:
                    self._last = moment
                    yield text
            self._asked = now
        for remark in _remarks(pod):
            if remark not in self._said:
                self._said.add(remark)
                yield remark


def _remarks(pod: Any) -> Iterator[str]:
    """What the logs do not tell: why a pod waits, and how it ended."""
    for condition in pod.status.conditions or []:
        if condition.type == 'PodScheduled' and condition.status == 'False':
            yield f'(waits for a node: {condition.message})'
    for container in pod.status.container_statuses or []:
        waiting, ended = container.state.waiting, container.state.terminated
        if waiting and waiting.reason not in _WAITING:
            yield f'(waits: {waiting.reason}{f": {waiting.message}" if waiting.message else ""})'
        if ended and ended.exit_code:
            yield f'(ended with exit status {ended.exit_code}, {ended.reason})'


class _Cluster:
    """The API of a cluster that kubeconfig names, or that this process runs in."""

    def __init__(self, context: str) -> None:
        self._client = require('kubernetes.client', 'to run jobs on Kubernetes')
        config = require('kubernetes.config', 'to run jobs on Kubernetes')
        settings = self._client.Configuration()
        try:
            self.context, self.namespace = _configure(config, settings, context)
        except (config.ConfigException, OSError, TypeError) as error:
            raise LaunchError(
                f'no cluster is configured ({_one_line(error)}); sign in, such as by gcloud container '
                'clusters get-credentials CLUSTER, or name a file in KUBECONFIG and a context with '
                '--set context=NAME'
            ) from None
        from urllib3.util import Retry

        # Questions are repeated where the cluster is busy; what changes something is not.
        settings.retries = Retry(
            total=3, backoff_factor=0.5, status_forcelist=(429, 503), allowed_methods=['GET'],
            raise_on_status=False,
        )  # fmt: skip
        self.server = settings.host
        api = self._client.ApiClient(settings)
        self._objects, self._core = self._client.CustomObjectsApi(api), self._client.CoreV1Api(api)

    def jobsets(self, verb: str, namespace: str, **arguments: Any) -> Any:
        """Creates, gets or deletes a JobSet."""
        call = getattr(self._objects, f'{verb}_namespaced_custom_object')
        return call(_GROUP, _VERSION, namespace, 'jobsets', _request_timeout=_TIMEOUT, **arguments)

    def read(self, namespace: str, name: str) -> dict[str, Any] | None:
        """A JobSet; None where there is none."""
        with self.errors(f'JobSet {name} in namespace {namespace}', 'get'):
            try:
                return self.jobsets('get', namespace, name=name)
            except self._client.ApiException as error:
                if error.status == 404 and _answer(error).get('details', {}).get('name') == name:
                    return None
                raise

    def pods(self, namespace: str, name: str) -> list[Any]:
        """The pods of a JobSet, by their index and age."""
        with self.errors(f'the pods of {name} in namespace {namespace}', 'list'):
            found = self._core.list_namespaced_pod(
                namespace, label_selector=f'jobset.sigs.k8s.io/jobset-name={name}', _request_timeout=_TIMEOUT
            ).items
        return sorted(found, key=lambda pod: (int(_Reading(pod).index), str(pod.metadata.creation_timestamp)))

    def warnings(self, namespace: str, name: str) -> list[str]:
        """Why a JobSet has no pods: a quota, or a mistake that only shows when its Job is made."""
        with self.errors(f'the events of {name} in namespace {namespace}', 'list'):
            found = self._core.list_namespaced_event(
                namespace, field_selector='type=Warning', _request_timeout=_TIMEOUT
            ).items
        concerned = {name, f'{name}-worker-0'}
        return [
            f'({event.reason}: {_one_line(event.message)})'
            for event in found
            if event.involved_object.name in concerned
        ]

    def log(self, pod: Any, **since: int) -> str:
        """The log of a pod with the time before each line; '' where it is gone or has not begun."""
        name, namespace = pod.metadata.name, pod.metadata.namespace
        with self.errors(f'the log of pod {name} in namespace {namespace}', 'get'):
            try:
                answer = self._core.read_namespaced_pod_log(
                    name, namespace, container=jobset.CONTAINER, timestamps=True, _preload_content=False,
                    _request_timeout=_TIMEOUT, **since,
                )  # fmt: skip
            except self._client.ApiException as error:
                if error.status in (400, 404):
                    return ''
                raise
        return answer.data.decode(errors='replace')

    @contextlib.contextmanager
    def errors(self, what: str, verb: str) -> Iterator[None]:
        """Makes one sentence of what goes wrong."""
        from urllib3.exceptions import HTTPError

        try:
            yield
        except self._client.ApiException as error:
            raise LaunchError(_explain(error, what, verb, self.server)) from None
        except HTTPError as error:
            reason = getattr(error, 'reason', None) or error
            raise LaunchError(
                f'the cluster at {self.server} does not answer ({_one_line(reason)}); is it running, and '
                'does this machine reach it (VPN, kubectl cluster-info)?'
            ) from None


def _find(handle: str) -> tuple[_Cluster, str, str]:
    """Cluster, namespace and name. Names of contexts may have slashes."""
    context, namespace, name = ['', '', *handle.rsplit('/', 2)][-3:]
    if not namespace:
        raise LaunchError(f'the job is {handle!r}; expected [CONTEXT/]NAMESPACE/NAME, as it was printed')
    return _Cluster(context), namespace, name


def _configure(config: Any, settings: Any, context: str) -> tuple[str, str]:
    """Fills in the client's settings; returns the context ('' inside a cluster) and its namespace."""
    file = os.environ.get('KUBECONFIG') or os.path.expanduser('~/.kube/config')
    if (
        'KUBECONFIG' not in os.environ
        and not os.path.exists(file)
        and 'KUBERNETES_SERVICE_HOST' in os.environ
    ):
        config.load_incluster_config(client_configuration=settings)
        return '', 'default'
    contexts, current = config.list_kube_config_contexts(config_file=file)
    chosen = next((one for one in contexts if one['name'] == context), current)
    config.load_kube_config(
        config_file=file, context=context or None, client_configuration=settings, persist_config=False
    )
    return chosen['name'], chosen['context'].get('namespace') or 'default'


def _answer(error: Any) -> dict[str, Any]:
    """The Status that the cluster answered with."""
    try:
        found = json.loads(error.body)
    except (TypeError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _explain(error: Any, what: str, verb: str, server: str) -> str:
    said = _one_line(_answer(error).get('message') or error.body or error.reason)
    if error.status == 401:
        return (
            f'the cluster at {server} does not accept the credentials of kubeconfig; sign in again, such as '
            'by gcloud container clusters get-credentials CLUSTER'
        )
    if error.status == 403:
        return f'{what}: {said}; ask for a role that may {verb} it, or take another --set namespace='
    if error.status == 404 and not _answer(error).get('details'):
        return _INSTALL_JOBSET
    if error.status == 404:
        return f'{what}: {said}; kubectl get namespaces lists what is there'
    if error.status == 409:
        _, name, _, _, namespace = what.split()
        return (
            f'{what} exists already; take another --name, or remove it: kubectl delete jobset {name} -n '
            f'{namespace}'
        )
    if error.status in (429, 500, 502, 503, 504):
        return f'{what}: the cluster cannot do it now ({said}); try again in a minute'
    return f'{what}: the cluster refused it: {said}'


def _one_line(text: Any) -> str:
    return ' '.join(str(text).split())[:300].rstrip('. ')
