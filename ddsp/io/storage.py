"""Files by their address, in a folder or in a bucket: the same calls for both, so that code need not care."""

from __future__ import annotations

import concurrent.futures
import contextlib
import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from typing import BinaryIO

from ddsp.errors import DDSPError
from ddsp.io import gcs
from ddsp.io.files import check_name, replacing
from ddsp.io.files import inside as inside_folder

_AT_ONCE = 8  # requests to a bucket


def read(address: str) -> bytes | None:
    """The content of a file; None where there is no such file."""
    try:
        return gcs.read(address) if gcs.is_gcs(address) else pathlib.Path(address).read_bytes()
    except (gcs.NotFound, FileNotFoundError, NotADirectoryError):
        return None


def size(address: str) -> int | None:
    """Size of a file in bytes; None where there is no such file."""
    if gcs.is_gcs(address):
        found = gcs.stat(address)
        return found.size if found else None
    try:
        return os.stat(address).st_size
    except OSError:
        return None


def read_range(address: str, start: int, size: int, generation: int | None = None) -> bytes:
    """Some bytes of a file, in one request where it is an object; fewer at its end.

    Args:
      address: The file.
      start: The first byte.
      size: How many bytes to read, at least 1.
      generation: Version of an object, as in `ddsp.io.gcs.download`.

    Raises:
      OSError: A file on disk cannot be read.
      GcsError: An object cannot be read.
    """
    if gcs.is_gcs(address):
        return gcs.read_range(address, start, size, generation)
    with open(address, 'rb') as file:
        file.seek(start)
        return file.read(size)


def opened(address: str, generation: int | None = None) -> contextlib.AbstractContextManager[BinaryIO]:
    """A file to read from the beginning on, with leaps forward; raises as `read_range`."""
    return gcs.opened(address, generation) if gcs.is_gcs(address) else open(address, 'rb')


def inside(folder: str, name: object, source: str) -> str:
    """Address of a file that data names; raises as `ddsp.io.files.inside` where it is outside its folder."""
    if not gcs.is_gcs(folder):
        return str(inside_folder(folder, name, source))
    check_name(folder, name, source)
    return f'{folder}/{name}'


def write(address: str, content: bytes | pathlib.Path) -> None:
    """Writes bytes or what is in a file, whole or not at all, over what is there.

    Raises:
      DDSPError: It cannot be written.
    """
    if gcs.is_gcs(address):
        gcs.upload(content, address)
        return
    try:
        os.makedirs(os.path.dirname(address), exist_ok=True)
        with replacing(address) as part:
            if isinstance(content, bytes):
                part.write_bytes(content)
            else:
                shutil.copyfile(content, part)
    except OSError as error:
        raise DDSPError(f'{address} cannot be written: {error.strerror or error}.') from error


def list_files(folder: str) -> list[str]:
    """Addresses of the files directly in a folder, in the order of their names; none where it is missing."""
    if gcs.is_gcs(folder):
        found = (each.address for each in gcs.list_objects(folder))
        return [address for address in found if '/' not in address.removeprefix(f'{folder}/')]
    path = pathlib.Path(folder)
    return sorted(map(str, path.iterdir())) if path.is_dir() else []


def list_folders(folder: str) -> list[str]:
    """Names of the folders directly in a folder, sorted; none where it is missing."""
    if gcs.is_gcs(folder):
        return gcs.list_folders(folder)
    path = pathlib.Path(folder)
    return sorted(each.name for each in path.iterdir() if each.is_dir()) if path.is_dir() else []


def remove_folder(folder: str) -> None:
    """Removes a folder with all that is in it; one that is not there is removed already."""
    if gcs.is_gcs(folder):
        with concurrent.futures.ThreadPoolExecutor(_AT_ONCE) as pool:
            list(pool.map(gcs.delete, (each.address for each in gcs.list_objects(folder))))
    else:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def local_folder(folder: str, names: Iterable[str]) -> Iterator[str]:
    """A folder of this machine with some files of another one: that itself, or copies for the block."""
    if not gcs.is_gcs(folder):
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix='ddsp-') as here:
        with concurrent.futures.ThreadPoolExecutor(_AT_ONCE) as pool:
            list(pool.map(lambda name: gcs.download(f'{folder}/{name}', pathlib.Path(here, name)), names))
        yield here


@contextlib.contextmanager
def local_copy(address: str, keep: str = '', generation: int | None = None) -> Iterator[str]:
    """A path to read a file from: its own, or for the length of the block that of a copy.

    Args:
      address: The file.
      keep: Where a copy of an object stays for the next call; '' where it does not.
      generation: Version of an object, as in `ddsp.io.gcs.download`.
    """
    if not gcs.is_gcs(address):
        yield address
    elif keep:
        if not os.path.isfile(keep):
            gcs.download(address, pathlib.Path(keep), generation)
        yield keep
    else:
        suffix = os.path.splitext(address)[1][:16]
        with tempfile.TemporaryDirectory(prefix='ddsp-') as folder:
            path = pathlib.Path(folder, f'object{suffix}')
            gcs.download(address, path, generation)
            yield str(path)
