"""The folder of a training: one owner at a time, one set of settings, and how it is begun anew."""

from __future__ import annotations

import contextlib
import pathlib
import re
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ddsp.errors import ConfigError
from ddsp.io.files import LOCK, locked
from experiments.files import read_json, settle

_SETTINGS = 'train.json'
_OPTION = '--save-dir'
_ANEW = 'add --restart, which moves the folder aside and begins anew'


@contextlib.contextmanager
def owned(
    folder: pathlib.Path,
    wanted: Mapping[str, Any],
    notes: Mapping[str, Any],
    *,
    restart: bool,
    warn: Callable[[str], None],
) -> Iterator[None]:
    """Keeps a training folder for one training for as long as it runs.

    Args:
      folder: The folder; made when it is missing.
      wanted: Settings that must not change once a step was saved.
      notes: What is written beside them.
      restart: Move aside what lies there.
      warn: Called with what was moved where.

    Raises:
      FolderInUseError: Another training has the folder.
      ConfigError: The folder was begun with other settings, or its checkpoints are gone.
    """
    busy = f'{folder} belongs to a training that is running. Wait for its end, or give another {_OPTION}.'
    with locked(folder, busy):
        begun = read_json(folder / _SETTINGS)
        other = any(begun.get(name) != value for name, value in wanted.items())
        if restart or (begun and other and not has_steps(folder)):
            aside = _move_aside(folder)
            if aside is not None:
                warn(f'what lay in {folder} is in {aside} now.')
        check(folder, wanted)
        settle(folder / _SETTINGS, wanted, 'a training', _OPTION, _shown, notes=notes, anew=_ANEW)
        yield


def check(folder: pathlib.Path, wanted: Mapping[str, Any]) -> None:
    """Refuses a folder that was begun with other settings or has lost its checkpoints; changes nothing."""
    if not has_steps(folder):
        return
    if (folder / _SETTINGS).exists():
        settle(folder / _SETTINGS, wanted, 'a training', _OPTION, _shown, anew=_ANEW)
    if not any(folder.glob('ckpt-*.index')):
        raise ConfigError(
            f'{folder} has lost its checkpoints: its training has saved step '
            f'{max(_saved_steps(folder), default="?")}: it would begin at step 0 in the same run. Put the '
            f'checkpoints (ckpt-*) back, or {_ANEW}.'
        )


def _shown(name: str, value: Any) -> str:
    """A setting as people write it."""
    if name == 'dataset':
        return f'the dataset of digest {str(value)[:12]}'
    return f'{name} {", ".join(value) if isinstance(value, list) and value else "none"}'


def has_steps(folder: pathlib.Path) -> bool:
    """Whether a training has saved steps in a folder, even if its checkpoints are gone."""
    # One configuration alone may belong to a checkpoint that was never finished.
    traces = any((folder / name).exists() for name in ('checkpoint', 'bundle'))
    return traces or len(_saved_steps(folder)) > 1 or any(folder.glob('ckpt-*.index'))


def _saved_steps(folder: pathlib.Path) -> list[int]:
    """Steps at which a checkpoint was begun: the configuration is written beside it."""
    found = (re.fullmatch(r'operative_config-(\d+)', path.stem) for path in folder.glob('*.gin'))
    return [int(match[1]) for match in found if match and int(match[1]) > 0]


def _move_aside(folder: pathlib.Path) -> pathlib.Path | None:
    """Moves all that lies in a folder, but not its lock, into a new folder beside it; None if it is empty."""
    content = [path for path in folder.iterdir() if path.name != LOCK]
    if not content:
        return None
    aside = folder.with_name(f'{folder.name}.before-{time.strftime("%Y%m%d-%H%M%S")}')
    while aside.exists():
        aside = aside.with_name(f'{aside.name}-again')
    aside.mkdir()
    for path in content:
        path.rename(aside / path.name)
    return aside
