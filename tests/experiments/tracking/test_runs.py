"""Lists of runs: filters, order, nan, messages, and a store that does not exist yet."""

from __future__ import annotations

import math

import mlflow
import pytest
from mlflow.entities import Metric, Param, RunTag

from experiments import metrics
from experiments.tracking import runs, store


@pytest.fixture
def filled(workdir):
    """A store with odd runs: without metrics, with nan, deleted, with quotes and slashes in the names."""
    client = store.client()
    for experiment in ('violin', 'flute'):
        experiment_id = store.experiment_id(client, experiment)
        for index in range(4):
            run_id = client.create_run(
                experiment_id, start_time=1000 + index % 3, run_name=f'{experiment}-{index}',
                tags={'sweep_id': f's{index % 2}'},
            ).info.run_id  # fmt: skip
            values = [1.5, math.nan, None, -2e30][index]
            metrics = [] if values is None else [Metric('eval/spectral_loss', values, 5, 3)]
            params = [Param('Trainer.learning_rate', f'0.{index}'), Param('text', "it's")]
            client.log_batch(run_id, metrics=metrics, params=params, tags=[RunTag('note', 'ä "x"')])
            if index:
                client.set_terminated(run_id, ['FAILED', 'FINISHED', 'KILLED'][index % 3], end_time=9000)
        client.delete_run(run_id)
    return client


KNOWS_NAN = pytest.mark.skipif(
    tuple(map(int, mlflow.__version__.split('.')[:2])) < (3, 17), reason='MLflow 3.16 filters nan as zero'
)
QUERIES = [
    pytest.param('metrics.`eval/spectral_loss` < 5', ['flute-0', 'violin-0'], marks=KNOWS_NAN),
    ('metrics.`eval/spectral_loss` != 1.5', ['flute-1', 'violin-1']),
    ("metrics.`eval/spectral_loss` >= -1e3 AND tags.sweep_id = 's0'", ['flute-0', 'violin-0']),
    ("attributes.status = 'FINISHED'", ['flute-1', 'violin-1']),
    ("status != 'RUNNING' and params.`Trainer.learning_rate` = '0.2'", ['flute-2', 'violin-2']),
    ("attributes.run_name = 'flute-1'", ['flute-1']),
    ('start_time > 1001', ['flute-2', 'violin-2']),
    ("tags.sweep_id LIKE 's%' AND start_time > 1001", ['flute-2', 'violin-2']),
    ('params.text = "it\'s" AND start_time > 1001', ['flute-2', 'violin-2']),
]


def named(found) -> list[str]:
    return [run.info.run_name for run in found]


@pytest.mark.parametrize(('condition', 'wanted'), QUERIES)
def test_filters(filled, condition, wanted):
    assert sorted(named(runs.list_runs(filled, condition=condition))) == wanted


def test_the_newest_runs_come_first_and_deleted_ones_never(filled):
    found = runs.list_runs(filled)
    assert len(found) == 6
    times = [run.info.start_time for run in found]
    assert times == sorted(times, reverse=True)
    assert named(runs.list_runs(filled, experiments=['violin'], limit=1)) == ['violin-2']


def test_the_best_runs_come_first_and_those_without_the_metric_last(filled):
    found = runs.list_runs(filled, experiments=['violin'], best='eval/spectral_loss')
    assert named(found) == ['violin-0', 'violin-1', 'violin-2']  # a number, nan, none
    assert math.isnan(found[1].data.metrics['eval/spectral_loss'])


@pytest.mark.parametrize('condition', ['metrics.x <', "metrics.x = 'text'", 'x y z', 'run_id'])
def test_a_filter_that_is_wrong_gets_mlflows_explanation(filled, condition):
    with pytest.raises(store.TrackingError, match=r'is not understood: .+'):
        runs.list_runs(filled, condition=condition)


def test_a_run_that_is_not_there(filled):
    with pytest.raises(store.TrackingError, match='no run ffff'):
        store.find_run(filled, 'f' * 32)


def test_no_database_is_a_store_without_runs(tmp_path, monkeypatch, ddsp):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv('MLFLOW_TRACKING_URI', raising=False)
    assert ddsp('runs') == (0, f'No runs in sqlite:///{tmp_path}/mlflow.db.\n', '')
    assert ddsp('runs', 'compare', 'a', 'b') == (
        1, '', f'Error: no runs in sqlite:///{tmp_path}/mlflow.db.\n'
    )  # fmt: skip
    assert list(tmp_path.iterdir()) == []  # looking leaves nothing behind


@pytest.mark.parametrize(
    ('name', 'lower', 'unit'),
    [
        ('eval/loudness_l1_db', True, 'dB'),
        ('eval/my_distance', True, ''),
        ('speed/steps_per_sec', False, '1/s'),
        ('energy/noise_db', None, 'dB'),
        ('system/error_count', None, ''),
        ('anything', None, ''),
    ],
)
def test_every_metric_has_a_row_in_the_table(name, lower, unit):
    assert metrics.lower_is_better(name) is lower
    assert metrics.find(name).unit == unit


def test_metrics_that_are_shown_first():
    assert metrics.shown('list')[0] == 'losses/total_loss'
    assert set(metrics.shown('curve')) == {'losses/spectral_loss', 'held_out/spectral_loss'}
    assert metrics.is_shown('eval/anything', 'model')
    assert metrics.is_shown('losses/spectral_loss_64', 'page')
    assert not metrics.is_shown('speed/steps_per_sec', 'model')
