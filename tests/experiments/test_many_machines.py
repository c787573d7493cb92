"""A sweep of four machines and one tracking server, while both die: nothing is lost or doubled."""

from __future__ import annotations

import json
import os
import pathlib
import random
import subprocess
import sys
import time

import pytest

from benchmarks.tracking_server import TrackingServer
from experiments.tracking import store

STEPS, EVERY = 60, 5
SWEEP = f"""
objective: losses/total_loss
trials: 6
steps: {STEPS}
batch_size: 2
preset: laptop
pruner: none
parameters:
  Trainer.learning_rate: {{low: 1e-4, high: 1e-2, log: true}}
fixed: {{RnnFcDecoder.rnn_channels: 8, RnnFcDecoder.ch: 8, RnnFcDecoder.layers_per_stack: 1,
        Reverb.reverb_length: 400, train.steps_per_summary: {EVERY}, train.steps_per_save: 10}}
"""
BY_TIME = ('system/', 'held_out/')  # metrics of which there are as many as time allows
_LONGEST_SECS = 1500.0


@pytest.fixture(scope='module')
def server(tracking_server: TrackingServer) -> TrackingServer:
    return tracking_server


@pytest.fixture
def admin(server, monkeypatch):
    """A client with the administrator's login."""
    for name, value in server.login().items():
        monkeypatch.setenv(name, value)
    return store.client(server.address)


class Machine:
    """One `ddsp sweep` with a working directory and, where the system allows it, a host name of its own."""

    def __init__(self, number: int, folder: pathlib.Path, server: TrackingServer, command: list[str]):
        self.folder = folder / f'machine-{number}'
        self.folder.mkdir(exist_ok=True)
        environment = {
            **os.environ, **server.login(), 'PYTHONPATH': os.pathsep.join(sys.path),
            'DDSP_SWEEP_STORAGE': server.database('sweeps', 'sweeps'), 'DDSP_SWEEP_HEARTBEAT_SECS': '4',
        }  # fmt: skip
        named = ['unshare', '--uts', 'sh', '-c', f'hostname machine-{number}; exec "$@"', 'sh']
        tried = subprocess.run([*named, 'true'], capture_output=True, check=False)
        self.has_name = tried.returncode == 0
        words = [sys.executable, '-m', 'experiments.cli', *command, '--json']
        with (self.folder / 'out').open('wb') as out, (self.folder / 'err').open('wb') as err:
            self.process = subprocess.Popen(
                [*named, *words] if self.has_name else words, env=environment, cwd=self.folder, stdout=out,
                stderr=err,
            )  # fmt: skip

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def told(self) -> str:
        return (self.folder / 'err').read_text(errors='replace')


def wait_for(condition, machines: list[Machine], what: str) -> None:
    deadline = time.monotonic() + _LONGEST_SECS
    while not condition():
        assert all(machine.process.poll() is None for machine in machines), [m.told() for m in machines]
        assert time.monotonic() < deadline, what
        time.sleep(0.2)


def course(client, run_id: str) -> dict[str, list[int]]:
    """Steps of each metric, in order; none twice."""
    steps = {}
    for name in client.get_run(run_id).data.metrics:
        steps[name] = sorted(point.step for point in client.get_metric_history(run_id, name))
        assert len(set(steps[name])) == len(steps[name]), f'{name} is doubled: {steps[name]}'
    return steps


def files(client, run_id: str, folder: str = '') -> set[str]:
    """Artefacts of a run, without those of held-out examples, of which there are as many as time allows."""
    found = set()
    for entry in client.list_artifacts(run_id, folder or None):
        found |= files(client, run_id, entry.path) if entry.is_dir else {entry.path}
    return {path for path in found if '/steps/' not in path and not path.startswith('images/')}


def in_hand(client, name: str, machine: int, folder: pathlib.Path) -> dict[int, int]:
    """The trial that a machine is training, and the last step that it has saved of it."""
    mine = f"tags.sweep_id = '{name}' AND tags.`ddsp.host` = 'machine-{machine}'"
    runs = store.search(client, f"{mine} AND attributes.status = 'RUNNING'")
    slots = [int(run.data.tags['sweep_trial']) for run in runs]
    saved = {slot: folder.glob(f'trial-{slot:04d}/ckpt-*.index') for slot in slots}
    return {
        slot: max((int(path.stem.split('-')[1]) for path in paths), default=0)
        for slot, paths in saved.items()
    }


def starts(folder: pathlib.Path) -> list[int]:
    """Steps at which a trial was begun and taken up again."""
    rows = [json.loads(line) for line in (folder / 'outbox.jsonl').read_text().splitlines()]
    return [row['step'] for row in rows if row['kind'] == 'params']


def by_count(steps: dict[str, list[int]]) -> dict[str, list[int]]:
    return {name: found for name, found in steps.items() if not name.startswith(BY_TIME)}


