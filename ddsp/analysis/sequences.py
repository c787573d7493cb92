"""The likeliest path through states, by the Viterbi algorithm, in numpy."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

Step = Callable[[int, np.ndarray], tuple[np.ndarray, np.ndarray]]


def likeliest_path(first: np.ndarray, step: Step, n_frames: int) -> np.ndarray:
    """The path with the highest score.

    Args:
      first: Scores of the states in frame 0 [..., n_states], such as log probabilities.
      step: `step(i, scores)` gives, for every state of frame i, the best score of a path that ends there and
        the state in frame i - 1 that this path comes from; both [..., n_states].
      n_frames: At least 1.

    Returns:
      The state of each frame [..., n_frames], int64.
    """
    score, origins = first, []
    for i in range(1, n_frames):
        score, origin = step(i, score)
        origins.append(origin)
    path = np.empty((n_frames, *score.shape[:-1]), np.int64)
    path[-1] = score.argmax(axis=-1)
    others = tuple(np.indices(score.shape[:-1]))
    for i in range(n_frames - 1, 0, -1):
        path[i - 1] = origins[i - 1][(*others, path[i])]
    return np.moveaxis(path, 0, -1)
