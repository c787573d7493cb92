"""Preparation as a whole: what is published, what is refused, and what survives an interruption."""

import fcntl
import json
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from ddsp.analysis.loudness import loudness_db
from ddsp.errors import DDSPError
from ddsp.f0 import estimate_f0
from ddsp.io.audio import load_audio, write_wav
from ddsp.io.dataset import DatasetError, open_dataset
from pipelines import PrepareOptions, prepare_dataset
from pipelines.records import read_examples

QUICK = PrepareOptions(f0='yin', workers=1, num_shards=2)


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def tree(folder):
    """Names and bytes of all files; what depends on the time and the checkout is left out."""
    files = {path.name: path.read_bytes() for path in sorted(pathlib.Path(folder).iterdir())}
    del files['metrics.json']
    manifest, pipeline = json.loads(files.pop('MANIFEST.json')), json.loads(files.pop('pipeline.json'))
    del manifest['created'], manifest['files']['pipeline.json'], pipeline['code_revision']
    return files | {'MANIFEST.json': manifest, 'pipeline.json': pipeline}


@pytest.fixture(scope='module')
def prepared(folder, tmp_path_factory):
    root = tmp_path_factory.mktemp('data')
    calls = []
    result = prepare_dataset(folder, root, 'notes', options=QUICK, progress=lambda *call: calls.append(call))
    return result, open_dataset(root), calls


def test_the_result_says_what_was_done(prepared):
    result, dataset, calls = prepared
    assert result.path == dataset.path
    assert result.examples == dataset.splits
    assert sum(result.examples.values()) == 6 * 3  # windows of 4 s every second of 6 s
    assert all(count > 0 for count in result.examples.values())
    assert sum(result.audio_seconds.values()) == pytest.approx(36)
    assert (result.accepted, result.rejected, result.shards_made, result.shards_reused) == (6, {}, 4, 0)
    assert set(result.costs) == {'decode', 'resample', 'f0', 'loudness', 'write'}
    assert ('f0 estimator', 'yin') in result.summary_rows()
    stages = dict(result.summary_rows())['CPU seconds']
    assert all(stage in stages for stage in result.costs)
    assert calls[-1][0] == pytest.approx(calls[-1][1])


def test_the_directory_has_what_the_contract_names(prepared):
    _, dataset, _ = prepared
    dataset.verify()
    names = {path.name for path in dataset.path.iterdir()}
    assert names == {
        'MANIFEST.json', 'features.json', 'dataset_info.json', 'statistics.json', 'sources.jsonl',
        'rejected.jsonl', 'shards.jsonl', 'pipeline.json', 'metrics.json',
        'notes-train.tfrecord-00000-of-00002',
        'notes-train.tfrecord-00001-of-00002', 'notes-test.tfrecord-00000-of-00002',
        'notes-test.tfrecord-00001-of-00002',
    }  # fmt: skip
    assert {path.name for path in dataset.path.parent.iterdir()} == {'1.0.0', '.lock', '.survey.jsonl'}
    rows = lines(dataset.path / 'sources.jsonl')
    assert [row['outcome'] for row in rows] == ['accepted'] * 6
    assert {row['split'] for row in rows} == {'train', 'test'}
    assert sum(row['examples'] for row in rows) == sum(dataset.splits.values())
    assert (dataset.path / 'rejected.jsonl').read_text() == ''


def test_tfds_and_tensorflow_read_it(prepared):
    import tensorflow as tf
    import tensorflow_datasets as tfds

    _, dataset, _ = prepared
    builder = tfds.builder_from_directory(dataset.path)
    for split, count in dataset.splits.items():
        examples = list(builder.as_dataset(split=split).as_numpy_iterator())
        assert len(examples) == builder.info.splits[split].num_examples == count
        for name, length in dataset.feature_lengths().items():
            assert examples[0][name].shape == (length,)
    spec = {n: tf.io.FixedLenFeature([size], tf.float32) for n, size in dataset.feature_lengths().items()}
    records = tf.data.TFRecordDataset(dataset.files('train')).map(
        lambda r: tf.io.parse_single_example(r, spec)
    )
    assert len(list(records)) == dataset.splits['train']


