"""TFRecord files of tf.train.Example, written and read without TensorFlow.

A worker that imports TensorFlow costs 0.9 GB and ten seconds; these two formats are a page. The tests read
the files with TensorFlow and with TFDS.
"""

from __future__ import annotations

import hashlib
import io
import os
import struct
from collections.abc import Callable, Iterator, Mapping
from typing import BinaryIO

import google_crc32c
import numpy as np

from ddsp.io import storage
from ddsp.io.dataset import DatasetError

_LENGTH = struct.Struct('<Q')
_CRC = struct.Struct('<I')


def encode_example(features: Mapping[str, np.ndarray]) -> bytes:
    """Serialises float features [n] as a tf.train.Example; the same features give the same bytes."""
    entries = []
    for name in sorted(features):
        values = _field(1, np.ascontiguousarray(features[name], '<f4').tobytes())  # FloatList.value, packed
        feature = _field(2, values)  # Feature.float_list
        entries.append(_field(1, _field(1, name.encode()) + _field(2, feature)))  # Features.feature: a map
    return _field(1, b''.join(entries))  # Example.features


def decode_example(message: bytes) -> dict[str, np.ndarray]:
    """The float features of a serialised tf.train.Example; features of other types are left out."""
    features = read_features(message)
    return {name: v for name, v in features.items() if isinstance(v, np.ndarray) and v.dtype == np.float32}


def read_features(message: bytes) -> dict[str, np.ndarray | list[bytes]]:
    """All features of a serialised tf.train.Example: float32 or int64 arrays [n], or lists of bytes."""
    features: dict[str, np.ndarray | list[bytes]] = {}
    try:
        for parts in (dict(_fields(entry)) for _, body in _fields(message) for _, entry in _fields(body)):
            for kind, values in _fields(parts.get(2, b'')):
                chunks = [chunk for _, chunk in _fields(values)]
                if kind in _KINDS:
                    features[parts[1].decode()] = _KINDS[kind](chunks)
    except (IndexError, KeyError, ValueError, TypeError, OverflowError):
        raise DatasetError('a record is not a tf.train.Example that can be read.') from None
    return features


def _varints(packed: bytes) -> np.ndarray:
    """Packed int64 values: seven bits a byte, the lowest first; the last byte is below 128."""
    data = np.frombuffer(packed, np.uint8)
    ends = np.flatnonzero(data < 128)
    starts = np.concatenate(([0], ends[:-1] + 1)) if len(ends) else ends
    values = np.zeros(len(ends), np.uint64)
    for i in range(10):
        there = starts + i <= ends
        part = (data[(starts + i)[there]] & 127).astype(np.uint64)
        values[there] |= part << np.uint64(7 * i)
    return values.view(np.int64)


# Feature.bytes_list, float_list and int64_list.
_KINDS: dict[int, Callable[[list[bytes]], np.ndarray | list[bytes]]] = {
    1: lambda chunks: chunks,
    2: lambda chunks: np.frombuffer(b''.join(chunks), '<f4'),
    3: lambda chunks: _varints(b''.join(chunks)),
}


class RecordWriter:
    """Writes a TFRecord file and keeps what a manifest needs to know of it.

    Records can be taken back to a `mark`, for an input that turns out to be unusable.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._file = open(path, 'w+b')  # noqa: SIM115 (closed by `close`, or with the object)
        self.examples = 0

    def write(self, features: Mapping[str, np.ndarray]) -> None:
        """Appends an example."""
        message = encode_example(features)
        length = _LENGTH.pack(len(message))
        self._file.write(length + _masked_crc(length) + message + _masked_crc(message))
        self.examples += 1

    def mark(self) -> tuple[int, int]:
        """A position to which `rewind` can go back."""
        return self._file.tell(), self.examples

    def rewind(self, mark: tuple[int, int]) -> None:
        """Removes everything that was written after `mark`."""
        self._file.seek(mark[0])
        self._file.truncate()
        self.examples = mark[1]

    def close(self) -> tuple[int, str]:
        """Puts the file on the disk; returns its size and sha256."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.seek(0)
        digest = hashlib.sha256()
        while block := self._file.read(1 << 20):
            digest.update(block)
        size = self._file.tell()
        self._file.close()
        return size, digest.hexdigest()


