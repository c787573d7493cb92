"""What cannot be prepared: inputs, options, disks; each is named and explained, and the rest goes on."""

import errno
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest

from ddsp.errors import ConfigError, DDSPError
from ddsp.io.audio import load_audio, write_wav
from ddsp.io.dataset import DatasetError, open_dataset
from pipelines import PrepareOptions, prepare_dataset
from pipelines.publish import decision
from pipelines.records import RecordWriter

QUICK = PrepareOptions(f0='yin', workers=1, num_shards=2)


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_bad_inputs_are_isolated_counted_and_explained(tmp_path, folder):
    inputs = tmp_path / 'in'
    shutil.copytree(folder, inputs)
    (inputs / 'text.wav').write_text('no audio')
    (inputs / 'empty.wav').write_bytes(b'')
    (inputs / 'notes.txt').write_text('no audio, and it says so')
    (inputs / '.hidden.wav').write_bytes(b'x')
    (inputs / 'deep').mkdir()
    os.symlink('..', inputs / 'deep' / 'loop')
    os.mkfifo(inputs / 'pipe.wav')
    shutil.copy(inputs / 'note_0.wav', inputs / 'twin.wav')
    write_wav(inputs / 'silent.wav', np.zeros(48000), 16000)
    write_wav(inputs / 'noise.wav', 0.1 * np.random.default_rng(0).standard_normal(48000), 16000)
    write_wav(inputs / 'blip.wav', 0.1 * np.ones(100), 16000)
    bad = load_audio(folder / 'note_1.wav')
    bad[-5] = np.nan  # found only when the examples before it are written
    import soundfile

    soundfile.write(inputs / 'nan_at_the_end.wav', bad, 16000, subtype='FLOAT')
    result = prepare_dataset(inputs, tmp_path / 'out', 'notes', options=QUICK)
    assert result.accepted == 6
    assert result.rejected == {
        'not_audio': 1, 'empty': 1, 'silent': 1, 'unpitched': 1, 'too_short': 1, 'not_finite': 1,
    }  # fmt: skip
    assert (result.duplicates, result.skipped) == (1, 4)
    shown = result.summary_rows()
    assert ('recordings', '6 used, 6 rejected') in shown
    (noise,) = [text for label, text in shown if label == 'rejected' and 'unpitched' in text]
    assert re.fullmatch(r'1 unpitched: .*noise\.wav has no pitch: 0\.0 % of its frames are voiced\.', noise)
    assert ('passed over', '4 other files') in shown
    again = prepare_dataset(inputs, tmp_path / 'out', 'notes', options=QUICK)
    assert (again.rejected, again.reasons) == (result.rejected, result.reasons)
    assert sum(result.examples.values()) == 18  # nothing of the rejected ones is left in the shards
    rows = {pathlib.Path(row['path']).name: row for row in lines(result.path / 'sources.jsonl')}
    assert rows['twin.wav']['message'].endswith('note_0.wav, which is used')
    assert rows['loop']['reason'] == 'loop'
    assert len(rows) == 6 + 6 + 1 + 4
    rejected = {pathlib.Path(row['path']).name: row for row in lines(result.path / 'rejected.jsonl')}
    assert rejected['noise.wav']['message'].endswith('has no pitch: 0.0 % of its frames are voiced.')
    open_dataset(result.path).verify()


def test_too_many_bad_inputs_fail_the_run(tmp_path, folder):
    shutil.copytree(folder, tmp_path / 'in')
    (tmp_path / 'in' / 'text.wav').write_text('no audio')
    options = PrepareOptions(f0='yin', workers=1, max_rejected=0.05)
    with pytest.raises(DDSPError, match=r'1 of 7 inputs \(14.3 %\) cannot be used and at most 5.0 %'):
        prepare_dataset(tmp_path / 'in', tmp_path / 'out', 'notes', options=options)
    with pytest.raises(DatasetError):
        open_dataset(tmp_path / 'out')


