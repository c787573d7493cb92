"""The page of `ddsp inspect`: what is in a dataset, what is wrong with it, and how it sounds."""

from __future__ import annotations

import html
import pathlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from ddsp.io.files import writable
from experiments.reports import dataset_figures, page
from pipelines.inspect import health
from pipelines.inspect.inspection import ExampleFigures, Inspection, load_example

_MAX_ROWS = 2000  # of a table; a page of a hundred thousand recordings would not open
_TYPICAL = 3
_SUSPICIOUS = 4
_PITCH_SHARES = (0.1, 0.5, 0.9, 0.3, 0.7)  # where typical examples are looked for, from low to high
_PLAYED_SECS = 10.0
_NOTES = ('C', 'C#', 'D', 'D#', 'E', 'F', 'F#', 'G', 'G#', 'A', 'A#', 'B')

_STYLE = """
.finding { border-left: 5px solid #3778c2; background: var(--soft); padding: .55rem .9rem; margin: .5rem 0;
border-radius: 4px; } .finding.error { border-color: #d43c2c; } .finding.warning { border-color: #e2a417; }
.finding.good { border-color: var(--best); }
.tiles { display: flex; flex-wrap: wrap; gap: .8rem; margin: 1rem 0; } .tile { background: var(--soft);
border-radius: 8px; padding: .6rem 1rem; min-width: 7rem; } .tile strong { display: block; font-size: 1.35rem;
font-weight: 600; } .tile span { font-size: .85rem; opacity: .75; }
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(30rem, 1fr)); gap: 1.2rem; }
.card { border: 1px solid var(--line); border-radius: 8px; padding: .8rem 1rem; min-width: 0; }
.card h3 { margin: 0 0 .2rem; font-size: 1rem; overflow-wrap: anywhere; } .card p { margin: .1rem 0 .5rem;
font-size: .88rem; opacity: .8; } .card audio { width: 100%; } .chip { display: inline-block; background:
#e2a41733; border-radius: 99px; padding: .05rem .6rem; margin: .1rem .3rem .1rem 0; font-size: .82rem; }
.table { max-height: 30rem; overflow: auto; border: 1px solid var(--line); border-radius: 8px;
font-size: .88rem; }
.table table { margin: 0; width: 100%; } .table th { position: sticky; top: 0; background: Canvas; cursor:
pointer; white-space: nowrap; user-select: none; } .table th::after { content: ' \\2195'; opacity: .4; }
.table td { overflow-wrap: anywhere; } .table td.number { white-space: nowrap; }
input.filter { font: inherit; padding: .3rem .6rem; width: 22rem; max-width: 90vw; margin: .3rem 0 .6rem; }
@media (max-width: 40rem) { .cards { grid-template-columns: 1fr; } }
"""

_SCRIPT = """
document.querySelectorAll('.table').forEach(box => {
  const body = box.querySelector('tbody'), rows = [...body.rows];
  box.querySelectorAll('th').forEach((head, column) => head.addEventListener('click', () => {
    const down = head.dataset.down = head.dataset.down === '1' ? '' : '1';
    const key = row => row.cells[column].dataset.sort ?? row.cells[column].textContent;
    rows.sort((a, b) => (down ? 1 : -1) * key(a).localeCompare(key(b), undefined, {numeric: true}));
    body.append(...rows);
  }));
  const filter = box.previousElementSibling;
  if (filter && filter.matches('input.filter')) filter.addEventListener('input', () => {
    const words = filter.value.toLowerCase();
    rows.forEach(row => row.hidden = !row.textContent.toLowerCase().includes(words));
  });
});
"""


def inspect_page(inspection: Inspection, findings: Sequence[health.Finding]) -> str:
    """A page about a dataset, with pictures and sound inside.

    Args:
      inspection: What is in it.
      findings: What is wrong with it.

    Returns:
      HTML that refers to nothing outside of it.
    """
    title = f'Dataset {inspection.name} {inspection.version}'.strip()
    suspicious, typical = choose_examples(inspection)
    parts = [f'<h1>{html.escape(title)}</h1>', _facts(inspection), _tiles(inspection), _findings(findings)]
    parts += ['<h2>Splits</h2>', _splits(inspection)]
    if any(example.finite for example in inspection.examples):
        drawn = dataset_figures.histograms(inspection.frames, inspection.estimator)
        parts.append(page.embedded_picture(drawn, 'histograms of pitch, loudness and confidence'))
        parts.append(f'<p>Frames of {_sample_words(inspection)}, without padding.</p>')
    parts += _cards('Examples that deserve a look', inspection, suspicious)
    parts += _cards('Typical examples', inspection, typical)
    parts += _recordings(inspection)
    return writable(page.document(title, '\n'.join(parts), _STYLE, _SCRIPT))


