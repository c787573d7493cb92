"""The queue between a training and a tracking server."""

from __future__ import annotations

import threading
import time

import pytest

from experiments.outbox import Outbox, Postponed, Rejected, read_rows


class Server:
    """Receives rows; `down` makes it fail."""

    def __init__(self):
        self.rows = []
        self.down = False
        self.calls = 0

    def __call__(self, rows):
        self.calls += 1
        if self.down:
            raise ConnectionError('refused')
        self.rows += rows

    def values(self):
        return [row['value'] for row in self.rows]


@pytest.fixture(autouse=True)
def quick_retries(monkeypatch):
    monkeypatch.setattr('experiments.outbox._FIRST_RETRY_SECS', 0.02)


def test_rows_arrive_once_and_in_order(tmp_path):
    server = Server()
    outbox = Outbox(tmp_path, server)
    for value in range(500):
        outbox.put({'kind': 'metrics', 'value': value})
    assert outbox.close(5) == 0
    assert server.values() == list(range(500))
    assert server.calls < 500  # rows travel together


def test_an_absent_server_neither_slows_nor_stops_the_sender(tmp_path):
    server = Server()
    server.down = True
    outbox = Outbox(tmp_path, server)
    start = time.perf_counter()
    for value in range(200):
        outbox.put({'value': value})
    assert time.perf_counter() - start < 1.0
    server.down = False
    assert outbox.close(5) == 0
    assert server.values() == list(range(200))


def test_what_was_not_delivered_waits_on_disk_for_the_next_process(tmp_path):
    server = Server()
    outbox = Outbox(tmp_path, server)
    outbox.put({'value': 0})
    assert outbox.flush(5)
    server.down = True
    outbox.put({'value': 1})
    outbox.put({'value': 2})
    assert outbox.close(0.1) == 2
    assert 'refused' in outbox.problem
    server.down = False
    again = Outbox(tmp_path, server)
    again.put({'value': 3})
    assert again.close(5) == 0
    assert server.values() == [0, 1, 2, 3]


def test_a_lost_run_is_sent_again_from_the_beginning(tmp_path):
    first = Outbox(tmp_path, Server())
    first.put({'value': 0})
    first.close(5)
    server = Server()
    second = Outbox(tmp_path, server, resend=True)
    second.put({'value': 1})
    second.close(5)
    assert server.values() == [0, 1]


def test_a_refused_row_is_left_out_and_named(tmp_path):
    taken = []

    def deliver(rows):
        if any(row['value'] == 'bad' for row in rows):
            raise Rejected('bad value')
        taken.extend(row['value'] for row in rows)

    outbox = Outbox(tmp_path, deliver)
    for value in ('a', 'bad', 'b'):
        outbox.put({'value': value})
    assert outbox.close(5) == 0
    assert taken == ['a', 'b']
    assert outbox.rejected == ['bad value']


class FullDisk(Server):
    """Takes metrics; files only when there is room."""

    room = False

    def __call__(self, rows):
        if rows[0]['kind'] == 'artifact' and not self.room:
            raise Postponed('no space left')
        super().__call__(rows)


def test_a_row_that_must_wait_holds_up_no_other(tmp_path):
    server = FullDisk()
    outbox = Outbox(tmp_path, server)
    for kind in ('metrics', 'artifact', 'metrics', 'artifact', 'status'):
        outbox.put({'kind': kind, 'value': outbox._next})
    start = time.perf_counter()
    assert outbox.close(30) == 2
    assert time.perf_counter() - start < 10  # it does not sit out the time when nothing will change
    assert server.values() == [1, 3, 5]
    assert outbox.problem == 'no space left'
    again = Outbox(tmp_path, server)  # another process knows which are left
    assert again.waiting == 2
    server.room = True
    again.put({'kind': 'metrics', 'value': 6})
    assert again.close(5) == 0
    assert sorted(server.values()) == [1, 2, 3, 4, 5, 6]
    assert Outbox(tmp_path, server).waiting == 0


def test_what_was_put_off_is_delivered_as_soon_as_there_is_room(tmp_path):
    server = FullDisk()
    outbox = Outbox(tmp_path, server)
    outbox.put({'kind': 'artifact', 'value': 1})
    assert not outbox.flush(10)
    outbox.put({'kind': 'metrics', 'value': 2})
    server.room = True
    assert outbox.flush(10)
    assert sorted(server.values()) == [1, 2]
    assert outbox.problem == ''
    outbox.close(1)


def test_a_line_that_a_crash_cut_off_is_left_out(tmp_path):
    (tmp_path / 'outbox.jsonl').write_text('{"n": 1, "value": 0}\n{"n": 2, "va')
    assert [row['n'] for row in read_rows(tmp_path / 'outbox.jsonl')] == [1]


def test_rows_after_a_cut_off_line_are_kept(tmp_path):
    (tmp_path / 'outbox.jsonl').write_text('{"n": 1, "value": 0}\n{"n": 2, "va')
    server = Server()
    outbox = Outbox(tmp_path, server)
    outbox.put({'value': 5})
    outbox.close(5)
    again = Server()
    Outbox(tmp_path, again, resend=True).close(5)
    assert again.values() == [0, 5]


def test_a_full_disk_does_not_stop_the_delivery(tmp_path):
    server = Server()
    outbox = Outbox(tmp_path / 'missing', server)  # the journal cannot be written there
    outbox.put({'value': 0})
    assert outbox.flush(5)
    assert server.values() == [0]
    outbox.close(1)


def test_rows_from_many_threads_are_all_delivered(tmp_path):
    server = Server()
    outbox = Outbox(tmp_path, server)
    threads = [
        threading.Thread(target=lambda k=k: [outbox.put({'value': (k, i)}) for i in range(50)])
        for k in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    outbox.close(5)
    assert sorted(map(tuple, server.values())) == [(k, i) for k in range(4) for i in range(50)]
    assert [row['n'] for row in server.rows] == list(range(1, 201))
