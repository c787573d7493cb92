"""A small Kubernetes API on loopback: JobSets, checked by the schema of their CRD, pods and their logs.

It keeps what it is asked to run and runs nothing: tests say how the pods and the JobSet go.
"""

from __future__ import annotations

import datetime
import json
import pathlib
import re
import threading
import urllib.parse
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import jsonschema
import kubernetes_validate
import yaml

SCHEMA = yaml.safe_load((pathlib.Path(__file__).parent / 'jobset_schema.yaml').read_text())
# The oldest and the newest Kubernetes whose schema is asked.
VERSIONS = ('1.30', '1.37')


def check_jobset(manifest: dict) -> None:
    """Raises a ValidationError of jsonschema or kubernetes_validate."""
    jsonschema.validate(manifest, SCHEMA)
    for each in manifest['spec']['replicatedJobs']:
        job = {
            'apiVersion': 'batch/v1',
            'kind': 'Job',
            'metadata': {'name': each['name']},
            **each['template'],
        }
        for version in VERSIONS:
            kubernetes_validate.validate(job, version, strict=True)


class Server(ThreadingHTTPServer):
    """The service.

    Attributes:
      jobsets: JobSets by namespace and name.
      pods: Pods by the name of their JobSet.
      written: Lines of the log of each pod.
      warnings: Events as (name, reason, message).
      calls: (method, path, query) of all requests.
      refuse: Asked before each request with (method, path); (status, content) refuses it.
      token: What a request must carry.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(('127.0.0.1', 0), _Handler)
        self.jobsets: dict[tuple[str, str], dict] = {}
        self.pods: dict[str, list[dict]] = {}
        self.written: dict[str, list[str]] = {}
        self.warnings: list[tuple[str, str, str]] = []
        self.calls: list[tuple[str, str, dict[str, str]]] = []
        self.refuse: Callable[[str, str], tuple[int, str | dict] | None] = lambda method, path: None
        self.token = 'a'
        self.lock = threading.Lock()
        self.clock = datetime.datetime.now(datetime.UTC)

    def kubeconfig(self, port: int | None = None) -> dict:
        """A configuration with this service in the context 'here/one'."""
        cluster = {'server': f'http://127.0.0.1:{port or self.server_address[1]}'}
        return {
            'apiVersion': 'v1', 'kind': 'Config', 'current-context': 'here/one',
            'clusters': [{'name': 'c', 'cluster': cluster}],
            'users': [{'name': 'u', 'user': {'token': 'a'}}],
            'contexts': [
                {'name': 'here/one', 'context': {'cluster': 'c', 'user': 'u', 'namespace': 'music'}},
                {'name': 'two', 'context': {'cluster': 'c', 'user': 'u'}},
            ],
        }  # fmt: skip

    def add_pod(self, jobset: str, index: int, phase: str = 'Running', **status: object) -> dict:
        """A pod of a JobSet, as the cluster would make it."""
        self.clock += datetime.timedelta(seconds=1)
        name = f'{jobset}-worker-0-{index}-{len(self.pods.get(jobset, []))}'
        key = 'batch.kubernetes.io/job-completion-index'
        pod = {
            'metadata': {
                'name': name, 'namespace': 'music', 'uid': name, 'labels': {key: str(index)},
                'creationTimestamp': self.clock.strftime('%Y-%m-%dT%H:%M:%SZ'),
            },
            'spec': {'containers': [{'name': 'ddsp', 'image': 'i'}]},
            'status': {'phase': phase, **status},
        }  # fmt: skip
        self.pods.setdefault(jobset, []).append(pod)
        return pod

    def write(self, pod: dict, *lines: str) -> None:
        """Lines of a pod's log, a microsecond after each other."""
        for line in lines:
            self.clock += datetime.timedelta(microseconds=1)
            moment = self.clock.strftime('%Y-%m-%dT%H:%M:%S.%f000Z')
            self.written.setdefault(pod['metadata']['name'], []).append(f'{moment} {line}\n')


