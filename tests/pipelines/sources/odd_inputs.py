"""Odd and broken audio files, each with what should become of it."""

from __future__ import annotations

import io
import os
import pathlib
import shutil
import struct
import subprocess
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import soundfile

RATE = 16000
SECONDS = 3.0
# Root reads what nobody may read.
FORBIDDEN = 'accepted' if os.geteuid() == 0 else 'permission'


class Odd(NamedTuple):
    """One input.

    Attributes:
      make: Writes it at a path.
      fate: `'accepted'`, `'duplicate'`, or the reason for which it is rejected or passed over.
      words: What its row says.
    """

    make: Callable[[pathlib.Path], object]
    fate: str = 'accepted'
    words: str = ''


def tone(hz: float, seconds: float = SECONDS, partials: int = 8, rate: int = RATE, level: float = 0.3):
    """A harmonic tone whose partials fall by 1/k."""
    times = np.arange(int(seconds * rate)) / rate
    wave = sum(np.sin(2 * np.pi * k * hz * times) / k for k in range(1, partials + 1) if k * hz < rate / 2)
    return level * wave / np.abs(wave).max()


def sound(samples, rate: int = RATE, subtype: str = 'PCM_16', format: str = 'WAV'):
    """Written by libsndfile."""

    def make(path):
        file = io.BytesIO()  # libsndfile opens no name that is not UTF-8
        soundfile.write(file, samples, rate, subtype=subtype, format=format)
        path.write_bytes(file.getvalue())

    return make


def patched(offset: int, value: bytes, hz: float):
    """A wav file whose header says something else: 20 codec, 22 channels, 24 rate, 40 bytes of data."""

    def make(path):
        sound(tone(hz))(path)
        content = bytearray(path.read_bytes())
        content[offset : offset + len(value)] = value
        path.write_bytes(content)

    return make


def cut(keep: float | int, writer: Callable[[pathlib.Path], object]):
    """The beginning of a file: a share of its bytes, or a number of them (negative: without the last)."""

    def make(path):
        writer(path)
        content = path.read_bytes()
        path.write_bytes(content[: int(keep * len(content)) if isinstance(keep, float) else keep])

    return make


def encoded(hz: float, *options: str):
    """Written by ffmpeg, whatever the file's name says."""

    def make(path):
        source = path.with_name('source for ffmpeg.wav')
        sound(tone(hz, rate=44100), 44100)(source)
        command = ['ffmpeg', '-loglevel', 'error', '-y', '-i', str(source), '-bitexact', *options, str(path)]
        subprocess.run(command, check=True)
        source.unlink()

    return make


def content(data: bytes):
    """These bytes."""
    return lambda path: path.write_bytes(data)


def in_folder(writer, mode: int = 0o755):
    """In folders of its own."""

    def make(path):
        path.parent.mkdir(parents=True)
        writer(path)
        path.parent.chmod(mode)

    return make