def test_examples_are_windows_of_the_recordings(prepared, folder):
    """Frames are those of one long analysis, audio is that of the file, and no recording is in two splits."""
    _, dataset, _ = prepared
    known = {}
    for path in sorted(folder.iterdir()):
        audio = load_audio(path)
        f0_hz, confidence = estimate_f0(audio, 16000, 250, 'yin')
        known[path.name] = (audio, f0_hz, confidence, loudness_db(audio)[: len(f0_hz)])
    seen = {}
    for split in dataset.splits:
        for example in (example for file in dataset.files(split) for example in read_examples(file)):
            name, start = next(
                (name, second)
                for name, (audio, *_) in known.items()
                for second in range(3)
                if np.array_equal(audio[second * 16000 :][:64000], example['audio'])
            )
            audio, f0_hz, confidence, loudness = known[name]
            frames = slice(250 * start, 250 * start + 1000)
            np.testing.assert_allclose(example['f0_hz'], f0_hz[frames], rtol=1e-4)
            np.testing.assert_allclose(example['f0_confidence'], confidence[frames], atol=1e-3)
            np.testing.assert_allclose(example['loudness_db'], loudness[frames], atol=1e-3)
            seen.setdefault(name, set()).add(split)
    assert len(seen) == 6
    assert all(len(splits) == 1 for splits in seen.values())


def test_statistics_are_those_of_the_recordings(prepared, folder):
    _, dataset, _ = prepared
    rows = lines(dataset.path / 'sources.jsonl')
    audio = [load_audio(row['path']) for row in rows if row['split'] == 'train']
    loudness = np.concatenate([loudness_db(a)[:1500] for a in audio])
    statistics = dataset.statistics('train')
    assert statistics['audio_seconds'] == 6 * len(audio)
    assert statistics['voiced_share'] > 0.98
    assert statistics['loudness_db']['mean'] == pytest.approx(loudness.mean(), abs=0.01)
    assert statistics['loudness_db']['std'] == pytest.approx(loudness.std(), abs=0.01)
    np.testing.assert_allclose(
        statistics['loudness_db']['quantiles'], np.percentile(loudness, range(101)), atol=0.5
    )


def test_the_same_call_again_finds_it_done(prepared, folder):
    result, dataset, _ = prepared
    left = dataset.path.parent / '.staging'
    left.mkdir()  # by a call that was killed when it had published
    again = prepare_dataset(folder, dataset.path.parent.parent, 'notes', options=QUICK)
    assert not left.exists()
    assert (again.path, again.shards_made, again.shards_reused) == (result.path, 0, 4)
    assert again.statistics == result.statistics
    assert again.accepted == 6


def test_other_options_make_the_next_version(folder, tmp_path):
    first = prepare_dataset(folder, tmp_path, 'notes', options=QUICK)
    second = prepare_dataset(
        folder, tmp_path, 'notes', options=PrepareOptions(f0='yin', workers=1, hop_secs=2.0)
    )
    assert (first.path.name, second.path.name) == ('1.0.0', '1.1.0')
    assert open_dataset(tmp_path / 'notes').version == '1.1.0'
    with pytest.raises(DDSPError, match=r'1\.0\.0 is published with other inputs or options'):
        prepare_dataset(folder, tmp_path, 'notes', '1.0.0', options=PrepareOptions(f0='yin', workers=1))


@pytest.mark.parametrize('workers', [2])
def test_the_number_of_workers_does_not_change_a_byte(prepared, folder, tmp_path, workers, capfd):
    result = prepare_dataset(
        folder, tmp_path, 'notes', options=PrepareOptions(f0='yin', workers=workers, num_shards=2)
    )
    assert tree(result.path) == tree(prepared[0].path)
    assert capfd.readouterr() == ('', '')  # workers keep their log to themselves


PROGRAM = """
import signal, sys
from pipelines import PrepareOptions, prepare_dataset
if __name__ == '__main__':
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
    options = PrepareOptions(f0='yin', workers=1, num_shards=2)
    prepare_dataset(sys.argv[1], sys.argv[2], 'notes', options=options)
"""


