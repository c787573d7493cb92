"""kill -9 at random moments, then the same command: the bytes are those of an undisturbed run."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from ddsp.io.audio import write_wav
from ddsp.io.dataset import open_dataset

PROGRAM = """
import sys
from pipelines import PrepareOptions, prepare_dataset
if __name__ == '__main__':
    options = PrepareOptions(f0='yin', workers=int(sys.argv[3]))
    prepare_dataset(sys.argv[1], sys.argv[2], 'notes', options=options)
"""


@pytest.fixture(scope='module')
def corpus(tmp_path_factory):
    """Forty recordings of fifteen seconds."""
    folder = tmp_path_factory.mktemp('corpus')
    t = np.arange(16000 * 15) / 16000
    for i in range(40):
        write_wav(folder / f'{i:02d}.wav', 0.3 * np.sin(2 * np.pi * (150 + 11 * i) * t), 16000)
    return folder


def start(corpus, root, workers=1):
    command = [sys.executable, '-c', PROGRAM, str(corpus), str(root), str(workers)]
    environment = os.environ | {'SOURCE_DATE_EPOCH': '0'}
    return subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL, start_new_session=True)


def content(root):
    """Names and bytes of the published version; all of them but the costs."""
    dataset = open_dataset(root)
    dataset.verify()
    left_out = ('metrics.json', 'MANIFEST.json', 'pipeline.json')
    files = {file.name: file.read_bytes() for file in dataset.path.iterdir() if file.name not in left_out}
    pipeline = json.loads((dataset.path / 'pipeline.json').read_text())
    del pipeline['code_revision'], dataset.manifest['files']['pipeline.json']  # of the checkout
    return files | {'pipeline.json': pipeline, 'MANIFEST.json': dataset.manifest}


def kill_once(corpus, root, workers, after):
    """Whether the run was still going when it was killed: the driver alone, as the system would kill it."""
    process = start(corpus, root, workers)
    time.sleep(after)
    process.send_signal(signal.SIGKILL)
    return process.wait() != 0


def staged(folder):
    return len(list(pathlib.Path(folder).glob('**/.staging/t*.json')))


@pytest.mark.slow
@pytest.mark.parametrize(('where', 'times'), [('disk', 10), ('bucket', 3)])
def test_a_preparation_killed_at_random_moments_publishes_the_same_bytes(
    corpus, tmp_path, where, times, request
):
    rng = np.random.default_rng(7)
    started = time.monotonic()
    assert start(corpus, tmp_path / 'undisturbed').wait() == 0
    took = time.monotonic() - started
    expected = content(tmp_path / 'undisturbed')
    assert len(expected['MANIFEST.json']['splits']['train']['files']) > 4
    if where == 'bucket':
        request.getfixturevalue('bucket_server')
    killed, progress = 0, []
    for i in range(times):
        root = f'gs://bucket/{i}' if where == 'bucket' else tmp_path / f'{i}'
        killed += kill_once(corpus, root, 1 + i % 2, after=float(rng.uniform(0.2, 0.95)) * took)
        progress.append(staged(tmp_path / ('cache' if where == 'bucket' else f'{i}')))
        assert start(corpus, root).wait() == 0
        assert content(root) == expected
    assert killed >= times - 2  # the machine may be quicker at times
    assert len(set(progress)) > 1  # at different stages