def _waves() -> dict[str, Odd]:
    """Headers, coding and content of wav files."""
    stereo = tone(150, rate=44100)
    surround = np.stack([0.7 * stereo] * 6, 1)
    with_nan, with_inf = tone(151), tone(151)
    with_nan[1000:1100] = np.nan
    with_inf[1000] = np.inf
    click = np.zeros(int(SECONDS * RATE))
    click[RATE] = 1.0
    noise = np.random.default_rng(1).normal(0, 0.1, int(SECONDS * RATE))
    silence = np.zeros(4 * RATE)
    header = struct.pack('<4sI4s4sIHHIIHH', b'RIFF', 28, b'WAVE', b'fmt ', 16, 1, 1, RATE, 2 * RATE, 2, 16)
    return {
        'plain.wav': Odd(sound(tone(220))),
        'empty.wav': Odd(content(b''), 'empty'),
        'text.wav': Odd(content(b'not a sound\n' * 200), 'not_audio'),
        'random.wav': Odd(content(np.random.default_rng(0).bytes(50_000)), 'not_audio'),
        'midi.wav': Odd(content(b'MThd' + struct.pack('>IHHH', 6, 0, 1, 96) + bytes(12)), 'not_audio'),
        'cut in its header.wav': Odd(cut(20, sound(tone(152))), 'truncated'),
        'no data chunk.wav': Odd(content(header), 'truncated'),
        'no frames.wav': Odd(content(header + b'data' + bytes(4)), 'no_samples'),
        'half.wav': Odd(cut(0.5, sound(tone(153))), words='header promises'),
        'odd byte.wav': Odd(cut(-1, sound(tone(154))), words='header promises'),
        'endless.wav': Odd(patched(40, b'\xff' * 4, 155)),
        'two gigabytes.wav': Odd(patched(40, b'\xff\xff\xff\x7f', 156), words='header promises'),
        'no channels.wav': Odd(patched(22, b'\0\0', 157), 'unsupported'),
        '65535 channels.wav': Odd(patched(22, b'\xff\xff', 158), 'unsupported', '65535 channels'),
        'no rate.wav': Odd(patched(24, bytes(4), 159), 'unsupported', 'sample rate of 0 Hz'),
        'absurd rate.wav': Odd(patched(24, b'\xff' * 4, 160), 'unsupported'),
        'unknown codec.wav': Odd(patched(20, b'\x7a\x7a', 161), 'unsupported', '0x7a7a'),
        'not a number.wav': Odd(sound(with_nan, subtype='FLOAT'), 'not_finite'),
        'infinite.wav': Odd(sound(with_inf, subtype='FLOAT'), 'not_finite'),
        'peak of 4.wav': Odd(sound(tone(162, level=4.0), subtype='FLOAT'), words='above full scale'),
        'peak of 1e30.wav': Odd(sound(tone(163, level=1e30), subtype='FLOAT'), 'out_of_range'),
        'float64.wav': Odd(sound(tone(164), subtype='DOUBLE')),
        '8 bits.wav': Odd(sound(tone(165), subtype='PCM_U8')),
        '24 bits.wav': Odd(sound(tone(166, rate=44100), 44100, 'PCM_24')),
        '32 bits.wav': Odd(sound(tone(167), subtype='PCM_32')),
        'mu-law.wav': Odd(sound(tone(168), subtype='ULAW')),
        'adpcm.wav': Odd(sound(tone(169), subtype='MS_ADPCM')),
        'rf64.wav': Odd(sound(tone(170), format='RF64')),
        '192 kHz.wav': Odd(sound(tone(171, rate=192000), 192000, 'PCM_24')),
        '44056 Hz.wav': Odd(sound(tone(172, rate=44056), 44056)),
        '8 kHz.wav': Odd(sound(tone(173, rate=8000), 8000), words='upsampled'),
        'equal channels.wav': Odd(sound(np.stack([stereo] * 2, 1), 44100)),
        'opposite channels.wav': Odd(
            sound(np.stack([stereo, -stereo], 1) * 0.9, 44100), words='cancel'
        ),
        'one silent channel.wav': Odd(sound(np.stack([stereo, 0 * stereo], 1) * 0.8, 44100)),
        'surround.wav': Odd(sound(surround, 44100, 'PCM_24', 'WAVEX'), words='mixed down'),
        'silence.wav': Odd(sound(silence), 'silent'),
        'note between silences.wav': Odd(sound(np.concatenate([silence, tone(174), silence]))),
        'very quiet.wav': Odd(sound(tone(175, level=1e-4)), words='very quiet'),
        '10 ms.wav': Odd(sound(tone(176, 0.01)), 'too_short'),
        'one sample.wav': Odd(sound(np.full(1, 0.1)), 'too_short'),
        '300 ms.wav': Odd(sound(tone(177, 0.3)), words='shorter than an example'),
        'offset.wav': Odd(sound(tone(178) + 0.4), words='offset'),
        'offset alone.wav': Odd(sound(np.full(3 * RATE, 0.5)), 'silent'),
        'clipped.wav': Odd(sound(np.clip(12 * tone(179), -1, 1)), words='clipped'),
        'noise.wav': Odd(sound(noise), 'unpitched'),
        'two notes.wav': Odd(sound(tone(180) + tone(227, partials=5)), words='several notes'),
        '25 Hz.wav': Odd(sound(tone(25, partials=40)), words='beyond the range'),
        '3500 Hz.wav': Odd(sound(tone(3500)), words='beyond the range'),
        'click.wav': Odd(sound(click), 'unpitched'),
    }  # fmt: skip


