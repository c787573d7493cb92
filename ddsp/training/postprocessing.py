"""Notes in a recording, and matching the distribution of one recording's loudness to another's."""

from __future__ import annotations

import os
import pathlib
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.stats

from ddsp import spectral_ops
from ddsp.analysis.notes import UPSTREAM_THRESHOLD, detect_notes, smooth
from ddsp.errors import DDSPError
from ddsp.f0 import voiced_threshold
from ddsp.io.files import write_bytes
from ddsp.training.metrics import hz_to_midi

__all__ = [
    'QuantileTransformer',
    'compute_dataset_statistics',
    'detect_notes',
    'fit_quantile_transform',
    'save_dataset_statistics',
    'smooth',
]

_TRIMMED_FRAMES = 20  # at the end of an example, where upstream's pitch was unsure
_CLIP = 1e-7  # quantiles 0 and 1 of a normal distribution are infinite


class QuantileTransformer:
    """Maps values to their quantiles and back, as scikit-learn's class of this name.

    Args:
      n_quantiles: Landmarks of the distribution.
      output_distribution: `'uniform'` on [0, 1], or `'normal'`.
      subsample: Largest number of values that the landmarks are found from.
    """

    def __init__(
        self, n_quantiles: int = 1000, output_distribution: str = 'uniform', subsample: int = int(1e5)
    ) -> None:
        if output_distribution not in ('uniform', 'normal'):
            raise ValueError(
                f"output_distribution is {output_distribution!r}; it must be 'uniform' or 'normal'"
            )
        self.n_quantiles = n_quantiles
        self.output_distribution = output_distribution
        self.subsample = subsample

    def fit(self, x: Any) -> QuantileTransformer:
        """Learns the distribution of each column of `x` `[n, d]`."""
        x = _columns(x)
        if len(x) > self.subsample:
            x = np.random.default_rng(0).permutation(x)[: int(self.subsample)]
        self.n_quantiles_ = max(1, min(self.n_quantiles, len(x)))
        self.references_ = np.linspace(0, 1, self.n_quantiles_)
        self.quantiles_ = np.maximum.accumulate(np.quantile(x, self.references_, axis=0))
        return self

    def transform(self, x: Any) -> np.ndarray:
        """Values `[n, d]` to quantiles `[n, d]`."""
        return np.stack(
            [self._forward(c, q) for c, q in zip(_columns(x).T, self.quantiles_.T, strict=True)], axis=1
        )

    def inverse_transform(self, x: Any) -> np.ndarray:
        """Quantiles `[n, d]` to values `[n, d]`."""
        x = _columns(x)
        if self.output_distribution == 'normal':
            x = scipy.stats.norm.cdf(x)
        pairs = zip(x.T, self.quantiles_.T, strict=True)
        return np.stack([np.interp(c, self.references_, q) for c, q in pairs], axis=1)

    def fit_transform(self, x: Any) -> np.ndarray:
        """`fit(x).transform(x)`."""
        return self.fit(x).transform(x)

    def _forward(self, column: np.ndarray, quantiles: np.ndarray) -> np.ndarray:
        # From both sides, so that repeated values get the middle of their quantiles.
        up = np.interp(column, quantiles, self.references_)
        down = np.interp(-column, -quantiles[::-1], -self.references_[::-1])
        result = 0.5 * (up - down)
        result = np.where(column <= quantiles[0], 0.0, np.where(column >= quantiles[-1], 1.0, result))
        if self.output_distribution == 'normal':
            low, high = scipy.stats.norm.ppf([_CLIP, 1 - _CLIP])
            with np.errstate(divide='ignore'):
                result = np.clip(scipy.stats.norm.ppf(result), low, high)
        return result


def fit_quantile_transform(
    loudness_db: Any, mask_on: Any, inv_quantile: QuantileTransformer | None = None
) -> Any:
    """Learns the loudness of the notes, or matches it to that of another recording.

    Args:
      loudness_db: `[batch, n_frames]` or `[n_frames]`, dB.
      mask_on: Frames that belong to notes, the same shape.
      inv_quantile: Quantile function of the recording whose loudness is wanted.

    Returns:
      The transformer of this recording; with `inv_quantile` also the matched loudness of all frames, of the
      shape of `loudness_db`: frames outside of notes are shifted by the mean shift of the notes.

    Raises:
      DDSPError: No frame belongs to a note.
    """
    loudness, mask = np.asarray(loudness_db, np.float32), np.asarray(mask_on, bool)
    if not mask.any():
        raise DDSPError('mask_on has no frame that belongs to a note')
    notes = loudness[mask][:, None]
    transformer = QuantileTransformer()
    transformer.fit(notes)
    if inv_quantile is None:
        return transformer
    matched_notes = inv_quantile.inverse_transform(transformer.transform(notes))[:, 0]
    matched = loudness + (matched_notes.mean() - notes.mean())
    matched[mask] = matched_notes
    return transformer, matched


