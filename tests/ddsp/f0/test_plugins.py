"""Pitch estimators of other packages, by entry point, and what goes wrong with them."""

import importlib.metadata

import numpy as np
import pytest

from ddsp import f0
from ddsp.errors import ConfigError, MissingDependencyError
from ddsp.f0 import registry


class Constant:
    """Hears the same pitch everywhere; sure where the signal is not zero."""

    name = 'constant'
    voiced_from = 0.25

    def predict(self, audio, frame_rate, n_frames, viterbi=True):
        return np.full(n_frames, 123.0, np.float32), np.full(n_frames, 0.3, np.float32)


def raises(error):
    def make():
        raise error

    return make


@pytest.fixture
def plugins(monkeypatch):
    """`(**factories)`: as if a package were installed that names them."""

    def install(**factories):
        class Point(importlib.metadata.EntryPoint):
            def load(self):
                return factories[self.name]

        points = [Point(name, f'somewhere:{name}', registry.ENTRY_POINTS) for name in factories]
        monkeypatch.setattr(
            registry.importlib.metadata, 'entry_points',
            lambda group: points if group == 'ddsp.f0' else [],
        )  # fmt: skip
        registry._make.cache_clear()

    yield install
    registry._make.cache_clear()


def test_a_plugin_is_used_by_its_name(plugins):
    plugins(constant=Constant)
    audio = np.full(16000, 0.1, np.float32)
    audio[8000:] = 0.0
    f0_hz, confidence = f0.estimate_f0(audio, 16000, 100, 'constant')
    assert len(f0_hz) == 100
    np.testing.assert_array_equal(f0_hz[:45], 123.0)
    np.testing.assert_allclose(confidence[:45], 0.3)
    np.testing.assert_array_equal(confidence[55:], 0.0)  # silence is told apart for all alike
    assert f0.voiced_threshold('constant') == 0.25
    assert f0.available_estimators()['constant'] == ''
    assert f0.get_estimator('constant') is f0.get_estimator('constant')  # made once


def test_a_plugin_that_fails_is_named_and_disturbs_no_other(plugins):
    reason = MissingDependencyError('torch is needed to hear. Run: pip install torch')
    plugins(broken=raises(ValueError('no such model')), absent=raises(reason))
    message = r"the f0 plug-in 'broken' \(somewhere:broken\) cannot be used: no such model"
    with pytest.raises(f0.F0Error, match=message):
        f0.get_estimator('broken')
    with pytest.raises(MissingDependencyError, match='pip install torch'):
        f0.get_estimator('absent')
    answers = f0.available_estimators()
    assert 'no such model' in answers['broken']
    assert answers['absent'] == str(reason)
    assert answers['yin'] == ''
    assert f0.get_estimator('auto').name in ('swift', 'yin')


def test_names_are_taken_once(plugins):
    plugins(constant=Constant)
    for name in ('auto', 'yin', 'constant'):
        with pytest.raises(ConfigError, match=f"an f0 estimator named '{name}' exists already"):
            f0.register(name, Constant)
    with pytest.raises(ConfigError, match=r"no f0 estimator 'constnat'; there are auto, .*mean 'constant'\?"):
        f0.get_estimator('constnat')
