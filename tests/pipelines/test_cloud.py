"""Sources and datasets on gs://, served on loopback: the same bytes as on disk, published once, resumable."""

import json
import os
import pathlib
import subprocess
import sys
import time

import numpy as np
import pytest

from ddsp.errors import DDSPError
from ddsp.io import gcs
from ddsp.io.dataset import DatasetError, open_dataset
from pipelines import PrepareOptions, prepare_dataset
from pipelines.publish import provenance
from pipelines.records import read_examples
from pipelines.sources.finding import find_sources

QUICK = PrepareOptions(f0='yin', workers=1, num_shards=2)


def upload(folder, address):
    for path in sorted(folder.iterdir()):
        gcs.upload(path, f'{address}/{path.name}')


def names(address):
    found = sorted(found.address.removeprefix(f'{address}/') for found in gcs.list_objects(address))
    return [name for name in found if not name.endswith('/.survey.jsonl')]


def records(dataset):
    """All files of records with their bytes."""
    return {
        pathlib.Path(file).name: pathlib.Path(file).read_bytes()
        for split in dataset.splits
        for file in dataset.files(split)
    }


def test_from_bucket_to_bucket_gives_the_bytes_of_a_folder(cloud, folder, tmp_path):
    upload(folder, 'gs://bucket/in')
    started = time.monotonic()
    result = prepare_dataset('gs://bucket/in', 'gs://bucket/out', 'notes', options=QUICK)
    assert time.monotonic() - started < 20  # nobody waits for credentials
    assert result.path == 'gs://bucket/out/notes/1.0.0'
    local = prepare_dataset(folder, tmp_path / 'out', 'notes', options=QUICK)
    there, here = open_dataset('gs://bucket/out'), open_dataset(local.path)
    assert (there.address, there.version) == (result.path, '1.0.0')
    assert records(there) == records(here)
    assert there.statistics('train') == here.statistics('train')
    there.verify()
    rows = [json.loads(line) for line in (there.path / 'sources.jsonl').read_text().splitlines()]
    assert [row['path'] for row in rows] == [f'gs://bucket/in/note_{i}.wav' for i in range(6)]
    assert names('gs://bucket/out') == sorted(
        f'notes/1.0.0/{path.name}' for path in local.path.iterdir()
    )  # and no lock is left
    again = prepare_dataset('gs://bucket/in', 'gs://bucket/out', 'notes', options=QUICK)
    assert (again.path, again.shards_made, again.accepted) == (result.path, 0, 6)


def test_training_reads_it(emulator, folder):
    from ddsp.training.data import DatasetProvider

    prepare_dataset(folder, 'gs://bucket/out', 'notes', options=QUICK)
    provider = DatasetProvider('gs://bucket/out/notes', 'train')
    batch = next(iter(provider.get_batch(2, shuffle=False, repeats=1)))
    first = next(iter(read_examples(open_dataset('gs://bucket/out').files('train')[0])))
    np.testing.assert_array_equal(batch['audio'][0], first['audio'])


def test_files_folders_and_patterns(bucket_server):
    for name in (
        'a.wav',
        'b.mp3',
        'deep/c.flac',
        'deep/er/d.wav',
        'notes.txt',
        '.hidden/e.wav',
        'deepest.wav',
    ):
        gcs.upload(b'x', f'gs://bucket/in/{name}')

    def found(*items):
        return {
            row.path.removeprefix('gs://bucket/in/'): getattr(row, 'outcome', '')
            for row in find_sources(items)
        }

    assert found('gs://bucket/in/a.wav') == {'a.wav': ''}
    assert (
        found('gs://bucket/in/deep')
        == found('gs://bucket/in/deep/')
        == {'deep/c.flac': '', 'deep/er/d.wav': ''}
    )
    assert found('gs://bucket/in/*.wav') == {'a.wav': '', 'deepest.wav': ''}
    assert found('gs://bucket/in/*/*.[fw]*') == {'deep/c.flac': '', '.hidden/e.wav': 'skipped'}
    assert found('gs://bucket/in/**/?.wav') == {'a.wav': '', 'deep/er/d.wav': '', '.hidden/e.wav': 'skipped'}
    whole = found('gs://bucket/in')
    assert {name for name, outcome in whole.items() if outcome == 'skipped'} == {'notes.txt', '.hidden/e.wav'}
    assert len(whole) == 7
    for item, text in [
        ('gs://bucket/nowhere', 'gs://bucket/nowhere: no such object or folder'),
        ('gs://bucket/in/*.ogg', 'matches no object'),
        ('gs:///x', 'is not an address in a bucket'),
    ]:
        with pytest.raises(DDSPError, match=text):
            find_sources(item)


