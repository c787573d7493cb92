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
STAGING = '.staging'
METRICS = 'metrics.json'  # in a published version; not in its manifest, for times differ
_UPLOADS = 8  # at once


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


class _Home:
    """What both kinds have in common.

    Attributes:
      name: Name of the dataset.
      survey: Address of what is known about inputs.
      work: Folder of this machine with the lock of the dataset.
    """

    def __init__(self, address: str, work: pathlib.Path) -> None:
        self._address, self.work = address, work
        self.name = os.path.basename(address)
        self.survey = f'{address}/.survey.jsonl'

    def staging(self, recipe: str) -> str:
        """Address of what is made for a preparation until it is published; `recipe` tells it from others."""
        return f'{self._address}/{STAGING}'

    def locked(self) -> contextlib.AbstractContextManager[None]:
        """Makes the folder for the work and keeps other preparations on this machine out of it."""
        busy = f'another preparation is running in {self._address}. Wait for it, or name another dataset.'
        return locked(self.work, busy)

    def address(self, version: str) -> str:
        """Where a version is or will be."""
        return f'{self._address}/{version}'

    def open(self, version: str) -> Dataset:
        """A published version."""
        return open_dataset(self.address(version))


class LocalHome(_Home):
    """`<root>/<name>` as a folder."""

    def __init__(self, path: pathlib.Path) -> None:
        super().__init__(str(path), path)

    def versions(self) -> list[str]:
        """Published versions, oldest first."""
        return [path.name for path in published_versions(self.work)]

    def occupied(self, version: str) -> bool:
        """Whether something is there already."""
        return (self.work / version).exists()

    def has_shard(self, version: str, row: dict[str, Any]) -> bool:
        """Whether a shard of a published version is whole, so that it can be used again."""
        path = self.work / version / row['name']
        try:
            return path.stat().st_size == row['bytes'] and file_sha256(path) == row['sha256']
        except OSError:
            return False

    def publish(self, folder: pathlib.Path, version: str, shards: dict[str, str]) -> None:
        """Makes a folder the published version; `shards` are the places of others: name to path in here."""
        for name, origin in shards.items():
            link(self.work / origin, folder / name)
        os.rename(folder, self.work / version)


class CloudHome(_Home):
    """`<root>/<name>` in a bucket.

    Preparations on other machines cannot be seen, so none can harm another, alive or dead: objects are
    written only where there are none, and nothing is removed. The first object of a version is pipeline.json,
    with a hash of all the others: who has the same content goes on with what is there, everybody else is
    refused. MANIFEST.json comes last.
    """

    def __init__(self, address: str) -> None:
        gcs.split(address)
        digest = hashlib.sha256(address.encode()).hexdigest()
        name = os.path.basename(address)
        super().__init__(address, gcs.cache_folder() / 'staging' / f'{name}-{digest[:16]}')

    def staging(self, recipe: str) -> str:
        """One for each recipe: others may be at work at the same time."""
        return f'{super().staging(recipe)}/{recipe}'

    def versions(self) -> list[str]:
        """Published versions, oldest first."""
        return remote_versions(self._address)

    def occupied(self, version: str) -> bool:
        """Not known before `publish`: what is there may be the beginning of the same upload."""
        return False

    def has_shard(self, version: str, row: dict[str, Any]) -> bool:
        """Whether a shard of a published version is whole, so that it can be used again."""
        found = gcs.stat(f'{self.address(version)}/{row["name"]}')
        return found is not None and found.size == row['bytes']

    def publish(self, folder: pathlib.Path, version: str, shards: dict[str, str]) -> None:
        """Uploads what is not there yet: first pipeline.json, at last MANIFEST.json.

        Shards (`shards`: name to path in here) are copied within the cloud.

        Raises:
          VersionTaken: Other content is there, of an upload that goes on or was given up.
          DDSPError: The same content was published by somebody else meanwhile.
        """
        target = self.address(version)
        there = {found.address: found.crc32c for found in gcs.list_objects(target)}

        def put(name: str) -> None:
            copied = f'{self._address}/{shards[name]}' if name in shards else ''
            found = gcs.stat(copied) if copied else None
            checksum = found.crc32c if found else '' if copied else gcs.crc32c(folder / name)
            if there.get(f'{target}/{name}') == checksum:
                return
            try:
                if copied:
                    gcs.copy(copied, f'{target}/{name}', generation=0)
                else:
                    gcs.upload(folder / name, f'{target}/{name}', generation=0)
            except gcs.Conflict:
                # Also what a repeated request meets when the answer to the first one was lost.
                found = gcs.stat(f'{target}/{name}')
                if name != METRICS and (found is None or found.crc32c != checksum):
                    raise VersionTaken(target) from None

        put(CLAIM)
        files = {path.name for path in folder.iterdir()} - {CLAIM, MANIFEST}
        with concurrent.futures.ThreadPoolExecutor(_UPLOADS) as pool:
            list(pool.map(put, sorted(files | shards.keys())))
        try:
            put(MANIFEST)
        except VersionTaken:
            raise DDSPError(
                f'{target} was published by another preparation meanwhile. Run the same command again: it '
                'finds what is there.'
            ) from None


def link(source: pathlib.Path, target: pathlib.Path) -> None:
    """A second name where the file system can, so that an interruption here costs nothing; else a copy."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
