"""Training checkpoints: written whole or not at all, and read back from the newest one that is whole."""

from __future__ import annotations

import glob
import os
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from ddsp.io import files
from ddsp.training.states import CheckpointError, State

PREFIX = 'ckpt-'


# What TensorFlow raises for files that are cut short, altered or belong to another model.
_UNREADABLE = (tf.errors.OpError, AssertionError, ValueError, AttributeError, LookupError, OSError)


def checkpoint_step(path: str) -> int:
    """The step in a checkpoint's name; -1 without one.

    Example:
      >>> checkpoint_step('run/ckpt-3000')
      3000
    """
    match = re.search(rf'{PREFIX}(\d+)$', path)
    return int(match.group(1)) if match else -1


def list_checkpoints(directory: str | os.PathLike[str]) -> list[str]:
    """Prefixes `.../ckpt-N` of the checkpoints in a directory, newest first."""
    found = tf.io.gfile.glob(os.path.join(os.fspath(directory), f'{PREFIX}*.index'))
    prefixes = [path[: -len('.index')] for path in found]
    return sorted((p for p in prefixes if checkpoint_step(p) >= 0), key=checkpoint_step, reverse=True)


def get_latest_checkpoint(checkpoint_path: str | os.PathLike[str]) -> str:
    """Prefix of the newest checkpoint.

    Args:
      checkpoint_path: A directory, or the prefix of a checkpoint itself.

    Returns:
      A prefix such as `'run/ckpt-3000'`.

    Raises:
      CheckpointError: There is none.
    """
    path = os.path.expanduser(os.fspath(checkpoint_path))
    if tf.io.gfile.exists(path + '.index'):
        return path
    for found in list_checkpoints(path):
        return found
    other = tf.train.latest_checkpoint(path)  # named otherwise, but listed in the file `checkpoint`
    if other:
        files.inside(path, os.path.relpath(other, path), os.path.join(path, 'checkpoint'))
        return other
    raise CheckpointError(
        f'no checkpoint at {path}: it is neither a checkpoint nor a directory that holds one'
    )


def has_checkpoint(path: str | os.PathLike[str]) -> bool:
    """Whether there is a checkpoint at a path (a directory or a prefix)."""
    try:
        get_latest_checkpoint(path)
    except CheckpointError:
        return False
    return True


def save(
    values: Mapping[str, np.ndarray], directory: str, step: int, keep: int, pinned: Sequence[int] = ()
) -> str:
    """Writes `ckpt-<step>` and removes the oldest ones beyond `keep`.

    TensorFlow writes to temporary names; the index, without which a checkpoint does not exist, comes last.

    Args:
      values: What to save, by name.
      directory: Where to.
      step: Number in the name.
      keep: How many of the newest checkpoints stay.
      pinned: Steps whose checkpoints stay too.

    Returns:
      The prefix.

    Raises:
      CheckpointError: It cannot be written (no space, no permission); the older checkpoints stay as they
        were.
    """
    prefix = os.path.join(directory, f'{PREFIX}{step}')
    try:
        tf.io.gfile.makedirs(directory)
        with tf.device('CPU:0'):
            tf.raw_ops.SaveV2(
                prefix=prefix, tensor_names=list(values), shape_and_slices=[''] * len(values),
                tensors=list(values.values()),
            )  # fmt: skip
        found = list_checkpoints(directory)
        old = [p for p in found[keep:] if checkpoint_step(p) not in pinned]
        _write_state(directory, [p for p in found if p not in old])
    except (tf.errors.OpError, OSError) as error:
        _remove(prefix)
        raise CheckpointError(
            f'the checkpoint {prefix} cannot be written: {_first_line(error)}. The checkpoints before it are '
            'unharmed; make room (or correct the permissions) and run the same command again to go on from '
            'the last one'
        ) from error
    for path in old:
        _remove(path)
    return prefix


class Writer:
    """Writes in a thread, while training goes on."""

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._error: Exception | None = None

    def save(
        self, values: Mapping[str, np.ndarray], directory: str, step: int, keep: int, pinned: Sequence[int]
    ) -> str:
        """Like `checkpoints.save`, but returns at once: the values must not change any more.

        Waits for the checkpoint before it, and raises that one's CheckpointError.
        """
        self.wait()

        def write() -> None:
            try:
                save(values, directory, step, keep, pinned)
            except Exception as error:  # raised by the next `wait`, in the thread that trains
                self._error = error

        self._thread = threading.Thread(target=write, name='checkpoint')
        self._thread.start()
        return os.path.join(directory, f'{PREFIX}{step}')

    def wait(self) -> None:
        """Returns when the last checkpoint is written; raises its CheckpointError."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._error is not None:
            error, self._error = self._error, None
            raise error


def restore_newest(
    read: Callable[[str], None], path: str | os.PathLike[str], report: Callable[[str], None]
) -> str:
    """Reads the newest checkpoint that can be read.

    Args:
      read: Restores from a prefix; raises when it cannot.
      path: A directory, or a prefix (then only that one is tried).
      report: Told about every checkpoint that is passed over.

    Returns:
      The prefix that was read.

    Raises:
      CheckpointError: There is none, or none can be read.
    """
    newest = get_latest_checkpoint(path)
    candidates = [newest]
    if newest != os.path.expanduser(os.fspath(path)):
        candidates += [p for p in list_checkpoints(os.path.expanduser(os.fspath(path))) if p != newest]
    reasons = []
    for prefix in candidates:
        try:
            read(prefix)
        except _UNREADABLE as error:
            reasons.append(f'{prefix}: {_first_line(error)}')
            report(f'the checkpoint {prefix} cannot be read ({_first_line(error)}); trying the one before it')
        else:
            return prefix
    raise CheckpointError('no checkpoint can be read: ' + '; '.join(reasons))


def restore_model(model: Any, path: str | os.PathLike[str], keys: Sequence[str] | None = None) -> str:
    """Restores a built model, or some of its parts, from a training checkpoint; returns its prefix."""
    prefix = get_latest_checkpoint(path)
    state = State(model, keys=keys)
    try:
        state.read(prefix)
    except _UNREADABLE as error:
        raise CheckpointError(
            f'{prefix} cannot be restored into this model: {_first_line(error)}. It is damaged, or was made '
            'with another configuration'
        ) from error
    return prefix


def _write_state(directory: str, newest_first: Sequence[str]) -> None:
    """The file `checkpoint`, by which TensorFlow's own tools find the newest one."""
    if not newest_first:
        return
    names = [os.path.basename(prefix) for prefix in newest_first]
    lines = [f'model_checkpoint_path: "{names[0]}"']
    lines += [f'all_model_checkpoint_paths: "{name}"' for name in reversed(names)]
    path = os.path.join(directory, 'checkpoint')
    with tf.io.gfile.GFile(path + '.new', 'w') as file:
        file.write('\n'.join(lines) + '\n')
    tf.io.gfile.rename(path + '.new', path, overwrite=True)


def _remove(prefix: str) -> None:
    name = glob.escape(prefix)
    for path in [prefix + '.index', *glob.glob(name + '.index?*'), *glob.glob(name + '.data-*')]:
        if tf.io.gfile.exists(path):
            tf.io.gfile.remove(path)
    for path in glob.glob(name + '_temp*'):
        if os.path.islink(path):  # in a folder from elsewhere: what it leads to is not ours
            os.unlink(path)
        else:
            tf.io.gfile.rmtree(path)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