def test_bad_objects_are_named_by_their_address(bucket_server, folder):
    upload(folder, 'gs://bucket/in')
    gcs.upload(b'no audio', 'gs://bucket/in/text.wav')
    gcs.upload(b'', 'gs://bucket/in/empty.wav')
    result = prepare_dataset('gs://bucket/in', 'gs://bucket/out', 'notes', options=QUICK)
    assert result.rejected == {'not_audio': 1, 'empty': 1}
    rows = (open_dataset(result.path).path / 'rejected.jsonl').read_text().splitlines()
    assert json.loads(rows[0])['message'] == 'gs://bucket/in/empty.wav is empty (0 bytes).'
    assert json.loads(rows[1])['message'].startswith('gs://bucket/in/text.wav is not audio')


def test_an_added_object_is_the_only_one_that_travels(bucket_server, folder):
    upload(folder, 'gs://bucket/in')
    options = PrepareOptions(f0='yin', workers=1, splits={'train': 1.0})
    gcs.delete('gs://bucket/in/note_5.wav')
    first = prepare_dataset('gs://bucket/in', 'gs://bucket/out', 'notes', options=options)
    gcs.upload(folder / 'note_5.wav', 'gs://bucket/in/note_5.wav')
    bucket_server.calls.clear()
    second = prepare_dataset('gs://bucket/in', 'gs://bucket/out', 'notes', options=options)
    assert (first.accepted, second.accepted) == (5, 6)
    fetched = [path for method, path in bucket_server.calls if 'in/note_' in path and method == 'GET']
    assert any('note_5' in path for path in fetched)
    assert (
        len([path for path in fetched if path.startswith('/download')]) <= 6
    )  # one shard holds all six here
    third = prepare_dataset(
        'gs://bucket/in', 'gs://bucket/out', 'notes',
        options=PrepareOptions(f0='yin', workers=1, splits={'train': 1.0}, max_rejected=0.5),
    )  # fmt: skip
    assert third.shards_made == 0
    open_dataset('gs://bucket/out').verify()


def test_an_interrupted_publication_goes_on_where_it_stopped(bucket_server, folder, tmp_path):
    uploads = []

    def refuse_later(method, path, query):
        if method == 'POST' and 'ifGenerationMatch' in query:
            uploads.append(path)
            return 403 if len(uploads) > 5 else None

    bucket_server.intercept = refuse_later
    with pytest.raises(DDSPError, match=r'access is refused.*gcloud auth application-default login'):
        prepare_dataset(folder, 'gs://bucket/out', 'notes', options=QUICK)
    there = set(names('gs://bucket/out'))
    assert there
    assert 'notes/1.0.0/MANIFEST.json' not in there
    with pytest.raises(DatasetError, match='no dataset at gs://bucket/out'):
        open_dataset('gs://bucket/out')
    bucket_server.intercept = lambda *request: None
    generations = dict(bucket_server.generations)
    result = prepare_dataset(folder, 'gs://bucket/out', 'notes', options=QUICK)
    assert result.shards_made == 0  # they were in the staging folder
    kept = [where for where, n in generations.items() if bucket_server.generations.get(where) == n]
    assert len(kept) >= 3  # and these were in the bucket
    local = prepare_dataset(folder, tmp_path / 'out', 'notes', options=QUICK)
    assert records(open_dataset(result.path)) == records(open_dataset(local.path))


def on_another_machine(monkeypatch, tmp_path, call):
    """Calls with another cache folder, where its staging folders and their lock are."""
    with monkeypatch.context() as patch:
        patch.setenv('XDG_CACHE_HOME', str(tmp_path / 'elsewhere'))
        return call()