class _Handler(BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    server: Server

    def log_message(self, *args: object) -> None:
        pass

    def _handle(self) -> None:
        parsed = urllib.parse.urlsplit(self.path)
        query = dict(urllib.parse.parse_qsl(parsed.query))
        body = self.rfile.read(int(self.headers.get('Content-Length') or 0))
        self.server.calls.append((self.command, parsed.path, query))
        if self.headers['Authorization'] != f'Bearer {self.server.token}':
            return self._fail(401, 'Unauthorized', 'Unauthorized')
        if refused := self.server.refuse(self.command, parsed.path):
            return self._answer(*refused)
        jobsets = r'/apis/jobset\.x-k8s\.io/v1alpha2/namespaces/([^/]+)/jobsets(?:/([^/]+))?'
        if match := re.fullmatch(jobsets, parsed.path):
            return self._jobset(match[1], match[2], body)
        if re.fullmatch(r'/api/v1/namespaces/[^/]+/pods', parsed.path):
            name = query['labelSelector'].removeprefix('jobset.sigs.k8s.io/jobset-name=')
            items = self.server.pods.get(name, [])
            return self._answer(200, {'apiVersion': 'v1', 'kind': 'PodList', 'metadata': {}, 'items': items})
        if re.fullmatch(r'/api/v1/namespaces/[^/]+/events', parsed.path):
            assert query['fieldSelector'] == 'type=Warning'
            return self._answer(200, {'apiVersion': 'v1', 'kind': 'EventList', 'metadata': {}, 'items': [
                {'metadata': {'name': 'e'}, 'involvedObject': {'name': name}, 'reason': reason,
                 'message': message}
                for name, reason, message in self.server.warnings
            ]})  # fmt: skip
        if match := re.fullmatch(r'/api/v1/namespaces/[^/]+/pods/([^/]+)/log', parsed.path):
            assert (query['container'], query['timestamps']) == ('ddsp', 'true')
            if match[1] not in self.server.written:
                return self._fail(400, 'BadRequest', 'container "ddsp" is waiting to start')
            return self._answer(200, ''.join(self.server.written[match[1]]))
        return self._answer(404, '404 page not found\n')

    do_GET = do_POST = do_DELETE = _handle

    def _jobset(self, namespace: str, name: str | None, body: bytes) -> None:
        kept = self.server.jobsets
        if self.command == 'POST':
            manifest = json.loads(body)
            where = (namespace, manifest['metadata']['name'])
            try:
                check_jobset(manifest)
            except (jsonschema.ValidationError, kubernetes_validate.ValidationError) as error:
                return self._fail(
                    422,
                    'Invalid',
                    f'JobSet.jobset.x-k8s.io "{where[1]}" is invalid: {error.message}',
                    where[1],
                )
            if where in kept:
                message = f'jobsets.jobset.x-k8s.io "{where[1]}" already exists'
                return self._fail(409, 'AlreadyExists', message, where[1])
            kept[where] = manifest
            return self._answer(201, manifest)
        if (namespace, name) not in kept:
            message = f'jobsets.jobset.x-k8s.io "{name}" not found'
            return self._fail(404, 'NotFound', message, name)
        if self.command == 'DELETE':
            return self._answer(200, {'kind': 'Status', 'status': 'Success', **kept.pop((namespace, name))})
        return self._answer(200, kept[namespace, name])

    def _fail(self, code: int, reason: str, message: str, name: str | None = None) -> None:
        self._answer(code, status(code, reason, message, name))

    def _answer(self, code: int, content: str | dict) -> None:
        plain = isinstance(content, str)
        body = (content if plain else json.dumps(content)).encode()
        self.send_response(code)
        self.send_header('Content-Type', 'text/plain' if plain else 'application/json')
        self.send_header('Content-Length', str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def status(code: int, reason: str, message: str, name: str | None = None) -> dict:
    """How the API says no."""
    details = {'details': {'name': name}} if name else {}
    return {
        'kind': 'Status', 'apiVersion': 'v1', 'metadata': {}, 'status': 'Failure', 'code': code,
        'reason': reason, 'message': message, **details,
    }  # fmt: skip
