"""How shards are shared out to workers."""

import subprocess
import sys

import numpy as np
import pytest

from pipelines.beam.plan import spread
from pipelines.beam.runner import _WORKER
from pipelines.beam.shards import ShardPlan
from pipelines.options import PrepareOptions
from pipelines.sources.splits import Piece


def share_out(plans, workers):
    return spread(plans, workers, lambda plan: plan.key)


def plans_of(seconds):
    pieces = [Piece(f'{i}.wav', f'{i:064d}', 'train', seconds=float(s)) for i, s in enumerate(seconds)]
    options = PrepareOptions()
    return [
        ShardPlan('train', i, len(pieces), (piece,), 'yin', '', options) for i, piece in enumerate(pieces)
    ]


@pytest.mark.parametrize('workers', [1, 2, 7])
def test_every_shard_is_made_once_and_no_worker_waits_long(workers):
    seconds = np.random.default_rng(workers).uniform(1, 90, 60)
    plans = plans_of(seconds)
    groups = share_out(plans, workers)
    assert len(groups) == workers
    assert sorted(plan.index for group in groups for plan in group) == list(range(60))
    loads = [sum(plan.seconds for plan in group) for group in groups]
    assert max(loads) - min(loads) < 15  # dealt out by number, two groups are 70 s apart on average


def test_the_order_of_the_plans_does_not_matter():
    plans = plans_of([5, 4, 3])
    groups = [{plan.index for plan in group} for group in share_out(plans, 2)]
    assert groups == [{plan.index for plan in group} for group in share_out(plans[::-1], 2)] == [{0}, {1, 2}]


def test_a_worker_starts_without_pandas_and_finds_it_when_it_is_needed():
    looks = "print('pandas' in sys.modules); import pandas; print(bool(pandas.DataFrame))"
    program = _WORKER.replace('sdk_worker_main.main(sys.argv)', looks)
    assert program != _WORKER
    done = subprocess.run([sys.executable, '-c', program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ['False', 'True']
