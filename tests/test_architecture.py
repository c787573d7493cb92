"""The rules of docs/architecture.md that a program can check: who imports whom, and how large rooms are."""

from __future__ import annotations

import ast
import functools
import graphlib
import pathlib
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
# What each package may import of the three.
ALLOWED = {
    'ddsp': {'ddsp'},
    'pipelines': {'ddsp', 'pipelines'},
    'experiments': {'ddsp', 'pipelines', 'experiments'},
}
# Inside ddsp: a part imports what is on its own floor or below; `core` only what is in the basement.
BASEMENT = {'configurable', 'errors', 'version'}
FLOORS = [
    BASEMENT | {'analysis', 'f0', 'flags', 'io'},
    {'core'},
    {'dags', 'effects', 'losses', 'processors', 'spectral_ops', 'synths'},
    {'training'},
    {'inference'},
    {'export'},
]
OPTIONAL = {
    'apache_beam', 'crepe', 'google.auth', 'google.cloud', 'jax', 'kubernetes', 'librosa', 'matplotlib',
    'mlflow', 'onnxruntime', 'optuna', 'pandas', 'psutil', 'swift_f0', 'tensorflow_datasets', 'torch', 'yaml',
}  # fmt: skip
# They exist to import Beam and Optuna in one place.
IMPORTERS = {'pipelines.beam.sdk', 'experiments.sweeps.study_storage'}
MOST_LINES, MOST_FILES, MOST_LINES_OF_A_FUNCTION = 400, 12, 50
# Modules of ddsp.training that ddsp 3.7.0 has too.
THEIRS = {
    'ddsp_run', 'decoders', 'encoders', 'eval_util', 'evaluators', 'metrics', 'postprocessing',
    'preprocessing', 'train_util', 'trainers',
}  # fmt: skip


@functools.cache
def modules() -> dict[str, pathlib.Path]:
    """Every module of the three packages by its dotted name; that of a package is its `__init__`."""
    found = {}
    for path in sorted(path for package in ALLOWED for path in (ROOT / package).rglob('*.py')):
        name = '.'.join(path.relative_to(ROOT).with_suffix('').parts)
        found[name.removesuffix('.__init__')] = path
    return found


@functools.cache
def imports(name: str, module_level_only: bool = False) -> frozenset[str]:
    """Names that a module imports, without those for type checkers alone: `a.b.c` for `from a.b import c`."""
    found: set[str] = set()

    def visit(node: ast.AST) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.If) and 'TYPE_CHECKING' in ast.dump(child.test):
                continue
            if module_level_only and isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            if isinstance(child, ast.Import):
                found.update(alias.name for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                assert not child.level, f'{name} imports relatively'
                found.update(f'{child.module}.{alias.name}' for alias in child.names)
            visit(child)

    visit(ast.parse(modules()[name].read_text(encoding='utf-8')))
    return frozenset(found)


def test_packages_import_only_what_is_below_them():
    assert set(ALLOWED) <= set(modules())
    for name in modules():
        package = name.partition('.')[0]
        ours = {one.partition('.')[0] for one in imports(name)} & set(ALLOWED)
        assert ours <= ALLOWED[package], name


def test_parts_of_ddsp_import_only_what_is_below_them():
    for name in modules():
        if not name.startswith('ddsp.'):
            continue
        part = name.split('.')[1]
        used = {one.split('.')[1] for one in imports(name) if one.startswith('ddsp.')} - {part, '__version__'}
        floor = next(number for number, parts in enumerate(FLOORS) if part in parts)
        below = BASEMENT if part == 'core' else set().union(*FLOORS[: floor + 1])
        assert used <= below, name
    assert imports('ddsp') <= {
        '__future__.annotations', 'importlib', 'types.ModuleType', 'ddsp.version.__version__'
    }  # submodules load when they are used  # fmt: skip


def test_no_imports_go_in_circles():
    """Those inside functions included."""
    graph = {}
    for name in modules():
        used = {one if one in modules() else one.rpartition('.')[0] for one in imports(name)}
        graph[name] = (used & set(modules())) - {name}
    graphlib.TopologicalSorter(graph).prepare()


def test_optional_packages_are_imported_where_they_are_used():
    for name in set(modules()) - IMPORTERS:
        used = {
            part for one in imports(name, module_level_only=True) for part in (one.partition('.')[0], one)
        }
        assert not {one for one in used if one in OPTIONAL or one.startswith('google.cloud')}, name


def test_files_functions_and_folders_stay_small():
    folders: dict[pathlib.Path, set[str]] = {}
    for name, path in modules().items():
        text = path.read_text(encoding='utf-8')
        assert len(text.splitlines()) <= MOST_LINES, name
        folders.setdefault(path.parent, set()).add(path.stem)
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                first = node.body[1] if ast.get_docstring(node) and len(node.body) > 1 else node.body[0]
                lines = (node.end_lineno or 0) - first.lineno + 1
                assert lines <= MOST_LINES_OF_A_FUNCTION, f'{name}.{node.name}'
    for folder, files in folders.items():
        theirs = THEIRS if folder == ROOT / 'ddsp' / 'training' else set()
        assert len(files - theirs - {'__init__'}) <= MOST_FILES, folder


@pytest.mark.parametrize(
    ('text', 'found', 'at_module_level'),
    [
        ('def f():\n  import mlflow\nimport optuna.trial', {'mlflow', 'optuna.trial'}, {'optuna.trial'}),
        ('if TYPE_CHECKING:\n  import jax\nfrom a.b import c, d', {'a.b.c', 'a.b.d'}, {'a.b.c', 'a.b.d'}),
    ],
)
def test_imports_are_found(text, found, at_module_level, tmp_path, monkeypatch):
    path = tmp_path / 'one.py'
    path.write_text(text)
    monkeypatch.setattr(sys.modules[__name__], 'modules', lambda: {text: path})
    assert imports(text) == found
    assert imports(text, module_level_only=True) == at_module_level
