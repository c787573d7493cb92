"""`ddsp launch` and `ddsp jobs`: what is checked before anything is submitted, and jobs on this machine."""

from __future__ import annotations

import json
import os
import pathlib
import signal
import threading
import time

import numpy as np
import pytest
import soundfile

from ddsp.errors import ConfigError
from experiments.launch import records
from experiments.launch.executor import NAMES, State
from experiments.launch.job import Job, LaunchError
from experiments.launch.local import Local

TRAIN = ('train', 'data/violin', '--save-dir', 'runs/violin')


@pytest.fixture
def recordings(workdir):
    """A folder of tones, enough for some seconds of work."""
    folder = workdir / 'recordings'
    folder.mkdir()
    phase = 2 * np.pi * 220 * np.arange(16000 * 8) / 16000
    for i in range(4):
        tone = sum(np.sin((1 + 0.1 * i) * k * phase) / k for k in range(1, 6))
        soundfile.write(folder / f'{i}.wav', 0.1 * tone, 16000)
    return folder


def prepare_command(recordings, *more):
    return ('prepare', str(recordings), '--output', 'data', '--name', 'noise', '--f0', 'yin', *more)


def test_a_dry_run_shows_the_job_of_every_engine_and_leaves_nothing(workdir, ddsp):
    for name in NAMES:
        status, out, err = ddsp(
            'launch', name, '--name', 'violin', '--replicas', 2, '--image', 'registry/ddsp:1', '--dry-run',
            '--', *TRAIN,
        )  # fmt: skip
        assert status == 0, err
        assert 'multi_worker' in out
        assert 'DDSP_JOB' in out
    assert not (workdir / 'jobs').exists()


@pytest.mark.parametrize(
    ('words', 'said'),
    [
        (['local', '--', 'train', 'data', '--save-dir', 'x', '--stps', 3], '--steps'),
        (['local', '--', 'train', 'data'], 'train needs --save-dir'),
        (['local', '--', 'transfer', 'a.wav'], 'a job runs train, sweep, evaluate, prepare; transfer was'),
        (['slrm', '--', *TRAIN], "Did you mean 'slurm'?"),
        (['slurm', '--set', 'partitin=gpu', '--', *TRAIN], "Did you mean 'partition'?"),
        (['local', '--set', 'a=b', '--', *TRAIN], "local has no setting 'a' (--set); it has none"),
        (['local', '--env', 'PGPASSWORD=x', '--', *TRAIN], 'PGPASSWORD looks like a secret'),
        (['local', '--env', 'URI=http://a:b@host', '--', *TRAIN], 'Use --secret URI'),
        (['local', '--env', 'nothing', '--', *TRAIN], "'nothing' is not NAME=VALUE"),
        (['local', '--name', 'Violin!', '--', *TRAIN], "the name of the job is 'Violin!'"),
        (
            ['local', '--secret', 'NOT_THERE', '--', *TRAIN],
            '--secret NOT_THERE: the variable',
        ),
        (['skypilot', '--image', 'i', '--', *TRAIN], 'SkyPilot is driven by its own command'),
    ],
)
def test_mistakes_are_told_before_anything_is_submitted(workdir, ddsp, words, said):
    status, _, err = ddsp('launch', *words)
    assert status in (1, 2)
    assert said in err
    assert not list(workdir.glob('jobs/*'))


def test_a_description_is_read_from_a_file_and_options_win(workdir, ddsp):
    (workdir / 'job.yaml').write_text('name: violin\nreplicas: 4\nretries: 7\nenv: {A: b}\n')
    status, out, _ = ddsp('launch', 'local', '--job', 'job.yaml', '--replicas', 2, '--dry-run', '--', *TRAIN)
    assert status == 0
    assert '2 processes on this machine, started again up to 7 times' in out
    assert 'export A=b' in out
    (workdir / 'job.yaml').write_text('replcas: 4\n')
    status, _, err = ddsp('launch', 'local', '--job', 'job.yaml', '--dry-run', '--', *TRAIN)
    assert status == 1
    assert "Did you mean 'replicas'?" in err


