"""Finding recordings and sharing them out."""

import os

import pytest

from ddsp.audio import AudioInfo, write_wav
from ddsp.errors import DDSPError
from pipelines.inputs import Inputs
from pipelines.sources import Source, find_sources, split_sources, survey


def recording(number, seconds=30.0):
    info = AudioInfo(f'{number}.wav', 16000, 1, int(seconds * 16000), 'WAV PCM_16', 'soundfile')
    return Source(f'/{number}.wav', sha256=f'{number:064x}', info=info)


def test_the_split_of_a_recording_depends_on_its_content_alone():
    sources = [recording(i) for i in range(200)]
    splits = {'train': 0.7, 'valid': 0.1, 'test': 0.2}
    chosen = {piece.sha256: piece.split for piece in split_sources(sources, splits)}
    fewer = {piece.sha256: piece.split for piece in split_sources(sources[::2], splits)}
    assert all(chosen[key] == split for key, split in fewer.items())
    shares = [list(chosen.values()).count(name) / 200 for name in splits]
    assert shares == pytest.approx([0.7, 0.1, 0.2], abs=0.07)


@pytest.mark.parametrize('count', [4, 5, 7])
def test_no_split_stays_empty(count):
    for first in range(0, 200, 10):
        pieces = split_sources([recording(first + i) for i in range(count)], {'train': 0.95, 'test': 0.05})
        assert {piece.split for piece in pieces} == {'train', 'test'}
        assert len(pieces) == count


@pytest.mark.parametrize('count', [1, 3])
def test_few_long_recordings_are_split_by_time(count):
    pieces = split_sources([recording(i, 60.0) for i in range(count)], {'train': 0.8, 'test': 0.2})
    assert len(pieces) == 2 * count
    for train, test in zip(pieces[::2], pieces[1::2], strict=True):
        assert (train.split, train.start_s, train.end_s) == ('train', 0.0, pytest.approx(48.0))
        assert (test.split, test.start_s, test.end_s) == ('test', train.end_s, None)


def test_a_few_short_recordings_are_not_cut():
    pieces = split_sources([recording(i, 6.0) for i in range(3)], {'train': 0.8, 'test': 0.2})
    assert [(piece.start_s, piece.end_s) for piece in pieces] == [(0.0, None)] * 3


def test_one_split_takes_everything():
    pieces = split_sources([recording(i) for i in range(3)], {'train': 1.0})
    assert [piece.split for piece in pieces] == ['train'] * 3


def test_files_folders_and_patterns_give_each_file_once(tmp_path):
    for name in ('a.wav', 'b.WAV', 'deep/c.flac', 'deep/d.txt'):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b'x')
    found = find_sources(
        [tmp_path, str(tmp_path / '*.wav'), str(tmp_path / '**' / '*.flac'), tmp_path / 'a.wav']
    )
    assert [os.path.relpath(source.path, tmp_path) for source in found] == [
        'a.wav',
        'b.WAV',
        'deep/c.flac',
        'deep/d.txt',
    ]
    assert [source.outcome for source in found] == ['', '', '', 'skipped']
    named = find_sources(tmp_path / 'deep' / 'd.txt')  # asked for by name: it is looked into
    assert named[0].outcome == ''


def test_a_survey_fills_in_what_there_is_to_know(tmp_path):
    write_wav(tmp_path / 'a.wav', [0.1] * 16000, 16000)
    (tmp_path / 'b.wav').write_bytes((tmp_path / 'a.wav').read_bytes())
    (tmp_path / 'c.wav').write_text('no audio')
    rows = find_sources(tmp_path)
    calls = []
    survey(rows, Inputs(tmp_path), lambda *call: calls.append(call))
    assert [row.outcome for row in rows] == ['', 'duplicate', 'rejected']
    assert rows[0].info.duration_s == 1.0
    assert rows[0].sha256 == rows[1].sha256
    assert rows[2].reason == 'not_audio'
    assert calls[-1] == (3, 3)


def test_a_folder_without_audio_is_an_error(tmp_path):
    with pytest.raises(DDSPError, match='holds no audio files'):
        find_sources(tmp_path)
