"""Notes, quantiles and the statistics of a dataset, against direct computations."""

import pickle

import numpy as np
import pytest

from ddsp.errors import DDSPError
from ddsp.training import postprocessing
from ddsp.training.data import TFRecordProvider
from ddsp.training.metrics import hz_to_midi
from pipelines.records import RecordWriter

FRAMES, RATE = 1000, 16000


@pytest.fixture(scope='module')
def provider(tmp_path_factory):
    """Three examples, each a note between silences; not centred."""
    path = tmp_path_factory.mktemp('records') / 'train.tfrecord-00000-of-00001'
    writer = RecordWriter(path)
    for i in range(3):
        on = np.zeros(FRAMES, bool)
        on[200 + 50 * i : 700] = True
        times = np.arange(4 * RATE) / RATE
        tone = 0.1 * (i + 1) * np.sin(2 * np.pi * 220 * 2**i * times) * np.repeat(on, RATE // 250)
        writer.write({
            'audio': tone.astype(np.float32), 'f0_hz': np.full(FRAMES, 220.0 * 2**i, np.float32),
            'f0_confidence': np.where(on, 0.95, 0.1).astype(np.float32),
            'loudness_db': np.where(on, -10.0 - 5 * i + np.linspace(-3, 3, FRAMES), -75.0).astype(np.float32),
        })  # fmt: skip
    writer.close()
    return TFRecordProvider(file_pattern=f'{path.parent}/train*')


def test_statistics_of_data_that_is_not_centred(provider):
    found = postprocessing.compute_dataset_statistics(provider)
    rows = list(provider.get_batch(1, shuffle=False, repeats=1).as_numpy_iterator())
    loudness = np.concatenate([row['loudness_db'][0][:-20] for row in rows])
    assert found['mean_loudness'] == pytest.approx(loudness.mean(), abs=1e-3)
    assert found['max_loudness'] == pytest.approx(loudness.max(), abs=1e-3)
    assert found['std_loudness'] == pytest.approx(loudness.std(), abs=1e-3)
    tops = [row['loudness_db'][0][:-20].max() for row in rows]
    assert found['mean_max_loudness'] == pytest.approx(np.mean(tops), abs=1e-3)
    assert found['min_pitch'] == pytest.approx(57, abs=1e-3)
    assert found['max_pitch_note'] == pytest.approx(float(hz_to_midi(880.0)), abs=1e-3)
    assert found['min_loudness_note'] > -30 > found['min_loudness']
    assert found['max_power'] == pytest.approx(20 * np.log10(0.3 / np.sqrt(2)), abs=0.2)
    names = {f'{kind}_{what}{note}' for kind in ('mean', 'max', 'min', 'mean_max', 'mean_min', 'std')
             for what in ('pitch', 'power', 'loudness') for note in ('', '_note')}  # fmt: skip
    assert set(found) == names | {'quantile_transform'}


def test_the_pickle_is_what_upstream_writes(provider, tmp_path):
    file = tmp_path / 'sub' / 'dataset_statistics.pkl'
    written = postprocessing.save_dataset_statistics(provider, file)
    content = file.read_bytes()
    assert b'numpy._core' not in content  # numpy 1 does not know that name
    read = pickle.loads(content)
    assert {key: value for key, value in read.items() if key != 'quantile_transform'} == {
        key: value for key, value in written.items() if key != 'quantile_transform'
    }
    values = np.linspace(-30, 0, 7)[:, None]
    np.testing.assert_array_equal(
        read['quantile_transform'].transform(values), written['quantile_transform'].transform(values)
    )


@pytest.mark.parametrize('distribution', ['uniform', 'normal'])
def test_quantiles_are_those_of_scikit_learn(distribution, rng):
    preprocessing = pytest.importorskip('sklearn.preprocessing')
    values = np.concatenate((rng.normal(-30, 8, 3000), np.full(500, -25.0)))[:, None]
    theirs = preprocessing.QuantileTransformer(output_distribution=distribution, subsample=None).fit(values)
    ours = postprocessing.QuantileTransformer(output_distribution=distribution).fit(values)
    asked = np.linspace(-70, 10, 500)[:, None]
    np.testing.assert_allclose(ours.transform(asked), theirs.transform(asked), atol=2e-3)
    levels = ours.transform(values[:200])
    np.testing.assert_allclose(ours.inverse_transform(levels), values[:200], atol=0.05)


def test_matching_loudness_gives_the_other_distribution(rng):
    target = postprocessing.fit_quantile_transform(rng.normal(-20, 4, (4, 500)), np.ones((4, 500), bool))
    loudness = rng.normal(-45, 9, (2, 1000))
    mask = np.zeros((2, 1000), bool)
    mask[:, 100:900] = True
    _, matched = postprocessing.fit_quantile_transform(loudness, mask, inv_quantile=target)
    assert matched.shape == loudness.shape
    assert matched[mask].mean() == pytest.approx(-20, abs=0.5)
    assert matched[mask].std() == pytest.approx(4, abs=0.4)
    shift = matched[~mask] - loudness[~mask]
    np.testing.assert_allclose(shift, shift[0], atol=1e-4)
    with pytest.raises(DDSPError, match='no frame that belongs to a note'):
        postprocessing.fit_quantile_transform(loudness, ~mask & mask)


def test_notes_are_loud_and_pitched():
    loudness = np.where(np.arange(1000) // 250 % 2, -20.0, -70.0)
    confidence = np.where(np.arange(1000) < 600, 0.95, 0.2)
    on, ratio = postprocessing.detect_notes(loudness, confidence)
    assert on[280:470].all()
    assert not on[:220].any()  # quiet
    assert not on[780:970].any()  # loud, without pitch
    assert ratio.shape == loudness.shape
    np.testing.assert_allclose(
        postprocessing.smooth(confidence, 5)[10:-10],
        np.convolve(confidence, np.ones(5) / 5, 'same')[10:-10],
        atol=1e-6,
    )
