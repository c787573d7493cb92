"""A sweep's queue: no trial is lost and none is done twice, whoever dies when."""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import pathlib
import sqlite3
import subprocess
import sys
import threading
import time

import optuna
import pytest
from optuna.trial import TrialState

from experiments.sweeps import study
from experiments.sweeps.runner import PruningWatcher
from experiments.sweeps.spec import parse_spec
from experiments.sweeps.study import ERROR, SLOT, TrialQueue


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
    for trial in opened.trials():
        found.setdefault(trial.user_attrs[SLOT], []).append(trial.state.name)
    return found


def work(spec, storage, value=lambda trial, values: values['x'], **options) -> list[int]:
    """One worker: takes everything that waits; returns its slots."""
    opened = TrialQueue(spec, storage, **options)
    done = []

    def objective(trial):
        values = opened.suggest(trial)
        time.sleep(0.01)
        done.append(trial.user_attrs[SLOT])
        return value(trial, values)

    opened.work(objective)
    return done


@both_databases
def test_every_slot_is_done_once(spec, storage):
    assert sorted(work(spec, storage)) == [0, 1, 2, 3, 4, 5]
    assert work(spec, storage) == []


@both_databases
def test_many_workers_share_the_queue(spec, storage):
    """They join at the same moment: the first of them makes tables, study and queue."""
    spec = dataclasses.replace(spec, trials=24)
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        shares = list(pool.map(lambda _: work(spec, storage), range(4)))
    assert sorted(slot for share in shares for slot in share) == list(range(24))
    opened = TrialQueue(spec, storage)
    assert states(opened) == {slot: ['COMPLETE'] for slot in range(24)}


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

    def value(trial, values):
        assert 1e-3 <= values['x'] <= 1.0
        assert values['n'] in (2, 4, 6, 8)
        return (values['x'] - 0.5) ** 2 + values['n']

    assert len(work(found, storage, value)) == 20
    opened = TrialQueue(found, storage)
    assert opened.study.best_value < 2.3
    assert len({trial.params['x'] for trial in opened.trials()}) == 20


@pytest.mark.parametrize('pruner', ['median', 'hyperband', 'asha', 'none'])
def test_each_pruner_ends_a_hopeless_training_early(pruner, spec, storage):
    """Ten trainings, good and hopeless in turn, report as `PruningWatcher` lets them."""
    chosen = dataclasses.replace(spec, trials=10, pruner=pruner, steps=27)
    opened = TrialQueue(chosen, storage)
    pruned = []

    def objective(trial):
        opened.suggest(trial)
        hopeless = trial.user_attrs[SLOT] % 2 == 1
        watcher = PruningWatcher(opened, trial, lambda text: None)
        try:
            for step in range(1, 28):
                watcher.on_summary(step, {'losses/total_loss': 1.0 / step + 10.0 * hopeless})
        except optuna.TrialPruned:
            pruned.append(hopeless)
            raise
        return 10.0 * hopeless

    opened.work(objective)
    assert all(pruned) or pruner != 'median'
    assert (True in pruned) == (pruner != 'none')
    assert [trial.state for trial in opened.trials()].count(TrialState.PRUNED) == len(pruned)
    assert opened.study.best_value == 0.0


def test_a_grid_is_tried_completely(storage):
    grid = parse_spec({'parameters': {'x': [0.1, 0.2], 'y': [1, 2]}, 'sampler': 'grid', 'name': 'grid'})
    points = []
    work(grid, storage, lambda trial, values: points.append((values['x'], values['y'])) or 0.0)
    assert sorted(points) == [(0.1, 1), (0.1, 2), (0.2, 1), (0.2, 2)]


DIES = """
import os, signal, sys
from experiments.sweeps import study
from experiments.sweeps.spec import parse_spec

space = {"x": {"low": 0.0, "high": 1.0}}
spec = parse_spec({"parameters": space, "trials": int(sys.argv[3]), "name": "queue"})
queue = study.TrialQueue(spec, sys.argv[1], heartbeat_secs=1)
def objective(trial):
    if sys.argv[2] == "late":
        queue.suggest(trial)
    os.kill(os.getpid(), signal.SIGKILL)
if sys.argv[2] == "early":  # between taking a trial and its first sign of life
    import optuna
    optuna.Trial.__init__ = lambda *_: objective(None)
queue.work(objective)
"""


