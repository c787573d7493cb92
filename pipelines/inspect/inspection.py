"""What is in a dataset: figures of its splits, of its recordings and of a sample of its examples.

Numbers alone, read without TensorFlow and without Beam. `pipelines.inspect.health` judges them, and
`ddsp inspect` shows them.
"""

from __future__ import annotations

import dataclasses
import glob
import itertools
import os
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from ddsp.f0 import f0_range, voiced_threshold
from ddsp.io.dataset import PADDED_LOUDNESS_DB, Dataset, DatasetError, open_dataset
from ddsp.io.json_types import COUNT, NUMBER, TEXT
from pipelines.analysis import quality
from pipelines.analysis.statistics import Statistics
from pipelines.records import decode_example, read_examples, read_record, record_spans

_SOUNDING_DB = 40.0  # below the loudest frame: what is quieter is not a note
_FLOOR_DB = -60.0
_RATE_16K = 16000
_FRAMEWISE = ('f0_hz', 'f0_confidence', 'loudness_db')
# Rows of sources.jsonl and rejected.jsonl.
_RECORDS = {'file': TEXT, 'first': COUNT, 'examples': COUNT}
_SOURCE = {
    'path': TEXT, 'outcome': TEXT, 'split': TEXT, 'duration_s': (NUMBER, None), 'sample_rate': (COUNT, None),
    'channels': (COUNT, None), 'examples': COUNT, 'records': [_RECORDS], 'warnings': [TEXT], 'reason?': TEXT,
    'message?': TEXT, 'dropped?': {TEXT: COUNT},
}  # fmt: skip
_REJECTED = {'path': TEXT, 'reason': TEXT, 'message': TEXT}


@dataclasses.dataclass(frozen=True)
class ExampleFigures:
    """Figures of one example.

    Attributes:
      split, file, index: Where it is; its number in the file is from 0.
      source: The recording that it was cut from; '' where the dataset does not say.
      peak: Highest absolute sample.
      clipped_share: Share of the samples at full scale.
      loudness_db: Loudness of its loudest frame, dB.
      padded_share: Share of the frames that are padding.
      voiced_share: Share of the other frames that are voiced.
      confidence: Median confidence of f0 where it sounds; 0 where it does not.
      pitch_midi: Median pitch of the voiced frames; None without any.
      jumps_per_sec: Jumps of the pitch by more than a fifth within two frames, for each voiced second.
      edge_share: Share of the voiced frames at a limit of the estimator's range.
      finite: Whether all its values are numbers.
    """

    split: str
    file: str
    index: int
    source: str
    peak: float
    clipped_share: float
    loudness_db: float
    padded_share: float
    voiced_share: float
    confidence: float
    pitch_midi: float | None
    jumps_per_sec: float
    edge_share: float
    finite: bool


@dataclasses.dataclass(frozen=True)
class Inspection:
    """What was found out about a dataset.

    Attributes:
      path, name, version: Where it is and what it is called; no version for bare TFRecord files.
      digest: SHA-256 of its manifest; '' for bare TFRecord files.
      sample_rate, frame_rate, example_secs: In Hz, frames per second and seconds.
      estimator: The f0 estimator; '' where it is not known.
      splits: For each split `examples, audio_seconds, voiced_share, loudness_db, pitch_midi` as in
        statistics.json.
      sources, rejected: Rows of sources.jsonl and rejected.jsonl.
      examples: Figures of the examples that were read.
      frames: What the frames of these say, by split.
    """

    path: str
    name: str
    version: str
    digest: str
    sample_rate: int
    frame_rate: int
    example_secs: float
    estimator: str
    splits: dict[str, dict[str, Any]]
    sources: list[dict[str, Any]]
    rejected: list[dict[str, Any]]
    examples: list[ExampleFigures]
    frames: dict[str, FrameCounts]

    @property
    def train_split(self) -> str:
        """The split that a training reads."""
        return 'train' if 'train' in self.splits or not self.splits else next(iter(self.splits))

    def sampled(self, split: str) -> list[ExampleFigures]:
        """The examples of a split that were read."""
        return [example for example in self.examples if example.split == split]

    def to_json(self) -> dict[str, Any]:
        """Everything but the histograms, for machines."""
        content = dataclasses.asdict(dataclasses.replace(self, frames={}))
        del content['frames']
        return content


@dataclasses.dataclass
class FrameCounts:
    """Histograms of the frames that were read, without padding; confidence in 50 bins from 0 to 1."""

    statistics: Statistics = dataclasses.field(default_factory=Statistics)
    confidence: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(50, np.int64))


