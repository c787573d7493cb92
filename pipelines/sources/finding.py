"""From what the user names to a list of recordings: finding files, looking into them, splitting them."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import glob
import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from ddsp.errors import DDSPError
from ddsp.io import gcs
from ddsp.io.audio import AudioError, AudioInfo, probe
from ddsp.io.dataset import DatasetError, file_sha256
from ddsp.io.decoding import shown
from pipelines.sources import tfds_source
from pipelines.sources.duplicates import mark_duplicates
from pipelines.sources.inputs import Inputs
from pipelines.synthetic.corpus import synthesize_corpus

# Looked for in folders; a file that is named by itself is opened whatever its name.
AUDIO_SUFFIXES = frozenset({
    '.wav', '.wave', '.rf64', '.w64', '.flac', '.ogg', '.oga', '.opus', '.mp3', '.mp2', '.aiff', '.aif',
    '.aifc', '.caf', '.au', '.snd', '.m4a', '.m4b', '.mp4', '.aac', '.wma', '.webm', '.mka', '.alac',
    '.ac3', '.amr', '.voc', '.sph', '.mov', '.mkv',
})  # fmt: skip
_SYNTHETIC = 'synthetic:'
_SKIP_NAMED_OTHERWISE = 'not audio by its name'


@dataclasses.dataclass
class Source:
    """One input and what became of it.

    Attributes:
      path: Absolute path, or address.
      outcome: `'accepted'`, `'rejected'`, `'skipped'` or `'duplicate'`; `''` while it is open.
      reason: One word for a machine where it was not accepted.
      message: What a person should know about it.
      sha256: Of the file's bytes.
      info: What the header says.
      warnings: What is odd about it, though it is used.
      stamp: Changes with its content; `''` where that is not known without reading it.
      local: The file that holds it, where that is not `path`.
      record: Where it is, for a record of TensorFlow Datasets (see `pipelines.sources.tfds_source`).
      split: The split that it belongs to; `''`: a hash of its content decides.
      head: A hash of its first samples, where that was needed.
    """

    path: str
    outcome: str = ''
    reason: str = ''
    message: str = ''
    sha256: str = ''
    info: AudioInfo | None = None
    warnings: list[str] = dataclasses.field(default_factory=list)
    stamp: str = ''
    local: str = ''
    record: dict[str, Any] | None = None
    split: str = ''
    head: str = ''

    def reject(self, reason: str, message: str) -> None:
        """Marks it as unusable."""
        self.outcome, self.reason, self.message = 'rejected', reason, message


def find_sources(sources: str | os.PathLike[str] | Iterable[str | os.PathLike[str]]) -> list[Source]:
    """Lists the inputs: files, folders (with all that is in them) and patterns with `*`, `?` or `[...]`.

    Any of them may be on gs://; `tfds:...` and `synthetic:...` are datasets (see docs/datasets.md).

    Args:
      sources: One of these or several.

    Returns:
      One row for each file that was met, in the order of their paths; what is no audio by its name or hidden
      is there as skipped.

    Raises:
      DDSPError: A path or a pattern matches nothing, or a folder holds no file.
    """
    given = [sources] if isinstance(sources, (str, os.PathLike)) else list(sources)
    if not given:
        raise DDSPError('no input was named: give files, folders or patterns such as recordings/*.wav')
    found: dict[str, Source] = {}
    for item in given:
        if not os.fspath(item).strip():
            raise DDSPError(f'an input is {os.fspath(item)!r}, which names nothing.')
        for source in _expand(os.fspath(item)):
            known = found.get(source.path)
            if known is None or (known.outcome == 'skipped' and not source.outcome):
                found[source.path] = source
    return [found[path] for path in sorted(found)]


def _expand(item: str) -> Iterator[Source]:
    if gcs.is_gcs(item):
        yield from _expand_remote(item)
        return
    if item.startswith(tfds_source.SCHEME):
        for path, where, split in tfds_source.find_records(item):
            yield Source(path, record=where, split=split)
        return
    if item.startswith(_SYNTHETIC):
        yield from _synthesize(item)
        return
    path = os.path.abspath(os.path.expanduser(item))
    if os.path.isdir(path):
        yield from _nonempty(item, list(_walk(path, set())))
    elif os.path.lexists(path):
        yield Source(path)
    elif glob.has_magic(item):
        matches = sorted(glob.glob(path, recursive=True))
        if not matches:
            raise DDSPError(f'the pattern {item!r} matches no file.')
        for match in matches:
            yield from _walk(match, set()) if os.path.isdir(match) else [_judge_name(match)]
    else:
        raise DDSPError(f'{item}: no such file or folder.')


def _synthesize(item: str) -> Iterator[Source]:
    """The synthetic corpus, made in the cache folder unless it is there."""
    match = re.fullmatch(r'([0-9]+)(?::([0-9]+))?', item.removeprefix(_SYNTHETIC))
    if not match:
        raise DDSPError(
            f'{item!r}: expected synthetic:SECONDS or synthetic:SECONDS:SEED, such as synthetic:180.'
        )
    seconds, seed = int(match[1]), int(match[2] or 0)
    folder = gcs.cache_folder() / 'synthetic' / f'{seconds}-{seed}'
    synthesize_corpus(folder, seconds=seconds, seed=seed)
    for file in sorted((folder / 'audio').glob('*.wav')):
        yield Source(f'{item}/{file.name}', local=str(file))


def _expand_remote(item: str) -> Iterator[Source]:
    """Objects: one, those below a folder, or those that match a pattern."""
    fixed = item[: re.search(r'[*?\[]|$', item).start()]  # type: ignore[union-attr]
    found = gcs.stat(item) if fixed == item else None
    if found:
        yield _remote_source(found)
    elif fixed == item:
        item = item.rstrip('/')
        objects = [each for each in gcs.list_objects(item) if not each.address.endswith('/')]
        if not objects:
            raise DDSPError(f'{item}: no such object or folder.')
        yield from _nonempty(item, [_judge_remote(each, item) for each in objects])
    else:
        folder, _, rest = fixed.rpartition('/')
        matches = re.compile(_translate(item))
        objects = [each for each in gcs.list_objects(folder, rest) if matches.fullmatch(each.address)]
        if not objects:
            raise DDSPError(f'the pattern {item!r} matches no object.')
        yield from (_judge_remote(each, folder) for each in objects)


def _translate(pattern: str) -> str:
    """A pattern as a regular expression: `*` stays within a folder, `**` does not."""
    parts = re.split(r'(\*\*/?|\*|\?|\[!?[^]]+\])', pattern)
    known = {'**/': '(?:.*/)?', '**': '.*', '*': '[^/]*', '?': '[^/]'}
    for i in range(1, len(parts), 2):
        parts[i] = known.get(parts[i]) or parts[i].replace('[!', '[^')
    return ''.join(part if i % 2 else re.escape(part) for i, part in enumerate(parts))


def _remote_source(found: gcs.Object) -> Source:
    return Source(found.address, stamp=str(found.generation))


def _judge_remote(found: gcs.Object, folder: str) -> Source:
    source = _judge_name('/' + found.address.removeprefix(folder).lstrip('/'), hidden_folders=True)
    return dataclasses.replace(source, path=found.address, stamp=str(found.generation))


def _nonempty(item: str, rows: list[Source]) -> list[Source]:
    if not any(row.outcome != 'skipped' for row in rows):
        there = f'; {len(rows)} other files were passed over, such as {rows[0].path}' if rows else ''
        raise DDSPError(f'the folder {item} holds no audio files{there}.')
    return rows


def _walk(folder: str, seen: set[tuple[int, int]]) -> Iterator[Source]:
    """Files below a folder; follows links to folders, but goes into each folder once."""
    try:
        status = os.stat(folder)
        if (status.st_dev, status.st_ino) in seen:
            yield Source(folder, 'skipped', 'loop', 'a folder that was read already')
            return
        seen.add((status.st_dev, status.st_ino))
        names = sorted(os.listdir(folder))
    except OSError as error:
        yield Source(folder, 'rejected', 'permission', f'{folder}: {error.strerror}.')
        return
    for name in names:
        path = os.path.join(folder, name)
        if os.path.isdir(path) and not name.startswith('.'):
            empty = True
            for source in _walk(path, seen):
                empty = False
                yield source
            if empty:
                yield Source(path, 'skipped', 'folder', 'a folder with nothing in it')
        else:
            yield _judge_name(path)


def _judge_name(path: str, hidden_folders: bool = False) -> Source:
    name = os.path.basename(path)
    suffix = os.path.splitext(name)[1].lower()
    if name.startswith('.') or (hidden_folders and '/.' in path):
        return Source(path, 'skipped', 'hidden', 'a hidden file')
    if suffix and suffix not in AUDIO_SUFFIXES:
        return Source(path, 'skipped', 'not_audio', _SKIP_NAMED_OTHERWISE)
    try:
        mode = os.stat(path).st_mode
        if not stat.S_ISREG(mode):
            return Source(path, 'skipped', 'not_a_file', 'not a regular file')
    except OSError:
        pass  # `survey` says why it cannot be opened
    return Source(path)


def survey(
    sources: list[Source],
    inputs: Inputs,
    report: Callable[[int, int], None] | None = None,
    threads: int = 8,
) -> None:
    """Looks into each open source: its header and its sha256; rejects what is no audio, finds duplicates.

    Args:
      sources: The rows of `find_sources`; they are filled in.
      inputs: Where copies of remote ones go, and what is known from the last time.
      report: Called with (done, all).
      threads: Files that are read at once.
    """
    rows = [source for source in sources if not source.outcome]
    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
        for done, _ in enumerate(pool.map(lambda source: _look_into(source, inputs), rows), 1):
            if report:
                report(done, len(rows))
    mark_duplicates(rows)
    inputs.save(rows)


def _look_into(source: Source, inputs: Inputs) -> None:
    if inputs.recall(source):
        return
    file = source.path
    try:
        if source.record:
            source.sha256, source.info = tfds_source.look_into(source.path, source.record)
            return
        file = inputs.fetch(source)
        info = probe(file)
        source.sha256 = file_sha256(file)
        source.info = dataclasses.replace(info, path=source.path)
    except AudioError as error:
        source.reject(error.reason, str(error).replace(shown(file), shown(source.path)))
    except (gcs.GcsError, DatasetError) as error:
        source.reject('unreadable', str(error))
    except OSError as error:
        source.reject('unreadable', f'{source.path} cannot be read: {error.strerror}.')
