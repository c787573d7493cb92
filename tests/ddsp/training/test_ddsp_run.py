"""`ddsp_run`: upstream's flags and order of configurations; a training, its evaluation, its sound."""

import json

import gin
import pytest
import soundfile

from ddsp.errors import ConfigError, DDSPError
from ddsp.training import config
from ddsp.training.ddsp_run import configure, console_entry_point, parse_flags

SMALL = [
    'RnnFcDecoder.rnn_channels = 16', 'RnnFcDecoder.ch = 16', 'RnnFcDecoder.layers_per_stack = 1',
    'SpectralLoss.fft_sizes = (512, 128)', 'Reverb.reverb_length = 400',
    'F0LoudnessPreprocessor.time_steps = 250',
    'Harmonic.n_samples = 16000', 'FilteredNoise.n_samples = 16000', 'TFRecordProvider.example_secs = 1',
    'batch_size = 2', 'train_util.train.num_steps = 4', 'train_util.train.steps_per_save = 2',
    'train_util.train.steps_per_summary = 2', 'trainers.Trainer.checkpoints_to_keep = 10',
]  # fmt: skip


@pytest.fixture(autouse=True)
def own_config():
    """A configuration that ends with the test."""
    with config.isolated():
        yield


def test_train_evaluate_and_sample_as_upstreams_users_do(tone_dataset, tmp_path, capsys):
    save_dir = tmp_path / 'run'
    pattern = f'{tone_dataset.path}/tones-train.tfrecord*'
    gin_flags = [f'--gin_param={line}' for line in SMALL]
    data = ['--gin_file=datasets/tfrecord.gin', f"--gin_param=TFRecordProvider.file_pattern='{pattern}'"]
    train = [f'--save_dir={save_dir}', '--gin_file=models/solo_instrument.gin', *data, *gin_flags]
    assert console_entry_point(['--mode=train', '--alsologtostderr', *train]) == 0
    out = capsys.readouterr().out
    assert 'step 2: ' in out
    assert 'step 4: ' in out
    assert 'total_loss=' in out
    assert (save_dir / 'operative_config-4.gin').exists()
    # The model comes from the operative configuration of the run; only the data is named again.
    data += ['--gin_param=evaluate.batch_size = 2', '--gin_param=evaluate.num_batches = 1']
    assert console_entry_point(['--mode=eval', f'--save_dir={save_dir}', *data, '--run_once']) == 0
    printed = capsys.readouterr().out
    content = json.loads((save_dir / 'eval' / 'metrics-4.json').read_text())
    assert content['step'] == 4
    assert f'losses/total_loss: {content["losses/total_loss"]:.6g}' in printed
    assert console_entry_point(['--mode', 'sample', f'--save_dir={save_dir}', *data, '--run_once=true']) == 0
    audio, rate = soundfile.read(save_dir / 'samples' / '4-0-generated.wav')
    assert (len(audio), rate) == (16000, 16000)
    # The same command goes on: there is nothing left to do.
    assert console_entry_point(train) == 0
    assert 'step' not in capsys.readouterr().out


def test_later_configurations_win(tmp_path):
    (tmp_path / 'operative_config-7.gin').write_text(
        'Trainer.learning_rate = 0.5\nTrainer.grad_clip_norm = 9.0\n'
    )
    (tmp_path / 'my.gin').write_text('Trainer.grad_clip_norm = 1.0\n')
    flags = [f'--save_dir={tmp_path}', '--gin_search_path', str(tmp_path), '--gin_file=my.gin']
    configure(parse_flags([*flags, '--gin_file=datasets/tfrecord.gin']))
    assert gin.query_parameter('Trainer.learning_rate') == 0.5
    assert gin.query_parameter('Trainer.grad_clip_norm') == 1.0
    assert gin.query_parameter('train.steps_per_save') == 300  # of optimization/base.gin
    assert gin.query_parameter('%evaluators')


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['--gin_param=Trainer.learning_rat = 1'], 'learning_rate'),
        (['--hypertune'], '--hypertune is not supported'),
        (
            ['--mode=eval', '--save_dir=/nowhere/run', '--gin_file=models/ae.gin'],
            'has no evaluate.data_provider: add --gin_file=datasets',
        ),
    ],
)
def test_errors_are_one_message(arguments, message, capsys):
    assert console_entry_point(arguments) == 1
    err = capsys.readouterr().err
    assert err.startswith('Error: ')
    assert message in err


