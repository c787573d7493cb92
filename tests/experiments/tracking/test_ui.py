"""Addresses of the MLflow UI; test_browser.py opens them."""

from __future__ import annotations

import json
import urllib.parse

from experiments.cli.tracking import links
from experiments.tracking import store, ui

SERVER = 'http://localhost:5000'


def test_addresses():
    assert ui.run_address(SERVER, ('1', 'ab'), 'media/a b.wav') == (
        f'{SERVER}/#/experiments/1/runs/ab/artifacts/media/a%20b.wav?workflowType=machine_learning'
    )
    address = ui.comparison_address(SERVER, [('1', 'ab'), ('1', 'cd'), ('2', 'ef')])
    query = urllib.parse.parse_qs(address.partition('?')[2])
    assert json.loads(query['runs'][0]) == ['ab', 'cd', 'ef']
    assert json.loads(query['experiments'][0]) == ['1', '2']
    assert ui.charts_address(SERVER, '1', "tags.sweep_id = 'a b'").endswith(
        '&compareRunsMode=CHART&searchFilter=tags.sweep_id%20%3D%20%27a%20b%27'
    )


def test_links_of_the_ui(workdir):
    client = store.client()
    assert [title for title, _ in links(client, SERVER, [], '')] == ['MLflow UI']
    experiment = store.experiment_id(client, 'violin')
    first = client.create_run(experiment, run_name='first').info.run_id
    second = client.create_run(experiment, run_name='second').info.run_id
    tags = {'sweep_id': 'rates', 'sweep_role': 'summary'}
    summary = client.create_run(experiment, run_name='rates (summary)', tags=tags).info.run_id
    client.create_run(experiment, run_name='rates-0', tags={'sweep_id': 'rates', 'sweep_role': 'trial'})

    found = dict(links(client, SERVER, [], 'violin'))
    assert set(found) == {'MLflow UI', 'Sweep rates', '  its page', 'first', 'second'}
    assert found['MLflow UI'].endswith('compareRunsMode=CHART')
    assert 'searchFilter=tags.sweep_id%20%3D%20%27rates%27' in found['Sweep rates']
    assert f'/runs/{summary}/artifacts/compare.html' in found['  its page']
    assert f'/runs/{first}?' in found['first']
    listened = dict(links(client, SERVER, ['first'], ''))
    assert listened['Listen'].startswith(
        f'{SERVER}/#/experiments/{experiment}/runs/{first}/artifacts/listen.html'
    )
    compared = links(client, SERVER, ['first', 'second'], '')[0][1]
    assert '/#/compare-runs?' in compared
    assert first in compared
    assert second in compared
