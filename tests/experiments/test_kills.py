"""Whoever dies, and wherever the disk is full: no run is left open for ever, no metric is lost or doubled."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from benchmarks.postgres import PostgresCluster
from experiments.tracking import store
from experiments.tracking.delivery import sync
from experiments.tracking.tracker import MLflowTracker
from experiments.tracking.ui import UIServer, free_port

OUTAGE_SECS, AWAY_SECS = 60.0, 20.0


def ddsp_command(*arguments: object) -> list[str]:
    return [sys.executable, '-m', 'experiments.cli', *map(str, arguments)]


def environment(**changes: str) -> dict[str, str]:
    kept = {name: text for name, text in os.environ.items() if not name.startswith('MLFLOW_')}
    return {**kept, 'PYTHONPATH': os.pathsep.join(sys.path), **changes}


def wait_until(condition, process: subprocess.Popen, seconds: float = 300.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end, 'nothing happened'
        time.sleep(0.05)


def steps_of(client, run_id: str, name: str = 'losses/total_loss') -> list[int]:
    return [point.step for point in client.get_metric_history(run_id, name)]


def test_a_killed_trainer_goes_on_in_its_run_without_a_gap_or_a_double(workdir, dataset, tiny, ddsp):
    bindings = [word for binding in tiny if 'steps_per' not in binding for word in ('--gin-param', binding)]
    bindings += ['--gin-param', 'train.steps_per_summary = 5', '--gin-param', 'train.steps_per_save = 20']
    command = ddsp_command(
        'train', dataset, *bindings, '--save-dir', 'run', '--experiment', 'kills', '--steps', 120,
        '--batch-size', 2, '--no-evaluate', '--json',
    )  # fmt: skip
    first = subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        wait_until(lambda: (workdir / 'run' / 'ckpt-40.index').exists(), first)
    finally:
        first.kill()
        first.communicate()
    run_id = store.run_id_of(workdir / 'run')

    (row,) = json.loads(ddsp('runs', '--json')[1])  # who looks changes nothing
    assert (row['run_id'], row['status']) == (run_id, 'RUNNING')
    second = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)
    assert second.returncode == 0, second.stderr
    assert json.loads(second.stdout)['run_id'] == run_id
    client = store.client()
    (run,) = store.search(client)
    assert run.info.status == 'FINISHED'
    assert steps_of(client, run_id) == list(range(5, 121, 5))
    assert steps_of(client, run_id, 'losses/spectral_loss_64') == list(range(5, 121, 5))


@contextlib.contextmanager
def served(folder: pathlib.Path, port: int):
    """A real MLflow server on the folder's database."""
    server = UIServer(f'sqlite:///{folder / "mlflow.db"}', port=port)
    with server:
        server.wait_until_ready()
        yield server


def kill(server: UIServer) -> None:
    """As a power cut: the server and its workers at once."""
    os.killpg(server._process.pid, signal.SIGKILL)
    server._process.wait()