@pytest.mark.parametrize(
    ('arguments', 'value'),
    [([], False), (['--run_once'], True), (['--norun_once'], False), (['--run_once=false'], False)],
)
def test_switches_are_read_as_absl_reads_them(arguments, value):
    assert parse_flags(arguments).run_once is value


@pytest.fixture
def canary(tmp_path, monkeypatch):
    """A file that `evil_module`, which can be imported, would make."""
    import sys

    path = tmp_path / 'canary'
    (tmp_path / 'evil_module.py').write_text(
        f'open({str(path)!r}, "w").close()\ndef call(*args): open({str(path)!r}, "w")\n'
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    yield path
    sys.modules.pop('evil_module', None)


@pytest.mark.parametrize(
    ('text', 'left_out'),
    [
        ('import evil_module', 'line 2: `import evil_module` would run code'),
        ('from __gin__ import dynamic_registration\nimport evil_module\n'
         'Harmonic.scale_fn = @evil_module.call()',
         "line 4: there is no 'evil_module.call'"),
        ("include 'secret.gin'", 'line 2: `include` would read another file'),
        ("include '/etc/passwd'", 'line 2: `include` would read another file'),
        ('Autoencoder.encoder = @hidden()\nhidden = @tf.keras.layers.TFSMLayer()', 'not a part of a model'),
        ("Dense.kernel_initializer = {'module': 'evil_module', 'class_name': 'call'}", 'a dictionary'),
    ],
)  # fmt: skip
def test_a_folder_runs_no_code(canary, tmp_path, capsys, text, left_out):
    """Whoever filled it: the plain settings count, the rest is named and left out."""
    folder = tmp_path / 'run'
    folder.mkdir()
    (folder / 'secret.gin').write_text('secret_password_line\n')
    (folder / 'operative_config-7.gin').write_text(f'Trainer.learning_rate = 0.5\n{text}\n')
    configure(parse_flags([f'--save_dir={folder}', '--gin_file=datasets/tfrecord.gin']))
    assert gin.query_parameter('Trainer.learning_rate') == 0.5
    assert not canary.exists()
    err = capsys.readouterr().err
    assert f'Note: not read from {folder}/operative_config-7.gin, ' in err
    assert left_out in err
    assert 'secret_password' not in err


def test_a_folder_does_not_choose_the_data(tmp_path, capsys):
    (tmp_path / 'operative_config-7.gin').write_text(
        "train.data_provider = @data.TFRecordProvider()\nTFRecordProvider.file_pattern = '/secret/*'\n"
        'TFRecordProvider.example_secs = 3\n'
        'evaluators = [@evaluators.F0LdEvaluator]\nevaluate.evaluator_classes = %evaluators\n'
    )
    with pytest.raises(ConfigError, match=r'no train\.data_provider: add --gin_file=datasets'):
        configure(parse_flags([f'--save_dir={tmp_path}']))
    configure(parse_flags([f'--save_dir={tmp_path}', '--gin_file=datasets/tfrecord.gin']))
    assert not config.is_bound('TFRecordProvider.file_pattern')
    assert gin.query_parameter('TFRecordProvider.example_secs') == 3
    assert capsys.readouterr().err == ''  # every folder has such lines


def test_a_link_in_a_folder_is_not_followed(tmp_path):
    (tmp_path / 'run').mkdir()
    (tmp_path / 'secret').write_text('secret password')
    (tmp_path / 'run' / 'operative_config-7.gin').symlink_to(tmp_path / 'secret')
    with pytest.raises(DDSPError, match='a link that leaves'):
        configure(parse_flags([f'--save_dir={tmp_path / "run"}']))


def test_nothing_lies_in_a_shared_folder_by_default(tmp_path, monkeypatch):
    import inspect
    import pathlib
    import tempfile

    from ddsp.training import eval_util, train_util

    monkeypatch.chdir(tmp_path)
    folders = [parse_flags([]).save_dir]
    for function in (train_util.train, eval_util.evaluate, eval_util.sample, eval_util.evaluate_or_sample):
        found = inspect.signature(inspect.unwrap(function)).parameters
        folders += [found[name].default for name in ('save_dir', 'restore_dir') if found[name].default]
    assert len(folders) >= 6
    for folder in folders:
        assert not pathlib.Path(folder).is_absolute()
        assert not folder.startswith(tempfile.gettempdir())
