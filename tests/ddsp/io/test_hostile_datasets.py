"""A dataset from somebody else is data: nothing outside its folder is read, written, fetched or linked."""

import hashlib
import importlib.util
import json
import os
import pathlib
import threading

import pytest

from ddsp.errors import DDSPError
from ddsp.io import gcs
from ddsp.io.dataset import DatasetError, open_dataset
from ddsp.io.files import UnsafeNameError

SECRET = b'secret'
DIGEST = hashlib.sha256(SECRET).hexdigest()
NAMES = [
    '', '.', '..', '/', '../canary', '../../canary', 'a/../../canary', './canary', 'sub/canary', 'a//b', 'a/',
    '~/canary', '~root', 'C:/canary', 'c:canary', 'file:///etc/passwd', 'gs://other/x', '\\\\host\\x',
    '..\\canary', 'a\\b', 'x\0y', 'x\n', 'x\r', '\x1b[2Jx', '\u202ex', '\u2025/canary', '\uff0e\uff0e/canary',
    '\uff0fetc', '\uff3cx', 'C\uff1ax', '\ud800', '.origin', '.lock', '.hidden', 'MANIFEST.json',
    '{absolute}',    None, 3, True, ['x'], {'x': 1},
]  # fmt: skip


def manifest(**changes):
    row = {'name': 'notes-train.tfrecord-00000-of-00001', 'bytes': 6, 'sha256': DIGEST, 'examples': 1}
    content = {
        'schema_version': 1, 'name': 'notes', 'version': '1.0.0', 'sample_rate': 16000, 'frame_rate': 250,
        'example_secs': 4.0, 'centered': False, 'f0_estimator': 'yin',
        'splits': {'train': {'examples': 1, 'files': [row | changes.pop('row', {})]}},
        'files': {'statistics.json': DIGEST},
    }  # fmt: skip
    return content | changes


@pytest.fixture
def canary(tmp_path):
    """A secret beside the dataset, and a check that nothing else lies around and that it is as it was."""
    path = tmp_path / 'canary'
    path.write_bytes(SECRET)
    before = path.stat()
    yield path
    after = path.stat()
    assert (path.read_bytes(), after.st_mtime_ns, after.st_nlink) == (SECRET, before.st_mtime_ns, 1)
    assert {child.name for child in tmp_path.iterdir()} <= {'canary', 'data', 'cache'}


def local(tmp_path, content):
    folder = tmp_path / 'data' / 'notes' / '1.0.0'
    folder.mkdir(parents=True)
    (folder / 'MANIFEST.json').write_text(json.dumps(content))
    for name in ('statistics.json', 'notes-train.tfrecord-00000-of-00001'):
        (folder / name).write_bytes(SECRET)
    return folder


@pytest.fixture
def bucket(monkeypatch, tmp_path):
    """Google Cloud Storage on loopback."""
    place = pathlib.Path(__file__).parents[2] / 'pipelines' / 'gcs_server.py'
    spec = importlib.util.spec_from_file_location('gcs_server', place)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    server = module.Server()
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    monkeypatch.setenv('STORAGE_EMULATOR_HOST', server.url)
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
    yield server
    server.shutdown()
    server.server_close()


def read_all(address):
    dataset = open_dataset(address)
    dataset.verify()
    for split in dataset.splits:
        dataset.files(split)


def use_all(folder):
    dataset = open_dataset(folder)
    dataset.statistics('train')
    dataset.files('train')


def spelt(name, canary):
    return str(canary) if name == '{absolute}' else name


@pytest.mark.parametrize('name', NAMES, ids=ascii)
def test_a_record_file_is_directly_in_the_folder(tmp_path, canary, name):
    folder = local(tmp_path, manifest(row={'name': spelt(name, canary)}))
    with pytest.raises((UnsafeNameError, DatasetError), match=r'MANIFEST\.json (names|is damaged)'):
        open_dataset(folder)


@pytest.mark.parametrize('name', [name for name in NAMES if isinstance(name, str)], ids=ascii)
def test_a_metadata_file_is_directly_in_the_folder(tmp_path, canary, name):
    folder = local(tmp_path, manifest(files={spelt(name, canary): DIGEST}))
    with pytest.raises(UnsafeNameError, match=r'MANIFEST\.json names'):
        open_dataset(folder)


@pytest.mark.parametrize('where', ['row', 'files'])
@pytest.mark.parametrize('name', [name for name in NAMES if isinstance(name, str)], ids=ascii)
def test_nothing_of_a_bucket_is_fetched_to_elsewhere(tmp_path, canary, bucket, name, where):
    name = spelt(name, canary)
    content = manifest(row={'name': name}) if where == 'row' else manifest(files={name: DIGEST})
    gcs.upload(json.dumps(content).encode(), 'gs://bucket/notes/1.0.0/MANIFEST.json')
    key = f'notes/1.0.0/{name}'
    for place in (key, os.path.normpath(key), name):
        if place != 'notes/1.0.0/MANIFEST.json':
            bucket.put(('bucket', place), SECRET, {})
    bucket.calls.clear()
    with pytest.raises(UnsafeNameError, match=r'MANIFEST\.json names'):
        read_all('gs://bucket/notes/1.0.0')
    media = [path for method, path in bucket.calls if '/download/' in path]
    assert all(path.endswith('MANIFEST.json') for path in media)
    assert not (tmp_path / 'cache').exists()


