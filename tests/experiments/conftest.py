"""Fixtures of the tests of `experiments`."""

from __future__ import annotations

import os
import pathlib
import shutil

import pytest

from experiments import quiet, store
from experiments.cli import main


@pytest.fixture(scope='session')
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """An MLflow database without runs; making one takes seconds, so every test gets a copy of it."""
    folder = tmp_path_factory.mktemp('database')
    with quiet.terminal():
        store.client(f'sqlite:///{folder / "mlflow.db"}')
    return folder / 'mlflow.db'


@pytest.fixture
def workdir(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, empty_database: pathlib.Path
) -> pathlib.Path:
    """An empty working directory with an embedded store of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv('MLFLOW_TRACKING_URI', raising=False)
    shutil.copy(empty_database, tmp_path / 'mlflow.db')
    return tmp_path


@pytest.fixture
def ddsp(capfd: pytest.CaptureFixture[str]):
    """Runs a `ddsp` command line in this process: `ddsp('runs', '--json')` gives (status, stdout, stderr)."""

    def run(*arguments: object) -> tuple[int, str, str]:
        capfd.readouterr()
        before = dict(os.environ)
        try:
            status = main([str(argument) for argument in arguments])
        finally:
            for name in set(os.environ) - set(before):
                del os.environ[name]
        captured = capfd.readouterr()
        return status, captured.out, captured.err

    return run
