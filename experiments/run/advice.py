"""Advice on the length of a training, from its losses."""

from __future__ import annotations

from collections.abc import Sequence

_FALLING = 0.04  # share of the loss, from one quarter of the training to the next
_RISEN = 0.04  # share of the held-out loss, above its best

Points = Sequence[tuple[int, float]]


def after_training(losses: Points, held_out: Points) -> str:
    """One sentence when a training was too short or too long, '' when it was neither.

    Both courses are pairs of step and loss: of the training, and of held-out examples.
    """
    if len(held_out) > 1:
        best_step, best = min(held_out, key=lambda point: point[1])
        last_step, last = held_out[-1]
        if last > best * (1 + _RISEN) and best_step < last_step:
            return (
                f'The held-out loss was best at step {best_step} ({best:.3g}) and rose to {last:.3g} at step '
                f'{last_step}: the model memorises its recordings. Train on more of them, or stop '
                f'there with --steps {max(best_step, 1)}.'
            )
    quarter = max(1, len(losses) // 4)
    if len(losses) < 2 * quarter:
        return ''
    before, after = (
        sum(value for _, value in part) / quarter
        for part in (losses[-2 * quarter : -quarter], losses[-quarter:])
    )
    if after < before * (1 - _FALLING):
        step = losses[-1][0]
        return (
            f'The loss was still falling at step {step} ({before:.3g} to {after:.3g} over the last quarter): '
            f'more steps may sound better, such as --steps {2 * step}.'
        )
    return ''
