"""`ddsp_prepare_tfrecord`: upstream's flags in, records out that upstream's provider reads."""

import numpy as np
import pytest

from ddsp.errors import ConfigError
from ddsp.f0 import estimate_f0
from ddsp.io.audio import load_audio
from pipelines.prepare_tfrecord import console_entry_point, prepare_tfrecord
from pipelines.records import read_examples


def files(folder):
    return sorted(path.name for path in folder.iterdir())


def test_the_command_of_the_notebooks(folder, tmp_path, capsys):
    status = console_entry_point([
        f'--input_audio_filepatterns={folder}/note_0.wav,{folder}/note_[12].wav',
        f'--output_tfrecord_path={tmp_path}/train.tfrecord', '--num_shards=2', '--sample_rate=16000',
        '--frame_rate=250', '--example_secs=4.0', '--hop_secs=1.0', '--alsologtostderr',
    ])  # fmt: skip
    assert status == 0
    assert 'train: 9 examples, 18.0 s of audio' in capsys.readouterr().out
    assert files(tmp_path) == ['train.tfrecord-00000-of-00002', 'train.tfrecord-00001-of-00002']
    examples = [example for path in sorted(tmp_path.iterdir()) for example in read_examples(path)]
    assert len(examples) == 9
    lengths = {name: len(values) for name, values in examples[0].items()}
    assert lengths == {
        'audio': 64000, 'audio_16k': 64000, 'f0_hz': 1000, 'f0_confidence': 1000, 'loudness_db': 1000,
    }  # fmt: skip
    # Frames begin at their time, as upstream's do.
    audio = load_audio(folder / 'note_0.wav')
    f0_hz, _ = estimate_f0(audio, 16000, 250, 'auto', alignment='start')
    (same,) = [e for e in examples if np.array_equal(e['audio'], audio[:64000])]
    assert np.median(np.abs(1200 * np.log2(same['f0_hz'] / f0_hz[:1000]))) < 1


def test_centred_examples_and_an_evaluation_split(folder, tmp_path):
    result = prepare_tfrecord(
        [str(folder)], tmp_path / 'x.tfrecord', frame_rate=50, eval_split_fraction=0.3, center=True
    )
    names = files(tmp_path)
    assert {name.split('-0')[0] for name in names} == {'x.tfrecord-train', 'x.tfrecord-eval'}
    found = [e for name in names for e in read_examples(tmp_path / name)]
    assert len(found) == sum(result.examples.values()) == 18
    assert {len(example['f0_hz']) for example in found} == {201}


def test_files_of_an_earlier_call_do_not_stay_beside_the_new_ones(folder, tmp_path):
    """A pattern such as train.tfrecord* would find every example twice."""
    for name in ('train.tfrecord', 'train.tfrecord.bak', 'other.tfrecord-00000-of-00003', 'train.tfrecord-x'):
        (tmp_path / name).write_text('mine')

    def prepare(**options):
        result = prepare_tfrecord(
            [str(folder / 'note_[0-3].wav')], tmp_path / 'train.tfrecord', f0='yin', **options
        )
        found = [path for path in sorted(tmp_path.glob('train.tfrecord-*')) if path.read_bytes() != b'mine']
        assert sum(1 for path in found for _ in read_examples(path)) == sum(result.examples.values()) == 12
        return [path.name.removeprefix('train.tfrecord-') for path in found]

    assert prepare(num_shards=3) == [f'0000{i}-of-00003' for i in range(3)]
    assert prepare(num_shards=2) == [f'0000{i}-of-00002' for i in range(2)]
    split = prepare(num_shards=1, eval_split_fraction=0.25)
    assert split == ['eval-00000-of-00001', 'train-00000-of-00001']
    assert prepare(num_shards=1) == ['00000-of-00001']
    assert sorted(path.name for path in tmp_path.iterdir() if path.read_bytes() == b'mine') == [
        'other.tfrecord-00000-of-00003', 'train.tfrecord', 'train.tfrecord-x', 'train.tfrecord.bak',
    ]  # fmt: skip


def test_what_cannot_be_is_said(folder, tmp_path, capsys):
    with pytest.raises(ConfigError, match=r'pipeline_options has .--runner=DataflowRunner.; understood are'):
        prepare_tfrecord([str(folder)], tmp_path / 'x', pipeline_options=['--runner=DataflowRunner'])
    with pytest.raises(ConfigError, match=r"output_tfrecord_path is ''"):
        prepare_tfrecord([str(folder)], '')
    with pytest.raises(ConfigError, match=r'eval_split_fraction is 1.5'):
        prepare_tfrecord([str(folder)], tmp_path / 'x', eval_split_fraction=1.5)
    arguments = ['--input_audio_filepatterns', '/nowhere/*', f'--output_tfrecord_path={tmp_path}/x']
    assert console_entry_point(arguments) == 1
    assert "Error: the pattern '/nowhere/*' matches no file." in capsys.readouterr().err
    with pytest.raises(SystemExit) as end:
        console_entry_point([*arguments, '--hop_sec=1'])
    assert end.value.code == 2
