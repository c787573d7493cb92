"""Tags of a run: which code made it, which process runs it where, and when that last gave a sign of life.

A running training renews a tag of its run, and whoever lists runs reads when it last did. Nothing else tells
whether a run lives. Names of machines and numbers of processes do not: containers share the one and cannot
see the other.
"""

from __future__ import annotations

import os
import pathlib
import platform
import subprocess
import time
from collections.abc import Mapping

from ddsp.version import __version__

TAG = 'ddsp.alive'
JOB_TAG, JOB_VARIABLE = 'ddsp.job', 'DDSP_JOB'  # of `ddsp launch`
EVERY_SECS = 30.0
# Ten signs may be missing: a store may be away for a moment, and clocks of two machines may differ.
LEASE_SECS = 300.0


def sign() -> dict[str, str]:
    """The tag of a run that lives now."""
    return {TAG: str(int(time.time() * 1000))}


def last_sign(tags: Mapping[str, str]) -> int | None:
    """When a run last gave a sign of life, in milliseconds since 1970; None when it never did."""
    text = tags.get(TAG, '')
    return int(text) if text.isdigit() else None


def silent_since(status: str, tags: Mapping[str, str], now: float | None = None) -> int | None:
    """Since when a run that has not ended gives no sign of life, in milliseconds since 1970.

    None for a run that has ended, that lives, or that never gave a sign. A sign from the future comes from a
    clock that is ahead: that run lives. `now` is in seconds; None takes the present.
    """
    last = last_sign(tags) if status == 'RUNNING' else None
    seconds = (time.time() if now is None else now) - (last or 0) / 1000
    return last if last is not None and seconds > LEASE_SECS else None


def context_tags() -> dict[str, str]:
    """Who runs the training where, for people who look for it, and its first sign of life."""
    job = {JOB_TAG: os.environ[JOB_VARIABLE]} if os.environ.get(JOB_VARIABLE) else {}
    return {'ddsp.host': platform.node(), 'ddsp.pid': str(os.getpid()), **job, **sign()}


def code_revision() -> dict[str, str]:
    """Tags that identify the code: `ddsp.version`, and in a git checkout `mlflow.source.git.commit` and
    `ddsp.code_clean` ('true' or 'false').
    """
    folder = pathlib.Path(__file__).resolve().parents[1]
    tags = {'ddsp.version': __version__}
    commit = _git(folder, 'rev-parse', 'HEAD')
    if commit:
        tags['mlflow.source.git.commit'] = commit
        tags['ddsp.code_clean'] = str(not _git(folder, 'status', '--porcelain', '--', '.')).lower()
    return tags


def _git(folder: pathlib.Path, *arguments: str) -> str:
    """Output of a git command; '' where there is no git or no checkout."""
    try:
        done = subprocess.run(
            ['git', '-C', str(folder), *arguments], capture_output=True, text=True, timeout=10, check=True
        )
        return done.stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ''
