"""Evaluation against a computation by hand."""

import json

import numpy as np
import pytest

from ddsp import inference, losses
from ddsp.analysis.loudness import loudness_db
from ddsp.errors import ConfigError
from ddsp.f0 import estimate_f0
from ddsp.io.dataset import DatasetError
from ddsp.training import data, metrics


@pytest.fixture(scope='module')
def report(tiny_bundle, tone_dataset):
    return inference.evaluate(tiny_bundle, tone_dataset, 'test')


def test_rows_are_what_a_computation_by_hand_gives(report, tiny_bundle, tone_dataset):
    provider = data.DatasetProvider(tone_dataset, 'test')
    batch = next(iter(provider.get_batch(3, shuffle=False)))
    batch = {key: value.numpy() for key, value in batch.items()}
    generated = tiny_bundle.synthesizer(batch)['audio']
    loss = losses.SpectralLoss(fft_sizes=(512, 128), mag_weight=1.0, logmag_weight=1.0)
    all_cents = []
    for i, row in enumerate(report.rows):
        loudness = loudness_db(generated[i], 16000, 250)[:250]
        f0_hz, _ = estimate_f0(generated[i], 16000, 250, 'yin')
        cents = np.abs(1200 * np.log2(np.maximum(f0_hz, 1e-9) / batch['f0_hz'][i]))
        midi = np.abs(metrics.hz_to_midi(f0_hz) - metrics.hz_to_midi(batch['f0_hz'][i]))
        all_cents.append(100 * midi)
        assert row['example'] == i
        assert row['loudness_l1_db'] == pytest.approx(
            np.abs(loudness - batch['loudness_db'][i]).mean(), rel=1e-4
        )
        assert row['spectral_loss'] == pytest.approx(
            float(loss(batch['audio'][i][None], generated[i][None])), rel=1e-4
        )
        assert row['f0_l1_midi'] == pytest.approx(midi.mean(), rel=1e-4)
        if np.all(f0_hz > 0):
            assert row['f0_median_cents'] == pytest.approx(np.median(cents), rel=1e-3)
    assert report.totals['f0_median_cents'] == pytest.approx(np.median(np.concatenate(all_cents)), rel=1e-4)
    assert report.totals['loudness_l1_db'] == pytest.approx(
        np.mean([r['loudness_l1_db'] for r in report.rows])
    )
    assert report.totals['examples'] == 3
    assert report.estimator == 'yin'


def test_pitch_comes_from_the_generated_audio(tiny_bundle, tone_dataset, report):
    fresh = inference.evaluate(inference.untrained(tiny_bundle), tone_dataset, 'test', limit=1)
    assert len(fresh.rows) == 1
    assert fresh.rows[0]['spectral_loss'] > 1.5 * report.rows[0]['spectral_loss']


def test_report_is_written_as_json(report, tmp_path):
    report.write(tmp_path / 'report.json')
    assert json.loads((tmp_path / 'report.json').read_text())['totals'] == report.totals


def test_what_does_not_fit_is_refused(tiny_bundle, tone_dataset, tmp_path, write_tone_dataset):
    with pytest.raises(DatasetError, match="no split 'valid'"):
        inference.evaluate(tiny_bundle, tone_dataset, 'valid')
    other = write_tone_dataset(tmp_path, train=1, test=1, secs=0.5, sample_rate=8000)
    with pytest.raises(ConfigError, match=r'has sample_rate 8000, the model .* 16000'):
        inference.evaluate(tiny_bundle, other)


def test_padded_and_unvoiced_frames_do_not_count(tiny_bundle):
    from ddsp.inference.evaluation import _Measure, _totals

    measure = _Measure(tiny_bundle, 'yin', 'yin', 'center')
    time = np.arange(16000) / 16000
    audio = (0.3 * np.sin(2 * np.pi * 330 * time)).astype(np.float32)
    loudness = loudness_db(audio, 16000, 250)[:250]
    example = {
        'audio': audio, 'f0_hz': np.full(250, 330.0), 'f0_confidence': np.ones(250), 'loudness_db': loudness,
    }  # fmt: skip
    padded = {**example, 'loudness_db': np.where(np.arange(250) < 125, loudness, -80.0)}
    padded['f0_confidence'] = np.where(np.arange(250) < 125, 1.0, 0.0)
    row, cents = measure(padded, audio)
    assert row['loudness_l1_db'] == pytest.approx(0, abs=1e-3)
    assert row['voiced_frames'] == len(cents) == 125
    assert row['f0_median_cents'] < 2
    far, far_cents = measure({**example, 'f0_hz': np.full(250, 60.0)}, audio)
    assert far['f0_outlier']
    silent, none = measure({**example, 'f0_confidence': np.zeros(250)}, audio)
    assert silent['f0_l1_midi'] is None
    totals = _totals([row, far, silent], [cents, far_cents, none])
    assert totals['f0_outlier_ratio'] == 0.5
    assert totals['f0_l1_midi'] == pytest.approx(row['f0_l1_midi'])
    assert totals['unpitched_examples'] == 1


def test_rows_name_the_recording_that_they_were_cut_from(tiny_bundle, tmp_path, write_tone_dataset):
    import tensorflow as tf

    dataset = write_tone_dataset(tmp_path, train=1, test=3)
    names = [f'tones-test.tfrecord-{shard:05d}-of-00002' for shard in range(2)]
    places = [('b', names[1], 0, 1), ('a', names[0], 0, 1), ('c', names[0], 1, 1)]
    sources = [
        {'path': f'/x/{name}.wav', 'sha256': name * 64, 'records': [{'file': f, 'first': i, 'examples': n}]}
        for name, f, i, n in places
    ]
    (dataset.path / 'sources.jsonl').write_text('\n'.join(map(json.dumps, sources)))
    rows = inference.evaluate(tiny_bundle, dataset, 'test').rows
    # Examples come from the files by turns; each is told by its pitch.
    written = [tf.data.TFRecordDataset(str(dataset.path / name)) for name in names]
    pitch = {}
    for name, file, first, _ in places:
        record = next(iter(written[names.index(file)].skip(first))).numpy()
        pitch[f'{name}.wav {name * 8}'] = tf.train.Example.FromString(record).features.feature['f0_hz']
    batch = next(iter(data.DatasetProvider(dataset, 'test').get_batch(3, shuffle=False)))
    for f0_hz, row in zip(batch['f0_hz'], rows, strict=True):
        np.testing.assert_allclose(f0_hz, pitch[row['recording']].float_list.value, rtol=1e-6)
    (dataset.path / 'sources.jsonl').write_text('{"path": 1}\n')
    assert 'recording' not in inference.evaluate(tiny_bundle, dataset, 'test', limit=1).rows[0]
