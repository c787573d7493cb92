"""A training folder from somebody else: nothing outside it is read, and no server that it names is asked."""

from __future__ import annotations

import http.server
import json
import os
import pathlib
import threading
from typing import Any

import pytest
from PIL import Image

from ddsp.errors import DDSPError
from ddsp.io.files import UnsafeNameError
from experiments.tracking import delivery, store
from experiments.tracking.delivery import sync
from experiments.tracking.journal import Journal
from experiments.tracking.tracker import MLflowTracker

CANARY = 'kanari3nvogel'
RUN = {
    'run_id': '', 'experiment_id': '', 'experiment': 'foreign', 'run_name': 'theirs', 'tags': {},
    'tracking_uri': '', 'start_time': 1000,
}  # fmt: skip


@pytest.fixture
def foreign(workdir) -> pathlib.Path:
    """A folder with links to the outside, beside a secret."""
    (workdir / 'secret.txt').write_text(CANARY)
    Image.new('RGB', (4, 4)).save(workdir / 'secret.png', pnginfo=None, comment=CANARY)
    (workdir / 'bundle').mkdir()
    (workdir / 'bundle' / 'metadata.json').write_text(json.dumps({'sample_rate': 16000, 'note': CANARY}))
    folder = workdir / 'foreign'
    for name in ('media', 'model', 'model2', 'model3', 'model4'):
        (folder / name).mkdir(parents=True)
    for name in ('model', 'model2', 'model3', 'model4'):
        (folder / name / 'metadata.json').write_text('{"sample_rate": 16000}')
    (folder / 'good.txt').write_text('good')
    (folder / 'link.txt').symlink_to('../secret.txt')
    (folder / 'far.txt').symlink_to(workdir / 'secret.txt')
    (folder / 'up').symlink_to('..')
    (folder / 'chain').symlink_to('up')
    (folder / 'link.png').symlink_to('../secret.png')
    (folder / 'media' / 'twice.txt').symlink_to('../link.txt')
    (folder / 'model' / 'weights').symlink_to('../../secret.txt')
    (folder / 'model2' / 'deep').symlink_to('../../bundle')
    (folder / 'bundle').symlink_to('../bundle')
    os.mkfifo(folder / 'pipe')
    os.mkfifo(folder / 'model3' / 'pipe')
    (folder / 'device').symlink_to('/dev/zero')
    (folder / 'proc').symlink_to('/proc/self')
    (folder / 'run.json').write_text(json.dumps(RUN))
    return folder


def paths(workdir: pathlib.Path) -> list[Any]:
    """Names of a file that no row may have."""
    return [
        str(workdir / 'secret.txt'), '../secret.txt', './../secret.txt', 'media/../../secret.txt', '..',
        '.', '', '/', '/etc/hostname', '/proc/self/environ', '//etc/hostname', 'file:///etc/hostname',
        f'file://{workdir}/secret.txt', '~/secret.txt', '~root/secret.txt', 'C:\\secret.txt', 'C:/secret.txt',
        '..\\secret.txt', 'media\\..\\..\\secret.txt', '..\u2215secret.txt', '\uff0e\uff0e/secret.txt',
        '\u2025/secret.txt', '..\uff0fsecret.txt', '%2e%2e/secret.txt', '..%2fsecret.txt', '../secret.txt\0',
        '../secret.txt\n', 'good.txt\0../secret.txt', '\u202e../secret.txt', '$PWD/../secret.txt',
        'link.txt', 'far.txt', 'up/secret.txt', 'chain/secret.txt', 'media/twice.txt', 'device', 'pipe',
        'proc/environ', 'media', 'good.txt/../../secret.txt', 'missing.txt', None, 7, ['../secret.txt'],
        {'a': 1}, True, 'gs://bucket/secret.txt', 's3://bucket/x', 'a' * 5000, '../foreign/../secret.txt',
    ]  # fmt: skip


