"""What `ddsp doctor` finds out about a machine, without importing the frameworks."""

from __future__ import annotations

import importlib.metadata
import json
import subprocess
import sys

import pytest

from experiments import doctor


def found(name: str, checks: list[doctor.Check]) -> doctor.Check:
    return next(check for check in checks if check.name == name)


def test_this_machine_is_well_and_no_framework_is_imported():
    code = (
        'import json, sys; from experiments import doctor; checks = [vars(c) for c in doctor.run_checks()]; '
        'heavy = {"tensorflow", "keras", "mlflow", "apache_beam", "optuna", "jax"} & set(sys.modules); '
        'print(json.dumps([checks, sorted(heavy)]))'
    )
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    checks, heavy = json.loads(done.stdout)
    assert heavy == []
    assert [check for check in checks if check['state'] == doctor.MISSING] == []
    rows = {check['name']: check for check in checks}
    assert rows['tensorflow']['found'] == importlib.metadata.version('tensorflow')
    assert rows['native libraries']['found'] == 'load'
    assert sum(name.startswith('f0: crepe') for name in rows) in (1, 6)  # one line when no size is here


def test_packages_that_do_not_fit_together_are_named(monkeypatch):
    versions = {'keras': '3.15.1', 'numpy': '1.26.0'}

    def version(name: str) -> str:
        try:
            return versions[name]
        except KeyError:
            raise importlib.metadata.PackageNotFoundError(name) from None

    wanted = ['numpy>=2,<3', 'namex', 'rich; extra == "pretty"', 'keras>=3']
    monkeypatch.setattr(importlib.metadata, 'version', version)
    monkeypatch.setattr(importlib.metadata, 'requires', lambda name: wanted if name == 'keras' else [])
    checks = list(doctor._packages())
    keras = found('keras', checks)
    assert keras.state == doctor.WARNING
    assert keras.advice.startswith('needs numpy<3,>=2 (1.26.0 is here), namex (nothing is here):')
    assert found('numpy', checks).state == doctor.OK
    assert found('tensorflow', checks) == doctor.Check(
        'tensorflow', doctor.MISSING, 'not installed', 'pip install tensorflow'
    )


@pytest.mark.parametrize(
    ('code', 'told'),
    [
        ('import os, signal; print("libx.so", flush=True); os.kill(os.getpid(), signal.SIGILL)',
         'loading libx.so ends by SIGILL'),
        ('raise OSError("libsndfile.so.1: cannot open shared object file")',
         'OSError: libsndfile.so.1: cannot open shared object file'),
    ],
)  # fmt: skip
def test_a_native_library_that_does_not_load(monkeypatch, code, told):
    monkeypatch.setattr(doctor, '_LOAD_NATIVE', code)
    (check,) = doctor._native()
    assert (check.state, check.found) == (doctor.MISSING, told)


def test_the_backend_that_keras_will_take(monkeypatch, tmp_path):
    monkeypatch.setenv('KERAS_HOME', str(tmp_path))
    monkeypatch.delenv('KERAS_BACKEND', raising=False)
    assert doctor._backend_name() == 'tensorflow'
    (tmp_path / 'keras.json').write_text('{"backend": "jax"}')
    assert doctor._backend_name() == 'jax'
    monkeypatch.setenv('KERAS_BACKEND', 'nonsense')
    (check,) = doctor._backend()
    assert (check.state, check.found) == (doctor.MISSING, 'nonsense is not installed')


def test_a_gpu_without_its_libraries(monkeypatch):
    monkeypatch.setattr(doctor, '_gpus', lambda: ['GPU NVIDIA L4'])
    monkeypatch.setattr(importlib.metadata, 'distributions', lambda: [])
    monkeypatch.setattr(doctor.ctypes.util, 'find_library', lambda name: None)
    check = doctor._devices('tensorflow')
    assert (check.state, check.found) == (doctor.WARNING, 'CPU, GPU NVIDIA L4')
    assert 'tensorflow[and-cuda]' in check.advice
    assert doctor._devices('jax').state == doctor.OK
