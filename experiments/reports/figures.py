"""Pictures of audio and of training: spectrogram pairs, f0 and loudness curves, losses."""

from __future__ import annotations

import io
import math
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ddsp.errors import require

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.collections import QuadMesh
    from matplotlib.figure import Figure

Array = np.ndarray

_DYNAMIC_RANGE_DB = 80.0
_LOWEST_HZ = 40.0
_FFT_SECS = 0.064  # long enough to part the harmonics of a low note, short enough for a vibrato
_HOP_SECS = 0.008
_TARGET, _SYNTHESIZED = '#1f5fa8', '#d9541e'  # blue and orange differ for every kind of colour vision
_DPI = 110
# Okabe and Ito's colours, which differ for every kind of colour vision.
_COLORS = ('#d55e00', '#009e73', '#cc79a7', '#e69f00', '#56b4e9', '#7f7f7f')


def figure(
    width: float, height: float, rows: int = 1, columns: int = 1, **options: Any
) -> tuple[Figure, Any]:
    """Figure and axes as by `matplotlib.pyplot.subplots`, without a display and without global state.

    Width and height are in inches; `options` are for `Figure.subplots`.
    """
    require('matplotlib', 'to draw pictures')
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as MatplotlibFigure

    made = MatplotlibFigure(figsize=(width, height), dpi=_DPI, layout='constrained')
    FigureCanvasAgg(made)
    return made, made.subplots(rows, columns, **options)


