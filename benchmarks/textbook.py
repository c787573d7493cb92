"""The solo instrument as the formulas stand in the paper, in plain JAX, for `benchmarks.jax_step`.

No custom gradients, no blocks: layers and a GRU by `lax.scan`, sines as an array of [batch, samples,
harmonics], frames of spectrograms by indexing, everything differentiated by JAX.
"""

from __future__ import annotations

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

SAMPLE_RATE, N_SAMPLES, N_FRAMES, N_HARMONICS, N_BANDS = 16000, 64000, 1000, 60, 65
SIZES = (2048, 1024, 512, 256, 128, 64)
HOP = N_SAMPLES // N_FRAMES


def init(channels: int, taps: int) -> dict[str, Any]:
    """Weights of a decoder with three layers a stack and a GRU, and of a reverb."""
    rng = np.random.default_rng(0)

    def dense(n_in: int, n_out: int) -> list:
        return [jnp.asarray(rng.normal(0, n_in**-0.5, (n_in, n_out)), jnp.float32), jnp.zeros(n_out)]

    def stack(n_in: int) -> list:
        sizes = [n_in, channels, channels, channels]
        return [[*dense(a, b), jnp.ones(b), jnp.zeros(b)] for a, b in itertools.pairwise(sizes)]

    return {
        'loudness': stack(1), 'pitch': stack(1), 'output': stack(3 * channels),
        'gru': [*dense(2 * channels, 3 * channels), *dense(channels, 3 * channels)],
        'linear': dense(channels, 1 + N_HARMONICS + N_BANDS), 'room': jnp.zeros(taps),
    }  # fmt: skip


def fc(x: Any, layers: list) -> Any:
    """Linear layers with normalisation and leaky ReLU."""
    for kernel, bias, scale, shift in layers:
        x = x @ kernel + bias
        x = (x - x.mean(-1, keepdims=True)) / jnp.sqrt(x.var(-1, keepdims=True) + 1e-3) * scale + shift
        x = jax.nn.leaky_relu(x, 0.2)
    return x


def gru(x: Any, weights: list) -> Any:
    """GRU over [batch, time, channels]."""
    kernel, bias, recurrent, recurrent_bias = weights

    def step(h: Any, x: Any) -> tuple[Any, Any]:
        az, ar, an = jnp.split(x @ kernel + bias, 3, -1)
        iz, ir, i_n = jnp.split(h @ recurrent + recurrent_bias, 3, -1)
        z = jax.nn.sigmoid(az + iz)
        h = z * h + (1 - z) * jnp.tanh(an + jax.nn.sigmoid(ar + ir) * i_n)
        return h, h

    start = jnp.zeros((x.shape[0], recurrent.shape[0]))
    return jax.lax.scan(step, start, x.transpose(1, 0, 2))[1].transpose(1, 0, 2)


def exp_sigmoid(x: Any) -> Any:
    """2 sigmoid(x)^ln(10) + 1e-7."""
    return 2.0 * jax.nn.sigmoid(x) ** np.log(10.0) + 1e-7


def upsample(x: Any) -> Any:
    """Frames to samples, linearly."""
    following = jnp.concatenate([x[:, 1:], x[:, -1:]], axis=1)
    share = (jnp.arange(HOP) / HOP)[:, None]
    samples = x[:, :, None] * (1 - share) + following[:, :, None] * share
    return samples.reshape(x.shape[0], N_SAMPLES, x.shape[2])


def harmonics(amplitude: Any, distribution: Any, f0_hz: Any) -> Any:
    """Sum of sines with summed phases."""
    numbers = jnp.arange(1, N_HARMONICS + 1)
    distribution = jnp.where(f0_hz * numbers < SAMPLE_RATE / 2, distribution, 0.0)
    distribution = distribution / distribution.sum(-1, keepdims=True)
    phase = jnp.cumsum(2 * np.pi * upsample(f0_hz) / SAMPLE_RATE, axis=1) * numbers
    return (upsample(amplitude * distribution) * jnp.sin(phase)).sum(-1)


def convolve(x: Any, h: Any) -> Any:
    """Full convolution over the last axis."""
    n = x.shape[-1] + h.shape[-1] - 1
    return jnp.fft.irfft(jnp.fft.rfft(x, n) * jnp.fft.rfft(h, n), n)


def noise(magnitudes: Any, key: Any) -> Any:
    """White noise through the filter of each frame."""
    batch = magnitudes.shape[0]
    ir = jnp.roll(jnp.fft.irfft(magnitudes), N_BANDS - 1, -1) * np.hanning(2 * (N_BANDS - 1))
    frames = jax.random.uniform(key, (batch, N_FRAMES, HOP), minval=-1.0)
    wet = convolve(frames, ir)
    positions = np.arange(N_FRAMES)[:, None] * HOP + np.arange(wet.shape[-1])
    return jnp.zeros((batch, positions.max() + 1)).at[:, positions].add(wet)[:, :N_SAMPLES]


def spectral_loss(target: Any, audio: Any) -> Any:
    """L1 of magnitudes and of their logarithms at six sizes."""
    total = 0.0
    for size in SIZES:
        starts = np.arange(0, N_SAMPLES - size + 1, size // 4)
        frames = starts[:, None] + np.arange(size)
        a, b = (jnp.abs(jnp.fft.rfft(x[:, frames] * np.hanning(size))) for x in (target, audio))
        total += jnp.abs(a - b).mean() + jnp.abs(jnp.log(a + 1e-5) - jnp.log(b + 1e-5)).mean()
    return total


def loss(weights: dict, batch: dict, key: Any) -> Any:
    """Features to audio to loss."""
    pitch = (12 * jnp.log2(batch['f0_hz'] / 440.0) + 69) / 127
    stacks = [fc(batch['loudness_db'] / 80 + 1, weights['loudness']), fc(pitch, weights['pitch'])]
    hidden = gru(jnp.concatenate(stacks, -1), weights['gru'])
    x = fc(jnp.concatenate([*stacks, hidden], -1), weights['output'])
    controls = x @ weights['linear'][0] + weights['linear'][1]
    amplitude, distribution = exp_sigmoid(controls[..., :1]), exp_sigmoid(controls[..., 1 : 1 + N_HARMONICS])
    dry = harmonics(amplitude, distribution, batch['f0_hz'])
    dry += noise(exp_sigmoid(controls[..., 1 + N_HARMONICS :] - 5.0), key)
    wet = dry + convolve(dry, weights['room'])[:, :N_SAMPLES]
    return spectral_loss(batch['audio'], wet)


def step(state: tuple, batch: dict, key: Any) -> tuple[tuple, Any]:
    """One step of Adam with gradients clipped to norm 3; the state is weights and both moments."""
    value, gradient = jax.value_and_grad(loss)(state[0], batch, key)
    norm = jnp.sqrt(sum(jnp.sum(g**2) for g in jax.tree.leaves(gradient)))
    gradient = jax.tree.map(lambda g: g * 3.0 / jnp.maximum(norm, 3.0), gradient)
    m = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, state[1], gradient)
    v = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g**2, state[2], gradient)
    weights = jax.tree.map(lambda w, m, v: w - 3e-4 * m / (jnp.sqrt(v) + 1e-7), state[0], m, v)
    return (weights, m, v), value
