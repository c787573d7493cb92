"""Where a dataset is published: `<root>/<name>`, in a folder of this machine or on gs://.

Both kinds keep other preparations out, know what is published already, and make a new version visible as a
whole: a folder by one rename, a bucket by MANIFEST.json, which is written last and only where there is none.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import fcntl
import hashlib
import json
import os
import pathlib
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

from ddsp import gcs
from ddsp.dataset import MANIFEST, Dataset, file_sha256, open_dataset, published_versions, remote_versions
from ddsp.errors import DDSPError

SHARDS = 'shards.jsonl'  # in a published version: what another version can reuse
_LOCK = '.lock'
_BEAT_SECS = 30.0  # the lock of a living preparation is renewed so often
_STALE_SECS = 300.0  # one that was not renewed for so long belongs to nobody
_UPLOADS = 8  # at once


def open_home(root: str | os.PathLike[str], name: str) -> LocalHome | CloudHome:
    """The place of a dataset below a root."""
    if gcs.is_gcs(root):
        return CloudHome(f'{os.fspath(root).rstrip("/")}/{name}')
    return LocalHome(pathlib.Path(root) / name)


class LocalHome:
    """`<root>/<name>` as a folder.

    Attributes:
      name: Of the dataset.
      work: Where staging folders lie.
    """

    def __init__(self, path: pathlib.Path) -> None:
        self._path = path
        self.name = path.name
        self.work = path

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Makes the folder and keeps other preparations out of it."""
        with _folder_lock(self._path, str(self._path)):
            yield

    def versions(self) -> list[str]:
        """Published versions, oldest first."""
        return [path.name for path in published_versions(self._path)]

    def address(self, version: str) -> pathlib.Path:
        """Where a version is or will be."""
        return self._path / version

    def occupied(self, version: str) -> bool:
        """Whether something is there already."""
        return self.address(version).exists()

    def open(self, version: str) -> Dataset:
        """A published version."""
        return open_dataset(self.address(version))

    def has_shard(self, version: str, row: dict[str, Any]) -> bool:
        """Whether a shard of a published version is whole, so that it can be used again."""
        path = self.address(version) / row['name']
        try:
            return path.stat().st_size == row['bytes'] and file_sha256(path) == row['sha256']
        except OSError:
            return False

    def publish(self, folder: pathlib.Path, version: str, reused: dict[str, str]) -> None:
        """Makes a folder the published version.

        Args:
          folder: With all files but the reused ones, on the same file system.
          version: The version.
          reused: Shards of earlier versions: name to `VERSION/NAME`.
        """
        for name, origin in reused.items():
            link(self._path / origin, folder / name)
        os.rename(folder, self.address(version))


