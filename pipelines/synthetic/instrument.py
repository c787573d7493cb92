"""A synthetic player: phrases on an instrument in a small room, with everything known about them.

A bowed instrument glides, plays vibrato with an onset and crescendi; its bow noise follows the level, its
spectrum brightens with it, and a body with resonances radiates it. A breathy one has other numbers.
"""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np

FRAME_RATE = 250
_CONTROL_HOP = 16  # samples between two values of the harmonics' amplitudes
_MAX_HARMONICS = 60
_NOISE_BANDS_HZ = (0, 400, 900, 1600, 2600, 4000, 6000, 24000)
_ROOM_NOISE_DB = -75.0
_ARTICULATION_VOICED = 0.3  # of full bow pressure: below this a change of note is not called voiced


@dataclasses.dataclass(frozen=True)
class Instrument:
    """What distinguishes one instrument from another.

    Attributes:
      lowest, highest: Its range, MIDI.
      formants: Resonances of the body: (frequency in Hz, gain in dB, bandwidth in Hz).
      body_roughness_db: Standard deviation of the fine structure between the resonances.
      slope_soft, slope_loud: Exponent of the harmonics' decay `k ** -slope` at the lowest and highest level.
      noise_soft_db, noise_loud_db: Level of the noise under that of the tone, likewise.
      vibrato_cents, vibrato_hz: Largest deviation of the vibrato, and its rate.
      attack_s: Time to full level of a detached note.
      legato: Share of the changes of note that are glides.
      body_seed: Makes the fine structure; belongs to the instrument, not to the corpus.
    """

    lowest: int
    highest: int
    formants: tuple[tuple[float, float, float], ...]
    body_roughness_db: float
    slope_soft: float
    slope_loud: float
    noise_soft_db: float
    noise_loud_db: float
    vibrato_cents: float
    vibrato_hz: float
    attack_s: float
    legato: float
    body_seed: int


