"""What is listened to while a training runs, and when."""

from __future__ import annotations

import numpy as np
import pytest

from experiments.run.watchers import HeldOutWatcher, LastMetrics


class Recorder:
    """Stands for the tracker: what was recorded at which step."""

    def __init__(self) -> None:
        self.losses: list[tuple[int, float]] = []
        self.files: list[str] = []

    def log_metrics(self, metrics, step):
        self.losses.append((step, metrics['held_out/total_loss']))

    def log_image(self, path, key, step):
        assert path.is_file()

    def log_artifact(self, path, folder=''):
        self.files.append(path.name)


class Model:
    """Its loss is smaller at each call."""

    def __init__(self) -> None:
        self.loss = 10.0

    def __call__(self, batch, return_losses, training):
        self.loss -= 1.0
        return batch, {'total_loss': self.loss}

    def get_audio_from_outputs(self, outputs):
        return outputs['audio']


@pytest.fixture
def watched(tmp_path):
    batch = {'audio': np.zeros([1, 16000], np.float32), 'f0_hz': np.zeros([1, 250], np.float32)}
    recorder, last = Recorder(), LastMetrics()
    return recorder, last, HeldOutWatcher(recorder, last, Model(), batch, 16000, 250, tmp_path)


def begin(watcher, step: int) -> None:
    watcher.on_train_begin(start_step=step, num_steps=9, save_dir='', gin_config='')


def test_the_first_and_the_last_step_are_always_there(watched):
    recorder, last, watcher = watched
    begin(watcher, 0)
    for step in (3, 6, 9):
        watcher.on_save(step, 'checkpoint')  # too soon after the first time
    watcher.on_train_end(9, 'done')
    assert recorder.losses == [(0, 9.0), (9, 8.0)]
    assert (last.held_out_step, last.metrics['held_out/total_loss']) == (9, 8.0)
    assert recorder.files == ['step_0000000.wav', 'target.wav', 'step_0000009.wav']


def test_no_step_is_there_twice(watched):
    recorder, last, watcher = watched
    last.held_out_step = 9  # from the journal of a training that had come to its end
    begin(watcher, 9)
    watcher.on_save(9, 'checkpoint')
    watcher.on_train_end(9, 'done')
    assert recorder.losses == []


@pytest.mark.parametrize('reason', ['failed', 'interrupted'])
def test_a_training_that_goes_on_later_is_not_at_its_end(watched, reason):
    recorder, _, watcher = watched
    begin(watcher, 4)
    watcher.on_train_end(5, reason)
    assert recorder.losses == []