@both_databases
@pytest.mark.parametrize('when', ['late', 'early'])
def test_a_killed_workers_trial_is_done_by_another_with_its_parameters(spec, storage, when):
    """The other worker waits for it: the trial that is left over is the last one."""
    command = [sys.executable, '-c', DIES, storage, when, '6']
    done = subprocess.run(command, capture_output=True, check=False)
    assert done.returncode == -9, done.stderr.decode()
    opened = TrialQueue(spec, storage, heartbeat_secs=1)
    (lost,) = opened.study.get_trials(states=(TrialState.RUNNING,))
    slot = lost.user_attrs[SLOT]
    tried = {}
    work(spec, storage, lambda t, v: tried.setdefault(t.user_attrs[SLOT], v)['x'], heartbeat_secs=1)
    assert sorted(tried) == [0, 1, 2, 3, 4, 5]
    assert tried[slot] == (lost.params or tried[slot])
    assert bool(lost.params) == (when == 'late')
    assert states(opened) == {n: ['FAIL', 'COMPLETE'] if n == slot else ['COMPLETE'] for n in range(6)}


def test_a_sign_of_life_keeps_a_trial(spec, storage, monkeypatch):
    """A trial longer than a worker may be silent; others look at it all the while."""
    monkeypatch.setattr(study, 'POLL_SECS', 0.2)
    spec = dataclasses.replace(spec, trials=1)
    other = threading.Thread(target=work, args=(spec, storage), kwargs={'heartbeat_secs': 1})

    def value(trial, values):
        other.start()
        time.sleep(6.0)
        return 1.0

    assert work(spec, storage, value, heartbeat_secs=1) == [0]
    other.join()
    assert states(TrialQueue(spec, storage)) == {0: ['COMPLETE']}


def test_an_interrupted_trial_is_queued_again_as_often_as_it_happens(spec, storage):
    spec = dataclasses.replace(spec, trials=1)
    seen = []

    def interrupt(trial, values):
        seen.append(values)
        raise KeyboardInterrupt

    for _ in range(4):
        with pytest.raises(KeyboardInterrupt):
            work(spec, storage, interrupt)
    assert states(TrialQueue(spec, storage)) == {0: ['FAIL'] * 4 + ['WAITING']}
    assert work(spec, storage, lambda trial, values: seen.append(values) or 1.0) == [0]
    assert seen == [seen[0]] * 5
    assert TrialQueue(spec, storage).given_up() == 0


def test_a_trial_that_is_given_back_is_taken_by_a_worker_that_waits(spec, storage, monkeypatch):
    monkeypatch.setattr(study, 'POLL_SECS', 0.1)
    spec = dataclasses.replace(spec, trials=1)
    mine, other = TrialQueue(spec, storage), TrialQueue(spec, storage)
    values = []
    waiting = threading.Thread(target=other.work, args=(lambda t: values.append(other.suggest(t)) or 1.0,))

    def interrupt(trial):
        values.append(mine.suggest(trial))
        waiting.start()
        time.sleep(0.5)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        mine.work(interrupt)
    waiting.join()
    assert states(mine) == {0: ['FAIL', 'COMPLETE']}
    assert values == [values[0]] * 2


@pytest.mark.parametrize('error', [OSError(28, 'No space left on device'), PermissionError('no')])
def test_an_error_of_the_machine_ends_the_worker_and_not_the_trial(spec, storage, error):
    with pytest.raises(OSError, match=str(error.args[-1])):
        work(spec, storage, lambda trial, values: (_ for _ in ()).throw(error))
    assert sorted(work(spec, storage)) == [0, 1, 2, 3, 4, 5]


