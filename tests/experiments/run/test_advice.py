"""What is said at the end of a training."""

from __future__ import annotations

import pytest

from experiments.run.watchers import after_training


def _course(*losses, every=20):
    return [(every * (i + 1), float(loss)) for i, loss in enumerate(losses)]


def test_a_loss_that_still_falls_asks_for_more_steps():
    words = after_training(_course(20, 15, 11), [(0, 25.0), (60, 12.0)])
    assert 'still falling at step 60' in words
    assert '--steps 120' in words


@pytest.mark.parametrize(
    'losses', [_course(20, 10, 6, 5, 5.1, 4.9, 5, 4.95), _course(5), [], _course(*[5, 5.2, 4.9] * 9)]
)
def test_a_loss_that_has_settled_asks_for_nothing(losses):
    assert after_training(losses, []) == ''


def test_a_held_out_loss_that_rises_names_the_best_step():
    words = after_training(_course(20, 15, 11), [(0, 25.0), (60, 11.0), (120, 11.9), (200, 12.65)])
    assert 'best at step 60 (11) and rose to 12.7 at step 200' in words
    assert '--steps 60' in words


def test_a_held_out_loss_that_wavers_is_no_news():
    assert after_training(_course(5, 5, 5, 5), [(0, 9.0), (60, 5.0), (80, 5.1)]) == ''
