"""Runs in a real MLflow store: what is recorded, how a run goes on, how it ends."""

from __future__ import annotations

import json
import os
import pathlib
import pty
import subprocess
import sys
import time

import numpy as np
import optuna
import pytest

from benchmarks import tracking
from experiments import quiet
from experiments.tracking import run_tags, runs, store
from experiments.tracking.tracker import MLflowTracker

GIN = 'Trainer.learning_rate = 0.01\ntrain.batch_size = 8\nNet.layers = \\\n    (1,\n     2)\n'


@pytest.fixture(autouse=True)
def calm():
    """As within a command."""
    quiet.calm_loggers()


def begin(tracker: MLflowTracker, start_step: int = 0, num_steps: int = 10, gin_config: str = GIN) -> None:
    tracker.on_train_begin(
        start_step=start_step, num_steps=num_steps, save_dir=str(tracker.save_dir), gin_config=gin_config
    )


def history(run_id: str, name: str) -> list[tuple[int, float]]:
    return [(point.step, point.value) for point in store.client().get_metric_history(run_id, name)]


def test_a_whole_run(workdir):
    tracker = MLflowTracker(
        'run', experiment='violin', run_name='first', tags={'note': 'x'}, metrics_every=0.2
    )
    begin(tracker)
    for step in range(1, 11):
        tracker.on_step(step)
        tracker.on_summary(step, {'losses/total_loss': 10.0 / step, 'speed/steps_per_sec': np.float32(3)})
    tracker.on_save(10, 'run/ckpt-10')
    time.sleep(0.6)
    tracker.on_train_end(10, 'done')
    tracker.log_metrics({'eval/spectral_loss': 4.5}, step=10)
    (workdir / 'page.html').write_text('<p>x')
    tracker.log_artifact(workdir / 'page.html')
    assert tracker.close() == ''

    client = store.client()
    run = client.get_run(tracker.run_id)
    assert run.info.status == 'FINISHED'
    assert run.info.run_name == 'first'
    assert run.data.params['Trainer.learning_rate'] == '0.01'
    assert run.data.params['Net.layers'] == '(1, 2)'
    assert run.data.metrics['eval/spectral_loss'] == 4.5
    assert history(tracker.run_id, 'losses/total_loss') == [(step, 10.0 / step) for step in range(1, 11)]
    assert run.data.metrics['system/cpu_utilization_percentage'] >= 0
    assert run.data.tags['note'] == 'x'
    assert run.data.tags['ddsp.checkpoint'] == 'run/ckpt-10'
    assert run.data.tags['ddsp.version']
    artifacts = {entry.path for entry in client.list_artifacts(run.info.run_id)}
    assert artifacts == {'config', 'page.html'}
    config = client.download_artifacts(run.info.run_id, 'config/operative_config.gin')
    assert pathlib.Path(config).read_text() == GIN
    experiment = client.get_experiment_by_name('violin')
    assert experiment.tags['mlflow.experimentKind'] == 'custom_model_development'
    assert (workdir / 'mlartifacts' / 'violin').is_dir()


def test_a_resumed_training_goes_on_in_the_same_run(workdir):
    first = MLflowTracker('run', experiment='violin')
    begin(first, num_steps=10)
    for step in (2, 4, 6):
        first.on_summary(step, {'losses/total_loss': float(step)})
    first.on_train_end(6, 'interrupted')
    first.close()
    assert store.client().get_run(first.run_id).info.status == 'KILLED'

    second = MLflowTracker('run', experiment='violin')  # the checkpoint was that of step 4
    begin(second, start_step=4, num_steps=12)
    for step in (6, 8):
        second.on_summary(step, {'losses/total_loss': float(step)})
    second.on_train_end(8, 'done')
    second.close()

    assert second.run_id == first.run_id
    assert second.resumed
    assert not first.resumed
    assert len(store.search(store.client(), experiments=['violin'])) == 1
    assert history(first.run_id, 'losses/total_loss') == [(step, float(step)) for step in (2, 4, 6, 8)]
    run = store.client().get_run(first.run_id)
    assert run.info.status == 'FINISHED'
    assert run.data.params['num_steps'] == '10'
    assert run.data.params['num_steps from step 4'] == '12'


