"""What `pip install .` puts into place."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys
import zipfile

import pytest

pytestmark = pytest.mark.end_to_end

ROOT = pathlib.Path(__file__).resolve().parents[2]


@pytest.fixture(scope='module')
def wheel(tmp_path_factory) -> pathlib.Path:
    """The package built as pip builds it."""
    folder = tmp_path_factory.mktemp('wheel')
    # Only what git tracks: a build must not depend on what lies about in the working tree.
    source = folder / 'source'
    source.mkdir()
    archive = subprocess.run(['git', 'ls-files', '-z'], cwd=ROOT, capture_output=True, check=True).stdout
    for name in filter(None, archive.decode().split('\0')):
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    command = [
        sys.executable,
        '-m',
        'pip',
        'wheel',
        '--quiet',
        '--no-deps',
        '--wheel-dir',
        str(folder),
        str(source),
    ]
    subprocess.run(command, check=True, timeout=300)
    return next(folder.glob('ddsp-*.whl'))


def test_holds_code_and_configurations(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    wanted = [
        path.relative_to(ROOT).as_posix() for path in (ROOT / 'ddsp' / 'training' / 'gin').rglob('*.gin')
    ]
    assert wanted
    assert set(wanted) <= names
    for package in ('ddsp', 'pipelines', 'experiments'):
        modules = [path.relative_to(ROOT).as_posix() for path in (ROOT / package).rglob('*.py')]
        assert set(modules) <= names
    assert not [name for name in names if name.startswith('tests/')]


def test_works_away_from_the_checkout(wheel, tmp_path):
    zipfile.ZipFile(wheel).extractall(tmp_path / 'site')
    program = (
        'import numpy as np, ddsp; from ddsp.training import config; '
        'audio = ddsp.synths.Harmonic(n_samples=640)(*[np.ones([1, 10, n], np.float32) for n in (1, 8, 1)]); '
        'config.parse_config(["papers/iclr2020/solo_instrument.gin"], []); '
        'print(ddsp.__file__, audio.shape, ddsp.__version__)'
    )
    environment = {**os.environ, 'PYTHONPATH': str(tmp_path / 'site')}
    done = subprocess.run(
        [sys.executable, '-c', program], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert str(tmp_path / 'site') in done.stdout
    assert '(1, 640)' in done.stdout
