"""Training from dataset to registered model, as `ddsp train` does it, on a dataset of a few tones."""

from __future__ import annotations

import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
import soundfile

from ddsp.errors import ConfigError, DDSPError
from ddsp.io import bundle_files
from ddsp.io.dataset import Dataset, file_sha256, open_dataset
from ddsp.training import loop
from experiments import quiet
from experiments.run import training
from experiments.run.training import train_run
from experiments.run.watchers import LastMetrics
from experiments.tracking import mlflow_model, registry, store
from experiments.tracking.tracker import dataset_row


@pytest.fixture(scope='module')
def trained(tmp_path_factory, dataset, empty_database, tiny):
    """A tiny training with its store: (working directory, result)."""
    folder = tmp_path_factory.mktemp('trained')
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.delenv('MLFLOW_TRACKING_URI', raising=False)
        (folder / 'mlflow.db').write_bytes(empty_database.read_bytes())
        patch.setattr(loop, '_DEAD_DB', 1000.0)  # any level counts as dead
        told: list[str] = []
        with quiet.terminal():
            quiet.load_keras()
            result = train_run(
                dataset, gin_params=tiny, save_dir='run', experiment='tones', num_steps=4, batch_size=2,
                register_as='tones', warn=told.append,
            )  # fmt: skip
        (folder / 'told.txt').write_text('\n'.join(told))
    return folder, result


@pytest.fixture
def there(trained, monkeypatch):
    """Works in the directory of the training."""
    folder, result = trained
    monkeypatch.chdir(folder)
    monkeypatch.delenv('MLFLOW_TRACKING_URI', raising=False)
    return folder, result


def test_run_contract(there, dataset):
    _folder, result = there
    client = store.client()
    run = client.get_run(result.run_id)
    assert run.info.status == 'FINISHED'
    assert run.info.run_name == 'run'
    sizes = {f'losses/spectral_loss_{size}' for size in (2048, 1024, 512, 256, 128, 64)}
    expected = sizes | {
        'losses/total_loss', 'losses/spectral_loss', 'eval/loudness_l1_db', 'eval/f0_l1_midi',
        'eval/f0_outlier_ratio',
        'eval/spectral_loss', 'speed/steps_per_sec', 'speed/audio_secs_per_sec', 'optimizer/learning_rate',
        'optimizer/gradient_norm', 'energy/harmonic_db', 'energy/noise_db', 'speed/data_wait_share',
    }  # fmt: skip
    assert expected <= set(run.data.metrics)
    assert [point.step for point in client.get_metric_history(result.run_id, 'losses/total_loss')] == [2, 4]
    held_out = client.get_metric_history(result.run_id, 'held_out/spectral_loss')
    assert [point.step for point in held_out] == [0, 4]  # however short the training was
    assert result.metrics['held_out/spectral_loss'] == held_out[-1].value
    assert run.data.params['train.batch_size'] == '2'
    assert run.data.params['RnnFcDecoder.ch'] == '16'
    assert run.data.params['Trainer.learning_rate'] == run.data.params['learning_rate'] == '0.002'
    assert run.data.tags['ddsp.code_clean'] in ('true', 'false')
    assert re.fullmatch('[0-9a-f]{40}', run.data.tags['mlflow.source.git.commit'])
    (data,) = run.inputs.dataset_inputs
    manifest = json.loads((dataset / 'MANIFEST.json').read_text())
    assert data.dataset.name == f'tones/{manifest["version"]}'
    assert run.data.tags['ddsp.dataset_digest'].startswith(data.dataset.digest)
    profile = json.loads(data.dataset.profile)
    assert profile['fingerprint'] == manifest['fingerprint']
    assert profile['statistics']['train']['examples'] == profile['splits']['train']


def test_what_goes_wrong_in_a_training_is_told(there):
    told = (there[0] / 'told.txt').read_text().splitlines()
    assert told[-1].startswith('step 4: dead harmonics')


