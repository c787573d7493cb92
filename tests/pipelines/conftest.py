"""Recordings for the pipeline's tests."""

import importlib.util
import logging
import pathlib
import socket
import threading

import numpy as np
import pytest
import soundfile

from ddsp.io.audio import write_wav


def melody(seconds, hz, rate=16000):
    """A harmonic tone with vibrato, level and pitch of its own."""
    t = np.arange(int(seconds * rate)) / rate
    f0 = hz * 2 ** (0.3 / 12 * np.sin(2 * np.pi * 5 * t))
    phase = 2 * np.pi * np.cumsum(f0) / rate
    level = 0.2 + 0.15 * np.sin(2 * np.pi * 0.7 * t)
    return level * sum(np.sin(k * phase) / k for k in range(1, 7))


@pytest.fixture(scope='session')
def folder(tmp_path_factory):
    """Six recordings of 6 s each."""
    path = tmp_path_factory.mktemp('recordings')
    for i, hz in enumerate([196, 233, 277, 330, 392, 466]):
        write_wav(path / f'note_{i}.wav', melody(6, hz), 16000)
    return path


@pytest.fixture(scope='session')
def corpus(tmp_path_factory):
    """Five recordings, one at 8 kHz, one of them again as flac, and what cannot be used."""
    folder = tmp_path_factory.mktemp('corpus')
    for i in range(4):
        soundfile.write(folder / f'{i}.wav', melody(3, 180 + 25 * i), 16000)
    soundfile.write(folder / 'telephone.wav', melody(3, 300, 8000), 8000)
    soundfile.write(folder / 'zero again.flac', soundfile.read(folder / '0.wav')[0], 16000)
    soundfile.write(folder / 'silence.wav', np.zeros(48000), 16000)  # a shard finds that out
    (folder / 'text.wav').write_bytes(b'not a sound' * 200)
    (folder / 'empty.wav').touch()
    (folder / 'notes.txt').write_text('about these recordings')
    return folder


def _connect(monkeypatch, tmp_path, url):
    monkeypatch.setenv('STORAGE_EMULATOR_HOST', url)
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))


@pytest.fixture
def bucket_server(monkeypatch, tmp_path):
    """Google Cloud Storage on loopback with preconditions: our own, see gcs_server.py."""
    spec = importlib.util.spec_from_file_location(
        'gcs_server', pathlib.Path(__file__).with_name('gcs_server.py')
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    server = module.Server()
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    _connect(monkeypatch, tmp_path, server.url)
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def emulator(monkeypatch, tmp_path):
    """The emulator of the package index, in this process: one bucket, no preconditions."""
    create_server = pytest.importorskip('gcp_storage_emulator.server').create_server
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    logging.getLogger('gcp_storage_emulator').setLevel(logging.CRITICAL)
    server = create_server('127.0.0.1', port, in_memory=True, default_bucket='bucket')
    server.start()
    _connect(monkeypatch, tmp_path, f'http://127.0.0.1:{port}')
    yield server
    server.stop()


@pytest.fixture(params=['emulator', 'bucket_server'])
def cloud(request):
    """Either of them."""
    return request.getfixturevalue(request.param)
