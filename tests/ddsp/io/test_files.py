"""Names that stay inside, whole files, folders with one owner."""

import os
import pathlib
import subprocess
import sys

import pytest

from ddsp.errors import DDSPError
from ddsp.io import files

OUTSIDE = [
    '', '.', '..', '/', '/etc/passwd', '//host/share', '../x', 'a/../../x', 'a/./b', 'a//b', 'a/', '~/x',
    '~root/x', 'C:/x', 'c:x', 'file:///etc/passwd', 'gs://bucket/x', '..\\x', 'a\\b', '\\\\host\\x',
    'x\0.txt', 'x\n', '\u202ex', '\u2025/x', '\uff0e\uff0e/x', '\uff0fetc', '\uff3cx', 'C\uff1ax', '\ud800',
    None, 3, ['x'], {'x': 1}, b'x',
]  # fmt: skip


@pytest.mark.parametrize('name', OUTSIDE, ids=ascii)
def test_a_name_that_leaves_its_folder_is_refused(tmp_path: pathlib.Path, name: object):
    with pytest.raises(files.UnsafeNameError, match=r'MANIFEST\.json names .* inside'):
        files.inside(tmp_path, name, 'MANIFEST.json')


@pytest.mark.parametrize(
    'name', ['a', 'a/b.txt', 'x...', 'Caf\u00e9', 'Cafe\u0301', '日本 1', "it's", '[/x]']
)
def test_a_plain_name_is_taken(tmp_path: pathlib.Path, name: str):
    assert files.inside(tmp_path, name, 'x') == tmp_path / name


def test_links_out_of_the_folder_are_refused_and_links_within_it_are_not(tmp_path: pathlib.Path):
    folder = tmp_path / 'data'
    folder.mkdir()
    (folder / 'file').write_text('x')
    (folder / 'within').symlink_to('file')
    (folder / 'out').symlink_to(tmp_path)
    (folder / 'dangling').symlink_to('/nowhere')
    assert files.inside(folder, 'within', 'x').read_text() == 'x'
    for name in ('out', 'out/x', 'dangling'):
        with pytest.raises(files.UnsafeNameError, match='link that leaves'):
            files.inside(folder, name, 'x')


@pytest.mark.parametrize(
    ('name', 'text'),
    [('caf\udce9', r'caf\xe9'), ('Café 日本', 'Café 日本'), ('\ud800\udce9', r'\ud800\udce9')],
)
def test_names_that_are_no_text_become_text(name: str, text: str):
    assert files.writable(name) == text
    files.writable(name).encode()


def test_a_file_is_written_whole_with_the_umask_of_the_user(tmp_path: pathlib.Path):
    path = tmp_path / 'x.json'
    old = os.umask(0o077)
    try:
        files.write_json(path, {'a': 1})
        assert path.stat().st_mode & 0o777 == 0o600
        os.umask(0o022)
        files.write_json(path, {'a': 2})
        assert path.stat().st_mode & 0o777 == 0o644
    finally:
        os.umask(old)
    with pytest.raises(TypeError):
        files.write_json(path, {'a': object()})
    assert path.read_text() == '{\n  "a": 2\n}\n'
    assert [found.name for found in tmp_path.iterdir()] == ['x.json']


def test_only_an_earlier_result_is_replaced(tmp_path: pathlib.Path):
    target = tmp_path / 'target'

    def make(target: pathlib.Path) -> None:
        with files.replacing_folder(target, 'marker') as part:
            part.mkdir()
            (part / 'marker').write_text('new')

    make(target)
    make(target)
    assert (target / 'marker').read_text() == 'new'
    (target / 'marker').rename(target / 'thesis.txt')
    with pytest.raises(DDSPError, match='holds other files'):
        make(target)
    assert (target / 'thesis.txt').read_text() == 'new'
    (tmp_path / 'link').symlink_to(target)
    with pytest.raises(DDSPError, match='not a folder'):
        make(tmp_path / 'link')
    assert sorted(path.name for path in tmp_path.iterdir()) == ['link', 'target']


def test_a_folder_has_one_owner_until_its_process_ends(tmp_path: pathlib.Path):
    hold = f'from ddsp.io import files; lock = files.locked({str(tmp_path)!r}, "busy"); lock.__enter__()'
    wait = f'{hold}; print("held", flush=True); input()'
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, '-c', wait], stdin=pipe, stdout=pipe) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b'held\n'
        with pytest.raises(files.FolderInUseError, match='busy'), files.locked(tmp_path, 'busy'):
            pass
        other.kill()
    with (
        files.locked(tmp_path, 'busy'),
        pytest.raises(files.FolderInUseError),
        files.locked(tmp_path, 'busy'),
    ):
        pass
