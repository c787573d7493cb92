"""The page of `ddsp inspect`: what is in a dataset, what is wrong with it, and how it sounds."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ddsp.f0 import voiced_threshold
from ddsp.io.files import writable
from experiments.reports import page
from experiments.reports.figures import draw_spectrogram, figure, png, spectrogram_db
from pipelines.inspect import health
from pipelines.inspect.inspection import ExampleFigures, Inspection, load_example

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from pipelines.analysis.statistics import Distribution
    from pipelines.inspect.inspection import FrameCounts

_MAX_ROWS = 2000  # of a table; a page of a hundred thousand recordings would not open
_TYPICAL = 3
_SUSPICIOUS = 4
_PITCH_SHARES = (0.1, 0.5, 0.9, 0.3, 0.7)  # where typical examples are looked for, from low to high
_PLAYED_SECS = 10.0
_COLORS = ('#1f5fa8', '#d9541e', '#2a9d5c', '#8a4fbf')
_NOTES = ('C', 'C#', 'D', 'D#', 'E', 'F', 'F#', 'G', 'G#', 'A', 'A#', 'B')


def inspect_page(inspection: Inspection, findings: Sequence[health.Finding]) -> str:
    """A page (HTML) about a dataset and what is wrong with it, with pictures and sound inside."""
    suspicious, typical = choose_examples(inspection)
    drawn = any(example.finite for example in inspection.examples)
    folder = _common_folder([row['path'] for row in [*inspection.sources, *inspection.rejected]])
    text = page.render(
        'inspect.html', title=f'Dataset {inspection.name} {inspection.version}'.strip(), dataset=inspection,
        facts=_facts(inspection), tiles=_tiles(inspection), findings=findings,
        splits=[
            (split, f'{figures["examples"]:,}', _duration(figures['audio_seconds']),
             _percent(figures['voiced_share']), _pitch_words(figures), _loudness_words(figures))
            for split, figures in inspection.splits.items()
        ],
        histograms=drawn and page.png_source(
            _histograms(inspection.frames, inspection.estimator)
        ),
        sample=_sample_words(inspection),
        examples={
            'Examples that deserve a look': [_card(inspection, example) for example in suspicious],
            'Typical examples': [_card(inspection, example) for example in typical],
        },
        folder=folder, tables=_tables(inspection, folder), most_rows=_MAX_ROWS,
    )  # fmt: skip
    return writable(text)


def choose_examples(inspection: Inspection) -> tuple[list[ExampleFigures], list[ExampleFigures]]:
    """The most suspicious examples, and typical ones of low, middle and high pitch, of different recordings;
    the worst and the lowest come first.
    """
    weights = {id(e): sum(weight for weight, _ in health.suspicions(e)) for e in inspection.examples}
    worst = sorted(inspection.examples, key=lambda example: -weights[id(example)])
    suspicious = _of_different_sources((e for e in worst if weights[id(e)]), _SUSPICIOUS)
    clear = [e for e in inspection.examples if not weights[id(e)] and e.pitch_midi is not None]
    clear.sort(key=lambda example: (example.padded_share > 0, example.pitch_midi))
    whole = [e for e in clear if not e.padded_share] or clear
    wanted = [whole[round(share * (len(whole) - 1))] for share in _PITCH_SHARES] if whole else []
    return suspicious, _of_different_sources(wanted, _TYPICAL)


def _of_different_sources(examples: Iterable[ExampleFigures], count: int) -> list[ExampleFigures]:
    chosen: dict[object, ExampleFigures] = {}
    for example in examples:
        chosen.setdefault(example.source or (example.file, example.index), example)
        if len(chosen) == count:
            break
    return list(chosen.values())


def summary_rows(inspection: Inspection) -> list[tuple[str, str]]:
    """Label and value of each line of the terminal's table."""
    rows = [('dataset', writable(inspection.path))]
    for split, figures in inspection.splits.items():
        rows.append((split, f'{figures["examples"]} examples, {_duration(figures["audio_seconds"])}'))
        rows.append(
            (f'{split} pitch', f'{_pitch_words(figures)}, {_percent(figures["voiced_share"])} voiced')
        )
        rows.append((f'{split} loudness', _loudness_words(figures)))
    if inspection.sources:
        accepted = sum(row['outcome'] == 'accepted' for row in inspection.sources)
        rows.append(('recordings', f'{accepted} used, {len(inspection.rejected)} rejected'))
    rows += [('f0 estimator', inspection.estimator)] if inspection.estimator else []
    rows.append(('looked into', _sample_words(inspection)))
    return rows