@pytest.mark.parametrize('how', [[signal.SIGKILL, signal.SIGKILL], [signal.SIGINT]])
def test_an_interrupted_preparation_goes_on_and_gives_the_same_bytes(prepared, folder, tmp_path, how):
    command = [sys.executable, '-c', PROGRAM, str(folder), str(tmp_path)]
    staging = tmp_path / 'notes' / '.staging'
    for done, sign in enumerate(how, 1):
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 120
        while (
            len(list(staging.glob('t*.json'))) < done
            and process.poll() is None
            and time.monotonic() < deadline
        ):
            time.sleep(0.002)
        process.send_signal(sign)
        process.wait(timeout=60)
        if process.returncode == 0:
            pytest.skip('the machine was too quick: nothing was interrupted')
    with pytest.raises(DatasetError, match='unfinished dataset'):
        open_dataset(tmp_path)
    result = prepare_dataset(folder, tmp_path, 'notes', options=QUICK)
    assert result.shards_reused >= len(how)
    assert result.shards_made >= 1
    assert tree(result.path) == tree(prepared[0].path)
    assert not staging.exists()


def test_two_preparations_of_one_dataset_exclude_each_other(folder, tmp_path):
    (tmp_path / 'notes').mkdir()
    with open(tmp_path / 'notes' / '.lock', 'w') as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(DDSPError, match=r'another preparation is running in .*notes'):
            prepare_dataset(folder, tmp_path, 'notes', options=QUICK)
    assert prepare_dataset(folder, tmp_path, 'notes', options=QUICK).accepted == 6


def test_a_damaged_shard_is_named(prepared, tmp_path):
    copy = tmp_path / 'notes' / '1.0.0'
    shutil.copytree(prepared[1].path, copy)
    name = open_dataset(copy).files('train')[0]
    with open(name, 'r+b') as file:
        file.seek(1000)
        file.write(b'damage')
    with pytest.raises(DatasetError, match=r'notes-train.tfrecord-00000-of-00002 is not what was written'):
        open_dataset(copy).verify()
    with pytest.raises(DatasetError, match='00000-of-00002 is damaged in record 0'):
        list(read_examples(name))


def test_short_and_last_pieces_are_padded_and_masked(tmp_path, folder):
    write_wav(tmp_path / 'in' / 'a.wav', load_audio(folder / 'note_0.wav')[: 16000 * 5 + 8000], 16000)
    for centered in (False, True):
        options = PrepareOptions(f0='yin', workers=1, splits={'train': 1.0}, centered=centered)
        result = prepare_dataset(tmp_path / 'in', tmp_path / f'out{centered}', 'notes', options=options)
        examples = list(read_examples(open_dataset(result.path).files('train')[0]))
        assert len(examples) == 3  # 0 to 4, 1 to 5, and 2 to 5.5 s with half a second of padding
        last, real = examples[-1], 875
        assert len(last['f0_hz']) == 1000 + centered
        assert (last['audio'][56000:] == 0).all()
        assert (last['f0_confidence'][real + 1 :] == 0).all()
        assert (last['loudness_db'][real + 1 :] == -80).all()
        assert (last['f0_confidence'][: real - 10] > 0.5).all()
        np.testing.assert_array_equal(examples[1]['f0_hz'][250:1000], last['f0_hz'][:750])
        if centered:
            assert examples[0]['f0_hz'][1000] == examples[1]['f0_hz'][750]
    options = PrepareOptions(f0='yin', workers=1, splits={'train': 1.0}, pad_tail=False)
    assert prepare_dataset(tmp_path / 'in', tmp_path / 'no', 'notes', options=options).examples == {
        'train': 2
    }


def test_features_at_the_joints_of_pieces_are_those_of_one_analysis(tmp_path, folder):
    audio = np.concatenate([load_audio(path) for path in sorted(folder.iterdir())])
    write_wav(tmp_path / 'in' / 'a.wav', audio, 16000)
    features = {}
    for chunk in (4.0, 40.0):
        options = PrepareOptions(f0='yin', workers=1, chunk_secs=chunk, splits={'train': 1.0}, num_shards=1)
        result = prepare_dataset(tmp_path / 'in', tmp_path / str(chunk), 'notes', options=options)
        features[chunk] = list(read_examples(open_dataset(result.path).files('train')[0]))
    for ours, theirs in zip(features[4.0], features[40.0], strict=True):
        np.testing.assert_array_equal(ours['audio'], theirs['audio'])
        np.testing.assert_allclose(ours['f0_hz'], theirs['f0_hz'], rtol=1e-5)
        np.testing.assert_allclose(ours['loudness_db'], theirs['loudness_db'], atol=1e-4)


