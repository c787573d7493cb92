"""`ddsp_run`: upstream's flags and order of configurations; a training, its evaluation, its sound."""

import json

import gin
import pytest
import soundfile

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
