"""Sets all parameters that follow from sample rate, frame rate and length, in one place."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import gin

from ddsp.errors import ConfigError
from ddsp.io.dataset import Dataset
from ddsp.training import config

_BASE_RATE = 16000  # the rate for which the FFT sizes of SpectralLoss are meant
_FFT_SIZES = (2048, 1024, 512, 256, 128, 64)
_ONLY_SAMPLE_RATE = (
    'MfccTimeDistributedRnnEncoder', 'MfccRnnEncoder', 'ModDelay', 'SpectralLoss', 'TWMLoss',
)  # fmt: skip


def configure_rates(
    sample_rate: int, frame_rate: int, example_secs: float, centered: bool = False
) -> dict[str, Any]:
    """Sets the parameters of all parts that depend on rates and length, in the configuration.

    Args:
      sample_rate: Sample rate in Hz.
      frame_rate: Feature frames per second.
      example_secs: Length of an example, s.
      centered: Whether the features have one frame more.

    Returns:
      The parameters that were set.

    Raises:
      ConfigError: The hop (sample_rate / frame_rate) or the number of frames or samples is not whole; the
        message holds the nearest legal values.
    """
    check_rates(sample_rate, frame_rate, example_secs)
    hop = sample_rate // frame_rate
    n_frames = round(frame_rate * example_secs)
    online = _preprocessor_name().endswith('OnlineF0PowerPreprocessor')
    # Online preprocessing keeps the extra frame, which a final Crop takes away again.
    n_samples = hop * (n_frames + (1 if online and centered else 0))
    values: dict[str, Any] = {'Crop.frame_size': hop} if online and centered else {}
    for name in ('F0LoudnessPreprocessor', 'F0PowerPreprocessor'):
        values |= {
            f'{name}.time_steps': n_frames,
            f'{name}.frame_rate': frame_rate,
            f'{name}.sample_rate': sample_rate,
        }
    values['OnlineF0PowerPreprocessor.frame_rate'] = frame_rate
    values['OnlineF0PowerPreprocessor.padding'] = 'center' if centered else 'same'
    for name in ('Harmonic', 'Sinusoidal', 'Wavetable'):
        values |= {f'{name}.n_samples': n_samples, f'{name}.sample_rate': sample_rate}
    values['FilteredNoise.n_samples'] = n_samples
    for name in _ONLY_SAMPLE_RATE:
        values[f'{name}.sample_rate'] = sample_rate
    for name in ('TFRecordProvider', 'LegacyTFRecordProvider'):
        values |= {
            f'{name}.sample_rate': sample_rate,
            f'{name}.frame_rate': frame_rate,
            f'{name}.example_secs': example_secs,
            f'{name}.centered': centered,
        }
    if sample_rate >= 2 * _BASE_RATE and not config.is_bound('SpectralLoss.fft_sizes'):
        factor = round(sample_rate / _BASE_RATE)
        values['SpectralLoss.fft_sizes'] = tuple(factor * size for size in _FFT_SIZES)
    for name, value in values.items():
        config.bind(name, value)
    return values


def configure_for_dataset(dataset: Dataset) -> dict[str, Any]:
    """`configure_rates` with the rates of a prepared dataset, and its length or that of the crops of it.

    Raises:
      ConfigError: The configuration names rates (`sample_rate`, `frame_rate`, `example_secs` or `centered` as
        macros) that are not those of the dataset, or `DatasetProvider.crop_secs` does not fit.
    """
    _check_macros(dataset)
    secs = dataset.example_secs
    if config.is_bound('DatasetProvider.crop_secs'):
        secs = gin.query_parameter('DatasetProvider.crop_secs') or secs
    if secs > dataset.example_secs:
        raise ConfigError(
            f'DatasetProvider.crop_secs is {secs:g}, but the examples of {dataset.address} have '
            f'{dataset.example_secs:g} s: at most this'
        )
    return configure_rates(dataset.sample_rate, dataset.frame_rate, secs, dataset.centered)


def _check_macros(dataset: Dataset) -> None:
    """Refuses a dataset whose preparation differs from the configuration."""
    wrong, options = [], []
    for name in ('sample_rate', 'frame_rate', 'example_secs', 'centered'):
        try:
            wanted = gin.query_parameter(f'%{name}')
        except ValueError:
            continue
        found = getattr(dataset, name)
        if wanted != found:
            wrong.append(f'{name} = {wanted}, but the dataset {dataset.address} has {found}')
            option = f'--{name.replace("_", "-")} {wanted}'
            options.append({True: '--centered', False: '--no-centered'}.get(wanted, option))
    if wrong:
        raise ConfigError(
            f'the configuration has {"; ".join(wrong)}. Prepare it with {" ".join(options)}, or choose a '
            'configuration for what it has'
        )


def check_rates(sample_rate: int, frame_rate: int, example_secs: float) -> None:
    """Raises a ConfigError, with the nearest legal values, unless hop and frames are whole numbers.

    Example:
      >>> check_rates(sample_rate=16000, frame_rate=250, example_secs=4)
      >>> check_rates(sample_rate=16000, frame_rate=250, example_secs=0)
      Traceback (most recent call last):
      ddsp.errors.ConfigError: example_secs is 0; it must be above 0
    """
    for name, value in (
        ('sample_rate', sample_rate),
        ('frame_rate', frame_rate),
        ('example_secs', example_secs),
    ):
        if not value > 0:
            raise ConfigError(f'{name} is {value}; it must be above 0')
    if sample_rate % frame_rate:
        legal = [r for r in range(1, int(sample_rate) + 1) if sample_rate % r == 0] or [1]
        around = [r for r in legal if r < frame_rate][-1:] + [r for r in legal if r > frame_rate][:1]
        raise ConfigError(
            f'frame_rate {frame_rate} does not divide sample_rate {sample_rate}; nearest are '
            f'{" and ".join(map(str, around))} frames per second'
        )
    frames = Fraction(str(example_secs)) * frame_rate
    if frames.denominator != 1:
        nearest = max(round(frames), 1) / frame_rate
        raise ConfigError(
            f'example_secs {example_secs} is {float(frames):g} frames at frame_rate {frame_rate}; it must '
            f'be a whole number: the nearest length is {nearest:g} s'
        )


def _preprocessor_name() -> str:
    try:
        bound = gin.query_parameter('Autoencoder.preprocessor')
    except ValueError:
        return ''
    return getattr(bound, 'selector', '')