def test_artefacts(there):
    _, result = there
    client = store.client()
    assert {entry.path for entry in client.list_artifacts(result.run_id)} == {
        'config', 'evaluation', 'images', 'listen.html', 'media',
    }  # fmt: skip
    names = {pathlib.Path(entry.path).name for entry in client.list_artifacts(result.run_id, 'media')}
    for part in ('target.wav', 'synthesized.wav', 'spectrogram.png', 'features.png'):
        assert f'example_000_{part}' in names
    steps = {pathlib.Path(entry.path).name for entry in client.list_artifacts(result.run_id, 'media/steps')}
    assert {'target.wav', 'step_0000000.wav'} <= steps
    path = client.download_artifacts(result.run_id, 'media/example_000_synthesized.wav')
    audio, rate = soundfile.read(path)
    assert rate == 16000
    assert len(audio) == 16000
    page = pathlib.Path(client.download_artifacts(result.run_id, 'listen.html')).read_text()
    assert page.count('<audio') >= 2
    assert result.run_id in page


def test_training_folder(there):
    folder, result = there
    names = {path.name for path in (folder / 'run').iterdir()}
    assert {'checkpoint', 'run.json', 'bundle', 'media', 'operative_config-4.gin'} <= names
    assert json.loads((folder / 'run' / 'run.json').read_text())['run_id'] == result.run_id
    metadata = json.loads((result.bundle / 'metadata.json').read_text())
    assert metadata['metrics']['eval/spectral_loss'] == result.metrics['eval/spectral_loss']


def test_the_model_is_an_mlflow_model_audio_in_audio_out(there):
    import mlflow

    _, _result = there
    model = mlflow.pyfunc.load_model('models:/tones/1')
    assert model.metadata.get_input_schema().input_names() == ['audio']
    example = model.input_example
    assert example['audio'].shape == (1, 16000)
    with quiet.terminal():
        made = model.predict(example)
    assert made['audio'].shape == (1, 16000)
    assert np.isfinite(made['audio']).all()
    folder = registry.resolve_bundle('models:/tones/1')
    assert {path.name for path in folder.iterdir()} >= {
        'MLmodel',
        'config.gin',
        'weights.weights.h5',
        'metadata.json',
    }


def test_addresses_of_the_model(there):
    _folder, result = there
    run_id = result.run_id
    assert registry.resolve_bundle('run') == pathlib.Path('run/bundle')
    assert registry.resolve_bundle(result.bundle) == result.bundle
    logged = registry.resolve_bundle('models:/tones/1')
    for address in (run_id, run_id[:8], f'runs:/{run_id}', f'runs:/{run_id}/bundle'):
        assert registry.resolve_bundle(address) == logged
    same = (logged / 'weights.weights.h5').read_bytes() == (result.bundle / 'weights.weights.h5').read_bytes()
    assert same


@pytest.mark.parametrize(
    ('address', 'message'),
    [
        ('models:/tones@nobody', 'models:/tones@nobody: no model there'),
        ('models:/nothing/1', 'models:/nothing/1: no model there'),
        ('runs:/0123456789abcdef0123456789abcdef', 'no run 0123456789abcdef0123456789abcdef'),
        ('./nowhere', './nowhere: no such directory.'),
        ('run/media', 'run/media holds no model bundle: there is no metadata.json in it'),
    ],
)
def test_addresses_that_lead_nowhere(there, address, message):
    with pytest.raises((registry.ModelNotFoundError, store.TrackingError)) as error:
        registry.resolve_bundle(address)
    assert message in str(error.value)


def test_promote(there, ddsp):
    _, result = there
    status, out, err = ddsp('promote', result.run_id[:8], '--name', 'tones')
    assert (status, err) == (0, '')
    assert out == 'tones version 1 is now models:/tones@champion\n'
    assert registry.resolve_bundle('models:/tones@champion').is_dir()
    assert store.client().get_model_version_by_alias('tones', 'champion').run_id == result.run_id


