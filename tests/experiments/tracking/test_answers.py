"""Answers of `runs`, `promote`, `ui`, `doctor`: odd names, wrong names, servers and files that are away."""

from __future__ import annotations

import json
import math
import os
import pathlib
import shutil
import socket
import sqlite3
import subprocess
import sys
import time

import pytest

from ddsp.io import bundle_files
from ddsp.io.files import file_sha256
from experiments import doctor
from experiments.tracking import mlflow_model, store
from experiments.tracking.tracker import MLflowTracker


def make_run(name: str, experiment: str = 'ddsp', **metrics: float) -> str:
    """A finished run; `__` stands for a slash in the names of metrics."""
    client = store.client()
    run_id = client.create_run(store.experiment_id(client, experiment), run_name=name).info.run_id
    for metric, value in metrics.items():
        client.log_metric(run_id, metric.replace('__', '/'), value)
    client.set_terminated(run_id)
    return run_id


ODD_NAMES = [
    '[/x]',
    '[bold]a',
    "it's",
    '"x"',
    """it's "x\"""",
    '%',
    'a_b',
    '[link=file:///etc]b',
    '\x1b[31mred',
    '/',
    '',
]


def test_runs_of_odd_names_are_listed_compared_and_found(workdir, ddsp):
    ids = {
        name: make_run(name, eval__spectral_loss=1.0 + index) for index, name in enumerate(ODD_NAMES) if name
    }
    make_run('axb')  # which LIKE would take for a_b
    status, out, err = ddsp('runs')
    assert (status, err) == (0, '')
    for name in ids:
        assert name.replace('\x1b', '\ufffd') in out
    assert '\x1b' not in out
    for name, run_id in ids.items():
        assert store.find_run(store.client(), name).info.run_id == run_id
    status, out, err = ddsp('runs', 'compare', '[/x]', '[bold]a')
    assert (status, err) == (0, '')
    assert '[/x] (' in out
    status, out, err = ddsp('runs', 'compare', '--experiment', 'ddsp', '--limit', 10)
    assert (status, err) == (0, '')


def test_a_folder_with_brackets_is_trained_in_and_listed(workdir, ddsp):
    with MLflowTracker("[/x] it's", run_name='[red]') as tracker:
        tracker.log_metrics({'losses/total_loss': 1.0}, 1)
    assert '[red]' in ddsp('runs')[1]
    assert ddsp('runs', 'sync', "[/x] it's") == (0, '0 entries recorded.\n', '')


def test_json_is_json_whatever_was_measured(workdir, ddsp):
    for index, value in enumerate((math.nan, math.inf, -math.inf, 1.5)):
        make_run(f'r{index}', eval__spectral_loss=value)

    def refuse(word: str):
        raise AssertionError(f'{word} is not JSON')

    rows = json.loads(ddsp('runs', '--json')[1], parse_constant=refuse)
    values = [row['metrics']['eval/spectral_loss'] for row in rows]
    assert 1.5 in values
    assert None in values
    json.loads(ddsp('compare', 'r0', 'r3', '--json')[1], parse_constant=refuse)


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['runs', '--best', 'eval/spectral_los'],
         "--best 'eval/spectral_los': none of the runs has this metric. Did you mean 'eval/spectral_loss'?"),
        (['runs', 'compare', '--experiment', 'ddsp', '--best', 'loss'], "--best 'loss': none of the runs"),
        (['runs', 'compare', 'r0', 'r1', '--best', 'eval/spectral'], "Did you mean 'eval/spectral_loss'?"),
    ],
)  # fmt: skip
def test_a_metric_that_no_run_has_is_an_error(workdir, ddsp, arguments, message):
    make_run('r0', eval__spectral_loss=2.0)
    make_run('r1', eval__spectral_loss=1.0)
    status, out, err = ddsp(*arguments)
    assert (status, out) == (1, '')
    assert message in err
    assert ddsp('runs', '--best', 'eval/spectral_loss')[0] == 0


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['promote', 'r', '--name', 'a/b'],
         "--name 'a/b': a model's name is 1 to 255 characters without / and :, such as 'a-b'."),
        (['promote', 'r', '--name', '..:'], "--name '..:'"),
        (['promote', 'r', '--name', 'a', '--alias', 'latest'], "--alias 'latest': an alias is letters,"),
        (['promote', 'r', '--name', 'a', '--alias', 'v1'], "--alias 'v1'"),
        (['promote', 'r', '--name', 'a', '--alias', 'a/b'], "--alias 'a/b'"),
        (['promote', 'r', '--name', 'a', '--alias', ''], "--alias ''"),
        (['train', 'nowhere', '--experiment', ''], "--experiment '': give a name of 1 to 500 printable"),
        (['train', 'nowhere', '--experiment', 'a\nb'], '--experiment '),
        (['train', 'nowhere', '--register', 'a/b'], "--register 'a/b': a model's name is"),
    ],
)  # fmt: skip
def test_names_that_mlflow_refuses_are_refused_before_any_work(workdir, ddsp, arguments, message):
    make_run('r')
    status, out, err = ddsp(*arguments)
    assert (status, out) == (1, '')
    assert err.startswith(f'Error: {message}')
    assert 'defect' not in err
    assert store.client().search_registered_models() == []


