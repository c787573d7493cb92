"""Runs side by side, lists of runs, and what is significant."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
import soundfile

from experiments import metrics
from experiments.tracking import store
from experiments.tracking.tracker import MLflowTracker


@pytest.mark.parametrize(
    ('name', 'lower'),
    [
        ('losses/total_loss', True), ('losses/spectral_loss_64', True), ('eval/loudness_l1_db', True),
        ('eval/f0_l1_midi', True), ('eval/f0_outlier_ratio', True), ('eval/f0_median_cents', True),
        ('held_out/spectral_loss', True), ('speed/steps_per_sec', False), ('speed/audio_secs_per_sec', False),
        ('speed/data_wait_share', True), ('energy/harmonic_db', None), ('optimizer/learning_rate', None),
        ('system/cpu_utilization_percentage', None), ('eval/examples', None),
    ],
)  # fmt: skip
def test_which_direction_is_better(name, lower):
    assert metrics.lower_is_better(name) is lower


@pytest.mark.parametrize(
    ('name', 'values', 'best'),
    [
        ('losses/x_loss', (2.0, 1.0, 3.0), {1}),
        ('losses/x_loss', (1.0, 1.0, 3.0), {0, 1}),
        ('losses/x_loss', (1.0, None, float('nan')), set()),
        ('losses/x_loss', (float('nan'), 2.0, 1.0), {2}),
        ('losses/x_loss', (1.0, 1.0), set()),
        ('speed/steps_per_sec', (2.0, 5.0), {1}),
        ('energy/noise_db', (2.0, 5.0), set()),
    ],
)
def test_best_values(name, values, best):
    assert metrics.best_of(name, values) == best


def make_run(
    folder, name: str, loss: float, rate: str, examples=None, audio: bool = False, **tags: str
) -> str:
    tracker = MLflowTracker(folder / name, experiment='violin', run_name=name, tags=tags, metrics_every=0)
    config = f'Trainer.learning_rate = {rate}\ntrain.batch_size = 8\n'
    tracker.on_train_begin(start_step=0, num_steps=5, save_dir='', gin_config=config)
    tracker.on_summary(5, {'losses/total_loss': loss, 'speed/steps_per_sec': loss})
    if examples:
        path = folder / name / 'examples.json'
        path.write_text(json.dumps(examples))
        tracker.log_artifact(path, 'evaluation')
    if audio:
        for part in ('target', 'synthesized'):
            path = folder / name / f'example_000_{part}.wav'
            soundfile.write(path, np.zeros(800), 8000)
            tracker.log_artifact(path, 'media')
    tracker.on_train_end(5, 'done')
    assert tracker.close() == ''
    return tracker.run_id


@pytest.fixture
def two_runs(workdir):
    examples = [
        {'example': index, 'recording': f'take_{index // 2}.wav', 'spectral_loss': float(index)}
        for index in range(20)
    ]
    better = [
        {**row, 'spectral_loss': row['spectral_loss'] - 1.0 - 0.01 * row['example']} for row in examples
    ]
    first = make_run(workdir, 'first', 4.0, '0.001', examples, audio=True)
    second = make_run(workdir, 'second', 3.0, '0.01', better)
    return first, second


def test_compare_command(two_runs, ddsp, workdir):
    status, out, err = ddsp('runs', 'compare', 'first', two_runs[1][:8], '--html', 'out/compare.html')
    assert (status, err) == (0, '')
    lines = out.splitlines()
    (rate,) = [line for line in lines if line.startswith('Trainer.learning_rate')]
    assert rate.split()[1:] == ['0.001', '0.01']
    assert not [line for line in lines if line.startswith('train.batch_size')]  # does not differ
    (loss,) = [line for line in lines if line.startswith('losses/total_loss')]
    assert loss.split()[1:] == ['4', '3', '*']
    (speed,) = [line for line in lines if line.startswith('speed/steps_per_sec')]
    assert speed.split()[1:] == ['4', '*', '3']
    (verdict,) = [line for line in lines if line.startswith('spectral_loss:')]
    assert 'differs; second minus first -1.1' in verdict
    assert 'p = 0.002 (exact), 20 examples of 10 recordings' in verdict
    text = (workdir / 'out' / 'compare.html').read_text()
    assert text.count('<audio') == 2
    assert 'This run has no audio: <code>second</code>' in text
    assert text.index('<audio') < text.index('losses/total_loss')  # sound before numbers


def test_runs_on_different_datasets_are_not_ranked(workdir, ddsp):
    examples = [{'example': i, 'recording': f'{i}.wav', 'spectral_loss': float(i)} for i in range(20)]
    better = [{**row, 'spectral_loss': row['spectral_loss'] - 1} for row in examples]
    for name, loss, rows in (('first', 4.0, examples), ('second', 3.0, better)):
        tags = {'ddsp.dataset_digest': f'{name}-digest', 'ddsp.dataset': f'data/{name}/1.0.0'}
        make_run(workdir, name, loss, '0.001', rows, **tags)
    status, out, err = ddsp('runs', 'compare', 'first', 'second', '--html', 'compare.html')
    assert status == 0
    warning = 'trained on different datasets: data/first/1.0.0 (digest first-di), data/second/1.0.0'
    assert warning in err
    (loss,) = [line for line in out.splitlines() if line.startswith('losses/total_loss')]
    assert loss.split()[1:] == ['4', '3']
    (speed,) = [line for line in out.splitlines() if line.startswith('speed/steps_per_sec')]
    assert speed.split()[1:] == ['4', '*', '3']
    assert 'differs' not in out
    assert warning in (workdir / 'compare.html').read_text()


def test_compare_as_json(two_runs, ddsp):
    status, out, _ = ddsp('runs', 'compare', 'first', 'second', '--json', '--all-params')
    found = json.loads(out)
    assert status == 0
    assert [run['name'] for run in found['runs']] == ['first', 'second']
    assert found['params']['train.batch_size'] == ['8', '8']
    assert found['metrics']['losses/total_loss'] == {'values': [4.0, 3.0], 'best': [1]}
    assert found['significance'][0]['examples'] == 20


def test_compare_of_an_experiment_takes_the_best(two_runs, workdir, ddsp):
    make_run(workdir, 'third', 5.0, '0.1')
    arguments = ('--experiment', 'violin', '--best', 'losses/total_loss', '--limit', '2', '--json')
    found = json.loads(ddsp('runs', 'compare', *arguments)[1])
    assert [run['name'] for run in found['runs']] == ['second', 'first']


@pytest.mark.parametrize(
    ('arguments', 'status', 'message'),
    [
        (['runs', 'compare'], 2, 'give two or more runs, or --experiment.'),
        (['runs', 'compare', 'first'], 1, '1 run found; a comparison needs two.'),
        (['runs', 'compare', 'first', 'secnd'], 1, "no run 'secnd' in sqlite:"),
        (['runs', 'compare', 'first', 'secnd'], 1, "Did you mean 'second'?"),
        (
            ['runs', 'compare', '--experiment', 'viola'],
            1,
            "no experiment 'viola'; there are: Default, violin.",
        ),
        (['runs', 'compare', '0' * 32, 'first'], 1, f'no run {"0" * 32} in sqlite:'),
        (['runs', '--filter', 'metrics.x <'], 1, "the filter 'metrics.x <' is not understood"),
        (['runs', 'export', 'x.txt'], 1, 'x.txt: the ending must be .csv or .parquet.'),
        (['promote', 'first'], 1, 'has no model. A training logs it when it ends.'),
        (['ui', '--run', 'thrd'], 1, "no run 'thrd'"),
    ],
)
def test_messages(two_runs, ddsp, arguments, status, message):
    returned, out, err = ddsp(*arguments)
    assert (returned, out) == (status, '')
    assert message in err
    assert err.count('Error:') == (status == 1)


def test_runs_are_listed_filtered_ordered_and_exported(two_runs, workdir, ddsp):
    status, out, err = ddsp('runs', 'export', '--best', 'losses/total_loss', 'runs.csv', 'runs.parquet')
    assert (status, err) == (0, '')
    assert [line.split()[1] for line in out.splitlines()[1:]] == ['second', 'first']
    with (workdir / 'runs.csv').open() as file:
        rows = list(csv.DictReader(file))
    assert [row['metrics.losses/total_loss'] for row in rows] == ['3.0', '4.0']
    assert rows[0]['params.Trainer.learning_rate'] == '0.01'
    import pandas

    assert list(pandas.read_parquet(workdir / 'runs.parquet')['name']) == ['second', 'first']
    found = json.loads(ddsp('runs', '--filter', 'metrics.`losses/total_loss` > 3.5', '--json')[1])
    assert [run['name'] for run in found] == ['first']


def test_no_runs(workdir, ddsp):
    status, out, err = ddsp('runs')
    assert (status, err) == (0, '')
    assert out.startswith('No runs in sqlite:')


def test_a_run_is_found_by_what_people_call_it(two_runs, workdir):
    client = store.client()
    for reference in (two_runs[0], two_runs[0][:6], 'first', str(workdir / 'first')):
        assert store.find_run(client, reference).info.run_id == two_runs[0]


def test_a_run_whose_machine_is_gone_is_ended_by_hand(workdir, ddsp):
    client = store.client()
    tags = {'ddsp.host': 'elsewhere', 'ddsp.pid': '1'}
    run_id = client.create_run(store.experiment_id(client, 'violin'), run_name='lost', tags=tags).info.run_id
    (row,) = json.loads(ddsp('runs', '--json')[1])
    assert row['status'] == 'RUNNING'  # it may live
    assert ddsp('runs', 'end', 'lost') == (0, f'{run_id} is KILLED now.\n', '')
    assert client.get_run(run_id).info.status == 'KILLED'
    assert ddsp('runs', 'end', 'lost') == (1, '', 'Error: the run lost has ended: it is KILLED.\n')
