"""Whether a dataset can teach a model: what is wrong with it and what to do.

`ddsp inspect` and `ddsp train` say the same.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

from pipelines.inspect.inspection import ExampleFigures, Inspection

ERROR, WARNING, NOTE = 'error', 'warning', 'note'

_SILENT_DB = -70.0
_QUIET_DB = -40.0
_FEW_SECONDS = 120.0
_FEW_VOICED = 0.2
_FEW_TEST_SECONDS = 4.0
_MANY_REJECTED = 0.2
_DOMINANT = 0.5
_NARROW_SEMITONES = 5.0
_UNHEARD_SHARE = 0.1
_CLIPPED_SHARE = 1e-4
_PADDED_SHARE = 0.4
_LOW_CONFIDENCE = 0.7  # with yin 1 of 12 clips of one instrument is below it, 6 of 12 of three at once
_JUMPS_PER_SEC = 2.0
_EDGE_SHARE = 0.05
_SUSPICIOUS_EXAMPLES = 0.1


@dataclasses.dataclass(frozen=True)
class Finding:
    """Something about a dataset that a user should know.

    Attributes:
      level: 'error': training cannot work; 'warning': it will be poor; 'note': good to know.
      code: One word for a machine.
      message: What was found.
      advice: What to do.
    """

    level: str
    code: str
    message: str
    advice: str

    def __str__(self) -> str:
        return f'{self.message}. {self.advice}'


def check(inspection: Inspection) -> list[Finding]:
    """What is wrong with a dataset.

    Args:
      inspection: What `pipelines.inspect.inspection.inspect_dataset` found.

    Returns:
      The findings, errors first; none when all is well.
    """
    found = [finding for rule in _RULES for finding in rule(inspection)]
    return sorted(found, key=lambda finding: (ERROR, WARNING, NOTE).index(finding.level))


def suspicions(example: ExampleFigures) -> list[tuple[float, str]]:
    """What is odd about an example.

    Args:
      example: Its figures.

    Returns:
      Pairs of weight (1 is worth a look) and words, the gravest first.
    """
    silent = example.loudness_db < _SILENT_DB
    found = [
        (10.0 * (not example.finite), 'not finite'),
        (4.0 * silent, f'silent: {example.loudness_db:.0f} dB at most'),
        (
            min(3.0, example.clipped_share / _CLIPPED_SHARE / 10) * (example.clipped_share > _CLIPPED_SHARE),
            f'clipped: {100 * example.clipped_share:.2g} % of the samples at full scale',
        ),
        (
            2.5 * (1 - example.confidence / _LOW_CONFIDENCE) + 0.5
            if example.confidence < _LOW_CONFIDENCE and not silent
            else 0.0,
            f'no clear pitch: confidence {example.confidence:.2f}',
        ),
        (
            min(3.0, example.jumps_per_sec / _JUMPS_PER_SEC) * (example.jumps_per_sec > _JUMPS_PER_SEC),
            f'f0 jumps {example.jumps_per_sec:.1f} times a second',
        ),
        (
            (1 + example.edge_share) * (example.edge_share > _EDGE_SHARE),
            f'f0 at the limit of the estimator in {100 * example.edge_share:.0f} % of the voiced frames',
        ),
        (
            example.padded_share * (example.padded_share > 0.5),
            f'{100 * example.padded_share:.0f} % padding',
        ),
    ]
    return sorted(((weight, words) for weight, words in found if weight > 0), reverse=True)


def _content(inspection: Inspection) -> Iterator[Finding]:
    """Nothing to learn from, or too little."""
    split = inspection.train_split
    figures = inspection.splits.get(split)
    if figures is None or not figures['examples']:
        yield Finding(
            ERROR, 'empty', f'the split {split} holds no example',
            'Prepare the recordings again with a larger share of it, such as --splits train=0.8,test=0.2.',
        )  # fmt: skip
        return
    if figures['audio_seconds'] < _FEW_SECONDS:
        yield Finding(
            WARNING, 'short', f'the split {split} holds {figures["audio_seconds"]:.0f} s of audio',
            'Ten minutes of one instrument are good; with less a model soon knows the recordings by heart.',
        )  # fmt: skip
    broken = sum(not example.finite for example in inspection.sampled(split))
    if broken:
        yield Finding(
            ERROR, 'not_finite',
            f'{broken} of {len(inspection.sampled(split))} examples hold nan or infinity',
            'Prepare the dataset again; `ddsp prepare` refuses such recordings.',
        )  # fmt: skip


def _level(inspection: Inspection) -> Iterator[Finding]:
    """Silent or quiet recordings."""
    loudness = _figures(inspection).get('loudness_db') or {}
    if not loudness:
        return
    loudest = loudness['quantiles'][99] if loudness.get('quantiles') else loudness['max']
    if loudness['max'] < _SILENT_DB:
        yield Finding(
            ERROR, 'silent', f'the loudest frame has {loudness["max"]:.0f} dB: the recordings are silent',
            'Check the recordings and the channel (--channel).',
        )  # fmt: skip
    elif loudest < _QUIET_DB:
        yield Finding(
            WARNING, 'quiet', f'99 % of the frames are below {loudest:.0f} dB: the recordings are very quiet',
            'Raise their level before you prepare them; a model hardly hears them.',
        )  # fmt: skip


def _pitch(inspection: Inspection) -> Iterator[Finding]:
    """Too little pitch, too narrow a range, or a test split that plays other notes."""
    figures = _figures(inspection)
    voiced = figures.get('voiced_share', 1.0)
    if voiced < _FEW_VOICED:
        yield Finding(
            WARNING, 'unpitched', f'only {100 * voiced:.0f} % of the frames have a pitch',
            'The models are for pitched sounds: drop speech, noise and percussion, or cut out long silence.',
        )  # fmt: skip
    quantiles = (figures.get('pitch_midi') or {}).get('quantiles')
    if not quantiles:
        return
    low, high = quantiles[1], quantiles[99]
    if high - low < _NARROW_SEMITONES:
        yield Finding(
            NOTE, 'narrow', f'98 % of the pitches lie within {high - low:.1f} semitones (MIDI {low:.0f} to '
            f'{high:.0f})', 'A model does not know other notes; add recordings over the whole range.',
        )  # fmt: skip
    for split, other in inspection.splits.items():
        theirs = (other.get('pitch_midi') or {}).get('quantiles')
        if split == inspection.train_split or not theirs:
            continue
        outside = sum(not low - 1 <= pitch <= high + 1 for pitch in theirs) / len(theirs)
        if outside > _UNHEARD_SHARE:
            yield Finding(
                NOTE, 'unheard', f'{100 * outside:.0f} % of the pitches of the split {split} are not in the '
                f'training data (MIDI {low:.0f} to {high:.0f})', 'Its figures measure extrapolation, too.',
            )  # fmt: skip


def _test(inspection: Inspection) -> Iterator[Finding]:
    """No data to measure a model with."""
    if not inspection.version:  # bare records have no splits
        return
    advice = 'Prepare with a larger share, such as --splits train=0.8,test=0.2, or with more recordings.'
    test = inspection.splits.get('test')
    if test is None or not test['examples']:
        yield Finding(WARNING, 'no_test', 'there is no split test: nothing says how good a model is', advice)
    elif test['audio_seconds'] < _FEW_TEST_SECONDS:
        yield Finding(
            WARNING, 'tiny_test',
            f'the split test holds {test["audio_seconds"]:.1f} s: its figures say little', advice,
        )  # fmt: skip


def _recordings(inspection: Inspection) -> Iterator[Finding]:
    """Many unusable inputs, or one that outweighs all others."""
    rejected = len(inspection.rejected)
    used = [row for row in inspection.sources if row['outcome'] == 'accepted']
    if rejected and rejected > _MANY_REJECTED * (rejected + len(used)):
        reasons = Counter(row['reason'] for row in inspection.rejected).most_common(3)
        shown = ', '.join(f'{count} {reason}' for reason, count in reasons)
        yield Finding(
            WARNING, 'rejected', f'{rejected} of {rejected + len(used)} inputs could not be used ({shown})',
            'rejected.jsonl says why for each; --max-rejected 0.05 stops a preparation at 5 %.',
        )  # fmt: skip
    seconds = {row['path']: row['duration_s'] or 0.0 for row in used}
    total = sum(seconds.values())
    longest = max(seconds, key=lambda path: seconds[path], default='')
    if len(seconds) > 2 and total and seconds[longest] > _DOMINANT * total:
        yield Finding(
            WARNING, 'dominant', f'{longest} is {100 * seconds[longest] / total:.0f} % of the audio',
            'A model will sound like this recording; use a part of it, or more of the others.',
        )  # fmt: skip


def _sound(inspection: Inspection) -> Iterator[Finding]:
    """What shows in examples: clipping, padding, unclear pitch."""
    sample = inspection.sampled(inspection.train_split)
    clipped = [row for row in inspection.sources if any('clip' in note for note in row['warnings'])]
    share = _share(sample, lambda example: example.clipped_share > _CLIPPED_SHARE)
    if clipped or share > _SUSPICIOUS_EXAMPLES:
        what = f'{len(clipped)} recordings are' if clipped else f'{100 * share:.0f} % of the examples are'
        yield Finding(
            WARNING, 'clipped', f'{what} clipped', 'Distortion is learned too: record at a lower level.'
        )
    padded = sum(example.padded_share for example in sample) / max(1, len(sample))
    if padded > _PADDED_SHARE:
        yield Finding(
            WARNING, 'padded', f'{100 * padded:.0f} % of the training data is padding',
            'Prepare with a smaller --example-secs: the recordings are shorter than the examples.',
        )  # fmt: skip
    unclear = _share(sample, lambda example: example.confidence < _LOW_CONFIDENCE)
    if unclear > 2 * _SUSPICIOUS_EXAMPLES:
        yield Finding(
            WARNING, 'unclear', f'{100 * unclear:.0f} % of the examples have no clear pitch where they sound',
            'Several notes at once, noise or much reverberation: models play one voice. Listen to them with '
            '`ddsp inspect`.',
        )  # fmt: skip
    jumping = _share(sample, lambda example: example.jumps_per_sec > _JUMPS_PER_SEC)
    if jumping > _SUSPICIOUS_EXAMPLES:
        yield Finding(
            WARNING, 'jumps', f'f0 jumps by more than a fifth in {100 * jumping:.0f} % of the examples',
            'The estimator takes octaves for each other: try another (--f0).',
        )  # fmt: skip
    edges = _share(sample, lambda example: example.edge_share > _EDGE_SHARE)
    if edges > _SUSPICIOUS_EXAMPLES / 2:
        yield Finding(
            WARNING, 'range', f'f0 lies at the limit of what the estimator {inspection.estimator} knows in '
            f'{100 * edges:.0f} % of the examples', 'The notes may lie beyond it: try another (--f0).',
        )  # fmt: skip


_RULES: tuple[Callable[[Inspection], Iterator[Finding]], ...] = (
    _content, _level, _pitch, _test, _recordings, _sound,
)  # fmt: skip


def _figures(inspection: Inspection) -> dict[str, Any]:
    return inspection.splits.get(inspection.train_split, {})


def _share(sample: list[ExampleFigures], odd: Callable[[ExampleFigures], bool]) -> float:
    return sum(odd(example) for example in sample) / max(1, len(sample))
