"""The rules of docs/architecture.md that a program can check: who imports whom, and how long files are."""

from __future__ import annotations

import ast
import pathlib
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
PACKAGES = ('ddsp', 'pipelines', 'experiments')
# What each package may import of the three.
ALLOWED = {'ddsp': {'ddsp'}, 'pipelines': {'ddsp', 'pipelines'}, 'experiments': set(PACKAGES)}
# Inside ddsp: a part imports what is on its own floor or below; `core` only what is in the basement.
_BASEMENT = {'errors', 'version', 'configurable'}
_FLOORS = [
    _BASEMENT | {'analysis', 'f0', 'flags', 'io'},
    {'core'},
    {'processors', 'dags', 'synths', 'effects', 'losses', 'spectral_ops'},
    {'training'},
    {'inference'},
    {'export'},
]  # fmt: skip
OPTIONAL = {
    'apache_beam', 'mlflow', 'optuna', 'crepe', 'swift_f0', 'onnxruntime', 'tensorflow_datasets',
    'matplotlib', 'jax', 'torch', 'librosa', 'psutil', 'pandas', 'yaml',
}  # fmt: skip
MOST_LINES = 450


def files(package: str) -> list[pathlib.Path]:
    return sorted((ROOT / package).rglob('*.py'))


ALL = [path for package in PACKAGES for path in files(package)]


def name_of(path: pathlib.Path) -> str:
    return path.relative_to(ROOT).as_posix()


def imports(path: pathlib.Path, module_level_only: bool = False) -> set[str]:
    """Modules that a file imports, those for type checkers alone left out."""
    tree = ast.parse(path.read_text(encoding='utf-8'))
    found: set[str] = set()
    package = list(path.relative_to(ROOT).with_suffix('').parts[:-1])

    def visit(node: ast.AST) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.If) and 'TYPE_CHECKING' in ast.dump(child.test):
                continue
            if module_level_only and isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            if isinstance(child, ast.Import):
                found.update(alias.name for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                base = package[: len(package) - child.level + 1] if child.level else []
                module = '.'.join([*base, *([child.module] if child.module else [])])
                found.update(f'{module}.{alias.name}' for alias in child.names)
            visit(child)

    visit(tree)
    return found


def test_the_packages_are_there():
    assert all(files(package) for package in PACKAGES)


@pytest.mark.parametrize('path', ALL, ids=name_of)
def test_packages_import_only_what_is_below_them(path):
    package = path.relative_to(ROOT).parts[0]
    ours = {module.split('.')[0] for module in imports(path)} & set(PACKAGES)
    assert ours <= ALLOWED[package]


@pytest.mark.parametrize('path', files('ddsp'), ids=name_of)
def test_parts_of_ddsp_import_only_what_is_below_them(path):
    part = path.relative_to(ROOT / 'ddsp').parts[0].removesuffix('.py')
    used = {module.split('.')[1] for module in imports(path) if module.startswith('ddsp.')}
    used -= {part, '__version__'}
    if part == '__init__':
        assert not used - {'version'}  # submodules load when they are used
    elif part == 'core':
        assert not used - _BASEMENT
    else:
        floor = next(number for number, parts in enumerate(_FLOORS) if part in parts)
        assert not used - set().union(*_FLOORS[: floor + 1])


@pytest.mark.parametrize('path', ALL, ids=name_of)
def test_optional_packages_are_imported_where_they_are_used(path):
    if name_of(path) in ('pipelines/beam/sdk.py', 'experiments/sweeps/study_storage.py'):
        return  # they exist to import Beam and Optuna once, where they are needed
    top = {module.split('.')[0] for module in imports(path, module_level_only=True)}
    google = {module for module in imports(path, module_level_only=True) if module.startswith('google.cloud')}
    assert not top & OPTIONAL
    assert not google


@pytest.mark.parametrize('path', ALL, ids=name_of)
def test_files_stay_short(path):
    assert len(path.read_text(encoding='utf-8').splitlines()) <= MOST_LINES


@pytest.mark.parametrize('path', ALL, ids=name_of)
def test_modules_begin_with_a_docstring(path):
    assert ast.get_docstring(ast.parse(path.read_text(encoding='utf-8')))


def test_the_rule_finds_what_it_forbids(tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], 'ROOT', tmp_path)
    (tmp_path / 'ddsp').mkdir()
    path = tmp_path / 'ddsp' / 'bad.py'
    path.write_text('def f():\n  import mlflow\n  from pipelines import prepare\nimport optuna.trial\n')
    assert imports(path) == {'mlflow', 'pipelines.prepare', 'optuna.trial'}
    assert imports(path, module_level_only=True) == {'optuna.trial'}
