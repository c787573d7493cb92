"""Objects in Google Cloud Storage: listing, reading, writing with preconditions.

Addresses are `gs://bucket/key`. Without credentials requests are anonymous, which is enough for public
buckets. With `STORAGE_EMULATOR_HOST` they are always, so that nothing looks for credentials.
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import functools
import os
import pathlib
from collections.abc import Iterator
from typing import Any, BinaryIO

from ddsp.errors import DDSPError, require
from ddsp.io.files import replacing

SCHEME = 'gs://'
CHUNK_BYTES = 8 << 20  # that an open object is fetched in


class GcsError(DDSPError):
    """An object that cannot be read or written."""


class NotFound(GcsError):
    """There is no such object."""


class Conflict(GcsError):
    """Somebody else has written the object meanwhile."""


@dataclasses.dataclass(frozen=True)
class Object:
    """What a listing says of an object.

    Attributes:
      address: `gs://bucket/key`.
      size: Size in bytes.
      generation: Number of this version of the content; every write gives another.
      crc32c: Checksum of the content, in base64.
      updated: Seconds since 1970 of the last write, by the server's clock.
    """

    address: str
    size: int
    generation: int
    crc32c: str
    updated: float


def is_gcs(address: str | os.PathLike[str]) -> bool:
    """Whether an address is in Google Cloud Storage."""
    return os.fspath(address).startswith(SCHEME)


def split(address: str) -> tuple[str, str]:
    """Bucket and key of an address.

    Raises:
      GcsError: There is no bucket in it.
    """
    bucket, _, key = address.removeprefix(SCHEME).partition('/')
    if not is_gcs(address) or not bucket:
        raise GcsError(f'{address!r} is not an address in a bucket, such as gs://bucket/folder.')
    return bucket, key


def stat(address: str) -> Object | None:
    """What is known of an object; None where there is none."""
    bucket, key = split(address)
    with _readable(address):
        blob = _client().bucket(bucket).get_blob(key) if key else None
    return _object(blob) if blob else None


def list_objects(folder: str, pattern_prefix: str = '') -> list[Object]:
    """All objects below a folder, in the order of their names.

    Args:
      folder: Its address.
      pattern_prefix: Only keys that go on like this behind the folder.
    """
    bucket, key = split(folder)
    prefix = (key.rstrip('/') + '/' if key else '') + pattern_prefix
    with _readable(folder):
        return [_object(blob) for blob in _client().list_blobs(bucket, prefix=prefix)]


def list_folders(folder: str) -> list[str]:
    """Names of the folders directly in a folder."""
    bucket, key = split(folder)
    prefix = key.rstrip('/') + '/' if key else ''
    with _readable(folder):
        pages = _client().list_blobs(bucket, prefix=prefix, delimiter='/')
        list(pages)  # the names of the folders are known when the last page was read
        return sorted(name.removeprefix(prefix).rstrip('/') for name in pages.prefixes)


def read(address: str) -> bytes:
    """The content of an object."""
    bucket, key = split(address)
    with _readable(address):
        return _client().bucket(bucket).blob(key).download_as_bytes()


def read_range(address: str, start: int, size: int, generation: int | None = None) -> bytes:
    """Some bytes of an object, fewer at its end, in one request; `generation` is as in `download`.

    Nothing is compared with a checksum: the service has one for whole objects only.
    """
    bucket, key = split(address)
    with _readable(address):
        from google.api_core.exceptions import RequestRangeNotSatisfiable

        blob = _client().bucket(bucket).blob(key, generation=generation or None)
        with contextlib.suppress(RequestRangeNotSatisfiable):
            return bytes(blob.download_as_bytes(start=start, end=start + size - 1, checksum=None))
        return b''


@contextlib.contextmanager
def opened(address: str, generation: int | None = None) -> Iterator[BinaryIO]:
    """An object as a file to read from the beginning on, with leaps forward.

    It is fetched in steps of 8 MiB: where a request costs 50 ms and 100 MB/s come through, what is leapt over
    costs more than a request only beyond 5 MB.
    """
    bucket, key = split(address)
    with _readable(address):
        blob = _client().bucket(bucket).blob(key, generation=generation or None)
        with blob.open('rb', chunk_size=CHUNK_BYTES) as file:
            yield file


def download(address: str, path: pathlib.Path, generation: int | None = None) -> None:
    """Writes an object to a file in one step; its checksum is compared on the way.

    Args:
      address: The object.
      path: Where to.
      generation: The version of the content to read; None or 0: the newest.

    Raises:
      NotFound: There is no such object, or not this version of it any more.
    """
    bucket, key = split(address)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with replacing(path) as part, _readable(address):
            _client().bucket(bucket).blob(key, generation=generation or None).download_to_filename(part)
    except OSError as error:
        raise GcsError(f'{path} cannot be written: {error.strerror or error}.') from None


def upload(content: pathlib.Path | bytes, address: str, generation: int | None = None) -> int:
    """Writes an object.

    Args:
      content: A file, or bytes.
      address: Where to.
      generation: Only if this is the generation that is there; 0: if there is none; None: in any case.

    Returns:
      The new generation.

    Raises:
      Conflict: Another generation is there.
    """
    bucket, key = split(address)
    with _readable(address):
        blob = _client().bucket(bucket).blob(key)
        if isinstance(content, bytes):
            blob.upload_from_string(
                content, content_type='application/octet-stream', if_generation_match=generation
            )
        else:
            blob.upload_from_filename(
                content, content_type='application/octet-stream', if_generation_match=generation
            )
        return int(blob.generation)


def copy(source: str, target: str, generation: int | None = None) -> None:
    """Copies an object within the cloud: its bytes do not travel. `generation` is as in `upload`."""
    from_bucket, from_key = split(source)
    to_bucket, to_key = split(target)
    with _readable(source):
        blob, token = _client().bucket(from_bucket).blob(from_key), None
        copied = _client().bucket(to_bucket).blob(to_key)
        while True:
            token, _, _ = copied.rewrite(blob, token=token, if_generation_match=generation)
            if token is None:
                return


def delete(address: str, generation: int | None = None) -> None:
    """Removes an object, if it still has this generation; one that is not there is removed already."""
    bucket, key = split(address)
    with _readable(address):
        from google.api_core.exceptions import NotFound

        with contextlib.suppress(NotFound):
            _client().bucket(bucket).blob(key).delete(if_generation_match=generation)


def crc32c(path: pathlib.Path) -> str:
    """Checksum of a file as `Object.crc32c` has it."""
    google_crc32c = require('google_crc32c', 'to read and write gs:// addresses')
    checksum = google_crc32c.Checksum()
    with open(path, 'rb') as file:
        while block := file.read(1 << 20):
            checksum.update(block)
    return base64.b64encode(checksum.digest()).decode()


def cache_folder() -> pathlib.Path:
    """Folder for copies of remote data: `ddsp` in XDG_CACHE_HOME, ~/.cache by default."""
    return pathlib.Path(os.environ.get('XDG_CACHE_HOME') or pathlib.Path.home() / '.cache') / 'ddsp'


def _client() -> Any:
    return _connect(os.environ.get('STORAGE_EMULATOR_HOST', ''))


@functools.lru_cache(maxsize=4)
def _connect(emulator: str) -> Any:
    """A client of its own for each server, with credentials where there are some."""
    storage = require('google.cloud.storage', 'to read and write gs:// addresses')
    if emulator:
        return storage.Client.create_anonymous_client()
    import google.auth

    try:
        credentials, project = google.auth.default()
    except google.auth.exceptions.DefaultCredentialsError:
        return storage.Client.create_anonymous_client()
    return storage.Client(project=project or '', credentials=credentials)


@contextlib.contextmanager
def _readable(address: str) -> Iterator[None]:
    """Errors of the client as one line with what can be done."""
    storage = require('google.cloud.storage', 'to read and write gs:// addresses')
    import google.auth.exceptions
    import requests
    from google.api_core import exceptions as api

    try:
        yield
    except api.NotFound:
        raise NotFound(f'{address}: no such object or bucket.') from None
    except api.PreconditionFailed:
        raise Conflict(f'{address} was written by somebody else meanwhile.') from None
    except (api.Forbidden, api.Unauthorized, google.auth.exceptions.GoogleAuthError) as error:
        raise GcsError(
            f'{address}: access is refused ({_first_line(error)}). Log in with '
            '`gcloud auth application-default login`, or set GOOGLE_APPLICATION_CREDENTIALS.'
        ) from None
    except (api.GoogleAPIError, requests.RequestException, storage.exceptions.DataCorruption) as error:
        raise GcsError(f'{address} cannot be reached: {_first_line(error)}') from None


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:300]


def _object(blob: Any) -> Object:
    return Object(
        f'{SCHEME}{blob.bucket.name}/{blob.name}',
        int(blob.size or 0),
        int(blob.generation or 0),
        blob.crc32c or '',
        blob.updated.timestamp() if blob.updated else 0.0,
    )