def test_the_champion_changes_by_a_metric(there, ddsp):
    _, result = there
    client = store.client()
    run = client.get_run(result.run_id)
    other = client.create_run(run.info.experiment_id, run_name='worse').info.run_id
    mlflow_model.log_bundle(client, other, result.bundle)
    best = ('promote', '--experiment', 'tones', '--name', 'ranked', '--json')
    client.log_metric(other, 'eval/spectral_loss', 2 * result.metrics['eval/spectral_loss'])
    try:
        made = json.loads(ddsp('promote', 'worse', '--name', 'ranked', '--if-better', '--json')[1])
        assert (made['version'], made['moved']) == (1, True)  # there was none
        assert json.loads(ddsp(*best, '--if-better')[1])['moved']
        assert client.get_model_version_by_alias('ranked', 'champion').run_id == result.run_id
        status, out, err = ddsp('promote', 'worse', '--name', 'ranked', '--if-better')
        assert (status, err) == (0, '')
        assert out == 'ranked version 2 stays models:/ranked@champion: its eval/spectral_loss is not worse\n'
        status, _, err = ddsp('promote', 'worse', '--name', 'ranked', '--if-better', '--metric', 'eval/x')
        assert status == 1
        assert "the run worse has no metric 'eval/x'; it has: eval/spectral_loss." in err
        assert "no run of 'tones' that matches has the metric" in ddsp(*best, '--metric', 'eval/x')[2]
        assert 'give a run, or --experiment.' in ddsp('promote')[2]
    finally:
        client.delete_run(other)  # the other tests count runs


def test_a_finished_training_called_again_stays_one_run_with_one_model(there, dataset, ddsp, tiny):
    _, result = there
    parameters = [word for binding in tiny for word in ('--gin-param', binding)]
    status, out, err = ddsp(
        'train', dataset, *parameters, '--save-dir', 'run', '--experiment', 'tones', '--steps', 4,
        '--batch-size', 2, '--no-evaluate', '--json',
    )  # fmt: skip
    assert status == 0
    assert all(line.startswith('Warning: the split') for line in err.splitlines())
    assert json.loads(out)['run_id'] == result.run_id
    client = store.client()
    assert len(store.search(client, experiments=['tones'])) == 1
    assert len(client.get_run(result.run_id).outputs.model_outputs) == 1
    for name in ('losses/total_loss', 'held_out/spectral_loss'):
        steps = [point.step for point in client.get_metric_history(result.run_id, name)]
        assert steps[-1] == 4
        assert steps == sorted(set(steps))


def test_transfer_evaluate_and_export_commands(there, dataset, ddsp, tmp_path):
    source = tmp_path / 'in.wav'
    soundfile.write(source, 0.3 * np.sin(2 * np.pi * 330 * np.arange(22050) / 22050), 22050)
    made = tmp_path / 'out.wav'
    status, out, err = ddsp(
        'transfer', source, '--model', 'run', '--output', made, '--pitch-shift', '3', '--json'
    )
    assert (status, err) == (0, '')
    assert json.loads(out)['pitch_shift_semitones'] == 3
    assert soundfile.info(made).samplerate == 16000
    assert soundfile.info(made).duration == pytest.approx(1.0, abs=0.01)

    status, out, err = ddsp('evaluate', 'run', dataset, '--limit', '1', '--output', tmp_path / 'heard')
    assert (status, err) == (0, '')
    assert 'eval/spectral_loss' in out
    assert (tmp_path / 'heard' / 'listen.html').is_file()

    room = tmp_path / 'room.wav'
    status, out, err = ddsp('export', 'run', '--format', 'impulse-response', '--output', room)
    assert (status, err) == (0, '')
    assert soundfile.info(room).frames == 400


def test_an_output_is_never_an_input(there, dataset, ddsp, tmp_path):
    source = tmp_path / 'in.wav'
    soundfile.write(source, 0.3 * np.sin(2 * np.pi * 330 * np.arange(22050) / 22050), 22050)
    before = source.read_bytes()
    (tmp_path / 'folder').mkdir()
    (tmp_path / 'link.wav').symlink_to(source)
    os.link(source, tmp_path / 'hard.wav')
    outputs = [source, tmp_path / 'folder' / '..' / 'in.wav', tmp_path / 'link.wav', tmp_path / 'hard.wav']
    for output in [*outputs, os.path.relpath(source)]:
        status, out, err = ddsp('transfer', source, '--model', 'run', '--output', output)
        assert (status, out) == (1, '')
        assert err == f'Error: the output {output} is the input {source}. Give another output.\n'
        status, out, err = ddsp('transfer', output, '--model', 'run', '--output', source)
        assert (status, out) == (1, '')
        assert 'Give another output.' in err
    assert source.read_bytes() == before
    bundle = {path: path.read_bytes() for path in pathlib.Path('run/bundle').iterdir()}
    commands = [
        ('transfer', source, '--model', 'run'),
        ('export', 'run', '--format', 'impulse-response'),
        ('export', 'run', '--format', 'saved-model'),
        ('evaluate', 'run', 'DATASET'),
    ]
    for command in commands:
        output = 'run/bundle/new' if command[0] == 'evaluate' else 'run/bundle/weights.weights.h5'
        arguments = [dataset if word == 'DATASET' else word for word in command]
        status, out, err = ddsp(*arguments, '--output', output)
        assert (status, out) == (1, '')
        assert f'the output {output} lies in the input run/bundle' in err
    assert {path: path.read_bytes() for path in pathlib.Path('run/bundle').iterdir()} == bundle