def at_upload(server, number, action):
    """Acts once, when a preparation asks for its upload of that number; what comes back is answered."""
    uploads = []

    def intercept(method, path, query):
        if method == 'POST' and 'ifGenerationMatch' in query:  # not what lies in the staging folder
            uploads.append(path)
            if len(uploads) == number:
                return action()

    server.intercept = intercept


def versions(address):
    return sorted({name.split('/')[0] for name in names(address)})


@pytest.mark.parametrize('number', [1, 2, 6, 11, 12])
@pytest.mark.parametrize('content', ['same', 'other'])
def test_two_preparations_at_once_do_not_harm_each_other(
    bucket_server, folder, tmp_path, monkeypatch, number, content
):
    """The second one, on another machine, starts and ends between two writes of the first."""
    epochs = iter(range(10**9))
    monkeypatch.setattr(provenance.time, 'time', lambda: next(epochs))  # never in the same second
    other = QUICK if content == 'same' else PrepareOptions(f0='yin', workers=1, num_shards=2, hop_secs=2.0)
    second = []

    def prepare_here(options=QUICK):
        return prepare_dataset(folder, 'gs://bucket/out', 'notes', options=options)

    def prepare_too():
        second.append(on_another_machine(monkeypatch, tmp_path, lambda: prepare_here(other)))

    at_upload(bucket_server, number, prepare_too)
    first = prepare_here()
    assert (first.path == second[0].path) == (content == 'same')
    for result, examples in ((first, 18), (second[0], 18 if content == 'same' else 12)):
        dataset = open_dataset(result.path)
        dataset.verify()
        assert sum(dataset.splits.values()) == examples


@pytest.mark.parametrize('number', [2, 6, 12])
def test_what_a_dead_preparation_left_is_gone_on_with_or_left_alone(
    bucket_server, folder, tmp_path, monkeypatch, number
):
    def die():
        bucket_server.intercept = lambda *request: 403
        return 403

    at_upload(bucket_server, number, die)
    with pytest.raises(DDSPError, match='access is refused'):
        prepare_dataset(folder, 'gs://bucket/out', 'notes', options=QUICK)
    bucket_server.intercept = lambda *request: None
    before = dict(bucket_server.generations)
    other = PrepareOptions(f0='yin', workers=1, num_shards=2, hop_secs=2.0)

    def prepare_other(version=None):
        return prepare_dataset(folder, 'gs://bucket/out', 'notes', version, options=other)

    with pytest.raises(DDSPError, match=r'1\.0\.0 holds an unfinished upload.*gcloud storage rm'):
        on_another_machine(monkeypatch, tmp_path, lambda: prepare_other('1.0.0'))
    result = on_another_machine(monkeypatch, tmp_path, prepare_other)
    assert result.path == 'gs://bucket/out/notes/1.1.0'
    assert before.items() <= bucket_server.generations.items()  # not a single object was touched
    same = on_another_machine(
        monkeypatch,
        tmp_path,
        lambda: prepare_dataset(folder, 'gs://bucket/out', 'notes', '1.0.0', options=QUICK),
    )
    assert before.items() <= bucket_server.generations.items()
    for path in (result.path, same.path):
        open_dataset(path).verify()


def test_an_answer_that_was_lost_is_no_conflict(bucket_server, folder):
    """The client repeats the request, and the server says that the object is there."""
    put, lost = bucket_server.put, []

    def put_and_lose(where, content, query):
        described = put(where, content, query)
        if where not in lost and where[1].startswith('out/') and 'ifGenerationMatch' in query:
            lost.append(where)
            return None
        return described

    bucket_server.put = put_and_lose
    result = prepare_dataset(folder, 'gs://bucket/out', 'notes', options=QUICK)
    assert len(lost) == len(names('gs://bucket/out')) >= 12
    open_dataset(result.path).verify()


