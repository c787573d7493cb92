"""Whether a dataset can teach a model: what is wrong with it and what to do.

`ddsp inspect` and `ddsp train` say the same.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

from pipelines.analysis import quality
from pipelines.inspect.inspection import ExampleFigures, Inspection

ERROR, WARNING, NOTE = 'error', 'warning', 'note'

_SHARES = 'Prepare with a larger share, such as --splits train=0.8,test=0.2, or with more recordings.'
# Code of each finding: its level and what to do.
_FINDINGS = {
    'empty': (ERROR, _SHARES),
    'not_finite': (ERROR, 'Prepare the dataset again; `ddsp prepare` refuses such recordings.'),
    'silent': (ERROR, 'Check the recordings and the channel (--channel).'),
    'short': (WARNING, 'Ten minutes of one instrument are good; with less a model learns them by heart.'),
    'quiet': (WARNING, 'Raise their level (--normalize loudness:-20); a model hardly hears them.'),
    'unpitched': (WARNING, 'The models are for pitched sounds: leave out speech, noise and long silence.'),
    'no_test': (WARNING, _SHARES),
    'tiny_test': (WARNING, _SHARES),
    'rejected': (WARNING, 'rejected.jsonl says why; --max-rejected 0.05 stops a preparation at 5 %.'),
    'dominant': (WARNING, 'A model will sound like this recording; use a part of it, or more of the others.'),
    'clipped': (WARNING, 'Distortion is learned too: record at a lower level.'),
    'padded': (WARNING, 'Use a smaller --example-secs: the recordings are shorter than the examples.'),
    'unclear': (WARNING, 'Models play one voice: look with `ddsp inspect` for chords, noise and echoes.'),
    'jumps': (WARNING, 'The estimator takes octaves for each other: try another (--f0).'),
    'range': (WARNING, 'The notes may lie beyond it: try another (--f0).'),
    'narrow': (NOTE, 'A model does not know other notes; add recordings over the whole range.'),
    'unheard': (NOTE, 'Its figures measure extrapolation, too.'),
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Finding:
    """Something about a dataset that a user should know.

    The level 'error' says that training cannot work, 'warning' that it will be poor; `code` is for machines.
    """

    level: str
    code: str
    message: str
    advice: str

    def __str__(self) -> str:
        return f'{self.message}. {self.advice}'


def check(inspection: Inspection) -> list[Finding]:
    """What is wrong with a dataset, errors first; nothing when all is well."""
    found = []
    for code, message in (finding for rule in _RULES for finding in rule(inspection)):
        level, advice = _FINDINGS[code]
        found.append(Finding(level, code, message, advice))
    return sorted(found, key=lambda finding: (ERROR, WARNING, NOTE).index(finding.level))


def suspicions(example: ExampleFigures) -> list[tuple[float, str]]:
    """What is odd about an example: pairs of weight (1 is worth a look) and words, the gravest first."""
    found = []
    silent = example.loudness_db < quality.SILENT_DB
    unclear = example.confidence / quality.LOW_CONFIDENCE
    clipped = example.clipped_share / quality.CLIPPED_SHARE
    jumps = example.jumps_per_sec / quality.JUMPS_PER_SEC
    if not example.finite:
        found.append((10.0, 'not finite'))
    if silent:
        found.append((4.0, f'silent: {example.loudness_db:.0f} dB at most'))
    elif unclear < 1:
        found.append((3.0 - 2.5 * unclear, f'no clear pitch: confidence {example.confidence:.2f}'))
    if clipped > 1:
        words = f'clipped: {100 * example.clipped_share:.2g} % of the samples at full scale'
        found.append((min(3.0, clipped / 10), words))
    if jumps > 1:
        found.append((min(3.0, jumps), f'f0 jumps {example.jumps_per_sec:.1f} times a second'))
    if example.edge_share > quality.EDGE_SHARE:
        words = f'f0 at the limit of the estimator in {100 * example.edge_share:.0f} % of the voiced frames'
        found.append((1 + example.edge_share, words))
    if example.padded_share > 0.5:
        found.append((example.padded_share, f'{100 * example.padded_share:.0f} % padding'))
    return sorted(found, reverse=True)


Found = Iterator[tuple[str, str]]


def _content(inspection: Inspection) -> Found:
    """Nothing to learn from, or too little."""
    split, sample = inspection.train_split, inspection.sampled(inspection.train_split)
    figures = _figures(inspection)
    if not figures.get('examples'):
        yield 'empty', f'the split {split} holds no example'
        return
    if figures['audio_seconds'] < quality.FEW_SECS:
        yield 'short', f'the split {split} holds {figures["audio_seconds"]:.0f} s of audio'
    broken = sum(not example.finite for example in sample)
    if broken:
        yield 'not_finite', f'{broken} of {len(sample)} examples hold nan or infinity'


def _level(inspection: Inspection) -> Found:
    """Silent or quiet recordings."""
    loudness = _figures(inspection).get('loudness_db') or {}
    if not loudness:
        return
    loudest = loudness['quantiles'][99] if loudness.get('quantiles') else loudness['max']
    if loudness['max'] < quality.SILENT_DB:
        yield 'silent', f'the loudest frame has {loudness["max"]:.0f} dB: the recordings are silent'
    elif loudest < quality.QUIET_DB:
        yield 'quiet', f'99 % of the frames are below {loudest:.0f} dB: the recordings are very quiet'


def _pitch(inspection: Inspection) -> Found:
    """Too little pitch, too narrow a range, or a test split that plays other notes."""
    figures = _figures(inspection)
    voiced = figures.get('voiced_share', 1.0)
    if voiced < quality.FEW_VOICED_SHARE:
        yield 'unpitched', f'only {100 * voiced:.0f} % of the frames have a pitch'
    quantiles = (figures.get('pitch_midi') or {}).get('quantiles')
    if not quantiles:
        return
    low, high = quantiles[1], quantiles[99]
    span = f'(MIDI {low:.0f} to {high:.0f})'
    if high - low < quality.NARROW_SEMITONES:
        yield 'narrow', f'98 % of the pitches lie within {high - low:.1f} semitones {span}'
    for split, other in inspection.splits.items():
        theirs = (other.get('pitch_midi') or {}).get('quantiles')
        if split == inspection.train_split or not theirs:
            continue
        outside = sum(not low - 1 <= pitch <= high + 1 for pitch in theirs) / len(theirs)
        if outside > quality.UNHEARD_SHARE:
            share = f'{100 * outside:.0f} % of the pitches of the split {split}'
            yield 'unheard', f'{share} are not in the training data {span}'


def _test(inspection: Inspection) -> Found:
    """No data to measure a model with."""
    if not inspection.version:  # bare records have no splits
        return
    test = inspection.splits.get('test')
    if test is None or not test['examples']:
        yield 'no_test', 'there is no split test: nothing says how good a model is'
    elif test['audio_seconds'] < quality.FEW_TEST_SECS:
        yield 'tiny_test', f'the split test holds {test["audio_seconds"]:.1f} s: its figures say little'


def _recordings(inspection: Inspection) -> Found:
    """Many unusable inputs, or one that outweighs all others."""
    rejected = len(inspection.rejected)
    used = [row for row in inspection.sources if row['outcome'] == 'accepted']
    if rejected and rejected > quality.MANY_REJECTED_SHARE * (rejected + len(used)):
        reasons = Counter(row['reason'] for row in inspection.rejected).most_common(3)
        shown = ', '.join(f'{count} {reason}' for reason, count in reasons)
        yield 'rejected', f'{rejected} of {rejected + len(used)} inputs could not be used ({shown})'
    seconds = {row['path']: row['duration_s'] or 0.0 for row in used}
    total = sum(seconds.values())
    longest = max(seconds, key=lambda path: seconds[path], default='')
    if len(seconds) > 2 and total and seconds[longest] > quality.DOMINANT_SHARE * total:
        yield 'dominant', f'{longest} is {100 * seconds[longest] / total:.0f} % of the audio'


def _sound(inspection: Inspection) -> Found:
    """What shows in examples: clipping, padding, unclear pitch."""
    sample = inspection.sampled(inspection.train_split)

    def share(odd: Callable[[ExampleFigures], bool]) -> float:
        return sum(map(odd, sample)) / max(1, len(sample))

    recordings = sum(any('clip' in note for note in row['warnings']) for row in inspection.sources)
    clipped = share(lambda example: example.clipped_share > quality.CLIPPED_SHARE)
    if recordings or clipped > quality.SUSPICIOUS_SHARE:
        what = f'{recordings} recordings' if recordings else f'{100 * clipped:.0f} % of the examples'
        yield 'clipped', f'{what} are clipped'
    padded = sum(example.padded_share for example in sample) / max(1, len(sample))
    if padded > quality.PADDED_SHARE:
        yield 'padded', f'{100 * padded:.0f} % of the training data is padding'
    unclear = share(lambda example: example.confidence < quality.LOW_CONFIDENCE)
    if unclear > 2 * quality.SUSPICIOUS_SHARE:
        yield 'unclear', f'{100 * unclear:.0f} % of the examples have no clear pitch where they sound'
    jumping = share(lambda example: example.jumps_per_sec > quality.JUMPS_PER_SEC)
    if jumping > quality.SUSPICIOUS_SHARE:
        yield 'jumps', f'f0 jumps by more than a fifth in {100 * jumping:.0f} % of the examples'
    edges = share(lambda example: example.edge_share > quality.EDGE_SHARE)
    if edges > quality.SUSPICIOUS_SHARE / 2:
        known = f'the limit of what the estimator {inspection.estimator} knows'
        yield 'range', f'f0 lies at {known} in {100 * edges:.0f} % of the examples'


_RULES: tuple[Callable[[Inspection], Found], ...] = (_content, _level, _pitch, _test, _recordings, _sound)


def _figures(inspection: Inspection) -> dict[str, Any]:
    return inspection.splits.get(inspection.train_split, {})
