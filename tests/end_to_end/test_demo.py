"""The main job as a user runs it: `ddsp demo`, interrupted, continued, looked at."""

from __future__ import annotations

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import matplotlib.image
import numpy as np
import pytest
import soundfile

pytestmark = pytest.mark.end_to_end

STEPS = 12


def start(folder: pathlib.Path, *arguments: str) -> subprocess.Popen:
    """`ddsp demo` of a small corpus; MLflow's store is in `folder` too."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith('MLFLOW_')}
    command = ['demo', '--seconds', '40', '--steps', str(STEPS), '--seed', '3', *arguments]
    return subprocess.Popen(
        [sys.executable, '-m', 'experiments.cli', *command],
        cwd=folder, env=environment, preexec_fn=_hear_ctrl_c, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def _hear_ctrl_c() -> None:
    """Undoes what a shell does to the jobs that it runs in the background, this test's perhaps among them."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
    """A demo that was interrupted while it trained, and then finished by the same command."""
    folder = tmp_path_factory.mktemp('demo')
    first = start(folder)
    wait_until(lambda: list((folder / 'ddsp-demo' / 'run').glob('operative_config*')), first)
    first.send_signal(signal.SIGINT)
    interrupted = (*first.communicate(timeout=300), first.returncode)
    second = start(folder)
    out, err = second.communicate(timeout=600)
    assert second.returncode == 0, err
    return folder, interrupted, (out, err)


def wait_until(condition, process: subprocess.Popen, seconds: float = 300.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end, 'nothing happened'
        time.sleep(0.05)


def test_interrupted_with_one_line(finished):
    _, (out, err, code), _ = finished
    assert code == 130
    assert 'same command' in out + err
    assert 'Traceback' not in err


def test_leaves_the_three_contracts(finished):
    folder, _, _ = finished
    demo = folder / 'ddsp-demo'
    result = json.loads((demo / 'results.json').read_text())
    assert (pathlib.Path(folder, result['dataset']) / 'MANIFEST.json').exists()
    assert (pathlib.Path(folder, result['bundle']) / 'metadata.json').exists()
    assert result['metrics']['spectral_loss'] < result['metrics']['untrained_spectral_loss']


def test_one_run_with_everything(finished):
    import mlflow

    folder, _, _ = finished
    client = mlflow.MlflowClient(f'sqlite:///{folder}/mlflow.db')
    runs = client.search_runs([client.get_experiment_by_name('demo').experiment_id])
    assert [run.info.status for run in runs] == ['FINISHED']
    run = runs[0]
    steps = [metric.step for metric in client.get_metric_history(run.info.run_id, 'losses/total_loss')]
    assert steps == sorted(set(steps))
    assert steps[-1] == STEPS
    assert run.data.metrics['eval/loudness_l1_db'] > 0
    assert run.inputs.dataset_inputs[0].dataset.name == 'demo/1.0.0'
    names = {file.path for file in client.list_artifacts(run.info.run_id)}
    assert {'config', 'media', 'sound', 'listen.html'} <= names


def test_sounds_are_sounds(finished):
    folder, _, _ = finished
    result = json.loads((folder / 'ddsp-demo' / 'results.json').read_text())
    assert len(result['sounds']) == 6
    for what, path in result['sounds'].items():
        audio, rate = soundfile.read(folder / path)
        assert rate == 16000, what
        assert len(audio) > rate, what
        assert np.isfinite(audio).all(), what
        assert 1e-3 < np.sqrt(np.mean(audio**2)) < 0.7, what
    for path in result['pictures'].values():
        pixels = matplotlib.image.imread(folder / path)
        assert min(pixels.shape[:2]) > 300, path
        assert pixels[..., :3].std() > 0.05, path  # not blank


def test_says_what_it_reached_without_noise(finished):
    _, _, (out, err) = finished
    assert 'spectral_loss' in out.replace(' ', '_')
    assert 'ddsp ui' in out
    for noise in ('WARNING', 'cuda', 'oneDNN', 'INFO', 'Traceback'):
        assert noise not in err


def test_third_call_finds_everything_done(finished):
    folder, _, _ = finished
    files = [*(folder / 'ddsp-demo').rglob('*.h5'), *(folder / 'ddsp-demo').rglob('*.wav')]
    made = {path: path.stat().st_mtime_ns for path in files}
    again = start(folder, '--json')
    out, err = again.communicate(timeout=300)
    assert again.returncode == 0, err
    assert (
        json.loads(out)['metrics']
        == json.loads((folder / 'ddsp-demo' / 'results.json').read_text())['metrics']
    )
    assert len(made) > 6
    assert {path: path.stat().st_mtime_ns for path in files} == made


def test_other_settings_need_another_folder(finished):
    folder, _, _ = finished
    refused = start(folder, '--seed', '4')
    _, err = refused.communicate(timeout=300)
    assert refused.returncode == 1
    assert 'begun with seed 3, not seed 4' in err
    assert 'Traceback' not in err
