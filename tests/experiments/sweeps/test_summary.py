"""Pictures of a sweep."""

from __future__ import annotations

import matplotlib
import optuna
import pytest

from experiments.sweeps.result import draw
from experiments.sweeps.spec import parse_spec


@pytest.mark.parametrize(
    ('trials', 'wanted'),
    [
        (0, set()),
        (1, {'history.png'}),
        (2, {'history.png', 'parallel_coordinates.png'}),
        (6, {'history.png', 'parallel_coordinates.png', 'importance.png'}),
    ],
)
def test_pictures_are_drawn_and_leave_the_style_of_others_alone(trials, wanted, tmp_path):
    spec = parse_spec({'parameters': {'x': {'low': 0.0, 'high': 1.0}}, 'name': 'drawn'})
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    study.optimize(lambda trial: trial.suggest_float('x', 0.0, 1.0) ** 2, n_trials=trials)
    before = dict(matplotlib.rcParams)
    draw(study, spec, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == wanted
    changed = {key for key, value in matplotlib.rcParams.items() if value != before[key]}
    assert changed <= {'backend', 'backend_fallback'}  # pictures need no display