def test_a_split_left_empty_by_a_bad_recording_is_filled_again(tmp_path, folder):
    """Whichever recording the hash holds out, the others move up when it proves silent."""
    inputs = tmp_path / 'in'
    inputs.mkdir()
    for i in range(4):
        shutil.copy(folder / f'note_{i}.wav', inputs)
    first = prepare_dataset(inputs, tmp_path / 'first', 'notes', options=QUICK)
    held_out = [row['path'] for row in lines(first.path / 'sources.jsonl') if row['split'] == 'test']
    audio = {path: load_audio(path) for path in held_out}
    for path, samples in audio.items():
        write_wav(path, samples * 0, 16000)
    result = prepare_dataset(inputs, tmp_path / 'second', 'notes', options=QUICK)
    assert all(count > 0 for count in result.examples.values())
    assert result.rejected == {'silent': 1} or result.duplicates == len(held_out) - 1


def test_what_cannot_be_prepared_says_why(tmp_path, folder):
    for sources, text in [
        (tmp_path / 'none', 'none: no such file or folder'),
        (str(tmp_path / '*.wav'), r"the pattern '.*\*\.wav' matches no file"),
        ([], 'no input was named'),
        ('', 'an input is .*, which names nothing'),
        ([folder, ' '], 'an input is .*, which names nothing'),
        ('tfds:', 'tfds: names no dataset'),
        ('tfds:#train', 'tfds: names no dataset'),
        ('synthetic:1', 'seconds is 1; it must be 2 to 360000'),
        ('synthetic:99999999999999', 'seconds is 99999999999999; it must be 2 to 360000'),
        ('synthetic:', 'expected synthetic:SECONDS'),
        ('synthetic:-5', 'expected synthetic:SECONDS'),
        ('synthetic:²', 'expected synthetic:SECONDS'),
    ]:
        with pytest.raises(DDSPError, match=text):
            prepare_dataset(sources, tmp_path / 'out', 'notes', options=QUICK)
    empty = tmp_path / 'empty'
    empty.mkdir()
    with pytest.raises(DDSPError, match=r'the folder .*empty holds no audio files'):
        prepare_dataset(empty, tmp_path / 'out', 'notes', options=QUICK)
    (empty / 'readme.txt').write_text('x')
    with pytest.raises(DDSPError, match=r'1 other files were passed over, such as .*readme.txt'):
        prepare_dataset(empty, tmp_path / 'out', 'notes', options=QUICK)
    for i in range(7):
        (empty / f'{i}.wav').write_text('no audio')
    with pytest.raises(
        DDSPError, match=r'no input can be used:\n.*0\.wav is not audio.*\[not_audio\]\n(.*\n)+.*and 2 more'
    ):
        prepare_dataset(empty, tmp_path / 'out', 'notes', options=QUICK)
    (tmp_path / 'file').write_text('x')
    with pytest.raises(DDSPError, match='file/notes cannot be written: Not a directory'):
        prepare_dataset(folder, tmp_path / 'file', 'notes', options=QUICK)


def test_a_disk_that_is_too_small_is_said_before(tmp_path, folder, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=1_000_000)
    monkeypatch.setattr(decision.shutil, 'disk_usage', lambda path: usage)
    with pytest.raises(
        DDSPError, match=r'is full: about \d+ MB are needed and 1 MB are free.*same command again'
    ):
        prepare_dataset(folder, tmp_path, 'notes', options=QUICK)
    assert not list((tmp_path / 'notes' / '.staging').glob('train-*'))


def test_a_disk_that_is_full_although_the_headers_promised_room_is_said(tmp_path, folder, monkeypatch):
    """Lengths may not be known before; then a shard cannot be written."""

    def full(self, features):
        raise OSError(errno.ENOSPC, 'No space left on device')

    monkeypatch.setattr(RecordWriter, 'write', full)
    with pytest.raises(DDSPError, match=r'^the disk of .*staging is full\. Make room and run the'):
        prepare_dataset(folder, tmp_path, 'notes', options=QUICK)


