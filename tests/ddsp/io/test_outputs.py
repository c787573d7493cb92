"""Results take the place of earlier ones whole, and never that of anything else."""

import errno
import json
import os
import pathlib

import pytest

from ddsp.errors import DDSPError
from ddsp.io import files


def put(folder, text):
    """Makes a result of one file."""
    with files.replacing_folder(folder, 'marker', made=('marker', 'more')) as part:
        part.mkdir()
        (part / 'marker').write_text(text)


def test_an_interrupted_folder_leaves_the_earlier_one(tmp_path):
    target = tmp_path / 'result'
    put(target, 'old')

    def interrupted():
        with files.replacing_folder(target, 'marker') as part:
            part.mkdir()
            (part / 'marker').write_text('half')
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert (target / 'marker').read_text() == 'old'
    assert [path.name for path in tmp_path.iterdir()] == ['result']


def test_a_folder_that_cannot_be_renamed_leaves_the_earlier_one(tmp_path, monkeypatch):
    target = tmp_path / 'result'
    put(target, 'old')
    rename = pathlib.Path.rename

    def full(path, other):
        if path.suffix == '.part':
            raise OSError(errno.ENOSPC, 'No space left on device')
        return rename(path, other)

    monkeypatch.setattr(pathlib.Path, 'rename', full)
    with pytest.raises(OSError, match='No space left'):
        put(target, 'new')
    assert (target / 'marker').read_text() == 'old'
    assert [path.name for path in tmp_path.iterdir()] == ['result']


@pytest.mark.parametrize(
    ('names', 'message'),
    [
        (['marker'], None),
        (['marker', 'more', '.DS_Store'], None),
        (['more'], r'holds other files \(no marker\); nothing was changed'),
        (['marker', 'thesis.txt'], r'holds other files \(thesis\.txt\); nothing was changed'),
    ],
)
def test_only_what_was_made_before_makes_room(names, message, tmp_path):
    target = tmp_path / 'result'
    target.mkdir()
    for name in names:
        (target / name).write_text('old')
    if message is None:
        put(target, 'new')
        assert {path.name: path.read_text() for path in target.iterdir()} == {'marker': 'new'}
        return
    with pytest.raises(DDSPError, match=message):
        put(target, 'new')
    assert sorted(path.name for path in target.iterdir()) == sorted(names)


def test_what_appears_meanwhile_is_not_replaced(tmp_path):
    target = tmp_path / 'result'

    def make():
        with files.replacing_folder(target, 'marker') as part:
            part.mkdir()
            target.mkdir()
            (target / 'thesis.txt').write_text('mine')

    with pytest.raises(DDSPError, match='holds other files'):
        make()
    assert (target / 'thesis.txt').read_text() == 'mine'


@pytest.mark.parametrize('spelling', ['x.wav', './x.wav', 'folder/../x.wav', 'link.wav', 'hard.wav'])
def test_an_input_is_not_written_over_in_any_spelling(spelling, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'folder').mkdir()
    (tmp_path / 'x.wav').write_text('sound')
    (tmp_path / 'link.wav').symlink_to('x.wav')
    os.link('x.wav', 'hard.wav')
    with pytest.raises(DDSPError, match=r'the output .* is the input x\.wav'):
        files.check_output(spelling, 'folder/other.wav', 'x.wav')
    files.check_output('y.wav', 'x.wav', 'folder')


@pytest.mark.parametrize('output', ['folder', 'folder/new', 'folder/deep/new.wav', 'alias/new.wav'])
def test_nothing_is_written_into_an_input(output, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'folder').mkdir()
    (tmp_path / 'alias').symlink_to('folder')
    with pytest.raises(DDSPError, match=f'the output {output} (is|lies in) the input folder'):
        files.check_output(output, 'folder')
    files.check_output('folder2/new', 'folder')  # a name that begins alike


def test_a_place_that_cannot_be_locked_says_so(tmp_path):
    (tmp_path / 'file').write_text('')
    with (
        pytest.raises(DDSPError, match='cannot be written: Not a directory'),
        files.locked(tmp_path / 'file' / 'folder', 'busy'),
    ):
        pass
    with files.locked(tmp_path / 'new' / 'folder', 'busy'):
        assert (tmp_path / 'new' / 'folder' / files.LOCK).is_file()
        with files.locked(tmp_path / 'new' / 'folder', 'busy', name='other'):
            pass  # another lock in the same folder


def test_bytes_are_there_whole_or_not_at_all(tmp_path):
    path = tmp_path / 'x.bin'
    files.write_bytes(path, b'old')
    with pytest.raises(TypeError):
        files.write_bytes(path, 'no bytes')
    assert path.read_bytes() == b'old'
    # The example of FIPS 180-2, appendix B.1.
    files.write_bytes(path, b'abc')
    assert files.file_sha256(path) == ('ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad')
    files.write_json(path, {'ä': [1.5, None]})
    assert json.loads(path.read_text()) == {'ä': [1.5, None]}
    assert [found.name for found in tmp_path.iterdir()] == ['x.bin']
