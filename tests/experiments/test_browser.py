"""A sweep on the demo's corpus, looked at and listened to in the MLflow UI with a real browser.

Two short trainings, and four where slow tests run.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys

import pytest

from experiments import quiet
from experiments.tracking import store, ui
from experiments.tracking.ui import UIServer, _app_options, free_port

pytestmark = pytest.mark.end_to_end

SPEC = """
objective: eval/spectral_loss
steps: 6
batch_size: 2
sampler: grid
pruner: none
preset: laptop
parameters:
  Trainer.learning_rate: RATES
fixed:
  RnnFcDecoder.rnn_channels: 16
  RnnFcDecoder.ch: 16
  RnnFcDecoder.layers_per_stack: 1
  Reverb.reverb_length: 400
  train.steps_per_summary: 2
"""
CHROMIUM = [
    '--no-sandbox', '--disable-gpu', '--disable-background-networking', '--disable-component-update',
    '--disable-sync', '--no-first-run', '--autoplay-policy=no-user-gesture-required',
]  # fmt: skip
RATES = [0.0003, 0.01, 0.001, 0.003]
TRIALS = "tags.sweep_id = 'rates' AND tags.sweep_role = 'trial'"
SLOW_MS = 120_000  # of a busy machine


@pytest.fixture(scope='module', params=[2, pytest.param(4, marks=pytest.mark.slow)])
def count(request):
    """Number of trainings."""
    return request.param


@pytest.fixture(scope='module')
def names(count):
    """Names of their runs."""
    return [f'rates-000{slot}' for slot in range(count)]


@pytest.fixture(scope='module')
def swept(tmp_path_factory, empty_database, count):
    """Folder in which trials were trained on a small synthetic corpus: (folder, the sweep's JSON)."""
    from pipelines.options import PrepareOptions
    from pipelines.prepare import prepare_dataset
    from pipelines.synthetic.corpus import synthesize_corpus

    folder = tmp_path_factory.mktemp('swept')
    shutil.copy(empty_database, folder / 'mlflow.db')
    (folder / 'rates.yaml').write_text(SPEC.replace('RATES', str(RATES[:count])))
    options = PrepareOptions(example_secs=1.0, hop_secs=1.0, f0='yin', workers=1)
    with quiet.terminal():
        corpus = synthesize_corpus(folder / 'corpus', seconds=24)
        prepare_dataset([str(corpus.audio_dir)], folder / 'data', 'demo', options=options)
    environment = {name: text for name, text in os.environ.items() if not name.startswith('MLFLOW_')}
    environment['PYTHONPATH'] = os.pathsep.join(sys.path)

    def run(*arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, '-m', 'experiments.cli', *arguments], cwd=folder, env=environment,
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert (done.returncode, done.stderr) == (0, '')
        return done.stdout

    result = json.loads(run('sweep', 'rates.yaml', 'data', '--experiment', 'demo', '--json'))
    run('promote', result['best_run_id'], '--name', 'violin')
    return folder, result


@pytest.fixture(scope='module')
def runs(swept):
    """Names of the sweep's runs to the runs, the summary among them."""
    found = store.search(
        store.client(f'sqlite:///{swept[0]}/mlflow.db', use=False), "tags.sweep_id = 'rates'"
    )
    return {run.info.run_name: run for run in found}


@pytest.fixture(scope='module')
def server(swept):
    """Address of an MLflow server on the sweep's store."""
    with UIServer(f'sqlite:///{swept[0]}/mlflow.db', port=free_port(preferred=0)) as made:
        made.wait_until_ready()
        yield f'http://127.0.0.1:{made.port}'


@pytest.fixture(scope='module')
def browser(need_program):
    """Debian's Chromium, headless."""
    pytest.importorskip('playwright.sync_api', reason='playwright drives the browser')
    path = shutil.which('chromium') or need_program('chromium')
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        made = playwright.chromium.launch(executable_path=path, args=CHROMIUM)
        yield made
        made.close()


@pytest.fixture
def view(browser):
    """A window of its own."""
    page = browser.new_page(viewport={'width': 1500, 'height': 1100})
    page.set_default_timeout(SLOW_MS)
    yield page
    page.close()


def test_one_run_a_trial_one_summary_and_a_command_that_repeats_the_best(swept, runs, names):
    folder, result = swept
    assert (result['finished'], result['pruned'], result['failed'], result['total']) == (
        len(names),
        0,
        0,
        len(names),
    )
    assert set(runs) == {*names, 'rates (summary)'}
    trials = [runs[name] for name in names]
    assert all(run.info.status == 'FINISHED' and 'mlflow.parentRunId' not in run.data.tags for run in trials)
    losses = {run.info.run_id: run.data.metrics['eval/spectral_loss'] for run in trials}
    assert result['best_value'] == min(losses.values()) == losses[result['best_run_id']]
    rates = {run.info.run_id: float(run.data.params['Trainer.learning_rate']) for run in trials}
    assert sorted(rates.values()) == sorted(RATES[: len(names)])
    assert rates[result['best_run_id']] == result['best_params']['Trainer.learning_rate']
    summary = runs['rates (summary)']
    assert summary.data.metrics['sweep/best'] == result['best_value']
    assert summary.data.tags['best_run'] == result['best_run_id']
    pictures = {'history.png', 'parallel_coordinates.png', *(['importance.png'] if len(names) > 3 else [])}
    left = {path.name for path in (folder / 'sweeps' / 'rates' / 'summary').iterdir()}
    assert left == {'best.json', 'compare.html', *pictures}
    words = shlex.split(result['command'])
    assert words[:3] == ['ddsp', 'train', 'data']
    assert f'Trainer.learning_rate = {result["best_params"]["Trainer.learning_rate"]!r}' in words


def test_the_runs_are_found_by_their_sweep(server, runs, names, view):
    experiment = runs[names[0]].info.experiment_id
    view.goto(ui.charts_address(server, experiment, TRIALS))
    view.get_by_text('matching runs').wait_for()
    for name in names:
        view.get_by_role('link', name=name, exact=True).wait_for()
    assert view.get_by_role('link', name='rates (summary)').count() == 0
    assert TRIALS in view.get_by_test_id('search-box').first.input_value()


def test_the_charts_draw_the_spectral_loss_of_all_trials(server, runs, names, view):
    experiment = runs[names[0]].info.experiment_id
    view.goto(ui.charts_address(server, experiment, TRIALS))
    # What is out of sight is not drawn.
    view.get_by_text('losses', exact=True).first.scroll_into_view_if_needed()
    chart = view.locator('[data-testid="experiment-view-compare-runs-card"]').filter(
        has_text='losses/spectral_loss'
    ).first  # fmt: skip
    chart.scroll_into_view_if_needed()
    chart.locator('.scatterlayer .trace').nth(len(names) - 1).wait_for(state='attached')
    lines = chart.locator('.scatterlayer .trace path.js-line').evaluate_all(
        'paths => paths.map(path => path.getAttribute("d"))'
    )
    assert len(set(lines)) == len(names)
    assert all(line.count('L') == 2 for line in lines)  # three summaries each


def test_mlflows_comparison_and_our_own_page_show_all_of_them(server, runs, names, view):
    pages = [(runs[name].info.experiment_id, runs[name].info.run_id) for name in names]
    view.goto(ui.comparison_address(server, pages))
    view.get_by_text(f'Comparing {len(names)} Runs').wait_for()
    view.locator('.plotly, .parcoords, svg.main-svg').first.wait_for(state='attached')
    view.get_by_text('held_out/spectral_loss', exact=True).last.wait_for(state='attached')
    lines = view.locator('body').inner_text().splitlines()
    for name in names:
        assert name in lines
        assert f'{runs[name].data.metrics["losses/spectral_loss"]:.4g}' in lines

    summary = runs['rates (summary)']
    place = (summary.info.experiment_id, summary.info.run_id)
    view.goto(ui.run_address(server, place, 'compare.html'))
    frame = view.frame_locator('iframe').first
    frame.get_by_role('heading', name='Sweep rates').wait_for()
    frame.get_by_alt_text('losses/spectral_loss').wait_for()
    cells = frame.locator('tr', has=frame.get_by_text('losses/spectral_loss', exact=True)).first
    numbers = [float(cell) for cell in cells.locator('td.number').all_inner_texts()]
    ranked = sorted((runs[name] for name in names), key=lambda run: run.data.metrics['eval/spectral_loss'])
    wanted = [run.data.metrics['losses/spectral_loss'] for run in ranked]
    assert numbers == pytest.approx(wanted, rel=1e-3)
    assert frame.locator('audio').count() >= 2 * len(names)


def test_the_page_of_a_run_plays_in_the_artefact_pane(server, runs, names, view):
    run = runs[names[0]]
    view.goto(ui.run_address(server, (run.info.experiment_id, run.info.run_id), 'listen.html'))
    player = view.frame_locator('iframe').first.locator('audio').first
    player.wait_for()
    played = player.evaluate(
        """async audio => {
             audio.muted = true;
             await audio.play();
             const end = Date.now() + 20000;
             while (audio.currentTime < 0.2 && Date.now() < end) await new Promise(go => setTimeout(go, 50));
             return [audio.duration, audio.currentTime, audio.error && audio.error.message];
           }"""
    )
    assert played[0] == pytest.approx(1.0, abs=0.01)
    assert 0.2 <= played[1] <= 1.0
    assert played[2] is None


def test_the_registered_model_shows_its_alias(server, view):
    view.goto(f'{server}/#/models/violin')
    view.get_by_text('champion').first.wait_for()


def test_a_click_on_an_experiment_leads_to_its_runs(workdir, view):
    assert _app_options(), (
        'the installation is older than setup.py: pip install -e . (and rm -r ddsp.egg-info)'
    )
    client = store.client()
    client.create_run(store.experiment_id(client, 'violin'), run_name='first take')
    with UIServer(store.tracking_uri(), port=free_port(preferred=0)) as server:
        server.wait_until_ready()
        view.goto(f'http://127.0.0.1:{server.port}/')
        view.goto(f'http://127.0.0.1:{server.port}/#/experiments')
        view.get_by_role('link', name='violin', exact=True).click()
        view.get_by_role('link', name='first take', exact=True).wait_for()
        assert '/runs?' in view.url
