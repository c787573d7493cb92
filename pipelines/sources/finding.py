"""From what the user names to a list of inputs: files, folders, patterns, buckets and datasets."""

from __future__ import annotations

import dataclasses
import glob
import itertools
import os
import re
import stat
from collections.abc import Iterable, Iterator

from ddsp.errors import DDSPError
from ddsp.io import gcs
from pipelines.sources import synthetic_source, tfds_source
from pipelines.sources.stages import Found, Rejected

# Looked for in folders; a file that is named by itself is opened whatever its name.
AUDIO_SUFFIXES = frozenset({
    '.wav', '.wave', '.rf64', '.w64', '.flac', '.ogg', '.oga', '.opus', '.mp3', '.mp2', '.aiff', '.aif',
    '.aifc', '.caf', '.au', '.snd', '.m4a', '.m4b', '.mp4', '.aac', '.wma', '.webm', '.mka', '.alac',
    '.ac3', '.amr', '.voc', '.sph', '.mov', '.mkv',
})  # fmt: skip

PathLike = str | os.PathLike[str]


def find_sources(sources: PathLike | Iterable[PathLike]) -> list[Found | Rejected]:
    """Lists the inputs: files, folders (with everything in them) and patterns with `*`, `?` or `[...]`.

    Any of them may be on gs://; `tfds:...` and `synthetic:...` are datasets (see docs/datasets.md).

    Gives one row for each file, in the order of their paths; hidden files and those that are not audio by
    their names are rejected as skipped.

    Raises:
      DDSPError: A path or a pattern matches nothing, or a folder holds no audio file.
    """
    parts = itertools.chain.from_iterable(map(divide, check_sources(sources)))
    rows = once_each(itertools.chain.from_iterable(map(expand, parts)))
    return [rows[path] for path in sorted(rows)]


def once_each(rows: Iterable[Found | Rejected]) -> dict[str, Found | Rejected]:
    """Inputs by their paths: what one source passes over and another one names is taken."""
    kept: dict[str, Found | Rejected] = {}
    for row in rows:
        known = kept.get(row.path)
        if known is None or (isinstance(known, Rejected) and isinstance(row, Found)):
            kept[row.path] = row
    return kept


def check_sources(sources: PathLike | Iterable[PathLike]) -> tuple[str, ...]:
    """What the user named, each on its own; raises DDSPError where that is nothing."""
    given = [sources] if isinstance(sources, (str, os.PathLike)) else list(sources)
    if not given:
        raise DDSPError('no input was named: give files, folders or patterns such as recordings/*.wav')
    items = [os.fspath(each) for each in given]
    for item in items:
        if not item.strip():
            raise DDSPError(f'an input is {item!r}, which names nothing.')
    return tuple(items)


Listable = str | tfds_source.RecordFile


def divide(item: str) -> list[Listable]:
    """A source in parts that can be listed side by side: the files of a dataset; raises as `find_sources`."""
    return [*tfds_source.find_files(item)] if item.startswith(tfds_source.SCHEME) else [item]


def expand(part: Listable) -> Iterator[Found | Rejected]:
    """Lists what one part means, one by one; raises as `find_sources`, also at the end of a folder."""
    yield from tfds_source.find_records(part) if isinstance(part, tfds_source.RecordFile) else _expand(part)


def _expand(item: str) -> Iterable[Found | Rejected]:
    if gcs.is_gcs(item):
        return _expand_remote(item)
    if item.startswith(synthetic_source.SCHEME):
        return synthetic_source.find_takes(item)
    path = os.path.abspath(os.path.expanduser(item))
    if os.path.isdir(path):
        return _nonempty(item, _walk(path, set()))
    if os.path.lexists(path):
        return [Found(path)]
    if not glob.has_magic(item):
        raise DDSPError(f'{item}: no such file or folder.')
    matches = sorted(glob.glob(path, recursive=True))
    if not matches:
        raise DDSPError(f'the pattern {item!r} matches no file.')
    return [
        row
        for match in matches
        for row in (_walk(match, set()) if os.path.isdir(match) else [_judge_name(match)])
    ]


