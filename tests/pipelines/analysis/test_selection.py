"""Options that leave examples out, set the level, add power and thin out f0, and what is reported."""

import json

import numpy as np
import pytest
import soundfile

from ddsp import spectral_ops
from ddsp.analysis.loudness import power_db
from ddsp.errors import ConfigError, DDSPError
from ddsp.f0 import get_estimator, interpolate_track
from pipelines import PrepareOptions, prepare_dataset
from pipelines.analysis.selection import Selection
from pipelines.analysis.statistics import Statistics

RATE = 16000


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """14 s: a tone, silence, a quieter tone with noise after it."""
    folder = tmp_path_factory.mktemp('in')
    times = np.arange(4 * RATE) / RATE
    tone = 0.2 * np.sin(2 * np.pi * 220 * times) + 0.1 * np.sin(2 * np.pi * 440 * times)
    noise = np.random.default_rng(0).normal(0, 0.02, 2 * RATE)
    sound = np.concatenate((tone, np.zeros(6 * RATE), 0.5 * tone[: 2 * RATE], noise))
    soundfile.write(folder / 'mixed.wav', sound, RATE, subtype='FLOAT')
    soundfile.write(folder / 'steady.wav', np.concatenate((tone, tone)), RATE, subtype='FLOAT')
    return folder


def prepare(folder, root, **options):
    chosen = {
        'splits': {'train': 1.0},
        'workers': 1,
        'f0': 'yin',
        'example_secs': 2.0,
        'hop_secs': 2.0,
        'num_shards': 1,
    }
    result = prepare_dataset(folder, root, 'chosen', options=PrepareOptions(**(chosen | options)))
    lines = map(json.loads, (result.path / 'sources.jsonl').read_text().splitlines())
    rows = {row['path'].rsplit('/', 1)[1]: row for row in lines}
    (file,) = result.path.glob('*.tfrecord*')
    examples = list(read_examples(file))
    return result, rows, examples


def read_examples(file):
    tf = pytest.importorskip('tensorflow')
    for record in tf.data.TFRecordDataset(str(file)).as_numpy_iterator():
        example = tf.train.Example.FromString(record)
        yield {
            key: np.array(value.float_list.value, np.float32)
            for key, value in example.features.feature.items()
        }


def test_silent_and_unpitched_examples_are_left_out_and_counted(folder, tmp_path):
    result, rows, examples = prepare(folder, tmp_path, min_loudness_db=-60.0, min_voiced=0.5)
    # Of three examples of silence, two touch a note; the fourth is noise.
    assert rows['mixed.wav']['dropped'] == {'silent': 1, 'unpitched': 3}
    assert any('4 of 7 examples left out' in note for note in rows['mixed.wav']['warnings'])
    assert 'dropped' not in rows['steady.wav']
    assert result.examples == {'train': 3 + 4} == {'train': len(examples)}
    for example in examples:
        assert (example['f0_confidence'] >= 0.5).mean() >= 0.5
    statistics = json.loads((result.path / 'statistics.json').read_text())['splits']['train']
    assert statistics['voiced_share'] > 0.97  # of what is used


def test_nothing_left_is_a_rejection_with_its_reason(folder, tmp_path):
    with pytest.raises(DDSPError, match='no input can be used') as caught:
        prepare(folder, tmp_path, min_loudness_db=20.0)
    assert 'examples left out' in str(caught.value)


@pytest.mark.parametrize(('quantity', 'target'), [('peak', -6.0), ('loudness', 0.0)])
def test_every_recording_gets_the_level(folder, tmp_path, quantity, target):
    _, plain_rows, plain = prepare(folder, tmp_path / 'plain')
    _, rows, examples = prepare(folder, tmp_path / 'level', normalize=f'{quantity}:{target:g}')
    assert 'gain_db' not in plain_rows['steady.wav']
    for name in rows:
        gain = 10 ** (rows[name]['gain_db'] / 20)
        at = [row['records'][0]['first'] for row in (rows[name], plain_rows[name])]
        np.testing.assert_allclose(
            examples[at[0]]['audio'], plain[at[1]]['audio'] * gain, rtol=1e-4, atol=1e-6
        )
    steady = np.concatenate([e['audio'] for e in examples[rows['steady.wav']['records'][0]['first'] :][:4]])
    if quantity == 'peak':
        assert 20 * np.log10(np.abs(steady).max()) == pytest.approx(target, abs=0.02)
    else:
        loud = np.concatenate(
            [e['loudness_db'] for e in examples[rows['steady.wav']['records'][0]['first'] :][:4]]
        )
        assert 10 * np.log10(np.mean(10 ** (loud / 10))) == pytest.approx(target, abs=0.3)