def png(made: Figure) -> bytes:
    """A figure as PNG of 256 colours, a quarter of the bytes."""
    from PIL import Image  # comes with matplotlib

    drawn, small = io.BytesIO(), io.BytesIO()
    made.savefig(drawn, format='png')
    with Image.open(drawn) as image:
        few = image.convert('RGB').quantize(256, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
        few.save(small, format='PNG', optimize=True)
    return small.getvalue()


def save(made: Figure, path: str | os.PathLike[str]) -> pathlib.Path:
    """Writes a figure as PNG and returns the path."""
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(png(made))
    return path


def spectrogram_db(audio: Array, sample_rate: int) -> tuple[Array, Array, Array]:
    """Magnitude spectrogram on a logarithmic frequency axis.

    Args:
      audio: [n_samples].
      sample_rate: Hz.

    Returns:
      Level [n_bands, n_frames] in dB of a full-scale sine, band centres [n_bands] in Hz, frame times
      [n_frames] in seconds. Each band holds the strongest of its FFT bins, or interpolates where bins are
      wider than bands.
    """
    from scipy import signal

    fft_size = 1 << int(np.ceil(np.log2(_FFT_SECS * sample_rate)))
    hop = max(1, int(_HOP_SECS * sample_rate))
    audio = np.pad(np.asarray(audio, np.float64), (0, max(0, fft_size - len(audio))))
    window = signal.get_window('hann', fft_size)
    stft = signal.ShortTimeFFT(window, hop, sample_rate, scale_to='magnitude')
    frames = np.arange(0, max(1, int(np.ceil(len(audio) / hop))))
    magnitude = 2 * np.abs(stft.stft(audio, p0=0, p1=len(frames)))
    level = 20 * np.log10(np.maximum(magnitude, 1e-7))
    bands = np.geomspace(_LOWEST_HZ, sample_rate / 2, 320)
    return _to_bands(level, stft.f, bands), bands, frames * hop / sample_rate


def _to_bands(level: Array, bin_hz: Array, bands: Array) -> Array:
    """Linear FFT bins on logarithmic bands."""
    edges = np.sqrt(bands[1:] * bands[:-1])
    low = np.concatenate([bands[:1], edges])
    high = np.concatenate([edges, bands[-1:]])
    rows = []
    for center, start, stop in zip(bands, low, high, strict=True):
        inside = level[(bin_hz >= start) & (bin_hz < stop)]
        if len(inside):
            rows.append(inside.max(axis=0))
        else:
            index = np.clip(np.searchsorted(bin_hz, center), 1, len(bin_hz) - 1)
            share = (center - bin_hz[index - 1]) / (bin_hz[index] - bin_hz[index - 1])
            rows.append((1 - share) * level[index - 1] + share * level[index])
    return np.stack(rows)


def draw_spectrogram(axis: Axes, spectrogram: tuple[Array, Array, Array], top: float) -> QuadMesh:
    """Draws what `spectrogram_db` gives, down from a level `top` in dB, on a logarithmic frequency axis."""
    level, bands, times = spectrogram
    image = axis.pcolormesh(
        times, bands, level, cmap='magma', vmin=top - _DYNAMIC_RANGE_DB, vmax=top, shading='nearest',
        rasterized=True,
    )  # fmt: skip
    axis.set(yscale='log', ylim=(_LOWEST_HZ, bands[-1]))
    plain_log_ticks(axis)
    return image


def spectrogram_pair(
    path: str | os.PathLike[str],
    target: Array,
    synthesized: Array,
    sample_rate: int,
    *,
    f0_hz: Array | None = None,
    synthesized_f0_hz: Array | None = None,
    frame_rate: float = 250.0,
    titles: Sequence[str] = ('Target', 'Synthesised'),
) -> pathlib.Path:
    """Draws two spectrograms side by side on one colour scale, with their f0.

    Args:
      path: PNG to write.
      target: [n_samples].
      synthesized: [n_samples].
      sample_rate: Hz.
      f0_hz: [n_frames] of the target, Hz; 0 or nan where unvoiced.
      synthesized_f0_hz: [n_frames] of the synthesised audio.
      frame_rate: Frame rate of both f0, in Hz.
      titles: Titles of the two panels.
    """
    made, axes = figure(11, 4.2, 1, 2, sharex=True, sharey=True)
    spectrograms = [spectrogram_db(audio, sample_rate) for audio in (target, synthesized)]
    top = max(level.max() for level, _, _ in spectrograms)
    for axis, drawn, f0, title in zip(axes, spectrograms, (f0_hz, synthesized_f0_hz), titles, strict=True):
        image = draw_spectrogram(axis, drawn, top)
        if f0 is not None:
            _draw_f0(axis, f0, frame_rate, '#35e0d0', 'f0')
            axis.legend(loc='upper right', facecolor='black', labelcolor='white', framealpha=0.7)
        axis.set(title=title, xlabel='Time (s)')
    axes[0].set_ylabel('Frequency (Hz)')
    made.colorbar(image, ax=list(axes), label='Level (dB of full scale)', pad=0.01)
    return save(made, path)


def feature_curves(
    path: str | os.PathLike[str],
    target: Mapping[str, Array],
    synthesized: Mapping[str, Array],
    frame_rate: float = 250.0,
) -> pathlib.Path:
    """Draws f0 and loudness over time, target and synthesised on the same axes.

    Args:
      path: PNG to write.
      target: `f0_hz` [n_frames], Hz (0 or nan where unvoiced), and `loudness_db` [n_frames].
      synthesized: The same of the synthesised audio.
      frame_rate: Frame rate of the features, in Hz.
    """
    made, (pitch, loudness) = figure(11, 5, 2, 1, sharex=True)
    shown = [('target', target, _TARGET, 2.4), ('synthesised', synthesized, _SYNTHESIZED, 1.2)]
    for label, features, color, width in shown:
        _draw_f0(pitch, features['f0_hz'], frame_rate, color, label, width)
        times = np.arange(len(features['loudness_db'])) / frame_rate
        loudness.plot(times, features['loudness_db'], color=color, linewidth=width, label=label)
    pitch.set(ylabel='f0 (Hz)', yscale='log')
    plain_log_ticks(pitch)
    loudness.set(xlabel='Time (s)', ylabel='Loudness (dB)')
    for axis in (pitch, loudness):
        axis.grid(alpha=0.25)
        axis.margins(x=0)
    made.legend(*pitch.get_legend_handles_labels(), loc='outside upper right', ncols=2, frameon=False)
    return save(made, path)


def losses(history: Mapping[str, Sequence[tuple[float, float]]], title: str = '') -> Figure:
    """Draws lines over steps, on a logarithmic axis where all values are above 0.

    Args:
      history: Name of a loss, or of a run, to its (step, value) pairs; what is not finite is left out.
      title: What is drawn, where the names do not say it.
    """
    from cycler import cycler  # comes with matplotlib

    made, axis = figure(8, 4)
    axis.set_prop_cycle(cycler(linestyle=('-', '--', ':')) * cycler(color=_COLORS))
    lowest = math.inf
    for name, pairs in history.items():
        points = [(step, value) for step, value in pairs if math.isfinite(value)]
        steps, values = zip(*points, strict=True) if points else ((), ())
        lowest = min([lowest, *values])
        main = name.endswith('total_loss') or len(history) == 1
        axis.plot(
            steps, values, label=name.removeprefix('losses/'), marker='o' if len(points) < 3 else None,
            linewidth=2.4 if main else 1.4, **({'color': _TARGET} if main else {}),
        )  # fmt: skip
    axis.set(xlabel='Step', ylabel='Loss', title=title)
    axis.grid(alpha=0.25)
    if lowest > 0:
        axis.set_yscale('log')
        plain_log_ticks(axis)
    if len(history) > 1:
        axis.legend(loc='center left', bbox_to_anchor=(1, 0.5), frameon=False)
    return made


def _draw_f0(axis: Axes, f0_hz: Array, frame_rate: float, color: str, label: str, width: float = 1.4) -> None:
    """A line that is broken where there is no pitch."""
    f0_hz = np.asarray(f0_hz, np.float64).ravel()
    voiced = np.where(np.nan_to_num(f0_hz) > 0, f0_hz, np.nan)
    axis.plot(np.arange(len(voiced)) / frame_rate, voiced, color=color, linewidth=width, label=label)


def plain_log_ticks(axis: Axes) -> None:
    """Labels a logarithmic axis at 1, 2, 5, 10, 20 ..., without powers of ten."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis.yaxis.set_major_locator(LogLocator(base=10, subs=(1, 2, 5), numticks=12))
    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f'{value:g}'))
    axis.yaxis.set_minor_formatter(NullFormatter())
