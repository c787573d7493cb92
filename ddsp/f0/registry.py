"""Pitch estimators by name: built-in, registered, and those of other packages by entry point."""

from __future__ import annotations

import difflib
import functools
import importlib.metadata
from collections.abc import Callable
from typing import Protocol, runtime_checkable

import numpy as np
import soxr

from ddsp.errors import ConfigError, DDSPError, MissingDependencyError
from ddsp.f0.crepe_weights import SIZES
from ddsp.f0.framing import (
    ALIGNMENTS,
    PADDINGS,
    SAMPLE_RATE,
    UPSTREAM_OFFSET,
    VOICED,
    count_frames,
    mark_silence,
)

ENTRY_POINTS = 'ddsp.f0'


class F0Error(DDSPError):
    """An estimator that cannot be used, or a signal that it cannot take."""


@runtime_checkable
class F0Estimator(Protocol):
    """A name and `predict`; an attribute `weights_sha256`, where there is one, goes into datasets.

    An attribute `voiced_from` is the confidence from which a frame counts as voiced, where it is not 0.5.
    """

    name: str

    def predict(
        self, audio: np.ndarray, frame_rate: float, n_frames: int, viterbi: bool = True
    ) -> tuple[np.ndarray, np.ndarray]:
        """Pitch of a mono signal at 16 kHz; frame i describes the signal around `i / frame_rate`.

        Args:
          audio: Signal [n_samples], float32, 16 kHz.
          frame_rate: Frames per second.
          n_frames: Number of frames; beyond the end of `audio` there is silence.
          viterbi: Whether to join the frames by a likely path.

        Returns:
          f0_hz [n_frames], 0 where nothing at all is pitched; confidence [n_frames], 0 to 1.
        """
        ...


def _yin() -> F0Estimator:
    from ddsp.f0.yin import Yin

    return Yin()


def _swift() -> F0Estimator:
    from ddsp.f0.swift import Swift

    return Swift()


def _crepe(size: str | None) -> F0Estimator:
    from ddsp.f0.crepe import Crepe

    return Crepe(size)


_factories: dict[str, Callable[[], F0Estimator]] = {
    'swift': _swift,
    'yin': _yin,
    'crepe': functools.partial(_crepe, None),
    **{f'crepe-{size}': functools.partial(_crepe, size) for size in SIZES},
}
# Voiced from this confidence (like precision on singing, docs/f0.md); lowest and highest pitch, Hz. Datasets
# and bundles name estimators that need not be installed here.
_TRAITS = {
    'crepe-tiny': (0.6, (32.7, 1975.5)),
    'crepe': (0.7, (32.7, 1975.5)),
    'swift': (VOICED, (30.0, 2093.75)),
    'yin': (VOICED, (30.0, 2100.0)),
}
_AUTO = ('swift', 'yin')  # best first, among those that cost little


def register(name: str, factory: Callable[[], F0Estimator]) -> None:
    """Adds an estimator (a package does the same by an entry point in the group `ddsp.f0`).

    Args:
      name: The name for `estimate_f0`.
      factory: Makes the estimator; called once in a process. Raises a DDSPError where it cannot be used.

    Raises:
      ConfigError: The name is taken.
    """
    if name == 'auto' or name in _all_factories():
        raise ConfigError(f'an f0 estimator named {name!r} exists already')
    _factories[name] = factory
    _make.cache_clear()


def available_estimators() -> dict[str, str]:
    """Every known estimator, with an empty string where it can be used and the reason where it cannot."""
    answers = {}
    for name in _all_factories():
        try:
            _make(name)
            answers[name] = ''
        except DDSPError as error:
            answers[name] = str(error)
    return answers


def get_estimator(name: str = 'auto') -> F0Estimator:
    """The estimator of that name; `'auto'` is the best of those that are present and cost little.

    Raises:
      F0Error: It cannot be used here.
      ConfigError: There is no such estimator.
    """
    if name == 'auto':
        return next(_make(candidate) for candidate in _AUTO if _usable(candidate))
    if name not in _all_factories():
        known = ['auto', *_all_factories()]
        near = difflib.get_close_matches(name, known, 1)
        hint = f' Did you mean {near[0]!r}?' if near else ''
        raise ConfigError(f'there is no f0 estimator {name!r}; there are {", ".join(known)}.{hint}')
    return _make(name)


