"""The options of a preparation: what they are, what is allowed, and which of them change the result."""

from __future__ import annotations

import dataclasses
import math
import os
import pathlib
import re
from fractions import Fraction
from typing import Any

from ddsp.errors import ConfigError
from ddsp.io.dataset import SPLIT
from ddsp.io.decoding import check_channel

CHUNK_GRID_SECS = 2.0
_MEMORY_PER_WORKER = 1.2e9
_LEVELS_DB = {'peak': (-60.0, 0.0), 'loudness': (-70.0, 10.0)}  # that recordings may be brought to

_COUNT, _SHARE = (1, math.inf), (0, 1)


def _option(
    default: Any, help: str, within: tuple[float, float] | None = None, unit: str = '', choices: Any = ()
) -> Any:
    """A field with what the command line and the checks need; `within` is the lowest and highest value."""
    known = {'help': help, 'within': within, 'unit': unit, 'choices': choices}
    return dataclasses.field(default=default, metadata=known)


@dataclasses.dataclass(frozen=True)
class PrepareOptions:
    """How recordings become a dataset. The metadata of each field say what it is (`help`)."""

    sample_rate: int = _option(16000, 'Sample rate of the audio and the models, in Hz.', (8000, 96000), 'Hz')
    frame_rate: int = _option(
        250, 'Rate of f0 and loudness, in frames per second.', (32, 1000),
        'frames per second (windows of loudness are 32 ms, without gaps)',
    )  # fmt: skip
    example_secs: float = _option(4.0, 'Length of an example, in seconds.', (0.001, 600), 's')
    hop_secs: float = _option(1.0, 'Seconds from the start of an example to that of the next.')
    f0: str = _option('auto', "Pitch estimator; 'auto' takes the best one that is present.")
    viterbi: bool = _option(True, 'Join f0 frames by a likely path.')
    splits: dict[str, float] = dataclasses.field(
        default_factory=lambda: {'train': 0.8, 'test': 0.2},
        metadata={'help': 'Share of the recordings that each split gets.'},
    )
    chunk_secs: float = _option(20.0, 'Length of the pieces that are analysed at once, in seconds.')
    num_shards: int | None = _option(None, 'Files of each split; None: a minute of audio in each.', _COUNT)
    workers: int | None = _option(None, 'Processes; None: what cores and memory allow.', _COUNT)
    max_rejected: float = _option(
        1.0, 'Share of the inputs that may be unusable; above it nothing is published.', _SHARE, '(a share)'
    )
    centered: bool = _option(False, 'One frame more, at the end of the example (--center of ddsp 3.7.0).')
    alignment: str = _option(
        'center', 'What frame i describes: the sound around time i / rate, or from there on (ddsp 3.7.0).',
        choices=('center', 'start'),
    )  # fmt: skip
    pad_tail: bool = _option(True, 'Pad and mask the end of a recording, or leave it out.')
    channel: int | str = _option('mix', "'mix', or the number of the channel from 0.")
    keep_features: bool = _option(False, 'Recordings with their own f0 and loudness (NSynth) keep them.')
    min_loudness_db: float | None = _option(
        None, 'Leave out examples that stay below this loudness, in dB (silence: -60).', (-80, 20), 'dB'
    )
    min_voiced: float = _option(
        0.0, 'Leave out examples with a smaller share of pitched frames.', _SHARE, '(a share)'
    )
    normalize: str = _option(
        '', "Bring every recording to a level: 'peak:-1' (-60 to 0 dB) or 'loudness:-20' (-70 to 10 dB)."
    )
    power_db: bool = _option(False, 'Examples also hold power_db: the mean square of 512 samples at 16 kHz.')
    audio_16k: bool = _option(False, 'Hold audio_16k at 16 kHz too, which ddsp 3.7.0 asks for.')
    f0_rate: int | None = _option(
        None, 'Frames per second of the estimator, then interpolated: 100 is 2.5 times cheaper than 250.',
        (1, 1000), 'frames per second',
    )  # fmt: skip

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value, choices = getattr(self, field.name), field.metadata.get('choices')
            low, high = field.metadata.get('within') or (-math.inf, math.inf)
            if choices:
                _check(value in choices, field.name, value, ' or '.join(map(repr, choices)))
            elif low > -math.inf and value is not None:
                span = (
                    f'{low:g} to {high:g} {field.metadata["unit"]}' if high < math.inf else f'{low:g} or more'
                )
                _check(low <= value <= high, field.name, value, span)
        _check(
            0 < self.hop_secs <= self.example_secs, 'hop_secs', self.hop_secs, 'above 0, up to example_secs'
        )
        check_channel(self.channel)
        self._check_whole('example_secs', self.example_secs)
        self._check_whole('hop_secs', self.hop_secs)
        chunks = self.chunk_secs / CHUNK_GRID_SECS
        _check(chunks >= 1 and chunks == int(chunks), 'chunk_secs', self.chunk_secs, 'a multiple of 2 s')
        named = self.splits and all(SPLIT.fullmatch(name) for name in self.splits)
        _check(bool(named), 'splits', self.splits, "names such as 'train', in small letters")
        shares = min(self.splits.values()) > 0 and abs(sum(self.splits.values()) - 1) < 1e-6
        _check(shares, 'splits', self.splits, 'shares above 0 that add up to 1')
        self._check_level()

    def _check_level(self) -> None:
        level = re.fullmatch(r'(peak|loudness):(-?\d+(\.\d+)?)', self.normalize)
        low, high = _LEVELS_DB[level[1]] if level else (0, 0)
        _check(
            not self.normalize or (level is not None and low <= float(level[2]) <= high), 'normalize',
            self.normalize, "'peak:DB' from -60 to 0 (full scale) such as 'peak:-1', "
            "'loudness:DB' from -70 to 10 such as 'loudness:-20', or ''",
        )  # fmt: skip
        _check(
            not (self.normalize and self.keep_features), 'normalize', self.normalize,
            "'' where keep_features keeps the loudness that recordings bring",
        )  # fmt: skip

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
        content = dataclasses.asdict(self)
        del content['workers'], content['max_rejected']
        return content

    def count_workers(self, work_seconds: float) -> int:
        """Number of processes for work of about `work_seconds` of CPU time.

        `workers` decides; otherwise cores and memory. Where starting more (4 s each) saves nothing it is one.
        """
        if self.workers is not None:
            return self.workers
        most = min(cores(), int(_memory() / _MEMORY_PER_WORKER))
        return max(1, most) if work_seconds > 15 else 1


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1


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