def test_a_second_preparation_on_this_machine_is_refused(bucket_server, folder, tmp_path):
    busy = r'another preparation is running in gs://bucket/out/notes\. Wait for it'
    refused = []

    def prepare_too():
        with pytest.raises(DDSPError, match=busy) as caught:
            prepare_dataset(folder, 'gs://bucket/out', 'notes', options=QUICK)
        refused.append(caught.value)

    at_upload(bucket_server, 3, prepare_too)
    prepare_dataset(folder, 'gs://bucket/out', 'notes', options=QUICK)
    assert len(refused) == 1


def test_what_is_damaged_on_the_way_is_found(bucket_server, folder):
    result = prepare_dataset(folder, 'gs://bucket/out', 'notes', options=QUICK)
    where = ('bucket', 'out/notes/1.0.0/notes-train.tfrecord-00000-of-00002')
    bucket_server.put(where, bucket_server.objects[where][:-1] + b'x', {})
    dataset = open_dataset(result.path)
    with pytest.raises(DatasetError, match=r'train\.tfrecord-00000-of-00002 is damaged: its sha256 is not'):
        dataset.files('train')


def test_what_is_wrong_is_said(bucket_server):
    with pytest.raises(DatasetError, match='no dataset at gs://bucket/none'):
        open_dataset('gs://bucket/none')
    with pytest.raises(gcs.GcsError, match='gs://bucket/none: no such object or bucket'):
        gcs.read('gs://bucket/none')
    with pytest.raises(gcs.Conflict, match='was written by somebody else'):
        gcs.upload(b'x', 'gs://bucket/x', generation=7)
    for name in ('violin', 'flute'):
        gcs.upload(b'{}', f'gs://bucket/two/{name}/1.0.0/MANIFEST.json')
    with pytest.raises(
        DatasetError, match=r'holds several datasets \(flute, violin\).*such as gs://bucket/two/fl'
    ):
        open_dataset('gs://bucket/two')


def test_without_credentials_requests_are_anonymous_at_once(monkeypatch, tmp_path):
    monkeypatch.delenv('STORAGE_EMULATOR_HOST', raising=False)
    monkeypatch.delenv('GOOGLE_APPLICATION_CREDENTIALS', raising=False)
    monkeypatch.setenv('CLOUDSDK_CONFIG', str(tmp_path))
    monkeypatch.setenv('NO_GCE_CHECK', 'true')
    gcs._connect.cache_clear()
    started = time.monotonic()
    client = gcs._client()
    assert type(client._credentials).__name__ == 'AnonymousCredentials'
    assert time.monotonic() - started < 5


def ddsp(folder, *arguments):
    environment = os.environ | {'CUDA_VISIBLE_DEVICES': '', 'TF_CPP_MIN_LOG_LEVEL': '3'}
    command = [sys.executable, '-m', 'experiments.cli', *arguments, '--json']
    done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=folder, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.end_to_end
def test_the_command_prepares_from_bucket_to_bucket(emulator, folder, tmp_path):
    upload(folder, 'gs://bucket/in')
    options = ('--f0', 'yin', '--workers', '1', '--num-shards', '2')
    made = ddsp(tmp_path, 'prepare', 'gs://bucket/in', '--root', 'gs://bucket/out', *options)
    assert made['path'] == 'gs://bucket/out/in/1.0.0'
    assert open_dataset('gs://bucket/out').splits == made['examples']


@pytest.mark.slow
@pytest.mark.end_to_end
def test_the_commands_train_and_evaluate_on_a_bucket(emulator, folder, tmp_path, monkeypatch):
    monkeypatch.setenv('MLFLOW_TRACKING_URI', f'sqlite:///{tmp_path}/mlflow.db')
    prepare_dataset(folder, 'gs://bucket/out', 'notes', options=QUICK)
    run = ddsp(
        tmp_path, 'train', 'gs://bucket/out/notes', '--preset', 'laptop', '--steps', '2', '--batch-size', '2'
    )
    assert run['metrics']['losses/total_loss'] > 0
    assert (pathlib.Path(tmp_path) / run['bundle'] / 'statistics.json').is_file()
    report = ddsp(tmp_path, 'evaluate', run['save_dir'], 'gs://bucket/out/notes', '--limit', '1')
    assert report
