"""The dataset directory: opening, checking and describing what `ddsp prepare` publishes.

A dataset is the folder `<root>/<name>/<version>/`; docs/datasets.md lists its files. `MANIFEST.json` is
written last, so a folder without it is an unfinished preparation and is refused.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import pathlib
import re
from typing import Any

from ddsp.errors import DDSPError

MANIFEST = 'MANIFEST.json'
SCHEMA_VERSION = 1
# Values that stand for "nothing here" in the frames of a padded window.
PADDED_CONFIDENCE = 0.0
PADDED_LOUDNESS_DB = -80.0


class DatasetError(DDSPError):
    """A dataset directory that is missing, unfinished or damaged."""


class Dataset:
    """A published dataset directory.

    Attributes:
      path: The version directory.
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
        self.manifest = manifest
        self.name: str = manifest['name']
        self.version: str = manifest['version']
        self.sample_rate: int = manifest['sample_rate']
        self.frame_rate: int = manifest['frame_rate']
        self.example_secs: float = manifest['example_secs']
        self.centered: bool = manifest['centered']
        self.splits: dict[str, int] = {name: row['examples'] for name, row in manifest['splits'].items()}

    def __repr__(self) -> str:
        return f'Dataset({str(self.path)!r}, splits={self.splits})'

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
        lengths = {'audio': self.n_samples}
        if self.sample_rate != 16000:
            lengths['audio_16k'] = round(self.example_secs * 16000)
        return lengths | dict.fromkeys(('f0_hz', 'f0_confidence', 'loudness_db'), self.n_frames)

    def files(self, split: str) -> list[str]:
        """Paths of the TFRecord files of a split.

        Raises:
          DatasetError: There is no such split.
        """
        self._check_split(split, self.splits)
        return [str(self.path / row['name']) for row in self.manifest['splits'][split]['files']]

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
    """Opens a dataset directory.

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
        names = ', '.join(sorted(version.parent.name for version in named))
        raise DatasetError(f'{folder} holds several datasets ({names}): name one, such as {named[0].parent}.')
    raise DatasetError(_why_not_a_dataset(folder))


def published_versions(folder: pathlib.Path) -> list[pathlib.Path]:
    """Finished version directories in `<root>/<name>`, oldest version first."""
    if not folder.is_dir():
        return []
    found = [child for child in folder.iterdir() if _version_key(child.name) and (child / MANIFEST).is_file()]
    return sorted(found, key=lambda child: _version_key(child.name))


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
