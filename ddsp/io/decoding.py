"""Opens audio files and decodes them to float32, with libsndfile, or with ffmpeg what that cannot read."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import json
import os
import shutil
import stat
import struct
import subprocess
import tempfile
import threading
from collections.abc import Iterator

import numpy as np
import soundfile

from ddsp.errors import ConfigError, DDSPError
from ddsp.io.files import writable

PathLike = str | os.PathLike[str]

# Limits of what is believed to be audio: beyond these a header is damaged.
SAMPLE_RATES = (1000, 768000)
MAX_CHANNELS = 64
_SMALL_BLOCK = 1024  # samples
_PROBE_SECS = 60.0  # ffprobe needs no longer for a file that is what it says
# What ffmpeg may take a file for. Without a limit it follows playlists (concat, hls, sdp ...) to other files.
_CONTAINERS = (
    'aac,ac3,aiff,amr,amrnb,amrwb,ape,asf,asf_o,au,avi,caf,dsf,dts,dtshd,eac3,flac,flv,ilbc,latm,loas,matroska,'
    'mlp,mov,mp3,mpc,mpc8,mpeg,mpegts,nistsphere,ogg,oma,qcp,rm,shn,sox,tak,truehd,tta,voc,w64,wav,webm,wv'
)
_EXACT = ('mov', 'matroska', 'asf', 'avi')  # containers that know their length; of others it is an estimate
_INPUT_OPTIONS = ['-format_whitelist', _CONTAINERS, '-protocol_whitelist', 'file']
_stderr_lock = threading.RLock()


class AudioError(DDSPError):
    """A file that cannot be used as audio.

    Attributes:
      reason: One word for machines: missing, permission, not_a_file, empty, not_audio, truncated, timeout,
        no_samples, unsupported, not_finite, out_of_range, unwritable.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason

    def __reduce__(self) -> tuple[type[AudioError], tuple[str, str]]:
        return type(self), (self.reason, str(self))  # so that it travels between processes


@dataclasses.dataclass(frozen=True)
class AudioInfo:
    """What a file's header says.

    Attributes:
      path: The file.
      sample_rate: Sample rate in Hz.
      channels: Number of channels.
      n_samples: Samples per channel; None where the container does not say.
      codec: Name of the container and coding.
      decoder: `'soundfile'` or `'ffmpeg'`.
      warnings: What is odd about the header.
    """

    path: str
    sample_rate: int
    channels: int
    n_samples: int | None
    codec: str
    decoder: str
    warnings: tuple[str, ...] = ()

    @property
    def duration_s(self) -> float | None:
        """Length in seconds; None where the container does not say."""
        return None if self.n_samples is None else self.n_samples / self.sample_rate


def probe(path: PathLike) -> AudioInfo:
    """Reads the header of an audio file.

    Args:
      path: The file.

    Returns:
      What the header says.

    Raises:
      AudioError: The file is missing, is not audio, or its header makes no sense.
    """
    _check_regular_file(path)
    try:
        with _open(path) as file:
            codec = f'{file.format} {file.subtype}'
            warnings = _wav_warnings(path) if file.format.startswith('WAV') else ()
            frames = file.frames if file.frames < 2**62 else None
            info = AudioInfo(
                os.fspath(path), file.samplerate, file.channels, frames, codec, 'soundfile', warnings
            )
    except (soundfile.LibsndfileError, TypeError) as error:
        found = _probe_with_ffmpeg(path)
        if found is None:
            raise _not_audio(path, error) from None
        info = found
    return _check_header(info)


def check_channel(channel: object) -> None:
    """Raises a ConfigError unless `channel` is `'mix'` or the index of a channel."""
    number = isinstance(channel, int) and not isinstance(channel, bool) and 0 <= channel < MAX_CHANNELS
    if channel != 'mix' and not number:
        raise ConfigError(
            f"channel is {channel!r}; it must be 'mix' or a number from 0 to {MAX_CHANNELS - 1}."
        )


def decode(info: AudioInfo, block_frames: int, notes: list[str]) -> Iterator[np.ndarray]:
    """Blocks [n, channels] in float32 at the rate of the file."""
    decode = _decode_with_soundfile if info.decoder == 'soundfile' else _decode_with_ffmpeg
    return decode(info, block_frames, notes)


def _decode_with_soundfile(info: AudioInfo, block_frames: int, notes: list[str]) -> Iterator[np.ndarray]:
    done = 0
    try:
        for block in _soundfile_blocks(info.path, block_frames, 0):
            done += len(block)
            yield block
    except soundfile.LibsndfileError:  # nearer to the damage in smaller steps, and in a decoder that is whole
        try:
            for block in _soundfile_blocks(info.path, _SMALL_BLOCK, done):
                done += len(block)
                yield block
        except soundfile.LibsndfileError as error:
            if done == 0:
                raise _not_audio(info.path, error) from None
            notes.append(f'damaged after {done / info.sample_rate:.2f} s: the rest is left out')
            return
    _note_missing(info, done, notes)


