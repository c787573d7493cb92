"""Where a dataset is published: `<root>/<name>`, in a folder of this machine or on gs://.

Both kinds know what is published already, keep other preparations of this machine out, and make a new version
visible as a whole: a folder by one rename, a bucket by MANIFEST.json, which is written last and only where
there is none.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import hashlib
import os
import pathlib
import shutil
from typing import Any

from ddsp.errors import DDSPError
from ddsp.io import gcs
from ddsp.io.dataset import MANIFEST, Dataset, file_sha256, open_dataset, published_versions, remote_versions
from ddsp.io.files import locked

SHARDS = 'shards.jsonl'  # in a published version: what another version can reuse
CLAIM = 'pipeline.json'  # with a hash of all other files
METRICS = 'metrics.json'  # in a published version; not in its manifest, for times differ
_UPLOADS = 8  # at once
_BUSY = 'another preparation is running in {}. Wait for it, or name another dataset.'


class VersionTaken(DDSPError):
    """Another preparation writes a version, or gave it up."""

    def __init__(self, target: str) -> None:
        super().__init__(
            f'{target} holds an unfinished upload of other content, which was left as it is. Name another '
            'version, or none for the next one. If nobody is at it, '
            f'`gcloud storage rm -r {target}` removes it.'
        )


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

    def locked(self) -> contextlib.AbstractContextManager[None]:
        """Makes the folder and keeps other preparations out of it."""
        return locked(self._path, _BUSY.format(self._path))

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

    Preparations on other machines cannot be seen, so none can harm another, alive or dead: objects are
    written only where there are none, and nothing is removed. The first object of a version is pipeline.json,
    with a hash of all the others: who has the same content goes on with what is there, everybody else is
    refused. MANIFEST.json comes last.

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

    def locked(self) -> contextlib.AbstractContextManager[None]:
        """Keeps other preparations on this machine out."""
        return locked(self.work, _BUSY.format(self._address))

    def versions(self) -> list[str]:
        """Published versions, oldest first."""
        return remote_versions(self._address)

    def address(self, version: str) -> str:
        """Where a version is or will be."""
        return f'{self._address}/{version}'

    def occupied(self, version: str) -> bool:
        """Not known before `publish`: what is there may be the beginning of the same upload."""
        return False

    def open(self, version: str) -> Dataset:
        """A published version."""
        return open_dataset(self.address(version))

    def has_shard(self, version: str, row: dict[str, Any]) -> bool:
        """Whether a shard of a published version is whole, so that it can be used again."""
        found = gcs.stat(f'{self.address(version)}/{row["name"]}')
        return found is not None and found.size == row['bytes']

    def publish(self, folder: pathlib.Path, version: str, reused: dict[str, str]) -> None:
        """Uploads what is not there yet: first pipeline.json, at last MANIFEST.json.

        Args:
          folder: With all files but the reused ones.
          version: The version.
          reused: Shards of earlier versions, which are copied within the cloud: name to `VERSION/NAME`.

        Raises:
          VersionTaken: Other content is there, of an upload that goes on or was given up.
          DDSPError: The same content was published by somebody else meanwhile.
        """
        target = self.address(version)
        there = {found.address: found.crc32c for found in gcs.list_objects(target)}

        def put(name: str) -> None:
            source = folder / name
            if name in reused:
                found = gcs.stat(f'{self._address}/{reused[name]}')
                checksum = found.crc32c if found else ''
            else:
                checksum = gcs.crc32c(source)
            if there.get(f'{target}/{name}') == checksum:
                return
            try:
                if name in reused:
                    gcs.copy(f'{self._address}/{reused[name]}', f'{target}/{name}', generation=0)
                else:
                    gcs.upload(source, f'{target}/{name}', generation=0)
            except gcs.Conflict:
                # Also what a repeated request meets when the answer to the first one was lost.
                found = gcs.stat(f'{target}/{name}')
                if name != METRICS and (found is None or found.crc32c != checksum):
                    raise VersionTaken(target) from None

        put(CLAIM)
        files = {path.name for path in folder.iterdir()} - {CLAIM, MANIFEST}
        with concurrent.futures.ThreadPoolExecutor(_UPLOADS) as pool:
            list(pool.map(put, sorted(files | reused.keys())))
        try:
            put(MANIFEST)
        except VersionTaken:
            raise DDSPError(
                f'{target} was published by another preparation meanwhile. Run the same command again: it '
                'finds what is there.'
            ) from None
        shutil.rmtree(folder)


def link(source: pathlib.Path, target: pathlib.Path) -> None:
    """A second name where the file system can, so that an interruption here costs nothing; else a copy."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
