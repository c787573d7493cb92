"""Reading a store without MLflow: the same answers as MLflow's own client gives, and soon."""

from __future__ import annotations

import json
import math
import os
import resource
import sqlite3
import subprocess
import sys
import uuid

import pytest
from mlflow.entities import Metric, Param, RunTag

from experiments.tracking import reading, store

RUNS, METRICS, PARAMS = 200, 200, 60


@pytest.fixture
def filled(workdir):
    """A store with odd runs: without metrics, with nan, deleted, with quotes and slashes in the names."""
    client = store.client()
    for experiment in ('violin', 'flute'):
        experiment_id = store.experiment_id(client, experiment)
        for index in range(4):
            run_id = client.create_run(
                experiment_id, start_time=1000 + index % 3, run_name=f'{experiment}-{index}',
                tags={'sweep_id': f's{index % 2}'},
            ).info.run_id  # fmt: skip
            values = [1.5, math.nan, None, -2e30][index]
            metrics = [] if values is None else [Metric('eval/spectral_loss', values, 5, 3)]
            params = [Param('Trainer.learning_rate', f'0.{index}'), Param('text', "it's")]
            client.log_batch(run_id, metrics=metrics, params=params, tags=[RunTag('note', 'ä "x"')])
            if index:
                client.set_terminated(run_id, ['FAILED', 'FINISHED', 'KILLED'][index % 3], end_time=9000)
        client.delete_run(run_id)
    return client


def plain(run) -> dict:
    """A run as something that can be compared; nan equals itself."""
    metrics = {name: str(value) for name, value in run.data.metrics.items()}
    end = run.info.end_time or None
    names = ('run_id', 'experiment_id', 'run_name', 'status', 'start_time', 'artifact_uri', 'lifecycle_stage')
    info = {name: getattr(run.info, name) for name in names}
    return {
        **info,
        'end': end,
        'metrics': metrics,
        'params': dict(run.data.params),
        'tags': dict(run.data.tags),
    }


QUERIES = [
    ('', None),
    ('', ['metrics.`eval/spectral_loss` ASC']),
    ('', ['metrics.`eval/spectral_loss` DESC', 'attributes.start_time ASC']),
    ('', ['params.`Trainer.learning_rate` DESC']),
    ('metrics.`eval/spectral_loss` < 5', None),
    ('metrics.`eval/spectral_loss` != 1.5', None),
    ('metrics."eval/spectral_loss" >= -1e3 AND tags.sweep_id = \'s0\'', None),
    ("attributes.status = 'FINISHED'", None),
    ("status != 'RUNNING' and params.`Trainer.learning_rate` = '0.2'", None),
    ("attributes.run_name = 'flute-1'", None),
    ('start_time > 1000', None),
    ("tags.sweep_id LIKE 's%'", None),  # these two are left to MLflow's client
    ('params.text = "it\'s"', None),
]


@pytest.mark.parametrize('limit', [3, None])
def test_the_same_runs_as_mlflows_client(filled, limit):
    quick = reading.reader()
    assert isinstance(quick, reading.SqliteReader)
    for condition, order in QUERIES:
        for experiments in (['violin'], None):
            wanted = store.search(filled, condition, experiments=experiments, order=order, limit=limit)
            found = store.search(quick, condition, experiments=experiments, order=order, limit=limit)
            assert [plain(run) for run in found] == [plain(run) for run in wanted], (condition, order)
    assert store.search(quick, "attributes.status = 'FINISHED'")  # none of this compares nothing with nothing
    assert store.search(quick, 'metrics.`eval/spectral_loss` < 5')


def test_pages_follow_each_other(filled, monkeypatch):
    quick = reading.reader()
    ids = [entry.experiment_id for entry in quick.search_experiments()]
    first = quick.search_runs(ids, max_results=4)
    second = quick.search_runs(ids, max_results=4, page_token=first.token)
    assert (len(first), len(second), second.token) == (4, 2, None)
    assert len({run.info.run_id for run in [*first, *second]}) == 6


@pytest.mark.parametrize(
    'condition', ['metrics.x <', "metrics.x = 'text'", "status = 'A' OR status = 'B'", 'x y z', 'run_id']
)
def test_a_filter_that_is_wrong_gets_mlflows_explanation(filled, condition):
    with pytest.raises(store.TrackingError, match='is not understood'):
        store.search(reading.reader(), condition)


