"""What is significant between two runs, and what is not."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats

from experiments.reports import comparison


def test_four_windows_of_one_recording_say_nothing():
    entry = comparison.paired_test([5.0, 5.1, 5.2, 5.1], [4.0, 4.1, 4.2, 4.1], ['a.wav'] * 4)
    assert (entry['p'], entry['low'], entry['recordings'], entry['examples']) == (None, None, 1, 4)
    assert comparison._words(entry).endswith('4 examples of 1 recording: too few to tell it from chance')


@pytest.mark.parametrize('n', [2, 4, 5])
def test_few_recordings_cannot_be_significant(n):
    names = [f'{i}.wav' for i in range(n)]
    entry = comparison.paired_test(np.zeros(n), -np.arange(1.0, n + 1), names)
    assert entry['p'] == pytest.approx(2 / 2**n)
    words = comparison._words(entry)
    assert words.startswith('no clear difference')
    assert f'p = {2 / 2**n:.3f} (exact)' in words
    assert words.endswith(f'too few to tell, p cannot go below {2 / 2**n:g}')


def test_windows_of_a_recording_count_once():
    rng = np.random.default_rng(0)
    # 6 recordings that differ by chance, 50 windows of each: over windows this would be "p < 0.001".
    names = np.repeat([f'{i}.wav' for i in range(6)], 50)
    second = np.repeat([0.9, -0.8, 0.7, -0.4, 0.6, -0.3], 50) + 0.01 * rng.normal(size=300)
    entry = comparison.paired_test(np.zeros(300), second, list(names))
    assert scipy.stats.ttest_1samp(second, 0).pvalue < 0.01
    assert entry['p'] > 0.5
    assert entry['low'] < 0 < entry['high']


@pytest.mark.parametrize('n', [10, 40])
def test_the_test_agrees_with_scipy(n):
    rng = np.random.default_rng(1)
    first = rng.normal(10, 3, n)
    second = first + rng.normal(0.6, 1, n)
    entry = comparison.paired_test(first, second, [f'{i}.wav' for i in range(n)])
    expected = scipy.stats.permutation_test(
        (second - first,), np.sum, permutation_type='samples', n_resamples=20000, rng=0
    )
    assert entry['p'] == pytest.approx(expected.pvalue, abs=0.003)
    interval = scipy.stats.ttest_rel(second, first).confidence_interval(0.95)
    assert (entry['low'], entry['high']) == pytest.approx(tuple(interval))
    assert entry['exact'] == (n == 10)


def test_equal_runs():
    same = np.arange(10.0)
    entry = comparison.paired_test(same, same, [f'{i}.wav' for i in range(10)])
    assert entry['p'] == 1.0
    assert comparison._words(entry).startswith('no clear difference')