def test_other_rates_hold_both_audios(tmp_path, folder):
    options = PrepareOptions(
        sample_rate=44100, frame_rate=300, f0='yin', workers=1, splits={'train': 1.0}, num_shards=1
    )
    write_wav(tmp_path / 'in' / 'a.wav', load_audio(folder / 'note_2.wav', 48000), 48000)
    result = prepare_dataset(tmp_path / 'in', tmp_path / 'out', 'notes', options=options)
    example = next(iter(read_examples(open_dataset(result.path).files('train')[0])))
    assert {name: len(values) for name, values in example.items()} == options.feature_lengths
    assert len(example['audio']) == 176400
    assert len(example['audio_16k']) == 64000
    assert np.abs(1200 * np.log2(example['f0_hz'][50:-50] / 277)).max() < 40  # vibrato of 30 cents
    spectrum = np.abs(np.fft.rfft(example['audio'] * np.hanning(176400)))
    assert abs(spectrum.argmax() / 4 - 277) < 5


def test_a_frame_rate_need_not_divide_the_sample_rate(tmp_path, folder):
    options = PrepareOptions(
        sample_rate=44100, frame_rate=300, example_secs=2.0, hop_secs=0.5, f0='yin', workers=1, num_shards=1,
        splits={'train': 1.0},
    )  # fmt: skip
    dataset = open_dataset(prepare_dataset(folder / 'note_0.wav', tmp_path, 'rates', options=options).path)
    original = load_audio(folder / 'note_0.wav')
    f0_hz, _ = estimate_f0(original, 16000, 300, 'yin')
    loudness = loudness_db(original, frame_rate=300)
    files = [file for split in dataset.splits for file in dataset.files(split)]
    starts = []
    for example in [example for file in files for example in read_examples(file)]:
        lengths = {name: len(values) for name, values in example.items()}
        assert (lengths['audio'], lengths['audio_16k']) == (88200, 32000)
        assert {lengths[name] for name in ('f0_hz', 'f0_confidence', 'loudness_db')} == {600}
        first = example['audio_16k'][:16000]
        within = [np.abs(original[s : s + 16000] - first).max() for s in range(0, 80001, 8000)]
        start = int(np.argmin(within)) * 150
        starts.append(start)
        count = min(300, 1800 - start)
        np.testing.assert_allclose(example['f0_hz'][:count], f0_hz[start:][:count], rtol=1e-5)
        np.testing.assert_allclose(example['loudness_db'][:count], loudness[start:][:count], atol=1e-4)
    assert len(set(starts)) == len(starts) >= 6
    assert dataset.frame_rate == 300


def test_one_recording_is_split_by_time_without_overlap(tmp_path, folder):
    audio = np.concatenate([load_audio(path) for path in sorted(folder.iterdir())])
    write_wav(tmp_path / 'in' / 'a.wav', audio, 16000)
    result = prepare_dataset(tmp_path / 'in', tmp_path / 'out', 'notes', options=QUICK)
    (row,) = lines(result.path / 'sources.jsonl')
    assert row['split'] == 'test+train'
    assert row['split_by_time'] == {'train': pytest.approx(28.8), 'test': pytest.approx(7.2)}
    dataset = open_dataset(result.path)
    test = np.concatenate([e['audio'][:16000] for f in dataset.files('test') for e in read_examples(f)])
    np.testing.assert_allclose(
        test[:64000], load_audio(tmp_path / 'in' / 'a.wav')[460800:][:64000], atol=1e-6
    )


def test_real_recordings_become_a_dataset(recordings, tmp_path):
    sources = [
        recordings / 'sms_sax-phrase.wav',
        str(recordings / 'trumpet_*.ogg'),
        recordings / 'shanai_08.flac',
    ]
    options = PrepareOptions(workers=1)
    result = prepare_dataset(sources, tmp_path, 'winds', options=options)
    assert result.accepted == 4
    assert result.estimator == 'swift'
    assert all(part['voiced_share'] > 0.5 for part in result.statistics.values())
