"""Evaluation as the DDSP paper does it: pitch and loudness are taken from the generated audio."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import soxr

from ddsp import losses
from ddsp.analysis.loudness import loudness_db
from ddsp.errors import ConfigError
from ddsp.f0 import estimate_f0, voiced_threshold
from ddsp.inference.bundle import Bundle
from ddsp.io import files
from ddsp.io.dataset import PADDED_LOUDNESS_DB, Dataset, DatasetError, open_dataset
from ddsp.io.progress import Progress
from ddsp.training import data, metrics

_BATCH = 4
_RATE = 16000


@dataclasses.dataclass
class EvaluationReport:
    """How well a model keeps what it was given.

    Attributes:
      totals: `spectral_loss`, `loudness_l1_db`, `f0_l1_midi` (outliers left out), `f0_median_cents` (median
        over all voiced frames), `f0_outlier_ratio`, `examples`, `unpitched_examples` (their pitch is not
        measured).
      rows: One for each example: `example` (its number in the split), `recording` (which it was cut from,
        where the dataset tells) and the same measures.
      split: Name of the split.
      estimator: Pitch estimator.
    """

    totals: dict[str, float]
    rows: list[dict[str, Any]]
    split: str
    estimator: str

    def write(self, path: str | os.PathLike[str]) -> None:
        """Writes it as JSON."""
        files.write_json(path, dataclasses.asdict(self))


def evaluate(
    bundle: Bundle,
    dataset: Dataset | str | os.PathLike[str],
    split: str = 'test',
    *,
    estimator: str = 'auto',
    limit: int | None = None,
    progress: Progress | None = None,
    seed: int = 0,
) -> EvaluationReport:
    """Resynthesises the examples of a split and compares.

    Frames that pad an example count nowhere; pitch counts where the reference is voiced.

    Args:
      bundle: The model.
      dataset: A dataset with the rates of the model.
      split: Name of the split.
      estimator: Pitch estimator for the generated audio; `'auto'`: the one that the dataset was prepared
        with.
      limit: Number of examples to take; None: all.
      progress: `progress(done, total, text)`.
      seed: Random seed of the noise.

    Returns:
      Totals and a row for each example.

    Raises:
      ConfigError: The rates differ.
      DatasetError: There is no such split, it is empty, or it cannot be read.
    """
    dataset = dataset if isinstance(dataset, Dataset) else open_dataset(dataset)
    for name in ('sample_rate', 'frame_rate', 'centered'):
        if getattr(dataset, name) != bundle.metadata[name]:
            raise ConfigError(
                f'{dataset.path} has {name} {getattr(dataset, name)}, the model {bundle.path} '
                f'{bundle.metadata[name]}'
            )
    labels = dataset.manifest['f0_estimator']
    estimator = labels if estimator == 'auto' else estimator
    # Whole examples, also within a training that crops them.
    provider = data.DatasetProvider(dataset, split, crop_secs=None, gain_db=None)
    total = min(dataset.splits[split], limit or dataset.splits[split])
    measure = _Measure(bundle, estimator, labels, dataset.manifest.get('alignment', 'center'))
    named = _recordings(dataset, split)
    recordings = [named[number] for number in provider.read_order()]
    rows: list[dict[str, Any]] = []
    cents: list[np.ndarray] = []
    batches = provider.get_batch(_BATCH, shuffle=False, repeats=1, drop_remainder=False)
    for batch in data.iterate(provider, batches):
        batch = {key: value.numpy()[: total - len(rows)] for key, value in batch.items()}
        generated = bundle.synthesizer(batch, seed=seed)['audio']
        for i, audio in enumerate(generated):
            row, errors = measure({key: value[i] for key, value in batch.items()}, audio)
            rows.append({'example': len(rows), **recordings[len(rows)], **row})
            cents.append(errors)
        if progress:
            progress(len(rows), total, f'evaluating {split}')
        if len(rows) >= total:
            break
    if not rows:
        raise DatasetError(f'the split {split!r} of {dataset.path} is empty')
    return EvaluationReport(_totals(rows, cents), rows, split, estimator)


class _Measure:
    """Compares one example with what was generated for it."""

    def __init__(self, bundle: Bundle, estimator: str, labels: str, alignment: str) -> None:
        self.sample_rate = bundle.sample_rate
        self.frame_rate = bundle.frame_rate
        self.centered = bundle.metadata['centered']
        self.alignment = alignment
        self.estimator = estimator
        self.threshold = voiced_threshold(labels)  # whatever measures the generated audio
        found = [loss for loss in bundle.model.loss_objs if isinstance(loss, losses.SpectralLoss)]
        self.loss = found[0] if found else losses.SpectralLoss(mag_weight=1.0, logmag_weight=1.0)

    def __call__(
        self, example: Mapping[str, np.ndarray], audio: np.ndarray
    ) -> tuple[dict[str, Any], np.ndarray]:
        """The row of an example, and its pitch errors in cents, one for each voiced frame."""
        reference = example['audio']
        audio = audio[: len(reference)]
        generated = audio if self.sample_rate == _RATE else soxr.resample(audio, self.sample_rate, _RATE)
        loudness = loudness_db(
            generated, _RATE, self.frame_rate, padding='center' if self.alignment == 'center' else 'same'
        )
        real = example['loudness_db'] > PADDED_LOUDNESS_DB
        difference = metrics.l1_distance(loudness, example['loudness_db'])
        real = real[: len(difference)]
        row: dict[str, Any] = {
            'spectral_loss': float(self.loss(reference[None], audio[None])),
            'loudness_l1_db': float(difference[real].mean()) if real.any() else None,
            'voiced_frames': 0,
            'f0_l1_midi': None,
            'f0_median_cents': None,
            'f0_outlier': None,
        }
        if metrics.is_outlier(example['f0_confidence'], self.threshold):  # saves the estimate
            return row, np.zeros(0)
        f0_hz, _ = estimate_f0(
            generated,
            _RATE,
            self.frame_rate,
            self.estimator,
            padding='center' if self.centered else 'same',
            alignment=self.alignment,
        )
        errors = metrics.pitch_errors(example['f0_hz'], f0_hz, example['f0_confidence'], self.threshold)
        if not len(errors):
            return row, np.zeros(0)
        mean = float(errors.mean())
        row |= {
            'voiced_frames': len(errors),
            'f0_l1_midi': mean,
            'f0_median_cents': float(100 * np.median(errors)),
            'f0_outlier': metrics.is_pitch_outlier(mean),
        }
        return row, 100 * errors


def _recordings(dataset: Dataset, split: str) -> list[dict[str, str]]:
    """`{'recording': name}` for each example of a split, counted file after file; else `{}`."""
    rows = dataset.manifest['splits'][split]['files']
    starts = dict(
        zip((row['name'] for row in rows), np.cumsum([0, *(r['examples'] for r in rows)]), strict=False)
    )
    found: list[dict[str, str]] = [{} for _ in range(dataset.splits[split])]
    try:
        sources = [json.loads(line) for line in (dataset.path / 'sources.jsonl').read_text().splitlines()]
        for source in sources:
            # Recordings of one name in two folders are told apart by their content.
            name = f'{pathlib.PurePath(source["path"]).name} {source["sha256"][:8]}'
            for part in source.get('records', []):
                if part['file'] in starts:
                    first = int(starts[part['file']]) + part['first']
                    found[first : first + part['examples']] = [{'recording': name}] * part['examples']
    except (OSError, ValueError, TypeError, KeyError):
        return [{}] * dataset.splits[split]
    return found[: dataset.splits[split]]


def _totals(rows: list[dict[str, Any]], cents: list[np.ndarray]) -> dict[str, float]:
    totals: dict[str, float] = {}
    for key in ('spectral_loss', 'loudness_l1_db'):
        values = [row[key] for row in rows if row[key] is not None]
        if values:
            totals[key] = float(np.mean(values))
    pitched = [row['f0_l1_midi'] for row in rows if row['f0_l1_midi'] is not None]
    names = {'f0_dist': 'f0_l1_midi', 'outlier_ratio': 'f0_outlier_ratio'}
    totals |= {names[key]: value for key, value in metrics.pitch_totals(pitched).items()}
    if pitched:
        totals['f0_median_cents'] = float(np.median(np.concatenate(cents)))
    return {**totals, 'examples': len(rows), 'unpitched_examples': len(rows) - len(pitched)}
