"""A small Dataflow service on loopback: jobs, their messages and metrics, and a place that gives out tokens.

It keeps what it is asked to run and runs nothing. `states` says how a job goes, `refuse` when a call fails.
"""

from __future__ import annotations

import json
import re
import threading
import traceback
import urllib.parse
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

_CANCELLED = 5  # JOB_STATE_CANCELLED: the client sends the numbers of names


class Server(ThreadingHTTPServer):
    """The service.

    Attributes:
      jobs: The jobs by id, as the client sent them.
      states: State of a job at each request for it, such as 'RUNNING'; the last one stays.
      messages: What the service says of every job.
      counters: Metrics of the namespace ddsp.prepare.
      calls: (method, path) of all requests.
      refuse: Asked before each request with (method, path); (status, message) refuses it.
      execute: Does the work of a job, where it is set: given what the client sent; the job ends with it.
      tokens: False: credentials have expired.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(('127.0.0.1', 0), _Handler)
        self.jobs: dict[str, dict] = {}
        self.states = ['PENDING', 'RUNNING', 'DONE']
        self.messages: list[str] = []
        self.counters: dict[str, int] = {}
        self.calls: list[tuple[str, str]] = []
        self.refuse: Callable[[str, str], tuple[int, str] | None] = lambda method, path: None
        self.execute: Callable[[dict], None] | None = None
        self.tokens = True
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        """By this name Beam speaks REST without TLS."""
        return f'http://localhost:{self.server_address[1]}'

    def add(self, name: str) -> str:
        """A job that somebody else has started."""
        return self.create({'name': name})['id']

    def create(self, job: dict) -> dict:
        with self.lock:
            job |= {'id': f'job-{len(self.jobs)}', 'asked': 0}
            self.jobs[job['id']] = job
        if self.execute:
            self.states = ['RUNNING']
            threading.Thread(target=self._work, args=(job,), daemon=True).start()
        return self.describe(job)

    def _work(self, job: dict) -> None:
        try:
            self.execute(job)
        except Exception:
            self.messages.append(traceback.format_exc())
            job['ended'] = 'FAILED'
        else:
            job['ended'] = 'DONE'

    def describe(self, job: dict) -> dict:
        state = job.get('ended') or self.states[min(job['asked'], len(self.states) - 1)]
        known = {key: value for key, value in job.items() if key not in ('asked', 'ended')}
        return known | {'currentState': f'JOB_STATE_{state}'}

    def active(self, name: str) -> list[dict]:
        ended = ('DONE', 'FAILED', 'CANCELLED')
        found = [self.describe(job) for job in self.jobs.values() if job['name'] == name]
        return [job for job in found if not job['currentState'].endswith(ended)]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    server: Server

    def log_message(self, *args: object) -> None:
        pass

    def _handle(self) -> None:
        parsed = urllib.parse.urlsplit(self.path)
        query = dict(urllib.parse.parse_qsl(parsed.query))
        body = self.rfile.read(int(self.headers.get('Content-Length') or 0))
        path = parsed.path
        self.server.calls.append((self.command, path))
        if refused := self.server.refuse(self.command, path):
            return self._fail(*refused)
        if path == '/token':
            if not self.server.tokens:
                return self._answer(400, {'error': 'invalid_grant', 'error_description': 'Token has expired'})
            return self._answer(200, {'access_token': 'a', 'expires_in': 3600, 'token_type': 'Bearer'})
        match = re.fullmatch(r'/v1b3/projects/([^/]+)/locations/([^/]+)/jobs(?:/([^/]+))?(?:/(\w+))?', path)
        if not match:
            return self._fail(404, f'no route for {path}')
        job, below = match[3], match[4]
        if job is None:
            return self._create(json.loads(body)) if self.command == 'POST' else self._list(query)
        if job not in self.server.jobs:
            return self._fail(404, f'({job}): Information about job could not be found')
        return {None: self._job, 'messages': self._messages, 'metrics': self._metrics}[below](job, body)

    do_GET = do_POST = do_PUT = _handle

    def _create(self, job: dict) -> None:
        if self.server.active(job['name']):
            return self._fail(
                409, f'The workflow could not be created. There is already an active job named {job["name"]}.'
            )
        return self._answer(200, self.server.create(job))

    def _list(self, query: dict[str, str]) -> None:
        self._answer(200, {'jobs': self.server.active(query['name'])})

    def _job(self, job: str, body: bytes) -> None:
        kept = self.server.jobs[job]
        if self.command == 'PUT':
            assert json.loads(body)['requestedState'] == _CANCELLED
            kept['ended'] = 'CANCELLED'
        described = self.server.describe(kept)
        kept['asked'] += 1
        self._answer(200, described)

    def _messages(self, job: str, body: bytes) -> None:
        rows = [
            {
                'id': f'm{i}', 'time': f'2026-01-01T00:00:{i:02d}Z', 'messageText': text,
                'messageImportance': 'JOB_MESSAGE_ERROR',
            }
            for i, text in enumerate(self.server.messages)
        ]  # fmt: skip
        self._answer(200, {'jobMessages': rows})

    def _metrics(self, job: str, body: bytes) -> None:
        rows = []
        for name, value in self.server.counters.items():
            context = {'namespace': 'ddsp.prepare', 'step': 's1'}
            for more in ({}, {'tentative': 'true'}):
                rows.append(
                    {'name': {'origin': 'user', 'name': name, 'context': context | more}, 'scalar': value}
                )
        self._answer(200, {'metrics': rows})

    def _fail(self, status: int, message: str) -> None:
        self._answer(status, {'error': {'code': status, 'message': message}})

    def _answer(self, status: int, content: dict) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
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
        'client_id': '1', 'token_uri': f'{server.url}/token',
    })  # fmt: skip
