"""Audio files: decoding as mono float32, resampling, writing WAV.

Files are read by libsndfile (wav, flac, ogg, opus, mp3, aiff, caf ...) and, where that does not know the
format and ffmpeg is installed, by ffmpeg. Everything streams: memory does not grow with the length of a file.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
from collections.abc import Iterator

import numpy as np
import soundfile
import soxr

from ddsp.errors import DDSPError
from ddsp.io.decoding import AudioError, AudioInfo, PathLike, check_channel, decode, probe, shown
from ddsp.io.files import replacing

__all__ = [
    'AudioError',
    'AudioInfo',
    'StreamResampler',
    'WavWriter',
    'load_audio',
    'probe',
    'read_blocks',
    'wav_writer',
    'write_wav',
]

MAX_PEAK = 1000.0  # 60 dB above full scale
# Mixing down must not lose the sound: 20 dB less than the channels means that they cancel.
_CANCEL_RATIO = 0.01
_AUDIBLE_RMS = 1e-3
_DC_LIMIT = 0.01
_DC_BLOCKER_HZ = 5.0
_DECIDE_SECS = 2.0  # of sound that is looked at before anything is decided
_DC_SECS = 0.25  # shorter sounds may well have a mean


def load_audio(path: PathLike, sample_rate: int | None = 16000, *, channel: int | str = 'mix') -> np.ndarray:
    """Loads a recording as mono.

    Args:
      path: The file.
      sample_rate: Rate of the result in Hz; None keeps that of the file.
      channel: `'mix'` for the mean of the channels (the loudest one where they cancel), or a channel's index.

    Returns:
      Samples, float32 [n_samples], full scale is 1.

    Raises:
      AudioError: The file cannot be used; `reason` says why.
    """
    blocks = list(read_blocks(path, sample_rate, channel=channel))
    return np.concatenate(blocks)


def read_blocks(
    path: PathLike,
    sample_rate: int | None = None,
    *,
    block_secs: float = 10.0,
    channel: int | str = 'mix',
    warnings: list[str] | None = None,
) -> Iterator[np.ndarray]:
    """Streams a recording as mono blocks, so that memory does not grow with its length.

    Args:
      path: The file.
      sample_rate: Rate of the blocks in Hz; None keeps that of the file.
      block_secs: Length of the decoded blocks, in seconds.
      channel: As in `load_audio`.
      warnings: A list that receives what should be known about the recording (clipping, cancelling channels,
        a constant offset that was taken out ...); complete when the iteration has ended.

    Yields:
      Samples, float32 [n], all at `sample_rate`, in order and without gaps.

    Raises:
      AudioError: The file cannot be used; `reason` says why.
      ConfigError: There can be no such channel.
    """
    check_channel(channel)
    info = probe(path)
    if isinstance(channel, int) and channel >= info.channels:
        raise AudioError(
            'unsupported', f'{shown(path)} has {info.channels} channel(s), no channel {channel}.'
        )
    notes = warnings if warnings is not None else []
    notes.extend(info.warnings)
    mono = _Mono(info, channel)
    resampler = StreamResampler(info.sample_rate, sample_rate or info.sample_rate)
    blocks = decode(info, max(1, int(block_secs * info.sample_rate)), notes)
    for block in _join_first(blocks, int(_DECIDE_SECS * info.sample_rate)):
        resampled = resampler(mono(block))
        if len(resampled):
            yield resampled
    if mono.n_samples == 0:
        raise AudioError('no_samples', f'{shown(path)} holds no samples.')
    rest = resampler.flush()
    if len(rest):
        yield rest
    notes.extend(mono.warnings(sample_rate))


def _join_first(blocks: Iterator[np.ndarray], least: int) -> Iterator[np.ndarray]:
    """Joins blocks until there are `least` samples, so that decisions do not depend on the blocks' length."""
    first: list[np.ndarray] = []
    for block in blocks:
        first.append(block)
        if sum(map(len, first)) >= least:
            break
    if first:
        yield np.concatenate(first) if len(first) > 1 else first[0]
    yield from blocks


