"""A sweep's queue: no trial is lost and none is done twice, whoever dies when."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import os
import subprocess
import sys
import threading
import time

import optuna
import pytest
from optuna.trial import TrialState

from experiments import study
from experiments.study import ERROR, SLOT, WORKER, TrialQueue
from experiments.sweep_spec import parse_spec
from experiments.watchers import PruningWatcher


@pytest.fixture
def spec():
    return parse_spec({'parameters': {'x': {'low': 0.0, 'high': 1.0}}, 'trials': 6, 'name': 'queue'})


@pytest.fixture
def storage(request, tmp_path):
    """Address of an empty database: SQLite unless a test asks for the other."""
    if getattr(request, 'param', 'sqlite') == 'postgresql':
        return request.getfixturevalue('postgres').create_database()
    return f'sqlite:///{tmp_path / "sub" / "study.db"}'


both_databases = pytest.mark.parametrize('storage', ['sqlite', 'postgresql'], indirect=True)


def states(opened) -> dict[int, list[str]]:
    """Slot to the states of its trials."""
    found: dict[int, list[str]] = {}
    for trial in opened.study.get_trials():
        if SLOT in trial.user_attrs:
            found.setdefault(trial.user_attrs[SLOT], []).append(trial.state.name)
    return found


def work(spec, storage) -> list[int]:
    """One worker: takes everything that waits; returns its slots."""
    opened = TrialQueue(spec, storage)
    done = []
    while (trial := opened.take()) is not None:
        time.sleep(0.01)
        opened.study.tell(trial, spec.suggest(trial)['x'])
        done.append(trial.user_attrs[SLOT])
    return done


@both_databases
def test_every_slot_is_done_once(spec, storage):
    assert sorted(work(spec, storage)) == [0, 1, 2, 3, 4, 5]
    assert work(spec, storage) == []


@both_databases
def test_many_workers_share_the_queue(spec, storage):
    spec = dataclasses.replace(spec, trials=24)
    TrialQueue(spec, storage)
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        shares = list(pool.map(lambda _: work(spec, storage), range(4)))
    assert sorted(slot for share in shares for slot in share) == list(range(24))
    opened = TrialQueue(spec, storage)
    assert all(found.count('COMPLETE') == 1 for found in states(opened).values())


@both_databases
def test_a_larger_budget_adds_slots(spec, storage):
    work(spec, storage)
    assert sorted(work(dataclasses.replace(spec, trials=8), storage)) == [6, 7]


def test_the_seed_decides_what_is_tried(spec, tmp_path):
    def tried(name, seed):
        seeded = dataclasses.replace(spec, seed=seed, sampler='random')
        address = f'sqlite:///{tmp_path / name}.db'
        work(seeded, address)
        return [trial.params['x'] for trial in TrialQueue(seeded, address).trials()]

    assert tried('a', 1) == tried('b', 1) != tried('c', 2)


@pytest.mark.parametrize('sampler', ['tpe', 'random', 'cmaes'])
def test_each_sampler_stays_in_the_space_and_learns_if_it_can(sampler, storage):
    space = {'x': {'low': 1e-3, 'high': 1.0, 'log': True}, 'n': {'low': 2, 'high': 8, 'step': 2}}
    found = parse_spec({'parameters': space, 'trials': 20, 'name': 'space', 'sampler': sampler})
    opened = TrialQueue(found, storage)
    while (trial := opened.take()) is not None:
        values = found.suggest(trial)
        assert 1e-3 <= values['x'] <= 1.0
        assert values['n'] in (2, 4, 6, 8)
        opened.study.tell(trial, (values['x'] - 0.5) ** 2 + values['n'])
    assert opened.study.best_value < 2.3
    assert len({trial.params['x'] for trial in opened.trials()}) == 20


@pytest.mark.parametrize('pruner', ['median', 'hyperband', 'asha', 'none'])
def test_each_pruner_ends_a_hopeless_training_early(pruner, spec, storage):
    """Ten trainings, good and hopeless in turn, report as `PruningWatcher` lets them."""
    chosen = dataclasses.replace(spec, trials=10, pruner=pruner, steps=27)
    opened = TrialQueue(chosen, storage)
    pruned = []
    while (trial := opened.take()) is not None:
        chosen.suggest(trial)
        hopeless = trial.user_attrs[SLOT] % 2 == 1
        watcher = PruningWatcher(trial, chosen, lambda text: None, threading.Event(), opened.database.notice)
        try:
            for step in range(1, 28):
                watcher.on_summary(step, {'losses/total_loss': 1.0 / step + 10.0 * hopeless})
            opened.study.tell(trial, 10.0 * hopeless)
        except optuna.TrialPruned:
            opened.study.tell(trial, state=TrialState.PRUNED)
            pruned.append(hopeless)
    assert all(pruned) or pruner != 'median'
    assert (True in pruned) == (pruner != 'none')
    assert opened.study.best_value == 0.0


def test_a_grid_is_tried_completely(spec, storage):
    grid = parse_spec({'parameters': {'x': [0.1, 0.2], 'y': [1, 2]}, 'sampler': 'grid', 'name': 'grid'})
    opened = TrialQueue(grid, storage)
    points = []
    while (trial := opened.take()) is not None:
        values = grid.suggest(trial)
        points.append((values['x'], values['y']))
        opened.study.tell(trial, 0.0)
    assert sorted(points) == [(0.1, 1), (0.1, 2), (0.2, 1), (0.2, 2)]


@both_databases
def test_a_killed_workers_trial_is_queued_again_with_its_parameters(spec, storage):
    TrialQueue(spec, storage)
    code = (
        'import os, signal, sys; from experiments import study; '
        'from experiments.sweep_spec import parse_spec; '
        'spec = parse_spec({"parameters": {"x": {"low": 0.0, "high": 1.0}}, "trials": 6, "name": "queue"}); '
        'trial = study.TrialQueue(spec, sys.argv[1]).take(); spec.suggest(trial); '
        'os.kill(os.getpid(), signal.SIGKILL)'
    )
    done = subprocess.run([sys.executable, '-c', code, storage], capture_output=True, check=False)
    assert done.returncode == -9, done.stderr.decode()
    opened = TrialQueue(spec, storage)
    (lost,) = opened.study.get_trials(states=(TrialState.RUNNING,))
    assert opened.recover() == 0
    slot = lost.user_attrs[SLOT]
    assert states(opened)[slot] == ['FAIL', 'WAITING']
    assert opened.recover() == 0  # again changes nothing
    assert states(opened)[slot] == ['FAIL', 'WAITING']
    while (trial := opened.take()) is not None:
        values = spec.suggest(trial)
        if trial.user_attrs[SLOT] == slot:
            assert values == lost.params
        opened.study.tell(trial, 1.0)
    assert all(found.count('COMPLETE') == 1 for found in states(opened).values())


@both_databases
def test_a_worker_of_another_machine_is_dead_when_its_heartbeat_stops(spec, storage):
    opened = TrialQueue(spec, storage, heartbeat_secs=1)
    trial = opened.take()
    trial.set_user_attr(WORKER, ['elsewhere', 1])
    assert opened.recover() == 1  # it may live
    time.sleep(3.5)
    assert opened.recover() == 0
    assert states(opened)[trial.user_attrs[SLOT]] == ['FAIL', 'WAITING']


def test_a_heartbeat_keeps_a_trial(spec, storage):
    opened = TrialQueue(spec, storage, heartbeat_secs=1)
    trial = opened.take()
    trial.set_user_attr(WORKER, ['elsewhere', 1])
    with opened.heartbeat(trial):
        time.sleep(3.5)
        assert opened.recover() == 1


@both_databases
def test_a_slot_that_two_workers_queued_is_done_once(spec, storage):
    opened = TrialQueue(spec, storage)
    opened.study.enqueue_trial({}, user_attrs={SLOT: 3})  # the copy of a race
    assert sorted(work(spec, storage)) == [0, 1, 2, 3, 4, 5]
    assert states(opened)[3] == ['COMPLETE', 'FAIL']


def test_an_error_of_the_training_is_not_tried_again(spec, storage):
    opened = TrialQueue(spec, storage)
    trial = opened.take()
    trial.set_user_attr(ERROR, 'ValueError: x')
    opened.study.tell(trial, state=TrialState.FAIL)
    opened.recover()
    assert states(opened)[trial.user_attrs[SLOT]] == ['FAIL']


def test_parameters_that_kill_every_worker_are_given_up(spec, storage):
    opened = TrialQueue(dataclasses.replace(spec, trials=1), storage)
    for _ in range(10):
        trial = opened.take()
        if trial is None:
            break
        trial.set_user_attr(WORKER, [os.uname().nodename, 2**22 + 1])  # no such process
        opened.recover()
    assert states(opened) == {0: ['FAIL'] * 3}
    assert opened.given_up() == 1


@both_databases
@pytest.mark.parametrize(
    ('changes', 'told'),
    [
        ({'parameters': {'x': {'low': 0.0, 'high': 2.0}}}, r'parameters .*high=1\.0.*not .*high=2\.0'),
        ({'steps': 7}, 'steps null, not 7'),
        ({'fixed': {'train.batch_size': 3}}, 'fixed {}, not {"train.batch_size": 3}'),
        ({'sampler': 'random'}, 'sampler "tpe", not "random"'),
    ],
)
def test_a_name_stands_for_one_sweep(spec, storage, changes, told):
    TrialQueue(spec, storage, dataset='abc')
    same = {'parameters': {'x': {'low': 0.0, 'high': 1.0}}, 'name': 'queue'}
    TrialQueue(parse_spec({**same, 'trials': 9, 'pruner': 'asha'}), storage, dataset='abc')
    with pytest.raises(
        study.SweepError, match=f"holds a sweep 'queue' that was begun with {told}.*another name"
    ):
        TrialQueue(parse_spec({**same, **changes}), storage, dataset='abc')
    with pytest.raises(study.SweepError, match='begun with dataset abc, not abd'):
        TrialQueue(spec, storage, dataset='abd')


def test_workers_that_join_at_the_same_moment_share_one_sweep(spec, postgres):
    """PostgreSQL alone: SQLite's workers take turns at the door."""
    storage = postgres.create_database()
    spec = dataclasses.replace(spec, trials=16)
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        shares = list(pool.map(lambda _: work(spec, storage), range(4)))
    assert sorted(slot for share in shares for slot in share) == list(range(16))
    assert all(found.count('COMPLETE') == 1 for found in states(TrialQueue(spec, storage)).values())


@both_databases
def test_one_worker_at_a_time_is_alone(spec, storage):
    inside, most = [], []

    def enter(_: int) -> None:
        with TrialQueue(spec, storage).alone():
            inside.append(1)
            most.append(len(inside))
            time.sleep(0.05)
            inside.pop()

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        list(pool.map(enter, range(4)))
    assert most == [1, 1, 1, 1]


def test_the_driver_of_postgresql_is_named(spec, postgres):
    opened = TrialQueue(spec, postgres.create_database().replace('+psycopg', ''))
    assert len(opened.trials()) == 6


@pytest.mark.parametrize('address', ['sqlite:////proc/nowhere/study.db', 'postgresql://x@127.0.0.1:9/none'])
def test_a_database_that_cannot_be_used(spec, address):
    with pytest.raises(study.SweepError, match=f'the database {address[:6]}.* cannot be used'):
        TrialQueue(spec, address)
