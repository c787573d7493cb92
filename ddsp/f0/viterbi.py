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
    path = [score.argmax(axis=-1)]
    for origin in reversed(origins):
        path.append(np.take_along_axis(origin, path[-1][..., None], axis=-1)[..., 0])
    return np.stack(path[::-1], axis=-1)
