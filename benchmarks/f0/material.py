"""Sounds whose pitch is known: resynthesised speech and music, rooms, noise, tones.

Recordings are analysed (pyin of librosa) and synthesised again on the track that was found, so that the pitch
is exact whatever the analysis heard. Frames are 10 ms apart.
"""

from __future__ import annotations

import pathlib
import shutil
import subprocess
import tempfile
from collections.abc import Iterator

import librosa
import numpy as np
import scipy.linalg
import scipy.ndimage
import scipy.signal

from ddsp.io.audio import load_audio

RATE, FRAME_RATE = 16000, 100
_HOP = 80  # samples between the frames of the analysis, 5 ms
_ORDER = 18  # of linear prediction
_SECONDS = 12  # of long recordings
SPEECH = ('sms_speech-female.wav', 'sms_speech-male.wav', 'voice_speech_librivox.wav')
MUSIC = (
    'vocadito_10.wav', 'vocadito_14.wav', 'sms_singing-female.wav', 'voice_operatic_anechoic.wav',
    'sms_cello-phrase.wav', 'sms_sax-phrase.wav', 'violin_garner_bwv1002_sarabande_double.mp3',
)  # fmt: skip
ROOMS = {
    'seminar': 'rir_seminar_room_clap.wav',
    'auditorium': 'rir_rymer_auditorium_bformat_96k.wav',
    'plate': 'ir_emt140_plate_stereo_48k24.wav',
}
VOICES = ('en-us', 'en-gb+f3', 'de+m3', 'es+f2')
_TEXT = {
    'en': 'Did you really walk all the way home in the rain? I would never have believed it of you!',
    'de': 'Wann faehrt denn nun der naechste Zug nach Wien? Das weiss hier offenbar niemand so genau.',
    'es': 'Ahora no se lo puedo decir, pero manana por la manana le llamo sin falta.',
}
Sound = tuple[np.ndarray, np.ndarray]  # audio at 16 kHz; pitch of its frames, 0 where there is none


def speech(folder: pathlib.Path) -> list[Sound]:
    """Speech, by linear prediction with pulses of known pitch and noise as excitation."""
    sounds = [load_audio(folder / file) for file in SPEECH] + list(_spoken())
    return [spoken_again(audio) for audio in sounds]


def music(folder: pathlib.Path) -> list[Sound]:
    """Singing, strings and winds, by harmonics that follow a known pitch."""
    sounds = [load_audio(folder / file)[: _SECONDS * RATE] for file in MUSIC]
    return [_harmonics(audio, *_track(audio, 65, 2000)) for audio in sounds]


def in_room(sounds: list[Sound], path: pathlib.Path) -> list[Sound]:
    """Sounds in a measured room: convolved with its response, from the direct sound on."""
    response = load_audio(path)
    return _convolved(sounds, response[np.abs(response).argmax() :])


def in_church(sounds: list[Sound], tail_db: float) -> list[Sound]:
    """Sounds in a church, its tail so much louder than the direct sound, falling by 60 dB in 4 s."""
    return _convolved(sounds, _church(tail_db))


def _convolved(sounds: list[Sound], response: np.ndarray) -> list[Sound]:
    wet = [(scipy.signal.fftconvolve(audio, response)[: len(audio)], truth) for audio, truth in sounds]
    return [(0.5 * audio / np.abs(audio).max(), truth) for audio, truth in wet]


def with_noise(sounds: list[Sound], snr_db: float) -> list[Sound]:
    """Sounds in pink noise."""
    rng = np.random.default_rng(1)
    noisy = []
    for audio, truth in sounds:
        spectrum = np.fft.rfft(rng.standard_normal(len(audio)))
        noise = np.fft.irfft(spectrum / np.sqrt(np.maximum(np.arange(len(spectrum)), 20)), len(audio))
        noisy.append((audio + noise * audio.std() / noise.std() * 10 ** (-snr_db / 20), truth))
    return noisy


