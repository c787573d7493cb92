"""Fixtures of the tests of `experiments`."""

from __future__ import annotations

import os
import pathlib
import shutil
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from benchmarks.postgres import PostgresCluster, find_program
from benchmarks.tracking_server import TrackingServer
from experiments import quiet
from experiments.cli import main
from experiments.tracking import store


@pytest.fixture(scope='session')
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """An MLflow database without runs; making one takes seconds, so every test gets a copy of it."""
    folder = tmp_path_factory.mktemp('database')
    with quiet.terminal():
        # Not as this process's store: what runs outside `workdir` would record in it.
        store.client(f'sqlite:///{folder / "mlflow.db"}', use=False)
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


@pytest.fixture(scope='session')
def postgres(need_program: Callable[..., str]) -> Iterator[PostgresCluster]:
    """A PostgreSQL cluster of the tests' own."""
    if find_program('initdb') is None:
        need_program('initdb', 'postgresql')
    with PostgresCluster() as cluster:
        yield cluster


@pytest.fixture(scope='session')
def tracking_server(
    need_program: Callable[..., str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[TrackingServer]:
    """MLflow with logins on PostgreSQL, as infra/mlflow describes them; it takes half a minute to start."""
    if find_program('initdb') is None:
        need_program('initdb', 'postgresql')
    with TrackingServer(tmp_path_factory.mktemp('server')) as server:
        yield server


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


TINY = (
    'RnnFcDecoder.rnn_channels = 16', 'RnnFcDecoder.ch = 16', 'RnnFcDecoder.layers_per_stack = 1',
    'Reverb.reverb_length = 400', 'train.steps_per_summary = 2', 'train.steps_per_save = 2',
)  # fmt: skip


@pytest.fixture(scope='session')
def dataset(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A small dataset of tones, prepared as users prepare theirs: 1 s examples at 16 kHz."""
    import soundfile

    from pipelines.options import PrepareOptions
    from pipelines.prepare import prepare_dataset

    folder = tmp_path_factory.mktemp('dataset')
    (folder / 'recordings').mkdir()
    time = np.arange(3 * 16000) / 16000
    for index in range(12):
        phase = 2 * np.pi * 220 * 2 ** (index / 12) * time
        tone = sum(np.sin(k * phase) / k for k in range(1, 9)) * 0.1 * (1 + 0.5 * np.sin(2 * np.pi * time))
        soundfile.write(folder / 'recordings' / f'tone_{index}.wav', tone, 16000)
    options = PrepareOptions(
        example_secs=1.0, hop_secs=1.0, f0='yin', workers=1, splits={'train': 0.92, 'test': 0.08}
    )
    with quiet.terminal():
        result = prepare_dataset(folder / 'recordings', folder / 'data', 'tones', options=options)
    return result.path


@pytest.fixture(scope='session')
def tiny() -> tuple[str, ...]:
    """Bindings of a model that trains in no time."""
    return TINY