def _facts(inspection: Inspection) -> str:
    facts = [
        f'{inspection.sample_rate} Hz', f'{inspection.frame_rate} frames per second',
        f'examples of {inspection.example_secs:g} s',
    ]  # fmt: skip
    return ', '.join(facts + ([f'f0 by {inspection.estimator}'] if inspection.estimator else []))


def _tiles(inspection: Inspection) -> list[tuple[str, str]]:
    """Figures that are seen first, each with what it counts."""
    splits = inspection.splits.values()
    tiles = [
        (_duration(sum(figures['audio_seconds'] for figures in splits)), 'of audio'),
        (f'{sum(figures["examples"] for figures in splits):,}', 'examples'),
    ]
    main = inspection.splits.get(inspection.train_split, {})
    if main.get('examples'):
        tiles += [(_percent(main['voiced_share']), 'voiced'), (_pitch_words(main), 'pitch, 1 to 99 %')]
        tiles += [(_loudness_words(main), 'loudness, 1 to 99 %')]
    if inspection.sources:
        used = sum(row['outcome'] == 'accepted' for row in inspection.sources)
        tiles += [(f'{used:,}', 'recordings used'), (f'{len(inspection.rejected):,}', 'rejected')]
    return tiles


def _card(inspection: Inspection, example: ExampleFigures) -> dict[str, Any]:
    """An example with player and picture."""
    features = {name: np.nan_to_num(values) for name, values in load_example(example).items()}
    samples = int(_PLAYED_SECS * inspection.sample_rate)
    frames = int(_PLAYED_SECS * inspection.frame_rate)
    features = {name: v[: samples if name == 'audio' else frames] for name, v in features.items()}
    pitch = f'{_note(example.pitch_midi)}, ' if example.pitch_midi is not None else ''
    drawn = _example(features, inspection.sample_rate, inspection.frame_rate, inspection.estimator)
    return {
        'name': pathlib.Path(example.source or example.file).name,
        'place': f'{pathlib.Path(example.file).name}, example {example.index}',
        'figures': f'{pitch}confidence {example.confidence:.2f}, loudest {example.loudness_db:.0f} dB',
        'suspicions': [words for _, words in health.suspicions(example)],
        'clip': page.Clip('', features['audio'], inspection.sample_rate),
        'picture': page.png_source(drawn),
    }


def _tables(inspection: Inspection, folder: str) -> list[dict[str, Any]]:
    """The tables of rejected and of all inputs, whose names are within `folder`."""
    rejected = [
        [row[key].replace(folder, '') for key in ('path', 'reason', 'message')] for row in inspection.rejected
    ]
    head = ('Input', 'Outcome', 'Split', 'Seconds', 'Rate (Hz)', 'Channels', 'Examples', 'Notes')
    rows = [_source_cells(row, folder) for row in inspection.sources]
    return [
        {
            'title': 'Rejected inputs',
            'head': ('Input', 'Reason', 'Why'),
            'rows': rejected,
            'file': 'rejected.jsonl',
        },
        {'title': 'Inputs', 'head': head, 'rows': rows, 'file': 'sources.jsonl'},
    ]


def _source_cells(row: dict[str, Any], folder: str) -> tuple[Any, ...]:
    outcome = f'{row["outcome"]}: {row["reason"]}' if row.get('reason') else row['outcome']
    notes = list(row['warnings'])
    notes += [row['message']] if row['outcome'] == 'duplicate' else []
    return (
        row['path'].removeprefix(folder), outcome, row['split'], row['duration_s'], row['sample_rate'],
        row['channels'], row['examples'] or None, '; '.join(notes),
    )  # fmt: skip


def _common_folder(paths: Sequence[str]) -> str:
    """The folder that all inputs are in, with a slash at its end; '' where there is none."""
    folders = [path.rpartition('/')[0] + '/' for path in paths]
    common = os.path.commonprefix(folders).rpartition('/')[0]  # noqa: RUF071 (ends at a slash; gs:// stays)
    return f'{common}/' if common else ''


def _sample_words(inspection: Inspection) -> str:
    total = sum(figures['examples'] for figures in inspection.splits.values())
    read = len(inspection.examples)
    return f'all {total:,} examples' if read == total else f'{read:,} of {total:,} examples, evenly spread'


def _pitch_words(figures: dict[str, Any]) -> str:
    return _range_words(figures.get('pitch_midi'), _note, '')


def _loudness_words(figures: dict[str, Any]) -> str:
    return _range_words(figures.get('loudness_db'), lambda value: f'{value:.0f}', ' dB')


def _range_words(figures: dict[str, Any] | None, words: Callable[[float], str], unit: str) -> str:
    quantiles = (figures or {}).get('quantiles')
    return f'{words(quantiles[1])} to {words(quantiles[99])}{unit}' if quantiles else 'none'


