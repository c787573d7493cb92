"""Timbre transfer: what one instrument plays, in the voice of another."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from ddsp.errors import ConfigError
from ddsp.f0 import voiced_threshold
from ddsp.inference import dynamics
from ddsp.inference.bundle import Bundle
from ddsp.inference.features import Progress, mono, resample_blocks, stream_features
from ddsp.io import audio as audio_files
from ddsp.io.files import check_output

MOST_SEMITONES = 60.0
MOST_DB = 60.0
_FEW_VOICED = 0.2  # share of the sounding frames: below this it is not a melody


@dataclasses.dataclass
class TransferReport:
    """What was done.

    Attributes:
      sample_rate: Sample rate of the result in Hz.
      n_samples: Number of samples of the result.
      pitch_shift_semitones: Shift of the pitch.
      loudness_shift_db: Mean change of loudness where the input sounds, from matching and from the argument.
      f0_hz: Pitch that was synthesised `[n_frames]`, Hz.
      loudness_db: Loudness that was synthesised `[n_frames]`, dB.
      voiced_share: Share of the frames with a pitch.
      warnings: What should be known about input and result.
    """

    sample_rate: int
    n_samples: int
    pitch_shift_semitones: float
    loudness_shift_db: float
    f0_hz: np.ndarray
    loudness_db: np.ndarray
    voiced_share: float
    warnings: list[str]


@dataclasses.dataclass
class TransferResult(TransferReport):
    """Audio, and what was done to get it.

    Attributes:
      audio: `[n_samples]`.
    """

    audio: np.ndarray


@dataclasses.dataclass(frozen=True)
class TransferSettings:
    """How to play.

    Attributes:
      pitch_shift_semitones: Shift of the pitch, -60 to 60; `'auto'`: the least number of octaves that brings
        the recording into the model's range, 0 where it lies inside.
      loudness_shift_db: Added to the loudness, -60 to 60.
      match_loudness: Bring the level to that of the model's dataset, and the range of the phrases a little
        nearer to it.
      reverb: Whether to apply the learned room.
      seed: Random seed of the noise.

    Raises:
      ConfigError: A shift is not a number, or beyond its limits.
    """

    pitch_shift_semitones: float | str = 'auto'
    loudness_shift_db: float = 0.0
    match_loudness: bool = True
    reverb: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        if self.pitch_shift_semitones != 'auto':
            _check('pitch_shift_semitones', self.pitch_shift_semitones, MOST_SEMITONES, " or 'auto'")
        _check('loudness_shift_db', self.loudness_shift_db, MOST_DB)


def transfer(
    bundle: Bundle,
    audio: np.ndarray,
    sample_rate: int,
    *,
    progress: Progress | None = None,
    **settings: Any,
) -> TransferResult:
    """Plays a recording with a model.

    Args:
      bundle: The model of the target instrument.
      audio: Mono recording `[n_samples]`.
      sample_rate: Sample rate in Hz.
      progress: `progress(done, total, text)`.
      **settings: Fields of `TransferSettings`.

    Returns:
      Audio and what was done.

    Raises:
      ConfigError: A setting is not allowed.
      DDSPError: The audio is empty or not mono.
    """
    audio = mono(audio)
    performance = _Performance(bundle, TransferSettings(**settings), progress)
    performance.listen([audio], sample_rate, len(audio))
    played = np.concatenate(list(performance.play(lambda: [audio])))
    return TransferResult(**vars(performance.report()), audio=played)


def transfer_file(
    bundle: Bundle,
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    *,
    progress: Progress | None = None,
    **settings: Any,
) -> TransferReport:
    """Plays a recording of any length with a model: it is read, played and written in blocks.

    Args:
      bundle: The model of the target instrument.
      source: The recording.
      target: WAV to write.
      progress: `progress(done, total, text)`.
      **settings: Fields of `TransferSettings`.

    Returns:
      What was done.

    Raises:
      ConfigError: A setting is not allowed.
      DDSPError: The target is the source, or lies in the bundle.
      AudioError: The source cannot be read, or the target not be written.
    """
    check_output(target, source, bundle.path)
    info = audio_files.probe(source)
    performance = _Performance(bundle, TransferSettings(**settings), progress)
    notes: list[str] = []
    performance.listen(audio_files.read_blocks(source, warnings=notes), info.sample_rate, info.n_samples)
    with audio_files.wav_writer(target, bundle.sample_rate) as wav:
        for block in performance.play(lambda: audio_files.read_blocks(source)):
            wav.write(block)
    report = performance.report()
    report.warnings[:0] = notes
    if wav.clipped:
        share = 100 * wav.clipped / report.n_samples
        report.warnings.append(f'{share:.2g} % of the result was beyond full scale and is clipped')
    return report


class _Performance:
    """A recording on its way through a model: heard once, then played in blocks."""

    def __init__(self, bundle: Bundle, settings: TransferSettings, progress: Progress | None) -> None:
        self._bundle = bundle
        self._settings = settings
        self._progress = progress

    def listen(self, blocks: Iterable[np.ndarray], sample_rate: int, n_expected: int | None) -> None:
        """Computes pitch and loudness, and what they are to become."""
        bundle, settings = self._bundle, self._settings
        features, n_samples = stream_features(
            blocks, sample_rate, bundle.feature_settings, n_expected, self._progress
        )
        self._sample_rate = sample_rate
        self._n_samples = max(1, (2 * n_samples * bundle.sample_rate + sample_rate) // (2 * sample_rate))
        sure = features['f0_confidence'] >= voiced_threshold(bundle.metadata['f0_estimator'])
        self._voiced = sure & (features['f0_hz'] > 0)
        statistics = _training_statistics(bundle)
        shift = settings.pitch_shift_semitones
        if shift == 'auto':
            shift = 12 * dynamics.octaves_into_range(features['f0_hz'][self._voiced], statistics)
        self._shift = float(shift)
        f0_hz = dynamics.filled_pitch(features['f0_hz'], self._voiced) * 2.0 ** (self._shift / 12.0)
        before = features['loudness_db']
        loudness = before
        if settings.match_loudness:
            loudness = dynamics.matched_loudness(loudness, self._voiced, statistics, bundle.frame_rate)
        loudness = loudness + settings.loudness_shift_db
        self._sounding = before > dynamics.FLOOR_DB
        self._change = float(np.mean((loudness - before)[self._sounding])) if self._sounding.any() else 0.0
        loudness = loudness + dynamics.unvoiced_attenuation(self._voiced, bundle.frame_rate)
        loudness = np.clip(loudness, -80.0, 20.0)
        self._features = {
            **features, 'f0_hz': f0_hz.astype(np.float32), 'loudness_db': loudness.astype(np.float32)
        }  # fmt: skip

    def play(self, blocks: Callable[[], Iterable[np.ndarray]]) -> Iterator[np.ndarray]:
        """The result, block after block; `blocks()` gives the recording again, for models that hear audio."""
        bundle, settings = self._bundle, self._settings
        audio = None
        if bundle.synthesizer.needs_audio:
            audio = _Reader(resample_blocks(blocks(), self._sample_rate, bundle.sample_rate))
        batch = {key: value[None] for key, value in self._features.items()}
        total = self._n_samples // bundle.sample_rate
        done = 0
        for parts in bundle.synthesizer.stream(batch, settings.seed, settings.reverb, audio):
            block = parts['audio'][0, : self._n_samples - done]
            done += len(block)
            yield block
            if self._progress:
                self._progress(done // bundle.sample_rate, total, 'synthesis')
        if done < self._n_samples:
            yield np.zeros(self._n_samples - done, np.float32)

    def report(self) -> TransferReport:
        """What was done."""
        share = float(self._voiced[self._sounding].mean()) if self._sounding.any() else 0.0
        warnings = []
        if not self._sounding.any():
            warnings.append('silent: nothing in the recording is louder than -70 dB')
        elif share < _FEW_VOICED:
            warnings.append(
                f'unpitched: only {100 * share:.0f} % of what sounds has a pitch, which is what a model plays'
            )
        return TransferReport(
            self._bundle.sample_rate,
            self._n_samples,
            self._shift,
            self._change,
            self._features['f0_hz'],
            self._features['loudness_db'],
            float(self._voiced.mean()),
            warnings,
        )


class _Reader:
    """Samples by their numbers, from blocks that come in order; only what may be asked for again is kept."""

    def __init__(self, blocks: Iterator[np.ndarray]) -> None:
        self._blocks = blocks
        self._kept = np.zeros(0, np.float32)
        self._begin = 0

    def __call__(self, start: int, stop: int) -> np.ndarray:
        """Samples from `start`, which never goes back, to `stop` or the end."""
        parts = [self._kept[start - self._begin :]]
        end = self._begin + len(self._kept)
        while end < stop and (block := next(self._blocks, None)) is not None:
            parts.append(block)
            end += len(block)
        self._kept, self._begin = np.concatenate(parts), start
        return self._kept[: stop - start]


def _check(name: str, value: Any, most: float, more: str = '') -> None:
    """A ConfigError unless a value is a number within its limits."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not -most <= number <= most:
        raise ConfigError(f'{name} is {value!r}; it must be a number from {-most:g} to {most:g}{more}')


def _training_statistics(bundle: Bundle) -> dict[str, Any]:
    splits = bundle.statistics.get('splits', {})
    return splits.get('train') or next(iter(splits.values()), {})