class StreamResampler:
    """Resamples a stream with soxr (band-limited, no delay); equal rates pass through."""

    def __init__(self, source_rate: int, target_rate: int) -> None:
        self._stream = None
        if source_rate != target_rate:
            self._stream = soxr.ResampleStream(source_rate, target_rate, 1, dtype='float32')

    def __call__(self, block: np.ndarray) -> np.ndarray:
        """Takes the next samples [n] and returns those that are ready [m]."""
        return block if self._stream is None else self._stream.resample_chunk(block)

    def flush(self) -> np.ndarray:
        """Returns what is left [m]; nothing may follow."""
        empty = np.zeros(0, np.float32)
        return empty if self._stream is None else self._stream.resample_chunk(empty, last=True)


def write_wav(path: PathLike, audio: np.ndarray, sample_rate: int, *, subtype: str = 'PCM_16') -> int:
    """Writes a WAV file in one step: readers see the old file or the whole new one.

    Args:
      path: Where to write; its folder is made where it is missing.
      audio: Samples [n_samples] or [n_samples, channels], full scale is 1.
      sample_rate: Sample rate in Hz.
      subtype: `'PCM_16'`, or `'FLOAT'` which cannot clip.

    Returns:
      The number of samples that were beyond full scale and had to be clipped.

    Raises:
      AudioError: The samples are not finite, or the file cannot be written.
    """
    samples = np.asarray(audio)
    if samples.ndim not in (1, 2):
        raise ValueError(f'audio must be [n_samples] or [n_samples, channels], got shape {samples.shape}')
    with wav_writer(
        path, sample_rate, channels=1 if samples.ndim == 1 else samples.shape[1], subtype=subtype
    ) as wav:
        wav.write(samples)
    return wav.clipped


class WavWriter:
    """Takes the samples of a WAV file, block after block.

    Attributes:
      clipped: How many samples were beyond full scale and had to be clipped.
    """

    def __init__(self, file: soundfile.SoundFile, path: PathLike) -> None:
        self._file, self._path = file, path
        self.clipped = 0

    def write(self, samples: np.ndarray) -> None:
        """Appends samples [n] or [n, channels], full scale is 1; an AudioError when they are not finite."""
        samples = np.asarray(samples)
        if not np.isfinite(samples).all():
            raise AudioError(
                'not_finite', f'{shown(self._path)} is not written: the audio holds NaN or infinite samples.'
            )
        if self._file.subtype == 'PCM_16':
            scaled = np.round(samples.astype(np.float64) * 32768)
            self.clipped += int(np.count_nonzero((scaled > 32768) | (scaled < -32768)))
            samples = np.clip(scaled, -32768, 32767).astype(np.int16)
        self._file.write(samples)


@contextlib.contextmanager
def wav_writer(
    path: PathLike, sample_rate: int, *, channels: int = 1, subtype: str = 'PCM_16'
) -> Iterator[WavWriter]:
    """Writes a WAV file block by block, in bounded memory; it appears when it is whole.

    Args:
      path: Where to write; its folder is made where it is missing.
      sample_rate: Sample rate in Hz.
      channels: Number of channels.
      subtype: As in `write_wav`.

    Yields:
      The writer. After an error in the block there is no file, or the one of before.

    Raises:
      AudioError: The file cannot be written.
    """
    if subtype not in ('PCM_16', 'FLOAT'):
        raise ValueError(f"subtype must be 'PCM_16' or 'FLOAT', got {subtype!r}")
    path = pathlib.Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with (
            replacing(path) as part,
            soundfile.SoundFile(os.fsencode(part), 'w', sample_rate, channels, subtype, format='WAV') as file,
        ):
            yield WavWriter(file, path)
    except DDSPError:
        raise
    except (OSError, soundfile.LibsndfileError) as error:
        why = error.strerror if isinstance(error, OSError) else str(error).rstrip('.')
        raise AudioError('unwritable', f'{shown(path)} cannot be written: {why}.') from error