def test_an_error_of_the_training_is_not_tried_again(spec, storage):
    def fail(trial, values):
        if trial.user_attrs[SLOT] == 2:
            raise ValueError('x')
        return 1.0

    assert len(work(spec, storage, fail)) == 6
    opened = TrialQueue(spec, storage)
    assert states(opened)[2] == ['FAIL']
    assert opened.given_up() == 1
    (failed,) = [trial for trial in opened.trials() if trial.user_attrs[SLOT] == 2]
    assert failed.user_attrs[ERROR] == 'ValueError: x'
    assert work(spec, storage) == []


@pytest.mark.slow
def test_parameters_that_kill_every_worker_are_given_up(spec, storage):
    spec = dataclasses.replace(spec, trials=1)
    TrialQueue(spec, storage)
    for _ in range(3):
        done = subprocess.run([sys.executable, '-c', DIES, storage, 'late', '1'], check=False)
        assert done.returncode == -9
        time.sleep(5)
    opened = TrialQueue(spec, storage, heartbeat_secs=1)
    opened.work(lambda trial: 1.0)
    assert states(opened) == {0: ['FAIL'] * 3}
    assert opened.given_up() == 1


def test_a_slot_that_was_lost_while_it_was_queued_again_is_found(spec, storage):
    """Its worker was taken for dead by one that died before it could queue the slot again."""
    opened = TrialQueue(spec, storage)
    waiting = opened.trials()[3]
    opened.study._storage.set_trial_state_values(waiting._trial_id, TrialState.FAIL)
    assert sorted(work(spec, storage)) == [0, 1, 2, 3, 4, 5]


OPENS = """
import sys, time
from experiments.sweeps import study
from experiments.sweeps.spec import parse_spec

spec = parse_spec({"parameters": {"x": {"low": 0.0, "high": 1.0}}, "trials": 6, "name": "queue"})
import optuna, sqlalchemy.orm
print("ready", flush=True)
sys.stdin.readline()
print(len(study.TrialQueue(spec, sys.argv[1]).trials()), flush=True)
"""


def opening(storage) -> subprocess.Popen:
    """A process that opens the study when it is told to."""
    pipes = {'stdin': subprocess.PIPE, 'stdout': subprocess.PIPE, 'stderr': subprocess.PIPE}
    return subprocess.Popen([sys.executable, '-c', OPENS, storage], text=True, **pipes)


@pytest.mark.slow
@both_databases
def test_many_processes_use_a_new_study_at_once(spec, storage):
    processes = [opening(storage) for _ in range(8)]
    for process in processes:
        assert process.stdout.readline() == 'ready\n'
    for process in processes:
        process.stdin.write('go\n')
        process.stdin.flush()
    for process in processes:
        out, err = process.communicate(timeout=120)
        assert (process.returncode, out) == (0, '6\n'), err
    assert sorted(work(spec, storage)) == [0, 1, 2, 3, 4, 5]


def test_a_kill_between_a_table_and_its_index_breaks_nothing(spec, storage):
    """Without its index the name of a study is not unique."""
    (path := pathlib.Path(storage.removeprefix('sqlite:///'))).parent.mkdir()
    optuna.storages.RDBStorage(storage)
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute('DROP INDEX ix_studies_study_name')
    TrialQueue(spec, storage)
    assert sorted(work(spec, storage)) == [0, 1, 2, 3, 4, 5]


@pytest.mark.slow
@both_databases
def test_a_kill_while_the_study_is_made_breaks_nothing(spec, storage):
    """The same database all the while: each process is killed a little later than the one before it."""
    for wait in (0.0, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 0.8, 1.2):
        process = opening(storage)
        assert process.stdout.readline() == 'ready\n'
        process.stdin.write('go\n')
        process.stdin.flush()
        time.sleep(wait)
        process.kill()
        process.communicate()
    assert sorted(work(spec, storage)) == [0, 1, 2, 3, 4, 5]
    assert states(TrialQueue(spec, storage)) == {slot: ['COMPLETE'] for slot in range(6)}


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


@both_databases
def test_one_worker_at_a_time_is_alone(spec, storage):
    inside, most = [], []

    def enter(_: int) -> None:
        with TrialQueue(spec, storage).database.alone():
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