@pytest.mark.parametrize('workers', [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_disk_that_fills_up_leaves_nothing_half_written(tmp_path, folder, workers):
    """The file size limit of the process stands for the disk: writing stops in the middle of a shard."""
    program = (
        'import resource, sys\n'
        'from ddsp.errors import DDSPError\n'
        'from pipelines import PrepareOptions, prepare_dataset\n'
        "if __name__ == '__main__':\n"
        '    import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n'
        '    resource.setrlimit(resource.RLIMIT_FSIZE, (600_000, resource.RLIM_INFINITY))\n'
        f"    options = PrepareOptions(f0='yin', workers={workers}, num_shards=2)\n"
        '    try:\n'
        "        prepare_dataset(sys.argv[1], sys.argv[2], 'notes', options=options)\n"
        '    except DDSPError as error:\n'
        '        print(error)\n'
    )
    done = subprocess.run(
        [sys.executable, '-c', program, folder, tmp_path], capture_output=True, text=True, check=True
    )
    assert 'cannot be written: File too large' in done.stdout
    assert done.stdout.count('\n') == 1
    assert not list((tmp_path / 'notes').glob('*/*.part'))
    result = prepare_dataset(folder, tmp_path, 'notes', options=QUICK)
    open_dataset(result.path).verify()


@pytest.mark.parametrize(
    ('arguments', 'text'),
    [
        ({'frame_rate': 1001}, 'frame_rate is 1001; it must be 32 to 1000 frames per second'),
        ({'frame_rate': 31}, 'frame_rate is 31; it must be 32 to 1000 frames per second'),
        ({'frame_rate': 1}, 'windows of loudness are 32 ms, without gaps'),
        ({'channel': 'left'}, "channel is 'left'; it must be 'mix' or a number from 0 to 63"),
        ({'channel': -1}, "channel is -1; it must be 'mix' or a number from 0 to 63"),
        ({'channel': 'ch=0'}, "channel is 'ch=0'; it must be 'mix' or a number"),
        (
            {'sample_rate': 44100, 'example_secs': 1.004},
            r'whole number of samples: 1\.004 s are 44276\.4 .*nearest are 1 s and 1\.02 s',
        ),
        (
            {'frame_rate': 300, 'hop_secs': 0.515},
            r'hop_secs must be a whole number of frames: 0\.515 s .*nearest are 0\.51 s and 0\.52 s',
        ),
        ({'sample_rate': 4000}, 'sample_rate is 4000; it must be 8000 to 96000 Hz'),
        (
            {'example_secs': 1.0001},
            r'example_secs must be a whole number of frames.*nearest are 1 s and 1.004 s',
        ),
        ({'hop_secs': 5.0}, 'hop_secs is 5.0; it must be above 0, up to example_secs'),
        ({'chunk_secs': 3.0}, 'a multiple of 2 s'),
        ({'splits': {'train': 0.8}}, 'shares above 0 that add up to 1'),
        ({'splits': {'Train': 1.0}}, 'in small letters'),
        ({'max_rejected': 5}, r'0 to 1 \(a share\)'),
        ({'num_shards': 0}, 'num_shards is 0; it must be 1 or more'),
        ({'alignment': 'left'}, "'center' or 'start'"),
    ],
)
def test_wrong_options_say_what_is_allowed(arguments, text):
    with pytest.raises(ConfigError, match=text):
        PrepareOptions(**arguments)


def test_wrong_names_are_refused_with_a_suggestion(folder, tmp_path):
    with pytest.raises(ConfigError, match=r"name is 'my violin'.*such as 'my_violin'"):
        prepare_dataset(folder, tmp_path, 'my violin')
    with pytest.raises(ConfigError, match='root is empty'):
        prepare_dataset(folder, '', 'violin')
    with pytest.raises(ConfigError, match='three numbers'):
        prepare_dataset(folder, tmp_path, 'violin', 'v1')
    with pytest.raises(ConfigError, match="no f0 estimator 'nope'"):
        prepare_dataset(folder, tmp_path, 'violin', options=PrepareOptions(f0='nope'))
    assert not list(tmp_path.iterdir())
