"""A study's database goes away and comes back: no trial is lost or done twice, nobody sees a traceback."""

from __future__ import annotations

import contextlib
import threading
import time

import pytest
from optuna.trial import TrialState

from benchmarks.postgres import PostgresCluster
from ddsp.errors import ConfigError
from experiments.sweeps import study
from experiments.sweeps.runner import PruningWatcher
from experiments.sweeps.spec import parse_spec
from experiments.sweeps.study import SLOT, TrialLost, TrialQueue
from experiments.sweeps.study_storage import DatabaseAwayError


@pytest.fixture(autouse=True)
def quick_looks(monkeypatch):
    monkeypatch.setattr(study, 'POLL_SECS', 0.2)


@pytest.fixture
def spec():
    return parse_spec({'parameters': {'x': {'low': 0.0, 'high': 1.0}}, 'trials': 3, 'name': 'outage'})


@pytest.fixture
def storage(postgres):
    return postgres.create_database()


@contextlib.contextmanager
def away(cluster: PostgresCluster, seconds: float):
    """The server is stopped, and comes back by itself."""
    cluster.stop('immediate')
    back = threading.Timer(seconds, cluster.start)
    back.start()
    try:
        yield
    finally:
        back.join()


def slot_states(queue: TrialQueue) -> dict[int, list[str]]:
    found: dict[int, list[str]] = {}
    for trial in queue.trials():
        found.setdefault(trial.user_attrs[SLOT], []).append(trial.state.name)
    return found


DONE_ONCE = {slot: ['COMPLETE'] for slot in range(3)}


def test_every_part_of_a_trial_waits_for_the_database(spec, storage, postgres, capfd):
    queue = TrialQueue(spec, storage, heartbeat_secs=1)
    told = []

    def objective(trial):
        with away(postgres, 1.0):
            values = queue.suggest(trial)
        assert queue.suggest(trial) == values
        with away(postgres, 1.0):
            queue.note(trial, 'run_id', f'run {trial.user_attrs[SLOT]}')
        postgres.stop('immediate')  # Optuna ends the trial, and takes the next
        back = threading.Timer(1.0, postgres.start)
        back.start()
        told.append(back)
        return values['x']

    queue.work(objective)
    for back in told:
        back.join()
    assert slot_states(queue) == DONE_ONCE
    for trial in queue.trials():
        assert trial.value == trial.params['x']
        assert trial.user_attrs['run_id'] == f'run {trial.user_attrs[SLOT]}'
    lines = capfd.readouterr().err.splitlines()
    assert lines
    assert all(line.startswith('Warning: the database postgresql+psycopg://ddsp@127.0.0.1') for line in lines)


def test_an_answer_that_was_lost_is_no_failure(spec, storage, monkeypatch):
    from optuna.storages import RDBStorage
    from sqlalchemy.exc import OperationalError

    queue = TrialQueue(spec, storage, heartbeat_secs=1)
    change, lost = RDBStorage.set_trial_state_values, []

    def change_and_lose(storage, trial_id, state, values=None):
        changed = change(storage, trial_id, state, values)
        if state == TrialState.COMPLETE and not lost:
            lost.append(changed)
            raise OperationalError('COMMIT', {}, Exception('server closed the connection unexpectedly'))
        return changed

    monkeypatch.setattr(RDBStorage, 'set_trial_state_values', change_and_lose)
    queue.work(lambda trial: queue.suggest(trial)['x'])
    assert lost
    assert slot_states(queue) == DONE_ONCE


def test_the_living_are_not_taken_for_dead_after_an_outage(spec, storage, postgres):
    """The server is away for longer than a worker may be silent, and another worker waits for the last
    trial."""
    queue, other = TrialQueue(spec, storage, heartbeat_secs=1), TrialQueue(spec, storage, heartbeat_secs=1)
    taken = threading.Event()

    def objective(trial):
        if trial.user_attrs[SLOT] == 0:
            taken.set()
            time.sleep(3.0)
            with away(postgres, 6.0):
                pass
            time.sleep(4.0)
        return queue.suggest(trial)['x']

    mine = threading.Thread(target=queue.work, args=(objective,))
    mine.start()
    assert taken.wait(20)
    other.work(lambda trial: other.suggest(trial)['x'])
    mine.join()
    assert slot_states(queue) == DONE_ONCE


@pytest.mark.parametrize('reports', [True, False])
def test_whose_trial_was_taken_over_stops_and_goes_on_with_the_next(spec, storage, reports):
    """A machine that was suspended comes back; the other worker's result counts."""
    queue, other = TrialQueue(spec, storage, heartbeat_secs=1), TrialQueue(spec, storage, heartbeat_secs=1)
    lost = []

    def objective(trial):
        if not lost:
            lost.append(trial.user_attrs[SLOT])
            other.study._storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)
            other.study.enqueue_trial({'x': 0.5}, user_attrs={SLOT: trial.user_attrs[SLOT]})
            other.work(lambda found: other.suggest(found)['x'])
            watcher = PruningWatcher(queue, trial, lambda text: None)
            if reports:
                with pytest.raises(TrialLost):
                    watcher.on_summary(1, {'losses/total_loss': 1.0})
            with pytest.raises(TrialLost):
                queue.note(trial, 'run_id', 'x')
            if reports:
                raise TrialLost
        return 7.0

    queue.work(objective)
    assert slot_states(queue) == DONE_ONCE | {lost[0]: ['FAIL', 'COMPLETE']}
    assert [t.value for t in queue.trials() if t.user_attrs[SLOT] == lost[0]] == [None, 0.5]


def test_a_training_does_not_wait_and_its_reports_follow(spec, storage, postgres):
    queue = TrialQueue(spec, storage, heartbeat_secs=1)

    def objective(trial):
        watcher = PruningWatcher(queue, trial, lambda text: None)
        watcher.on_summary(1, {'losses/total_loss': 3.0})
        postgres.stop()
        try:
            start = time.monotonic()
            watcher.on_summary(2, {'losses/total_loss': 2.0})
            watcher.on_summary(3, {'losses/total_loss': 1.5})
            assert time.monotonic() - start < 1.0
        finally:
            postgres.start()
        watcher.on_summary(4, {'losses/total_loss': 1.0})
        return 1.0

    queue.work(objective)
    for trial in queue.trials():
        assert trial.intermediate_values == {1: 3.0, 2: 2.0, 3: 1.5, 4: 1.0}


def test_patience_ends_with_one_message(spec, storage, postgres):
    queue = TrialQueue(spec, storage.replace('ddsp@', 'ddsp:secret@'), heartbeat_secs=1, patience_secs=1.0)

    def objective(trial):
        postgres.stop()
        return 1.0

    try:
        start = time.monotonic()
        with pytest.raises(
            DatabaseAwayError, match=r'ddsp:\*\*\*@.* is away \(.*\)\. Nothing is lost'
        ) as told:
            queue.work(objective)
        assert 1.0 <= time.monotonic() - start < 8.0
        assert 'secret' not in str(told.value)
    finally:
        postgres.start()
    other = TrialQueue(spec, storage, heartbeat_secs=1)
    other.work(lambda trial: other.suggest(trial)['x'])
    assert [names[-1] for names in slot_states(other).values()] == ['COMPLETE'] * 3


def test_a_database_of_another_kind_is_refused(spec):
    with pytest.raises(ConfigError, match=r'mysql://x:\*\*\*@h/y is of a kind that a sweep cannot use'):
        TrialQueue(spec, 'mysql://x:secret@h/y')
