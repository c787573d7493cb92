"""Evaluating a model on held-out examples, and writing down what that sounds and looks like."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ddsp.io.progress import Progress
from experiments.reports import figures, page

if TYPE_CHECKING:
    from ddsp.inference import Bundle
    from ddsp.inference.evaluation import EvaluationReport
    from ddsp.io.dataset import Dataset


PREFIX = 'eval/'
_LISTENED = 4


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """What an evaluation found and wrote."""

    metrics: dict[str, float]  # totals, named `eval/...`
    rows: list[dict[str, Any]]  # metrics of each example
    artifacts: dict[pathlib.Path, str] = dataclasses.field(default_factory=dict)  # file -> folder in the run
    listen_page: pathlib.Path | None = None  # of a few examples; None without a folder


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
      model: Address of the model, see `experiments.tracking.registry.resolve_bundle`.
      dataset: Dataset directory.
      split: Split of the dataset.
      estimator: Pitch estimator for the generated audio; `'auto'` takes the dataset's.
      limit: Number of examples, from the first; None for all.
      folder: Where to write `examples.json`, and WAV pairs, pictures and `listen.html` of a few examples.
      facts: Text for the head of the page, by label.
      pictures: Pictures for the head of the page.
      progress: `progress(done, total, text)`.

    Raises:
      DDSPError: Model or dataset cannot be used, or they do not fit together.
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
    rows_file, listen_page = folder / 'examples.json', folder / 'listen.html'
    rows_file.write_text(json.dumps(result.rows, indent=1) + '\n')
    sections, files = _listen(bundle, data, split, result, folder)
    facts = {'model': str(model), 'dataset': f'{data.name}/{data.version}', 'split': split, **(facts or {})}
    title = f'{data.name}: held-out examples'
    text = page.render(
        'listen.html', title=title, examples=sections, metrics=metrics, facts=facts, pictures=pictures
    )
    listen_page.write_text(text, encoding='utf-8')
    artifacts = {**dict.fromkeys(files, 'media'), listen_page: '', rows_file: 'evaluation'}
    return Evaluation(metrics, result.rows, artifacts, listen_page)


def _listen(
    bundle: Bundle, data: Dataset, split: str, result: EvaluationReport, folder: pathlib.Path
) -> tuple[list[page.Example], list[pathlib.Path]]:
    """Writes sound and pictures of a few examples, spread evenly over the split."""
    rows = result.rows
    chosen = {int(row) for row in np.linspace(0, len(rows) - 1, min(_LISTENED, len(rows)))}
    made = [
        write_example(bundle, example, rows[index], result.estimator, folder, f'example_{index:03d}')
        for index, example in enumerate(examples(data, split, max(chosen) + 1))
        if index in chosen
    ]
    return [example for example, _ in made], [path for _, files in made for path in files]


def examples(data: Dataset, split: str, count: int) -> Iterator[dict[str, np.ndarray]]:
    """The first examples of a split, in the order in which they are evaluated."""
    from ddsp.training.data import DatasetProvider

    batches = DatasetProvider(data, split).get_batch(1, shuffle=False, repeats=1, drop_remainder=False)
    for batch in batches.take(count):
        yield {name: value.numpy()[0] for name, value in batch.items()}


def write_example(
    bundle: Bundle,
    example: Mapping[str, np.ndarray],
    row: Mapping[str, Any],
    estimator: str,
    folder: pathlib.Path,
    name: str,
) -> tuple[page.Example, list[pathlib.Path]]:
    """Writes target, resynthesis, spectrogram pair and curves of one example as `folder/NAME_*`.

    Args:
      bundle: The model.
      example: Features of the example, each [n].
      row: Metrics of the example.
      estimator: Pitch estimator for the resynthesis.
      folder: Where to write.
      name: How the names of the files begin.

    Returns:
      Section of a page, and the files: target, resynthesis, spectrograms, curves.
    """
    from ddsp.inference import compute_features
    from ddsp.io.audio import write_wav

    rate, frame_rate = bundle.sample_rate, bundle.frame_rate
    target, synthesized = example['audio'], bundle.synthesize(example)
    features = compute_features(
        synthesized, rate, frame_rate, centered=bundle.metadata['centered'],
        alignment=bundle.metadata.get('alignment', 'center'), estimator=estimator,
    )  # fmt: skip
    sounds = [folder / f'{name}_target.wav', folder / f'{name}_synthesized.wav']
    write_wav(sounds[0], target, rate)
    write_wav(sounds[1], synthesized, rate)
    f0, synthesized_f0 = voiced_f0(example, bundle.metadata['f0_estimator']), voiced_f0(features, estimator)
    spectrogram = figures.spectrogram_pair(
        folder / f'{name}_spectrogram.png', target, synthesized, rate,
        f0_hz=f0, synthesized_f0_hz=synthesized_f0, frame_rate=frame_rate,
    )  # fmt: skip
    curves = figures.feature_curves(
        folder / f'{name}_features.png',
        {'f0_hz': f0, 'loudness_db': example['loudness_db']},
        {'f0_hz': synthesized_f0, 'loudness_db': features['loudness_db']},
        frame_rate,
    )
    clips = [page.Clip('Target', target, rate), page.Clip('Synthesised', synthesized, rate)]
    numbers = {key: float(value) for key, value in row.items() if isinstance(value, float)}
    made = page.Example(f'Example {row["example"]}', clips, [spectrogram, curves], numbers)
    return made, [*sounds, spectrogram, curves]


def voiced_f0(features: Mapping[str, np.ndarray], estimator: str) -> np.ndarray:
    """f0 [n_frames] in Hz, 0 where the estimator is not sure of a pitch."""
    from ddsp.f0 import voiced_threshold

    return np.where(features['f0_confidence'] >= voiced_threshold(estimator), features['f0_hz'], 0.0)
