"""Pictures of a dataset: histograms of its frames, and single examples with what was found in them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from ddsp.f0 import voiced_threshold
from experiments.reports import figures

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from pipelines.analysis.statistics import Distribution
    from pipelines.inspect.inspection import FrameCounts

_COLORS = ('#1f5fa8', '#d9541e', '#2a9d5c', '#8a4fbf')


def histograms(frames: Mapping[str, FrameCounts], estimator: str) -> bytes:
    """Pitch, loudness and confidence of the frames of each split, in percent of its frames.

    Args:
      frames: Counts of each split.
      estimator: Pitch estimator of the dataset.

    Returns:
      A PNG.
    """
    made, axes = figures.figure(10.5, 3.0, 1, 3)
    for color, (split, counts) in zip(_COLORS, frames.items(), strict=False):
        _curve(axes[0], *_grouped(counts.statistics.pitch_midi, 8), color, split)
        _curve(axes[1], *_grouped(counts.statistics.loudness_db, 8), color, split)
        bins = counts.confidence
        _curve(axes[2], np.linspace(0, 1, len(bins) + 1), bins, color, split)
    axes[0].set(xlabel='Pitch of voiced frames (MIDI)', ylabel='Frames (%)')
    axes[1].set(xlabel='Loudness (dB)')
    axes[2].set(xlabel='Confidence of f0', xlim=(0, 1))
    axes[2].axvline(voiced_threshold(estimator), color='gray', linewidth=1, linestyle=':')
    for axis in axes:
        axis.set_ylim(bottom=0)
        axis.grid(alpha=0.25)
    axes[0].legend(frameon=False)
    return figures.png(made)


def _grouped(distribution: Distribution, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Edges and counts of a distribution's histogram in groups of `width` bins, where there is anything."""
    edges, counts = distribution.bins()
    counts = np.add.reduceat(counts, np.arange(0, len(counts), width))
    edges = np.append(edges[:-1:width], edges[-1])
    filled = np.flatnonzero(counts)
    if not len(filled):
        return edges[:2], counts[:1]
    first, last = max(0, filled[0] - 1), min(len(counts), filled[-1] + 2)
    return edges[first : last + 1], counts[first:last]


def _curve(axis: Axes, edges: np.ndarray, counts: np.ndarray, color: str, label: str) -> None:
    share = 100 * counts / max(1, counts.sum())
    axis.stairs(share, edges, color=color, fill=True, alpha=0.22)
    axis.stairs(share, edges, color=color, linewidth=1.6, label=label)


def example(features: Mapping[str, np.ndarray], sample_rate: int, frame_rate: int, estimator: str) -> bytes:
    """The spectrogram of an example with its f0, and its loudness and confidence below.

    Args:
      features: `audio` [n_samples], `f0_hz`, `f0_confidence` and `loudness_db` [n_frames].
      sample_rate: Sample rate of the audio, in Hz.
      frame_rate: Frame rate of the others, in Hz.
      estimator: Pitch estimator of the dataset.

    Returns:
      A PNG.
    """
    made, (top, bottom) = figures.figure(6.6, 4.1, 2, 1, sharex=True, gridspec_kw={'height_ratios': [3, 1]})
    spectrogram = figures.spectrogram_db(features['audio'], sample_rate)
    figures.draw_spectrogram(top, spectrogram, spectrogram[0].max())
    seconds = np.arange(len(features['f0_hz'])) / frame_rate
    voiced = (features['f0_confidence'] >= voiced_threshold(estimator)) & (features['f0_hz'] > 0)
    f0_hz = np.where(features['f0_hz'] > 0, features['f0_hz'], np.nan)
    top.plot(seconds, np.where(voiced, np.nan, f0_hz), color='#bbbbbb', linewidth=0.9, linestyle=':',
             label='not voiced')  # fmt: skip
    top.plot(seconds, np.where(voiced, f0_hz, np.nan), color='#35e0d0', linewidth=1.8, label='f0')
    top.set(ylabel='Frequency (Hz)')
    top.legend(loc='upper right', facecolor='black', labelcolor='white', framealpha=0.6, fontsize=8)
    bottom.plot(seconds, features['loudness_db'], color=_COLORS[0], linewidth=1.4)
    bottom.set(xlabel='Time (s)', xlim=(0, max(spectrogram[2][-1], seconds[-1])))
    bottom.set_ylabel('Loudness (dB)', color=_COLORS[0])
    bottom.grid(alpha=0.25)
    confidence = bottom.twinx()
    confidence.fill_between(seconds, features['f0_confidence'], color=_COLORS[1], alpha=0.18, linewidth=0)
    confidence.set_ylim(0, 1.05)
    confidence.set_ylabel('Confidence', color=_COLORS[1])
    return figures.png(made)
