"""Parts of TFRecord files, and how many records they hold."""

from __future__ import annotations

import dataclasses
import struct

import tensorflow as tf

from ddsp.io.dataset import DatasetError


@dataclasses.dataclass(frozen=True)
class Part:
    """Records of one file.

    Attributes:
      path: The file.
      skip: Records at its beginning that are left out.
      take: How many are read then; -1: all.
      count: Records of the file; None: not known without reading it.
    """

    path: str
    skip: int = 0
    take: int = -1
    count: int | None = None

    def __len__(self) -> int:
        count = count_records(self.path) if self.count is None else self.count
        return count - self.skip if self.take < 0 else self.take

    @property
    def bytes(self) -> int:
        """Size of the file.

        Raises:
          DatasetError: It is missing.
        """
        try:
            return tf.io.gfile.stat(self.path).length
        except tf.errors.NotFoundError:
            raise DatasetError(f'{self.path} is missing. Prepare the dataset again') from None


def count_records(path: str) -> int:
    """Number of records in a TFRecord file, from their headers alone.

    Raises:
      DatasetError: The file ends within a record.
    """
    count, position = 0, 0
    with tf.io.gfile.GFile(path, 'rb') as file:
        size = file.size()
        while position < size:
            header = file.read(8)
            if len(header) < 8:
                raise DatasetError(f'{path} is damaged: it ends within record {count}')
            position += (
                8 + 4 + struct.unpack('<Q', header)[0] + 4
            )  # length, its checksum, data, their checksum
            count += 1
            if position < size:
                file.seek(position)
    if position != size:
        raise DatasetError(f'{path} is damaged: it ends within record {count - 1}')
    return count