def choose_examples(inspection: Inspection) -> tuple[list[ExampleFigures], list[ExampleFigures]]:
    """The most suspicious examples, and typical ones of low, middle and high pitch, of different recordings.

    Args:
      inspection: What is in the dataset.

    Returns:
      Suspicious and typical examples; the worst and the lowest come first.
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
    facts += [f'f0 by {inspection.estimator}'] if inspection.estimator else []
    digest = f' · digest <code>{inspection.digest[:12]}</code>' if inspection.digest else ''
    words = html.escape(', '.join(facts))
    return f'<p><code>{html.escape(inspection.path)}</code><br>{words}{digest}</p>'


def _tiles(inspection: Inspection) -> str:
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
    shown = ''.join(
        f'<div class="tile"><strong>{html.escape(value)}</strong><span>{html.escape(label)}</span></div>'
        for value, label in tiles
    )
    return f'<div class="tiles">{shown}</div>'


def _findings(findings: Sequence[health.Finding]) -> str:
    if not findings:
        return '<div class="finding good"><b>All well</b>: nothing here keeps a model from learning.</div>'
    return ''.join(
        f'<div class="finding {found.level}"><b>{found.level.capitalize()}</b>: '
        f'{html.escape(found.message)}.<br>{html.escape(found.advice)}</div>'
        for found in findings
    )


def _splits(inspection: Inspection) -> str:
    head = ('Split', 'Examples', 'Audio', 'Voiced', 'Pitch (1 to 99 %)', 'Loudness (1 to 99 %)')
    rows = [
        (split, f'{figures["examples"]:,}', _duration(figures['audio_seconds']),
         _percent(figures['voiced_share']), _pitch_words(figures), _loudness_words(figures))
        for split, figures in inspection.splits.items()
    ]  # fmt: skip
    cells = ''.join(f'<tr>{"".join(f"<td>{html.escape(cell)}</td>" for cell in row)}</tr>' for row in rows)
    names = ''.join(f'<th>{name}</th>' for name in head)
    return f'<div class="scroll"><table><tr>{names}</tr>{cells}</table></div>'


def _cards(title: str, inspection: Inspection, examples: Sequence[ExampleFigures]) -> list[str]:
    """Examples with player and picture."""
    if not examples:
        return []
    cards = ''.join(_card(inspection, example) for example in examples)
    return [f'<h2>{title}</h2>', f'<div class="cards">{cards}</div>']


def _card(inspection: Inspection, example: ExampleFigures) -> str:
    features = {name: np.nan_to_num(values) for name, values in load_example(example).items()}
    samples = int(_PLAYED_SECS * inspection.sample_rate)
    frames = int(_PLAYED_SECS * inspection.frame_rate)
    features = {name: v[: samples if name == 'audio' else frames] for name, v in features.items()}
    name = pathlib.Path(example.source or example.file).name
    place = f'{pathlib.Path(example.file).name}, example {example.index}'
    pitch = f'{_note(example.pitch_midi)}, ' if example.pitch_midi is not None else ''
    figures = f'{pitch}confidence {example.confidence:.2f}, loudest {example.loudness_db:.0f} dB'
    chips = ''.join(f'<span class="chip">{html.escape(w)}</span>' for _, w in health.suspicions(example))
    player = page.audio_player(page.Clip('', features['audio'], inspection.sample_rate))
    drawn = dataset_figures.example(
        features, inspection.sample_rate, inspection.frame_rate, inspection.estimator
    )
    return (
        f'<div class="card"><h3>{html.escape(name)}</h3><p>{html.escape(place)} · {figures}</p>{chips}'
        f'{player}{page.embedded_picture(drawn, f"spectrogram, f0 and loudness of {name}")}</div>'
    )


def _recordings(inspection: Inspection) -> list[str]:
    """The tables of rejected and of all inputs."""
    folder = _common_folder([row['path'] for row in [*inspection.sources, *inspection.rejected]])
    where = f'<p>In <code>{html.escape(folder)}</code></p>' if folder else ''
    parts = []
    if inspection.rejected:
        rows = [
            tuple(row[key].replace(folder, '') for key in ('path', 'reason', 'message'))
            for row in inspection.rejected
        ]
        parts += [f'<h2>Rejected inputs ({len(rows):,})</h2>', where]
        parts.append(_table(('Input', 'Reason', 'Why'), rows, 'rejected.jsonl'))
    if inspection.sources:
        parts += [f'<h2>Inputs ({len(inspection.sources):,})</h2>', where]
        head = ('Input', 'Outcome', 'Split', 'Seconds', 'Rate (Hz)', 'Channels', 'Examples', 'Notes')
        rows = [_source_cells(row, folder) for row in inspection.sources]
        parts.append(_table(head, rows, 'sources.jsonl'))
    return parts


def _common_folder(paths: Sequence[str]) -> str:
    """The folder that all inputs are in, with a slash at its end; '' where there is none."""
    folders = [path.rpartition('/')[0].split('/') for path in paths]
    common = []
    for names in zip(*folders, strict=False):
        if len(set(names)) > 1:
            break
        common.append(names[0])
    return '/'.join(common) + '/' if any(common) else ''


def _source_cells(row: dict[str, Any], folder: str) -> tuple[Any, ...]:
    outcome = f'{row["outcome"]}: {row["reason"]}' if row.get('reason') else row['outcome']
    notes = list(row['warnings'])
    notes += [row['message']] if row['outcome'] == 'duplicate' else []
    return (
        row['path'].removeprefix(folder), outcome, row['split'], row['duration_s'], row['sample_rate'],
        row['channels'], row['examples'] or None, '; '.join(notes),
    )  # fmt: skip


def _table(head: Sequence[str], rows: Sequence[Sequence[Any]], file: str) -> str:
    """A table of bounded size that can be sorted and searched."""
    body = ''.join(f'<tr>{"".join(map(_cell, row))}</tr>' for row in rows[:_MAX_ROWS])
    left = len(rows) - _MAX_ROWS
    more = f'<p>{left:,} more are in <code>{file}</code>.</p>' if left > 0 else ''
    names = ''.join(f'<th>{name}</th>' for name in head)
    return (
        f'<input class="filter" type="search" placeholder="Search" aria-label="Search">'
        f'<div class="table"><table><thead><tr>{names}</tr></thead><tbody>{body}</tbody></table></div>{more}'
    )


def _cell(value: Any) -> str:
    if value is None:
        return '<td></td>'
    if isinstance(value, (int, float)):
        shown = f'{value:,.1f}' if isinstance(value, float) else value
        return f'<td class="number" data-sort="{value}">{shown}</td>'
    return f'<td>{html.escape(str(value))}</td>'


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
