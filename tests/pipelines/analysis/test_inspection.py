"""Inspection of datasets: figures of examples, and what is said to be wrong."""

import dataclasses
import pathlib
import re

import numpy as np
import pytest

from ddsp.io.audio import load_audio, write_wav
from ddsp.io.dataset import DatasetError
from pipelines import PrepareOptions, prepare_dataset
from pipelines.inspect.health import ERROR, NOTE, WARNING, check, suspicions
from pipelines.inspect.inspection import ExampleFigures, Inspection, inspect_dataset, load_example
from pipelines.records import RecordWriter

RATE = 16000


def tone(seconds, hz, level=0.3):
    t = np.arange(int(seconds * RATE)) / RATE
    return level * sum(np.sin(2 * np.pi * k * hz * t) / k for k in range(1, 7))


@pytest.fixture(scope='module')
def odd_dataset(tmp_path_factory):
    """A clipped, a noisy and some good recordings, one that is refused, 5.5 s each."""
    folder = tmp_path_factory.mktemp('odd')
    noise = np.random.default_rng(0).standard_normal(int(5.5 * RATE))
    sounds = {f'good_{hz}': tone(5.5, hz) for hz in (196, 220, 247, 294, 330)}
    sounds['clipped'] = np.clip(6 * tone(5.5, 262), -1, 1)
    sounds['noise'] = 0.1 * noise + tone(5.5, 349, 0.5) * (np.arange(len(noise)) < RATE)
    sounds['silence'] = np.zeros(RATE)
    for name, sound in sounds.items():
        write_wav(folder / f'{name}.wav', sound, RATE)
    options = PrepareOptions(f0='yin', workers=1, example_secs=2.0, splits={'train': 0.8, 'test': 0.2})
    return prepare_dataset(folder, tmp_path_factory.mktemp('data'), 'odd', options=options).path


@pytest.fixture(scope='module')
def inspection(odd_dataset):
    return inspect_dataset(odd_dataset)


def test_every_example_is_read_and_traced_to_its_recording(inspection):
    assert len(inspection.examples) == sum(figures['examples'] for figures in inspection.splits.values())
    by_source = {row['path']: row for row in inspection.sources}
    for path, row in by_source.items():
        mine = [example for example in inspection.examples if example.source == path]
        assert len(mine) == row['examples']
        assert {example.split for example in mine} <= {row['split']}
    example = next(e for e in inspection.examples if e.source.endswith('good_220.wav'))
    assert example.pitch_midi == pytest.approx(57, abs=0.1)  # A3
    assert example.confidence > 0.9
    assert load_example(example)['audio'].max() == pytest.approx(example.peak)


def test_oddities_belong_to_the_right_recordings(inspection):
    def worst(name):
        mine = [e for e in inspection.examples if name in e.source]
        return [words for example in mine for _, words in suspicions(example)]

    assert any(words.startswith('clipped') for words in worst('clipped'))
    assert any(words.startswith('no clear pitch') for words in worst('noise'))
    # The good recordings have only what the tail of each lacks: 1.5 s of its last 2 s are padding at most.
    assert all('padding' in words for words in worst('good'))


def test_padding_is_told_from_sound(inspection):
    shares = sorted(e.padded_share for e in inspection.examples if 'good_196' in e.source)
    assert shares == pytest.approx([0, 0, 0, 0, 0.25], abs=0.01)  # 5.5 s in windows of 2 s every second


def test_a_sample_is_spread_over_all_files(odd_dataset):
    some = inspect_dataset(odd_dataset, examples=3)
    assert len(some.sampled('train')) == 3
    everything = [(e.file, e.index) for e in inspect_dataset(odd_dataset).sampled('train')]
    places = [everything.index((e.file, e.index)) for e in some.sampled('train')]
    assert places[0] == 0
    assert places[-1] == len(everything) - 1


def test_bare_records_say_their_rates_themselves(odd_dataset, inspection):
    bare = inspect_dataset(f'{odd_dataset}/odd-train.tfrecord*')
    assert (bare.sample_rate, bare.frame_rate, bare.example_secs) == (16000, 250, 2.0)
    assert bare.splits['all']['examples'] == inspection.splits['train']['examples']
    assert [e.pitch_midi for e in bare.examples] == [e.pitch_midi for e in inspection.sampled('train')]
    assert not [found for found in check(bare) if found.code in ('no_test', 'dominant', 'rejected')]


