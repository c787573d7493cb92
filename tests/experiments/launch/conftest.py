"""A Slurm of one node with two cores on loopback, without systemd."""

from __future__ import annotations

import contextlib
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator

import pytest

from experiments.launch.supervisor import free_ports

PROGRAMS = ('munged', 'slurmctld', 'slurmd', 'srun', 'sbatch')


@pytest.fixture
def slurm(workdir, monkeypatch):
    """A cluster, which ends with the test."""
    if missing():
        pytest.skip(f'Slurm is not installed: {", ".join(missing())}')
    with running(workdir / 'slurm') as config:
        monkeypatch.setenv('SLURM_CONF', str(config))
        monkeypatch.setenv('OMP_NUM_THREADS', '1')
        yield config


def missing() -> list[str]:
    """Programs that are not installed."""
    path = os.pathsep.join((os.environ['PATH'], '/usr/sbin'))
    return [name for name in PROGRAMS if shutil.which(name, path=path) is None]


@contextlib.contextmanager
def running(folder: pathlib.Path) -> Iterator[pathlib.Path]:
    """Starts munged, slurmctld and slurmd; yields the slurm.conf, for SLURM_CONF."""
    for name in ('state', 'spool', 'munge'):
        (folder / name).mkdir(parents=True)
    (folder / 'munge').chmod(0o755)
    key = folder / 'munge' / 'key'
    key.write_bytes(os.urandom(1024))
    key.chmod(0o600)
    host, ports = socket.gethostname().partition('.')[0], free_ports(2)
    config = folder / 'slurm.conf'
    config.write_text(f"""
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
ReturnToService=2
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 RealMemory=4000 State=UNKNOWN
PartitionName=main Nodes={host} Default=YES MaxTime=INFINITE State=UP
""")
    munge = f'{folder}/munge'
    environment = {**os.environ, 'SLURM_CONF': str(config), 'PATH': f'{os.environ["PATH"]}:/usr/sbin'}
    try:
        for command in (
            ['munged', '--force', f'--key-file={key}', f'--socket={munge}/socket', f'--pid-file={munge}/pid',
             f'--log-file={munge}/log', f'--seed-file={munge}/seed'],
            ['slurmctld', '-f', str(config)],
            ['slurmd', '-f', str(config), '-N', host],
        ):  # fmt: skip
            subprocess.run(command, env=environment, check=True, stdin=subprocess.DEVNULL, timeout=60)
        end = time.monotonic() + 60
        while 'idle' not in subprocess.run(
            ['sinfo', '--noheader', '--format=%T'], env=environment, capture_output=True, text=True,
            check=False,
        ).stdout:  # fmt: skip
            assert time.monotonic() < end, (folder / 'slurmctld.log').read_text()[-3000:]
            time.sleep(0.5)
        yield config
    finally:
        for path in (folder / 'slurmd.pid', folder / 'slurmctld.pid', folder / 'munge' / 'pid'):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError, ValueError):
                os.kill(int(path.read_text()), signal.SIGTERM)
                time.sleep(0.5)
