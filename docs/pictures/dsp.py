"""Plots of docs/reference/core.md, synths.md, effects.md, processors.md: `python -m docs.pictures.dsp`."""

from __future__ import annotations

import pathlib

import matplotlib

matplotlib.use('Agg')
import matplotlib.pyplot as plt
import numpy as np
from keras import ops

from ddsp import core, effects, processors, synths
from ddsp.core.kernels.phase import Phase

SAMPLE_RATE = 16000  # Hz
npy = ops.convert_to_numpy
# Where a legend hides no curve.
ABOVE = {'loc': 'lower left', 'bbox_to_anchor': (0.0, 1.0), 'frameon': False}


def _spectrogram(axis: plt.Axes, audio: np.ndarray, title: str) -> None:
    axis.specgram(audio + 1e-9, NFFT=512, Fs=SAMPLE_RATE, noverlap=384, cmap='magma', vmin=-140)
    axis.set(title=title, xlabel='time (s)', ylabel='frequency (Hz)')


def plot_scaling(path: pathlib.Path) -> None:
    """Network outputs to amplitudes and frequencies."""
    x = np.linspace(-6, 6, 200).astype(np.float32)
    figure, axes = plt.subplots(1, 2, figsize=(9, 3), constrained_layout=True)
    axes[0].plot(x, npy(core.exp_sigmoid(x)), label='exp_sigmoid')
    axes[0].plot(x, npy(core.sym_exp_sigmoid(x)), label='sym_exp_sigmoid')
    axes[0].set(xlabel='x', ylabel='amplitude')
    axes[1].semilogy(x, npy(core.frequencies_sigmoid(x[None, :, None]))[0, :, 0], label='frequencies_sigmoid')
    bands = npy(core.frequencies_critical_bands(np.repeat(x[None, :, None], 4, 2)))[0]
    axes[1].semilogy(x, bands, 'k', lw=0.7)
    axes[1].semilogy([], [], 'k', lw=0.7, label='frequencies_critical_bands, n=4')
    axes[1].set(xlabel='x', ylabel='Hz')
    for axis in axes:
        axis.legend(**ABOVE)
    figure.savefig(path, dpi=90)
    plt.close(figure)


def plot_resampling(path: pathlib.Path) -> None:
    """The four methods on the same frames."""
    frames = np.array([0.0, 1.0, 0.4, 0.6, 0.1, 0.9], np.float32)
    figure, axis = plt.subplots(figsize=(8, 3), constrained_layout=True)
    for method in ('nearest', 'linear', 'cubic', 'window'):
        axis.plot(np.arange(300) / 50, npy(core.resample(frames, 300, method)), label=method)
    axis.plot(np.arange(6), frames, 'ko', label='frames')
    axis.set(xlabel='frame', ylabel='value')
    axis.legend(ncol=5, fontsize=8)
    figure.savefig(path, dpi=90)
    plt.close(figure)


def plot_phase(path: pathlib.Path) -> None:
    """Error of harmonic 100 over ten minutes: a float32 sum, and `core`."""
    n = 600 * SAMPLE_RATE
    frequency = np.full([1, n], 69.9, np.float32)
    at = np.linspace(0, n - 1, 500).astype(int)
    exact = (at + 1) * (np.longdouble(frequency[0, 0]) / SAMPLE_RATE)
    plain = np.cumsum(frequency[0] / np.float32(SAMPLE_RATE), dtype=np.float32)[at].astype(np.longdouble)
    phase = Phase.per_sample(ops.convert_to_tensor(frequency), float(SAMPLE_RATE)).cumsum()
    ours = (npy(phase.steps)[0, at].astype(np.longdouble) + npy(phase.rest)[0, at]) / 2**32
    figure, axis = plt.subplots(figsize=(8, 3), constrained_layout=True)
    for label, turns in (('float32 cumulative sum', plain), ('ddsp.core', ours)):
        error = np.float64(turns - exact - np.round(turns - exact))
        axis.semilogy(at / SAMPLE_RATE, 2 * np.pi * 100 * np.abs(error) + 1e-9, label=label)
    axis.axhline(1e-3, color='k', ls=':', label='1e-3 rad')
    axis.set(xlabel='time (s)', ylabel='error of harmonic 100 (rad)')
    axis.legend()
    figure.savefig(path, dpi=90)
    plt.close(figure)


def plot_filters(path: pathlib.Path) -> None:
    """Impulse responses and frequency responses."""
    magnitudes = np.exp(-((np.linspace(0, 8, 65) - 2.5) ** 2)).astype(np.float32)[None, None]
    figure, axes = plt.subplots(1, 2, figsize=(9, 3), constrained_layout=True)
    designs = {
        'frequency_impulse_response, window_size=0': core.frequency_impulse_response(magnitudes, 0),
        'frequency_impulse_response, window_size=33': core.frequency_impulse_response(magnitudes, 33),
        'sinc_impulse_response, 2 kHz': core.sinc_impulse_response(np.array([[[2000.0]]]), 128, SAMPLE_RATE),
    }
    for label, response in designs.items():
        response = npy(response)[0, 0]
        axes[0].plot(response, label=label)
        gain = np.abs(np.fft.rfft(response, 1024))
        axes[1].plot(np.linspace(0, 8, 513), 20 * np.log10(gain + 1e-4))
    axes[0].set(xlabel='tap')
    axes[0].legend(fontsize=8, **ABOVE)
    axes[1].set(xlabel='frequency (kHz)', ylabel='gain (dB)', ylim=(-80, 5))
    figure.savefig(path, dpi=90)
    plt.close(figure)


