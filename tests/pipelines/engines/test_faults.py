"""What engines and drivers survive: a killed worker, a killed driver, two drivers at once."""

import os
import pathlib
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import soundfile

from ddsp.errors import DDSPError
from ddsp.io import gcs
from pipelines import prepare as preparation
from pipelines.beam.sdk import FnApiRunner, beam
from pipelines.publish.home import open_home

DRIVER = """
import sys
from pipelines import PrepareOptions, prepare_dataset
options = PrepareOptions(f0='yin', num_shards=2, workers=1)
inputs, root, *beam_options = sys.argv[1:]
prepare_dataset(inputs, root, 'notes', options=options, runner='portable', beam_options=beam_options)
"""


@pytest.fixture(scope='module')
def long_corpus(tmp_path_factory):
    """Six recordings of 45 seconds: some seconds of work."""
    folder = tmp_path_factory.mktemp('long')
    t = np.arange(45 * 16000) / 16000
    for i in range(6):
        soundfile.write(folder / f'{i}.wav', 0.3 * np.sin(2 * np.pi * (180 + 25 * i) * t), 16000)
    return folder


@pytest.fixture
def begin():
    """A function: a driver in a process of its own; `variables` are added to its environment."""
    started = []

    def start(inputs, root, engine, **variables):
        command = [sys.executable, '-c', DRIVER, str(inputs), str(root), *engine[1]]
        environment = os.environ | {'SOURCE_DATE_EPOCH': '0'} | variables
        started.append(subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def unfinished(root, seconds=60):
    """The first shard that is being written below a root, when there is one: `KEY.PROCESS.part`."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for file in pathlib.Path(root).glob('notes/.staging/*.part'):
            if file.suffixes[-2][1:].isdigit():
                return file
        time.sleep(0.01)
    raise AssertionError('no shard was begun')


@pytest.mark.slow
@pytest.mark.parametrize('engine', ['prism', 'flink'], indirect=True)
def test_a_killed_worker_changes_nothing(engine, long_corpus, prepare, tmp_path):
    """Flink restarts its job; Prism's is submitted again. Beam's own job service would wait for ever."""
    expected, _ = prepare(long_corpus, tmp_path / 'expected')
    killed = []

    def kill_once():
        killed.append(int(unfinished(tmp_path / 'root').suffixes[-2][1:]))
        os.kill(killed[0], signal.SIGKILL)

    killer = threading.Thread(target=kill_once)
    killer.start()
    files, _ = prepare(long_corpus, tmp_path / 'root', engine)
    killer.join()
    assert len(killed) == 1
    assert files == expected


@pytest.mark.slow
def test_a_killed_driver_is_gone_on_with(job_service, long_corpus, prepare, begin, tmp_path):
    """Its job goes on at the service while the same command starts another one."""
    expected, _ = prepare(long_corpus, tmp_path / 'expected')
    driver = begin(long_corpus, tmp_path / 'root', job_service)
    unfinished(tmp_path / 'root')
    driver.kill()
    driver.wait()
    files, _ = prepare(long_corpus, tmp_path / 'root', job_service)
    assert files == expected


def test_a_second_driver_is_refused_in_a_folder(corpus, prepare, tmp_path, monkeypatch):
    """Before anything is submitted: no engine is there."""
    monkeypatch.setattr(preparation.engines, 'check', lambda *_, **__: None)
    with (
        open_home(tmp_path / 'root', 'notes').locked(),
        pytest.raises(DDSPError, match='another preparation is running in'),
    ):
        prepare(corpus, tmp_path / 'root', ('portable', ()))


def test_a_result_that_another_driver_took_away_is_made_again(corpus, prepare, tmp_path, monkeypatch):
    """Of two drivers with the same request, the first to end removes the staging folder of both."""
    runs = []

    def run(runner, beam_options, construct, **_):
        with beam.Pipeline(runner=FnApiRunner()) as pipeline:
            construct(pipeline)
        runs.append(list(tmp_path.glob('notes/.staging/outcome-*')))
        if len(runs) == 1:
            runs[0][0].unlink()

    monkeypatch.setattr(preparation.engines, 'check', lambda *_, **__: None)
    monkeypatch.setattr(preparation.engines, 'run', run)
    _, result = prepare(corpus, tmp_path, ('portable', ()))
    assert [len(found) for found in runs] == [1, 1]
    assert result.accepted == 5


@pytest.mark.slow
def test_two_drivers_on_two_machines_publish_one_version(
    bucket_server, job_service, corpus, prepare, begin, tmp_path
):
    """Each has a cache folder of its own, as on two machines: no lock keeps the second one out."""
    for file in corpus.iterdir():
        gcs.upload(file, f'gs://bucket/in/{file.name}')
    expected, _ = prepare('gs://bucket/in', 'gs://bucket/expected')
    drivers = [
        begin('gs://bucket/in', 'gs://bucket/out', job_service, XDG_CACHE_HOME=str(tmp_path / name))
        for name in ('one', 'two')
    ]
    for driver in drivers:
        _, told = driver.communicate(timeout=120)
        assert driver.returncode == 0, told
    published = {name for bucket, name in bucket_server.objects if name.startswith('out/notes/')}
    assert {name.split('/')[2] for name in published} <= {'1.0.0', '.survey.jsonl'}
    files = {
        name.rpartition('/')[2]: gcs.read(f'gs://bucket/{name}') for name in published if '/1.0.0/' in name
    }
    del files['metrics.json']
    assert files == expected
