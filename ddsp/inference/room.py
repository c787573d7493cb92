"""Uses of the learned impulse response: removing a room, and putting other sounds into it."""

from __future__ import annotations

import numpy as np
import scipy.signal
import soxr

from ddsp.errors import DDSPError
from ddsp.inference.bundle import Bundle


def dereverberate(bundle: Bundle, audio: np.ndarray, sample_rate: int, seed: int = 0) -> np.ndarray:
    """Resynthesises a recording without the room that it was made in.

    Args:
      bundle: A model with a learned reverb, trained in that room.
      audio: Mono signal `[n_samples]`.
      sample_rate: Sample rate in Hz.
      seed: Random seed of the noise.

    Returns:
      `[n_samples]` at the model's sample rate.

    Raises:
      DDSPError: The model has no reverb.
    """
    _room(bundle)
    return bundle.resynthesize(audio, sample_rate, reverb=False, seed=seed)


def transfer_room(bundle: Bundle, audio: np.ndarray, sample_rate: int) -> np.ndarray:
    """Puts any sound into the room that a model has learned, by convolution.

    Args:
      bundle: A model with a learned reverb.
      audio: Mono signal `[n_samples]`.
      sample_rate: Sample rate in Hz.

    Returns:
      `[n_samples]` at the model's sample rate.

    Raises:
      DDSPError: The model has no reverb.
    """
    response = _room(bundle)
    audio = np.asarray(audio, np.float32)
    if sample_rate != bundle.sample_rate:
        audio = soxr.resample(audio, sample_rate, bundle.sample_rate)
    return audio + scipy.signal.oaconvolve(audio, response)[: len(audio)].astype(np.float32)


def _room(bundle: Bundle) -> np.ndarray:
    response = bundle.impulse_response()
    if response is None:
        raise DDSPError(f'the model {bundle.path} has no reverb: it has not learned a room')
    return response
