"""The options of a preparation: what they are, what is allowed, and which of them change the result."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import pathlib
import re
from fractions import Fraction
from typing import Any

from ddsp.errors import ConfigError
from ddsp.io.dataset import SPLIT
from ddsp.io.decoding import check_channel

SAMPLE_RATES = (8000, 96000)
# Analysis begins on multiples of this, so that every estimator's frames fall on the same samples.
CHUNK_GRID_SECS = 2.0
MIN_FRAME_RATE = 32  # 16000 / 512, rounded up
_MEMORY_PER_WORKER = 1.2e9


# dB that recordings may be brought to.
_LEVELS = {'peak': (-60.0, 0.0), 'loudness': (-70.0, 10.0)}


@dataclasses.dataclass(frozen=True)
class PrepareOptions:
    """How recordings become a dataset.

    Attributes:
      sample_rate: Of the feature `audio`, in Hz.
      frame_rate: Of f0 and loudness, in frames per second. Features may have any; the synthesisers here take
        those that divide the sample rate.
      example_secs: Length of an example, in seconds; a whole number of frames and of samples.
      hop_secs: Distance between the starts of two examples of one recording, in seconds; whole likewise.
      f0: Name of the f0 estimator; `'auto'` takes the best that is present.
      viterbi: Whether the estimator joins its frames by a likely path.
      splits: Share of the recordings that each split gets.
      chunk_secs: Length of the pieces that are analysed at once, in seconds; a multiple of 2.
      num_shards: Files of each split; None for about a minute of audio in each.
      workers: Processes; None for as many as cores and memory allow and the work is worth.
      max_rejected: Share of the inputs that may be unusable, 0 to 1; above it nothing is published.
      centered: Frame-wise features get one frame more, at the end of the example (upstream's `--center`).
      alignment: `'center'`: frame i describes the signal around its time. `'start'`: the window that begins
        there, as ddsp 3.7.0 prepares data that is not centred.
      pad_tail: Whether the end of a recording becomes a padded example; otherwise it is left out.
      channel: `'mix'`, or the index of the channel to take.
      keep_features: Recordings that bring their own f0 and loudness (NSynth) keep them; otherwise these are
        computed as for all others.
      min_loudness_db: Examples whose loudness stays below this are left out, in dB; None for none.
      min_voiced: Examples with a smaller share of voiced frames are left out, 0 to 1.
      normalize: `'peak:-1'` or `'loudness:-20'` brings every recording to that level, in dB; `''` leaves it.
      power_db: Whether examples also hold `power_db`: the mean square of 512 samples at 16 kHz, in dB.
      audio_16k: Whether examples hold `audio_16k` at 16 kHz too, where it equals `audio`; ddsp 3.7.0's
        `TFRecordProvider` asks for it.
      f0_rate: Frames per second of the f0 estimator, whose track is then interpolated; None: `frame_rate`.
    """

    sample_rate: int = 16000
    frame_rate: int = 250
    example_secs: float = 4.0
    hop_secs: float = 1.0
    f0: str = 'auto'
    viterbi: bool = True
    splits: dict[str, float] = dataclasses.field(default_factory=lambda: {'train': 0.8, 'test': 0.2})
    chunk_secs: float = 20.0
    num_shards: int | None = None
    workers: int | None = None
    max_rejected: float = 1.0
    centered: bool = False
    alignment: str = 'center'
    pad_tail: bool = True
    channel: int | str = 'mix'
    keep_features: bool = False
    min_loudness_db: float | None = None
    min_voiced: float = 0.0
    normalize: str = ''
    power_db: bool = False
    audio_16k: bool = False
    f0_rate: int | None = None

    def __post_init__(self) -> None:
        low, high = SAMPLE_RATES
        _check(low <= self.sample_rate <= high, 'sample_rate', self.sample_rate, f'{low} to {high} Hz')
        _check(
            MIN_FRAME_RATE <= self.frame_rate <= 1000, 'frame_rate', self.frame_rate,
            f'{MIN_FRAME_RATE} to 1000 frames per second (windows of loudness are 32 ms, without gaps)',
        )  # fmt: skip
        check_channel(self.channel)
        _check(0 < self.example_secs <= 600, 'example_secs', self.example_secs, 'above 0 and up to 600 s')
        _check(
            0 < self.hop_secs <= self.example_secs, 'hop_secs', self.hop_secs, 'above 0, up to example_secs'
        )
        self._check_whole('example_secs', self.example_secs)
        self._check_whole('hop_secs', self.hop_secs)
        chunks = self.chunk_secs / CHUNK_GRID_SECS
        _check(chunks >= 1 and chunks == int(chunks), 'chunk_secs', self.chunk_secs, 'a multiple of 2 s')
        _check(0 <= self.max_rejected <= 1, 'max_rejected', self.max_rejected, 'a share, 0 to 1')
        _check(self.alignment in ('center', 'start'), 'alignment', self.alignment, "'center' or 'start'")
        for name, count in (('num_shards', self.num_shards), ('workers', self.workers)):
            _check(count is None or count >= 1, name, count, '1 or more, or None to choose by itself')
        self._check_splits()
        self._check_selection()

    def _check_selection(self) -> None:
        quiet = self.min_loudness_db
        _check(quiet is None or -80 <= quiet <= 20, 'min_loudness_db', quiet, '-80 to 20 dB, or None')
        _check(0 <= self.min_voiced <= 1, 'min_voiced', self.min_voiced, 'a share, 0 to 1')
        level = re.fullmatch(r'(peak|loudness):(-?\d+(\.\d+)?)', self.normalize)
        low, high = _LEVELS[level[1]] if level else (0, 0)
        _check(
            not self.normalize or (level is not None and low <= float(level[2]) <= high), 'normalize',
            self.normalize, "'peak:DB' from -60 to 0 (full scale) such as 'peak:-1', "
            "'loudness:DB' from -70 to 10 such as 'loudness:-20', or ''",
        )  # fmt: skip
        _check(
            not (self.normalize and self.keep_features), 'normalize', self.normalize,
            "'' where keep_features keeps the loudness that recordings bring",
        )  # fmt: skip
        rate = self.f0_rate
        _check(rate is None or 1 <= rate <= 1000, 'f0_rate', rate, '1 to 1000 frames per second, or None')

    def _check_whole(self, name: str, seconds: float) -> None:
        """Windows begin and end on a frame and on a sample of every rate that they hold."""
        rates = {'frames': self.frame_rate, 'samples': self.sample_rate}
        if 'audio_16k' in self.feature_lengths:
            rates['samples of audio_16k'] = 16000
        step = Fraction(1, math.gcd(*rates.values()))  # the shortest time that is whole for all
        for what, rate in rates.items():
            count = seconds * rate
            if abs(count - round(count)) > 1e-6:
                below = max(1, math.floor(seconds / step)) * step
                raise ConfigError(
                    f'{name} must be a whole number of {what}: {seconds} s are {count:g} {what} at {rate} '
                    f'per second. The nearest are {float(below):g} s and {float(below + step):g} s.'
                )

    def _check_splits(self) -> None:
        named = all(SPLIT.fullmatch(name) for name in self.splits)
        _check(bool(self.splits) and named, 'splits', self.splits, "names such as 'train', in small letters")
        shares = (
            all(share > 0 for share in self.splits.values()) and abs(sum(self.splits.values()) - 1) < 1e-6
        )
        _check(shares, 'splits', self.splits, 'shares above 0 that add up to 1')

    @property
    def example_frames(self) -> int:
        """Frames of an example, without the extra one of `centered`."""
        return round(self.example_secs * self.frame_rate)

    @property
    def hop_frames(self) -> int:
        """Frames between the starts of two examples."""
        return round(self.hop_secs * self.frame_rate)

    @property
    def feature_lengths(self) -> dict[str, int]:
        """Number of floats of each feature of an example."""
        lengths = {'audio': round(self.example_secs * self.sample_rate)}
        if self.audio_16k or self.sample_rate != 16000:
            lengths['audio_16k'] = round(self.example_secs * 16000)
        frames = self.example_frames + int(self.centered)
        names = ('f0_hz', 'f0_confidence', 'loudness_db', *(('power_db',) if self.power_db else ()))
        return lengths | dict.fromkeys(names, frames)

    @property
    def example_bytes(self) -> int:
        """Size of an example in a file, about."""
        return 4 * sum(self.feature_lengths.values()) + 150

    def record(self) -> dict[str, Any]:
        """The options that change the result, for fingerprints and pipeline.json."""
        return {
            name: value
            for name, value in dataclasses.asdict(self).items()
            if name not in ('workers', 'max_rejected')
        }

    def to_json(self) -> str:
        """All options; `from_json` reads them in a worker."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> PrepareOptions:
        """Reads what `to_json` gave."""
        return cls(**json.loads(text))

    def count_workers(self, work_seconds: float, pieces: int) -> int:
        """How many processes to use.

        Args:
          work_seconds: CPU seconds that the work will take, about.
          pieces: Into how many independent pieces it falls.

        Returns:
          `workers` where it is set; otherwise what cores and memory allow, and one where starting more (4 s
          each) would take longer than they save.
        """
        if self.workers is not None:
            return min(self.workers, max(1, pieces))
        cores = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1
        most = min(cores, int(_memory() / _MEMORY_PER_WORKER), pieces)
        return max(1, most) if work_seconds > 15 else 1


def _memory() -> float:
    """Bytes of memory that this process may use: of the machine, or of its container."""
    memory = float(os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE'))
    try:
        return min(memory, float(pathlib.Path('/sys/fs/cgroup/memory.max').read_text()))
    except (OSError, ValueError):  # no such limit ('max')
        return memory


def _check(right: bool, name: str, value: object, allowed: str) -> None:
    if not right:
        raise ConfigError(f'{name} is {value!r}; it must be {allowed}.')
