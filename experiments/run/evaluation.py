"""Evaluating a model on held-out examples, and writing down what that sounds and looks like."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ddsp.io.progress import Progress
from experiments.reports import figures, page

if TYPE_CHECKING:
    from ddsp.inference import Bundle
    from ddsp.io.dataset import Dataset


PREFIX = 'eval/'
_LISTENED = 4


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """What an evaluation found and wrote.

    Attributes:
      metrics: Totals, named `eval/...`.
      rows: Measures of each example.
      files: WAV pairs and pictures; empty without a folder.
      listen_page: The page of them; None without a folder.
      rows_file: `rows` as JSON; None without a folder.
    """

    metrics: dict[str, float]
    rows: list[dict[str, Any]]
    files: list[pathlib.Path] = dataclasses.field(default_factory=list)
    listen_page: pathlib.Path | None = None
    rows_file: pathlib.Path | None = None


def evaluate_model(
    model: str | os.PathLike[str],
    dataset: str | os.PathLike[str],
    split: str = 'test',
    *,
    estimator: str = 'auto',
    limit: int | None = None,
    folder: str | os.PathLike[str] | None = None,
    facts: Mapping[str, str] | None = None,
    pictures: Sequence[pathlib.Path] = (),
    progress: Progress | None = None,
) -> Evaluation:
    """Evaluates a model.

    Args:
      model: Its address, as `experiments.tracking.registry.resolve_bundle` takes it.
      dataset: Dataset directory.
      split: Of the dataset.
      estimator: Of the pitch of the generated audio; `'auto'`: the dataset's.
      limit: Only the first so many examples.
      folder: Where WAV pairs, pictures, `examples.json` and `listen.html` of a few examples are written.
      facts: What stands at the head of the page.
      pictures: Pictures at the head of the page.
      progress: `progress(done, total, text)`.

    Returns:
      Totals, rows and files.

    Raises:
      DDSPError: Model or dataset cannot be used, or do not fit together.
    """
    from ddsp import inference
    from ddsp.io.dataset import open_dataset
    from ddsp.io.files import check_output
    from experiments.tracking.registry import resolve_bundle

    data = open_dataset(dataset)
    address = resolve_bundle(model)
    if folder is not None:
        check_output(folder, address, data.path)
    bundle = inference.load_bundle(address)
    result = inference.evaluate(bundle, data, split, estimator=estimator, limit=limit, progress=progress)
    metrics = {f'{PREFIX}{name}': float(value) for name, value in result.totals.items()}
    if folder is None:
        return Evaluation(metrics, result.rows)
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    rows_file = folder / 'examples.json'
    rows_file.write_text(json.dumps(result.rows, indent=1) + '\n')
    examples, files = _listen(bundle, data, split, result.rows, result.estimator, folder)
    listen_page = folder / 'listen.html'
    facts = {'model': str(model), 'dataset': f'{data.name}/{data.version}', 'split': split, **(facts or {})}
    title = f'{data.name}: held-out examples'
    text = page.listen_page(title, examples, metrics=metrics, facts=facts, pictures=pictures)
    listen_page.write_text(text, encoding='utf-8')
    return Evaluation(metrics, result.rows, files, listen_page, rows_file)


def _listen(
    bundle: Bundle,
    data: Dataset,
    split: str,
    rows: Sequence[Mapping[str, Any]],
    estimator: str,
    folder: pathlib.Path,
) -> tuple[list[page.Example], list[pathlib.Path]]:
    """Writes sound and pictures of a few examples, spread evenly over the split."""
    chosen = sorted({int(index) for index in np.linspace(0, len(rows) - 1, min(_LISTENED, len(rows)))})
    sections: list[page.Example] = []
    files: list[pathlib.Path] = []
    for index, example in enumerate(_examples(data, split, max(chosen) + 1)):
        if index not in chosen:
            continue
        section, written = _write_example(
            bundle, example, rows[index], estimator, folder, f'example_{index:03d}'
        )
        sections.append(section)
        files += written
    return sections, files


def _examples(data: Dataset, split: str, count: int) -> list[dict[str, np.ndarray]]:
    """The first examples of a split, in the order in which they are evaluated."""
    from ddsp.training.data import DatasetProvider

    batches = DatasetProvider(data, split).get_batch(1, shuffle=False, repeats=1, drop_remainder=False)
    found = []
    for batch in batches.take(count):
        found.append({name: value.numpy()[0] for name, value in batch.items()})
    return found


def _write_example(
    bundle: Bundle,
    example: Mapping[str, np.ndarray],
    row: Mapping[str, Any],
    estimator: str,
    folder: pathlib.Path,
    name: str,
) -> tuple[page.Example, list[pathlib.Path]]:
    """WAV pair, spectrogram pair and curves of one example."""
    from ddsp.inference import compute_features
    from ddsp.io.audio import write_wav

    rate, frame_rate = bundle.sample_rate, bundle.frame_rate
    target = example['audio']
    synthesized = bundle.synthesize(example)
    features = compute_features(
        synthesized, rate, frame_rate, centered=bundle.metadata['centered'],
        alignment=bundle.metadata.get('alignment', 'center'), estimator=estimator,
    )  # fmt: skip
    files = [folder / f'{name}_target.wav', folder / f'{name}_synthesized.wav']
    write_wav(files[0], target, rate)
    write_wav(files[1], synthesized, rate)
    pitch = _voiced(example, bundle.metadata['f0_estimator'])
    pitch_there = _voiced(features, estimator)
    spectrogram = figures.spectrogram_pair(
        folder / f'{name}_spectrogram.png', target, synthesized, rate,
        f0_hz=pitch, synthesized_f0_hz=pitch_there, frame_rate=frame_rate,
    )  # fmt: skip
    curves = figures.feature_curves(
        folder / f'{name}_features.png',
        {'f0_hz': pitch, 'loudness_db': example['loudness_db']},
        {'f0_hz': pitch_there, 'loudness_db': features['loudness_db']},
        frame_rate,
    )
    clips = [page.Clip('Target', target, rate), page.Clip('Synthesised', synthesized, rate)]
    numbers = {key: float(value) for key, value in row.items() if isinstance(value, float)}
    section = page.Example(f'Example {row["example"]}', clips, [spectrogram, curves], numbers)
    return section, [*files, spectrogram, curves]


def _voiced(features: Mapping[str, np.ndarray], estimator: str) -> np.ndarray:
    """f0 [n_frames] in Hz, 0 where the estimator is not sure of a pitch."""
    from ddsp.f0 import voiced_threshold

    return np.where(features['f0_confidence'] >= voiced_threshold(estimator), features['f0_hz'], 0.0)
