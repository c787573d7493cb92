"""Fixtures shared by all tests."""

from __future__ import annotations

import os
import pathlib
import shutil
from collections.abc import Callable, Iterator

os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')
os.environ.setdefault('CUDA_VISIBLE_DEVICES', '')

import numpy as np
import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
# Why a test may be skipped in the gate: what the repository cannot hold, or a backend or a machine lacks.
# Any other reason (a package that was not installed, say) would hide that something is no longer tested.
MAY_BE_MISSING = (
    'which the repository does not hold', 'the weights of CREPE', 'a graph of TensorFlow',
    'a function of TensorFlow', 'only TensorFlow', 'shapes are always known', 'nothing is compiled',
    'not yet made for torch.compile', 'too quick',
    'the kernel is for JAX', 'cannot be mounted', 'only be mounted by root',
    'Slurm is not installed',
    'Prism', 'the Flink job server',  # get_engines.sh brings them where Go, Java and Maven are
    'terraform is not', 'checkov is not',  # `make audit`
    'control plane of Kubernetes',  # infra/kubernetes/control_plane.py runs it where Go and etcd are
)  # fmt: skip


def _refuse_hidden_skips(report):
    """Fails what is skipped for another reason, where CI=true."""
    if os.environ.get('CI') == 'true' and report.skipped and not hasattr(report, 'wasxfail'):
        reason = str(report.longrepr[2])
        if not any(known in reason for known in MAY_BE_MISSING):
            report.outcome, report.longrepr = 'failed', f'skipped in the gate: {reason}'
    return report


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo):
    """A test that is skipped."""
    return _refuse_hidden_skips((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector):
    """A whole file that is skipped."""
    return _refuse_hidden_skips((yield))


def _optional_folder(variable: str, default: str) -> pathlib.Path:
    """A folder that lies beside the checkout, or where the environment variable says."""
    folder = pathlib.Path(os.environ.get(variable) or ROOT.parent / 'shared' / default)
    if not folder.is_dir():
        pytest.skip(f'{variable} names no folder of {default} data, which the repository does not hold')
    return folder


@pytest.fixture(autouse=True)
def environment_of_its_own() -> Iterator[None]:
    """What a test leaves in the environment ends with it: `mlflow.set_tracking_uri` writes it there."""
    before = dict(os.environ)
    yield
    for name in set(os.environ) - set(before):
        del os.environ[name]
    os.environ.update(before)


@pytest.fixture(scope='session')
def recordings() -> pathlib.Path:
    """Folder of real recordings (DDSP_TEST_AUDIO)."""
    return _optional_folder('DDSP_TEST_AUDIO', 'audio')


@pytest.fixture
def rng() -> np.random.Generator:
    """A seeded generator; every test gets the same numbers."""
    return np.random.default_rng(0)


def system_tool(name: str, package: str | None = None) -> str:
    """Path of a system program; without it the test is skipped."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(f'{name} is not installed (package {package or name})')
    return found


@pytest.fixture(scope='session')
def need_program() -> Callable[..., str]:
    """`system_tool`, for the fixtures of the folders below."""
    return system_tool


@pytest.fixture(scope='session')
def ffmpeg() -> str:
    """Path of ffmpeg."""
    return system_tool('ffmpeg')
