"""The store's database: first uses at once, kills while it is made or upgraded, servers that are away."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys

import pytest

SCRIPT = pathlib.Path(__file__).with_name('first_uses.py')


def first_uses(folder: pathlib.Path, **counts: int) -> dict[str, int]:
    """Runs the actions; returns how many kills of each came early enough to matter."""
    environment = {name: text for name, text in os.environ.items() if not name.startswith('MLFLOW_')}
    words = [str(word) for pair in counts.items() for word in pair]
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(folder), *words], capture_output=True, text=True, check=False,
        env={**environment, 'PYTHONPATH': os.pathsep.join(sys.path)},
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, '')
    return {action: int(early) for action, early in map(str.split, done.stdout.splitlines())}


def test_first_uses_at_once_and_killed_ones_break_nothing(tmp_path):
    early = first_uses(tmp_path, together=1, create=2, upgrade=1)
    assert early['create'] + early['upgrade'] > 0


@pytest.mark.slow
def test_ten_first_uses_at_once_all_succeed_ten_times(tmp_path):
    first_uses(tmp_path, together=10)


@pytest.mark.slow
def test_a_store_that_was_killed_in_its_first_second_recovers_thirty_times(tmp_path):
    assert first_uses(tmp_path, create=30)['create'] > 5


@pytest.mark.slow
def test_an_upgrade_that_was_killed_begins_again_from_the_copy(tmp_path):
    assert first_uses(tmp_path, upgrade=15)['upgrade'] > 2
