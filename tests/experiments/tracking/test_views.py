"""Views and addresses of the MLflow UI, and lines on pages; test_browser.py opens them."""

from __future__ import annotations

import base64
import json
import math
import re
import urllib.parse
import zlib

import pytest

from experiments.cli.tracking import _links
from experiments.reports import curves
from experiments.tracking import store, views

SERVER = 'http://localhost:5000'
_TAG_LIMIT = 5000  # of MLflow


def unpacked(tag: dict[str, str]) -> dict:
    """What MLflow's UI reads from a tag."""
    ((_, text),) = tag.items()
    kind, _, packed = json.loads(text)['state'].partition(';')
    assert kind == 'deflate'
    return json.loads(zlib.decompress(base64.b64decode(packed)))


def test_a_view_is_whole_and_within_mlflows_limit():
    long = [f'params.`Trainer.parameter_{index}`' for index in range(20)]
    tag = views.view_tag('sweep-x', condition="tags.sweep_id='x'", columns=long, first='eval/f0_l1_midi')
    assert list(tag) == ['mlflow.sharedViewState.sweep-x']
    assert len(next(iter(tag.values()))) < _TAG_LIMIT
    state = unpacked(tag)
    assert state['searchFilter'] == "tags.sweep_id='x'"
    assert state['selectedColumns'][:20] == long
    sections = [section['uuid'] for section in state['compareRunSections']]
    assert {chart['metricSectionId'] for chart in state['compareRunCharts']} == set(sections)
    uuids = [chart['uuid'] for chart in state['compareRunCharts']]
    assert len(uuids) == len(set(uuids))
    assert state['compareRunCharts'][0]['metricKey'] == 'eval/f0_l1_midi'
    assert state['compareRunCharts'][0]['type'] == 'BAR'


def test_every_experiment_gets_the_view_and_keeps_what_others_made_of_it(workdir):
    client = store.client()
    found = client.get_experiment(store.experiment_id(client, 'violin'))
    (name,) = views.view_tag()
    assert unpacked({name: found.tags[name]})['compareRunCharts'][0]['metricKey'] == 'losses/spectral_loss'
    client.set_experiment_tag(found.experiment_id, name, 'mine')
    store.experiment_id(client, 'violin')
    assert client.get_experiment(found.experiment_id).tags[name] == 'mine'


def test_addresses():
    assert views.run_address(SERVER, ('1', 'ab'), 'media/a b.wav') == (
        f'{SERVER}/#/experiments/1/runs/ab/artifacts/media/a%20b.wav?workflowType=machine_learning'
    )
    address = views.comparison_address(SERVER, [('1', 'ab'), ('1', 'cd'), ('2', 'ef')])
    query = urllib.parse.parse_qs(address.partition('?')[2])
    assert json.loads(query['runs'][0]) == ['ab', 'cd', 'ef']
    assert json.loads(query['experiments'][0]) == ['1', '2']
    assert views.view_address(SERVER, '1', 'sweep-a b').endswith('&viewStateShareKey=sweep-a%20b')


def test_links_of_the_ui(workdir):
    client = store.client()
    assert [title for title, _ in _links(client, [], '')] == ['MLflow UI']
    experiment = store.experiment_id(client, 'violin')
    first = client.create_run(experiment, run_name='first').info.run_id
    second = client.create_run(experiment, run_name='second').info.run_id
    tags = {'sweep_id': 'rates', 'sweep_role': 'summary'}
    summary = client.create_run(experiment, run_name='rates (summary)', tags=tags).info.run_id
    client.create_run(experiment, run_name='rates-0', tags={'sweep_id': 'rates', 'sweep_role': 'trial'})

    found = {title: address(SERVER) for title, address in _links(client, [], 'violin')}
    assert set(found) == {'MLflow UI', 'Sweep rates', '  its page', 'first', 'second'}
    assert 'viewStateShareKey=ddsp' in found['MLflow UI']
    assert 'viewStateShareKey=sweep-rates' in found['Sweep rates']
    assert f'/runs/{summary}/artifacts/compare.html' in found['  its page']
    assert f'/runs/{first}?' in found['first']
    listened = {title: address(SERVER) for title, address in _links(client, ['first'], '')}
    assert listened['Listen'].startswith(
        f'{SERVER}/#/experiments/{experiment}/runs/{first}/artifacts/listen.html'
    )
    compared = _links(client, ['first', 'second'], '')[0][1](SERVER)
    assert '/#/compare-runs?' in compared
    assert first in compared
    assert second in compared


def points(drawing: str) -> list[list[tuple[float, float]]]:
    """Places of each line in a drawing."""
    return [
        [tuple(map(float, pair.split(','))) for pair in line.split()]
        for line in re.findall(r'<polyline[^>]* points="([^"]*)"', drawing)
    ]


def test_lines_are_where_their_values_are():
    series = {'a <1>': [(0, 100.0), (50, 10.0), (100, 1.0)], 'b': [(0, 1.0), (100, 100.0)], 'none': []}
    drawing = curves.line_chart('losses/x', series)
    falling, rising = points(drawing)
    assert falling[0][1] < falling[1][1] < falling[2][1]  # down the page
    assert falling[1][1] - falling[0][1] == pytest.approx(falling[2][1] - falling[1][1], abs=0.11)  # decades
    assert falling[1][0] == pytest.approx((falling[0][0] + falling[2][0]) / 2, abs=0.11)
    assert rising[0] == falling[2][:0] + (falling[0][0], falling[2][1])
    assert 'a &lt;1&gt;' in drawing
    assert '>100<' in drawing


@pytest.mark.parametrize(
    ('series', 'lines'),
    [
        ({}, 0),
        ({'a': []}, 0),
        ({'a': [(0, math.nan)]}, 0),
        ({'a': [(5, 2.0)]}, 1),
        ({'a': [(0, -1.0), (1, 0.0)]}, 1),
    ],
)
def test_odd_series_are_drawn_or_left_out(series, lines):
    drawing = curves.line_chart('x', series)
    assert len(points(drawing)) == lines
    assert 'nan' not in drawing
    assert (drawing == '') == (lines == 0)
