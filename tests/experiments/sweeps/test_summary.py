"""The end of a sweep: pictures, and runs that nobody is left to end."""

from __future__ import annotations

import matplotlib
import optuna
import pytest

from experiments.sweeps import study
from experiments.sweeps.result import SweepPlace, draw, end_lost_runs
from experiments.sweeps.spec import parse_spec
from experiments.sweeps.study import SLOT, TrialQueue
from experiments.tracking import store


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


def test_runs_that_nobody_is_left_to_end_are_ended(workdir, monkeypatch):
    monkeypatch.setattr(study, 'POLL_SECS', 0.1)
    spec = parse_spec({'parameters': {'x': {'low': 0.0, 'high': 1.0}}, 'trials': 3, 'name': 'lost'})
    place = SweepPlace.at(spec, 'lost.yaml', 'data', experiment='sweeps')
    place.folder.mkdir(parents=True)
    queue = TrialQueue(spec, place.storage, heartbeat_secs=1)
    end_lost_runs(queue, place)  # there is no experiment yet
    client = store.client()
    experiment = store.experiment_id(client, 'sweeps')

    def begin(slot: int, sweep: str = 'lost', role: str = 'trial') -> str:
        tags = {'sweep_id': sweep, 'sweep_role': role, 'sweep_trial': str(slot)}
        return client.create_run(experiment, tags=tags).info.run_id

    runs = {
        'died': begin(0), 'took over, and is late to end': begin(0), 'killed all who tried it': begin(1),
        'not recorded yet': begin(2), 'of another sweep': begin(0, 'other'),
    }  # fmt: skip

    def objective(trial) -> float:
        slot = trial.user_attrs[SLOT]
        if slot == 1:
            raise ZeroDivisionError
        queue.note(trial, 'run_id', runs['took over, and is late to end'] if slot == 0 else '')
        return 1.0

    queue.work(objective)
    end_lost_runs(queue, place)
    found = {name: client.get_run(run_id) for name, run_id in runs.items()}
    ended = {
        name: run.data.tags['sweep_outcome'] for name, run in found.items() if run.info.status == 'KILLED'
    }
    assert ended == {'died': 'taken over', 'killed all who tried it': 'given up'}
