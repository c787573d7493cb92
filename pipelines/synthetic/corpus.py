"""A corpus that is made, not recorded: an expressive instrument whose pitch and level are known exactly."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib

import numpy as np

from ddsp.errors import ConfigError
from ddsp.io.audio import write_wav
from ddsp.io.dataset import file_sha256
from ddsp.io.files import replacing
from ddsp.io.progress import Progress
from pipelines.synthetic.instrument import BOWED, BREATHY, FRAME_RATE, Instrument, Truth, play

FILE_SECS = 15.0
_SECONDS = (2, 360000)
_VERSION = 2  # raise it when the sound changes: files of another version are made again


@dataclasses.dataclass(frozen=True)
class CorpusInfo:
    """Where a synthetic corpus lies.

    Attributes:
      audio_dir: The folder of the recordings (WAV, PCM 16 bit, mono).
      files: The recordings.
      truths: One .npz for each recording; `load_truth` reads it.
      made: How many files this call made; the others were there.
    """

    audio_dir: pathlib.Path
    files: tuple[pathlib.Path, ...]
    truths: tuple[pathlib.Path, ...]
    made: int


@dataclasses.dataclass(frozen=True)
class Take:
    """One file, which is made when it is needed; its bytes follow from everything but the paths.

    Attributes:
      wav, truth: The recording, and what is known about it.
      instrument: Who plays.
      seconds: Length of the recording.
      rate: Sample rate in Hz.
      seed: Random seed of the corpus, and number of the file.
    """

    wav: pathlib.Path
    truth: pathlib.Path
    instrument: Instrument
    seconds: float
    rate: int
    seed: tuple[int, int]

    @property
    def recipe(self) -> str:
        """All that decides the bytes."""
        return json.dumps([_VERSION, dataclasses.asdict(self.instrument), self.seconds, self.rate, self.seed])

    def make(self) -> bool:
        """Plays it; returns False where it was complete already.

        Processes that do this at the same time write the same bytes, each file in one step.
        """
        if self._is_complete():
            return False
        samples = round(self.seconds * self.rate)
        audio, known = play(self.instrument, samples, self.rate, np.random.default_rng(self.seed))
        write_wav(self.wav, audio, self.rate)
        self.truth.parent.mkdir(parents=True, exist_ok=True)
        # It vouches for the WAV: it comes last.
        with replacing(self.truth) as part, part.open('wb') as file:
            np.savez(file, recipe=self.recipe, sha256=file_sha256(self.wav), **dataclasses.asdict(known))
        return True

    def _is_complete(self) -> bool:
        try:
            with np.load(self.truth) as file:
                return [str(file['recipe']), str(file['sha256'])] == [self.recipe, file_sha256(self.wav)]
        except (OSError, ValueError, KeyError):
            return False


def synthesize_corpus(
    out_dir: str | os.PathLike[str],
    *,
    seconds: float = 180.0,
    sample_rate: int = 16000,
    seed: int = 0,
    progress: Progress | None = None,
) -> CorpusInfo:
    """Makes the corpus of the bowed instrument; what is complete already is left as it is.

    The folder gets `audio/take_NN.wav` and `truth/take_NN.npz`, `seconds` long together; the same seed gives
    the same bytes.

    Raises:
      AudioError: `out_dir` cannot be written.
      ConfigError: The length or the rate is not allowed.
    """
    takes = list_takes(pathlib.Path(out_dir), seconds=seconds, sample_rate=sample_rate, seed=seed)
    made = 0
    for i, take in enumerate(takes):
        made += take.make()
        if progress:
            progress(take.seconds * (i + 1), seconds, f'playing {take.wav.name}')
    audio_dir = takes[0].wav.parent
    return CorpusInfo(audio_dir, tuple(t.wav for t in takes), tuple(t.truth for t in takes), made)


def list_takes(
    folder: pathlib.Path, *, seconds: float, sample_rate: int = 16000, seed: int = 0
) -> list[Take]:
    """The files of a corpus, none of which is made by this; raises ConfigError as `synthesize_corpus`."""
    low, high = _SECONDS
    if not low <= seconds <= high:
        raise ConfigError(f'seconds is {seconds}; it must be {low} to {high}.')
    if sample_rate < 8000 or sample_rate % FRAME_RATE:
        raise ConfigError(
            f'sample_rate is {sample_rate}; it must be a multiple of {FRAME_RATE} from 8000 Hz.'
        )
    count = max(1, round(seconds / FILE_SECS))
    return [
        Take(
            folder / 'audio' / f'take_{i + 1:02d}.wav', folder / 'truth' / f'take_{i + 1:02d}.npz', BOWED,
            seconds / count, sample_rate, (seed, i),
        )
        for i in range(count)
    ]  # fmt: skip


def synthesize_melody(
    path: str | os.PathLike[str], seed: int = 0, *, seconds: float = 8.0, sample_rate: int = 16000
) -> pathlib.Path:
    """Makes a melody on another, breathy instrument: an input for timbre transfer.

    Returns the path of the WAV file; what is known about it goes beside it as .npz.
    """
    wav = pathlib.Path(path)
    Take(wav, wav.with_suffix('.npz'), BREATHY, seconds, sample_rate, (seed, 1000)).make()
    return wav


def load_truth(path: str | os.PathLike[str]) -> Truth:
    """Reads what is known about a synthetic recording."""
    with np.load(path) as file:
        return Truth(file['f0_hz'], file['loudness_db'], file['voiced'], file['room'])
