"""Decoding, resampling and writing of audio files."""

import os
import pathlib
import pickle
import signal
import struct
import subprocess
import threading

import numpy as np
import pytest
import soundfile

from ddsp.errors import ConfigError
from ddsp.io import decoding
from ddsp.io.audio import AudioError, StreamResampler, load_audio, probe, read_blocks, write_wav


def tone(rate, seconds=1.0, hz=220.0, amplitude=0.3):
    return (amplitude * np.sin(2 * np.pi * hz * np.arange(int(rate * seconds)) / rate)).astype(np.float32)


def level(audio, hz, rate):
    """Amplitude of a sine in the middle half of a signal."""
    middle = audio[len(audio) // 4 : -len(audio) // 4]
    t = np.arange(len(middle)) / rate
    return 2 * abs(np.mean(middle * np.exp(-2j * np.pi * hz * t)))


@pytest.mark.parametrize(
    ('subtype', 'tolerance'),
    [('PCM_U8', 1e-2), ('PCM_16', 4e-5), ('PCM_24', 2e-7), ('PCM_32', 1e-7), ('FLOAT', 0), ('DOUBLE', 0)],
)
def test_every_sample_width_of_wav_is_read(tmp_path, subtype, tolerance):
    audio = tone(16000)
    soundfile.write(tmp_path / 'a.wav', audio, 16000, subtype=subtype)
    assert np.abs(load_audio(tmp_path / 'a.wav') - audio).max() <= tolerance


@pytest.mark.parametrize('container', ['flac', 'ogg', 'mp3', 'aiff', 'caf', 'w64', 'rf64', 'au'])
def test_formats_of_libsndfile_are_read_whatever_the_file_is_called(tmp_path, container):
    soundfile.write(tmp_path / 'named.wav', tone(44100), 44100, format=container)
    loaded = load_audio(tmp_path / 'named.wav', None)
    assert abs(len(loaded) - 44100) < 3000
    assert level(loaded, 220, 44100) == pytest.approx(0.3, rel=0.02)


def test_m4a_is_read_through_ffmpeg(tmp_path, ffmpeg):
    write_wav(tmp_path / 'a.wav', tone(44100, 2), 44100)
    subprocess.run([ffmpeg, '-v', 'error', '-i', tmp_path / 'a.wav', tmp_path / 'a.m4a'], check=True)
    info = probe(tmp_path / 'a.m4a')
    assert (info.decoder, info.sample_rate, info.channels) == ('ffmpeg', 44100, 1)
    assert level(load_audio(tmp_path / 'a.m4a'), 220, 16000) == pytest.approx(0.3, rel=0.02)


def test_a_playlist_that_is_called_audio_pulls_in_no_neighbours(tmp_path, ffmpeg):
    write_wav(tmp_path / 'secret.wav', tone(16000), 16000)
    subprocess.run(
        [ffmpeg, '-v', 'error', '-i', tmp_path / 'secret.wav', tmp_path / 'secret.aac'], check=True
    )
    sound = tmp_path / 'secret.wav'
    playlists = {
        'ffconcat version 1.0\nfile secret.wav\n',
        f"ffconcat version 1.0\nfile '{sound}'\n",
        f'ffconcat version 1.0\nfile file:{sound}\n',
        '#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nsecret.aac\n#EXT-X-ENDLIST\n',
        f'#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nfile://{tmp_path}/secret.aac\n#EXT-X-ENDLIST\n',
        '#EXTM3U\nsecret.wav\n',
        'v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio 5004 RTP/AVP 0\n',
        '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static"><Period>'
        '<AdaptationSet '
        'mimeType="audio/mp4"><Representation id="0"><BaseURL>secret.wav</BaseURL></Representation>'
        '</AdaptationSet></Period></MPD>',
        ';FFMETADATA1\ntitle=x\n',
        '<asx version="3.0"><entry><ref href="secret.wav"/></entry></asx>',
        '[playlist]\nFile1=secret.wav\nNumberOfEntries=1\n',
        'RTSPtextRTSP://127.0.0.1/x\n',
    }
    for i, text in enumerate(playlists):
        for suffix in ('m4a', 'wav', 'ffconcat', 'm3u8', 'mpd'):
            (tmp_path / f'{i}.{suffix}').write_text(text)
            with pytest.raises(AudioError) as caught:
                load_audio(tmp_path / f'{i}.{suffix}')
            assert caught.value.reason == 'not_audio'


@pytest.fixture
def long_m4a(tmp_path, ffmpeg):
    """Two minutes: more than ffmpeg decodes before anybody reads."""
    command = [ffmpeg, '-v', 'error', '-f', 'lavfi', '-i', 'sine=duration=120', tmp_path / 'long.m4a']
    subprocess.run(command, check=True)
    return tmp_path / 'long.m4a'


def kill_children(sign):
    children = pathlib.Path(f'/proc/self/task/{threading.get_native_id()}/children').read_text().split()
    assert children
    for child in children:
        os.kill(int(child), sign)


@pytest.mark.parametrize('sign', [signal.SIGKILL, signal.SIGTERM])
def test_a_decoder_that_is_killed_half_way_is_no_end_of_the_sound(long_m4a, sign):
    blocks = read_blocks(long_m4a, None, block_secs=1.0)
    next(blocks)
    kill_children(sign)
    with pytest.raises(AudioError, match=r'ffmpeg stopped after \d+\.\d\d s of 120\.\d\d s') as caught:
        list(blocks)
    assert caught.value.reason == 'truncated'


def programs(folder, monkeypatch, **scripts):
    """Programs of our own in front of all others."""
    for name, script in scripts.items():
        (folder / name).write_text(f'#!/bin/sh\n{script}\n')
        (folder / name).chmod(0o755)
    monkeypatch.setenv('PATH', f'{folder}{os.pathsep}{os.environ["PATH"]}')


def test_a_decoder_that_fails_after_half_the_sound_is_noticed(long_m4a, ffmpeg, tmp_path, monkeypatch):
    programs(tmp_path, monkeypatch, ffmpeg=f'"{ffmpeg}" "$@" | head -c 400000; echo "no luck" >&2; exit 3')
    with pytest.raises(AudioError, match=r'ffmpeg stopped after 2\.27 s of 120\.\d\d s \(no luck\)'):
        load_audio(long_m4a)
    programs(tmp_path, monkeypatch, ffmpeg=f'"{ffmpeg}" "$@" | head -c 400000; exit 0')
    notes = []
    list(read_blocks(long_m4a, warnings=notes))
    assert any('ends after 2.27 s of 120.' in note for note in notes)


def test_a_probe_that_takes_too_long_is_a_reason_of_its_own(long_m4a, tmp_path, monkeypatch):
    programs(tmp_path, monkeypatch, ffprobe='exec sleep 60')
    monkeypatch.setattr(decoding, '_PROBE_SECS', 0.2)
    with pytest.raises(AudioError, match=r'long\.m4a: ffprobe did not find out in 0\.2 s') as caught:
        probe(long_m4a)
    assert caught.value.reason == 'timeout'


@pytest.mark.parametrize('channel', ['left', '', 'Mix', -1, 64, 1.0, True, None])
def test_a_channel_that_cannot_be_is_refused(tmp_path, channel):
    write_wav(tmp_path / 'a.wav', tone(16000), 16000)
    with pytest.raises(ConfigError, match=r"channel is .*; it must be 'mix' or a number from 0 to 63"):
        load_audio(tmp_path / 'a.wav', channel=channel)


def test_what_ffmpeg_could_read_says_whether_it_is_there(tmp_path, ffmpeg, monkeypatch):
    (tmp_path / 'a.m4a').write_bytes(b'\x00\x00\x00\x20ftypM4A ' + bytes(200))
    with pytest.raises(AudioError, match='but ffmpeg finds no sound in it'):
        probe(tmp_path / 'a.m4a')
    monkeypatch.setenv('PATH', str(tmp_path))
    with pytest.raises(AudioError, match='these are read when ffmpeg is installed'):
        probe(tmp_path / 'a.m4a')


def test_a_written_file_keeps_to_the_umask(tmp_path):
    old = os.umask(0o077)
    try:
        write_wav(tmp_path / 'a.wav', tone(16000), 16000)
        os.umask(0o022)
        write_wav(tmp_path / 'b.wav', tone(16000), 16000)
    finally:
        os.umask(old)
    assert [(tmp_path / name).stat().st_mode & 0o777 for name in ('a.wav', 'b.wav')] == [0o600, 0o644]


@pytest.mark.parametrize('rate', [8000, 11025, 22050, 44056, 48000, 96000])
def test_resampling_keeps_the_tone_and_the_length(tmp_path, rate):
    write_wav(tmp_path / 'a.wav', tone(rate, 2), rate, subtype='FLOAT')
    loaded = load_audio(tmp_path / 'a.wav', 16000)
    assert abs(len(loaded) - 32000) <= 1
    assert level(loaded, 220, 16000) == pytest.approx(0.3, rel=1e-3)
    # No delay: the phase is that of a sine that begins at sample 0.
    middle = slice(8000, 24000)
    assert np.abs(loaded[middle] - tone(16000, 2)[middle]).max() < 2e-3


def test_what_a_lower_rate_cannot_hold_does_not_fold_back(tmp_path):
    write_wav(tmp_path / 'a.wav', tone(48000, 1, 11000), 48000)
    assert np.abs(load_audio(tmp_path / 'a.wav', 16000)[2000:-2000]).max() < 1e-3


@pytest.mark.parametrize('block_secs', [0.01, 0.37, 5.0])
def test_blocks_are_the_same_samples_whatever_their_length(tmp_path, block_secs):
    write_wav(tmp_path / 'a.wav', tone(44100, 3.3), 44100)
    streamed = np.concatenate(list(read_blocks(tmp_path / 'a.wav', 16000, block_secs=block_secs)))
    np.testing.assert_array_equal(streamed, load_audio(tmp_path / 'a.wav', 16000))


def test_stream_resampler_passes_equal_rates_through():
    resampler = StreamResampler(16000, 16000)
    audio = tone(16000)
    np.testing.assert_array_equal(resampler(audio), audio)
    assert len(resampler.flush()) == 0


def test_channels_are_averaged_or_chosen(tmp_path):
    left, right = tone(16000, hz=200), tone(16000, hz=300)
    soundfile.write(tmp_path / 'a.wav', np.stack([left, right], 1), 16000, subtype='FLOAT')
    np.testing.assert_allclose(load_audio(tmp_path / 'a.wav'), (left + right) / 2, atol=1e-7)
    np.testing.assert_allclose(load_audio(tmp_path / 'a.wav', channel=1), right, atol=1e-7)
    with pytest.raises(AudioError, match=r'has 2 channel\(s\), no channel 2'):
        load_audio(tmp_path / 'a.wav', channel=2)


def test_channels_that_cancel_do_not_become_silence(tmp_path):
    left = np.concatenate([np.zeros(4000, np.float32), tone(16000)])  # begins with silence
    soundfile.write(tmp_path / 'a.wav', np.stack([left, -left], 1), 16000, subtype='FLOAT')
    warnings = []
    audio = np.concatenate(list(read_blocks(tmp_path / 'a.wav', warnings=warnings)))
    np.testing.assert_allclose(audio, left, atol=1e-7)
    assert warnings == ['the channels cancel when mixed: channel 0 is used']


def test_constant_offset_is_taken_out_and_said(tmp_path):
    write_wav(tmp_path / 'a.wav', tone(16000, 2) * 0.5 + 0.4, 16000)
    warnings = []
    audio = np.concatenate(list(read_blocks(tmp_path / 'a.wav', warnings=warnings)))
    assert abs(audio.mean()) < 1e-3
    assert level(audio, 220, 16000) == pytest.approx(0.15, rel=0.01)
    assert warnings == ['a constant offset was taken out (high-pass at 5 Hz)']


@pytest.mark.parametrize(
    ('audio', 'warning'),
    [
        (np.clip(tone(16000) * 12, -1, 1), 'clipped'),
        (tone(16000, amplitude=4.0), 'above full scale: the peak is 4.00'),
    ],
)
def test_bad_levels_are_said(tmp_path, audio, warning):
    write_wav(tmp_path / 'a.wav', audio, 16000, subtype='FLOAT')
    warnings = []
    list(read_blocks(tmp_path / 'a.wav', warnings=warnings))
    assert len(warnings) == 1
    assert warning in warnings[0]


def test_upsampling_is_said(tmp_path):
    write_wav(tmp_path / 'a.wav', tone(8000), 8000)
    warnings = []
    list(read_blocks(tmp_path / 'a.wav', 16000, warnings=warnings))
    assert warnings == ['upsampled from 8000 Hz: nothing above half of that rate']


def wav_header(data_bytes, channels=1, rate=16000, tag=1):
    body = b'WAVEfmt ' + struct.pack(
        '<IHHIIHH', 16, tag, channels, rate, rate * 2, 2 if channels < 9 else 0, 16
    )
    body += b'data' + struct.pack('<I', data_bytes)
    return b'RIFF' + struct.pack('<I', min(len(body) + data_bytes, 2**32 - 1)) + body


SAMPLES = (tone(16000) * 32767).astype('<i2').tobytes()


@pytest.mark.parametrize(
    ('content', 'reason', 'text'),
    [
        (b'', 'empty', r'bad\.wav is empty \(0 bytes\)'),
        (b'just text\n' * 100, 'not_audio', r'bad\.wav is not audio that can be read'),
        (wav_header(100)[:20], 'truncated', 'cut off inside its header'),
        (wav_header(0), 'no_samples', 'holds no samples'),
        (wav_header(32000, channels=0) + SAMPLES, 'unsupported', '0 channels; 1 to 64 can be read'),
        (wav_header(32000, channels=65535) + SAMPLES, 'unsupported', '65535 channels'),
        (wav_header(32000, rate=0) + SAMPLES, 'unsupported', 'a sample rate of 0 Hz'),
        (wav_header(32000, tag=0x7A7A) + SAMPLES, 'unsupported', 'not known here .0x7a7a'),
        (b'\x00\x00\x00\x20ftypM4A ' + bytes(200), 'not_audio', 'It looks like m4a'),
    ],
)
def test_files_that_are_no_audio_have_one_clear_reason(tmp_path, content, reason, text):
    (tmp_path / 'bad.wav').write_bytes(content)
    with pytest.raises(AudioError, match=text) as caught:
        load_audio(tmp_path / 'bad.wav')
    assert caught.value.reason == reason
    assert '\n' not in str(caught.value)


@pytest.mark.parametrize(
    ('value', 'reason'), [(np.nan, 'not_finite'), (np.inf, 'not_finite'), (3e29, 'out_of_range')]
)
def test_samples_that_are_no_sound_are_refused(tmp_path, value, reason):
    audio = tone(16000)
    audio[1000] = value
    soundfile.write(tmp_path / 'a.wav', audio, 16000, subtype='FLOAT')
    with pytest.raises(AudioError) as caught:
        load_audio(tmp_path / 'a.wav')
    assert caught.value.reason == reason


def test_places_that_are_no_files(tmp_path):
    os.symlink('gone', tmp_path / 'dangling.wav')
    os.symlink('self.wav', tmp_path / 'self.wav')
    os.mkfifo(tmp_path / 'pipe.wav')
    expected = {
        'none.wav': ('missing', 'no such file'),
        'dangling.wav': ('missing', 'a link that points to nothing'),
        'self.wav': ('missing', 'a link that points to itself'),
        'pipe.wav': ('not_a_file', 'not a regular file'),
        '.': ('not_a_file', 'is a folder'),
    }
    for name, (reason, text) in expected.items():
        with pytest.raises(AudioError, match=text) as caught:
            probe(tmp_path / name)
        assert caught.value.reason == reason


@pytest.mark.parametrize('promised', [0x7FFFFFFF, 0xFFFFFFFF, 64000])
def test_a_header_that_promises_too_much_gives_what_is_there(tmp_path, promised):
    (tmp_path / 'a.wav').write_bytes(wav_header(promised) + SAMPLES)
    warnings = []
    audio = np.concatenate(list(read_blocks(tmp_path / 'a.wav', warnings=warnings)))
    assert len(audio) == 16000
    assert f'promises {promised} bytes of audio and 32000 are there' in warnings[0]


@pytest.mark.parametrize('container', ['flac', 'mp3'])
def test_truncated_files_give_what_can_be_decoded(tmp_path, container, capfd):
    soundfile.write(tmp_path / 'whole', tone(44100, 3), 44100, format=container)
    data = (tmp_path / 'whole').read_bytes()
    (tmp_path / 'cut').write_bytes(data[: len(data) // 2])
    warnings = []
    audio = np.concatenate(list(read_blocks(tmp_path / 'cut', warnings=warnings)))
    assert 0.3 * 3 < len(audio) / 44100 < 0.7 * 3
    assert len(warnings) == 1
    assert capfd.readouterr().err == ''  # the decoder's own complaints stay off the terminal


def test_names_that_are_no_text_can_be_read_and_printed(tmp_path):
    name = os.fsencode(tmp_path) + b'/caf\xe9 \n.wav'
    with open(name, 'wb') as file:
        file.write(wav_header(32000) + SAMPLES)
    assert len(load_audio(os.fsdecode(name))) == 16000
    with open(name, 'wb') as file:
        file.write(b'')
    with pytest.raises(AudioError) as caught:
        load_audio(os.fsdecode(name))
    str(caught.value).encode('utf-8')
    assert str(caught.value).isprintable()


def test_written_files_come_back_and_clipping_is_counted(tmp_path):
    audio = tone(16000, amplitude=0.9)
    assert write_wav(tmp_path / 'deep' / 'a.wav', audio, 16000) == 0
    assert np.abs(load_audio(tmp_path / 'deep' / 'a.wav') - audio).max() <= 0.5 / 32768 + 1e-7
    loud = tone(16000, amplitude=2.0)
    assert write_wav(tmp_path / 'b.wav', loud, 16000) == np.count_nonzero(np.abs(loud) > 1)
    assert np.abs(load_audio(tmp_path / 'b.wav')).max() <= 1
    assert write_wav(tmp_path / 'c.wav', loud, 16000, subtype='FLOAT') == 0
    np.testing.assert_array_equal(load_audio(tmp_path / 'c.wav'), loud)
    assert sorted(path.name for path in tmp_path.iterdir()) == ['b.wav', 'c.wav', 'deep']  # nothing left over


def test_what_cannot_be_written_is_said(tmp_path):
    (tmp_path / 'file').write_text('x')
    with pytest.raises(AudioError, match='cannot be written') as caught:
        write_wav(tmp_path / 'file' / 'a.wav', tone(16000), 16000)
    assert caught.value.reason == 'unwritable'
    with pytest.raises(AudioError, match='NaN'):
        write_wav(tmp_path / 'a.wav', np.array([np.nan]), 16000)
    with pytest.raises(ValueError, match="'PCM_16' or 'FLOAT'"):
        write_wav(tmp_path / 'a.wav', tone(16000), 16000, subtype='PCM_24')


def test_errors_travel_between_processes():
    error = pickle.loads(pickle.dumps(AudioError('empty', 'a.wav is empty')))
    assert (error.reason, str(error)) == ('empty', 'a.wav is empty')


def test_real_recordings_are_read(recordings):
    info = probe(recordings / 'violin_garner_bwv1002_sarabande_double.mp3')
    assert (info.channels, info.sample_rate) == (2, 44100)
    assert info.duration_s == pytest.approx(108.3, abs=0.2)
    assert 0.01 < np.abs(load_audio(recordings / 'trumpet_sorohanro_44k.ogg')).max() <= 1.1