def _soundfile_blocks(path: PathLike, block_frames: int, start: int) -> Iterator[np.ndarray]:
    """Blocks from frame `start` on, as far as they can be decoded."""
    mp3 = _is_mp3(path)
    with _open(path) as file:
        with _muted_stderr(mp3):
            file.seek(start)
        while True:
            with _muted_stderr(mp3):
                block = file.read(block_frames, dtype='float32', always_2d=True)
            if not len(block):
                return
            yield block


def _note_missing(info: AudioInfo, done: int, notes: list[str]) -> None:
    """Notes that a file holds less than its header says."""
    if info.n_samples and done < 0.99 * info.n_samples:
        notes.append(f'ends after {done / info.sample_rate:.2f} s of {info.duration_s:.2f} s: truncated')


def _open(path: PathLike) -> soundfile.SoundFile:
    with _muted_stderr(_is_mp3(path)):
        return soundfile.SoundFile(os.fsencode(path))


def _is_mp3(path: PathLike) -> bool:
    with open(path, 'rb') as file:
        head = file.read(3)
    return head == b'ID3' or (len(head) > 1 and head[0] == 0xFF and head[1] & 0xE0 == 0xE0)


@contextlib.contextmanager
def _muted_stderr(mute: bool) -> Iterator[None]:
    """Keeps off the terminal what the mp3 decoder writes to file descriptor 2; errors are raised anyway."""
    if not mute:
        yield
        return
    with _stderr_lock:
        saved, null = os.dup(2), os.open(os.devnull, os.O_WRONLY)
        try:
            os.dup2(null, 2)
            yield
        finally:
            os.dup2(saved, 2)
            os.close(saved)
            os.close(null)


