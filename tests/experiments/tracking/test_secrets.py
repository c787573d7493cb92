"""A password in the store's address is found in no file, no output and no process's command line."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys
import threading
import urllib.parse

import pytest

from benchmarks.postgres import PostgresCluster
from experiments.tracking import store
from experiments.tracking.ui import UIServer, free_port

# Its parts stand on both sides of signs that addresses are taken apart at.
CANARY = 'kanari3n/v@gel%x'
PARTS = ('kanari3n', 'gel%x', 'gel%25x')


def with_password(address: str, password: str = CANARY) -> str:
    """The address of a test's database with a password, which it does not ask for."""
    return address.replace('ddsp@', f'ddsp:{urllib.parse.quote(password, safe="")}@')


@pytest.fixture
def secret_store(workdir, postgres: PostgresCluster, monkeypatch) -> str:
    """A PostgreSQL store in use whose address holds the canary twice."""
    address = (
        with_password(postgres.create_database()) + f'?sslpassword={urllib.parse.quote(CANARY, safe="")}'
    )
    monkeypatch.setenv('MLFLOW_TRACKING_URI', address)
    return address


def leaks(text: str) -> list[str]:
    return [part for part in PARTS if part in text]


def leaking_files(folder: pathlib.Path) -> list[str]:
    files = [path for path in folder.rglob('*') if path.is_file()]
    assert files
    return [str(path) for path in files if leaks(path.read_bytes().decode(errors='replace'))]


def command_lines() -> str:
    """Command lines of all processes that can be seen."""
    lines = []
    for path in pathlib.Path('/proc').glob('[0-9]*/cmdline'):
        try:
            lines.append(path.read_bytes().replace(b'\0', b' ').decode(errors='replace'))
        except OSError:
            continue
    return '\n'.join(lines)


def everything_recorded(address: str) -> str:
    """All texts in a PostgreSQL store."""
    import sqlalchemy

    engine = sqlalchemy.create_engine(address.partition('?')[0])
    with engine.connect() as connection:
        names = sqlalchemy.inspect(connection).get_table_names()
        return str([connection.execute(sqlalchemy.text(f'SELECT * FROM {name}')).all() for name in names])


def test_commands_show_write_and_record_no_password(secret_store, workdir, dataset, tiny, ddsp):
    bindings = [word for binding in tiny for word in ('--gin-param', binding)]
    commands = [
        ['train', dataset, '--save-dir', 'run', '--steps', 2, '--batch-size', 2, '--register', 'a',
         *bindings],
        ['runs'], ['runs', 'export', 'runs.csv', '--json'], ['runs', 'sync', 'run'], ['doctor'],
        ['doctor', '--json'], ['promote', 'run', '--name', 'b'], ['runs', '--filter', 'nonsense ='],
        ['ui', '--no-browser', '--run', 'nobody'], ['runs', 'compare', 'run', 'nobody'],
        ['--debug', 'runs', 'compare', 'x', 'y'],
    ]  # fmt: skip
    for command in commands:
        status, out, err = ddsp(*command)
        assert leaks(out + err) == [], command
        assert (status == 0) == (not set(map(str, command)) & {'nonsense =', 'nobody', 'x'}), (command, err)
    assert leaking_files(workdir) == []
    assert leaks(everything_recorded(secret_store)) == []
    known = json.loads((workdir / 'run' / 'run.json').read_text())
    assert known['tracking_uri'].startswith('postgresql+psycopg://ddsp:***@127.0.0.1:')
    assert os.stat(workdir / 'run' / 'run.json').st_mode & 0o777 == 0o666 & ~current_umask()


def current_umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_the_address_of_a_server_keeps_its_login_to_itself(workdir, monkeypatch, ddsp):
    monkeypatch.setenv('MLFLOW_TRACKING_USERNAME', '')
    monkeypatch.setenv('MLFLOW_TRACKING_PASSWORD', '')
    login = f'ann:{urllib.parse.quote(CANARY, safe="")}'
    with UIServer(f'sqlite:///{workdir / "mlflow.db"}', port=free_port(preferred=0)) as server:
        server.wait_until_ready()
        monkeypatch.setenv('MLFLOW_TRACKING_URI', f'http://{login}@127.0.0.1:{server.port}')
        status, out, err = ddsp('runs')
        assert (status, out, err) == (0, f'No runs in http://127.0.0.1:{server.port}.\n', '')
        assert os.environ['MLFLOW_TRACKING_PASSWORD'] == CANARY
        client = store.client()
        run = client.create_run(store.experiment_id(client, 'a'))
    monkeypatch.setenv('MLFLOW_TRACKING_URI', f'http://{login}@127.0.0.1:{server.port}')
    for command in (['runs'], ['doctor'], ['ui'], ['train', 'x']):
        status, out, err = ddsp(*command)
        assert 'does not answer' in out + err or command[0] == 'train'
        assert leaks(out + err) == []
    assert leaks(repr(run)) == []


def test_the_server_of_the_ui_has_no_password_on_its_command_line(secret_store, workdir):
    with UIServer(secret_store, port=free_port(preferred=0)) as server:
        server.wait_until_ready()
        lines = command_lines()
        assert 'mlflow server' in lines
        assert leaks(lines) == []
        assert leaks(server._tail()) == []


SPEC = """
objective: losses/total_loss
trials: 2
steps: 2
batch_size: 2
pruner: none
parameters: {Trainer.learning_rate: {low: 1e-4, high: 1e-2, log: true}}
fixed: {RnnFcDecoder.rnn_channels: 8, RnnFcDecoder.ch: 8, RnnFcDecoder.layers_per_stack: 1,
        Reverb.reverb_length: 400, train.steps_per_summary: 1}
"""


@pytest.mark.slow
def test_workers_of_a_sweep_have_no_password_on_their_command_lines(secret_store, workdir, postgres, dataset):
    (workdir / 'rates.yaml').write_text(SPEC)
    storage = with_password(postgres.create_database())
    environment = {**os.environ, 'PYTHONPATH': os.pathsep.join(sys.path), 'DDSP_SWEEP_STORAGE': storage}
    command = [sys.executable, '-m', 'experiments.cli', 'sweep', 'rates.yaml', str(dataset), '--workers', '2']
    seen, done = [], threading.Event()

    def watch() -> None:
        while not done.wait(0.2):
            seen.append(command_lines())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    finally:
        done.set()
        watcher.join()
    assert ended.returncode == 0, ended.stderr
    lines = '\n'.join(seen)
    assert '--save-dir' in lines  # the workers were there
    assert leaks(lines + ended.stdout + ended.stderr) == []
    assert leaking_files(workdir) == []
    assert leaks(everything_recorded(secret_store)) == []
