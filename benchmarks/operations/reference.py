"""What ddsp 3.7.0 costs, and what was set as the goal.

`RECORDED` is what the same operations took under ddsp 3.7.0 with TensorFlow 2.11 and Python 3.10 on two CPU
cores, compiled as graphs (`tf.function`), 4 s of audio at 16 kHz: CPU seconds (user and system) of a call,
and peak memory over the import in MiB. Batch 16, but for wavetables, where 16 examples need more than 11 GiB:
batch 4. With `--upstream-python` they are measured again on the spot, and these are not used.
"""

from __future__ import annotations

from typing import NamedTuple


class Cost(NamedTuple):
    """One measurement. `cpu_s` None: it ran out of memory."""

    batch: int
    cpu_s: float | None
    peak_mb: float | None


class Goal(NamedTuple):
    """Shares of upstream's cost that are to be reached at most; or plain limits in MiB and seconds."""

    time: float | None = None
    memory: float | None = None
    max_mb: float | None = None
    max_s: float | None = None


RECORDED = {
    'harmonic_forward': Cost(16, 2.2023, 4146.7),
    'harmonic_gradients': Cost(16, 3.9304, 4211.8),
    'harmonic_angular_forward': Cost(16, 4.5176, 4234.1),
    'noise_gradients': Cost(16, 0.3230, 351.5),
    'reverb_gradients': Cost(16, 0.3592, 331.5),
    'mod_delay_forward': Cost(16, 4.5061, 5229.4),
    'mod_delay_gradients': Cost(4, 2.4897, 3612.9),
    'wavetable_forward': Cost(4, 1.3975, 6379.1),
    'wavetable_gradients': Cost(4, 3.1975, 6516.6),
    'spectral_loss_gradients': Cost(16, 1.0457, 858.4),
    'loudness_60s': Cost(1, 0.0826, 226.8),
    'loudness_60s_numpy': Cost(1, 0.0683, 271.9),
    'train_step': Cost(16, 12.1412, 5512.4),
    'train_step_bfloat16': Cost(16, 12.1412, 5512.4),  # 3.7.0 in float32
    'import': Cost(0, 2.7, None),
}

GOALS = {
    'harmonic_forward': Goal(1 / 10, 1 / 15),
    'harmonic_gradients': Goal(1 / 10, 1 / 15),
    'harmonic_angular_forward': Goal(1 / 15, 1 / 15),
    'noise_gradients': Goal(1 / 2, 1 / 2),
    'reverb_gradients': Goal(1 / 2, 1 / 2),
    'mod_delay_forward': Goal(1 / 50, 1 / 20),
    'mod_delay_gradients': Goal(max_mb=400),
    'wavetable_forward': Goal(1 / 30, max_mb=400),
    'wavetable_gradients': Goal(1 / 30, max_mb=400),
    'spectral_loss_gradients': Goal(1 / 2.5, 1 / 2),
    'train_step': Goal(memory=1 / 5, max_s=6),
    'train_step_bfloat16': Goal(memory=1 / 5, max_s=4),
    'import': Goal(max_s=0.5),
}
