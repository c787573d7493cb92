"""Every engine publishes the same files, from here or from a bucket."""

import shutil
import sys

import numpy as np
import pytest
import soundfile

from ddsp.io import gcs
from pipelines import PrepareOptions

# Takes the place of Java: Beam's own job service, on the port that the client asks for.
STAND_IN = """#!{python}
import pathlib, sys
from apache_beam.runners.portability import local_job_service_main as service
pathlib.Path(__file__ + '.words').write_text('\\n'.join(sys.argv[1:]))
service.run(['--job_port', sys.argv[sys.argv.index('--job-port') + 1]])
"""


def counted(result):
    """Counters without times, which differ."""
    return {name: n for name, n in result.metrics.items() if 'cpu' not in name and 'wall' not in name}


@pytest.fixture(scope='module')
def expected(corpus, tmp_path_factory):
    """A function: what this process publishes of the corpus, made once."""
    made = []

    def publish(prepare):
        if not made:
            made.append(prepare(corpus, tmp_path_factory.mktemp('expected')))
        return made[0]

    return publish


def test_the_corpus_holds_every_outcome(prepare, expected):
    _, result = expected(prepare)
    assert result.accepted == 5
    assert result.rejected == {'not_audio': 1, 'empty': 1, 'silent': 1}
    assert (result.duplicates, result.skipped) == (1, 1)
    assert any('upsampled' in text for _, text in result.warnings)


def test_two_processes_publish_the_same_files(corpus, prepare, expected, tmp_path):
    files, result = prepare(corpus, tmp_path, options=PrepareOptions(f0='yin', num_shards=2, workers=2))
    assert (files, counted(result)) == (expected(prepare)[0], counted(expected(prepare)[1]))


@pytest.mark.parametrize('engine', ['job_service', 'prism', 'flink'], indirect=True)
def test_every_engine_publishes_the_same_files(engine, corpus, prepare, expected, tmp_path):
    files, result = prepare(corpus, tmp_path / 'root', engine)
    assert (files, counted(result)) == (expected(prepare)[0], counted(expected(prepare)[1]))
    assert result.costs['f0'] > 0


@pytest.mark.slow
@pytest.mark.parametrize('engine', ['job_service', 'prism', 'flink'], indirect=True)
def test_two_hundred_odd_files_are_the_same_everywhere(ffmpeg, engine, wide_corpus, prepare, tmp_path):
    """Names that are not UTF-8, links in circles, damaged headers and notes, as they travel to workers."""
    options = PrepareOptions(f0='yin', workers=1)
    expected, here = prepare(wide_corpus, tmp_path / 'here', options=options)
    files, there = prepare(wide_corpus, tmp_path / 'there', engine, options=options)
    assert sum(there.metrics[name] for name in there.metrics if name.startswith('files/')) >= 200
    assert counted(there) == counted(here)
    assert files == expected


@pytest.fixture(scope='module')
def large(tmp_path_factory):
    """Recordings of 135 minutes, which become two gigabytes of examples that overlap."""
    folder = tmp_path_factory.mktemp('large')
    for i in range(9):
        t = np.arange(15 * 60 * 16000, dtype=np.float32) / 16000
        swell = 1 + 0.5 * np.sin(4 * t)
        soundfile.write(folder / f'{i}.wav', 0.2 * swell * np.sin(2 * np.pi * (180 + 25 * i) * t), 16000)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize('engine', ['job_service', 'prism'], indirect=True)
def test_two_gigabytes_are_the_same_everywhere(engine, large, prepare, tmp_path):
    options = PrepareOptions(f0='yin', workers=2)
    expected, here = prepare(large, tmp_path / 'here', options=options)
    size = sum(file.stat().st_size for file in here.path.iterdir())
    assert size > 2e9
    shutil.rmtree(here.path)
    files, there = prepare(large, tmp_path / 'there', engine, options=options)
    assert counted(there) == counted(here)
    assert files == expected
    shutil.rmtree(there.path)


def test_an_engine_publishes_from_bucket_to_bucket(bucket_server, job_service, corpus, prepare):
    """The workers have an environment of their own, with the address of the service in it."""
    for file in corpus.iterdir():
        gcs.upload(file, f'gs://bucket/in/{file.name}')
    here, _ = prepare('gs://bucket/in', 'gs://bucket/here')
    there, result = prepare('gs://bucket/in', 'gs://bucket/there', job_service)
    assert result.path == 'gs://bucket/there/notes/1.0.0'
    assert there == here
    left = [name for _, name in bucket_server.objects if name.startswith('there/notes/.staging')]
    assert not left


def test_the_flink_client_starts_its_job_server(programs, pool, corpus, prepare, expected, tmp_path):
    """The client's half: our options, the start of the job server, submission, metrics."""
    programs.wait()
    jar, java = tmp_path / 'job-server.jar', tmp_path / 'java'
    jar.touch()
    java.write_text(STAND_IN.format(python=sys.executable))
    java.chmod(0o755)
    options = (
        '--flink_master=[local]', '--parallelism=2', f'--flink_job_server_jar={jar}',
        f'--job_server_java_launcher={java}', '--experiments=pre_optimize=default', *pool,
    )  # fmt: skip
    files, _ = prepare(corpus, tmp_path / 'root', ('flink', options))
    assert files == expected(prepare)[0]
    words = java.with_name('java.words').read_text().split('\n')
    assert words[:4] == ['-jar', str(jar), '--flink-master', '[local]']
