"""A preparation in MLflow."""

from __future__ import annotations

import json
import os
import pathlib

import numpy as np
import pytest
import soundfile

from ddsp.io.dataset import open_dataset
from experiments import quiet
from experiments.tracking import preparations, store


@pytest.fixture
def tones(workdir):
    """A folder of two tones and a silent file."""
    folder = workdir / 'tones'
    folder.mkdir()
    time = np.arange(3 * 16000) / 16000
    for name, level in (('a', 0.3), ('b', 0.2), ('silence', 0.0)):
        soundfile.write(folder / f'{name}.wav', level * np.sin(2 * np.pi * 220 * time), 16000)
    return folder


def prepare(ddsp, folder, *more):
    arguments = ('prepare', folder, '--output', 'data', '--f0', 'yin', '--workers', 1, '--json')
    status, out, err = ddsp(*arguments, '--example-secs', 1, *more)
    assert status == 0, err
    return json.loads(out)


def test_a_preparation_is_tracked_when_asked(tones, ddsp):
    assert prepare(ddsp, tones, '--no-track')['run_id'] is None
    found = prepare(ddsp, tones, '--track', '--experiment', 'data', '--version', '2.0.0', '--hop-secs', 0.5)
    client = store.client()
    run = client.get_run(found['run_id'])
    assert run.info.status == 'FINISHED'
    assert run.info.run_name == 'prepare tones 2.0.0'
    assert run.data.params['prepare.example_secs'] == '1.0'
    assert run.data.params['prepare.f0_estimator'] == 'yin'
    assert run.data.metrics['prepare/files/accepted'] == 2
    assert run.data.metrics['prepare/rejected/silent'] == 1
    assert run.data.metrics['prepare/made/audio_seconds'] == found['metrics']['made/audio_seconds']
    assert 'prepare/cpu_seconds/f0' in run.data.metrics
    (logged,) = run.inputs.dataset_inputs
    assert open_dataset(found['path']).digest.startswith(logged.dataset.digest)
    assert logged.tags[0].value == 'preparation'
    names = {item.path for item in client.list_artifacts(found['run_id'], 'dataset')}
    assert 'dataset/inspect.html' in names
    assert 'dataset/statistics.json' in names


def test_the_active_run_takes_it(tones, ddsp, monkeypatch):
    client = store.client()
    run = client.create_run(store.experiment_id(client, 'outer'))
    monkeypatch.setenv('MLFLOW_RUN_ID', run.info.run_id)
    assert prepare(ddsp, tones)['run_id'] == run.info.run_id
    run = client.get_run(run.info.run_id)
    assert run.info.status == 'RUNNING'  # it belongs to somebody else
    assert run.data.metrics['prepare/files/rejected'] == 1


def test_nothing_is_tracked_unasked(workdir, monkeypatch):
    for name in ('MLFLOW_TRACKING_URI', 'MLFLOW_RUN_ID', 'MLFLOW_EXPERIMENT_NAME'):
        monkeypatch.delenv(name, raising=False)
    assert not preparations.is_asked_for()
    import mlflow

    with quiet.terminal():
        mlflow.set_tracking_uri(store.tracking_uri())
        with mlflow.start_run():
            monkeypatch.delenv('MLFLOW_TRACKING_URI')  # set_tracking_uri leaves it to child processes
            assert preparations.is_asked_for()
    assert not preparations.is_asked_for()


def test_names_that_are_not_utf_8_are_tracked_and_shown(tones, ddsp):
    """Old recordings have names of other encodings."""
    os.rename(tones / 'a.wav', os.fsencode(tones / 'caf') + b'\xe9.wav')
    os.rename(tones / 'silence.wav', os.fsencode(tones / 'sil') + b'\xff.wav')
    root = os.fsdecode(b'r\xe4ume')
    arguments = ('--output', root, '--f0', 'yin', '--workers', 1, '--example-secs', 1, '--track')
    status, out, err = ddsp('prepare', tones, *arguments)
    assert status == 0, err
    assert r'sil\xff.wav is silent' in out
    (run,) = store.client().search_runs([store.client().get_experiment_by_name('ddsp').experiment_id])
    logged = run.inputs.dataset_inputs[0].dataset
    assert json.loads(logged.source) == {'uri': r'r\xe4ume/tones/1.0.0'}
    status, out, err = ddsp('inspect', f'{root}/tones', '--html', 'page.html')
    assert status == 0, err
    page = pathlib.Path('page.html').read_text(encoding='utf-8')
    assert r'caf\xe9.wav' in page
    assert r'sil\xff.wav' in page
    pages = store.client().list_artifacts(run.info.run_id, 'dataset')
    assert 'dataset/inspect.html' in {item.path for item in pages}
