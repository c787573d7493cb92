"""The dataset directory: opening, checking and describing what `ddsp prepare` publishes.

A dataset is the folder `<root>/<name>/<version>/`; docs/datasets.md lists its files. `MANIFEST.json` is
written last, so a folder without it is an unfinished preparation and is refused. A dataset on gs:// is read
through a local copy in the cache: its metadata when it is opened, its records when they are asked for, all
compared with the hashes of the manifest.
"""

from __future__ import annotations

import concurrent.futures
import functools
import hashlib
import json
import logging
import os
import pathlib
import re
from typing import Any

from ddsp import gcs
from ddsp.errors import DDSPError

MANIFEST = 'MANIFEST.json'
_ORIGIN = '.origin'  # in a cached copy: the address that it is a copy of
_DOWNLOADS = 8  # at once
SCHEMA_VERSION = 1
# Values that stand for "nothing here" in the frames of a padded window.
PADDED_CONFIDENCE = 0.0
PADDED_LOUDNESS_DB = -80.0
_log = logging.getLogger(__name__)


class DatasetError(DDSPError):
    """A dataset directory that is missing, unfinished or damaged."""


class Dataset:
    """A published dataset directory.

    Attributes:
      path: The version directory; of a dataset on gs:// its local copy.
      address: Where it was published: `path`, or its `gs://` address.
      manifest: Content of MANIFEST.json.
      name: Name of the dataset.
      version: Its version, such as `'1.0.0'`.
      sample_rate: Of the feature `audio`, in Hz.
      frame_rate: Of the frame-wise features, in frames per second.
      example_secs: Length of an example, in seconds.
      centered: Whether the frame-wise features have one frame more than `frame_rate * example_secs`.
      splits: Number of examples of each split.
    """

    def __init__(self, path: pathlib.Path, manifest: dict[str, Any]) -> None:
        self.path = path
        origin = path / _ORIGIN
        self.address: str = origin.read_text(encoding='utf-8') if origin.is_file() else str(path)
        self.manifest = manifest
        self.name: str = manifest['name']
        self.version: str = manifest['version']
        self.sample_rate: int = manifest['sample_rate']
        self.frame_rate: int = manifest['frame_rate']
        self.example_secs: float = manifest['example_secs']
        self.centered: bool = manifest['centered']
        self.splits: dict[str, int] = {name: row['examples'] for name, row in manifest['splits'].items()}

    def __repr__(self) -> str:
        return f'Dataset({self.address!r}, splits={self.splits})'

    @functools.cached_property
    def digest(self) -> str:
        """The sha256 of MANIFEST.json, which holds that of every other file."""
        return file_sha256(self.path / MANIFEST)

    @property
    def n_samples(self) -> int:
        """Samples of `audio` in an example."""
        return round(self.example_secs * self.sample_rate)

    @property
    def n_frames(self) -> int:
        """Frames of the frame-wise features in an example."""
        return round(self.example_secs * self.frame_rate) + int(self.centered)

    def feature_lengths(self) -> dict[str, int]:
        """Number of floats of each feature of an example."""
        if 'features' in self.manifest:
            return dict(self.manifest['features'])
        lengths = {'audio': self.n_samples}
        if self.sample_rate != 16000:
            lengths['audio_16k'] = round(self.example_secs * 16000)
        return lengths | dict.fromkeys(('f0_hz', 'f0_confidence', 'loudness_db'), self.n_frames)

    def files(self, split: str) -> list[str]:
        """Paths of the TFRecord files of a split; fetches those of a dataset on gs:// that are not here yet.

        Raises:
          DatasetError: There is no such split, or a file that was fetched is not what was published.
        """
        self._check_split(split, self.splits)
        rows = self.manifest['splits'][split]['files']
        if gcs.is_gcs(self.address):
            self._fetch({row['name']: row['sha256'] for row in rows}, sum(row['bytes'] for row in rows))
        return [str(self.path / row['name']) for row in rows]

    def _fetch(self, files: dict[str, str], size: int) -> None:
        missing = {name: digest for name, digest in files.items() if not (self.path / name).is_file()}
        if missing:
            _log.warning('fetching up to %.0f MB of %s into %s', size / 1e6, self.address, self.path)
            _fetch(self.address, self.path, missing)

    def statistics(self, split: str) -> dict[str, Any]:
        """Statistics of a split: pitch, loudness, voiced share; docs/datasets.md gives their units.

        Raises:
          DatasetError: There is no such split, or statistics.json cannot be read.
        """
        splits = _read_json(self.path / 'statistics.json')['splits']
        self._check_split(split, splits)
        return splits[split]

    def verify(self) -> None:
        """Compares every file with the size and the sha256 that the manifest gives.

        Raises:
          DatasetError: Names each file that is missing or differs.
        """
        for split in self.splits:
            self.files(split)  # all of it is here
        wrong = []
        for row in (row for split in self.manifest['splits'].values() for row in split['files']):
            wrong += self._check_file(row['name'], row['sha256'], row['bytes'])
        for name, digest in self.manifest['files'].items():
            wrong += self._check_file(name, digest)
        if wrong:
            shown = '; '.join(wrong[:5]) + (f'; and {len(wrong) - 5} more' if len(wrong) > 5 else '')
            raise DatasetError(f'{self.path} is damaged: {shown}. Prepare it again with `ddsp prepare`.')

    def _check_file(self, name: str, digest: str, size: int | None = None) -> list[str]:
        path = self.path / name
        if not path.is_file():
            return [f'{name} is missing']
        if size is not None and path.stat().st_size != size:
            return [f'{name} has {path.stat().st_size} bytes where {size} were written']
        return [] if file_sha256(path) == digest else [f'{name} is not what was written (its sha256 differs)']

    def _check_split(self, split: str, known: dict[str, Any]) -> None:
        if split not in known:
            raise DatasetError(
                f'{self.path} has no split {split!r}; its splits are {", ".join(sorted(known))}.'
            )


