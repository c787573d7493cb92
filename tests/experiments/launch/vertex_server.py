"""A small Vertex AI and Cloud Logging on loopback, and a place that gives out tokens.

What is created is read by the service's own type: an unknown field is refused as the service refuses it.
"""

from __future__ import annotations

import datetime
import json
import re
import threading
import urllib.parse
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from google.cloud import aiplatform_v1
from google.protobuf import json_format


def parse(job: dict) -> aiplatform_v1.CustomJob:
    """A CustomJob from JSON; raises json_format.ParseError."""
    return json_format.ParseDict(job, aiplatform_v1.CustomJob.pb()())


class Server(ThreadingHTTPServer):
    """The services.

    Attributes:
      jobs: The jobs by ID, as the client sent them.
      states: State of the jobs: one for all, or by ID.
      errors: Why jobs failed, by ID.
      entries: Lines of the log, by time.
      calls: (method, path, body) of all requests.
      refuse: Asked before each request with (method, path); (status, error) refuses it.
      tokens: False: credentials have expired.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(('127.0.0.1', 0), _Handler)
        self.jobs: dict[str, dict] = {}
        self.state = 'PENDING'
        self.states: dict[str, str] = {}
        self.errors: dict[str, str] = {}
        self.entries: list[dict] = []
        self.calls: list[tuple[str, str, dict]] = []
        self.refuse: Callable[[str, str], tuple[int, dict] | None] = lambda method, path: None
        self.tokens = True
        self.page = 2
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f'http://127.0.0.1:{self.server_address[1]}/'

    def write(self, job: str, task: str, text: str, seconds_ago: int = 0) -> None:
        """A line of a job's log."""
        resource = {'type': 'ml_job', 'labels': {'job_id': job, 'task_name': task}}
        payload = {'textPayload': text} if task == 'service' else {'jsonPayload': {'message': f'{text}\n'}}
        number = len(self.entries)
        moment = _now(seconds_ago)
        self.entries.append({'insertId': f'i{number}', 'timestamp': moment, 'resource': resource, **payload})
        self.entries.sort(key=lambda entry: entry['timestamp'])


def _now(seconds_ago: int = 0) -> str:
    moment = datetime.datetime.now(datetime.UTC) - datetime.timedelta(seconds=seconds_ago)
    return moment.strftime('%Y-%m-%dT%H:%M:%S.%fZ')


class _Handler(BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    server: Server

    def log_message(self, *args: object) -> None:
        pass

    def _handle(self) -> None:
        path = urllib.parse.urlsplit(self.path).path
        raw = self.rfile.read(int(self.headers.get('Content-Length') or 0))
        if path == '/token':
            if not self.server.tokens:
                return self._answer(400, {'error': 'invalid_grant', 'error_description': 'Token has expired'})
            return self._answer(200, {'access_token': 'a', 'expires_in': 3600, 'token_type': 'Bearer'})
        body = json.loads(raw) if raw else {}
        self.server.calls.append((self.command, path, body))
        if refused := self.server.refuse(self.command, path):
            return self._answer(refused[0], {'error': {'code': refused[0], **refused[1]}})
        if self.headers['Authorization'] != 'Bearer a':
            return self._fail(401, 'Request had invalid authentication credentials')
        if path == '/v2/entries:list':
            return self._entries(body)
        match = re.fullmatch(r'/v1/(projects/[^/]+/locations/[^/]+/customJobs)(?:/(\d+))?(:cancel)?', path)
        if match is None:
            return self._fail(404, f'no route for {path}')
        if match[2] is None:
            return self._create(match[1], body)
        if match[2] not in self.server.jobs:
            return self._fail(404, f'The CustomJob {match[2]} does not exist.')
        if match[3]:
            self.server.states[match[2]] = 'CANCELLED'
            return self._answer(200, {})
        return self._answer(200, self._describe(match[2]))

    do_GET = do_POST = _handle

    def _create(self, parent: str, job: dict) -> None:
        try:
            parse(job)
        except json_format.ParseError as error:
            return self._fail(400, f'Invalid JSON payload received. {error}')
        with self.server.lock:
            number = str(100 + len(self.server.jobs))
            self.server.jobs[number] = {
                **job,
                'name': f'{parent}/{number}',
                'createTime': _now(60),
            }
        return self._answer(200, self._describe(number))

    def _describe(self, job: str) -> dict:
        state = self.server.states.get(job, self.server.state)
        told = {**self.server.jobs[job], 'state': f'JOB_STATE_{state}'}
        if job in self.server.errors:
            told['error'] = {'code': 3, 'message': self.server.errors[job]}
        return told

    def _entries(self, question: dict) -> None:
        match = re.fullmatch(
            r'resource\.type="ml_job" resource\.labels\.job_id=\(("\d+"(?: OR "\d+")*)\) '
            r'timestamp>="([^"]+)"',
            question['filter'],
        )
        jobs = [one.strip('"') for one in match[1].split(' OR ')]
        found = [
            entry
            for entry in self.server.entries
            if entry['resource']['labels']['job_id'] in jobs
            and entry['timestamp'].rstrip('Z') >= match[2].rstrip('Z')
        ]
        first = int(question.get('pageToken', 0))
        last = first + min(self.server.page, question['pageSize'])
        more = {'nextPageToken': str(last)} if last < len(found) else {}
        self._answer(200, {'entries': found[first:last], **more} if found else {})

    def _fail(self, code: int, message: str) -> None:
        self._answer(code, {'error': {'code': code, 'message': message}})

    def _answer(self, code: int, content: dict) -> None:
        body = json.dumps(content).encode()
        self.send_response(code)
        self.send_header('Content-Type', 'application/json')
        self.send_header('Content-Length', str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def key_file(server: Server) -> str:
    """The key of a service account, whose tokens come from this service."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    key = rsa.generate_private_key(65537, 2048).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return json.dumps({
        'type': 'service_account', 'project_id': 'my-project', 'private_key_id': 'k',
        'private_key': key.decode(), 'client_email': 'me@my-project.iam.gserviceaccount.com',
        'client_id': '1', 'token_uri': f'{server.url}token',
    })  # fmt: skip
