"""Commands where only `pip install .` was done: they work, or name the package that they need."""

from __future__ import annotations

import ast
import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[3]
# Hides every installed package that the required ones do not bring along, then runs the command.
PROGRAM = """
import importlib.metadata as metadata, re, sys
wanted, hidden = set(), set()
def take(name):
    name = re.sub('[-_.]+', '-', name).lower()
    if name in wanted:
        return
    wanted.add(name)
    try:
        needs = metadata.requires(name) or []
    except metadata.PackageNotFoundError:
        return
    for need in needs:
        if 'extra ==' not in need:
            take(re.match('[A-Za-z0-9._-]+', need)[0])
for name in sys.argv[1].split('|'):
    take(re.match('[A-Za-z0-9._-]+', name)[0])
for module, owners in metadata.packages_distributions().items():
    owners = {re.sub('[-_.]+', '-', owner).lower() for owner in owners}
    if not owners & (wanted | {'ddsp', 'setuptools', 'pip'}):
        hidden.add(module)
class Hide:
    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] in hidden:
            raise ModuleNotFoundError(f'No module named {name!r}', name=name)
sys.meta_path.insert(0, Hide())
assert {'mlflow', 'apache_beam', 'optuna'} <= hidden and 'tensorflow' not in hidden
if __name__ == '__main__':
    from experiments.cli import main
    sys.exit(main(sys.argv[2:]))
"""


def required() -> list[str]:
    """The packages that setup.py always asks for."""
    for node in ast.parse((ROOT / 'setup.py').read_text()).body:
        if isinstance(node, ast.Assign) and node.targets[0].id == 'REQUIRED':
            return ast.literal_eval(node.value)
    raise AssertionError('setup.py has no REQUIRED')


@pytest.mark.parametrize(
    ('command', 'missing'),
    [
        (('inspect', 'DATASET', '--json'), ''),
        (('train', 'DATASET', '--steps', '1'), 'mlflow is needed'),
        (('inspect', 'DATASET'), 'matplotlib is needed'),
        (('prepare', 'synthetic:4', '--output', 'data'), 'apache_beam is needed'),
        (('prepare', 'tfds:nsynth'), 'apache_beam is needed'),
    ],
    ids=lambda value: ' '.join(value) if isinstance(value, tuple) else '',
)
def test_a_command_works_or_names_what_it_needs(dataset, tmp_path, command, missing):
    words = [str(dataset) if word == 'DATASET' else word for word in command]
    environment = os.environ | {
        'PYTHONPATH': str(ROOT),
        'TF_CPP_MIN_LOG_LEVEL': '3',
        'XDG_STATE_HOME': str(tmp_path),
    }
    done = subprocess.run(
        [sys.executable, '-c', PROGRAM, '|'.join(required()), *words],
        capture_output=True, text=True, cwd=tmp_path, env=environment, check=False,
    )  # fmt: skip
    assert 'defect' not in done.stderr, done.stderr
    assert 'Traceback' not in done.stderr, done.stderr
    if missing:
        assert missing in done.stderr, done.stderr
        assert 'pip install' in done.stderr
    assert done.returncode == (1 if missing else 0), done.stderr
