"""Harmonic and sinusoidal synthesizers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gin
import keras

from ddsp import core
from ddsp.core import Tensor
from ddsp.dags import TensorDict
from ddsp.processors import Processor


@gin.register(module='ddsp.synths')
@keras.saving.register_keras_serializable('ddsp')
class Harmonic(Processor):
    """Sum of the harmonics of one fundamental.

    Args:
      n_samples: Samples of the result.
      sample_rate: Sample rate in Hz.
      scale_fn: Makes amplitudes and distribution positive; None takes them as they are.
      normalize_below_nyquist: Leave harmonics above Nyquist out before the distribution is normalised.
      amp_resample_method: How amplitudes are interpolated: see `ddsp.core.resample`.
      use_angular_cumsum: Kept for upstream's configurations; the phase is exact either way.
      name: Name of the layer.

    >>> import numpy as np
    >>> harmonic = Harmonic(n_samples=640)
    >>> tuple(harmonic(np.ones([1, 10, 1]), np.ones([1, 10, 60]), np.full([1, 10, 1], 220.0)).shape)
    (1, 640)
    """

    initial_phase: Any = None  # [batch, 1, 1], radians, where this is a part of a longer piece

    def __init__(
        self,
        n_samples: int = 64000,
        sample_rate: int = 16000,
        scale_fn: Callable[[Tensor], Tensor] | None = core.exp_sigmoid,
        normalize_below_nyquist: bool = True,
        amp_resample_method: str = 'window',
        use_angular_cumsum: bool = False,
        name: str = 'harmonic',
    ) -> None:
        super().__init__(name=name)
        self.n_samples = n_samples
        self.sample_rate = sample_rate
        self.scale_fn = scale_fn
        self.normalize_below_nyquist = normalize_below_nyquist
        self.amp_resample_method = amp_resample_method
        self.use_angular_cumsum = use_angular_cumsum

    def get_controls(
        self,
        amplitudes: Tensor,
        harmonic_distribution: Tensor,
        f0_hz: Tensor,
        harmonic_shifts: Tensor | None = None,
    ) -> TensorDict:
        """Network outputs to controls.

        Args:
          amplitudes: [batch, n_frames, 1], any number.
          harmonic_distribution: [batch, n_frames, n_harmonics], any number.
          f0_hz: Fundamental [batch, n_frames, 1], Hz.
          harmonic_shifts: Inharmonicity [batch, n_frames, n_harmonics]: harmonic h sounds at
            `h * f0_hz * (1 + shift)`.

        Returns:
          The controls by name: positive amplitudes, and a distribution that sums to 1.
        """
        amplitudes, f0_hz = core.tf_float32(amplitudes), core.tf_float32(f0_hz)
        harmonic_distribution = core.tf_float32(harmonic_distribution)
        if self.scale_fn is not None:
            amplitudes = self.scale_fn(amplitudes)
            harmonic_distribution = self.scale_fn(harmonic_distribution)
        harmonic_distribution = core.normalize_harmonics(
            harmonic_distribution, f0_hz, self.sample_rate if self.normalize_below_nyquist else None
        )
        controls = {'amplitudes': amplitudes, 'harmonic_distribution': harmonic_distribution, 'f0_hz': f0_hz}
        if harmonic_shifts is not None:
            controls['harmonic_shifts'] = core.tf_float32(harmonic_shifts)
        return controls

    def get_signal(
        self,
        amplitudes: Tensor,
        harmonic_distribution: Tensor,
        f0_hz: Tensor,
        harmonic_shifts: Tensor | None = None,
    ) -> Tensor:
        """Controls to audio [batch, n_samples]."""
        return core.harmonic_synthesis(
            frequencies=f0_hz,
            amplitudes=amplitudes,
            harmonic_shifts=harmonic_shifts,
            harmonic_distribution=harmonic_distribution,
            n_samples=self.n_samples,
            sample_rate=self.sample_rate,
            amp_resample_method=self.amp_resample_method,
            use_angular_cumsum=self.use_angular_cumsum,
            initial_phase=self.initial_phase,
        )


@gin.register(module='ddsp.synths')
@keras.saving.register_keras_serializable('ddsp')
class Sinusoidal(Processor):
    """Sum of sinusoids with free frequencies.

    Args:
      n_samples: Samples of the result.
      sample_rate: Sample rate in Hz.
      amp_scale_fn: Makes amplitudes positive; None takes them as they are.
      amp_resample_method: How amplitudes are interpolated: see `ddsp.core.resample`.
      freq_scale_fn: Network outputs to Hz; None takes frequencies in Hz.
      name: Name of the layer.
    """

    initial_phase: Any = None  # [batch, 1, n_sinusoids], radians, where this is a part of a longer piece

    def __init__(
        self,
        n_samples: int = 64000,
        sample_rate: int = 16000,
        amp_scale_fn: Callable[[Tensor], Tensor] | None = core.exp_sigmoid,
        amp_resample_method: str = 'window',
        freq_scale_fn: Callable[[Tensor], Tensor] | None = core.frequencies_sigmoid,
        name: str = 'sinusoidal',
    ) -> None:
        super().__init__(name=name)
        self.n_samples = n_samples
        self.sample_rate = sample_rate
        self.amp_scale_fn = amp_scale_fn
        self.amp_resample_method = amp_resample_method
        self.freq_scale_fn = freq_scale_fn

    def get_controls(self, amplitudes: Tensor, frequencies: Tensor) -> TensorDict:
        """Network outputs to controls.

        Args:
          amplitudes: [batch, n_frames, n_sinusoids], any number.
          frequencies: [batch, n_frames, n_sinusoids * depth], what `freq_scale_fn` takes.

        Returns:
          `amplitudes` and `frequencies` (Hz), both [batch, n_frames, n_sinusoids].
        """
        amplitudes, frequencies = core.tf_float32(amplitudes), core.tf_float32(frequencies)
        if self.amp_scale_fn is not None:
            amplitudes = self.amp_scale_fn(amplitudes)
        if self.freq_scale_fn is not None:
            frequencies = self.freq_scale_fn(frequencies)
            amplitudes = core.remove_above_nyquist(frequencies, amplitudes, self.sample_rate)
        return {'amplitudes': amplitudes, 'frequencies': frequencies}

    def get_signal(self, amplitudes: Tensor, frequencies: Tensor) -> Tensor:
        """Controls to audio [batch, n_samples]."""
        return core.sinusoidal_synthesis(
            frequencies,
            amplitudes,
            self.n_samples,
            self.sample_rate,
            self.amp_resample_method,
            self.initial_phase,
        )