def read_records(path: str | os.PathLike[str]) -> Iterator[bytes]:
    """The messages of a TFRecord file; raises DatasetError that names the damaged record."""
    with open(path, 'rb') as file:
        yield from _messages(file, path)


def read_record(path: str | os.PathLike[str], offset: int, size: int, generation: int | None = None) -> bytes:
    """The message of the record at `offset`, here or on gs://, in one request.

    Args:
      path: The file.
      offset, size: Where the record is, as `record_spans` gives it.
      generation: Version of an object, as in `ddsp.io.gcs.download`.

    Raises:
      DatasetError: As `read_records`.
      GcsError: The object cannot be read.
    """
    try:
        content = storage.read_range(os.fspath(path), offset, size, generation)
    except OSError as error:
        raise DatasetError(f'{path} cannot be read: {error.strerror}.') from None
    for message in _messages(io.BytesIO(content), path):
        return message
    raise DatasetError(f'{path} is damaged: it has no record at byte {offset}.')


def record_spans(path: str | os.PathLike[str], generation: int | None = None) -> Iterator[tuple[int, int]]:
    """Where the records of a TFRecord file begin and their size, in bytes; raises as `read_record`."""
    try:
        with storage.opened(os.fspath(path), generation) as file:
            size, at = _size(file), 0
            while at < size:
                length = _read_length(file, f'{path} is damaged at byte {at}: a length cannot be read.')
                end = min(at + 16 + length, size)
                yield at, end - at
                at = file.seek(end)
    except OSError as error:
        raise DatasetError(f'{path} cannot be read: {error.strerror}.') from None


def _messages(file: BinaryIO, path: str | os.PathLike[str]) -> Iterator[bytes]:
    number, size = 0, _size(file)
    while file.tell() < size:
        length = _read_length(file, f'{path} is damaged at record {number}: its length cannot be read.')
        message, crc = file.read(min(length, size)), file.read(4)
        if len(message) < length or _masked_crc(message) != crc:
            raise DatasetError(f'{path} is damaged in record {number}: the checksum differs.')
        yield message
        number += 1


def _size(file: BinaryIO) -> int:
    """Size of a file of which nothing was read."""
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    return size


def _read_length(file: BinaryIO, damaged: str) -> int:
    head = file.read(12)
    if len(head) < 12 or _masked_crc(head[:8]) != head[8:]:
        raise DatasetError(damaged)
    return int(_LENGTH.unpack(head[:8])[0])


def read_examples(path: str | os.PathLike[str]) -> Iterator[dict[str, np.ndarray]]:
    """The examples of a TFRecord file as dictionaries of float32 arrays [n]."""
    return (decode_example(message) for message in read_records(path))


def _masked_crc(data: bytes) -> bytes:
    """CRC-32C, rotated and offset as the TFRecord format has it."""
    crc = google_crc32c.value(data)
    return _CRC.pack((((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF)


def _field(number: int, content: bytes) -> bytes:
    """A length-delimited protobuf field."""
    return bytes([number << 3 | 2]) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def _fields(message: bytes) -> Iterator[tuple[int, bytes]]:
    """The length-delimited fields of a message: (number, content)."""
    at = 0
    while at < len(message):
        key, at = _read_varint(message, at)
        if key & 7 != 2:
            raise DatasetError(f'an Example with a field of wire type {key & 7} cannot be read')
        length, at = _read_varint(message, at)
        if length > len(message) - at:
            raise DatasetError('an Example that ends inside a field cannot be read')
        yield key >> 3, message[at : at + length]
        at += length


def _read_varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        value |= (message[at] & 127) << shift
        at += 1
        if message[at - 1] < 128:
            return value, at
        shift += 7
