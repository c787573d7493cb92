"""Makes the pictures in docs/ again: `make pictures`.

The plots of the reference pages need nothing; the pictures in README.md (spectrograms and the MLflow UI) come
from a finished `make demo`, those in experiments.md and sweeps.md from a sweep on its dataset (sweep.yaml,
minutes), and the screenshots need Chromium (Debian's package `chromium`).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator

from ddsp.errors import require
from experiments import quiet

IMAGES = pathlib.Path(__file__).parents[1] / 'images'
_PAGES = {'mlflow-metrics.png': '/model-metrics?workflowType=machine_learning'}
_CHROMIUM = ['--no-sandbox', '--disable-gpu', '--disable-quic', '--disable-background-networking']
_DRAWING_MS = 8000  # MLflow draws its charts one after the other
_START_S = 90.0  # the MLflow server takes 20 to 40 s to answer on 2 busy cores


def main() -> int:
    """Draws what can be drawn here and says what was left out."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--demo', default='ddsp-demo', help='finished demo (default: %(default)s)')
    parser.add_argument('--only', choices=['plots', 'demo', 'ui', 'sweep'], help='only these')
    arguments = parser.parse_args()
    (IMAGES / 'reference').mkdir(parents=True, exist_ok=True)
    with quiet.terminal():
        _make(arguments.only, pathlib.Path(arguments.demo))
    return 0


def _make(only: str | None, demo: pathlib.Path) -> None:
    """Draws all pictures, or those of one kind."""
    if only in (None, 'plots'):
        quiet.load_keras()
        from docs.pictures import dsp, spectral

        dsp.main(IMAGES / 'reference')
        spectral.main(IMAGES / 'reference')
    if only in (None, 'demo'):
        _demo_pictures(demo)
    if only in (None, 'ui'):
        _ui_screenshots(demo)
    if only in (None, 'sweep'):
        _sweep_screenshots(demo)


def _demo_pictures(demo: pathlib.Path) -> None:
    """Copies the pictures that the demo drew of its own sound."""
    for name, picture in (('resynthesis.png', 'held-out_spectrogram.png'), ('transfer.png', 'transfer.png')):
        source = demo / 'sound' / picture
        if not source.exists():
            print(f'left out {name}: {source} is not there; run `make demo` first')
            continue
        shutil.copyfile(source, IMAGES / f'demo-{name}')
        print(IMAGES / f'demo-{name}')


def _ui_screenshots(demo: pathlib.Path) -> None:
    """Opens the MLflow UI on the demo's run and photographs it."""
    chromium, run_file = _chromium(), demo / 'run' / 'run.json'
    if chromium is None or not run_file.exists():
        _left_out('the MLflow UI', chromium, run_file)
        return
    run = json.loads(run_file.read_text())
    with _mlflow_ui() as address:
        page = f'{address}/#/experiments/{run["experiment_id"]}/runs/{run["run_id"]}'
        _photograph(chromium, {IMAGES / name: page + tail for name, tail in _PAGES.items()})


def _sweep_screenshots(demo: pathlib.Path) -> None:
    """Runs the sweep of sweep.yaml on the demo's dataset, unless it has run, and photographs it."""
    from experiments.tracking import store, ui

    chromium, dataset = _chromium(), demo / 'datasets'
    if chromium is None or not dataset.exists():
        _left_out('the sweep in the MLflow UI', chromium, dataset)
        return
    spec, folder = pathlib.Path(__file__).with_name('sweep.yaml'), demo / 'sweep'
    command = ['sweep', str(spec), str(dataset), '--save-dir', str(folder), '--experiment', 'sweeps']
    subprocess.run([sys.executable, '-m', 'experiments.cli', *command], check=True)
    result = json.loads((folder / 'summary' / 'best.json').read_text())
    found = store.search(store.client(), "tags.sweep_id = 'rates'", experiments=['sweeps'])
    runs = {run.data.tags['sweep_role']: run for run in found}
    summary = (runs['summary'].info.experiment_id, runs['summary'].info.run_id)
    trials = "tags.sweep_id = 'rates' AND tags.sweep_role = 'trial'"
    with _mlflow_ui() as address:
        pages = {
            'mlflow-sweep.png': ui.charts_address(address, summary[0], trials),
            'mlflow-compare.png': ui.run_address(address, summary, 'compare.html'),
            'mlflow-listen.png': ui.run_address(address, (summary[0], result['best_run_id']), 'listen.html'),
        }
        _photograph(chromium, {IMAGES / name: page for name, page in pages.items()})


def _chromium() -> str | None:
    """The browser of the system."""
    return shutil.which('chromium') or shutil.which('chromium-browser') or shutil.which('google-chrome')


def _left_out(what: str, chromium: str | None, needed: pathlib.Path) -> None:
    """Says why something was not made."""
    print(
        f'left out {what}: chromium {chromium or "is not installed"}, {needed} '
        f'{"exists" if needed.exists() else "is not there: run `make demo` first"}'
    )


@contextlib.contextmanager
def _mlflow_ui() -> Iterator[str]:
    """A UI on a free loopback port, stopped at the end."""
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        port = probe.getsockname()[1]
    command = [sys.executable, '-m', 'experiments.cli', 'ui', '--port', str(port), '--no-browser']
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True)
    address = f'http://127.0.0.1:{port}'
    try:
        _wait_for(address, server)
        yield address
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, 15)
        server.wait(20)


def _wait_for(address: str, server: subprocess.Popen) -> None:
    """Returns when the server answers."""
    end = time.monotonic() + _START_S
    while time.monotonic() < end and server.poll() is None:
        try:
            urllib.request.urlopen(f'{address}/health', timeout=2)
            return
        except (urllib.error.URLError, OSError):
            time.sleep(0.5)
    raise SystemExit(f'the MLflow UI did not answer at {address}')


def _photograph(chromium: str, pages: dict[pathlib.Path, str]) -> None:
    """Screenshots of pages as a person sees them: charts drawn, MLflow's assistant closed."""
    sync_api = require('playwright.sync_api', 'to photograph pages')
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=_CHROMIUM)
        view = browser.new_page(viewport={'width': 1400, 'height': 1250})
        for path, page in pages.items():
            view.goto('about:blank')  # else only the part after # changes, and the last page stays on
            view.goto(page)
            drawn = view.locator('.js-plotly-plot:visible, iframe:visible').first
            drawn.wait_for(timeout=1000 * _START_S)
            for close in view.locator('[aria-label="Close"], [aria-label="close"]').all():
                close.click()
            for search in view.get_by_placeholder('Search metric charts').all():
                search.fill('losses/')
            view.wait_for_timeout(_DRAWING_MS)
            # Where the artefact lies on this machine is nobody's business.
            view.get_by_text('Path: ').evaluate_all('found => found.forEach(one => one.remove())')
            view.screenshot(path=str(path))
            print(path)
        browser.close()


if __name__ == '__main__':
    sys.exit(main())