def open_dataset(path: str | os.PathLike[str]) -> Dataset:
    """Opens a dataset directory, here or on gs://.

    Args:
      path: The version directory `<root>/<name>/<version>`, `<root>/<name>` (its newest version is taken) or
        a `<root>` that holds one dataset.

    Returns:
      The dataset.

    Raises:
      DatasetError: There is no finished dataset at `path`.

    Example:
      `open_dataset('data/violin').files('train')`
    """
    if gcs.is_gcs(path):
        return _load(_mirror(_find_remote(os.fspath(path).rstrip('/'))))
    folder = pathlib.Path(path)
    if not folder.is_dir():
        raise DatasetError(f'no dataset at {folder}: there is no such folder. `ddsp prepare` makes one.')
    if (folder / MANIFEST).is_file():
        return _load(folder)
    versions = published_versions(folder)
    if versions:
        return _load(versions[-1])
    named = [found[-1] for child in sorted(folder.iterdir()) if (found := published_versions(child))]
    if len(named) == 1:
        return _load(named[0])
    if named:
        raise _several(str(folder), sorted(version.parent.name for version in named))
    raise DatasetError(_why_not_a_dataset(folder))


def published_versions(folder: pathlib.Path) -> list[pathlib.Path]:
    """Finished version directories in `<root>/<name>`, oldest version first."""
    if not folder.is_dir():
        return []
    found = [child for child in folder.iterdir() if _version_key(child.name) and (child / MANIFEST).is_file()]
    return sorted(found, key=lambda child: _version_key(child.name))


def remote_versions(folder: str) -> list[str]:
    """Finished versions in `gs://<root>/<name>`, oldest first."""
    found = [name for name in gcs.list_folders(folder) if _version_key(name)]
    return sorted((name for name in found if gcs.stat(f'{folder}/{name}/{MANIFEST}')), key=_version_key)