def test_a_run_by_its_id(filled):
    (run,) = store.search(filled, "attributes.run_name = 'flute-0'")
    quick = reading.reader()
    assert plain(quick.get_run(run.info.run_id)) == plain(filled.get_run(run.info.run_id))
    with pytest.raises(store.TrackingError, match='no run ffff'):
        store.find_run(quick, 'f' * 32)


def test_an_older_schema_is_left_to_mlflow(filled, workdir):
    with sqlite3.connect(workdir / 'mlflow.db') as connection:
        connection.execute('ALTER TABLE runs RENAME COLUMN lifecycle_stage TO stage')
    with pytest.raises(reading.NotKnownHere, match='no such column'):
        reading.reader()._runs(['1'], '', 5, (), None)


def test_no_database_is_a_store_without_runs(tmp_path, monkeypatch, ddsp):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv('MLFLOW_TRACKING_URI', raising=False)
    status, out, err = ddsp('runs')
    assert (status, err) == (0, '')
    assert out == f'No runs in sqlite:///{tmp_path}/mlflow.db.\n'
    assert list(tmp_path.iterdir()) == []  # looking leaves nothing behind


def test_a_login_is_left_to_mlflow(monkeypatch):
    monkeypatch.setenv('MLFLOW_TRACKING_URI', 'http://127.0.0.1:9')
    monkeypatch.setenv('MLFLOW_TRACKING_USERNAME', 'somebody')
    with pytest.raises(store.TrackingError, match='does not answer'):
        reading.reader()


@pytest.fixture
def many(workdir):
    """200 runs with 200 metrics and 60 parameters each: one of MLflow's, copied in the database."""
    client = store.client()
    experiment_id = store.experiment_id(client, 'many')
    first = client.create_run(experiment_id, run_name='run-0').info.run_id
    client.log_batch(first, metrics=[Metric(f'losses/loss_{k}', float(k), 0, 1) for k in range(METRICS)])
    client.log_batch(first, params=[Param(f'Class{k}.value', '1') for k in range(PARAMS)])
    client.set_terminated(first)
    with sqlite3.connect(workdir / 'mlflow.db') as connection:
        for index in range(1, RUNS):
            _copy_run(connection, first, uuid.uuid4().hex, index)
    return workdir


def _copy_run(connection: sqlite3.Connection, first: str, run_id: str, index: int) -> None:
    for table in ('runs', 'latest_metrics', 'params', 'tags'):
        columns = [row[1] for row in connection.execute(f'PRAGMA table_info({table})')]
        values = [{'run_uuid': f"'{run_id}'", 'name': f"'run-{index}'"}.get(name, name) for name in columns]
        if table == 'latest_metrics':
            values[columns.index('value')] = f'value + {index}'
        elif table == 'params':
            values[columns.index('value')] = f"CASE WHEN key = 'Class7.value' THEN '{index}' ELSE value END"
        connection.execute(
            f'INSERT INTO {table} ({", ".join(columns)}) SELECT {", ".join(values)} FROM {table} '
            f"WHERE run_uuid = '{first}'"
        )


def test_two_hundred_runs_are_compared_within_three_seconds(many):
    """Of the whole command, without importing MLflow, numpy aside; docs/experiments.md has the figures."""
    arguments = ['compare', '--experiment', 'many', '--best', '200', '--metric', 'losses/loss_0', '--json']
    for command in (arguments, arguments[:-1], ['runs', '--limit', '200']):
        code = (
            'import sys; from experiments.cli import main; status = main(sys.argv[1:]); '
            'sys.exit("mlflow was imported" if "mlflow" in sys.modules else status)'
        )
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run(
            [sys.executable, '-c', code, *command], cwd=many, capture_output=True, text=True, check=False,
            env={**os.environ, 'PYTHONPATH': os.pathsep.join(sys.path)},
        )  # fmt: skip
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert (done.returncode, done.stderr) == (0, '')
        assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 3
        if command is arguments:
            found = json.loads(done.stdout)
            assert [run['name'] for run in found['runs']] == [f'run-{index}' for index in range(RUNS)]
            assert list(found['params']) == ['Class7.value']
            assert len(found['metrics']) == METRICS
        else:
            assert all(f'run-{index} ' in done.stdout for index in range(RUNS))
