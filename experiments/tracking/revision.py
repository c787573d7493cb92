"""Which code made a run: git revision and whether the working tree was clean."""

from __future__ import annotations

import pathlib
import subprocess

from ddsp.version import __version__


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