def hostile_rows(workdir: pathlib.Path) -> list[dict[str, Any]]:
    """Rows that must be refused, every one."""
    rows: list[dict[str, Any]] = [{'kind': 'artifact', 'path': path, 'folder': ''} for path in paths(workdir)]
    for folder in ('../x', '/x', '..', 'a/../../x', '..\\x', '\uff0e\uff0e/x', 3, None):
        rows.append({'kind': 'artifact', 'path': 'good.txt', 'folder': folder})
    for path in ('link.png', '../secret.png', str(workdir / 'secret.png'), 'good.txt'):
        rows.append({'kind': 'image', 'path': path, 'key': 'a', 'step': 0})
    rows.append({'kind': 'image', 'path': 'link.png', 'key': '../../a', 'step': 0})
    for path in (
        'bundle',
        '../bundle',
        'model',
        'model2',
        'model3',
        'up/bundle',
        '.',
        str(workdir / 'bundle'),
    ):
        rows.append({'kind': 'model', 'path': path, 'step': 1, 'register_as': None})
    rows += [
        {'kind': 'exec', 'path': 'x'}, {'kind': None}, {'kind': ['artifact']}, {}, {'kind': 'metrics'},
        {'kind': 'metrics', 'metrics': {'a': 'x'}, 'step': 1, 'time': 1},
        {'kind': 'metrics', 'metrics': {'a': 10**400}, 'step': 1, 'time': 1},
        {'kind': 'metrics', 'metrics': {'a': 1.0}, 'step': 10**40, 'time': 1},
        {'kind': 'metrics', 'metrics': {'a': 1.0}, 'step': '1', 'time': 1},
        {'kind': 'metrics', 'metrics': [1], 'step': 1, 'time': 1},
        {'kind': 'params', 'params': {'a': {}}, 'step': 1}, {'kind': 'tags', 'tags': 'x'},
        {'kind': 'status', 'status': 'EXPLODED', 'time': 1}, {'kind': 'status', 'status': 3, 'time': 1},
        {'kind': 'input', 'name': 1, 'digest': '', 'path': '', 'profile': {}},
        {'kind': 'model', 'path': 'good', 'step': 1, 'register_as': 3},
        {'kind': 'input', 'name': 'a', 'digest': 'b', 'path': 'c', 'profile': {}, 'context': {}},
    ]  # fmt: skip
    return rows


def written(folder: pathlib.Path) -> bytes:
    """All that a store holds."""
    files = [folder / 'mlflow.db', *(folder / 'mlartifacts').rglob('*'), *(folder / 'mlruns').rglob('*')]
    return b''.join(path.read_bytes() for path in files if path.is_file())


def test_no_row_of_a_foreign_folder_names_what_is_outside(foreign, workdir, monkeypatch):
    rows = hostile_rows(workdir)
    good = {'kind': 'artifact', 'path': 'good.txt', 'folder': 'here'}
    with (foreign / 'outbox.jsonl').open('w') as journal:
        for number, row in enumerate([*rows, good], 1):
            journal.write(json.dumps({**row, 'n': number}) + '\n')
    refused: list[str] = []
    close = Journal.close

    def watched(self: Journal, timeout: float = 30.0) -> int:
        left = close(self, timeout)
        refused.extend(self.rejected)
        return left

    monkeypatch.setattr(Journal, 'close', watched)
    monkeypatch.setattr(delivery, '_SYNC_SECS', 60.0)
    with pytest.raises(store.TrackingError, match=f'{len(rows)} of {len(rows) + 1} entries .* were refused'):
        sync(foreign)
    assert len(rows) >= 80
    assert len(refused) == len(rows)
    client = store.client()
    (run,) = store.search(client, experiments=['foreign'])
    assert [entry.path for entry in client.list_artifacts(run.info.run_id)] == ['here']
    found = written(workdir)
    assert b'good' in found
    assert CANARY.encode() not in found
    assert not (workdir / 'x').exists()
    assert sync(foreign) == 0  # what was refused is not tried again


@pytest.mark.parametrize('name', ['outbox.jsonl', 'outbox.sent', 'run.json'])
def test_a_journal_that_is_a_link_is_left_alone(foreign, workdir, name):
    (foreign / 'outbox.jsonl').write_text('{"n": 1, "kind": "tags", "tags": {}}')
    target = workdir / 'target'
    target.write_text(json.dumps(RUN) if name == 'run.json' else '')
    (foreign / name).unlink(missing_ok=True)
    (foreign / name).symlink_to(target)
    before = target.read_bytes()
    with pytest.raises(UnsafeNameError, match=f"names '{name}', which is a link that leaves"):
        sync(foreign)
    assert target.read_bytes() == before


@pytest.mark.parametrize(
    'wrong',
    [
        {'run_id': 7}, {'run_id': '../../x'}, {'run_id': 'a b'}, {'run_id': "x' OR 1=1"}, {'run_id': ['a']},
        {'run_id': '%2e%2e'}, {'run_id': '\u0661'}, {'tags': []}, {'tags': {'a': 1}}, {'tags': None},
        {'experiment': 3}, {'experiment': None}, {'run_name': {}}, {'start_time': '1'}, {'start_time': None},
        {'tracking_uri': ['x']}, {'experiment': ''}, {'experiment': 'a\nb'}, {'experiment': 'x' * 501},
    ],
)  # fmt: skip
def test_a_damaged_run_file_is_one_sentence(foreign, wrong):
    (foreign / 'outbox.jsonl').write_text('{"n": 1, "kind": "tags", "tags": {}}')
    (foreign / 'run.json').write_text(json.dumps({**RUN, **wrong}))
    with pytest.raises(DDSPError, match=r'run\.json is damaged: |--experiment'):
        sync(foreign)
    assert store.search(store.client()) == []


