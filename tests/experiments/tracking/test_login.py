"""A tracking server with logins, as infra/mlflow starts it: commands, refusals, and no secret anywhere."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys

import pytest
import sqlalchemy

from benchmarks.tracking_server import TrackingServer
from experiments.tracking import store

pytestmark = pytest.mark.slow

PASSWORD = 'kanari3n-vogel-77'
SPEC = """
objective: losses/total_loss
trials: 1
steps: 2
batch_size: 2
pruner: none
parameters: {Trainer.learning_rate: {low: 1e-4, high: 1e-2, log: true}}
fixed: {RnnFcDecoder.rnn_channels: 8, RnnFcDecoder.ch: 8, RnnFcDecoder.layers_per_stack: 1,
        Reverb.reverb_length: 400, train.steps_per_summary: 1}
"""


@pytest.fixture(scope='module')
def served(tracking_server: TrackingServer) -> TrackingServer:
    """The server with a user `ann`, who may not touch the administrator's experiment `closed`."""
    import mlflow
    from mlflow.server.auth.client import AuthServiceClient

    before = dict(os.environ)
    os.environ.update(tracking_server.login())
    try:
        users = AuthServiceClient(tracking_server.address)
        users.create_user('ann', PASSWORD)
        client = mlflow.MlflowClient(tracking_server.address)
        for name in ('closed', 'hidden'):
            run_id = client.create_run(client.create_experiment(name), run_name=f'run of {name}').info.run_id
            client.set_terminated(run_id)
        hidden = client.get_experiment_by_name('hidden').experiment_id
        users.grant_user_permission('ann', 'experiment', hidden, 'DENY')
        client.create_registered_model('theirs')
    finally:
        os.environ.clear()
        os.environ.update(before)
    return tracking_server


@pytest.fixture
def as_ann(served, workdir, monkeypatch) -> TrackingServer:
    for name, value in served.login('ann', PASSWORD).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv('XDG_CACHE_HOME', str(workdir / 'cache'))
    return served


def write_tone(folder: pathlib.Path) -> pathlib.Path:
    import soundfile

    soundfile.write(folder / 'tone.wav', [0.1 * (i % 73) / 73 for i in range(16000)], 16000)
    return folder / 'tone.wav'


def leaking_files(folder: pathlib.Path, words: list[str]) -> list[str]:
    found = []
    for path in folder.rglob('*'):
        if path.is_file() and any(word.encode() in path.read_bytes() for word in words):
            found.append(str(path))
    return found


def test_every_command_works_and_no_secret_is_written_anywhere(as_ann, workdir, dataset, tiny, ddsp):
    bindings = [word for binding in tiny for word in ('--gin-param', binding)]
    (workdir / 'rates.yaml').write_text(SPEC)
    said = []
    storage = as_ann.database('sweeps', 'sweeps')
    os.environ['DDSP_SWEEP_STORAGE'] = storage  # the fixture of all tests takes it away again

    def works(*command: object) -> str:
        status, out, err = ddsp(*command)
        said.append(out + err)
        assert (status, 'Traceback' in err) == (0, False), (command, err)
        return out

    train = ['train', dataset, '--steps', 2, '--batch-size', 2, '--experiment', 'ann', *bindings, '--json']
    first = json.loads(works(*train, '--save-dir', 'one'))
    works(*train, '--save-dir', 'two')
    works('sweep', 'rates.yaml', dataset, '--experiment', 'ann', '--json')
    assert len(json.loads(works('runs', '--experiment', 'ann', '--json'))) == 4
    works('runs', 'export', 'runs.csv')
    assert '/#/compare-runs?' in works('runs', 'compare', 'one', 'two', '--html', 'page.html')
    works('promote', 'one', '--name', 'violin')
    for model in (f'runs:/{first["run_id"]}', 'models:/violin@champion'):
        works('transfer', write_tone(workdir), '--model', model, '--output', 'out.wav')
    assert f'{as_ann.address} answers' in works('doctor')
    out = works('ui', '--no-browser')
    assert f'{as_ann.address}/#/experiments/' in out
    assert "asks for the login of 'ann'" in out

    words = [PASSWORD, *as_ann.secrets.values()]
    assert [word for word in words if word in ''.join(said)] == []
    assert leaking_files(workdir, words) == []
    assert [word for word in words if word in as_ann.log()] == []
    for user, name in (('mlflow', 'mlflow'), ('mlflow', 'mlflow_auth'), ('sweeps', 'sweeps')):
        engine = sqlalchemy.create_engine(as_ann.database(user, name).replace(':', '+psycopg:', 1))
        with engine.connect() as connection:
            tables = sqlalchemy.inspect(connection).get_table_names()
            assert tables
            rows = [connection.execute(sqlalchemy.text(f'SELECT * FROM {table}')).all() for table in tables]
        assert [word for word in words if word in str(rows)] == []


def refused(ddsp, *command: object) -> str:
    status, out, err = ddsp(*command)
    assert (status, out) == (1, ''), command
    assert PASSWORD not in err
    (line,) = [line for line in err.splitlines() if not line.startswith('Warning: the split ')]
    assert line.startswith('Error: ')
    return line.removeprefix('Error: ')