BOWED = Instrument(
    lowest=55, highest=81,
    formants=((275, 9, 60), (460, 10, 90), (700, 6, 160), (1150, 5, 300), (2400, 9, 900), (3400, 5, 900)),
    body_roughness_db=3.0, slope_soft=2.9, slope_loud=1.0, noise_soft_db=-24.0, noise_loud_db=-34.0,
    vibrato_cents=24.0, vibrato_hz=5.6, attack_s=0.05, legato=0.55, body_seed=11,
)  # fmt: skip
BREATHY = Instrument(
    lowest=62, highest=79,
    formants=((620, 8, 180), (1080, 5, 250), (2700, 3, 500)),
    body_roughness_db=1.0, slope_soft=3.2, slope_loud=2.1, noise_soft_db=-17.0, noise_loud_db=-25.0,
    vibrato_cents=15.0, vibrato_hz=4.8, attack_s=0.08, legato=0.5, body_seed=12,
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Truth:
    """What is known about a synthetic recording, at 250 frames per second; frame i is at i / 250 s.

    Attributes:
      f0_hz: Fundamental frequency [n_frames], Hz; goes on through the pauses.
      loudness_db: Level of the dry instrument [n_frames]: 10 log10 of its mean square at full scale 1.
      voiced: Whether a note sounds [n_frames], bool; False while the bow changes direction.
      room: Impulse response of the room [n_taps].
    """

    f0_hz: np.ndarray
    loudness_db: np.ndarray
    voiced: np.ndarray
    room: np.ndarray


def play(
    instrument: Instrument, n_samples: int, rate: int, rng: np.random.Generator
) -> tuple[np.ndarray, Truth]:
    """Plays phrases, which `rng` decides, on an instrument in a room.

    Returns:
      Audio [n_samples], float64, and what is known about it.
    """
    score = _compose(instrument, n_samples / rate, rng)
    midi, articulation, level_db = _perform(instrument, score, n_samples, rate, rng)
    f0_hz = 440.0 * 2 ** ((midi - 69) / 12)
    effort = np.clip((level_db + 40) / 32, 0, 1)  # 0 at -40 dB, 1 at -8 dB
    amplitude = 10 ** (level_db / 20) * articulation
    tone = _tone(instrument, f0_hz, effort, rate) * amplitude
    dry = tone + _noise(instrument, effort, rate, rng) * amplitude
    room = _room(rate)
    audio = _convolve(dry, room) + 10 ** (_ROOM_NOISE_DB / 20) * rng.standard_normal(n_samples)
    hop = rate // FRAME_RATE
    noise_db = instrument.noise_soft_db + effort * (instrument.noise_loud_db - instrument.noise_soft_db)
    power = amplitude**2 * (1 + 10 ** (noise_db / 10))
    voiced = articulation > _ARTICULATION_VOICED
    loudness = 10 * np.log10(np.maximum(power, 1e-9))
    f0_hz, loudness = f0_hz[::hop].astype(np.float32), loudness[::hop].astype(np.float32)
    return audio, Truth(f0_hz, loudness, voiced[::hop], room.astype(np.float32))


@dataclasses.dataclass(frozen=True)
class _Note:
    start: float  # s
    end: float
    midi: float
    glide: float  # s; 0 for a detached note
    vibrato: float  # share of the instrument's largest
    level_db: float
    swell_db: float  # from the start of the note to its end
    last: bool  # of its phrase


def _compose(instrument: Instrument, seconds: float, rng: np.random.Generator) -> list[_Note]:
    """Phrases of four to eight notes on a minor scale, with arches of level."""
    scale = [
        m for m in range(instrument.lowest, instrument.highest + 1) if (m - 2) % 12 in (0, 2, 3, 5, 7, 8, 10)
    ]
    notes: list[_Note] = []
    now = 0.15
    while now < seconds - 0.9:
        beat = rng.uniform(0.34, 0.5)
        n_notes = int(rng.integers(4, 9))
        degree = int(rng.integers(0, len(scale)))
        base_db, arch_db = rng.uniform(-34, -17), rng.uniform(4, 10)
        for i in range(n_notes):
            last = i == n_notes - 1
            length = beat * (rng.choice([2.0, 3.0]) if last else rng.choice([0.75, 1.0, 1.0, 1.5, 2.0]))
            length = min(length, seconds - 0.3 - now)
            if length < 0.22:
                break
            glide = float(rng.uniform(0.12, 0.22)) if i and rng.random() < instrument.legato else 0.0
            arch = arch_db * np.sin(np.pi * (i + 0.5) / n_notes)
            notes.append(_Note(
                now, now + length, float(scale[degree]), min(glide, 0.7 * length),
                float(rng.uniform(0.3, 1.0)) if length > 0.38 else 0.0,
                float(base_db + arch + rng.uniform(-1.5, 1.5)), float(rng.uniform(-4, 5)), last,
            ))  # fmt: skip
            now += length
            step = int(rng.choice([-3, -2, -1, -1, 1, 1, 2, 3, 4]))
            degree = degree + step if 0 <= degree + step < len(scale) else degree - step
        if notes and not notes[-1].last:
            notes[-1] = dataclasses.replace(notes[-1], last=True)
        now += rng.uniform(0.18, 0.4)
    return notes


def _perform(
    instrument: Instrument, notes: list[_Note], n_samples: int, rate: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pitch (MIDI), articulation (0 to 1) and level (dB) of every sample."""
    t = np.arange(n_samples) / rate
    midi = np.full(n_samples, notes[0].midi)
    articulation = np.zeros(n_samples)
    level_db = np.full(n_samples, notes[0].level_db)
    for i, note in enumerate(notes):
        previous = notes[i - 1] if i else note
        change = note.midi - previous.midi
        width = note.glide or 0.004
        midi += change * _smoothstep((t - note.start) / width + 0.5)
        level_db += (note.level_db - previous.level_db - (previous.swell_db if i else 0)) * _smoothstep(
            (t - note.start) / 0.12 + 0.5
        )
        level_db += note.swell_db * np.clip((t - note.start) / (note.end - note.start), 0, 1)
        here = slice(int(note.start * rate), min(n_samples, int(note.end * rate) + 1))
        articulation[here] = _bow(instrument, note, i + 1 < len(notes) and notes[i + 1].glide > 0, t[here])
        if note.vibrato:
            midi[here] += _vibrato(instrument, note, t[here], rng)
    drift = np.interp(t, np.arange(0, t[-1] + 1, 0.5), rng.normal(0, 0.02, len(np.arange(0, t[-1] + 1, 0.5))))
    return midi + drift, articulation, level_db


def _bow(instrument: Instrument, note: _Note, tied: bool, t: np.ndarray) -> np.ndarray:
    """Rises at a detached start, falls at a detached end."""
    shape = np.ones_like(t)
    if not note.glide:
        shape *= _smoothstep((t - note.start) / instrument.attack_s)
    if not tied or note.last:
        release = 0.12 if note.last else 0.05
        shape *= _smoothstep((note.end - t) / release)
    return shape


def _vibrato(instrument: Instrument, note: _Note, t: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Semitones; begins a while after the start of the note and ends before the next."""
    onset = _smoothstep((t - note.start - 0.15 - note.glide / 2) / 0.3) * _smoothstep((note.end - t) / 0.12)
    depth = note.vibrato * instrument.vibrato_cents / 100
    hz = instrument.vibrato_hz * rng.uniform(0.92, 1.08)
    return depth * onset * np.sin(2 * np.pi * hz * (t - note.start))


def _tone(instrument: Instrument, f0_hz: np.ndarray, effort: np.ndarray, rate: int) -> np.ndarray:
    """Sum of harmonics with a mean square of 1, by the recurrence of Chebyshev."""
    n_harmonics = min(_MAX_HARMONICS, int(rate / 2 / f0_hz.min()))
    k = np.arange(1, n_harmonics + 1)
    coarse = slice(None, None, _CONTROL_HOP)
    frequencies = f0_hz[coarse, None] * k
    slope = instrument.slope_soft + effort[coarse, None] * (instrument.slope_loud - instrument.slope_soft)
    gains = 10 ** (_body_db(instrument, frequencies) / 20) * k**-slope
    gains *= _smoothstep((0.5 * rate - frequencies) / (0.05 * rate))
    gains *= np.sqrt(2 / np.sum(gains**2, axis=1, keepdims=True))
    angle = 2 * np.pi * (np.cumsum(f0_hz / rate) % 1.0)
    before, now, twice_cosine = np.zeros_like(angle), np.sin(angle), 2 * np.cos(angle)
    positions, grid = np.arange(len(f0_hz)), np.arange(0, len(f0_hz), _CONTROL_HOP)
    tone = np.zeros_like(angle)
    for harmonic in range(n_harmonics):
        tone += np.interp(positions, grid, gains[:, harmonic]) * now
        before, now = now, twice_cosine * now - before
    return tone


def _noise(instrument: Instrument, effort: np.ndarray, rate: int, rng: np.random.Generator) -> np.ndarray:
    """Noise whose level and colour follow the effort; a mean square of 0 dB would be that of the tone."""
    spectrum = np.fft.rfft(rng.standard_normal(len(effort)))
    frequencies = np.fft.rfftfreq(len(effort), 1 / rate)
    spectrum *= 10 ** (0.5 * _body_db(instrument, frequencies) / 20)
    dark, bright = np.zeros(len(effort)), np.zeros(len(effort))
    for i, (low, high) in enumerate(itertools.pairwise(_NOISE_BANDS_HZ)):
        inside = (frequencies >= low) & (frequencies < high)
        if not inside.any():
            continue
        band = np.fft.irfft(spectrum * inside, len(effort))
        dark += band * 10 ** (-4.0 * i / 20)
        bright += band * 10 ** (-1.0 * i / 20)
    dark, bright = dark / dark.std(), bright / bright.std()
    level = instrument.noise_soft_db + effort * (instrument.noise_loud_db - instrument.noise_soft_db)
    return 10 ** (level / 20) * (np.sqrt(1 - effort) * dark + np.sqrt(effort) * bright)


def _body_db(instrument: Instrument, frequencies: np.ndarray) -> np.ndarray:
    """Response of the body at any frequencies [...], in dB."""
    grid = np.geomspace(60, 24000, 400)
    response = np.zeros_like(grid)
    for centre, gain, width in instrument.formants:
        response += gain / (1 + ((grid - centre) / width) ** 2)
    rough = np.random.default_rng(instrument.body_seed).normal(0, instrument.body_roughness_db, 60)
    response += np.interp(np.log(grid), np.linspace(np.log(60), np.log(24000), 60), rough)
    response -= 12 * np.clip(np.log2(grid / 4500), 0, None)  # the body stops radiating
    return np.interp(np.log(np.maximum(frequencies, 60)), np.log(grid), response)


def _room(rate: int) -> np.ndarray:
    """Impulse response of a small room: direct sound, early reflections, a tail (0.3 s to -60 dB)."""
    rng = np.random.default_rng(5)
    t = np.arange(int(0.35 * rate)) / rate
    tail = rng.standard_normal(len(t)) * 10 ** (-3 * t / 0.3) * _smoothstep((t - 0.006) / 0.02)
    tail *= 0.09 / np.sqrt(np.sum(tail**2))
    tail[0] = 1.0
    for delay, gain in zip(rng.uniform(0.003, 0.022, 7), rng.uniform(0.02, 0.07, 7), strict=True):
        tail[round(delay * rate)] += gain * rng.choice([-1, 1])
    return tail


def _convolve(audio: np.ndarray, impulse_response: np.ndarray) -> np.ndarray:
    size = len(audio) + len(impulse_response)
    return np.fft.irfft(np.fft.rfft(audio, size) * np.fft.rfft(impulse_response, size), size)[: len(audio)]


def _smoothstep(x: np.ndarray) -> np.ndarray:
    x = np.clip(x, 0, 1)
    return x * x * (3 - 2 * x)