@pytest.fixture
def two_models(workdir):
    """Runs 'good' and 'better' with a model each: (their ids, the folder of the better one's files)."""
    (workdir / 'bundle').mkdir()
    for name in bundle_files.FILES:
        (workdir / 'bundle' / name).write_text('{}')
    rates = {'sample_rate': 16000, 'frame_rate': 250, 'hop_size': 64, 'example_secs': 1.0}
    digests = {name: file_sha256(workdir / 'bundle' / name) for name in bundle_files.FILES[1:]}
    metadata = {**rates, 'schema_version': 1, 'f0_estimator': 'yin', 'centered': False, 'sha256': digests}
    bundle_files.write_metadata(workdir / 'bundle', metadata)
    client, ids = store.client(), []
    for name, loss in (('good', 2.0), ('better', 1.0)):
        ids.append(make_run(name, eval__spectral_loss=loss))
        address = mlflow_model.log_bundle(client, ids[-1], workdir / 'bundle')
    location = client.get_logged_model(address.removeprefix('models:/')).artifact_location
    return ids, pathlib.Path(location.removeprefix('file://'))


def test_a_model_whose_files_are_gone_leaves_the_champion_where_it_is(two_models, ddsp):
    _, files = two_models
    assert ddsp('promote', 'good', '--name', 'violin')[0] == 0
    shutil.rmtree(files)
    status, out, err = ddsp('promote', 'better', '--name', 'violin', '--if-better')
    assert (status, out) == (1, '')
    assert err.startswith('Error: the files of the model of better (')
    assert 'nothing was changed' in err
    champion = store.client().get_model_version_by_alias('violin', 'champion')
    assert (champion.version, len(store.client().search_model_versions("name='violin'"))) in [
        ('1', 1),
        (1, 1),
    ]


def test_a_registered_version_says_what_it_is(two_models, ddsp):
    ids, _ = two_models
    assert ddsp('promote', 'better', '--name', 'violin')[0] == 0
    version = store.client().get_model_version_by_alias('violin', 'champion')
    assert 'eval/spectral_loss' in version.description
    assert f'/runs/{ids[1]}' in version.description


def test_a_port_in_use_is_an_error(workdir, ddsp):
    with socket.socket() as taken:
        taken.bind(('127.0.0.1', 0))
        taken.listen()
        port = taken.getsockname()[1]
        status, out, err = ddsp('ui', '--port', port, '--no-browser')
    assert (status, out) == (1, '')
    assert err == (
        f'Error: port {port} of 127.0.0.1 is in use by another program. Give another --port; 0 takes a '
        'free one.\n'
    )


def test_a_database_server_that_is_down_is_said_within_seconds(workdir, ddsp, monkeypatch):
    pytest.importorskip('psycopg')
    monkeypatch.setenv('MLFLOW_TRACKING_URI', 'postgresql+psycopg://ann:kanari3n@127.0.0.1:9/db')
    start = time.monotonic()
    status, out, err = ddsp('runs')
    assert (status, out) == (1, '')
    assert err.startswith('Error: the database postgresql+psycopg://ann:***@127.0.0.1:9/db does not answer (')
    (check,) = doctor._tracking()
    assert check.state == doctor.WARNING
    assert 'does not answer' in check.found
    assert 'kanari3n' not in err + check.found + check.advice
    assert time.monotonic() - start < 30  # MLflow alone tries for 105 s


