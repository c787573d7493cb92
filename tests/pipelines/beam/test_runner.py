"""How shards are shared out to workers."""

import subprocess
import sys

import numpy as np
import pytest

from pipelines.beam.runner import _WORKER
from pipelines.shards.plan import spread


@pytest.mark.parametrize('workers', [1, 2, 7])
def test_every_shard_is_made_once_and_no_worker_waits_long(workers):
    seconds = np.random.default_rng(workers).uniform(1, 90, 60)
    groups = spread(range(60), workers, lambda i: seconds[i], str)
    assert len(groups) == workers
    assert sorted(i for group in groups for i in group) == list(range(60))
    loads = [sum(seconds[i] for i in group) for group in groups]
    assert max(loads) - min(loads) < 15  # dealt out by number, two groups are 70 s apart on average


def test_the_order_of_the_shards_does_not_matter():
    weights = {'a': 5, 'b': 4, 'c': 3}
    groups = [set(group) for group in spread(weights, 2, weights.__getitem__, str)]
    again = [set(group) for group in spread(list(weights)[::-1], 2, weights.__getitem__, str)]
    assert groups == again == [{'a'}, {'b', 'c'}]


def test_a_worker_starts_without_pandas_and_finds_it_when_it_is_needed():
    looks = "print('pandas' in sys.modules); import pandas; print(bool(pandas.DataFrame))"
    program = _WORKER.replace('sdk_worker_main.main(sys.argv)', looks)
    assert program != _WORKER
    done = subprocess.run([sys.executable, '-c', program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ['False', 'True']