def _controls(n_frames: int = 250) -> tuple[np.ndarray, np.ndarray]:
    time = np.arange(n_frames) / n_frames
    f0 = (220 * 2 ** (time + 0.02 * np.sin(2 * np.pi * 6 * time)))[None, :, None]
    return f0.astype(np.float32), np.sin(np.pi * time)[None, :, None].astype(np.float32) ** 0.5


def plot_synths(path: pathlib.Path) -> None:
    """One second of four synthesizers with the same pitch and loudness."""
    f0, envelope = _controls()
    tilt = np.ones_like(envelope) / np.arange(1, 31, dtype=np.float32)
    shifts = np.ones_like(envelope) * 0.0015 * np.arange(30, dtype=np.float32) ** 2 / 10
    noise = envelope * np.exp(-((np.linspace(0, 8, 65) - 3) ** 2)).astype(np.float32)
    table = np.ones_like(envelope) * np.sign(np.linspace(-1, 1, 256)).astype(np.float32)
    n = SAMPLE_RATE
    harmonic = synths.Harmonic(n, scale_fn=None)
    figure, axes = plt.subplots(2, 2, figsize=(10, 6), constrained_layout=True)
    sounds = {
        'Harmonic': harmonic(envelope, tilt, f0),
        'Harmonic with harmonic_shifts': harmonic(envelope, tilt, f0, shifts),
        'FilteredNoise': synths.FilteredNoise(n, 0, scale_fn=None, seed=0)(noise),
        'Wavetable (a square wave)': synths.Wavetable(n, scale_fn=None)(envelope, table, f0),
    }
    for axis, (title, sound) in zip(axes.flat, sounds.items(), strict=True):
        _spectrogram(axis, npy(sound)[0], title)
    figure.savefig(path, dpi=80)
    plt.close(figure)


def plot_effects(path: pathlib.Path) -> None:
    """What effects make of a click and of noise."""
    n = SAMPLE_RATE
    click = np.zeros([1, n], np.float32)
    click[0, 800] = 1.0
    noise = npy(core.uniform_noise([1, n], 0))
    figure, axes = plt.subplots(2, 2, figsize=(10, 6), constrained_layout=True)
    decay = effects.ExpDecayReverb(reverb_length=n)(click, np.array([[1.0]]), np.array([[2.0]]))
    axes[0, 0].plot(np.arange(n) / n, npy(decay)[0], lw=0.5)
    axes[0, 0].set(title='ExpDecayReverb of a click', xlabel='time (s)')
    bands = np.tile(np.linspace(3.0, -6.0, 50, dtype=np.float32)[None, :, None], (1, 1, 16))
    bands = bands - np.linspace(0, 5, 16, dtype=np.float32)
    _spectrogram(
        axes[0, 1], npy(effects.FilteredNoiseReverb(reverb_length=n)(click, bands))[0], 'FilteredNoiseReverb'
    )
    moving = np.exp(-((np.linspace(0, 8, 65) - np.linspace(1, 7, 50)[:, None]) ** 2)).astype(np.float32)[None]
    _spectrogram(axes[1, 0], npy(effects.FIRFilter(scale_fn=None)(noise, moving))[0], 'FIRFilter of noise')
    phase = (0.5 + 0.5 * np.sin(2 * np.pi * np.arange(n) / n))[None, :, None].astype(np.float32)
    flanger = effects.ModDelay(0.2, 2.0, gain_scale_fn=None, phase_scale_fn=None)
    _spectrogram(
        axes[1, 1], npy(flanger(noise, np.ones_like(phase), phase))[0], 'ModDelay of noise: a flanger'
    )
    figure.savefig(path, dpi=80)
    plt.close(figure)


def plot_mix(path: pathlib.Path) -> None:
    """Gains of `Mix`."""
    level = np.linspace(-6, 6, 100).astype(np.float32)[None, :, None]
    one, zero = np.ones_like(level), np.zeros_like(level)
    figure, axis = plt.subplots(figsize=(6, 3), constrained_layout=True)
    first, second = (npy(processors.Mix()(*pair, level))[0, :, 0] for pair in ((one, zero), (zero, one)))
    axis.plot(level[0, :, 0], first, label='gain of signal_one')
    axis.plot(level[0, :, 0], second, label='gain of signal_two')
    axis.plot(level[0, :, 0], first**2 + second**2, 'k:', label='power')
    axis.set(xlabel='nn_out_mix_level')
    axis.legend()
    figure.savefig(path, dpi=90)
    plt.close(figure)


def main(out_dir: pathlib.Path) -> None:
    """Draws all plots into a folder."""
    plots = {
        'core-scaling.png': plot_scaling,
        'core-resampling.png': plot_resampling,
        'core-phase.png': plot_phase,
        'core-filters.png': plot_filters,
        'synths.png': plot_synths,
        'effects.png': plot_effects,
        'processors-mix.png': plot_mix,
    }
    out_dir.mkdir(parents=True, exist_ok=True)
    for name, plot in plots.items():
        plot(out_dir / name)
        print(out_dir / name)


if __name__ == '__main__':
    main(pathlib.Path(__file__).parents[1] / 'images' / 'reference')