@pytest.mark.parametrize(
    ('login', 'message'),
    [
        ({'MLFLOW_TRACKING_PASSWORD': 'not-' + PASSWORD},
         " refuses the login of 'ann': check MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD."),
        ({'MLFLOW_TRACKING_USERNAME': ''},
         ' asks for a login: set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or '
         'MLFLOW_TRACKING_TOKEN.'),
        ({'MLFLOW_TRACKING_USERNAME': '', 'MLFLOW_TRACKING_TOKEN': PASSWORD},
         ' cannot read the token of MLFLOW_TRACKING_TOKEN. If it has the basic authentication of MLflow, set '
         'MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD instead.'),
    ],
)  # fmt: skip
def test_a_login_that_is_refused_is_one_sentence(as_ann, workdir, dataset, ddsp, monkeypatch, login, message):
    for name, value in login.items():
        monkeypatch.setenv(name, value)
    (workdir / 'rates.yaml').write_text(SPEC)
    for command in (
        ['runs'], ['runs', 'compare', 'a', 'b'], ['promote', 'a', '--name', 'b'], ['ui', '--no-browser'],
        ['transfer', write_tone(workdir), '--model', 'runs:/' + 32 * '0', '--output', 'y.wav'],
        ['train', dataset, '--steps', 1, '--save-dir', 'run'], ['sweep', 'rates.yaml', dataset],
    ):  # fmt: skip
        assert refused(ddsp, *command) == f'the tracking server {as_ann.address}{message}', command
    assert not list(workdir.rglob('ckpt-*'))
    checks = json.loads(ddsp('doctor', '--json')[1])
    assert message in str(checks)


def test_the_address_with_a_wrong_password_does_not_show_it(as_ann, ddsp, monkeypatch):
    monkeypatch.setenv('MLFLOW_TRACKING_URI', as_ann.address.replace('//', f'//bob:{PASSWORD}@'))
    assert "refuses the login of 'bob'" in refused(ddsp, 'runs')


def test_what_a_user_may_not_do_is_one_sentence(as_ann, workdir, dataset, tiny, ddsp):
    bindings = [word for binding in tiny for word in ('--gin-param', binding)]
    (workdir / 'rates.yaml').write_text(SPEC)
    beginning = f"the tracking server {as_ann.address} does not allow 'ann' to do that ("
    end = (
        '). Who made the experiment or the model, or an administrator, can grant EDIT on it; or make '
        'your own with another --experiment or --name.'
    )
    commands = {
        'runs/create': ['train', dataset, '--steps', 1, '--experiment', 'closed', *bindings],
        'runs/get': ['runs', 'end', hidden_run(as_ann)],
    }
    for action, command in commands.items():
        assert refused(ddsp, *command) == f'{beginning}{action}{end}'
    told = refused(ddsp, 'sweep', 'rates.yaml', dataset, '--experiment', 'closed')
    assert told == f'{beginning}runs/create{end}'
    assert ddsp('runs', 'list', '--experiment', 'closed')[0] == 0  # to look is allowed
    assert not list(workdir.rglob('ckpt-*'))


def hidden_run(server: TrackingServer) -> str:
    """A run that the user may not even see."""
    engine = sqlalchemy.create_engine(server.database('mlflow', 'mlflow').replace(':', '+psycopg:', 1))
    with engine.connect() as connection:
        return connection.execute(
            sqlalchemy.text("SELECT run_uuid FROM runs WHERE name = 'run of hidden'")
        ).scalar()


def test_a_name_that_the_server_does_not_know(as_ann, ddsp, monkeypatch):
    address = as_ann.address.replace('127.0.0.1', '127.0.0.2')
    monkeypatch.setenv('MLFLOW_TRACKING_URI', address)
    host = address.removeprefix('http://')
    assert refused(ddsp, 'runs') == (
        f'the tracking server {address} does not know its name: start it with {host} in --allowed-hosts.'
    )


def test_the_ui_of_a_server_takes_no_port(as_ann, ddsp):
    status, _, err = ddsp('ui', '--no-browser', '--port', 5001)
    assert status == 2
    assert f'--host and --port are for a server of your own; {as_ann.address} is one already.' in err


def test_a_login_that_ends_during_a_training_loses_nothing(as_ann, workdir, monkeypatch, ddsp):
    from experiments.tracking.tracker import MLflowTracker

    tracker = MLflowTracker('run', experiment='ann', metrics_every=0)
    monkeypatch.setenv('MLFLOW_TRACKING_PASSWORD', 'not-' + PASSWORD)
    tracker.on_summary(1, {'losses/total_loss': 2.0})
    told = tracker.close('FINISHED', timeout=5)
    assert "refuses the login of 'ann'" in told
    assert '`ddsp runs sync run` records them.' in told
    assert "refuses the login of 'ann'" in refused(ddsp, 'runs', 'sync', 'run')
    monkeypatch.setenv('MLFLOW_TRACKING_PASSWORD', PASSWORD)
    assert ddsp('runs', 'sync', 'run') == (0, '2 entries recorded.\n', '')
    run = store.client().get_run(tracker.run_id)
    assert (run.info.status, run.data.metrics) == ('FINISHED', {'losses/total_loss': 2.0})


def test_processes_show_no_secret_on_their_command_lines(as_ann):
    lines = [
        path.read_bytes().decode(errors='replace') for path in pathlib.Path('/proc').glob('[0-9]*/cmdline')
    ]
    assert any('--app-name=basic-auth' in line for line in lines)
    assert [word for word in (PASSWORD, *as_ann.secrets.values()) if word in ''.join(lines)] == []
    done = subprocess.run(
        [sys.executable, '-m', 'experiments.cli', 'runs'], capture_output=True, text=True, check=False,
        env={**os.environ, 'PYTHONPATH': os.pathsep.join(sys.path)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
