"""Statistics that merge."""

import json

import numpy as np
import pytest

from pipelines.analysis.statistics import Distribution, Statistics


def test_moments_and_quantiles_are_those_of_numpy(rng):
    values = rng.normal(-30, 8, 20000)
    distribution = Distribution(-120, 60, 0.25)
    for part in np.array_split(values, 7):
        distribution.add(part)
    summary = distribution.summary()
    assert summary['mean'] == pytest.approx(values.mean(), abs=1e-5)
    assert summary['std'] == pytest.approx(values.std(), abs=1e-5)
    assert (summary['min'], summary['max']) == pytest.approx((values.min(), values.max()), abs=1e-5)
    np.testing.assert_allclose(summary['quantiles'], np.percentile(values, range(101)), atol=0.3)
    assert len(summary['quantiles']) == 101


def test_merging_in_one_order_is_exact_through_json(rng):
    parts = [rng.normal(0, 1, n) for n in (1, 0, 500, 33)]
    whole, merged = Statistics(), Statistics()
    for values in parts:
        f0 = 220 * 2 ** (values / 12)
        part = Statistics(examples=2, audio_seconds=len(values) / 250)
        part.add_frames(f0, np.ones(len(f0), bool), values - 40)
        merged.merge(Statistics.from_json(json.loads(json.dumps(part.to_json()))))
        whole.add_frames(f0, np.ones(len(f0), bool), values - 40)
    assert merged.examples == 8
    assert merged.frames == whole.frames == 534
    for name in ('loudness_db', 'pitch_midi'):
        assert merged.summary()[name]['mean'] == pytest.approx(whole.summary()[name]['mean'])
        assert merged.summary()[name]['quantiles'] == whole.summary()[name]['quantiles']


def test_pitch_counts_voiced_frames_only():
    statistics = Statistics()
    statistics.add_frames(
        np.array([440.0, 880.0, 0.0]), np.array([True, False, True]), np.array([-10.0, -20, -80])
    )
    assert statistics.voiced_share == pytest.approx(1 / 3)
    assert statistics.summary()['pitch_midi']['mean'] == 69
    assert statistics.summary()['loudness_db']['min'] == -80


def test_nothing_gives_an_empty_summary():
    summary = Statistics().summary()
    assert summary['loudness_db'] == {}
    assert summary['voiced_share'] == 0