def outage(workdir: pathlib.Path, monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """A training whose server is killed and comes back; everything has arrived at the end."""
    port = free_port(preferred=0)
    monkeypatch.setenv('MLFLOW_TRACKING_URI', f'http://127.0.0.1:{port}')
    monkeypatch.setenv('MLFLOW_HTTP_REQUEST_MAX_RETRIES', '0')
    (workdir / 'sound.txt').write_text('x')
    with served(workdir, port) as server:
        tracker = MLflowTracker('run', experiment='served', metrics_every=0)
        tracker.on_train_begin(start_step=0, num_steps=9, save_dir='run', gin_config='a.b = 1\n')
        tracker.on_summary(1, {'losses/total_loss': 1.0})
        assert tracker._journal.flush(60)
        kill(server)
    start = time.perf_counter()
    for step in range(2, 50):
        tracker.on_summary(step, {'losses/total_loss': 1.0 / step})
    tracker.log_artifact(workdir / 'sound.txt', 'media')
    assert time.perf_counter() - start < 1.0  # the trainer notices nothing
    time.sleep(max(0.0, seconds - 1.0))
    assert (tracker._journal.waiting, tracker._journal.rejected) == (49, [])
    with served(workdir, port):
        tracker.on_train_end(49, 'done')
        assert tracker.close(timeout=120) == ''
        client = store.client()
        points = client.get_metric_history(tracker.run_id, 'losses/total_loss')
        assert [(point.step, point.value) for point in points] == [(n, 1.0 / n) for n in range(1, 50)]
        assert client.get_run(tracker.run_id).info.status == 'FINISHED'
        assert [entry.path for entry in client.list_artifacts(tracker.run_id, 'media')] == ['media/sound.txt']

        late = MLflowTracker('late', experiment='served', metrics_every=0)
    late.on_summary(1, {'losses/total_loss': 2.0})  # the server is away until after the end
    assert 'ddsp runs sync late' in late.close('FINISHED', timeout=1)
    monkeypatch.delenv('MLFLOW_TRACKING_URI')
    row = json.loads((workdir / 'late' / 'run.json').read_text())
    (workdir / 'late' / 'run.json').write_text(json.dumps({**row, 'tracking_uri': store.tracking_uri()}))
    assert sync('late') == 2
    assert steps_of(store.client(), late.run_id) == [1]


def test_a_killed_server_gets_everything_when_it_is_back(workdir, monkeypatch):
    outage(workdir, monkeypatch, 3.0)


@pytest.mark.slow
def test_a_server_that_is_away_for_a_minute_gets_everything(workdir, monkeypatch):
    outage(workdir, monkeypatch, OUTAGE_SECS)


@pytest.fixture
def small_disk(workdir):
    """A disk of 400 kB for the artefacts."""
    folder = workdir / 'mlartifacts'
    folder.mkdir()
    mount = subprocess.run(
        ['mount', '-t', 'tmpfs', '-o', 'size=400k', 'tmpfs', str(folder)], capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    if mount.returncode:
        pytest.skip(f'a disk cannot be mounted here: {mount.stderr.strip()}')
    yield folder
    subprocess.run(['umount', str(folder)], check=True)


def test_a_full_disk_for_artefacts_stops_nothing_and_what_is_missing_follows(
    small_disk, workdir, ddsp, capfd
):
    (workdir / 'large.wav').write_bytes(bytes(600_000))
    (workdir / 'small.txt').write_text('x')
    with MLflowTracker('run', experiment='violin', metrics_every=0) as tracker:
        tracker.on_train_begin(start_step=0, num_steps=3, save_dir='run', gin_config='a.b = 1\n')
        tracker.log_artifact(workdir / 'large.wav', 'media')
        tracker.on_summary(1, {'losses/total_loss': 1.0})
        tracker.on_train_end(1, 'done')
    told = capfd.readouterr().err
    assert 'No space left on device in the store of artefacts' in told
    assert '`ddsp runs sync run` records it.' in told
    assert 'large.wav' in told
    client = store.client()
    run = client.get_run(tracker.run_id)
    assert run.info.status == 'FINISHED'
    assert run.data.metrics == {'losses/total_loss': 1.0}

    subprocess.run(['mount', '-o', 'remount,size=4m', str(small_disk)], check=True)
    status, out, err = ddsp('runs', 'sync', 'run')
    assert (status, out, err) == (0, '1 entry recorded.\n', '')
    found = client.list_artifacts(tracker.run_id, 'media')
    assert [(entry.path, entry.file_size) for entry in found] == [('media/large.wav', 600_000)]


def children(pid: int) -> list[int]:
    """Processes that a process has started."""
    return [int(child) for child in pathlib.Path(f'/proc/{pid}/task/{pid}/children').read_text().split()]


SWEEP = """
objective: losses/total_loss
trials: 4
steps: 60
batch_size: 2
preset: laptop
pruner: none
parameters:
  Trainer.learning_rate: {low: 1e-4, high: 1e-2, log: true}
fixed: {RnnFcDecoder.rnn_channels: 8, RnnFcDecoder.ch: 8, RnnFcDecoder.layers_per_stack: 1,
        Reverb.reverb_length: 400, train.steps_per_summary: 5, train.steps_per_save: 10}
"""


@pytest.mark.slow
def test_a_killed_worker_loses_no_trial_and_doubles_none(workdir, dataset):
    (workdir / 'rates.yaml').write_text(SWEEP)
    command = ddsp_command('sweep', 'rates.yaml', dataset, '--json')
    pipes = {'stdout': subprocess.PIPE, 'stderr': subprocess.PIPE, 'text': True}
    first = subprocess.Popen([*command, '--workers', '2'], env=environment(), **pipes)
    folder = workdir / 'sweeps' / 'rates'
    try:
        wait_until(lambda: list(folder.glob('trial-*/ckpt-10.index')), first, 500)
    except AssertionError:
        first.terminate()
        raise
    (killed, *others) = children(first.pid)
    os.kill(killed, signal.SIGKILL)
    joined = subprocess.Popen(command, env=environment(), **pipes)  # as from another terminal
    out, err = joined.communicate(timeout=900)
    assert (joined.returncode, err) == (0, '')
    out, err = first.communicate(timeout=600)
    assert (first.returncode, err) == (0, '')
    assert len(others) == 1
    result = json.loads(out)
    assert (result['finished'], result['failed'], result['total']) == (4, 0, 4)

    client = store.client()
    runs = store.search(client, "tags.sweep_role = 'trial'")
    assert sorted(run.data.tags['sweep_trial'] for run in runs) == ['0', '1', '2', '3']
    assert {run.info.status for run in runs} == {'FINISHED'}
    for run in runs:
        assert steps_of(client, run.info.run_id) == list(range(5, 61, 5))
    assert len(store.search(client, "tags.sweep_role = 'summary'")) == 1


@pytest.mark.slow
def test_a_sweep_outlives_its_databases(workdir, dataset):
    """Study and tracking store lie on one server, which is away for 20 s in the middle of two trials."""
    (workdir / 'rates.yaml').write_text(SWEEP.replace('none', 'median'))
    folder = workdir / 'sweeps' / 'rates'
    with PostgresCluster() as cluster:
        tracking = cluster.create_database('mlflow')
        surroundings = environment(MLFLOW_TRACKING_URI=tracking, DDSP_SWEEP_HEARTBEAT_SECS='4')
        command = ddsp_command(
            'sweep', 'rates.yaml', dataset, '--storage', cluster.create_database('sweeps'), '--workers', 2,
            '--json',
        )  # fmt: skip
        sweep = subprocess.Popen(
            command, env=surroundings, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        try:
            wait_until(
                lambda: len({path.parent for path in folder.glob('trial-*/ckpt-*.index')}) == 2, sweep, 500
            )
            cluster.stop()
            time.sleep(AWAY_SECS)
            cluster.start()
            out, err = sweep.communicate(timeout=600)
        finally:
            sweep.terminate()
            sweep.wait(120)
        logs = ''.join(path.read_text() for path in folder.glob('worker-*.log'))
        assert sweep.returncode == 0, err + logs
        assert 'Traceback' not in err + logs
        result = json.loads(out)
        assert (result['finished'] + result['pruned'], result['failed'], result['total']) == (4, 0, 4)
        client = store.client(tracking)
        runs = store.search(client, "tags.sweep_role = 'trial'")
        assert sorted(run.data.tags['sweep_trial'] for run in runs) == ['0', '1', '2', '3']
        for run in runs:
            pruned = run.data.tags.get('sweep_outcome') == 'pruned'
            assert run.info.status == ('KILLED' if pruned else 'FINISHED')
            steps = steps_of(client, run.info.run_id)
            assert steps == list(range(5, steps[-1] + 1, 5))
            assert pruned or steps[-1] == 60
            assert len(run.outputs.model_outputs) == (0 if pruned else 1)
        assert len(store.search(client, "tags.sweep_role = 'summary'")) == 1
    assert (folder / 'summary' / 'compare.html').is_file()


@pytest.mark.slow
def test_workers_of_one_training_share_its_folder(workdir, dataset, tiny):
    """As Slurm starts them: the first worker owns the folder and records the run, the other one joins."""
    bindings = [word for binding in tiny for word in ('--gin-param', binding)]
    command = ddsp_command(
        'train', dataset, *bindings, '--save-dir', 'run', '--steps', 4, '--batch-size', 4, '--no-evaluate',
        '--strategy', 'multi_worker', '--json',
    )  # fmt: skip
    slurm = {
        'SLURM_NTASKS': '2', 'SLURM_STEP_NODELIST': 'localhost', 'SLURM_STEP_TASKS_PER_NODE': '2',
        'MASTER_PORT': str(free_port(preferred=0)),
    }  # fmt: skip
    workers = [
        subprocess.Popen(
            command, env=environment(**slurm, SLURM_PROCID=str(number)), stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True,
        )
        for number in range(2)
    ]  # fmt: skip
    try:
        told = [worker.communicate(timeout=500) for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
    assert [worker.returncode for worker in workers] == [0, 0], told
    chief, other = (json.loads(out) for out, _ in told)
    assert (chief['step'], other['step'], other['run_id']) == (4, 4, '')
    (run,) = store.search(store.client())
    assert (run.info.run_id, run.info.status) == (chief['run_id'], 'FINISHED')