def _decode_with_ffmpeg(info: AudioInfo, block_frames: int, notes: list[str]) -> Iterator[np.ndarray]:
    command = ['ffmpeg', '-v', 'error', '-nostdin', *_INPUT_OPTIONS, '-i', f'file:{info.path}']
    command += ['-map', '0:a:0', '-f', 'f32le', '-c:a', 'pcm_f32le', '-']
    block_bytes, done = block_frames * info.channels * 4, 0
    with tempfile.TemporaryFile() as errors:
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors) as process:
            assert process.stdout is not None
            try:
                while raw := process.stdout.read(block_bytes):
                    raw = raw[: len(raw) // (4 * info.channels) * 4 * info.channels]
                    done += len(raw) // (4 * info.channels)
                    yield np.frombuffer(raw, '<f4').reshape(-1, info.channels)
                status = process.wait()
            finally:
                process.kill()
        errors.seek(0)
        complaint = errors.read(4000).decode(errors='replace').strip()
    why = complaint.splitlines()[-1][:200] if complaint else f'exit status {status}'
    if status:  # also by a signal, such as that of a machine without memory
        of = f' of {info.duration_s:.2f} s' if info.duration_s else ''
        raise AudioError(
            'truncated',
            f'{shown(info.path)}: ffmpeg stopped after {done / info.sample_rate:.2f} s{of} ({why}).',
        )
    if complaint:
        notes.append(f'ffmpeg found damage: {why}')
    if info.codec.startswith(_EXACT):
        _note_missing(info, done, notes)


def _probe_with_ffmpeg(path: PathLike) -> AudioInfo | None:
    """What ffprobe says about the first audio stream; None without ffmpeg or without such a stream."""
    if not (shutil.which('ffprobe') and shutil.which('ffmpeg')):
        return None
    command = ['ffprobe', '-v', 'error', *_INPUT_OPTIONS, '-select_streams', 'a:0', '-of', 'json']
    command += ['-show_entries']
    command += ['stream=codec_name,sample_rate,channels,duration:format=format_name,duration,probe_score']
    command += [f'file:{os.fspath(path)}']
    try:
        done = subprocess.run(command, capture_output=True, timeout=_PROBE_SECS, check=False)
    except subprocess.TimeoutExpired:
        raise AudioError(
            'timeout', f'{shown(path)}: ffprobe did not find out in {_PROBE_SECS:g} s what it is.'
        ) from None
    try:
        answer = json.loads(done.stdout)
        stream, container = answer['streams'][0], answer['format']
        rate, channels = int(stream['sample_rate']), int(stream['channels'])
        codec = f'{container["format_name"]} {stream["codec_name"]}'
        duration = float(stream.get('duration') or container.get('duration') or 'nan')
    except (ValueError, KeyError, IndexError):
        return None
    # ffprobe takes a guess at almost anything; 25 of 100 is its "by the file name or a lucky pattern".
    if int(container.get('probe_score', 100)) <= 25 or rate <= 0 or channels <= 0:
        return None
    frames = round(duration * rate) if np.isfinite(duration) else None
    return AudioInfo(os.fspath(path), rate, channels, frames, codec, 'ffmpeg')


def _check_regular_file(path: PathLike) -> None:
    name = shown(path)
    try:
        found = os.stat(path)
        if stat.S_ISREG(found.st_mode):
            with open(path, 'rb'):
                pass
    except FileNotFoundError:
        link = ' (a link that points to nothing)' if os.path.islink(path) else ''
        raise AudioError('missing', f'{name}: no such file{link}.') from None
    except PermissionError:
        raise AudioError('permission', f'{name}: permission denied.') from None
    except OSError as error:
        why = 'a link that points to itself' if error.errno == errno.ELOOP else str(error.strerror)
        raise AudioError('missing', f'{name} cannot be opened: {why}.') from None
    if not stat.S_ISREG(found.st_mode):
        kind = 'a folder' if stat.S_ISDIR(found.st_mode) else 'not a regular file'
        raise AudioError('not_a_file', f'{name} is {kind}.')
    if found.st_size == 0:
        raise AudioError('empty', f'{name} is empty (0 bytes).')


def _check_header(info: AudioInfo) -> AudioInfo:
    name = shown(info.path)
    if fault := _out_of_range(info.sample_rate, info.channels):
        raise AudioError('unsupported', f'{name}: {fault}.')
    if info.n_samples == 0:
        raise AudioError('no_samples', f'{name} holds no samples.')
    return info


def _out_of_range(sample_rate: int, channels: int) -> str:
    """What in a header is beyond the limits, in words; empty where nothing is."""
    low, high = SAMPLE_RATES
    if not low <= sample_rate <= high:
        return f'a sample rate of {sample_rate} Hz; {low} to {high} Hz can be read'
    if not 1 <= channels <= MAX_CHANNELS:
        return f'{channels} channels; 1 to {MAX_CHANNELS} can be read'
    return ''


def _not_audio(path: PathLike, error: Exception) -> AudioError:
    name = shown(path)
    with open(path, 'rb') as file:
        head = file.read(64)
    if head[:4] == b'RIFF' and len(head) < 44:
        return AudioError('truncated', f'{name} is cut off inside its header ({len(head)} bytes).')
    if fault := _wav_fault(path):
        return AudioError('unsupported', f'{name} is a WAV file with {fault}.')
    detail = getattr(error, 'error_string', str(error)).removeprefix('Error : ').strip().rstrip('.')
    if 'not a regular file' in detail:  # what libsndfile says of an mp3 without a whole frame
        detail = 'no audio frames'
    hint = ''
    if (
        head[4:8] == b'ftyp'
        or head[:2] in (b'\xff\xf1', b'\xff\xf9')
        or head[:4] in (b'\x1aE\xdf\xa3', b'0&\xb2u')
    ):
        hint = ' It looks like m4a, aac, webm or wma: these are read when ffmpeg is installed.'
        if shutil.which('ffprobe') and shutil.which('ffmpeg'):
            hint = ' It looks like m4a, aac, webm or wma, but ffmpeg finds no sound in it.'
    return AudioError('not_audio', f'{name} is not audio that can be read ({detail}).{hint}')


def _wav_fault(path: PathLike) -> str:
    """What makes the header of a WAV file unusable, in words; empty where nothing stands out."""
    with open(path, 'rb') as file:
        head = file.read(64)
    if head[:4] not in (b'RIFF', b'RF64') or head[12:16] != b'fmt ' or len(head) < 36:
        return ''
    codec, channels, rate = struct.unpack('<HHI', head[20:28])
    if fault := _out_of_range(rate, channels):
        return fault
    bits = struct.unpack('<H', head[34:36])[0]
    return f'audio of {bits} bits in a coding that is not known here (0x{codec:04x})'


def _wav_warnings(path: PathLike) -> tuple[str, ...]:
    """Compares the length that a WAV header promises with what the file holds."""
    size = os.path.getsize(path)
    with open(path, 'rb') as file:
        if file.read(4) != b'RIFF':
            return ()  # RF64 keeps its lengths elsewhere
        file.seek(12)
        while len(head := file.read(8)) == 8:
            name, length = struct.unpack('<4sI', head)
            if name == b'data':
                there = size - file.tell()
                if length > there:
                    return (f'the header promises {length} bytes of audio and {there} are there',)
                return ()
            file.seek(length + length % 2, os.SEEK_CUR)
    return ()


def shown(path: PathLike) -> str:
    """A path as it can be printed on one line, whatever bytes its name holds."""
    text = writable(os.fspath(path))
    return text if text.isprintable() else repr(text)[1:-1]
