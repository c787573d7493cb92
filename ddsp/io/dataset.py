"""The dataset directory: opening, checking and describing what `ddsp prepare` publishes.

A dataset is the folder `<root>/<name>/<version>/`; docs/datasets.md lists its files. `MANIFEST.json` is
written last, so a folder without it is an unfinished preparation and is refused. A dataset on gs:// is read
through a local copy in the cache: its metadata when it is opened, its records when they are asked for, all
compared with the hashes of the manifest.

A dataset may come from anywhere, so it is data alone: types and names in its JSON are checked before they are
used, and every file that it names must lie directly in its folder.
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
from collections.abc import Iterator
from typing import Any

from ddsp.errors import DDSPError
from ddsp.io import gcs
from ddsp.io.files import UnsafeNameError, file_sha256, inside, replacing, write_bytes
from ddsp.io.json_types import COUNT, NUMBER, TEXT, fault

MANIFEST = 'MANIFEST.json'
_DOWNLOADS = 8  # at once
SCHEMA_VERSION = 1
NAME = re.compile('[A-Za-z][A-Za-z0-9_]*')
VERSION = re.compile(r'[0-9]{1,9}\.[0-9]{1,9}\.[0-9]{1,9}')
SPLIT = re.compile('[a-z][a-z0-9_]*')
_SHA256 = re.compile('[0-9a-f]{64}')
_POSITIVE = range(1, 2**31)
_MANIFEST_SHAPE = {
    'name': NAME, 'version': VERSION, 'sample_rate': _POSITIVE, 'frame_rate': _POSITIVE,
    'example_secs': NUMBER, 'centered': bool, 'f0_estimator': TEXT, 'fingerprint?': TEXT,
    'alignment?': TEXT, 'features?': {TEXT: COUNT}, 'files': {TEXT: _SHA256},
    'splits': {SPLIT: {
        'examples': COUNT,
        'files': [{'name': TEXT, 'bytes': COUNT, 'sha256': _SHA256, 'examples': COUNT}],
    }},
}  # fmt: skip
_QUANTITY = {'mean?': NUMBER, 'std?': NUMBER, 'min?': NUMBER, 'max?': NUMBER, 'quantiles?': [NUMBER]}
_STATISTICS_SHAPE = {'splits': {SPLIT: {
    'examples?': COUNT, 'audio_seconds?': NUMBER, 'voiced_share?': NUMBER, 'loudness_db?': _QUANTITY,
    'pitch_midi?': _QUANTITY, 'power_db?': _QUANTITY,
    'notes?': {
        'share?': NUMBER, 'loudness_db?': _QUANTITY, 'pitch_midi?': _QUANTITY, 'power_db?': _QUANTITY,
    },
}}}  # fmt: skip
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
      sample_rate: Sample rate in Hz.
      frame_rate: Feature frames per second.
      example_secs: Length of an example, in seconds.
      centered: Whether the frame-wise features have one frame more than `frame_rate * example_secs`.
      splits: Number of examples of each split.
    """

    def __init__(self, path: pathlib.Path, manifest: dict[str, Any], address: str = '') -> None:
        _check_manifest(manifest, path, address or str(path))
        self.path = path
        self.address = address or str(path)
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
        return file_sha256(self.file(MANIFEST))

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

    def file(self, name: str) -> pathlib.Path:
        """Path of one of its files.

        Raises:
          UnsafeNameError: It is a link that leaves the dataset.
        """
        return inside(self.path, name, f'the dataset {self.path}')

    def json(self, name: str, shape: Any = dict) -> Any:
        """Content of one of its JSON files, of the given shape (see `ddsp.io.json_types.fault`).

        Raises:
          DatasetError: The file is missing or damaged.
        """
        return _parse(_read(self.file(name)), shape, self.file(name))

    def rows(self, name: str, shape: Any = dict) -> list[Any]:
        """The rows of one of its JSON lines files, each of the given shape.

        Raises:
          DatasetError: The file is missing or damaged.
        """
        return [row for _, row in self.lines(name, shape)]

    def lines(self, name: str, shape: Any = dict) -> Iterator[tuple[int, Any]]:
        """The rows of a JSON lines file one by one, each with the byte where it begins; raises as `rows`."""
        path, offset = self.file(name), 0
        try:
            with path.open('rb') as file:
                for number, line in enumerate(file, 1):
                    yield offset, _parse(line, shape, f'{path}, line {number},')
                    offset += len(line)
        except FileNotFoundError:
            raise DatasetError(f'{path} is missing.') from None
        except OSError as error:
            raise DatasetError(f'{path} cannot be read: {error.strerror}.') from None

    def files(self, split: str) -> list[str]:
        """Paths of the TFRecord files of a split; fetches those of a dataset on gs:// that are not here yet.

        Raises:
          DatasetError: There is no such split, or a file that was fetched is not what was published.
        """
        self._check_split(split, self.splits)
        rows = self.manifest['splits'][split]['files']
        if gcs.is_gcs(self.address):
            self._fetch({row['name']: row['sha256'] for row in rows}, sum(row['bytes'] for row in rows))
        return [str(self.file(row['name'])) for row in rows]

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
        splits = self.json('statistics.json', _STATISTICS_SHAPE)['splits']
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
        path = self.file(name)
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
        return _mirror(_find_remote(os.fspath(path).rstrip('/')))
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
        name: found[-1]
        for name in gcs.list_folders(folder)
        if NAME.fullmatch(name) and (found := remote_versions(f'{folder}/{name}'))
    }
    if len(named) == 1:
        return '/'.join((folder, *next(iter(named.items()))))
    if named:
        raise _several(folder, sorted(named))
    raise DatasetError(f'no dataset at {folder}: {MANIFEST} is missing. `ddsp prepare` makes a dataset.')