def test_a_locked_store_gives_advice(workdir, ddsp, monkeypatch):
    monkeypatch.setattr('experiments.tracking.database._CONNECT_SECS', 0.2)
    holder = sqlite3.connect(workdir / 'mlflow.db')
    holder.execute('BEGIN EXCLUSIVE')
    try:
        with pytest.raises(store.TrackingError, match=r'is locked by another process.* try again, or end'):
            store.client()
    finally:
        holder.close()
    store.client()


def test_the_doctor_looks_into_the_database(workdir):
    assert next(doctor._tracking()).state == doctor.OK
    with sqlite3.connect(workdir / 'mlflow.db') as connection:
        connection.execute('CREATE TABLE _alembic_tmp_latest_metrics (a)')
    assert 'half-made' in next(doctor._tracking()).found
    (workdir / 'mlflow.db').write_text('this is not a database, but a text that is long enough' * 20)
    (check,) = doctor._tracking()
    assert check.state == doctor.WARNING
    assert 'not a database' in check.found
    with pytest.raises(store.TrackingError, match='not a database'):
        store.client()


def test_a_half_made_store_without_runs_is_made_anew_and_kept_aside(workdir):
    with sqlite3.connect(workdir / 'mlflow.db') as connection:
        connection.execute("UPDATE alembic_version SET version_num = 'bd07f7e963c5'")
        connection.execute('CREATE TABLE _alembic_tmp_runs (a)')
    run_id = make_run('first')
    assert store.find_run(store.client(), 'first').info.run_id == run_id
    assert list(workdir.glob('mlflow.db.broken-*'))


def test_an_upgrade_that_fails_leaves_the_runs_as_they_were(workdir):
    make_run('precious')
    with sqlite3.connect(workdir / 'mlflow.db') as connection:
        connection.execute("UPDATE alembic_version SET version_num = 'bd07f7e963c5'")
    before = (workdir / 'mlflow.db').read_bytes()
    with pytest.raises(store.TrackingError, match=r'cannot be upgraded .* It is as it was before'):
        store.client(use=False)
    with sqlite3.connect(workdir / 'mlflow.db') as connection:
        assert connection.execute('SELECT name FROM runs').fetchall() == [('precious',)]
    assert len((workdir / 'mlflow.db').read_bytes()) == len(before)


def test_an_unexpected_error_leaves_a_log_and_names_it(workdir, ddsp, monkeypatch):
    monkeypatch.setenv('XDG_STATE_HOME', str(workdir / 'state'))
    monkeypatch.setenv('MLFLOW_TRACKING_TOKEN', 'kanari3nvogel')

    def fail():
        raise ZeroDivisionError('by kanari3nvogel at http://ann:kanari3nvogel@host/x')

    monkeypatch.setattr(doctor, 'run_checks', fail)
    status, _, err = ddsp('doctor')
    (log,) = (workdir / 'state' / 'ddsp').glob('crash-*.log')
    assert status == 1
    assert err == (
        'Error: ZeroDivisionError: by *** at http://ann:***@host/x\n'
        f'This is a defect of ddsp; what happened where is in {log}.\n'
    )
    text = log.read_text()
    assert 'in fail' in text
    assert 'kanari3nvogel' not in text
    assert 'kanari3nvogel' not in ddsp('doctor', '--debug')[2]


def test_a_name_that_is_not_utf8_is_shown(workdir):
    code = (
        'from experiments.cli import output, main; main(["--version"]); '
        'output.print_json(["\\udcff"]); print("\\udcff"); output.print_table("", ("a",), [("\\udcff",)])'
    )
    environment = {**os.environ, 'PYTHONPATH': os.pathsep.join(sys.path), 'PYTHONUTF8': '1'}
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, env=environment, check=False)
    assert (done.returncode, done.stderr) == (0, b'')
