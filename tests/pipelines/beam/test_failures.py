"""What goes wrong in a worker is told by the driver, with the recording."""

import os
import signal
import threading
import time

import numpy as np
import pytest

from ddsp.errors import DDSPError
from ddsp.io.audio import write_wav
from ddsp.io.dataset import open_dataset
from pipelines import PrepareOptions, prepare_dataset
from pipelines.beam import ending, runner
from pipelines.shards.watch import Watch, counts, left_by_the_dead


def test_a_worker_that_dies_is_told_with_its_recording(tmp_path):
    """Beam's own runner would wait for it forever."""
    t = np.arange(16000 * 60) / 16000
    for i in range(4):
        write_wav(tmp_path / 'in' / f'note_{i}.wav', 0.3 * np.sin(2 * np.pi * (150 + 11 * i) * t), 16000)
    staging = tmp_path / 'notes' / '.staging'

    def kill():
        while not any(counts(run)['made/audio_ms'] for run in staging.glob('run-*')):
            time.sleep(0.01)
        os.kill(int(next(staging.glob('*/*.at')).stem), signal.SIGKILL)

    threading.Thread(target=kill, daemon=True).start()
    options = PrepareOptions(f0='yin', workers=2, num_shards=2)
    with pytest.raises(DDSPError, match=r'a worker died while it analysed .*note_\d.wav: it was killed'):
        prepare_dataset(tmp_path / 'in', tmp_path, 'notes', options=options)
    result = prepare_dataset(tmp_path / 'in', tmp_path, 'notes', options=options)
    assert result.accepted == 4
    open_dataset(result.path).verify()


def test_a_living_worker_is_not_told(tmp_path):
    Watch(str(tmp_path)).at('a.wav')
    assert left_by_the_dead(tmp_path) == []


def test_the_driver_raises_what_a_worker_reported_and_the_others_stop(tmp_path, folder, monkeypatch):
    from pipelines.shards import shard

    made = []

    def make(plan):
        made.append(plan)
        raise DDSPError('x cannot be written: No route to host.')

    monkeypatch.setattr(shard, '_fill', lambda writer, plan, *rest: make(plan))
    options = PrepareOptions(f0='yin', workers=1, num_shards=2)
    with pytest.raises(DDSPError, match=r'^x cannot be written: No route to host\.$'):
        prepare_dataset(folder, tmp_path, 'notes', options=options)
    assert len(made) == 1


@pytest.mark.parametrize('where', ['folder', 'bucket'])
def test_an_engine_may_run_the_last_step_again(tmp_path, folder, monkeypatch, where, request):
    root = tmp_path
    if where == 'bucket':
        request.getfixturevalue('bucket_server')
        root = 'gs://bucket/out'
    end, ended = ending.end, []

    def end_twice(*args):
        ended.extend([end(*args), end(*args)])
        return ended[-1]

    monkeypatch.setattr(ending, 'end', end_twice)
    options = PrepareOptions(f0='yin', workers=1, num_shards=2)
    result = prepare_dataset(folder, root, 'notes', options=options)
    assert ended == ['published', 'published']
    assert result.accepted == 6
    open_dataset(result.path).verify()


def test_progress_is_told_in_seconds_of_audio(tmp_path, folder, monkeypatch):
    """All steps of a worker tell it by one file."""
    monkeypatch.setattr(runner, '_POLL_SECS', 0.005)
    calls = []
    options = PrepareOptions(f0='yin', workers=1, num_shards=2)
    prepare_dataset(folder, tmp_path, 'notes', options=options, progress=lambda *call: calls.append(call))
    told = [(done, total) for done, total, text in calls if 's of audio analysed' in text]
    assert {total for _, total in told} == {36.0}
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    assert len({done for done, _ in told}) > 2