class CloudHome:
    """`<root>/<name>` in a bucket.

    Attributes:
      name: Of the dataset.
      work: Where staging folders lie: in the cache folder of this machine.
    """

    def __init__(self, address: str) -> None:
        self._address = address
        gcs.split(address)
        digest = hashlib.sha256(address.encode()).hexdigest()
        self.name = address.rsplit('/', 1)[-1]
        self.work = gcs.cache_folder() / 'staging' / f'{self.name}-{digest[:16]}'
        self._lock: _CloudLock | None = None

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keeps other preparations out, on this machine and elsewhere."""
        with _folder_lock(self.work, self._address), _CloudLock(f'{self._address}/{_LOCK}') as self._lock:
            yield

    def versions(self) -> list[str]:
        """Published versions, oldest first."""
        return remote_versions(self._address)

    def address(self, version: str) -> str:
        """Where a version is or will be."""
        return f'{self._address}/{version}'

    def occupied(self, version: str) -> bool:
        """Whether a published version is there; what an interrupted upload left is gone on with."""
        return gcs.stat(f'{self.address(version)}/{MANIFEST}') is not None

    def open(self, version: str) -> Dataset:
        """A published version."""
        return open_dataset(self.address(version))

    def has_shard(self, version: str, row: dict[str, Any]) -> bool:
        """Whether a shard of a published version is whole, so that it can be used again."""
        found = gcs.stat(f'{self.address(version)}/{row["name"]}')
        return found is not None and found.size == row['bytes']

    def publish(self, folder: pathlib.Path, version: str, reused: dict[str, str]) -> None:
        """Uploads what is not there yet, and MANIFEST.json at last.

        Args:
          folder: With all files but the reused ones.
          version: The version.
          reused: Shards of earlier versions, which are copied within the cloud: name to `VERSION/NAME`.

        Raises:
          DDSPError: The version was published by somebody else meanwhile.
        """
        target = self.address(version)
        there = {found.address: found for found in gcs.list_objects(target)}
        files = [path for path in sorted(folder.iterdir()) if path.name != MANIFEST]
        wanted = {f'{target}/{path.name}' for path in files} | {f'{target}/{name}' for name in reused}
        if f'{target}/{MANIFEST}' in there:
            raise self._lost(version)

        def put(path: pathlib.Path) -> None:
            self._upload(path, there.get(f'{target}/{path.name}'), target)

        def take(name: str) -> None:
            source = gcs.stat(f'{self._address}/{reused[name]}')
            known = there.get(f'{target}/{name}')
            if known is None or source is None or known.crc32c != source.crc32c:
                gcs.copy(f'{self._address}/{reused[name]}', f'{target}/{name}')

        with concurrent.futures.ThreadPoolExecutor(_UPLOADS) as pool:
            list(pool.map(put, files))
            list(pool.map(take, reused))
        for address in there.keys() - wanted:  # of an interrupted upload with other inputs
            gcs.delete(address, there[address].generation)
        self._check_lock()
        try:
            gcs.upload(folder / MANIFEST, f'{target}/{MANIFEST}', generation=0)
        except gcs.Conflict:
            raise self._lost(version) from None
        shutil.rmtree(folder)

    def _upload(self, path: pathlib.Path, there: gcs.Object | None, target: str) -> None:
        self._check_lock()
        if there and there.size == path.stat().st_size and there.crc32c == gcs.crc32c(path):
            return
        try:
            gcs.upload(path, f'{target}/{path.name}', generation=there.generation if there else 0)
        except gcs.Conflict:
            # Also what a repeated request meets when the answer to the first one was lost.
            found = gcs.stat(f'{target}/{path.name}')
            if not found or found.crc32c != gcs.crc32c(path):
                raise

    def _check_lock(self) -> None:
        if self._lock is not None:
            self._lock.check()

    def _lost(self, version: str) -> DDSPError:
        return DDSPError(
            f'{self.address(version)} was published by another preparation meanwhile. '
            'Run the same command again: it makes the next version.'
        )


class _CloudLock:
    """An object that says who is preparing; renewed while that goes on, removed at the end."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._generation = 0
        self._stop = threading.Event()
        self._gone = False
        self._thread = threading.Thread(target=self._renew, daemon=True)

    def __enter__(self) -> _CloudLock:
        found = gcs.stat(self._address)
        if found and not self._abandoned(found):
            raise self._refusal(found)
        try:
            self._generation = gcs.upload(_owner(), self._address, found.generation if found else 0)
        except gcs.Conflict:
            raise self._refusal(gcs.stat(self._address)) from None
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()
        with contextlib.suppress(DDSPError):  # nothing to keep: it goes stale by itself
            gcs.delete(self._address, self._generation)

    def check(self) -> None:
        """Raises where the lock was lost."""
        if self._gone:
            raise DDSPError(f'{self._address} was taken by another preparation. Run the same command again.')

    def _renew(self) -> None:
        while not self._stop.wait(_BEAT_SECS):
            try:
                self._generation = gcs.upload(_owner(), self._address, self._generation)
            except gcs.Conflict:
                self._gone = True
                return
            except DDSPError:
                continue  # the network comes back, or the lock goes stale

    def _abandoned(self, found: gcs.Object) -> bool:
        """Whether its owner is gone: silent for long, or a process of this machine that has ended."""
        if time.time() - found.updated > _STALE_SECS:
            time.sleep(2 * _BEAT_SECS)  # the two clocks may differ: a living owner renews it meanwhile
            again = gcs.stat(self._address)
            return again is None or again.generation == found.generation
        try:
            owner = json.loads(gcs.read(self._address))
            if owner['host'] != socket.gethostname() or owner['boot'] != _boot():
                return False
            os.kill(owner['pid'], 0)
        except (ProcessLookupError, gcs.GcsError):  # ended, or the lock was just removed
            return True
        except (OSError, ValueError, KeyError):
            return False
        return False

    def _refusal(self, found: gcs.Object | None) -> DDSPError:
        age = f', renewed {time.time() - found.updated:.0f} s ago' if found else ''
        return DDSPError(
            f'another preparation is running in {self._address.removesuffix("/" + _LOCK)} ({_LOCK}{age}). '
            f'Wait for it, or name another dataset. A lock not renewed for {_STALE_SECS:.0f} s is void.'
        )


def _owner() -> bytes:
    who = {'host': socket.gethostname(), 'boot': _boot(), 'pid': os.getpid(), 'time': time.time()}
    return json.dumps(who).encode()


def _boot() -> str:
    """Of this machine since it was started: a container with the same name is another one."""
    try:
        return pathlib.Path('/proc/sys/kernel/random/boot_id').read_text().strip()
    except OSError:
        return ''


@contextlib.contextmanager
def _folder_lock(folder: pathlib.Path, name: str) -> Iterator[None]:
    """Makes a folder and holds its lock, which the system releases when the process ends."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = open(folder / _LOCK, 'w')  # noqa: SIM115 (closed below; closing releases the lock)
    except OSError as error:
        raise DDSPError(f'{folder} cannot be written: {error.strerror}.') from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise DDSPError(
                f'another preparation is running in {name}. Wait for it, or name another dataset.'
            ) from None
        yield


def link(source: pathlib.Path, target: pathlib.Path) -> None:
    """A second name where the file system can, so that an interruption here costs nothing; else a copy."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