def test_a_run_whose_store_was_lost_is_recorded_again(workdir, empty_database):
    first = MLflowTracker('run', experiment='violin')
    first.on_summary(1, {'losses/total_loss': 1.0})
    first.close('KILLED')
    (workdir / 'mlflow.db').write_bytes(empty_database.read_bytes())  # another machine, another store
    second = MLflowTracker('run', experiment='violin')
    second.on_summary(2, {'losses/total_loss': 0.5})
    second.close('FINISHED')
    assert second.run_id != first.run_id
    assert history(second.run_id, 'losses/total_loss') == [(1, 1.0), (2, 0.5)]
    assert store.client().get_run(second.run_id).data.tags['ddsp.continues'] == first.run_id


@pytest.mark.parametrize(
    ('error', 'status'),
    [
        (None, 'FINISHED'),
        (KeyboardInterrupt(), 'KILLED'),
        (ValueError('x'), 'FAILED'),
        (optuna.TrialPruned(), 'KILLED'),
    ],
)
def test_the_end_of_a_run_is_what_happened(workdir, error, status):
    tracker = MLflowTracker('run')
    try:
        with tracker:
            if error is not None:
                raise error
    except (KeyboardInterrupt, ValueError, optuna.TrialPruned):
        pass
    run = store.client().get_run(tracker.run_id)
    assert run.info.status == status
    pruned = isinstance(error, optuna.TrialPruned)
    assert run.data.tags.get('sweep_outcome') == ('pruned' if pruned else None)


def test_a_list_changes_nothing_and_says_who_gives_no_sign_of_life(workdir, ddsp, monkeypatch):
    """The process is gone, as seen from a container that shares the host's name but not its processes."""
    code = (
        'import os, signal; from experiments.tracking.tracker import MLflowTracker; '
        'tracker = MLflowTracker("run"); '
        'tracker.on_summary(1, {"losses/total_loss": 1.0}); tracker._journal.flush(20); '
        'os.kill(os.getpid(), signal.SIGKILL)'
    )
    done = subprocess.run([sys.executable, '-c', code], cwd=workdir, capture_output=True, check=False)
    assert done.returncode == -9
    client = store.client()
    run_id = store.run_id_of(pathlib.Path('run'))
    last = run_tags.last_sign(client.get_run(run_id).data.tags)
    (row,) = json.loads(ddsp('runs', '--json')[1])
    assert (row['status'], row['silent_since']) == ('RUNNING', None)  # it may live
    assert ddsp('runs', 'end', 'run')[2].endswith('Stop its training, or add --force.\n')

    monkeypatch.setattr(run_tags, 'LEASE_SECS', 0.0)
    (row,) = json.loads(ddsp('runs', '--json')[1])
    assert (row['status'], row['silent_since']) == ('RUNNING', last)
    assert f'no sign of life since {runs.clock(last)}' in ddsp('runs')[1]
    assert client.get_run(run_id).info.status == 'RUNNING'
    assert ddsp('runs', 'end', 'run') == (0, f'{run_id} is KILLED now.\n', '')
    assert client.get_run(run_id).info.status == 'KILLED'
    assert history(run_id, 'losses/total_loss') == [(1, 1.0)]


def test_a_run_lives_while_it_renews_its_sign(workdir, ddsp, monkeypatch):
    monkeypatch.setattr(run_tags, 'EVERY_SECS', 0.05)
    client = store.client()

    def sign() -> int:
        return run_tags.last_sign(client.get_run(tracker.run_id).data.tags)

    with MLflowTracker('run', metrics_every=0) as tracker:
        first = sign()
        end = time.monotonic() + 10
        while sign() == first and time.monotonic() < end:
            time.sleep(0.05)
        assert sign() > first
        assert ddsp('runs', 'end', 'run')[0] == 1
        assert 'lives' in ddsp('runs', 'end', 'run')[2]
    last = sign()
    time.sleep(0.3)
    assert sign() == last
    assert client.get_run(tracker.run_id).info.status == 'FINISHED'
    other = MLflowTracker('other', metrics_every=0)
    assert ddsp('runs', 'end', 'other', '--force')[0] == 0
    assert client.get_run(other.run_id).info.status == 'KILLED'
    other.close()


