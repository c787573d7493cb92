"""What options decide by themselves."""

import dataclasses
import os

import pytest

from pipelines import options as options_module
from pipelines.options import PrepareOptions


def test_every_option_says_what_it_is():
    for field in dataclasses.fields(PrepareOptions):
        assert field.metadata['help'].endswith('.'), field.name


def test_what_does_not_change_the_result_is_not_recorded():
    assert PrepareOptions(workers=3, max_rejected=0.1).record() == PrepareOptions().record()
    assert PrepareOptions(hop_secs=2.0).record() != PrepareOptions().record()


def test_lengths_follow_from_rates():
    lengths = PrepareOptions(
        sample_rate=44100, frame_rate=300, example_secs=2.0, centered=True
    ).feature_lengths
    assert lengths == {
        'audio': 88200, 'audio_16k': 32000, 'f0_hz': 601, 'f0_confidence': 601, 'loudness_db': 601,
    }  # fmt: skip


@pytest.mark.parametrize(
    ('memory_gb', 'work', 'expected'), [(64, 100, 8), (5, 100, 4), (0.5, 100, 1), (64, 5, 1)]
)
def test_workers_are_what_cores_memory_and_work_allow(monkeypatch, memory_gb, work, expected):
    monkeypatch.setattr(os, 'sched_getaffinity', lambda pid: range(8), raising=False)
    monkeypatch.setattr(options_module, '_memory', lambda: memory_gb * 1e9)
    assert PrepareOptions().count_workers(work) == expected
    assert PrepareOptions(workers=5).count_workers(work) == 5