def test_bare_records_at_another_rate(tmp_path):
    writer = RecordWriter(tmp_path / 'x.tfrecord-00000-of-00001')
    frames = dict.fromkeys(('f0_hz', 'f0_confidence', 'loudness_db'), np.ones(201, np.float32))
    writer.write({'audio': np.zeros(96000), 'audio_16k': np.zeros(32000), **frames})
    writer.close()
    bare = inspect_dataset(tmp_path)
    assert (bare.sample_rate, bare.frame_rate, bare.example_secs) == (48000, 100, 2.0)


def test_records_without_pitch_are_refused(tmp_path):
    writer = RecordWriter(tmp_path / 'x.tfrecord')
    writer.write({'audio': np.zeros(100)})
    writer.close()
    with pytest.raises(DatasetError, match='example 0 has no feature f0_confidence, f0_hz, loudness_db'):
        inspect_dataset(tmp_path)
    with pytest.raises(DatasetError, match='no dataset'):
        inspect_dataset(tmp_path / 'nowhere')


GOOD = ExampleFigures('train', 'f', 0, 'a.wav', 0.5, 0.0, 3.0, 0.0, 0.9, 0.95, 60.0, 0.0, 0.0, True)
SPLIT = {
    'examples': 100, 'audio_seconds': 600.0, 'voiced_share': 0.8,
    'loudness_db': {'max': 5.0, 'quantiles': list(np.linspace(-60, 5, 101))},
    'pitch_midi': {'quantiles': list(np.linspace(50, 80, 101))},
}  # fmt: skip


def source(path, seconds=60.0, **changes):
    return {'path': path, 'outcome': 'accepted', 'duration_s': seconds, 'warnings': []} | changes


def healthy(example=GOOD, train=None, test=None, **changes):
    """A dataset that is as it should be, but for what is changed."""
    splits = {'train': SPLIT | (train or {})}
    if test is not None or 'no_test' not in changes:
        splits['test'] = SPLIT | (test or {})
    changes.pop('no_test', None)
    content = {
        'path': 'd', 'name': 'd', 'version': '1.0.0', 'digest': 'x', 'sample_rate': 16000, 'frame_rate': 250,
        'example_secs': 4.0, 'estimator': 'yin', 'splits': splits, 'rejected': [], 'frames': {},
        'sources': [source(name) for name in 'abcdef'], 'examples': [example] * 10,
    }  # fmt: skip
    return Inspection(**(content | changes))


def example(**changes):
    return {'example': dataclasses.replace(GOOD, **changes)}


@pytest.mark.parametrize(
    ('changes', 'level', 'code', 'words'),
    [
        ({'train': {'examples': 0}}, ERROR, 'empty', 'the split train holds no example'),
        ({'train': {'audio_seconds': 12.0}}, WARNING, 'short', 'holds 12 s of audio'),
        (example(finite=False), ERROR, 'not_finite', '10 of 10 examples hold nan or infinity'),
        ({'train': {'loudness_db': {'max': -75.0}}}, ERROR, 'silent', 'the loudest frame has -75 dB'),
        ({'train': {'loudness_db': {'max': -46.0}}}, WARNING, 'quiet', '99 % of the frames are below -46 dB'),
        ({'train': {'voiced_share': 0.05}}, WARNING, 'unpitched', 'only 5 % of the frames have a pitch'),
        ({'no_test': True}, WARNING, 'no_test', 'there is no split test'),
        ({'test': {'examples': 0}}, WARNING, 'no_test', 'there is no split test'),
        ({'test': {'audio_seconds': 2.5}}, WARNING, 'tiny_test', 'the split test holds 2.5 s'),
        (
            {'rejected': [{'reason': 'silent'}] * 2 + [{'reason': 'empty'}]},
            WARNING, 'rejected', r'3 of 9 inputs could not be used \(2 silent, 1 empty\)',
        ),
        (
            {'sources': [source('a', 900.0), source('b'), source('c')]},
            WARNING, 'dominant', 'a is 88 % of the audio',
        ),
        (example(clipped_share=0.01), WARNING, 'clipped', '100 % of the examples are clipped'),
        (
            {'sources': [source('a'), source('b', warnings=['clipped: 3 peaks'])]},
            WARNING, 'clipped', '1 recordings are clipped',
        ),
        (example(padded_share=0.6), WARNING, 'padded', '60 % of the training data is padding'),
        (example(confidence=0.3), WARNING, 'unclear', '100 % of the examples have no clear pitch'),
        (example(jumps_per_sec=5.0), WARNING, 'jumps', 'f0 jumps by more than a fifth in 100 %'),
        (example(edge_share=0.5), WARNING, 'range', 'at the limit of what the estimator yin knows'),
        (
            {'train': {'pitch_midi': {'quantiles': [60.0] * 101}}, 'test': {'pitch_midi': {}}},
            NOTE, 'narrow', 'within 0.0 semitones',
        ),
        (
            {'test': {'pitch_midi': {'quantiles': list(np.linspace(70, 100, 101))}}},
            NOTE, 'unheard', r'6\d % of the pitches of the split test',
        ),
    ],
)  # fmt: skip
def test_each_thing_that_is_wrong_is_named_with_advice(changes, level, code, words):
    (found,) = check(healthy(**changes))
    assert (found.level, found.code) == (level, code)
    assert re.search(words, found.message)
    assert found.advice.endswith('.')


