"""`ddsp inspect`: page, summary and JSON; and what a training says of a dataset before it starts."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import re
import shutil

import numpy as np
import pytest

from ddsp.io.dataset import DatasetError, open_dataset
from experiments.reports import dataset_page
from experiments.run.training import check_dataset
from pipelines.inspect.health import check
from pipelines.inspect.inspection import Inspection, inspect_dataset


@pytest.fixture(scope='module')
def inspection(dataset) -> Inspection:
    return inspect_dataset(dataset)


@pytest.fixture(scope='module')
def written(inspection, tmp_path_factory) -> pathlib.Path:
    """The page of the dataset, with a hostile name among the inputs."""
    rows = [dict(inspection.sources[0], path='/r/<script>alert(1)</script>.wav', examples=0, duration_s=None)]
    rejected = [{'path': '/r/x.wav', 'reason': 'silent', 'message': '/r/x.wav is silent.'}]
    shown = dataclasses.replace(inspection, sources=inspection.sources + rows, rejected=rejected)
    path = tmp_path_factory.mktemp('page') / 'page.html'
    path.write_text(dataset_page.inspect_page(shown, check(shown)), encoding='utf-8')
    return path


def test_the_page_holds_all_and_refers_to_nothing(written):
    text = written.read_text()
    assert 'http' not in text
    assert '<link' not in text
    assert len(re.findall(r'<audio [^>]*src="data:audio/wav;base64,', text)) == 3  # typical ones; none is odd
    assert len(re.findall(r'<img [^>]*src="data:image/png;base64,', text)) == 4
    assert '&lt;script&gt;alert' in text
    assert '<script>alert' not in text
    assert 'the split train holds 33 s of audio' in text
    assert 'Rejected inputs (1)' in text
    assert 'A3 to G#4' in text  # 220 to 415 Hz


def test_tables_are_bounded(inspection):
    many = [dict(inspection.sources[0], path=f'/r/{i}.wav') for i in range(5000)]
    text = dataset_page.inspect_page(dataclasses.replace(inspection, sources=many, examples=[]), [])
    assert text.count('<tr>') == 2000 + 1 + 1 + len(inspection.splits) + 0
    assert '3,000 more are in <code>sources.jsonl</code>' in text
    assert len(text) < 1e6


def test_the_page_works_in_a_browser(written):
    """Tables sort and search, players know how long they play, nothing is asked of the network."""
    chromium = shutil.which('chromium') or shutil.which('chromium-browser') or shutil.which('google-chrome')
    sync_api = pytest.importorskip('playwright.sync_api')
    if chromium is None:
        pytest.skip('chromium is not installed')
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=['--no-sandbox', '--disable-gpu'])
        view = browser.new_page()
        asked: list[str] = []
        view.on('request', lambda request: asked.append(request.url))
        view.on('pageerror', lambda error: asked.append(str(error)))
        view.goto(written.as_uri())
        table = view.locator('.table').last
        first = table.locator('tbody tr').first
        seconds = [float(cell or 0) for cell in table.locator('tbody tr td:nth-child(4)').all_inner_texts()]
        assert len(set(seconds)) > 1
        table.locator('th', has_text='Seconds').click()
        assert first.locator('td').nth(3).inner_text() == ''
        table.locator('th', has_text='Seconds').click()
        assert float(first.locator('td').nth(3).inner_text()) == max(seconds)
        view.locator('input.filter').last.fill('tone_7')
        assert table.locator('tbody tr:visible').count() == 1
        view.wait_for_function("[...document.querySelectorAll('audio')].every(a => a.duration > 0.9)")
        width = view.evaluate('document.documentElement.scrollWidth - document.documentElement.clientWidth')
        browser.close()
    assert width == 0  # nothing sticks out
    assert [url for url in asked if not url.startswith(('file:', 'data:'))] == []


def test_the_command_writes_the_page_and_a_summary(workdir, dataset, ddsp):
    status, out, _ = ddsp('inspect', dataset)
    assert status == 0
    assert 'A3 to G#4' in out
    assert 'the split train holds 33 s of audio' in out
    assert 'Page: inspect-tones-1.0.0.html' in out
    assert (workdir / 'inspect-tones-1.0.0.html').read_text().startswith('<!doctype html>')


def test_json_is_for_machines(workdir, dataset, ddsp):
    status, out, _ = ddsp('inspect', dataset, '--json', '--examples', 2)
    content = json.loads(out)
    assert status == 0
    assert [finding['code'] for finding in content['findings']] == ['short', 'tiny_test']
    assert len(content['examples']) == 4
    assert content['digest'] == open_dataset(dataset).digest
    assert not list(workdir.glob('*.html'))


def test_what_cannot_be_inspected_is_said(workdir, ddsp):
    status, _, err = ddsp('inspect', 'nowhere')
    assert status == 1
    assert 'no dataset at nowhere' in err


def test_a_training_warns_and_refuses(dataset, tmp_path):
    warnings = check_dataset(open_dataset(dataset))
    assert len(warnings) == 2
    assert warnings[0].startswith('the split train holds 33 s of audio. Ten minutes')
    silent = tmp_path / 'silent'
    shutil.copytree(dataset, silent)
    statistics = json.loads((silent / 'statistics.json').read_text())
    statistics['splits']['train']['loudness_db'] |= {'max': -78.0, 'quantiles': list(np.full(101, -78.0))}
    (silent / 'statistics.json').write_text(json.dumps(statistics))
    with pytest.raises(DatasetError, match='cannot teach a model: the loudest frame has -78 dB'):
        check_dataset(open_dataset(silent))
