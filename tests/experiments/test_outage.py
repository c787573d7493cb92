"""A study's database goes away and comes back: no trial is lost or done twice, nobody sees a traceback."""

from __future__ import annotations

import contextlib
import threading
import time

import pytest
from optuna.trial import TrialState

from benchmarks.postgres import PostgresCluster
from experiments.study import SLOT, WORKER, DatabaseAwayError, SweepError, TrialLost, TrialQueue
from experiments.sweep_spec import parse_spec
from experiments.watchers import PruningWatcher


@pytest.fixture
def spec():
    return parse_spec({'parameters': {'x': {'low': 0.0, 'high': 1.0}}, 'trials': 3, 'name': 'outage'})


@pytest.fixture
def storage(postgres):
    return postgres.create_database()


@contextlib.contextmanager
def away(cluster: PostgresCluster, seconds: float):
    """The server is stopped, and comes back by itself."""
    cluster.stop()
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


def test_every_part_of_a_trial_waits_for_the_database(spec, storage, postgres, capfd):
    queue = TrialQueue(spec, storage)
    with away(postgres, 1.5):
        trial = queue.take()
    slot = trial.user_attrs[SLOT]
    with away(postgres, 1.0):
        values = queue.suggest(trial)
    assert queue.suggest(trial) == values
    with away(postgres, 1.0):
        queue.note(trial, 'run_id', 'abc')
    with away(postgres, 1.0):
        queue.tell(trial, 2.5)
    with away(postgres, 1.0):
        assert queue.recover() == 0
    (done,) = [found for found in queue.trials() if found.state == TrialState.COMPLETE]
    assert (done.value, done.user_attrs[SLOT], done.user_attrs['run_id']) == (2.5, slot, 'abc')
    assert slot_states(queue) == {other: ['COMPLETE' if other == slot else 'WAITING'] for other in range(3)}
    told = capfd.readouterr().err.splitlines()
    assert told
    assert all(line.startswith('Warning: the database postgresql+psycopg://ddsp@127.0.0.1') for line in told)


def test_a_restart_in_the_middle_of_taking_leaves_one_owner(spec, storage, postgres, monkeypatch):
    """The lock is lost between taking a trial and saying whose it is; another worker is quicker then."""
    queue, other = TrialQueue(spec, storage), TrialQueue(spec, storage)
    beat, taken = queue._beat, []

    def restart(trial):
        if not taken:
            postgres.stop('immediate')
            postgres.start()
            taken.append(other.take())
        beat(trial)

    monkeypatch.setattr(queue, '_beat', restart)
    mine, theirs = queue.take(), taken[0]
    assert mine.user_attrs[SLOT] != theirs.user_attrs[SLOT]
    other.recover()
    running = [name for names in slot_states(queue).values() for name in names if name == 'RUNNING']
    assert len(running) == 2
    queue.tell(mine, 1.0)
    other.tell(theirs, 2.0)
    queue.tell(queue.take(), 3.0)
    assert queue.take() is None
    assert all(names.count('COMPLETE') == 1 for names in slot_states(queue).values())


def test_an_answer_that_was_lost_is_no_failure(spec, storage, monkeypatch):
    from sqlalchemy.exc import OperationalError

    queue = TrialQueue(spec, storage)
    trial = queue.take()
    tell, lost = queue.study.tell, []

    def tell_and_lose(*arguments, **options):
        told = tell(*arguments, **options)
        if not lost:
            lost.append(told)
            raise OperationalError('COMMIT', {}, Exception('server closed the connection unexpectedly'))
        return told

    monkeypatch.setattr(queue.study, 'tell', tell_and_lose)
    queue.tell(trial, 1.5)
    assert lost
    assert slot_states(queue)[trial.user_attrs[SLOT]] == ['COMPLETE']


def test_the_living_are_not_taken_for_dead_after_an_outage(spec, storage, postgres):
    """The server is away for longer than a worker may be silent."""
    queue, other = TrialQueue(spec, storage, heartbeat_secs=1), TrialQueue(spec, storage, heartbeat_secs=1)
    trial = queue.take()
    trial.set_user_attr(WORKER, ['elsewhere', 1])
    time.sleep(2.1)
    with queue.heartbeat(trial) as lost:
        with away(postgres, 4.0):
            assert other.recover() == 1
        for _ in range(6):
            assert other.recover() == 1
            time.sleep(0.5)
        assert not lost.is_set()
    time.sleep(3.5)
    assert other.recover() == 0  # and the silent are


def test_whose_trial_was_taken_over_stops(spec, storage):
    queue, other = TrialQueue(spec, storage, heartbeat_secs=1), TrialQueue(spec, storage)
    trial = queue.take()
    with queue.heartbeat(trial) as lost:
        other.study.tell(trial.number, state=TrialState.FAIL)
        assert lost.wait(5)
        watcher = PruningWatcher(trial, spec, lambda text: None, lost, queue.database.notice)
        with pytest.raises(TrialLost):
            watcher.on_summary(1, {'losses/total_loss': 1.0})
    for act in (lambda: queue.tell(trial, 1.0), lambda: queue.note(trial, 'run_id', 'x')):
        with pytest.raises(TrialLost):
            act()
    queue.fail(trial, 'too late')
    other.recover()
    assert slot_states(other)[trial.user_attrs[SLOT]] == ['FAIL', 'WAITING']


def test_a_training_does_not_wait_and_its_reports_follow(spec, storage, postgres):
    queue = TrialQueue(spec, storage)
    trial = queue.take()
    watcher = PruningWatcher(trial, spec, lambda text: None, threading.Event(), queue.database.notice)
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
    (found,) = [one for one in queue.trials() if one.number == trial.number]
    assert found.intermediate_values == {1: 3.0, 2: 2.0, 3: 1.5, 4: 1.0}


def test_patience_ends_with_one_message(spec, storage, postgres):
    queue = TrialQueue(spec, storage.replace('ddsp@', 'ddsp:secret@'), patience_secs=1.0)
    postgres.stop()
    try:
        start = time.monotonic()
        with pytest.raises(
            DatabaseAwayError, match=r'ddsp:\*\*\*@.* is away \(.*\)\. Nothing is lost'
        ) as told:
            queue.take()
        assert 1.0 <= time.monotonic() - start < 5.0
        assert 'secret' not in str(told.value)
    finally:
        postgres.start()
    assert queue.take() is not None


def test_a_database_of_another_kind_is_refused(spec):
    with pytest.raises(SweepError, match='mysql://x/y is of a kind that a sweep cannot use: give sqlite:///'):
        TrialQueue(spec, 'mysql://x/y')
