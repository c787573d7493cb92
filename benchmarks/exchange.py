"""`python -m benchmarks.exchange`: what a step of training on many devices moves, calculated from the models.

Counts the weights of each configuration, then the bytes of gradients and of examples, the time of an exchange
and the efficiency for the clusters below. Nothing is measured; docs/benchmarks/scaling.md says
what is assumed.
"""

from __future__ import annotations

import dataclasses
import os
import sys

PRESETS = (
    'presets/laptop.gin',
    'papers/iclr2020/tiny_instrument.gin',
    'models/solo_instrument.gin',
    'models/ae.gin',
)
BATCH = 16  # examples per device
SECS, SAMPLE_RATE, FRAME_RATE = 4, 16000, 250
FEATURES = ('f0_hz', 'f0_confidence', 'loudness_db')
EXAMPLE_BYTES = 4 * SECS * (SAMPLE_RATE + len(FEATURES) * FRAME_RATE)
STEP_SECS = (0.050, 0.020)


@dataclasses.dataclass(frozen=True)
class Cluster:
    """Devices that exchange gradients: how many, in how many machines, over what."""

    name: str
    devices: int
    machines: int
    bandwidth: float  # bytes a second that a member of the ring sends, and receives
    latency: float  # seconds of one of the sequential transfers
    transfers: int  # one after the other

    def exchange_secs(self, n_bytes: float) -> float:
        """Time of one all-reduce of `n_bytes`."""
        return moved(n_bytes, self.devices) / self.bandwidth + self.latency * self.transfers

    def efficiency(self, n_bytes: float, step_secs: float) -> float:
        """Share of its time that a device computes, when nothing overlaps."""
        return step_secs / (step_secs + self.exchange_secs(n_bytes))

    def read_bytes(self) -> int:
        """Bytes of examples that one machine reads a step: the whole batch, of which it takes its part."""
        return BATCH * self.devices * EXAMPLE_BYTES


# Half of what the makers name for one direction, and microseconds per transfer as the page says.
CLUSTERS = (
    Cluster('8 H200 (NVLink)', 8, 1, 225e9, 5e-6, 2 * 7),
    Cluster('8 GPUs on PCIe 5', 8, 1, 32e9, 10e-6, 2 * 7),
    Cluster('8 machines of one GPU, 100 Gbit/s', 8, 8, 6.25e9, 30e-6, 2 * 7),
    Cluster('256 TPU v5e (ICI, 16 x 16)', 256, 32, 100e9, 2e-6, 2 * 30),
    Cluster('256 TPU v6e (ICI, 16 x 16)', 256, 32, 200e9, 2e-6, 2 * 30),
)


def moved(n_bytes: float, devices: int) -> float:
    """Bytes that each device sends in a ring all-reduce: 2 (N - 1) / N times the array."""
    return 2 * (devices - 1) / devices * n_bytes


def count_weights(preset: str) -> int:
    """Trainable weights of a configuration."""
    import gin
    import numpy as np
    import tensorflow as tf

    from ddsp.training import config, models

    gin.clear_config()
    config.parse_config([preset], [])
    model = models.get_model()
    frames = {name: tf.fill((1, SECS * FRAME_RATE), 200.0) for name in FEATURES}
    model({'audio': tf.zeros((1, SECS * SAMPLE_RATE)), **frames}, training=True)
    return sum(int(np.prod(v.shape)) for v in model.trainable_variables)


def main() -> int:
    """Prints the tables of the page."""
    os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')
    weights = {preset: count_weights(preset) for preset in PRESETS}
    print('| configuration | weights | gradients, MB | 8 devices, MB sent each | 256 devices | as bfloat16 |')
    for preset, n in weights.items():
        sent = [moved(4 * n, devices) / 1e6 for devices in (8, 256)]
        print(
            f'| `{preset}` | {n:,} | {4 * n / 1e6:.2f} | {sent[0]:.1f} | {sent[1]:.1f} | {sent[1] / 2:.1f} |'
        )
    n_bytes = 4 * weights['models/solo_instrument.gin']
    print(
        '\n| devices | exchange, ms | efficiency at 50 ms | at 20 ms | read per machine, MB | GB/s at 20 ms |'
    )
    for each in CLUSTERS:
        shares = ' | '.join(f'{100 * each.efficiency(n_bytes, secs):.1f} %' for secs in STEP_SECS)
        print(
            f'| {each.name} | {1e3 * each.exchange_secs(n_bytes):.2f} | {shares} | '
            f'{each.read_bytes() / 1e6:.0f} | {each.read_bytes() / STEP_SECS[1] / 1e9:.1f} |'
        )
    return 0


if __name__ == '__main__':
    sys.exit(main())