def inspect_dataset(path: str | os.PathLike[str] | Dataset, examples: int = 200) -> Inspection:
    """Looks into a dataset.

    Args:
      path: As in `ddsp.io.dataset.open_dataset`, an open dataset, or bare TFRecord files with upstream's
        features: a folder or a pattern such as `'records/train.tfrecord*'`.
      examples: Number of examples of each split to read, spread evenly over it.

    Raises:
      DatasetError: There is no dataset, or its files cannot be read.
    """
    if not isinstance(path, Dataset) and (bare := _bare_files(os.fspath(path))):
        return _inspect_bare(os.fspath(path), bare, examples)
    dataset = path if isinstance(path, Dataset) else open_dataset(path)
    sources = list(read_sources(dataset))
    rows = {split: content['files'] for split, content in dataset.manifest['splits'].items()}
    estimator = str(dataset.manifest.get('f0_estimator', ''))
    reader = _Reader(dataset.frame_rate, estimator, sources)
    for split in dataset.splits:
        counts = [row['examples'] for row in rows[split]]
        reader.read(split, list(zip(dataset.files(split), counts, strict=True)), examples)
    return Inspection(
        path=dataset.address, name=dataset.name, version=dataset.version, digest=dataset.digest,
        sample_rate=dataset.sample_rate, frame_rate=dataset.frame_rate, example_secs=dataset.example_secs,
        estimator=estimator, splits={split: dataset.statistics(split) for split in dataset.splits},
        sources=sources, rejected=dataset.rows('rejected.jsonl', _REJECTED), examples=reader.rows,
        frames=reader.frames,
    )  # fmt: skip


def read_sources(dataset: Dataset) -> Iterator[dict[str, Any]]:
    """The rows of sources.jsonl one by one; raises DatasetError where they are damaged."""
    return (row for _, row in dataset.lines('sources.jsonl', _SOURCE))


def load_example(example: ExampleFigures) -> dict[str, np.ndarray]:
    """The features of an example."""
    return next(iter(_read_some(example.file, [example.index])))[1]


class _Reader:
    """Reads examples and collects their figures."""

    def __init__(self, frame_rate: int, estimator: str, sources: Sequence[dict[str, Any]] = ()) -> None:
        self._frame_rate = frame_rate
        self._parts: dict[str, list[tuple[range, str]]] = {}  # of each file: examples, their recording
        for row in sources:
            for part in row['records']:
                examples = range(part['first'], part['first'] + part['examples'])
                self._parts.setdefault(part['file'], []).append((examples, row['path']))
        self._range, self._voiced_from = f0_range(estimator), voiced_threshold(estimator)
        self.rows: list[ExampleFigures] = []
        self.frames: dict[str, FrameCounts] = {}

    def read(self, split: str, files: Sequence[tuple[str, int]], limit: int) -> None:
        """Reads up to `limit` examples of a split, spread evenly over its files (path, examples)."""
        total = sum(count for _, count in files)
        wanted = np.unique(np.linspace(0, max(0, total - 1), min(limit, total)).round().astype(int))
        counts, first = self.frames.setdefault(split, FrameCounts()), 0
        for file, count in files:
            inside = [int(i) - first for i in wanted if first <= i < first + count]
            for index, features in _read_some(file, inside):
                self.rows.append(self._figures(split, file, index, features))
                self._count(counts, features)
            first += count

    def _count(self, counts: FrameCounts, features: dict[str, np.ndarray]) -> None:
        kept = slice(0, len(features['f0_hz']) - _padded_frames(features))
        values = [np.nan_to_num(features[name][kept]) for name in _FRAMEWISE]
        counts.statistics.examples += 1
        counts.statistics.add_frames(values[0], values[1] >= self._voiced_from, values[2])
        counts.confidence += np.histogram(np.clip(values[1], 0, 1), len(counts.confidence), (0, 1))[0]

    def _figures(self, split: str, file: str, index: int, features: dict[str, np.ndarray]) -> ExampleFigures:
        finite = all(np.isfinite(values).all() for values in features.values())
        features = {name: np.nan_to_num(values) for name, values in features.items()}
        padded = _padded_frames(features)
        kept = slice(0, len(features['f0_hz']) - padded)
        f0_hz, confidence, loudness = (features[name][kept] for name in _FRAMEWISE)
        voiced = (confidence >= self._voiced_from) & (f0_hz > 0)
        midi = 69 + 12 * np.log2(np.maximum(f0_hz, 1e-3) / 440)
        jumps = np.abs(np.diff(midi)) > quality.JUMP_SEMITONES
        jumps &= voiced[1:] & voiced[:-1]
        loudest = float(loudness.max()) if len(loudness) else PADDED_LOUDNESS_DB
        sounding = loudness > max(loudest - _SOUNDING_DB, _FLOOR_DB)
        audio, parts = np.abs(features['audio']), self._parts.get(os.path.basename(file), ())
        source = next((path for part, path in parts if index in part), '')
        return ExampleFigures(
            split=split, file=file, index=index, source=source,
            peak=float(audio.max(initial=0.0)), clipped_share=float((audio >= quality.CLIPPED).mean()),
            loudness_db=loudest, padded_share=padded / max(1, len(features['f0_hz'])),
            voiced_share=float(voiced.mean()) if len(voiced) else 0.0,
            confidence=float(np.median(confidence[sounding])) if sounding.any() else 0.0,
            pitch_midi=float(np.median(midi[voiced])) if voiced.any() else None,
            jumps_per_sec=float(jumps.sum() * self._frame_rate / max(1, voiced.sum())),
            edge_share=self._edge_share(f0_hz[voiced]), finite=bool(finite),
        )  # fmt: skip

    def _edge_share(self, f0_hz: np.ndarray) -> float:
        if self._range is None or not len(f0_hz):
            return 0.0
        (low, high), margin = self._range, 2 ** (quality.EDGE_SEMITONES / 12)
        return float(((f0_hz < low * margin) | (f0_hz > high / margin)).mean())