def gated(sounds: list[Sound]) -> list[Sound]:
    """Sounds with digital silence wherever they have no pitch."""
    cut = []
    for audio, truth in sounds:
        keep = np.repeat(truth > 0, RATE // FRAME_RATE)[: len(audio)]
        cut.append((np.where(np.pad(keep, (0, len(audio) - len(keep))), audio, 0.0), truth))
    return cut


def low_strings(kind: str) -> list[Sound]:
    """Notes from 30 to 47 Hz: `'strong'` or `'weak'` fundamentals, or `'odd'` harmonics alone."""
    rng, sounds = np.random.default_rng(2), []
    times = np.arange(2 * RATE) / RATE
    for hz in np.linspace(30.2, 46.8, 12):
        track = hz * 2 ** (10 * np.sin(2 * np.pi * 4 * times + rng.uniform(0, 6)) / 1200)
        phase = 2 * np.pi * np.cumsum(track) / RATE
        audio = np.zeros(len(times))
        for k in range(1, 40, 2 if kind == 'odd' else 1):
            level = k**-1.0 * (0.03 if kind == 'weak' and k == 1 else 1)
            audio += level * np.exp(-0.05 * k * times) * np.sin(k * phase + rng.uniform(0, 6))
        audio = 0.3 * audio / np.abs(audio).max() + 1e-3 * rng.standard_normal(len(audio))
        sounds.append((audio, _inner(track)))
    return sounds


def sines(low: float, high: float) -> list[Sound]:
    """Clean sines."""
    times = np.arange(RATE) / RATE
    tracks = [np.full(RATE, hz) for hz in np.geomspace(low, high, 24)]
    return [(0.3 * np.sin(2 * np.pi * track[0] * times), _inner(track)) for track in tracks]


def _inner(track: np.ndarray) -> np.ndarray:
    """Pitch of the frames; the first and last 50 ms count as nothing."""
    truth = track[:: RATE // FRAME_RATE].copy()
    truth[:5] = truth[-5:] = -1
    return truth


def _spoken() -> Iterator[np.ndarray]:
    if not shutil.which('espeak-ng'):
        print('left out: synthetic speech (espeak-ng is not installed)')
        return
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / 'spoken.wav'
        for voice in VOICES:
            subprocess.run(['espeak-ng', '-v', voice, '-w', str(path), _TEXT[voice[:2]]], check=True)
            yield load_audio(path)


def _track(audio: np.ndarray, low: float, high: float) -> tuple[np.ndarray, np.ndarray]:
    """Pitch every 5 ms, smooth, and where it is voiced."""
    f0_hz, voiced, _ = librosa.pyin(
        audio, fmin=low, fmax=high, sr=RATE, frame_length=1024, hop_length=_HOP, resolution=0.2
    )
    voiced = scipy.ndimage.binary_opening(voiced, np.ones(8))
    frames = np.arange(len(f0_hz))
    known = voiced & np.isfinite(f0_hz)
    pitch = np.interp(frames, frames[known], np.log(f0_hz[known]))
    return np.exp(scipy.ndimage.gaussian_filter1d(scipy.ndimage.median_filter(pitch, 5), 1.5)), known


def _truth(f0_hz: np.ndarray, voiced: np.ndarray) -> np.ndarray:
    """Pitch of every second frame of the analysis; -1 (counts as nothing) at the edges of voiced parts."""
    inner = scipy.ndimage.binary_erosion(voiced, np.ones(5))
    outer = scipy.ndimage.binary_dilation(voiced, np.ones(5))
    return np.where(inner, f0_hz, np.where(outer, -1, 0))[::2]


def _phase(f0_hz: np.ndarray, n_samples: int) -> tuple[np.ndarray, np.ndarray]:
    track = np.exp(np.interp(np.arange(n_samples) / _HOP, np.arange(len(f0_hz)), np.log(f0_hz)))
    return track, 2 * np.pi * np.cumsum(track) / RATE


def spoken_again(audio: np.ndarray) -> Sound:
    """Linear prediction every 5 ms, driven by pulses where there is a pitch and by noise elsewhere."""
    f0_hz, voiced = _track(audio, 60, 500)
    track, phase = _phase(f0_hz, len(audio))
    pulses = np.zeros(len(audio))
    for k in range(1, int(RATE / 2 / track.min()) + 1):
        pulses += np.cos(k * phase) * (k * track < RATE / 2 - 200)
    pulses *= np.sqrt(2 * track / RATE)  # as strong as noise of variance 1
    noise = np.random.default_rng(3).standard_normal(len(audio))
    width, out = 4 * _HOP, np.zeros(len(audio))
    padded = np.pad(audio, (width // 2, width + _HOP)) + 1e-6 * np.random.default_rng(4).standard_normal(
        len(audio) + width // 2 + width + _HOP
    )
    state = np.zeros(_ORDER)
    for i, start in enumerate(range(0, len(audio), _HOP)):
        frame = padded[start : start + width] * np.hanning(width)
        lags = np.correlate(frame, frame, 'full')[width - 1 : width + _ORDER]
        lags[0] *= 1.0001
        filter_ = np.concatenate(([1.0], -scipy.linalg.solve_toeplitz(lags[:-1], lags[1:])))
        gain = np.sqrt(max(lags @ filter_, 0.0) / (np.hanning(width) ** 2).sum())
        source = pulses if voiced[min(i, len(voiced) - 1)] else noise
        part = slice(start, start + _HOP)
        excitation = (0.98 * source[part] + 0.02 * noise[part]) * gain
        out[part], state = scipy.signal.lfilter([1.0], filter_, excitation, zi=state)
    return 0.5 * out / np.abs(out).max(), _truth(f0_hz, voiced)[: len(audio) * FRAME_RATE // RATE]


def _harmonics(audio: np.ndarray, f0_hz: np.ndarray, voiced: np.ndarray) -> Sound:
    """Harmonics with the levels that they have in the recording; silence where there is no pitch."""
    _, phase = _phase(f0_hz, len(audio))
    spectra = np.abs(librosa.stft(audio, n_fft=2048, hop_length=_HOP, win_length=640))
    times, gate = np.arange(len(audio)) / _HOP, scipy.ndimage.gaussian_filter1d(voiced.astype(float), 1)
    frames, out = np.arange(len(f0_hz)), np.zeros(len(audio))
    for k in range(1, 50):
        bins = k * f0_hz * 2048 / RATE
        if bins.min() > 1022:
            break
        levels = spectra[np.minimum(bins.astype(int), 1023), frames] * gate * (bins < 1000)
        out += np.interp(times, frames, levels) * np.cos(k * phase + k * k)
    out += 1e-4 * np.abs(out).max() * np.random.default_rng(5).standard_normal(len(out))
    return 0.5 * out / np.abs(out).max(), _truth(f0_hz, voiced)[: len(audio) * FRAME_RATE // RATE]


def _church(tail_db: float) -> np.ndarray:
    """Impulse response: the direct sound, and noise that falls by 60 dB in 4 s, high frequencies faster."""
    rng, times = np.random.default_rng(6), np.arange(3 * RATE) / RATE
    low = scipy.signal.lfilter([0.35], [1, -0.65], rng.standard_normal(len(times))) * 10 ** (-3 * times / 4)
    high = 0.2 * rng.standard_normal(len(times)) * 10 ** (-3 * times / 1.2)
    tail = (low + high) * np.minimum(times / 0.02, 1)
    tail *= 10 ** (tail_db / 20) / np.sqrt((tail**2).sum())
    tail[0] = 1.0
    return tail
