"""Pitch of a mono signal, by estimators behind one interface. docs/f0.md compares them."""

from ddsp.f0.framing import VOICED, count_frames, interpolate_track
from ddsp.f0.registry import (
    F0Error,
    F0Estimator,
    available_estimators,
    estimate_f0,
    f0_range,
    get_estimator,
    register,
    voiced_threshold,
)

__all__ = [
    'VOICED',
    'F0Error',
    'F0Estimator',
    'available_estimators',
    'count_frames',
    'estimate_f0',
    'f0_range',
    'get_estimator',
    'interpolate_track',
    'register',
    'voiced_threshold',
]