@pytest.mark.parametrize(
    ('status', 'age_secs', 'silent'),
    [('RUNNING', 250, False), ('RUNNING', 350, True), ('RUNNING', -3600, False), ('FINISHED', 9999, False)],
)
def test_a_lease_outlasts_clocks_that_differ(status, age_secs, silent):
    now = 1.8e9
    known = {run_tags.TAG: str(int((now - age_secs) * 1000))}
    assert (run_tags.silent_since(status, known, now) is not None) == silent
    assert run_tags.silent_since(status, {}, now) is None


def test_a_value_that_mlflow_refuses_costs_only_itself(workdir):
    tracker = MLflowTracker('run')
    tracker.on_summary(1, {'good': 1.0})
    tracker.log_metrics({'bad$name': 1.0}, step=1)
    tracker.on_summary(2, {'good': 2.0})
    assert 'bad$name' in tracker.close()
    assert history(tracker.run_id, 'good') == [(1, 1.0), (2, 2.0)]


def test_recording_costs_little_time(workdir):
    tracker = MLflowTracker('run')
    metrics = {f'losses/loss_{index}': 1.0 for index in range(20)}
    start = time.perf_counter()
    for step in range(200):
        tracker.on_step(step)
        tracker.on_summary(step, metrics)
    seconds = time.perf_counter() - start
    tracker.close()
    assert seconds / 200 < 0.005  # a step of training takes a hundred times as long


@pytest.mark.parametrize('database', ['sqlite', 'postgresql'])
def test_all_metrics_of_all_trials_arrive_in_both_databases(database, workdir, monkeypatch, request, ddsp):
    """`python -m benchmarks.tracking` times fifty of them."""
    if database == 'postgresql':
        monkeypatch.setenv('MLFLOW_TRACKING_URI', request.getfixturevalue('postgres').create_database())
    cost = tracking.record_trials(workdir / 'trials', trials=2, metrics=200)
    assert cost['waited_ms'] < 1000 * cost['recorded_s']
    runs = json.loads(ddsp('runs', '--json')[1])
    assert [(run['name'], run['status']) for run in runs] == [
        ('trial-1', 'FINISHED'),
        ('trial-0', 'FINISHED'),
    ]
    for run in runs:
        wanted = {f'losses/loss_{index}': 1.0 / (index + 1) for index in range(200)}
        assert run['metrics'] == pytest.approx(wanted)
        assert history(run['run_id'], 'losses/loss_199') == [(step, 1 / 200) for step in range(1, 6)]


def test_a_server_that_is_down_at_the_start_is_said_at_once(workdir, monkeypatch):
    monkeypatch.setenv('MLFLOW_TRACKING_URI', 'http://127.0.0.1:9')
    with pytest.raises(
        store.TrackingError, match=r'the tracking server http://127.0.0.1:9 does not answer .* unset'
    ):
        MLflowTracker('run')
    assert not pathlib.Path('run', 'run.json').exists()


def test_a_training_that_began_without_its_server_is_recorded_later(workdir, monkeypatch, ddsp):
    monkeypatch.setenv('MLFLOW_TRACKING_URI', 'http://127.0.0.1:9')
    tracker = MLflowTracker('run', experiment='violin', run_name='later', tags={'note': 'x'}, buffer=True)
    assert tracker.run_id == ''
    begin(tracker)
    began = time.time()
    tracker.on_summary(1, {'losses/total_loss': 1.0})
    tracker.on_train_end(1, 'done')
    assert '`ddsp runs sync run` records them' in tracker.close(timeout=0.2)
    monkeypatch.delenv('MLFLOW_TRACKING_URI')
    time.sleep(1.1)
    status, out, err = ddsp('runs', 'sync', 'run')
    assert (status, out, err) == (0, '4 entries recorded.\n', '')
    (run,) = store.search(store.client(), experiments=['violin'])
    assert (run.info.run_name, run.info.status, run.data.tags['note']) == ('later', 'FINISHED', 'x')
    assert run.info.start_time / 1000 == pytest.approx(began, abs=0.9)  # when it was trained, not recorded
    assert history(run.info.run_id, 'losses/total_loss') == [(1, 1.0)]
    assert store.run_id_of(pathlib.Path('run')) == run.info.run_id
    assert ddsp('runs', 'sync', 'run')[1] == '0 entries recorded.\n'


