"""What a cluster exchanges: the arithmetic, and the tables of the page."""

import math
import pathlib
import re

import pytest

from benchmarks import exchange

PAGE = (pathlib.Path(__file__).parents[2] / 'docs' / 'benchmarks' / 'scaling.md').read_text()


def ring(values):
    """A ring all-reduce of one number per device and piece; returns sums and what each device sent."""
    n = len(values)
    state, sent = [list(each) for each in values], [0] * n
    for phase in range(2):
        for turn in range(n - 1):
            pieces = [(device, (device - turn + phase) % n) for device in range(n)]
            for device, piece, value in [(d, p, state[d][p]) for d, p in pieces]:
                there = (device + 1) % n
                state[there][piece] = value if phase else state[there][piece] + value
                sent[device] += 1
    return state, sent


@pytest.mark.parametrize('n', [2, 3, 8])
def test_a_ring_moves_what_the_formula_says(n):
    state, sent = ring([[10 * device + piece for piece in range(n)] for device in range(n)])
    sums = [sum(10 * device + piece for device in range(n)) for piece in range(n)]
    assert state == [sums] * n
    assert sent == [exchange.moved(n, n)] * n


def test_efficiency_falls_with_a_faster_step_and_a_slower_link():
    fast, slow = exchange.CLUSTERS[0], exchange.CLUSTERS[2]
    assert fast.exchange_secs(19.4e6) < slow.exchange_secs(19.4e6)
    assert slow.efficiency(19.4e6, 0.02) < slow.efficiency(19.4e6, 0.05) < fast.efficiency(19.4e6, 0.05) < 1
    secs = exchange.Cluster('', 2, 1, 1e6, 0.5, 2).exchange_secs(1e6)
    assert math.isclose(secs, 1.0 + 1.0)  # one megabyte at a megabyte a second, and two waits


@pytest.mark.slow
def test_the_page_has_what_the_command_prints(capsys):
    assert exchange.main() == 0
    rows = [line for line in capsys.readouterr().out.splitlines() if re.search(r'\d', line)]
    assert len(rows) == len(exchange.PRESETS) + len(exchange.CLUSTERS) + 2  # and the heads
    assert all(row in PAGE for row in rows)