def _expand_remote(item: str) -> Iterable[Found | Rejected]:
    """Objects: one, those below a folder, or those that match a pattern."""
    fixed = item[: re.search(r'[*?\[]|$', item).start()]  # type: ignore[union-attr]
    if fixed == item:
        if found := gcs.stat(item):
            return [Found(found.address, stamp=str(found.generation))]
        item = item.rstrip('/')
        objects = [each for each in gcs.list_objects(item) if not each.address.endswith('/')]
        if not objects:
            raise DDSPError(f'{item}: no such object or folder.')
        return _nonempty(item, (_judge_remote(each, item) for each in objects))
    folder, _, rest = fixed.rpartition('/')
    matches = re.compile(_translate(item))
    objects = [each for each in gcs.list_objects(folder, rest) if matches.fullmatch(each.address)]
    if not objects:
        raise DDSPError(f'the pattern {item!r} matches no object.')
    return [_judge_remote(each, folder) for each in objects]


def _translate(pattern: str) -> str:
    """A pattern as a regular expression: `*` stays within a folder, `**` does not."""
    parts = re.split(r'(\*\*/?|\*|\?|\[!?[^]]+\])', pattern)
    known = {'**/': '(?:.*/)?', '**': '.*', '*': '[^/]*', '?': '[^/]'}
    for i in range(1, len(parts), 2):
        parts[i] = known.get(parts[i]) or parts[i].replace('[!', '[^')
    return ''.join(part if i % 2 else re.escape(part) for i, part in enumerate(parts))


def _judge_remote(found: gcs.Object, folder: str) -> Found | Rejected:
    row = _judge_name('/' + found.address.removeprefix(folder).lstrip('/'), hidden_folders=True)
    if isinstance(row, Found):
        return Found(found.address, stamp=str(found.generation))
    return dataclasses.replace(row, path=found.address)


def _nonempty(item: str, rows: Iterable[Found | Rejected]) -> Iterator[Found | Rejected]:
    """The rows of a folder; raises at the end where none of them is meant as a recording."""
    passed_over, first, audio = 0, '', False
    for row in rows:
        if isinstance(row, Rejected) and row.outcome == 'skipped':
            passed_over, first = passed_over + 1, first or row.path
        else:
            audio = True
        yield row
    if not audio:
        there = f'; {passed_over} other files were passed over, such as {first}' if passed_over else ''
        raise DDSPError(f'the folder {item} holds no audio files{there}.')


def _walk(folder: str, seen: set[tuple[int, int]]) -> Iterator[Found | Rejected]:
    """Files below a folder; follows links to folders, but goes into each folder once."""
    try:
        status = os.stat(folder)
        if (status.st_dev, status.st_ino) in seen:
            yield Rejected(folder, 'loop', 'a folder that was read already', 'skipped')
            return
        seen.add((status.st_dev, status.st_ino))
        names = sorted(os.listdir(folder))
    except OSError as error:
        yield Rejected(folder, 'permission', f'{folder}: {error.strerror}.')
        return
    for name in names:
        path = os.path.join(folder, name)
        if os.path.isdir(path) and not name.startswith('.'):
            inside = list(_walk(path, seen))
            yield from inside or [Rejected(path, 'folder', 'a folder with nothing in it', 'skipped')]
        else:
            yield _judge_name(path)


def _judge_name(path: str, hidden_folders: bool = False) -> Found | Rejected:
    name = os.path.basename(path)
    suffix = os.path.splitext(name)[1].lower()
    if name.startswith('.') or (hidden_folders and '/.' in path):
        return Rejected(path, 'hidden', 'a hidden file', 'skipped')
    if suffix and suffix not in AUDIO_SUFFIXES:
        return Rejected(path, 'not_audio', 'not audio by its name', 'skipped')
    try:
        regular = stat.S_ISREG(os.stat(path).st_mode)
    except OSError:
        regular = True  # `probe_sources` says why it cannot be opened
    return Found(path) if regular else Rejected(path, 'not_a_file', 'not a regular file', 'skipped')