class _Mono:
    """Mixes blocks [n, channels] down to [n], checks them, and remembers what was odd."""

    def __init__(self, info: AudioInfo, channel: int | str) -> None:
        self._info = info
        self._channel = channel if isinstance(channel, int) else (0 if info.channels == 1 else None)
        self._forced = isinstance(channel, int)
        self._dc_filter: np.ndarray | None = None
        self._checked_dc = False
        self.n_samples = 0
        self._clipped = 0
        self._peak = 0.0
        self._cancelled = False

    def __call__(self, block: np.ndarray) -> np.ndarray:
        self._check(block)
        self.n_samples += len(block)
        if self._channel is None:
            mixed = self._mix(block)
        else:
            mixed = block[:, self._channel]
        return self._remove_dc(np.ascontiguousarray(mixed, np.float32))

    def _check(self, block: np.ndarray) -> None:
        magnitude = np.abs(block)
        peak = float(magnitude.max(initial=0.0))
        name = shown(self._info.path)
        if not np.isfinite(peak) or np.isnan(block).any():
            raise AudioError('not_finite', f'{name} holds NaN or infinite samples.')
        if peak > MAX_PEAK:
            raise AudioError('out_of_range', f'{name} has samples of {peak:.3g} where full scale is 1.')
        self._peak = max(self._peak, peak)
        # Two neighbours at exactly the same value near full scale: the top of a wave was cut off.
        if peak > 0.99:
            flat = (block[1:] == block[:-1]) & (magnitude[1:] > 0.99)
            self._clipped += int(np.logical_or.reduce(list(flat.T)).sum())

    def _mix(self, block: np.ndarray) -> np.ndarray:
        # Channel by channel: numpy's reductions over a short axis take ten times as long.
        channels = list(block.T)
        mixed = np.add.reduce(channels) / np.float32(len(channels))
        power = np.array([np.square(channel, dtype=np.float64).mean() for channel in channels])
        cancels = np.square(mixed, dtype=np.float64).mean() < _CANCEL_RATIO * power.mean()
        if cancels and power.max() > _AUDIBLE_RMS**2:
            self._cancelled = True
            self._channel = int(power.argmax())
            return block[:, self._channel]
        return mixed

    def _remove_dc(self, mixed: np.ndarray) -> np.ndarray:
        if not self._checked_dc:
            self._checked_dc = True
            offset = float(mixed.mean(dtype=np.float64))
            if abs(offset) > _DC_LIMIT and len(mixed) > _DC_SECS * self._info.sample_rate:
                # As if the offset had been there forever, so that the filter starts at rest.
                self._dc_filter = np.array([-offset])
        if self._dc_filter is None:
            return mixed
        # Here, for it takes longer to import than all the rest of a worker's own code, and few files need it.
        import scipy.signal

        pole = 1 - 2 * np.pi * _DC_BLOCKER_HZ / self._info.sample_rate
        out, self._dc_filter = scipy.signal.lfilter([1, -1], [1, -pole], mixed, zi=self._dc_filter)
        return out.astype(np.float32)

    def warnings(self, sample_rate: int | None) -> list[str]:
        """What should be known about the recording, once all of it went through."""
        notes = []
        if self._cancelled:
            notes.append(f'the channels cancel when mixed: channel {self._channel} is used')
        elif self._info.channels > 2 and not self._forced:
            notes.append(f'mixed down from {self._info.channels} channels')
        if self._clipped > 0.001 * self.n_samples:
            notes.append(
                f'clipped: {100 * self._clipped / self.n_samples:.1f} % of the samples are at full scale'
            )
        if self._peak > 1.01:
            notes.append(f'above full scale: the peak is {self._peak:.2f}, kept as it is')
        if self._dc_filter is not None:
            notes.append(f'a constant offset was taken out (high-pass at {_DC_BLOCKER_HZ:g} Hz)')
        if sample_rate and self._info.sample_rate < sample_rate:
            notes.append(f'upsampled from {self._info.sample_rate} Hz: nothing above half of that rate')
        return notes