def test_a_job_here_is_followed_listed_and_shown(workdir, ddsp, recordings):
    status, out, err = ddsp('launch', 'local', '--name', 'noise', '--', *prepare_command(recordings))
    assert status == 0, out + err
    assert '[0] ' in out
    assert 'Job noise: done' in err
    assert (workdir / 'data' / 'noise' / '1.0.0' / 'MANIFEST.json').exists()
    status, out, _ = ddsp('jobs', 'list', '--json')
    (row,) = json.loads(out)
    assert (row['name'], row['state'], row['executor']) == ('noise', 'done', 'local')
    assert ddsp('jobs', 'show', 'noise')[0] == 0
    assert '[0] ' in ddsp('jobs', 'logs', 'noise')[1]
    assert 'has ended already' in ddsp('jobs', 'cancel', 'noise')[2]
    status, _, err = ddsp('launch', 'local', '--name', 'noise', '--', *prepare_command(recordings))
    assert status == 1
    assert "there is a job 'noise' already" in err
    assert "no job 'nose'" in ddsp('jobs', 'show', 'nose')[2]


def test_a_mistake_is_not_repeated(workdir, ddsp):
    status, out, err = ddsp('launch', 'local', '--name', 'wrong', '--', *prepare_command('nowhere'))
    assert status == 1
    assert out.count('nowhere') == 1
    assert 'Job wrong: failed' in err


def test_a_killed_process_starts_again(workdir, recordings):
    job = Job('killed', prepare_command(recordings, '--workers', '1'), retries=1)
    records.begin('local', job)
    handle = Local().submit(job)
    folder, killed = pathlib.Path(handle), []

    def kill():
        while not killed:
            for part in workdir.glob('data/noise/.staging/*.part'):
                killed.append(int(part.name.split('.')[-2]))
                os.kill(killed[0], signal.SIGKILL)
                return
            time.sleep(0.01)

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    lines = list(Local().logs(handle, follow=True))
    killer.join(1)
    assert killed
    assert Local().state(handle) is State.DONE, lines
    assert 'processes [0] ended with [-9]; 0 retries left' in (folder / 'supervisor.log').read_text()


def test_cancelling_ends_all_processes(workdir, dataset, tiny):
    bindings = [word for binding in tiny for word in ('--gin-param', binding)]
    job = Job('long', ('train', str(dataset), *bindings, '--save-dir', 'run', '--steps', '100000'))
    records.begin('local', job)
    handle = Local().submit(job)
    end = time.monotonic() + 120
    while not (workdir / 'run').exists():
        assert time.monotonic() < end
        time.sleep(0.1)
    assert Local().state(handle) is State.RUNNING
    Local().cancel(handle)
    assert Local().state(handle) is State.CANCELLED


def test_a_supervisor_that_died_is_a_failed_job(workdir, recordings):
    job = Job('dead', prepare_command(recordings))
    records.begin('local', job)
    handle = Local().submit(job)
    state = json.loads((pathlib.Path(handle) / 'state.json').read_text())
    os.killpg(state['pid'], signal.SIGKILL)
    time.sleep(0.2)
    assert Local().state(handle) is State.FAILED


def test_a_job_that_was_refused_can_be_launched_again_under_its_name(workdir, ddsp, monkeypatch):
    monkeypatch.setenv('PATH', str(workdir))  # without Slurm's commands
    for _ in range(2):
        status, _, err = ddsp('launch', 'slurm', '--name', 'violin', '--', *TRAIN)
        assert status == 1
        assert 'sbatch is not installed here' in err
    assert (workdir / 'jobs' / 'violin' / 'job.sbatch').exists()
    assert records.every() == []


def test_records(workdir):
    record = records.begin('local', Job('one', TRAIN))
    assert records.read('one') == record
    (workdir / 'jobs' / 'one' / records.FILE).write_text('{')
    with pytest.raises(LaunchError, match='is damaged'):
        records.read('one')
    with pytest.raises(ConfigError, match='40 characters at most'):
        Job('x' * 41, TRAIN)
