"""Odd and broken inputs: each ends as it should, says why in words, and stops no other."""

import json
import os
import re

import numpy as np
import pytest
import soundfile

from pipelines import PrepareOptions, prepare_dataset

from . import odd_inputs
from .odd_inputs import tone

RATE = 16000


def outcomes(folder, root, **options):
    chosen = {'splits': {'train': 1.0}, 'workers': 1} | options
    result = prepare_dataset(folder, root, 'odd', options=PrepareOptions(**chosen))
    lines = (result.path / 'sources.jsonl').read_text().splitlines()
    return result, {os.path.relpath(row['path'], folder): row for row in map(json.loads, lines)}


def test_every_odd_input_ends_as_it_should(tmp_path, ffmpeg):
    folder = tmp_path / 'odd'
    folder.mkdir()
    expected = odd_inputs.write(folder)
    assert len(expected) > 80
    _, rows = outcomes(folder, tmp_path / 'data')
    assert set(rows) == set(expected)
    wrong = {}
    for name, odd in expected.items():
        row = rows[name]
        fate = row['outcome'] if row['outcome'] in ('accepted', 'duplicate') else row['reason']
        message = row.get('message', '')
        if fate != odd.fate or odd.words not in ' '.join([*row['warnings'], message]):
            wrong[name] = odd.fate, odd.words, row
        if (
            row['outcome'] == 'rejected'
        ):  # a reason that a person understands: the file and what is the matter
            assert os.path.basename(name) in message
            assert not re.search(r'Error|Internal|Traceback|errno', message)
    assert not wrong


def test_tones_beyond_the_range_are_kept_with_a_note(tmp_path):
    folder = tmp_path / 'in'
    folder.mkdir()
    sounds = {
        'low': tone(25, partials=40),
        'high': tone(3500, partials=2),
        'one': tone(220),
        'noise': np.random.default_rng(1).normal(0, 0.1, 3 * RATE),
    }
    for name, sound in sounds.items():
        soundfile.write(folder / f'{name}.wav', sound, RATE, subtype='FLOAT')
    result, rows = outcomes(folder, tmp_path / 'data', f0='yin')
    notes = {name: ' '.join(rows[f'{name}.wav']['warnings']) for name in sounds}
    assert 'tone of about 25 Hz' in notes['low']
    assert 'tone of about 3500 Hz' in notes['high']
    assert 'several' not in ' '.join(notes.values())
    assert rows['noise.wav']['reason'] == 'unpitched'
    assert result.accepted == 3


def test_real_music_is_told_from_chords(recordings, tmp_path):
    one = ['sms_cello-phrase.wav', 'sms_flute-A4.wav', 'vocadito_14.wav', 'voice_operatic_anechoic.wav']
    several = ['sms_cello-double.wav', 'sms_cello-double-2.wav', 'sms_carnatic.wav']
    folder = tmp_path / 'in'
    folder.mkdir()
    for name in one + several:
        (folder / name).symlink_to(recordings / name)
    pytest.importorskip('swift_f0')
    _, rows = outcomes(folder, tmp_path / 'data', f0='swift')
    marked = [name for name in rows if 'several notes' in ' '.join(rows[name]['warnings'])]
    assert sorted(marked) == sorted(several)


@pytest.mark.parametrize(
    ('field', 'offset', 'value', 'words'),
    [
        ('rate', 24, b'\0\0\0\0', 'a sample rate of 0 Hz'),
        ('channels', 22, b'\xff\xff', '65535 channels'),
        ('codec', 20, b'\x7a\x7a', 'a coding that is not known here (0x7a7a)'),
    ],
)
def test_a_header_that_makes_no_sense_is_explained(field, offset, value, words, tmp_path):
    folder = tmp_path / 'in'
    folder.mkdir()
    soundfile.write(folder / 'good.wav', tone(220), RATE)
    content = bytearray((folder / 'good.wav').read_bytes())
    content[offset : offset + len(value)] = value
    (folder / f'{field}.wav').write_bytes(content)
    _, rows = outcomes(folder, tmp_path / 'data', f0='yin')
    assert rows[f'{field}.wav']['reason'] == 'unsupported'
    assert words in rows[f'{field}.wav']['message']
    assert rows['good.wav']['outcome'] == 'accepted'


def test_the_same_samples_in_another_container_are_used_once(tmp_path):
    folder = tmp_path / 'in'
    folder.mkdir()
    sound = np.round(tone(220) * 32767).astype(np.int16)
    almost = sound.copy()
    almost[-1] += 1
    soundfile.write(folder / 'a.wav', sound, RATE)
    soundfile.write(folder / 'b.flac', sound, RATE)
    soundfile.write(folder / 'c.aiff', np.stack((sound, sound), axis=1), RATE)
    soundfile.write(folder / 'd.wav', (sound / 32768).astype(np.float32), RATE, subtype='FLOAT')
    soundfile.write(folder / 'e.flac', almost, RATE)  # differs in its last sample
    soundfile.write(folder / 'f.wav', np.stack((sound, sound // 2), axis=1), RATE)
    soundfile.write(folder / 'g.wav', sound, RATE + 50)
    result, rows = outcomes(folder, tmp_path / 'data', f0='yin')
    copies = {name for name, row in rows.items() if row['outcome'] == 'duplicate'}
    assert copies == {'b.flac', 'c.aiff', 'd.wav'}
    assert all(
        'the same samples as' in rows[name]['message'] and 'a.wav' in rows[name]['message'] for name in copies
    )
    assert (result.accepted, result.duplicates) == (4, 3)


def test_a_folder_named_like_a_file_is_passed_over(tmp_path):
    folder = tmp_path / 'in'
    (folder / 'sound.wav').mkdir(parents=True)
    soundfile.write(folder / 'good.wav', tone(220), RATE)
    _, rows = outcomes(folder, tmp_path / 'data', f0='yin')
    assert (rows['sound.wav']['outcome'], rows['sound.wav']['reason']) == ('skipped', 'folder')


def test_upsampling_is_noted(tmp_path):
    folder = tmp_path / 'in'
    folder.mkdir()
    soundfile.write(folder / 'old.wav', tone(220, rate=8000), 8000)
    _, rows = outcomes(folder, tmp_path / 'data', f0='yin')
    assert 'upsampled from 8000 Hz: nothing above 4000 Hz' in rows['old.wav']['warnings']