def command_lines() -> str:
    lines = []
    for path in pathlib.Path('/proc').glob('[0-9]*/cmdline'):
        try:
            lines.append(path.read_bytes().decode(errors='replace'))
        except OSError:
            continue
    return '\n'.join(lines)


@pytest.mark.slow
@pytest.mark.parametrize('shared', [True, False], ids=['shared storage', 'folders of their own'])
def test_a_sweep_of_four_machines_outlives_two_of_them_and_its_servers(
    shared, server, admin, tmp_path, dataset
):
    seed = int(os.environ.get('DDSP_TEST_SEED') or random.SystemRandom().randrange(10**6))
    print(f'DDSP_TEST_SEED={seed}')
    chance, name = random.Random(seed), f'many-{"shared" if shared else "own"}-{os.getpid()}'
    (tmp_path / 'rates.yaml').write_text(f'name: {name}\n{SWEEP}')
    (tmp_path / 'calm.yaml').write_text(f'name: {name}-calm\n{SWEEP}')
    place = ['--save-dir', str(tmp_path / 'storage' / 'sweep')] if shared else []
    command = ['sweep', str(tmp_path / 'rates.yaml'), str(dataset), '--experiment', name, *place]
    machines = [Machine(number, tmp_path, server, command) for number in range(4)]
    seen, left = [], {}
    try:
        started = (
            'storage/sweep/trial-*/ckpt-*.index' if shared else 'machine-*/sweeps/*/trial-*/ckpt-*.index'
        )
        wait_for(lambda: list(tmp_path.glob(started)), machines, 'no trial has begun')
        victims = chance.sample(range(4), 2)
        alive = [machine for number, machine in enumerate(machines) if number not in victims]
        for number, is_last in zip(victims, (False, True), strict=True):
            time.sleep(chance.uniform(0, 15))
            seen.append(command_lines())
            left |= in_hand(admin, name, number, tmp_path / 'storage' / 'sweep')
            machines[number].kill()
            if not is_last:
                time.sleep(chance.uniform(0, 5))
                server.kill()
                server.cluster.stop('immediate')
                time.sleep(chance.uniform(1, 5))
                server.cluster.start()
                server.start()
        for machine in alive:
            assert machine.process.wait(_LONGEST_SECS) == 0, machine.told()
    finally:
        for machine in machines:
            machine.kill()
    calm = Machine(9, tmp_path, server, ['sweep', str(tmp_path / 'calm.yaml'), str(dataset), '--trials', '1'])
    assert calm.process.wait(_LONGEST_SECS) == 0, calm.told()

    for machine in alive:
        result = json.loads((machine.folder / 'out').read_text())
        assert (result['finished'], result['failed'], result['total']) == (6, 0, 6)
        assert 'Traceback' not in machine.told()
    (expected,) = store.search(admin, f"tags.sweep_id = '{name}-calm' AND tags.sweep_role = 'trial'")
    wanted = course(admin, expected.info.run_id)
    assert wanted['losses/total_loss'] == list(range(EVERY, STEPS + 1, EVERY))
    runs = store.search(admin, f"tags.sweep_id = '{name}' AND tags.sweep_role = 'trial'")
    assert {run.info.status for run in runs} <= {'FINISHED', 'KILLED'}
    finished = [run for run in runs if run.info.status == 'FINISHED']
    assert sorted(run.data.tags['sweep_trial'] for run in finished) == list('012345')
    for run in runs:
        steps = course(admin, run.info.run_id)  # which finds doubles
        if run not in finished:
            assert not shared
            assert run.data.tags['sweep_outcome'] == 'taken over'
            continue
        assert by_count(steps) == by_count(wanted)
        held_out = {tuple(found) for metric, found in steps.items() if metric.startswith('held_out/')}
        assert all((found[0], found[-1]) == (0, STEPS) for found in held_out)
        assert files(admin, run.info.run_id) == files(admin, expected.info.run_id)
        assert len(run.outputs.model_outputs) == 1
        if machines[0].has_name:
            assert run.data.tags['ddsp.host'].startswith('machine-')
    for slot, step in left.items() if shared else ():
        begun = starts(tmp_path / 'storage' / 'sweep' / f'trial-{slot:04d}')
        assert len(begun) >= 2, f'trial {slot} was not taken over'
        assert begun[-1] >= step > 0 or step == 0
    (summary,) = store.search(admin, f"tags.sweep_id = '{name}' AND tags.sweep_role = 'summary'")
    assert summary.info.status == 'FINISHED'
    assert {'compare.html', 'best.json'} <= files(admin, summary.info.run_id)

    secrets = server.secrets.values()
    assert [word for word in secrets if word in '\n'.join(seen)] == []
    written = [path for path in tmp_path.rglob('*') if path.is_file()]
    assert [path for path in written if any(word.encode() in path.read_bytes() for word in secrets)] == []