@pytest.fixture
def foreign(there, tmp_path, monkeypatch):
    """A bundle from elsewhere that would run code: (its folder, the file that the code would make)."""
    canary = tmp_path / 'canary'
    (tmp_path / 'evil_module.py').write_text(f'open({str(canary)!r}, "w").close()\n')
    monkeypatch.syspath_prepend(str(tmp_path))
    folder = shutil.copytree(there[1].bundle, tmp_path / 'bundle')
    text = (folder / 'config.gin').read_text()
    (folder / 'config.gin').write_text(f'import evil_module\n{text}')
    metadata = bundle_files.read_metadata(folder)
    metadata['sha256']['config.gin'] = file_sha256(folder / 'config.gin')
    bundle_files.write_metadata(folder, metadata)
    return folder, canary


def test_no_command_runs_what_is_in_a_bundle(foreign, dataset, ddsp, tmp_path):
    folder, canary = foreign
    source = tmp_path / 'in.wav'
    soundfile.write(source, np.zeros(16000), 16000)
    for command in [
        ('transfer', source, '--model', folder, '--output', tmp_path / 'x.wav'),
        ('evaluate', folder, dataset),
        ('export', folder, '--format', 'impulse-response', '--output', tmp_path / 'x.wav'),
        ('export', folder, '--format', 'saved-model', '--output', tmp_path / 'x'),
    ]:
        status, out, err = ddsp(*command)
        assert (status, out) == (1, '')
        assert err.startswith(f'Error: {folder}/config.gin, line 1: `import evil_module` would run code.')
    assert not canary.exists()
    assert not (tmp_path / 'x.wav').exists()


def test_mlflow_gets_no_code_from_a_bundle(foreign, tmp_path):
    import mlflow
    from mlflow.models import Model

    folder, canary = foreign
    (tmp_path / 'secret').write_text('secret')
    (folder / 'extra').symlink_to(tmp_path / 'secret')
    (folder / 'code').mkdir()
    (folder / 'code' / 'evil_module.py').write_text('')
    mlflow_model.save_model(str(tmp_path / 'model'), Model(), folder)
    assert {path.name for path in (tmp_path / 'model').iterdir()} == {
        'MLmodel', 'config.gin', 'input_example.json', 'metadata.json', 'python_env.yaml', 'requirements.txt',
        'serving_input_example.json', 'statistics.json', 'weights.weights.h5',
    }  # fmt: skip
    with pytest.raises(DDSPError, match='`import evil_module` would run code'):
        mlflow.pyfunc.load_model(str(tmp_path / 'model'))
    assert not canary.exists()