def _mirror(address: str) -> Dataset:
    """The local copy of a published version; holds its metadata, and those records that were asked for."""
    text = gcs.read(f'{address}/{MANIFEST}')
    manifest = _parse(text, dict, f'{address}/{MANIFEST}')
    folder = gcs.cache_folder() / 'datasets' / hashlib.sha256(text).hexdigest()[:32]
    dataset = Dataset(folder, manifest, address)
    files = manifest['files']
    if not (folder / MANIFEST).is_file():
        folder.mkdir(parents=True, exist_ok=True)
        _fetch(address, folder, {name: files[name] for name in files if not (folder / name).is_file()})
        write_bytes(folder / MANIFEST, text)
    return dataset


def _fetch(address: str, folder: pathlib.Path, files: dict[str, str]) -> None:
    """Downloads files whose sha256 are known, several at once."""

    def fetch(name: str) -> None:
        with replacing(inside(folder, name, f'{address}/{MANIFEST}')) as part:
            gcs.download(f'{address}/{name}', part)
            if file_sha256(part) != files[name]:
                raise DatasetError(f'{address}/{name} is damaged: its sha256 is not that of the manifest.')

    with concurrent.futures.ThreadPoolExecutor(_DOWNLOADS) as pool:
        list(pool.map(fetch, files))


def _several(folder: str, names: list[str]) -> DatasetError:
    return DatasetError(
        f'{folder} holds several datasets ({", ".join(names)}): name one, such as {folder}/{names[0]}.'
    )


def _version_key(name: str) -> tuple[int, ...]:
    return tuple(int(part) for part in name.split('.')) if VERSION.fullmatch(name) else ()


def _load(folder: pathlib.Path) -> Dataset:
    path = inside(folder, MANIFEST, f'the dataset {folder}')
    return Dataset(folder, _parse(_read(path), dict, path))


def _check_manifest(manifest: dict[str, Any], folder: pathlib.Path, address: str) -> None:
    """Refuses a manifest of another release, of the wrong types, or with names that leave its folder."""
    if manifest.get('schema_version') != SCHEMA_VERSION:
        raise DatasetError(
            f'{address} has schema_version {manifest.get("schema_version")!r}; this release reads '
            f'{SCHEMA_VERSION}. Prepare it again with `ddsp prepare`.'
        )
    source = f'{address}/{MANIFEST}'
    if found := fault(manifest, _MANIFEST_SHAPE):
        raise DatasetError(f'{source} is damaged: {found}.')
    rows = [row['name'] for split in manifest['splits'].values() for row in split['files']]
    for name in [*rows, *manifest['files']]:
        inside(folder, name, source)
        if '/' in name or name.startswith('.') or name == MANIFEST:
            raise UnsafeNameError(f'{source} names {name!r}, which is not a file of a dataset.')


def _why_not_a_dataset(folder: pathlib.Path) -> str:
    records = any(folder.glob('*.tfrecord*'))
    staging = any(folder.glob('.staging')) or any(folder.glob('*/.staging'))
    if records or staging:
        return (
            f'{folder} holds an unfinished dataset ({MANIFEST} is missing, which is written last). '
            'Run the same `ddsp prepare` again: it goes on where it stopped.'
        )
    return f'no dataset at {folder}: {MANIFEST} is missing. `ddsp prepare` makes a dataset.'


def _read(path: pathlib.Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise DatasetError(f'{path} is missing.') from None
    except OSError as error:
        raise DatasetError(f'{path} cannot be read: {error.strerror}.') from None


def _parse(text: bytes, shape: Any, source: object) -> Any:
    """JSON of a shape; `source` says in messages where it comes from."""
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DatasetError(f'{source} cannot be read: {error}.') from None
    if not isinstance(content, dict):
        raise DatasetError(f'{source} is damaged: it does not hold an object.')
    if found := fault(content, shape):
        raise DatasetError(f'{source} is damaged: {found}.')
    return content