def test_a_good_dataset_has_no_findings():
    assert check(healthy()) == []


def test_the_limits_of_the_estimator_are_noticed(tmp_path):
    """A tone at 30.4 Hz: the lowest that the estimator can give."""
    write_wav(tmp_path / 'low.wav', tone(8, 30.4), RATE)
    write_wav(tmp_path / 'high.wav', tone(8, 400), RATE)
    options = PrepareOptions(f0='yin', workers=1, splits={'train': 1.0})
    result = prepare_dataset(tmp_path, tmp_path / 'data', 'low', options=options)
    shares = {e.source[-8:]: e.edge_share for e in inspect_dataset(result.path).examples}
    assert shares['/low.wav'] > 0.9
    assert shares['high.wav'] == 0


def test_several_voices_are_noticed_and_one_is_not(recordings, tmp_path):
    """Real clips of flute, trumpet and tenor saxophone: alone, and three at once."""
    names = ('flute', 'trumpet', 'tenor')
    clips = {name: sorted(recordings.glob(f'medleysolos_train_{name}_*'))[:6] for name in names}
    for kind in ('one', 'three'):
        (tmp_path / kind).mkdir()
    for i, paths in enumerate(zip(*clips.values(), strict=True)):
        sounds = [load_audio(path) for path in paths]
        sounds = [sound / np.sqrt(np.mean(sound**2)) for sound in sounds]
        together = sum(sound[: min(map(len, sounds))] for sound in sounds)
        write_wav(tmp_path / 'three' / f'{i}.wav', 0.5 * together / np.abs(together).max(), RATE)
        write_wav(tmp_path / 'one' / f'{i}.wav', 0.05 * sounds[i % 3], RATE)
    options = PrepareOptions(f0='yin', workers=1, splits={'train': 1.0}, example_secs=2.0)
    codes = {}
    for kind in ('one', 'three'):
        result = prepare_dataset(tmp_path / kind, tmp_path / 'data', kind, options=options)
        codes[kind] = {found.code for found in check(inspect_dataset(result.path))}
    assert codes['three'] & {'unclear', 'jumps'}
    assert not codes['one'] & {'unclear', 'jumps', 'range', 'clipped'}


def test_a_dataset_in_a_bucket(bucket_server, folder):
    options = PrepareOptions(f0='yin', workers=1)
    prepare_dataset(folder, 'gs://bucket/data', 'notes', options=options)
    found = inspect_dataset('gs://bucket/data/notes')
    assert found.path == 'gs://bucket/data/notes/1.0.0'
    assert len(found.examples) == sum(figures['examples'] for figures in found.splits.values()) == 18
    assert {pathlib.Path(example.source).parent for example in found.examples} == {folder}


@pytest.mark.parametrize(
    'changes',
    [{'audio': 0}, {'audio_16k': 0}, {'loudness_db': 5}, {'f0_hz': 0, 'f0_confidence': 0, 'loudness_db': 0}],
    ids=str,
)
@pytest.mark.parametrize('first', [True, False])
def test_features_whose_lengths_do_not_fit_are_a_sentence(tmp_path, changes, first):
    lengths = {'audio': 16000, 'f0_hz': 250, 'f0_confidence': 250, 'loudness_db': 250}
    writer = RecordWriter(tmp_path / 'x.tfrecord-00000-of-00001')
    for each in ([] if first else [lengths]) + [lengths | changes]:
        writer.write({name: np.ones(length) for name, length in each.items()})
    writer.close()
    with pytest.raises(
        DatasetError, match=rf'example {int(not first)} has features whose lengths do not agree'
    ):
        inspect_dataset(tmp_path)