@pytest.mark.parametrize('name', ['../../outside', '/tmp/outside', '..'])
def test_a_server_names_no_folder_outside_the_cache(there, tmp_path, monkeypatch, name):
    import types

    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
    model = types.SimpleNamespace(artifact_location='mlflow-artifacts:/x')
    client = types.SimpleNamespace(get_logged_model=lambda _: model)
    with pytest.raises(DDSPError, match=r'the tracking server names .* not a file name inside'):
        registry._local_copy(client, name)


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['train', 'nowhere'], 'no dataset at nowhere: there is no such folder. `ddsp prepare` makes one.'),
        (['train', '{dataset}', '--gin-param', 'Trainer.lerning_rate = 1'], "did you mean 'learning_rate'?"),
        (
            ['train', '{dataset}', '--save-dir', 'run', '--seed', '7'],
            'or add --restart, which moves the folder aside and begins anew.',
        ),
        (
            ['train', '{dataset}', '--gin-param', 'train.batch_size = 0'],
            'train.batch_size is 0; it must be a whole number of at least 1',
        ),
        (
            ['train', '{dataset}', '--gin-param', 'train.steps_per_save = 0'],
            'train.steps_per_save is 0; it must be a whole number of at least 1',
        ),
        (
            ['train', '{dataset}', '--gin-param', 'size = 0.5', '--gin-param', 'train.batch_size = %size'],
            'train.batch_size is 0.5; it must be',
        ),
        (['train', '{dataset}', '--gin-file', '{dataset}'], 'is a folder; --gin-file needs a file'),
        (['evaluate', 'run', '{dataset}', '--split', 'tset'], "no split 'tset'; its splits are test, train."),
        (['evaluate', 'run', 'nowhere'], 'no dataset at nowhere'),
        (['transfer', 'no.wav', '--model', 'run', '--output', 'x.wav'], 'no.wav'),
        (['export', './none', '--format', 'saved-model', '--output', 'x'], './none: no such directory.'),
    ],
)
def test_messages(there, dataset, ddsp, arguments, message):
    status, out, err = ddsp(*(str(dataset) if word == '{dataset}' else word for word in arguments))
    assert (status, out) == (1, '')
    assert err.startswith('Error: ')
    assert message in err
    assert 'Traceback' not in err


@pytest.mark.parametrize(
    ('option', 'value', 'message'),
    [
        ('--preset', 'labtop', "'labtop' is not one of laptop. Did you mean 'laptop'?"),
        ('--seed', str(10**30), '4294967295'),
        ('--strategy', 'gpu', "'gpu' is not one of auto, default, mirrored, multi_worker, tpu."),
    ],
)
def test_an_option_out_of_its_range_is_refused_by_its_name(dataset, ddsp, option, value, message):
    status, out, err = ddsp('train', str(dataset), option, value)
    assert (status, out) == (2, '')
    assert f"ddsp train: Invalid value for '{option}': " in err
    assert message in err


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'seed': 2**32}, 'seed is 4294967296; it must be a whole number from 0 to 4294967295'),
        ({'strategy': 'gpu'}, "strategy is 'gpu'; it must be one of auto, default, mirrored"),
    ],
)
def test_values_that_a_training_does_not_take(dataset, options, message, tmp_path):
    with pytest.raises(ConfigError, match=re.escape(message)):
        train_run(dataset, save_dir=tmp_path / 'run', **options)
    assert not (tmp_path / 'run').exists()


@pytest.mark.parametrize('command', ['train', 'sweep'])
def test_a_backend_that_trains_nothing_is_refused_before_it_is_imported(dataset, ddsp, monkeypatch, command):
    monkeypatch.setenv('KERAS_BACKEND', 'torch')
    words = ('train', dataset) if command == 'train' else ('sweep', 'none.yaml', dataset)
    status, out, err = ddsp(*words)
    assert (status, out) == (1, '')
    assert err.startswith("Error: KERAS_BACKEND is 'torch'; trainings run on tensorflow or jax.")