def test_power_is_that_of_spectral_ops(folder, tmp_path, rng):
    audio = rng.normal(0, 0.1, 9000).astype(np.float32)
    audio[3000:6000] = 0
    for padding in ('center', 'same', 'valid'):
        wanted = np.asarray(spectral_ops.compute_power(audio, padding=padding))
        np.testing.assert_allclose(power_db(audio, padding=padding), wanted, atol=1e-3)
    _, _, examples = prepare(folder, tmp_path, power_db=True, centered=True)
    assert {len(example['power_db']) for example in examples} == {501}
    inner = slice(5, -5)
    for example in examples:
        np.testing.assert_allclose(example['power_db'][inner], power_db(example['audio'])[inner], atol=0.01)


def test_f0_at_a_lower_rate_is_interpolated(folder, tmp_path):
    _, _, plain = prepare(folder, tmp_path / 'plain')
    _, _, thin = prepare(folder, tmp_path / 'thin', f0_rate=100)
    for a, b in zip(plain, thin, strict=True):
        assert len(b['f0_hz']) == 500
        both = (a['f0_confidence'] >= 0.5) & (b['f0_confidence'] >= 0.5)
        assert (np.abs(1200 * np.log2(a['f0_hz'][both] / b['f0_hz'][both])) < 5).all()
        assert np.mean((a['f0_confidence'] >= 0.5) != (b['f0_confidence'] >= 0.5)) < 0.02


def test_interpolation_is_straight_in_pitch_and_keeps_out_of_notes():
    f0_hz, confidence = np.array([100.0, 200, 50, 0, 400]), np.array([1.0, 1, 0, 0, 1])
    got, sure = interpolate_track(f0_hz, confidence, 100, 200, 10)
    np.testing.assert_allclose(got[:5], [100, 100 * 2**0.5, 200, 200, 50], rtol=1e-5)
    np.testing.assert_allclose(got[7:], [400, 400, 400], rtol=1e-5)
    np.testing.assert_allclose(sure[:5], [1, 1, 1, 0.5, 0], atol=1e-6)


@pytest.mark.parametrize(
    ('options', 'text'),
    [
        ({'normalize': 'peak'}, "normalize is 'peak'; it must be 'peak:DB' from -60 to 0"),
        ({'normalize': 'peak:100'}, "normalize is 'peak:100'; it must be 'peak:DB' from -60 to 0"),
        ({'normalize': 'loudness:11'}, "'loudness:DB' from -70 to 10"),
        ({'normalize': 'rms:-3'}, "normalize is 'rms:-3'"),
        ({'normalize': 'peak:-1', 'keep_features': True}, 'keep_features'),
        ({'min_voiced': 1.5}, 'min_voiced is 1.5; it must be 0 to 1'),
        ({'min_loudness_db': 40.0}, 'min_loudness_db is 40.0; it must be -80 to 20 dB'),
        ({'f0_rate': 0}, 'f0_rate is 0; it must be 1 to 1000'),
    ],
)
def test_what_cannot_be_is_refused(options, text):
    with pytest.raises(ConfigError, match=text):
        PrepareOptions(**options)


class Shy:
    """An estimator that calls a pitch sure at a confidence of 0.3."""

    name, voiced_from = 'shy', 0.3

    def predict(self, audio, frame_rate, n_frames, viterbi=True):
        return np.full(n_frames, 220.0), np.full(n_frames, 0.4)


def test_what_is_voiced_depends_on_the_estimator():
    shares = {}
    for estimator in (Shy(), get_estimator('yin')):
        example = {
            'f0_hz': np.full(100, 220.0), 'f0_confidence': np.full(100, 0.4),
            'loudness_db': np.full(100, -20.0), 'power_db': np.full(100, -20.0),
        }  # fmt: skip
        statistics = Statistics()
        selection = Selection(PrepareOptions(min_voiced=0.5), statistics, estimator)
        selection.n_frames = 100
        kept = list(selection.choose([example]))
        shares[estimator.name] = len(kept), statistics.voiced_share, statistics.note_frames > 50
    assert shares == {'shy': (1, 1.0, True), 'yin': (0, 0.0, False)}