def _note(midi: float) -> str:
    """A pitch as musicians write it."""
    nearest = round(midi)
    return f'{_NOTES[nearest % 12]}{nearest // 12 - 1}'


def _percent(share: float) -> str:
    return f'{100 * share:.0f} %'


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f'{seconds:.0f} s'
    return f'{seconds / 60:.1f} min' if seconds < 7200 else f'{seconds / 3600:.1f} h'


def _histograms(frames: Mapping[str, FrameCounts], estimator: str) -> bytes:
    """Pitch, loudness and confidence of the frames of each split, in percent of its frames, as PNG."""
    made, axes = figure(10.5, 3.0, 1, 3)
    for color, (split, counts) in zip(_COLORS, frames.items(), strict=False):
        _curve(axes[0], *_grouped(counts.statistics.pitch_midi, 8), color, split)
        _curve(axes[1], *_grouped(counts.statistics.loudness_db, 8), color, split)
        bins = counts.confidence
        _curve(axes[2], np.linspace(0, 1, len(bins) + 1), bins, color, split)
    axes[0].set(xlabel='Pitch of voiced frames (MIDI)', ylabel='Frames (%)')
    axes[1].set(xlabel='Loudness (dB)')
    axes[2].set(xlabel='Confidence of f0', xlim=(0, 1))
    axes[2].axvline(voiced_threshold(estimator), color='gray', linewidth=1, linestyle=':')
    for axis in axes:
        axis.set_ylim(bottom=0)
        axis.grid(alpha=0.25)
    axes[0].legend(frameon=False)
    return png(made)


def _grouped(distribution: Distribution, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Edges and counts of a distribution's histogram in groups of `width` bins, where there is anything."""
    edges, counts = distribution.bins()
    counts = np.add.reduceat(counts, np.arange(0, len(counts), width))
    edges = np.append(edges[:-1:width], edges[-1])
    filled = np.flatnonzero(counts)
    if not len(filled):
        return edges[:2], counts[:1]
    first, last = max(0, filled[0] - 1), min(len(counts), filled[-1] + 2)
    return edges[first : last + 1], counts[first:last]


def _curve(axis: Axes, edges: np.ndarray, counts: np.ndarray, color: str, label: str) -> None:
    share = 100 * counts / max(1, counts.sum())
    axis.stairs(share, edges, color=color, fill=True, alpha=0.22)
    axis.stairs(share, edges, color=color, linewidth=1.6, label=label)


def _example(features: Mapping[str, np.ndarray], sample_rate: int, frame_rate: int, estimator: str) -> bytes:
    """The spectrogram of an example with its f0, and its loudness and confidence below, as PNG.

    Args:
      features: `audio` [n_samples], `f0_hz`, `f0_confidence` and `loudness_db` [n_frames].
      sample_rate: Sample rate of the audio in Hz.
      frame_rate: Frame rate of the others in Hz.
      estimator: Pitch estimator of the dataset.
    """
    made, (top, bottom) = figure(6.6, 4.1, 2, 1, sharex=True, gridspec_kw={'height_ratios': [3, 1]})
    spectrogram = spectrogram_db(features['audio'], sample_rate)
    draw_spectrogram(top, spectrogram, spectrogram[0].max())
    seconds = np.arange(len(features['f0_hz'])) / frame_rate
    voiced = (features['f0_confidence'] >= voiced_threshold(estimator)) & (features['f0_hz'] > 0)
    f0_hz = np.where(features['f0_hz'] > 0, features['f0_hz'], np.nan)
    top.plot(seconds, np.where(voiced, np.nan, f0_hz), color='#bbbbbb', linewidth=0.9, linestyle=':',
             label='not voiced')  # fmt: skip
    top.plot(seconds, np.where(voiced, f0_hz, np.nan), color='#35e0d0', linewidth=1.8, label='f0')
    top.set(ylabel='Frequency (Hz)')
    top.legend(loc='upper right', facecolor='black', labelcolor='white', framealpha=0.6, fontsize=8)
    bottom.plot(seconds, features['loudness_db'], color=_COLORS[0], linewidth=1.4)
    bottom.set(xlabel='Time (s)', xlim=(0, max(spectrogram[2][-1], seconds[-1])))
    bottom.set_ylabel('Loudness (dB)', color=_COLORS[0])
    bottom.grid(alpha=0.25)
    confidence = bottom.twinx()
    confidence.fill_between(seconds, features['f0_confidence'], color=_COLORS[1], alpha=0.18, linewidth=0)
    confidence.set_ylim(0, 1.05)
    confidence.set_ylabel('Confidence', color=_COLORS[1])
    return png(made)
