"""JSON files that are whole or not there, and folders that stay with the settings they were begun with."""

from __future__ import annotations

import json
import os
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

from ddsp.errors import ConfigError
from ddsp.io.files import write_json


def local_folder(path: str | os.PathLike[str], option: str) -> pathlib.Path:
    """A folder for a training or a sweep, which must be on a disk.

    Raises:
      ConfigError: `path` is an address such as `gs://bucket/run`; the message names the `option`.
    """
    text = os.fspath(path)
    if '://' in text or text.startswith('gs:/'):
        raise ConfigError(
            f'{option} {text}: checkpoints that are replaced at once, and what waits for MLflow, need a '
            'disk. Give a folder of this machine or one that is mounted.'
        )
    return pathlib.Path(path)


def read_json(path: pathlib.Path) -> dict[str, Any]:
    """The contents of a file; empty when there is none or it is not readable as JSON."""
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return {}


def settle(
    path: pathlib.Path,
    wanted: Mapping[str, Any],
    what: str,
    option: str,
    shown: Callable[[str, Any], str] = lambda name, value: f'{name} {value}',
    notes: Mapping[str, Any] | None = None,
    anew: str = 'remove the folder to begin anew',
) -> None:
    """Notes the settings in a new folder; refuses a folder that was begun with others.

    Args:
      path: File of the settings, in the folder.
      wanted: Settings that must not change.
      what: What the folder holds, such as `'a training'`.
      option: Command-line option that names another folder.
      shown: A setting as people write it.
      notes: What is written down beside the settings and may change.
      anew: What else can be done, for the message.

    Raises:
      ConfigError: The folder was begun with other settings, which the message names.
    """
    folder = path.parent
    folder.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        write_json(path, {**wanted, **(notes or {})})
        return
    begun = read_json(path)
    if not begun:
        raise ConfigError(f'{path} cannot be read. Give another {option}, or {anew}.')
    for name, value in wanted.items():
        if begun.get(name) != value:
            raise ConfigError(
                f'{folder} holds {what} that was begun with {shown(name, begun.get(name))}, not '
                f'{shown(name, value)}. Give another {option}, or {anew}.'
            )
