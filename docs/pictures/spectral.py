"""Plots of the reference pages on spectra and losses: `python -m docs.pictures.spectral`."""

from __future__ import annotations

import pathlib

import matplotlib

matplotlib.use('Agg')
import matplotlib.pyplot as plt
import numpy as np
from keras import ops

from ddsp import core, losses, spectral_ops

SAMPLE_RATE = 16000  # Hz


def plucked_scale() -> np.ndarray:
    """Four plucked notes with a little noise, 2 s."""
    rng = np.random.default_rng(0)
    t = np.arange(8000) / SAMPLE_RATE
    notes = [
        sum(np.sin(2 * np.pi * f0 * h * t) * np.exp(-(3 + h) * t) / h for h in range(1, 20) if f0 * h < 8000)
        for f0 in (220.0, 277.2, 329.6, 440.0)
    ]
    audio = 0.4 * np.concatenate(notes) + 1e-4 * rng.standard_normal(32000)
    return audio.astype(np.float32)


def plot_features(path: pathlib.Path) -> None:
    """Spectrograms at two sizes, mel bands, and three measures of level of the same sound."""
    audio = plucked_scale()
    figure, axes = plt.subplots(2, 2, figsize=(10, 6), constrained_layout=True)
    for axis, size in zip(axes[0], (2048, 256), strict=True):
        logmag = ops.convert_to_numpy(spectral_ops.compute_logmag(audio, size))
        axis.imshow(
            logmag.T, origin='lower', aspect='auto', extent=(0, 2, 0, 8), vmin=-6, vmax=4, cmap='magma'
        )
        axis.set(title=f'compute_logmag, size={size}', xlabel='time (s)', ylabel='frequency (kHz)')
    logmel = ops.convert_to_numpy(spectral_ops.compute_logmel(audio))
    axes[1, 0].imshow(
        logmel.T, origin='lower', aspect='auto', extent=(0, 2, 0, 64), vmin=-6, vmax=6, cmap='magma'
    )
    axes[1, 0].set(title='compute_logmel, 64 bands', xlabel='time (s)', ylabel='band')
    for name in ('compute_loudness', 'compute_power'):
        level = ops.convert_to_numpy(getattr(spectral_ops, name)(audio))
        axes[1, 1].plot(np.arange(len(level)) / 250, level, label=name)
    axes[1, 1].set(title='level, 250 frames/s', xlabel='time (s)', ylabel='dB', ylim=(-40, 20))
    axes[1, 1].legend()
    figure.savefig(path, dpi=90)
    plt.close(figure)


def harmonic_tone(f0_hz: float) -> np.ndarray:
    """Twenty harmonics, half a second, [1, 8000]."""
    t = np.arange(8000) / SAMPLE_RATE
    tone = sum(np.sin(2 * np.pi * f0_hz * h * t) / h for h in range(1, 21) if f0_hz * h < 8000)
    return (0.3 * tone)[None].astype(np.float32)


def plot_detuning(path: pathlib.Path) -> None:
    """What losses make of a tone that is out of tune."""
    cents = np.arange(-700, 701, 20)
    target = harmonic_tone(220.0)
    loss = losses.SpectralLoss(logmag_weight=1.0)
    by_size: dict[int, list[float]] = {size: [] for size in loss.fft_sizes}
    wasserstein, kde = [], []
    harmonics = np.arange(1, 21, dtype=np.float32)
    amps = np.tile(1 / harmonics, (1, 1, 1))
    target_freqs = core.tf_float32(220.0 * harmonics[None, None])
    for detune in cents:
        f0_hz = 220.0 * 2 ** (detune / 1200)
        _, metrics = loss.loss_and_metrics(target, harmonic_tone(f0_hz))
        for size in by_size:
            by_size[size].append(float(metrics[f'spectral_loss_{size}']))
        freqs = core.tf_float32(f0_hz * harmonics[None, None])
        wasserstein.append(float(losses.WassersteinConsistencyLoss()(amps, target_freqs, amps, freqs)))
        kde.append(
            float(losses.KDEConsistencyLoss(scale_a=0.5, scale_b=0.5)(amps, target_freqs, amps, freqs))
        )
    figure, axes = plt.subplots(1, 2, figsize=(10, 3.6), constrained_layout=True)
    for size, values in by_size.items():
        axes[0].plot(cents, values, label=str(size))
    axes[0].set(title='SpectralLoss by FFT size', xlabel='detuning (cents)', ylabel='loss')
    axes[0].legend(title='FFT size', loc='upper left', bbox_to_anchor=(1.0, 1.0), frameon=False)
    for name, values in (
        ('Wasserstein (semitones)', wasserstein),
        ('KDE, scaled to 1', np.array(kde) / max(kde)),
    ):
        axes[1].plot(cents, values, label=name)
    axes[1].set(title='losses on sinusoids', xlabel='detuning (cents)')
    axes[1].legend()
    figure.savefig(path, dpi=90)
    plt.close(figure)


def main(folder: pathlib.Path) -> None:
    """Draws all plots into a folder."""
    for name, plot in (('spectral-features.png', plot_features), ('losses-detuning.png', plot_detuning)):
        plot(folder / name)
        print(folder / name)


if __name__ == '__main__':
    main(pathlib.Path(__file__).parents[1] / 'images' / 'reference')