def _find_remote(folder: str) -> str:
    """The address of the version directory that an address on gs:// means."""
    if gcs.stat(f'{folder}/{MANIFEST}'):
        return folder
    versions = remote_versions(folder)
    if versions:
        return f'{folder}/{versions[-1]}'
    named = {
        name: found[-1] for name in gcs.list_folders(folder) if (found := remote_versions(f'{folder}/{name}'))
    }
    if len(named) == 1:
        return '/'.join((folder, *next(iter(named.items()))))
    if named:
        raise _several(folder, sorted(named))
    raise DatasetError(f'no dataset at {folder}: {MANIFEST} is missing. `ddsp prepare` makes a dataset.')


def _mirror(address: str) -> pathlib.Path:
    """The local copy of a published version; holds its metadata, and those records that were asked for."""
    text = gcs.read(f'{address}/{MANIFEST}')
    digest = hashlib.sha256(text).hexdigest()
    folder = gcs.cache_folder().joinpath('datasets', digest[:16], *address.split('/')[-2:])
    if not (folder / MANIFEST).is_file():
        folder.mkdir(parents=True, exist_ok=True)
        (folder / _ORIGIN).write_text(address, encoding='utf-8')
        try:
            files = json.loads(text)['files']
        except (ValueError, KeyError):
            raise DatasetError(f'{address}/{MANIFEST} is damaged.') from None
        _fetch(address, folder, {name: files[name] for name in files if not (folder / name).is_file()})
        part = folder / f'{MANIFEST}.{os.getpid()}.part'
        part.write_bytes(text)
        part.replace(folder / MANIFEST)
    return folder


def _fetch(address: str, folder: pathlib.Path, files: dict[str, str]) -> None:
    """Downloads files whose sha256 are known, several at once."""

    def fetch(name: str) -> None:
        part = folder / f'.{name}.{os.getpid()}.fetched'
        gcs.download(f'{address}/{name}', part)
        if file_sha256(part) != files[name]:
            part.unlink()
            raise DatasetError(f'{address}/{name} is damaged: its sha256 is not that of the manifest.')
        part.replace(folder / name)

    with concurrent.futures.ThreadPoolExecutor(_DOWNLOADS) as pool:
        list(pool.map(fetch, files))


def _several(folder: str, names: list[str]) -> DatasetError:
    return DatasetError(
        f'{folder} holds several datasets ({", ".join(names)}): name one, such as {folder}/{names[0]}.'
    )


def _version_key(name: str) -> tuple[int, ...]:
    return tuple(int(part) for part in name.split('.')) if re.fullmatch(r'\d+\.\d+\.\d+', name) else ()


def _load(folder: pathlib.Path) -> Dataset:
    manifest = _read_json(folder / MANIFEST)
    if manifest.get('schema_version') != SCHEMA_VERSION:
        raise DatasetError(
            f'{folder} has schema_version {manifest.get("schema_version")!r}; this release reads '
            f'{SCHEMA_VERSION}. Prepare it again with `ddsp prepare`.'
        )
    try:
        return Dataset(folder, manifest)
    except KeyError as error:
        raise DatasetError(f'{folder / MANIFEST} is damaged: it has no {error}.') from None


def _why_not_a_dataset(folder: pathlib.Path) -> str:
    records = any(folder.glob('*.tfrecord*'))
    staging = any(folder.glob('.*.staging')) or any(folder.glob('*/.*.staging'))
    if records or staging:
        return (
            f'{folder} holds an unfinished dataset ({MANIFEST} is missing, which is written last). '
            'Run the same `ddsp prepare` again: it goes on where it stopped.'
        )
    return f'no dataset at {folder}: {MANIFEST} is missing. `ddsp prepare` makes a dataset.'


def _read_json(path: pathlib.Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding='utf-8'))
    except FileNotFoundError:
        raise DatasetError(f'{path} is missing.') from None
    except (OSError, ValueError) as error:
        raise DatasetError(f'{path} cannot be read: {error}.') from None
    if not isinstance(content, dict):
        raise DatasetError(f'{path} is damaged: it does not hold an object.')
    return content


def file_sha256(path: str | os.PathLike[str]) -> str:
    """The sha256 of a file's bytes, in hexadecimal."""
    digest = hashlib.sha256()
    with open(path, 'rb') as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
