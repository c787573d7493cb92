"""What goes wrong at a user's: one clear message each, exit status 1, nothing half-written taken for good."""

from __future__ import annotations

import os
import pathlib
import shutil
import subprocess
import sys

import numpy as np
import pytest
import soundfile

pytestmark = pytest.mark.end_to_end


def run(folder: pathlib.Path, *arguments: object, code: int = 1) -> str:
    """Runs `ddsp`; returns what it printed on stderr."""
    done = subprocess.run(
        [sys.executable, '-m', 'experiments.cli', *map(str, arguments)],
        cwd=folder, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == code, done.stderr + done.stdout
    assert 'Traceback' not in done.stderr
    return ' '.join(done.stderr.split())


def tones(folder: pathlib.Path, count: int = 3, seconds: float = 6.0) -> pathlib.Path:
    """A folder of short recordings."""
    folder.mkdir()
    times = np.arange(int(seconds * 16000)) / 16000
    for number in range(count):
        audio = sum(0.2 / h * np.sin(2 * np.pi * h * (220 + 30 * number) * times) for h in range(1, 6))
        soundfile.write(folder / f'tone{number}.wav', audio, 16000)
    return folder


@pytest.fixture(scope='module')
def dataset(tmp_path_factory) -> pathlib.Path:
    """A small published dataset."""
    folder = tmp_path_factory.mktemp('dataset')
    tones(folder / 'audio')
    run(folder, 'prepare', 'audio', '--output', 'data', '--name', 'tones', code=0)
    return next((folder / 'data' / 'tones').iterdir())


def test_missing_path(tmp_path):
    message = run(tmp_path, 'demo', '--audio', 'nowhere/at-all.wav')
    assert 'nowhere/at-all.wav' in message
    assert 'does not exist' in message or 'no such' in message.lower() or 'not there' in message


def test_empty_folder(tmp_path):
    (tmp_path / 'empty').mkdir()
    message = run(tmp_path, 'prepare', 'empty', '--output', 'data', '--name', 'x')
    assert 'empty' in message
    assert not list((tmp_path / 'data').rglob('MANIFEST.json'))


def test_only_broken_files(tmp_path):
    folder = tmp_path / 'broken'
    folder.mkdir()
    (folder / 'zero.wav').touch()
    (folder / 'text.wav').write_text('no audio in here')
    soundfile.write(folder / 'cut.wav', np.zeros(16000), 16000)
    (folder / 'cut.wav').write_bytes((folder / 'cut.wav').read_bytes()[:20])
    message = run(tmp_path, 'prepare', 'broken', '--output', 'data', '--name', 'x')
    for name in ('zero.wav', 'text.wav', 'cut.wav'):
        assert name in message
    assert not list((tmp_path / 'data').rglob('MANIFEST.json'))


def test_unwritable_output(tmp_path):
    tones(tmp_path / 'audio', 1)
    (tmp_path / 'data').write_text('a file where a folder should be')
    message = run(tmp_path, 'prepare', 'audio', '--output', 'data', '--name', 'x')
    assert 'data' in message


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 3 MB."""
    mount = tmp_path / 'disk'
    mount.mkdir()
    command = ['mount', '-t', 'tmpfs', '-o', 'size=3m', 'tmpfs', str(mount)]
    if os.geteuid() or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip('a small file system can only be mounted by root')
    yield mount
    subprocess.run(['umount', str(mount)], check=True)


def test_full_disk_while_preparing(tmp_path, small_disk):
    tones(tmp_path / 'audio', 6, 10.0)
    arguments = ('prepare', tmp_path / 'audio', '--output', small_disk / 'data', '--name', 'x')
    message = run(tmp_path, *arguments)
    assert 'full' in message.lower() or 'no space' in message.lower()
    assert not list(small_disk.rglob('MANIFEST.json'))


def test_full_disk_while_training(tmp_path, small_disk, dataset):
    message = run(
        tmp_path, 'train', dataset, '--save-dir', small_disk / 'run', '--steps', '2', '--batch-size', '2'
    )
    assert 'full' in message.lower() or 'no space' in message.lower()
    assert not list(small_disk.rglob('metadata.json'))


def test_corrupt_record(tmp_path, dataset):
    copy = tmp_path / 'copy' / '1.0.0'
    shutil.copytree(dataset, copy)
    shard = next(copy.glob('*-train.tfrecord-*'))
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 0xFF
    shard.write_bytes(bytes(content))
    message = run(tmp_path, 'train', copy, '--save-dir', 'run', '--steps', '4', '--batch-size', '2')
    assert shard.name in message
    assert not (tmp_path / 'run' / 'bundle').exists()


def test_unpublished_dataset(tmp_path, dataset):
    copy = tmp_path / 'copy' / '1.0.0'
    shutil.copytree(dataset, copy)
    (copy / 'MANIFEST.json').unlink()
    assert 'MANIFEST.json' in run(tmp_path, 'train', copy, '--save-dir', 'run')


def test_misspelt_option_and_parameter(tmp_path, dataset):
    assert '--steps' in run(tmp_path, 'train', dataset, '--stepps', '3', code=2)
    message = run(tmp_path, 'train', dataset, '--gin-param', 'Trainer.learning_rat = 0.1')
    assert 'learning_rate' in message
