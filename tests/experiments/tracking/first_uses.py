"""First uses of a store by many processes, some of them killed: `first_uses.py FOLDER ACTION COUNT ...`.

MLflow is imported once and the processes are forked, so that ten of them cost a migration and not ten
imports. test_database.py runs this file and looks at what is left.
"""

from __future__ import annotations

import os
import pathlib
import signal
import sqlite3
import sys
import time
import traceback
from collections.abc import Callable

import mlflow.store.db.utils as mlflow_db
import sqlalchemy
from alembic import command
from mlflow.store.tracking import sqlalchemy_store  # noqa: F401 - it is slow to import

from experiments import quiet
from experiments.tracking import store

PROCESSES = 10
OLD_SCHEMA = 'bd07f7e963c5'  # of MLflow 1.x
WINDOW_SECS = 1.0


def forked(work: Callable[[], object]) -> int:
    """Starts a process; its status is 0 when the work was done."""
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        work()
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


def succeeded(child: int) -> bool:
    return os.waitpid(child, 0)[1] == 0


def use(folder: pathlib.Path) -> None:
    """Records a run in the store of a folder."""
    os.chdir(folder)
    client = store.client()
    client.create_run(store.experiment_id(client, 'violin'))


def count_runs(folder: pathlib.Path) -> int:
    with sqlite3.connect(folder / 'mlflow.db') as connection:
        assert connection.execute('PRAGMA integrity_check').fetchall() == [('ok',)]
        return connection.execute('SELECT count(*) FROM runs').fetchone()[0]


def together(folder: pathlib.Path) -> None:
    """Ten processes use a new store at the same moment."""
    start, gate = os.pipe()

    def work() -> None:
        os.close(gate)
        os.read(start, 1)  # returns when the parent has closed the other end
        use(folder)

    children = [forked(work) for _ in range(PROCESSES)]
    os.close(start)
    os.close(gate)
    assert [succeeded(child) for child in children] == [True] * PROCESSES
    assert count_runs(folder) == PROCESSES


def killed(folder: pathlib.Path, delay: float) -> bool:
    """A process is killed while it makes or upgrades a store; returns whether it was early enough."""
    child = forked(lambda: use(folder))
    time.sleep(delay)
    os.kill(child, signal.SIGKILL)
    return not succeeded(child)


def make_old(folder: pathlib.Path) -> None:
    """A store of an older MLflow with one run."""
    uri = f'sqlite:///{folder / "mlflow.db"}'
    engine = sqlalchemy.create_engine(uri)
    mlflow_db.InitialBase.metadata.create_all(engine)
    command.upgrade(mlflow_db._get_alembic_config(uri), OLD_SCHEMA)
    with engine.begin() as connection:
        connection.execute(
            sqlalchemy.text(
                "INSERT INTO experiments (experiment_id, name, lifecycle_stage) VALUES (0, 'old', 'active')"
            )
        )
        connection.execute(
            sqlalchemy.text("INSERT INTO runs (run_uuid, name, experiment_id) VALUES ('a1', 'old', 0)")
        )
    engine.dispose()


def main(action: str, root: pathlib.Path, count: int) -> int:
    """Does one action so many times, each in a folder of its own; returns how many kills were early."""
    early = 0
    for number in range(count):
        folder = root / f'{action}-{number}'
        folder.mkdir()
        before = 0
        if action == 'together':
            together(folder)
            continue
        if action == 'upgrade':
            before = 1
            assert succeeded(forked(lambda folder=folder: make_old(folder)))
        early += killed(folder, WINDOW_SECS * (number + 0.5) / count)
        assert succeeded(forked(lambda folder=folder: use(folder))), number
        assert count_runs(folder) in (before + 1, before + 2)
        left = {path.name for path in folder.iterdir()} - {'mlruns', 'mlartifacts'}
        assert left == {'mlflow.db', '.mlflow.db.lock'}, left
    return early


if __name__ == '__main__':
    with quiet.terminal():
        root, *words = sys.argv[1:]
        for action, count in zip(words[::2], words[1::2], strict=True):
            print(action, main(action, pathlib.Path(root), int(count)))