def _padded_frames(features: dict[str, np.ndarray]) -> int:
    """Frames of padding at the end of an example."""
    real = (features['f0_confidence'] > 0) | (features['loudness_db'] > PADDED_LOUDNESS_DB)
    return len(real) - (int(np.flatnonzero(real)[-1]) + 1 if real.any() else 0)


def _read_some(file: str, indices: Sequence[int]) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
    """The examples of a file at `indices`, which ascend."""
    spans = list(itertools.islice(record_spans(file), indices[-1] + 1)) if indices else []
    for index in indices:
        if index >= len(spans):
            raise DatasetError(f'{file} is damaged: it has {len(spans)} examples where more were written.')
        features = decode_example(read_record(file, *spans[index]))
        _check_features(features, f'{file}: example {index}')
        yield index, features


def _check_features(features: dict[str, np.ndarray], place: str) -> None:
    missing = {'audio', *_FRAMEWISE} - set(features)
    if missing:
        raise DatasetError(f'{place} has no feature {", ".join(sorted(missing))}.')
    lengths = {name: len(features[name]) for name in _FRAMEWISE}
    if len(set(lengths.values())) > 1 or not all(map(len, features.values())):
        raise DatasetError(f'{place} has features whose lengths do not agree: {lengths}.')


def _bare_files(path: str) -> list[str]:
    """TFRecord files that `path` names without being a dataset directory; none where it is one."""
    if os.path.isdir(path):
        if os.path.exists(os.path.join(path, 'MANIFEST.json')):
            return []
        path = os.path.join(path, '*.tfrecord*')
    return sorted(file for file in glob.glob(path) if os.path.isfile(file))


def _inspect_bare(path: str, files: list[str], examples: int) -> Inspection:
    """What the records themselves say; rates follow from the lengths of the features."""
    first = next(iter(read_examples(files[0])), None)
    if first is None:
        raise DatasetError(f'{files[0]} holds no example.')
    _check_features(first, f'{files[0]}: example 0')
    seconds = len(first.get('audio_16k', first['audio'])) / _RATE_16K
    frame_rate = int(len(first['f0_hz']) / seconds)  # a centred example has one frame more
    reader = _Reader(frame_rate, '')
    counted = [(file, sum(1 for _ in record_spans(file))) for file in files]
    reader.read('all', counted, examples)
    total = sum(count for _, count in counted)
    summary = reader.frames['all'].statistics.summary()
    summary |= {'examples': total, 'audio_seconds': round(total * seconds, 3)}
    return Inspection(
        path=path, name=pathlib.Path(path).name, version='', digest='',
        sample_rate=round(len(first['audio']) / seconds), frame_rate=frame_rate, example_secs=seconds,
        estimator='', splits={'all': summary}, sources=[], rejected=[], examples=reader.rows,
        frames=reader.frames,
    )  # fmt: skip
