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
def source(tmp_path_factory) -> pathlib.Path:
    """What git tracks: a build must not depend on what lies about in the working tree."""
    folder = tmp_path_factory.mktemp('source')
    tracked = subprocess.run(
        ['git', 'ls-files', '-z'], cwd=ROOT, capture_output=True, check=True, text=True
    ).stdout
    for name in filter(None, tracked.split('\0')):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes((ROOT / name).read_bytes())
    return folder


@pytest.fixture(scope='module')
def wheel(source, tmp_path_factory) -> pathlib.Path:
    """The package built as pip builds it."""
    folder = tmp_path_factory.mktemp('wheel')
    command = [sys.executable, '-m', 'pip', 'wheel', '--quiet', '--no-deps', '--wheel-dir', str(folder)]
    subprocess.run([*command, str(source)], check=True, timeout=300)
    return next(folder.glob('ddsp-*.whl'))


def test_holds_code_and_configurations(source, wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    wanted = [path.relative_to(source).as_posix() for path in (source / 'ddsp/training/gin').rglob('*.gin')]
    assert len(wanted) > 10
    for package in ('ddsp', 'pipelines', 'experiments'):
        wanted += [path.relative_to(source).as_posix() for path in (source / package).rglob('*.py')]
    assert set(wanted) <= names
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
        [sys.executable, '-c', program],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert str(tmp_path / 'site') in done.stdout
    assert '(1, 640)' in done.stdout
