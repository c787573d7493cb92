"""The journal between a training and a tracking server."""

from __future__ import annotations

import subprocess
import sys
import threading
import time

import pytest

from experiments.tracking.journal import Journal, Postponed, Rejected, read_rows


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
    monkeypatch.setattr('experiments.tracking.journal._FIRST_RETRY_SECS', 0.02)


def test_rows_arrive_once_and_in_order(tmp_path):
    server = Server()
    journal = Journal(tmp_path).start(server)
    for value in range(500):
        journal.put({'kind': 'metrics', 'value': value})
    assert journal.close(5) == 0
    assert server.values() == list(range(500))
    assert server.calls < 500  # rows travel together


def test_an_absent_server_neither_slows_nor_stops_the_sender(tmp_path):
    server = Server()
    server.down = True
    journal = Journal(tmp_path).start(server)
    start = time.perf_counter()
    for value in range(200):
        journal.put({'value': value})
    assert time.perf_counter() - start < 1.0
    server.down = False
    assert journal.close(5) == 0
    assert server.values() == list(range(200))


def test_what_was_not_delivered_waits_on_disk_for_the_next_process(tmp_path):
    server = Server()
    journal = Journal(tmp_path).start(server)
    journal.put({'value': 0})
    assert journal.flush(5)
    server.down = True
    journal.put({'value': 1})
    journal.put({'value': 2})
    assert journal.close(0.1) == 2
    assert 'refused' in journal.problem
    server.down = False
    again = Journal(tmp_path).start(server)
    again.put({'value': 3})
    assert again.close(5) == 0
    assert server.values() == [0, 1, 2, 3]


def test_a_lost_run_is_sent_again_from_the_beginning(tmp_path):
    first = Journal(tmp_path).start(Server())
    first.put({'value': 0})
    first.close(5)
    server = Server()
    second = Journal(tmp_path).start(server, resend=True)
    second.put({'value': 1})
    second.close(5)
    assert server.values() == [0, 1]


def test_a_refused_row_is_left_out_and_named(tmp_path):
    taken = []

    def deliver(rows):
        if any(row['value'] == 'bad' for row in rows):
            raise Rejected('bad value')
        taken.extend(row['value'] for row in rows)

    journal = Journal(tmp_path).start(deliver)
    for value in ('a', 'bad', 'b'):
        journal.put({'value': value})
    assert journal.close(5) == 0
    assert taken == ['a', 'b']
    assert journal.rejected == ['bad value']


class FullDisk(Server):
    """Takes metrics; files only when there is room."""

    room = False

    def __call__(self, rows):
        if rows[0]['kind'] == 'artifact' and not self.room:
            raise Postponed('no space left')
        super().__call__(rows)


def test_a_row_that_must_wait_holds_up_no_other(tmp_path):
    server = FullDisk()
    journal = Journal(tmp_path).start(server)
    for kind in ('metrics', 'artifact', 'metrics', 'artifact', 'status'):
        journal.put({'kind': kind, 'value': journal._next})
    start = time.perf_counter()
    assert journal.close(30) == 2
    assert time.perf_counter() - start < 10  # it does not sit out the time when nothing will change
    assert server.values() == [1, 3, 5]
    assert journal.problem == 'no space left'
    again = Journal(tmp_path).start(server)  # another process knows which are left
    assert again.waiting == 2
    server.room = True
    again.put({'kind': 'metrics', 'value': 6})
    assert again.close(5) == 0
    assert sorted(server.values()) == [1, 2, 3, 4, 5, 6]
    assert Journal(tmp_path).start(server).waiting == 0


def test_what_was_put_off_is_delivered_as_soon_as_there_is_room(tmp_path):
    server = FullDisk()
    journal = Journal(tmp_path).start(server)
    journal.put({'kind': 'artifact', 'value': 1})
    assert not journal.flush(10)
    journal.put({'kind': 'metrics', 'value': 2})
    server.room = True
    assert journal.flush(10)
    assert sorted(server.values()) == [1, 2]
    assert journal.problem == ''
    journal.close(1)


def test_a_line_that_a_crash_cut_off_is_left_out(tmp_path):
    (tmp_path / 'outbox.jsonl').write_text('{"n": 1, "value": 0}\n{"n": 2, "va')
    assert [row['n'] for row in read_rows(tmp_path)] == [1]


def test_rows_after_a_cut_off_line_are_kept(tmp_path):
    (tmp_path / 'outbox.jsonl').write_text('{"n": 1, "value": 0}\n{"n": 2, "va')
    server = Server()
    journal = Journal(tmp_path).start(server)
    journal.put({'value': 5})
    journal.close(5)
    again = Server()
    Journal(tmp_path).start(again, resend=True).close(5)
    assert again.values() == [0, 5]


def test_a_full_disk_does_not_stop_the_delivery(tmp_path):
    server = Server()
    journal = Journal(tmp_path / 'missing').start(server)  # the journal cannot be written there
    journal.put({'value': 0})
    assert journal.flush(5)
    assert server.values() == [0]
    journal.close(1)


def test_rows_from_many_threads_are_all_delivered(tmp_path):
    server = Server()
    journal = Journal(tmp_path).start(server)
    threads = [
        threading.Thread(target=lambda k=k: [journal.put({'value': (k, i)}) for i in range(50)])
        for k in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    journal.close(5)
    assert sorted(map(tuple, server.values())) == [(k, i) for k in range(4) for i in range(50)]
    assert [row['n'] for row in server.rows] == list(range(1, 201))


def test_one_process_at_a_time_has_a_journal(tmp_path):
    first = Journal(tmp_path).start(Server())
    code = f'from experiments.tracking.journal import Journal; Journal({str(tmp_path)!r})'
    command = [sys.executable, '-c', code]
    other = subprocess.run(command, capture_output=True, text=True, check=False)
    assert other.stderr.splitlines()[-1].endswith(f'{tmp_path} is being recorded by another process.')
    first.close(5)
    assert subprocess.run(command, capture_output=True, text=True, check=False).stderr == ''


def test_rows_that_never_reached_the_disk_do_not_hide_later_ones(tmp_path):
    journal = Journal(tmp_path).start(Server())
    journal.put({'value': 0})
    assert journal.flush(5)
    journal._file.close()
    journal._file = open('/dev/full', 'ab', buffering=0)  # noqa: SIM115
    for value in range(1, 5):
        journal.put({'value': value})
    assert journal.close(5) == 0
    server = Server()
    server.down = True
    second = Journal(tmp_path).start(server)
    second.put({'value': 5})
    second.close(0.1)
    third = Server()
    Journal(tmp_path).start(third).close(5)
    assert third.values() == [5]


def test_a_line_that_a_full_disk_cuts_off_costs_no_other(tmp_path):
    journal = Journal(tmp_path).start(Server())
    journal._file.write(b'{"n": 1, "val')
    journal._torn = True
    journal.put({'value': 2})
    journal.close(5)
    assert [row['value'] for row in read_rows(tmp_path)] == [2]


def test_lines_that_are_no_rows_are_left_out(tmp_path):
    lines = [
        '[1]',
        '"n"',
        '{"n": "1"}',
        '{"n": 1e999}',
        '{}',
        '[' * 100_000,
        '\xff\x00',
        '{"n": 3, "value": 0}',
    ]
    (tmp_path / 'outbox.jsonl').write_text('\n'.join(lines))
    assert [row['n'] for row in read_rows(tmp_path)] == [3]