def compute_dataset_statistics(
    data_provider: Any, batch_size: int = 1, power_frame_size: int = 1024, power_frame_rate: int | None = None
) -> dict[str, Any]:
    """Pitch, power and loudness of the notes of a dataset.

    Args:
      data_provider: Its examples have `audio`, `f0_hz`, `f0_confidence` and `loudness_db`.
      batch_size: Examples read at a time.
      power_frame_size: Samples over which power is averaged.
      power_frame_rate: By default that of the provider, which the note mask needs.

    Returns:
      For `pitch` (MIDI), `power` and `loudness` (dB), each also with `_note` (notes only): `mean_`, `max_`,
      `min_`, `mean_max_`, `mean_min_` (means over examples) and `std_`; and `quantile_transform`, of the
      notes' loudness.

    Raises:
      DDSPError: The dataset is empty.
    """
    rows: dict[str, list[np.ndarray]] = {'pitch': [], 'power': [], 'loudness': [], 'mask': []}
    frame_rate = power_frame_rate or data_provider.frame_rate
    dataset = getattr(data_provider, 'dataset', None)  # records of upstream do not say what heard their pitch
    sure = voiced_threshold(dataset.manifest['f0_estimator']) if dataset else UPSTREAM_THRESHOLD
    for batch in data_provider.get_batch(batch_size, shuffle=False, repeats=1, drop_remainder=False):
        loudness = np.asarray(batch['loudness_db'])
        power = np.asarray(
            spectral_ops.compute_power(
                batch['audio'], data_provider.sample_rate, frame_rate=frame_rate, frame_size=power_frame_size
            )
        )
        for i in range(len(loudness)):
            n = loudness.shape[1] - _TRIMMED_FRAMES
            mask, _ = detect_notes(loudness[i], batch['f0_confidence'][i], f0_confidence_threshold=sure)
            mask = mask[:n] if mask[:n].any() else np.ones(n, bool)
            times = np.linspace(0, power.shape[1] - 1, loudness.shape[1])
            rows['power'].append(np.interp(times, np.arange(power.shape[1]), power[i])[:n])
            rows['pitch'].append(hz_to_midi(batch['f0_hz'][i])[:n])
            rows['loudness'].append(loudness[i][:n])
            rows['mask'].append(mask)
    if not rows['mask']:
        raise DDSPError('the dataset is empty: there is nothing to compute statistics of')
    statistics: dict[str, Any] = {}
    for name in ('pitch', 'power', 'loudness'):
        statistics |= _summaries(name, rows[name])
        statistics |= _summaries(
            f'{name}_note', [x[m] for x, m in zip(rows[name], rows['mask'], strict=True)]
        )
    statistics['quantile_transform'] = fit_quantile_transform(
        np.concatenate(rows['loudness']), np.concatenate(rows['mask'])
    )
    return statistics


def save_dataset_statistics(
    data_provider: Any, file_path: str | os.PathLike[str], batch_size: int = 1, power_frame_size: int = 1024
) -> dict[str, Any]:
    """Writes `compute_dataset_statistics` as ddsp 3.7.0 does: a pickle that it reads as well.

    Args:
      data_provider: As in `compute_dataset_statistics`.
      file_path: Where to write.
      batch_size: Examples read at a time.
      power_frame_size: Samples over which power is averaged.

    Returns:
      The statistics.
    """
    statistics = compute_dataset_statistics(data_provider, batch_size, power_frame_size)
    # Protocol 2 and numpy's old module name, which numpy 1 and 2 know.
    content = pickle.dumps(statistics, protocol=2).replace(b'numpy._core.', b'numpy.core.')
    path = pathlib.Path(file_path)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, content)
    return statistics


def _summaries(name: str, examples: list[np.ndarray]) -> dict[str, float]:
    values = np.concatenate(examples)
    functions: dict[str, Callable[[], Any]] = {
        'mean_': values.mean,
        'max_': values.max,
        'min_': values.min,
        'mean_max_': lambda: np.mean([x.max() for x in examples]),
        'mean_min_': lambda: np.mean([x.min() for x in examples]),
        'std_': values.std,
    }
    return {key + name: float(function()) for key, function in functions.items()}


def _columns(x: Any) -> np.ndarray:
    x = np.asarray(x, np.float64)
    return x[:, None] if x.ndim == 1 else x