def test_a_folder_in_which_another_training_runs_is_refused(there, dataset, ddsp, tiny):
    folder, _ = there
    before = sorted(path.name for path in (folder / 'run').iterdir())
    holder = subprocess.Popen(
        [sys.executable, '-c', 'import sys, fcntl; file = open(sys.argv[1], "a"); '
         'fcntl.flock(file, fcntl.LOCK_EX); print("held", flush=True); sys.stdin.read()',
         folder / 'run' / '.lock'], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    try:
        assert holder.stdout.readline() == b'held\n'
        status, out, err = ddsp('train', dataset, '--save-dir', 'run', '--restart')
        assert (status, out) == (1, '')
        assert err.splitlines()[-1] == (
            'Error: run belongs to a training that is running. Wait for its end, or give another --save-dir.'
        )
    finally:
        holder.communicate(b'')
    assert sorted(path.name for path in (folder / 'run').iterdir()) == before


def test_a_typo_does_not_lock_a_folder_and_a_crash_leaves_a_log(there, dataset, ddsp, tiny, tmp_path):
    parameters = [word for binding in tiny for word in ('--gin-param', binding)]
    command = ('train', dataset, '--save-dir', tmp_path / 'typo', '--steps', 1, '--batch-size', 2, '--json')
    status, _, err = ddsp(*command, *parameters, '--no-evaluate', '--gin-param', "RnnFcDecoder.ch = 'x'")
    assert (status, err) == (1, "Error: configuration: RnnFcDecoder.ch is 'x'; it must be of type int\n")
    assert not (tmp_path / 'typo').exists()
    status, _, err = ddsp(*command, *parameters, '--no-evaluate', '--gin-param', 'Reverb.reverb_length = -5')
    assert status == 1
    (log,) = (tmp_path / 'typo').glob('crash-*.log')
    assert 'Traceback (most recent call last)' in log.read_text()
    assert 'Reverb.reverb_length = -5' in log.read_text()
    first = store.run_id_of(tmp_path / 'typo')
    status, out, err = ddsp(*command, *parameters, '--no-evaluate')
    assert status == 0, err
    (aside,) = tmp_path.glob('typo.before-*')
    assert f'Warning: what lay in {tmp_path / "typo"} is in {aside} now.' in err
    assert (aside / log.name).exists()
    assert store.run_id_of(aside) == first != json.loads(out)['run_id']


@pytest.mark.parametrize(
    ('strategy', 'worker', 'chief'),
    [('multi_worker', '0', True), ('multi_worker', '1', False), ('auto', '1', True)],
)
def test_who_speaks_for_all_workers_is_known_before_they_meet(monkeypatch, strategy, worker, chief):
    monkeypatch.delenv('TF_CONFIG', raising=False)
    slurm = {'NTASKS': '2', 'PROCID': worker, 'STEP_NODELIST': 'node', 'STEP_TASKS_PER_NODE': '2'}
    for name, value in slurm.items():
        monkeypatch.setenv(f'SLURM_{name}', value)
    assert training._is_chief(strategy) == chief


def test_folders_are_on_a_disk(there, dataset, ddsp, tmp_path):
    (tmp_path / 'rates.yaml').write_text('parameters: {Trainer.learning_rate: [0.001, 0.002]}')
    for command in (('train', dataset), ('sweep', tmp_path / 'rates.yaml', dataset)):
        status, out, err = ddsp(*command, '--save-dir', 'gs://bucket/run')
        assert (status, out) == (1, '')
        assert err == (
            'Error: --save-dir gs://bucket/run: checkpoints that are replaced at once, and what waits for '
            'MLflow, need a disk. Give a folder of this machine or one that is mounted.\n'
        )


def test_the_settings_name_a_dataset_by_its_address(dataset, tmp_path):
    """Of a dataset on gs:// there is a copy on this machine, which another machine does not have."""
    here = open_dataset(dataset)
    copied = Dataset(here.path, here.manifest, 'gs://bucket/tones/1.0.0')
    for data, address in ((copied, copied.address), (here, str(dataset.resolve()))):
        assert training._settings(data, ['presets/laptop.gin'], [])[1] == {'dataset_address': address}
        assert dataset_row(data)['path'] == data.address


def test_a_finished_training_knows_its_figures_from_its_journal(there):
    folder, result = there
    last = LastMetrics(folder / 'run')
    last.on_train_begin(start_step=4, num_steps=4, save_dir='', gin_config='')
    trained = {name for name in result.metrics if not name.startswith('eval/')}
    assert {name: result.metrics[name] for name in trained} == last.metrics
    assert [step for step, _ in last.losses['losses/total_loss']] == [2, 4]
    assert (last.step, last.held_out_step) == (4, 4)
    earlier = LastMetrics(folder / 'run')
    earlier.on_train_begin(start_step=2, num_steps=4, save_dir='', gin_config='')
    assert [step for step, _ in earlier.losses['losses/total_loss']] == [2]
    assert earlier.held_out_step == 0


def test_a_folder_that_cannot_be_written(there, dataset, ddsp):
    status, _, err = ddsp('train', dataset, '--save-dir', '/proc/nowhere/run')
    assert status == 1
    assert err.splitlines()[-1].startswith('Error: /proc/nowhere')


def test_requirements_name_versions():
    lines = mlflow_model.requirements()
    assert all('==' in line for line in lines)
    assert any(line.startswith('tensorflow==') for line in lines)