def _names() -> dict[str, Odd]:
    """Names, links and places."""
    names = [
        'with spaces.wav', 'únïcødé 音 🎻.wav', 'new\nline.wav', '-rf.wav', '$(touch PWNED);\'"&|`.wav',
        '%s%d%n{0}{x}.wav', os.fsdecode(b'latin1 caf\xe9.wav'), 'n' * 240 + '.wav', 'UPPER.WAV',
    ]  # fmt: skip
    found = {name: Odd(sound(tone(250 + number))) for number, name in enumerate(names)}
    return found | {
        'no extension': Odd(sound(tone(300))),
        '.hidden.wav': Odd(sound(tone(301)), 'hidden'),
        '._resource fork.wav': Odd(content(bytes(204)), 'hidden'),
        'notes.txt': Odd(content(b'about these recordings'), 'not_audio'),
        'plain_copy.wav': Odd(lambda path: shutil.copy(path.with_name('plain.wav'), path), 'duplicate'),
        'plain_link.wav': Odd(lambda path: path.symlink_to('plain.wav'), 'duplicate'),
        'deep/er/inside.wav': Odd(in_folder(sound(tone(302)))),
        'other/inside.wav': Odd(in_folder(sound(tone(303)))),
        'folder.wav': Odd(lambda path: path.mkdir(), 'folder'),
        'circle/up': Odd(in_folder(lambda path: path.symlink_to('..')), 'loop'),
        'itself.wav': Odd(lambda path: path.symlink_to('itself.wav'), 'missing'),
        'dangling.wav': Odd(lambda path: path.symlink_to('gone.wav'), 'missing'),
        'pipe.wav': Odd(os.mkfifo, 'not_a_file'),
        'forbidden.wav': Odd(lambda path: (sound(tone(304))(path), path.chmod(0)), FORBIDDEN),
    }


def _encoded() -> dict[str, Odd]:
    """Other containers and codecs."""
    mp3 = ('-codec:a', 'libmp3lame', '-b:a', '128k', '-f', 'mp3')
    flac = sound(tone(400, rate=44100), 44100, format='FLAC')
    return {
        'tone.mp3': Odd(encoded(401, *mp3)),
        'cut.mp3': Odd(cut(0.6, encoded(402, *mp3)), words='truncated'),
        'cut at 100 bytes.mp3': Odd(cut(100, encoded(403, *mp3)), 'not_audio'),
        'tone.flac': Odd(flac),
        'cut.flac': Odd(cut(0.5, sound(tone(404, rate=44100), 44100, format='FLAC')), words='damaged after'),
        'flac inside.wav': Odd(sound(tone(405), format='FLAC')),
        'mp3 inside.wav': Odd(encoded(406, *mp3)),
        'vorbis.ogg': Odd(sound(tone(407, rate=44100), 44100, 'VORBIS', 'OGG')),
        'opus.ogg': Odd(encoded(408, '-codec:a', 'libopus', '-f', 'ogg')),
        'tone.opus': Odd(encoded(409, '-codec:a', 'libopus', '-f', 'opus')),
        'tone.m4a': Odd(encoded(410, '-codec:a', 'aac', '-f', 'ipod')),
        'tone.aac': Odd(encoded(411, '-codec:a', 'aac', '-f', 'adts')),
        'tone.aiff': Odd(sound(tone(412, rate=44100), 44100, format='AIFF')),
    }


def write(folder: pathlib.Path) -> dict[str, Odd]:
    """Makes all of them below an empty folder; what ffmpeg encodes needs ffmpeg."""
    inputs = {**_waves(), **_names(), **_encoded()}
    for name, odd in inputs.items():
        odd.make(folder / name)
    return inputs
