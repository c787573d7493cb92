"""The command that measures, and its arithmetic."""

import importlib
import json
import pathlib
import subprocess
import sys

from benchmarks.operations.cases import CASES
from benchmarks.operations.reference import GOALS, RECORDED

report = importlib.import_module('benchmarks.__main__')
ROOT = pathlib.Path(__file__).resolve().parents[2]


def row(cpu_s=1.0, peak_mb=100.0, batch=16, status='ok'):
    return {'cpu_s': cpu_s, 'peak_mb': peak_mb, 'batch': batch, 'status': status}


def run(*arguments):
    return subprocess.run(
        [sys.executable, '-m', 'benchmarks', *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=240,
    )


def test_costs_are_compared_for_each_example():
    assert report.ratio(row(1.0), row(4.0), 'cpu_s') == 0.25
    assert report.ratio(row(1.0, batch=16), row(1.0, batch=4), 'cpu_s') == 0.25
    assert report.ratio(row(1.0), row(status='out of memory'), 'cpu_s') is None
    assert report.ratio(row(1.0), row(peak_mb=None), 'peak_mb') is None


def test_a_goal_is_reached_when_all_its_parts_are():
    upstream = row(1.0, 900.0)
    assert report.reached('spectral_loss_gradients', row(0.3, 300.0), upstream) is True
    assert report.reached('spectral_loss_gradients', row(0.3, 600.0), upstream) is False
    assert report.reached('spectral_loss_gradients', row(0.5, 300.0), upstream) is False
    assert report.reached('mod_delay_gradients', row(0.3, 401.0), upstream) is False
    assert report.reached('import', row(0.4), upstream) is True
    assert report.reached('loudness_60s', row(), upstream) is None


def test_shares_read_as_people_say_them():
    assert [report.share(x) for x in (None, 0.1, 0.95, 1.3)] == ['-', '1/10.0', '0.95', '1.30']
    assert report.goal_text(GOALS['wavetable_forward']) == '1/30, 400 MB'


def test_every_case_has_a_recorded_cost():
    parts = {f'train_step_{part}' for part in ('decoder', 'synthesis', 'update')}  # of our step alone
    assert parts < set(CASES)
    assert set(RECORDED) == {*CASES, 'import'} - parts
    assert set(GOALS) <= set(RECORDED)


def test_it_measures_and_writes_what_it_measured(tmp_path):
    # The other interpreter has no ddsp: its side is a row that says so, and ours is measured all the same.
    output = tmp_path / 'deep' / 'result.json'
    done = run(
        '--cases', 'loudness_60s_numpy', '--quick', '--upstream-python', '/bin/false', '--output', str(output)
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert 'loudness_60s_numpy' in done.stdout
    result = json.loads(output.read_text())
    (loudness,) = result['rows']
    assert loudness['here']['runs'] == 2
    assert loudness['here']['cpu_s'] > 0
    assert loudness['upstream_is'] == 'measured'
    assert loudness['upstream']['status'] == 'error'
    assert result['machine']['cores'] >= 1


def test_a_misspelt_case_is_named():
    done = run('--cases', 'spectral_los')
    assert done.returncode == 2
    assert 'no such case: spectral_los; there are import, harmonic_forward' in done.stderr