@pytest.mark.parametrize('name', ['..', '.', '/', '../..', '...', 'a/../..', '\u2025', '~', 'C:\\x', '\\'])
def test_artefacts_of_an_experiment_stay_in_the_folder_of_artefacts(workdir, name):
    with MLflowTracker('run', experiment=name, metrics_every=0) as tracker:
        (workdir / 'page.html').write_text('x')
        tracker.log_artifact(workdir / 'page.html', 'there')
    known = {'run', 'mlflow.db', '.mlflow.db.lock', 'page.html', 'mlartifacts', 'mlruns'}
    assert {path.name for path in workdir.iterdir()} <= known
    (file,) = (workdir / 'mlartifacts').rglob('page.html')
    assert len(file.relative_to(workdir / 'mlartifacts').parts) == 5  # experiment, run, artifacts, there
    assert store.search(store.client(), experiments=[name])


class Listener(http.server.BaseHTTPRequestHandler):
    """Notes who asks, and answers as a tracking server would."""

    seen: list[tuple[str, dict[str, str]]] = []  # noqa: RUF012

    def do_GET(self) -> None:
        self.seen.append((self.path, dict(self.headers)))
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b'{}')

    do_POST = do_GET

    def log_message(self, *_: object) -> None:
        """Nothing on the terminal."""


@pytest.fixture
def listener():
    """Address of a server that somebody else runs."""
    Listener.seen.clear()
    server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Listener)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f'http://127.0.0.1:{server.server_port}'
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize('run_id', ['', 'a' * 32])
def test_no_login_is_sent_to_a_server_that_a_folder_names(foreign, workdir, listener, monkeypatch, run_id):
    monkeypatch.setenv('MLFLOW_TRACKING_USERNAME', 'ann')
    monkeypatch.setenv('MLFLOW_TRACKING_PASSWORD', CANARY)
    monkeypatch.setenv('MLFLOW_TRACKING_TOKEN', CANARY)
    (foreign / 'outbox.jsonl').write_text('{"n": 1, "kind": "tags", "tags": {}}\n')
    (foreign / 'run.json').write_text(json.dumps({**RUN, 'run_id': run_id, 'tracking_uri': listener}))
    if run_id:
        with pytest.raises(store.TrackingError, match=f'was begun in {listener}, and the store in use is'):
            sync(foreign)
    else:
        assert sync(foreign) == 1
    assert Listener.seen == []


def test_a_run_of_another_store_is_not_recorded_here(foreign, workdir):
    address = store.tracking_uri()
    (foreign / 'outbox.jsonl').write_text('{"n": 1, "kind": "tags", "tags": {}}\n')
    (foreign / 'run.json').write_text(json.dumps({**RUN, 'run_id': 'b' * 32, 'tracking_uri': address}))
    with pytest.raises(store.TrackingError, match=rf'the run b+ of {foreign} is not in sqlite:///'):
        sync(foreign)


def test_what_is_logged_from_elsewhere_is_copied_into_the_folder(workdir):
    (workdir / 'sound.wav').write_text('first')
    (workdir / 'pages').mkdir()
    (workdir / 'pages' / 'a: b\\c.html').write_text('page')
    with MLflowTracker('run', metrics_every=0) as tracker:
        tracker.log_artifact(workdir / 'sound.wav', 'media')
        (workdir / 'sound.wav').write_text('changed')
        tracker.log_artifacts(workdir / 'pages', 'pages')
        (workdir / 'run' / 'inside.txt').write_text('inside')
        tracker.log_artifact('run/inside.txt')
        tracker.log_artifact(workdir / 'never-there.txt')
    client = store.client()
    found = {
        entry.path
        for folder in (None, 'media', 'pages')
        for entry in client.list_artifacts(tracker.run_id, folder)
        if not entry.is_dir
    }
    assert found == {'media/sound.wav', 'pages/a_ b_c.html', 'inside.txt'}
    assert pathlib.Path(client.download_artifacts(tracker.run_id, 'media/sound.wav')).read_text() == 'first'
