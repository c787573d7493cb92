"""Files and folders: names that stay inside, writing whole or not at all, folders with one owner."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import pathlib
import shutil
import time
import unicodedata
import uuid
from collections.abc import Collection, Iterator
from typing import Any

from ddsp.errors import DDSPError

LOCK = '.lock'
_POLL_SECS = 0.05


class UnsafeNameError(DDSPError):
    """Data names a file outside its own folder."""


class FolderInUseError(DDSPError):
    """Another process is writing into a folder."""


def inside(folder: str | os.PathLike[str], name: object, source: str) -> pathlib.Path:
    """Path of a file that data names; the file must lie in the data's own folder.

    A manifest, a journal or a bundle may come from somebody else, so nothing that it names is read, written
    or uploaded before it has passed here.

    Args:
      folder: Folder that the name must stay in.
      name: Relative path with forward slashes, as the data gives it.
      source: What names it, for the message, such as `'MANIFEST.json'`.

    Returns:
      `folder/name`.

    Raises:
      UnsafeNameError: The name is empty, absolute, climbs out of the folder (`..`, a link), or holds a
        drive letter, a backslash or a control character; look-alikes of these characters count as well.
    """
    check_name(folder, name, source)
    path = pathlib.Path(folder) / str(name)
    if not path.resolve().is_relative_to(pathlib.Path(folder).resolve()):
        raise UnsafeNameError(f'{source} names {name!r}, which is a link that leaves {folder}.')
    return path


def check_name(folder: str | os.PathLike[str], name: object, source: str) -> None:
    """Raises as `inside`, except for links: for places that have none, such as buckets."""
    text = unicodedata.normalize('NFKC', name) if isinstance(name, str) else ''
    parts = text.split('/')
    if (
        any(part in ('', '.', '..') or part.startswith('~') for part in parts)
        or any(sign in text for sign in '\\:')
        or any(unicodedata.category(sign) in ('Cc', 'Cf', 'Cs') for sign in text)
    ):
        raise UnsafeNameError(f'{source} names {name!r}, which is not a file name inside {folder}.')


def writable(text: str) -> str:
    """Text with names in it as UTF-8 can hold it: a byte of a name that is not UTF-8 becomes `\\xe9`."""
    try:
        return text.encode('utf-8', 'surrogateescape').decode('utf-8', 'backslashreplace')
    except UnicodeEncodeError:  # a surrogate that stands for no byte: JSON can hold it, no name can
        return text.encode('utf-8', 'backslashreplace').decode()


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[pathlib.Path]:
    """A path to write to, in the same folder; the file takes the place of `path` when the block ends well."""
    path = pathlib.Path(path)
    part = path.with_name(f'.{path.name[:40]}.{uuid.uuid4().hex[:8]}.part')
    try:
        yield part  # opened by the caller, so that the mode follows the umask
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def write_bytes(path: str | os.PathLike[str], content: bytes) -> None:
    """Writes a file at once: whoever reads it, or finds it after a crash, finds all of it."""
    with replacing(path) as part:
        part.write_bytes(content)


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Writes a value as JSON, whole or not at all."""
    write_bytes(path, (json.dumps(value, indent=2) + '\n').encode())


def file_sha256(path: str | os.PathLike[str]) -> str:
    """The sha256 of a file's bytes, in hexadecimal."""
    with open(path, 'rb') as file:
        return hashlib.file_digest(file, 'sha256').hexdigest()


@contextlib.contextmanager
def replacing_folder(
    target: str | os.PathLike[str], marker: str, made: Collection[str] | None = None
) -> Iterator[pathlib.Path]:
    """A path for a new folder beside `target`, whose place it takes when the block ends well.

    Args:
      target: Where the folder belongs. It may be absent, empty, or an earlier result of the same command.
      marker: File that every earlier result holds.
      made: All names that an earlier result may hold; by default any.

    Raises:
      DDSPError: `target` holds something else, which stays as it is; said before the block, too.
    """
    target = pathlib.Path(target)
    check_replaceable(target, marker, made)
    part = target.with_name(f'.{target.name}.{uuid.uuid4().hex[:8]}.part')
    try:
        yield part
        check_replaceable(target, marker, made)
        _put_in_place(part, target)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _put_in_place(part: pathlib.Path, target: pathlib.Path) -> None:
    """Renames a folder; the one that was there goes, or comes back when that fails."""
    old = part.with_name(f'{part.name}.old')
    if target.exists():
        target.rename(old)
    try:
        part.rename(target)
    except OSError:
        if old.exists():
            old.rename(target)
        raise
    shutil.rmtree(old, ignore_errors=True)


def check_replaceable(target: pathlib.Path, marker: str, made: Collection[str] | None = None) -> None:
    """Refuses an output folder that holds something else than an earlier result.

    Raises:
      DDSPError: `target` is a file, a link, or a folder with content but without `marker`, or with names that
        are not among `made`.
    """
    if target.is_symlink() or (target.exists() and not target.is_dir()):
        raise DDSPError(f'{target} is not a folder. Give another output.')
    names = {path.name for path in target.iterdir()} if target.is_dir() else set()
    if names and not (target / marker).is_file():
        raise DDSPError(
            f'{target} holds other files (no {marker}); nothing was changed. Give another output.'
        )
    others = sorted(names - {*made, '.DS_Store'}) if made is not None else []
    if others:
        raise DDSPError(
            f'{target} holds other files ({others[0]}); nothing was changed. Give another output.'
        )


def check_output(output: str | os.PathLike[str], *inputs: str | os.PathLike[str]) -> None:
    """Refuses an output that is an input or lies in one, before any work is done.

    Args:
      output: File or folder to be written.
      *inputs: Files and folders that are read.

    Raises:
      DDSPError: Writing the output would change an input: the same file, also by a link or in another
        spelling.
    """
    path = pathlib.Path(output)
    for given in map(pathlib.Path, inputs):
        target, source = path.resolve(), given.resolve()
        same = path.exists() and given.exists() and path.samefile(given)  # also a hard link
        if same or target == source:
            raise DDSPError(f'the output {output} is the input {given}. Give another output.')
        if target.is_relative_to(source):
            raise DDSPError(f'the output {output} lies in the input {given}. Give another output.')


@contextlib.contextmanager
def locked(
    folder: str | os.PathLike[str], busy: str, *, name: str = LOCK, wait_secs: float = 0.0
) -> Iterator[None]:
    """Makes a folder and keeps other processes out of it; the system lets go when the process ends.

    Args:
      folder: The folder.
      busy: The sentence to refuse with while another process holds it.
      name: File in the folder that is locked; processes exclude each other by the same name.
      wait_secs: How long to wait for the other process before refusing.

    Raises:
      FolderInUseError: Another process holds the folder.
      DDSPError: The folder cannot be written.
    """
    import fcntl  # not on Windows, where the library is imported all the same

    folder = pathlib.Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = open(folder / name, 'a')  # noqa: SIM115 (closed below; closing releases the lock)
    except OSError as error:
        raise DDSPError(f'{folder} cannot be written: {error.strerror}.') from None
    deadline = time.monotonic() + wait_secs
    with lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise FolderInUseError(busy) from None
            except OSError as error:
                raise DDSPError(f'{folder} cannot be locked: {error.strerror}.') from None
            time.sleep(_POLL_SECS)
        yield
