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
    return CorpusInfo(folder / 'audio', tuple(files), tuple(truths), made)


def synthesize_melody(
    path: str | os.PathLike[str], seed: int = 0, *, seconds: float = 8.0, sample_rate: int = 16000
) -> pathlib.Path:
    """Makes a melody on another, breathy instrument: an input for timbre transfer.

    Returns the path of the WAV file; what is known about it goes beside it as .npz.
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
) -> bool:  # fmt: skip
    """Plays one file; returns False where it was complete already."""
    recipe = json.dumps([_VERSION, dataclasses.asdict(instrument), seconds, rate, seed])
    if _is_complete(wav, truth, recipe):
        return False
    audio, known = play(instrument, round(seconds * rate), rate, np.random.default_rng(seed))
    write_wav(wav, audio, rate)
    truth.parent.mkdir(parents=True, exist_ok=True)
    with replacing(truth) as part, part.open('wb') as file:  # it vouches for the WAV: it comes last
        np.savez(file, recipe=recipe, sha256=file_sha256(wav), **dataclasses.asdict(known))
    return True


def _is_complete(wav: pathlib.Path, truth: pathlib.Path, recipe: str) -> bool:
    try:
        with np.load(truth) as file:
            return [str(file['recipe']), str(file['sha256'])] == [recipe, file_sha256(wav)]
    except (OSError, ValueError, KeyError):
        return False