def voiced_threshold(estimator: str | F0Estimator = 'auto') -> float:
    """Confidence from which a frame counts as voiced: each estimator means something else by its confidence.

    Args:
      estimator: An estimator or its name, which need not be installed here; 0.5 for one that says nothing.

    Returns:
      The threshold, 0 to 1.
    """
    if isinstance(estimator, str) and estimator != 'auto':
        if traits := _traits_of(estimator):
            return traits[0]
        if estimator not in _all_factories():
            return VOICED
    chosen = get_estimator(estimator) if isinstance(estimator, str) else estimator
    traits = _traits_of(chosen.name)
    return float(getattr(chosen, 'voiced_from', traits[0] if traits else VOICED))


def f0_range(estimator: str) -> tuple[float, float] | None:
    """Lowest and highest pitch that an estimator can give, Hz; None where it is not known."""
    traits = _traits_of(estimator)
    return traits[1] if traits else None


def _traits_of(name: str) -> tuple[float, tuple[float, float]] | None:
    return _TRAITS.get(name) or _TRAITS.get(name.partition('-')[0])


def estimate_f0(
    audio: np.ndarray,
    sample_rate: int,
    frame_rate: float = 250,
    estimator: str | F0Estimator = 'auto',
    viterbi: bool = True,
    padding: str = 'same',
    *,
    alignment: str = 'center',
) -> tuple[np.ndarray, np.ndarray]:
    """Estimates the pitch of a mono signal.

    Args:
      audio: Signal [n_samples], full scale is 1.
      sample_rate: Sample rate in Hz; the signal is resampled to 16 kHz.
      frame_rate: Frames per second.
      estimator: A name (see `available_estimators`) or an estimator.
      viterbi: Whether to join the frames by a likely path.
      padding: `'same'` for ceil(n_samples / hop) frames, `'center'` for floor(n_samples / hop) + 1.
      alignment: `'center'`: frame i describes the signal around sample i * hop, which is where synthesisers
        put it. `'start'`: it describes the 64 ms that begin there, as ddsp 3.7.0 has it with padding 'same'.

    Returns:
      f0_hz [n_frames], 0 where nothing is pitched, and confidence [n_frames], from `voiced_threshold` on
      voiced; float32.

    Raises:
      ConfigError: An argument has an unknown value.
      F0Error: The estimator cannot be used, or the audio is not a finite mono signal.

    Example:
      >>> import numpy as np
      >>> tone = np.sin(2 * np.pi * 220 * np.arange(16000) / 16000)
      >>> f0_hz, confidence = estimate_f0(tone, 16000, estimator='yin')
      >>> f0_hz.shape, round(float(f0_hz[100]))
      ((250,), 220)
    """
    signal = np.asarray(audio, np.float32)
    if signal.ndim != 1:
        raise F0Error(f'audio must be mono [n_samples], got shape {signal.shape}')
    if not np.isfinite(signal).all():
        raise F0Error('audio holds NaN or infinite samples')
    if padding not in PADDINGS or alignment not in ALIGNMENTS:
        raise ConfigError(
            f'padding must be one of {PADDINGS} and alignment of {ALIGNMENTS}, got {padding!r}, {alignment!r}'
        )
    n_frames = count_frames(len(signal), sample_rate, frame_rate, padding)
    if n_frames == 0:
        return np.zeros(0, np.float32), np.zeros(0, np.float32)
    if sample_rate != SAMPLE_RATE:
        signal = soxr.resample(signal, sample_rate, SAMPLE_RATE)
    if alignment == 'start':
        signal = signal[UPSTREAM_OFFSET if padding == 'same' else 0 :]
    chosen = get_estimator(estimator) if isinstance(estimator, str) else estimator
    f0_hz, confidence = chosen.predict(signal, frame_rate, n_frames, viterbi)
    return np.asarray(f0_hz, np.float32), mark_silence(signal, np.asarray(confidence), frame_rate)


def _usable(name: str) -> bool:
    try:
        _make(name)
    except MissingDependencyError:
        return False
    return True


def _all_factories() -> dict[str, Callable[[], F0Estimator]]:
    plugins = {point.name: _plugin(point) for point in importlib.metadata.entry_points(group=ENTRY_POINTS)}
    return plugins | _factories


def _plugin(point: importlib.metadata.EntryPoint) -> Callable[[], F0Estimator]:
    def make() -> F0Estimator:
        try:
            return point.load()()
        except DDSPError:
            raise
        except Exception as error:
            raise F0Error(f'the f0 plug-in {point.name!r} ({point.value}) cannot be used: {error}') from error

    return make


@functools.cache
def _make(name: str) -> F0Estimator:
    return _all_factories()[name]()
