"""A small Google Cloud Storage on loopback, with what the emulator of the package index lacks: preconditions.

Objects live in memory. `calls` records what was asked, `intercept` may refuse it, for tests of interruptions.
"""

from __future__ import annotations

import base64
import datetime
import hashlib
import json
import re
import threading
import urllib.parse
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import google_crc32c


class Server(ThreadingHTTPServer):
    """The service; buckets come into being when they are written to.

    Attributes:
      objects: (bucket, name) to content.
      missing: Buckets that are not there.
      calls: (method, path) of all requests.
      intercept: Asked before each request with (method, path, query); a number is the status of a refusal.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(('127.0.0.1', 0), _Handler)
        self.objects: dict[tuple[str, str], bytes] = {}
        self.generations: dict[tuple[str, str], int] = {}
        self.updated: dict[tuple[str, str], datetime.datetime] = {}
        self.sessions: dict[str, tuple[tuple[str, str], dict[str, str], bytes]] = {}
        self.missing: set[str] = set()
        self.calls: list[tuple[str, str]] = []
        self.intercept: Callable[[str, str, dict[str, str]], int | None] = lambda *request: None
        self.lock = threading.Lock()
        self.last = 1000

    @property
    def url(self) -> str:
        return f'http://127.0.0.1:{self.server_address[1]}'

    def put(self, where: tuple[str, str], content: bytes, query: dict[str, str]) -> dict | None:
        """Writes an object; None where the precondition does not hold."""
        with self.lock:
            wanted = query.get('ifGenerationMatch')
            if wanted is not None and int(wanted) != self.generations.get(where, 0):
                return None
            self.last += 1
            self.objects[where], self.generations[where] = content, self.last
            self.updated[where] = datetime.datetime.now(datetime.UTC)
            return self.describe(where)

    def describe(self, where: tuple[str, str]) -> dict:
        content = self.objects[where]
        checksum = google_crc32c.Checksum(content).digest()
        return {
            'kind': 'storage#object', 'bucket': where[0], 'name': where[1], 'size': str(len(content)),
            'generation': str(self.generations[where]), 'metageneration': '1',
            'crc32c': base64.b64encode(checksum).decode(),
            'md5Hash': base64.b64encode(hashlib.md5(content).digest()).decode(),
            'updated': self.updated[where].isoformat().replace('+00:00', 'Z'),
        }  # fmt: skip


class _Handler(BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    server: Server

    def log_message(self, *args: object) -> None:
        pass

    def _handle(self) -> None:
        parsed = urllib.parse.urlsplit(self.path)
        query = dict(urllib.parse.parse_qsl(parsed.query))
        body = self.rfile.read(int(self.headers.get('Content-Length') or 0))
        path = urllib.parse.unquote(parsed.path)
        self.server.calls.append((self.command, path))
        refused = self.server.intercept(self.command, path, query)
        if refused:
            return self._answer(refused, {'error': {'code': refused, 'message': 'refused by the test'}})
        raw = parsed.path
        if raw.startswith('/batch/'):
            return self._batch(body)
        if match := re.fullmatch(r'/storage/v1/b/([^/]+)', raw):
            return self._bucket(match[1])
        if match := re.fullmatch(r'/upload/storage/v1/b/([^/]+)/o', raw):
            if match[1] in self.server.missing:
                return self._missing()
            return self._upload(match[1], query, body)
        if match := re.fullmatch(r'/storage/v1/b/([^/]+)/o/([^/]+)/rewriteTo/b/([^/]+)/o/([^/]+)', raw):
            return self._rewrite(*map(urllib.parse.unquote, match.groups()), query)
        if match := re.fullmatch(r'/storage/v1/b/([^/]+)/o', raw):
            return self._list(match[1], query)
        if match := re.fullmatch(r'(?:/download)?/storage/v1/b/([^/]+)/o/([^/]+)', raw):
            return self._object((match[1], urllib.parse.unquote(match[2])), query)
        return self._answer(404, {'error': {'code': 404, 'message': f'no route for {path}'}})

    do_GET = do_POST = do_PUT = do_DELETE = _handle

    def _upload(self, bucket: str, query: dict[str, str], body: bytes) -> None:
        if session := query.get('upload_id'):
            return self._continue(session, body)
        if query['uploadType'] == 'resumable':
            name = query.get('name') or json.loads(body)['name']
            session = f's{len(self.server.sessions)}'
            self.server.sessions[session] = ((bucket, name), query, b'')
            where = f'{self.server.url}/upload/storage/v1/b/{bucket}/o?upload_id={session}'
            return self._answer(200, {}, {'Location': where})
        boundary = re.search(r'boundary="?([^";]+)', self.headers['Content-Type'])[1].encode()
        _, first, second, _ = body.split(b'--' + boundary)
        name = json.loads(first.split(b'\r\n\r\n', 1)[1])['name']
        return self._put((bucket, name), second.split(b'\r\n\r\n', 1)[1].removesuffix(b'\r\n'), query)

    def _bucket(self, name: str) -> None:
        if name in self.server.missing:
            return self._missing()
        return self._answer(200, {'kind': 'storage#bucket', 'id': name, 'name': name, 'projectNumber': '1'})

    def _batch(self, body: bytes) -> None:
        """Several requests in one, which Beam removes files with."""
        boundary = re.search(r'boundary="?([^";]+)', self.headers['Content-Type'])[1]
        parts = []
        for part in body.decode().split(f'--{boundary}')[1:-1]:
            number = re.search('(?i)content-id: <(.+?)>', part)[1]
            match = re.search(r'DELETE \S*?/storage/v1/b/([^/]+)/o/([^/? ]+)', part)
            where = (match[1], urllib.parse.unquote(match[2]))
            status = '204 No Content' if self.server.objects.pop(where, None) is not None else '404 Not Found'
            self.server.generations.pop(where, None)
            head = f'Content-Type: application/http\r\nContent-ID: <response-{number}>\r\n\r\n'
            parts.append(f'--b\r\n{head}HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n\r\n')
        self._answer(
            200, ''.join([*parts, '--b--\r\n']).encode(), {'Content-Type': 'multipart/mixed; boundary=b'}
        )

    def _continue(self, session: str, body: bytes) -> None:
        where, query, before = self.server.sessions[session]
        content = before + body
        self.server.sessions[session] = (where, query, content)
        total = self.headers['Content-Range'].rpartition('/')[2]
        if total != '*' and len(content) == int(total):
            return self._put(where, content, query)
        return self._answer(308, None, {'Range': f'bytes=0-{len(content) - 1}'})

    def _put(self, where: tuple[str, str], content: bytes, query: dict[str, str]) -> None:
        described = self.server.put(where, content, query)
        if described is None:
            return self._answer(412, {'error': {'code': 412, 'message': 'conditionNotMet'}})
        return self._answer(200, described)

    def _rewrite(self, bucket: str, name: str, to_bucket: str, to_name: str, query: dict[str, str]) -> None:
        content = self.server.objects.get((bucket, name))
        if content is None:
            return self._missing()
        described = self.server.put((to_bucket, to_name), content, query)
        if described is None:
            return self._answer(412, {'error': {'code': 412, 'message': 'conditionNotMet'}})
        size = str(len(content))
        answer = {'done': True, 'totalBytesRewritten': size, 'objectSize': size, 'resource': described}
        return self._answer(200, answer)

    def _list(self, bucket: str, query: dict[str, str]) -> None:
        prefix, delimiter = query.get('prefix', ''), query.get('delimiter')
        items, folders = [], set()
        for where in sorted(self.server.objects):
            if where[0] != bucket or not where[1].startswith(prefix):
                continue
            rest = where[1][len(prefix) :]
            if delimiter and delimiter in rest:
                folders.add(prefix + rest.partition(delimiter)[0] + delimiter)
            else:
                items.append(self.server.describe(where))
        self._answer(200, {'kind': 'storage#objects', 'items': items, 'prefixes': sorted(folders)})

    def _object(self, where: tuple[str, str], query: dict[str, str]) -> None:
        generation = query.get('generation')
        if where not in self.server.objects or generation not in (None, str(self.server.generations[where])):
            return self._missing()
        if self.command == 'DELETE':
            wanted = query.get('ifGenerationMatch')
            if wanted is not None and int(wanted) != self.server.generations[where]:
                return self._answer(412, {'error': {'code': 412, 'message': 'conditionNotMet'}})
            del self.server.objects[where], self.server.generations[where]
            return self._answer(204, None)
        if query.get('alt') != 'media':
            return self._answer(200, self.server.describe(where))
        content, status = self.server.objects[where], 200
        checksum = base64.b64encode(google_crc32c.Checksum(content).digest()).decode()
        headers = {'X-Goog-Hash': f'crc32c={checksum}', 'Content-Type': 'application/octet-stream'}
        if match := re.fullmatch(r'bytes=(\d+)-(\d*)', self.headers.get('Range') or ''):
            first, last = int(match[1]), int(match[2] or len(content))
            if first >= len(content):
                return self._answer(416, b'')
            headers['Content-Range'] = f'bytes {first}-{min(last, len(content) - 1)}/{len(content)}'
            status, content = 206, content[first : last + 1]
        return self._answer(status, content, headers)

    def _missing(self) -> None:
        self._answer(404, {'error': {'code': 404, 'message': 'no such object'}})

    def _answer(
        self, status: int, content: dict | bytes | None, headers: dict[str, str] | None = None
    ) -> None:
        body = (
            b''
            if content is None
            else content
            if isinstance(content, bytes)
            else json.dumps(content).encode()
        )
        self.send_response(status)
        headers = {'Content-Type': 'application/json', 'Content-Length': str(len(body))} | (headers or {})
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)