@pytest.mark.parametrize(
    'address', ['gs://bucket/..', 'gs://bucket/../1.0.0', 'gs://bucket/a/../..', 'gs://bucket']
)
def test_the_address_of_a_bucket_does_not_choose_where_its_copy_lies(tmp_path, canary, bucket, address):
    """Objects may have `..` in their names, and a listing shows what is there."""
    good = manifest(files={}, splits={'train': {'examples': 0, 'files': []}})
    for prefix in ('../1.0.0', '../../1.0.0', 'a/../..', 'a/../../1.0.0', 'notes/1.0.0', '..'):
        gcs.upload(json.dumps(good).encode(), f'gs://bucket/{prefix}/MANIFEST.json')
    read_all(address)
    written = [path for path in tmp_path.rglob('*') if path.is_file() and path != canary]
    assert [path.name for path in written] == ['MANIFEST.json']
    assert written[0].parent.parent == tmp_path / 'cache' / 'ddsp' / 'datasets'


@pytest.mark.parametrize(
    'changes',
    [{'name': name} for name in ('../x', 'a/b', '', 'x\n', 'x y', 'é', 3, None)]
    + [
        {'version': text}
        for text in ('..', '1.0', '1.0.0/..', '1.0.0\n', '\u0661.0.0', '9' * 99 + '.0.0', 1.0)
    ]
    + [{'splits': {text: {'examples': 0, 'files': []}}} for text in ('../x', '', 'Train', '-x', 'x\n', '/x')],
    ids=ascii,
)
def test_names_of_dataset_version_and_split_are_plain(tmp_path, canary, changes):
    """They become parts of file names elsewhere, such as inspect-NAME-VERSION.html."""
    with pytest.raises(DatasetError, match=r'MANIFEST\.json is damaged: (name|version|splits) '):
        open_dataset(local(tmp_path, manifest(**changes)))


@pytest.mark.parametrize('link', ['notes-train.tfrecord-00000-of-00001', 'statistics.json', 'MANIFEST.json'])
@pytest.mark.parametrize('target', ['../../../canary', '{absolute}', '../../../none', '/proc/self/environ'])
def test_links_do_not_leave_the_folder(tmp_path, canary, link, target):
    folder = local(tmp_path, manifest())
    (folder / link).unlink()
    (folder / link).symlink_to(spelt(target, canary))
    with pytest.raises((UnsafeNameError, DatasetError), match=r'link that leaves|MANIFEST\.json is missing'):
        use_all(folder)


def test_a_link_in_a_cached_copy_is_not_followed(tmp_path, canary, bucket):
    content = manifest(files={})
    gcs.upload(json.dumps(content).encode(), 'gs://bucket/notes/1.0.0/MANIFEST.json')
    gcs.upload(SECRET, 'gs://bucket/notes/1.0.0/notes-train.tfrecord-00000-of-00001')
    dataset = open_dataset('gs://bucket/notes')
    (dataset.path / 'notes-train.tfrecord-00000-of-00001').symlink_to(canary)
    with pytest.raises(UnsafeNameError, match='link that leaves'):
        dataset.files('train')


def test_a_folder_cannot_say_that_it_is_a_copy_of_a_bucket(tmp_path, canary, bucket):
    """Its records would be fetched from wherever its author likes."""
    folder = local(tmp_path, manifest())
    (folder / '.origin').write_text('gs://elsewhere/notes/1.0.0')
    dataset = open_dataset(folder)
    assert dataset.address == str(folder)
    dataset.files('train')
    assert bucket.calls == []


@pytest.mark.parametrize(
    'changes',
    [
        {'name': None}, {'sample_rate': '16000'}, {'sample_rate': 0}, {'sample_rate': True},
        {'frame_rate': -1},
        {'frame_rate': 250.5}, {'example_secs': '4'}, {'example_secs': float('nan')}, {'centered': 'no'},
        {'f0_estimator': ['yin']}, {'features': [1]}, {'features': {'audio': -1}}, {'splits': []},
        {'splits': {'train': 3}}, {'splits': {'train': {'examples': 1}}},
        {'splits': {'train': {'examples': '1', 'files': []}}},
        {'row': {'bytes': 'many'}}, {'row': {'bytes': -1}}, {'row': {'sha256': 'x'}},
        {'row': {'sha256': None}}, {'row': {'examples': 1.5}}, {'files': []}, {'files': {'a': 3}},
        {'fingerprint': 7},
    ],
    ids=str,
)  # fmt: skip
def test_wrong_types_in_a_manifest_are_a_sentence(tmp_path, changes):
    with pytest.raises(DatasetError, match=r'MANIFEST\.json is damaged: \w+'):
        open_dataset(local(tmp_path, manifest(**changes)))


@pytest.mark.parametrize(
    'text', ['3', 'null', '[[' * 50000, '{"splits": 3}', '{"splits": {"train": []}}', '\xff', '{}',
             '{"splits": {"train": {"examples": "x"}}}', '{"splits": {"train": {"pitch_midi": 3}}}',
             '{"splits": {"train": {"notes": {"power_db": {"quantiles": ["x"]}}}}}']
)  # fmt: skip
def test_wrong_types_in_the_statistics_are_a_sentence(tmp_path, text):
    folder = local(tmp_path, manifest())
    (folder / 'statistics.json').write_text(text, encoding='latin-1')
    with pytest.raises(DDSPError, match=r'statistics\.json (is damaged|cannot be read)'):
        open_dataset(folder).statistics('train')
