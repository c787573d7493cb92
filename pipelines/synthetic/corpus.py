"""A corpus that is made, not recorded: an expressive instrument whose pitch and level are known exactly."""

from __future__ import annotations

import contextlib
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
      path: Its folder.
      audio_dir: The folder of the recordings (WAV, PCM 16 bit, mono).
      files: The recordings.
      truths: One .npz for each recording; `load_truth` reads it.
      seconds: Length of all recordings together.
      sample_rate: In Hz.
      made: How many files this call made; the others were there.
    """

    path: pathlib.Path
    audio_dir: pathlib.Path
    files: tuple[pathlib.Path, ...]
    truths: tuple[pathlib.Path, ...]
    seconds: float
    sample_rate: int
    made: int


def synthesize_corpus(
    out_dir: str | os.PathLike[str],
    *,
    seconds: float = 180.0,
    sample_rate: int = 16000,
    seed: int = 0,
    progress: Progress | None = None,
) -> CorpusInfo:
    """Makes the corpus of the bowed instrument; what is complete already is left as it is.

    Args:
      out_dir: Folder to make: `audio/take_NN.wav` and `truth/take_NN.npz`.
      seconds: Length of all files together.
      sample_rate: In Hz.
      seed: The same seed gives the same bytes.
      progress: Called with (seconds done, seconds in all, text).

    Returns:
      Where everything lies.

    Raises:
      AudioError: `out_dir` cannot be written.
      ConfigError: The length or the rate cannot be.
    """
    low, high = _SECONDS
    if not low <= seconds <= high:
        raise ConfigError(f'seconds is {seconds}; it must be {low} to {high}.')
    if sample_rate < 8000 or sample_rate % FRAME_RATE:
        raise ConfigError(
            f'sample_rate is {sample_rate}; it must be a multiple of {FRAME_RATE} from 8000 Hz.'
        )
    folder = pathlib.Path(out_dir)
    n_files = max(1, round(seconds / FILE_SECS))
    files = [folder / 'audio' / f'take_{i + 1:02d}.wav' for i in range(n_files)]
    truths = [folder / 'truth' / f'take_{i + 1:02d}.npz' for i in range(n_files)]
    each = seconds / n_files
    made = 0
    for i, (wav, truth) in enumerate(zip(files, truths, strict=True)):
        made += _make_file(wav, truth, BOWED, each, sample_rate, (seed, i))
        if progress:
            progress(each * (i + 1), seconds, f'playing {wav.name}')
    return CorpusInfo(folder, folder / 'audio', tuple(files), tuple(truths), seconds, sample_rate, made)


def synthesize_melody(
    path: str | os.PathLike[str], seed: int = 0, *, seconds: float = 8.0, sample_rate: int = 16000
) -> pathlib.Path:
    """Makes a melody on another, breathy instrument: an input for timbre transfer.

    Args:
      path: The WAV file; what is known about it goes beside it as .npz.
      seed: The same seed gives the same bytes.
      seconds: Length.
      sample_rate: In Hz.

    Returns:
      `path`.
    """
    wav = pathlib.Path(path)
    _make_file(wav, wav.with_suffix('.npz'), BREATHY, seconds, sample_rate, (seed, 1000))
    return wav


def load_truth(path: str | os.PathLike[str]) -> Truth:
    """Reads what is known about a synthetic recording."""
    with np.load(path) as file:
        return Truth(file['f0_hz'], file['loudness_db'], file['voiced'], file['room'])


def _make_file(
    wav: pathlib.Path,
    truth: pathlib.Path,
    instrument: Instrument,
    seconds: float,
    rate: int,
    seed: tuple[int, int],
) -> bool:
    """Plays one file; returns False where it was complete already."""
    recipe = json.dumps([_VERSION, dataclasses.asdict(instrument), seconds, rate, seed])
    if _is_complete(wav, truth, recipe):
        return False
    audio, known = play(instrument, round(seconds * rate), rate, np.random.default_rng(seed))
    with contextlib.suppress(OSError):  # what cannot be removed cannot be written either: that is said below
        truth.unlink()  # it vouches for the WAV: it goes first and comes last
    write_wav(wav, audio, rate)
    digest = file_sha256(wav)
    truth.parent.mkdir(parents=True, exist_ok=True)
    with replacing(truth) as part, part.open('wb') as file:
        np.savez(file, recipe=recipe, sha256=digest, **dataclasses.asdict(known))
    return True


def _is_complete(wav: pathlib.Path, truth: pathlib.Path, recipe: str) -> bool:
    if not (wav.is_file() and truth.is_file()):
        return False
    try:
        with np.load(truth) as file:
            same = str(file['recipe']) == recipe
            return same and str(file['sha256']) == file_sha256(wav)
    except (OSError, ValueError, KeyError):
        return False