ASK = (
    'import sys; from experiments.cli import training; '
    'print("ANSWER", training._buffer_when_server_is_down(False))'
)


@pytest.mark.parametrize(
    ('typed', 'status', 'answer'),
    [
        ('later', 0, 'ANSWER True'),
        ('', 0, 'ANSWER True'),
        ('what?\nlater', 0, 'ANSWER True'),
        ('quit', 1, ''),
    ],
)
def test_a_person_at_a_terminal_is_asked_once(typed, status, answer):
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, '-c', ASK], stdin=theirs, stderr=theirs, stdout=subprocess.PIPE, text=True,
        env={**os.environ, 'MLFLOW_TRACKING_URI': 'http://127.0.0.1:9', 'PYTHONPATH': ':'.join(sys.path)},
    )  # fmt: skip
    os.close(theirs)
    os.write(ours, f'{typed}\n'.encode())
    out = process.communicate(timeout=60)[0]
    shown = os.read(ours, 10000).decode()
    os.close(ours)
    assert (process.returncode, out.strip()) == (status, answer)
    assert 'The tracking server http://127.0.0.1:9 does not answer' in shown
    assert 'Wait for it, train and record the run later, or quit? (wait/later/quit)' in shown
    assert ('ServerDownError' in shown) == (status == 1)


def test_nobody_at_a_terminal_is_not_asked(monkeypatch, capfd):
    from experiments.cli import training

    monkeypatch.setenv('MLFLOW_TRACKING_URI', 'http://127.0.0.1:9')
    assert training._buffer_when_server_is_down(True)
    warning = capfd.readouterr().err
    assert warning.startswith('Warning: the tracking server http://127.0.0.1:9 does not answer')
    assert 'recorded when the server is back.' in warning
    monkeypatch.delenv('MLFLOW_TRACKING_URI')
    assert not training._buffer_when_server_is_down(False)


def test_a_run_that_was_never_made_is_made_when_its_training_goes_on(workdir, monkeypatch):
    monkeypatch.setenv('MLFLOW_TRACKING_URI', 'http://127.0.0.1:9')
    first = MLflowTracker('run', buffer=True)
    first.on_summary(1, {'losses/total_loss': 1.0})
    first.close('KILLED', timeout=0.1)
    monkeypatch.delenv('MLFLOW_TRACKING_URI')
    with MLflowTracker('run') as second:
        assert second.resumed
        assert second.run_id
        second.on_summary(2, {'losses/total_loss': 0.5})
    assert history(second.run_id, 'losses/total_loss') == [(1, 1.0), (2, 0.5)]
    assert len(store.search(store.client())) == 1


def test_a_resumed_run_whose_server_is_down_goes_on_and_is_synced_later(workdir, monkeypatch, ddsp):
    first = MLflowTracker('run')
    first.on_summary(1, {'losses/total_loss': 1.0})
    first.close('KILLED')
    monkeypatch.setenv('MLFLOW_TRACKING_URI', 'http://127.0.0.1:9')
    second = MLflowTracker('run')
    assert second.run_id == first.run_id
    second.on_summary(2, {'losses/total_loss': 0.5})
    message = second.close('FINISHED', timeout=0.2)
    assert 'ddsp runs sync run' in message
    monkeypatch.delenv('MLFLOW_TRACKING_URI')
    status, out, err = ddsp('runs', 'sync', 'run')
    assert (status, err) == (0, '')
    assert out == '2 entries recorded.\n'
    assert history(first.run_id, 'losses/total_loss') == [(1, 1.0), (2, 0.5)]
    assert store.client().get_run(first.run_id).info.status == 'FINISHED'


def test_sync_of_a_folder_that_is_no_run(workdir, ddsp):
    status, _, err = ddsp('runs', 'sync', workdir)
    assert status == 1
    assert err == f'Error: {workdir} is not a training folder: it has no run.json.\n'
