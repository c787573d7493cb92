"""Encoders: what z depends on, and what it must not depend on."""

import keras
import numpy as np
import pytest
from keras import ops

from ddsp import core
from ddsp.training import encoders, nn

N_SAMPLES, FRAMES = 4000, 50
MAKERS = {
    'every_step': lambda: encoders.MfccTimeDistributedRnnEncoder(rnn_channels=6, z_dims=3, z_time_steps=125),
    'one_z': lambda: encoders.MfccRnnEncoder(rnn_channels=6, z_dims=3),
    'mean_z': lambda: encoders.MfccRnnEncoder(rnn_channels=6, z_dims=3, mean_aggregate=True, rnn_type='lstm'),
    'aggregate': lambda: encoders.AggregateFeaturesEncoder(ch=3),
    'one_hot': lambda: encoders.OneHotEncoder(vocab_size=5, n_dims=3, skip_expand=False),
}
everyone = pytest.mark.parametrize('name', MAKERS)


def npy(x):
    return ops.convert_to_numpy(x)


@pytest.fixture(scope='module')
def features():
    """Two examples that differ in everything."""
    rng = np.random.default_rng(0)
    envelope = 0.1 * (1.2 + np.sin(np.arange(N_SAMPLES) / 300))
    return {
        'audio': (envelope * rng.normal(size=[2, N_SAMPLES])).astype(np.float32),
        'f0_scaled': rng.uniform(0.3, 0.7, [2, FRAMES, 1]).astype(np.float32),
        'ld_scaled': rng.uniform(0.1, 0.9, [2, FRAMES, 1]).astype(np.float32),
        'instrument': np.array([1, 4]),
    }


@pytest.fixture(scope='module')
def made(features):
    """Encoder by name, built."""
    keras.utils.set_random_seed(0)
    found = {name: make() for name, make in MAKERS.items()}
    for encoder in found.values():
        encoder(features)
    return found


@everyone
def test_z_has_the_frames_of_the_pitch(name, made, features):
    for n_frames in (FRAMES, 7):
        shorter = {key: features[key][:, :n_frames] for key in ('f0_scaled', 'ld_scaled')}
        found = made[name]({**features, **shorter})
        assert set(found) == {'z'}
        assert found['z'].shape == (2, n_frames, 3)


@everyone
def test_items_of_a_batch_do_not_meet(name, made, features):
    together = npy(made[name](features)['z'])
    alone = npy(made[name]({key: x[1:] for key, x in features.items()})['z'])
    np.testing.assert_allclose(alone[0], together[1], atol=1e-5)
    assert np.abs(together[0] - together[1]).max() > 1e-3


@pytest.mark.parametrize('name', ['every_step', 'one_z', 'mean_z'])
def test_mfcc_encoders_do_not_hear_the_level(name, made, features):
    """A gain adds a constant to the first MFCC, which the normalisation over time takes away."""
    quieter = {**features, 'audio': 0.5 * features['audio']}
    z, other = (npy(made[name](x)['z']) for x in (features, quieter))
    np.testing.assert_allclose(other, z, atol=2e-3)
    reversed_in_time = {**features, 'audio': features['audio'][:, ::-1].copy()}
    assert np.abs(npy(made[name](reversed_in_time)['z']) - z).max() > 2e-2


@pytest.mark.parametrize('name', ['one_z', 'mean_z', 'aggregate', 'one_hot'])
def test_one_z_for_the_example_is_the_same_in_every_frame(name, made, features):
    z = npy(made[name](features)['z'])
    np.testing.assert_allclose(z, np.repeat(z[:, :1], FRAMES, axis=1), atol=1e-7)


def test_z_of_every_step_follows_the_sound(features):
    """What comes later does not change what z was before: the network runs forwards."""
    changed = features['audio'].copy()
    changed[:, 3000:] = changed[:, 3000:][:, ::-1]
    encoder = MAKERS['every_step']()
    encoder.z_norm = nn.Identity()  # the normalisation knows the whole example
    z, other = (npy(encoder.compute_z(x)) for x in (features['audio'], changed))
    hop = 512
    first = (3000 - 1024) // hop + 1  # frames that end before the change
    np.testing.assert_allclose(other[:, :first], z[:, :first], atol=1e-5)
    assert np.abs(other[:, first:] - z[:, first:]).max() > 1e-3


def test_mean_of_the_rnn_is_taken_over_time(made, features):
    encoder = made['mean_z']
    mfccs = encoders._mfccs(features['audio'], 16000, 1024, 0.75)
    states = npy(encoder.rnn(encoder.z_norm(mfccs)))
    kernel, bias = map(npy, encoder.dense_z.get_weights())
    expected = states.mean(axis=1) @ kernel + bias
    np.testing.assert_allclose(npy(encoder.compute_z(features['audio'])), expected, atol=1e-5)
    whole = made['one_z']
    assert whole.dense_z.kernel.shape[0] == states.shape[1] * 6  # all steps, side by side


def test_aggregated_features_are_a_linear_map_of_their_means(made, features):
    encoder = made['aggregate']
    kernel, bias = map(npy, encoder.dense.get_weights())
    means = np.concatenate([features[key].mean(axis=1) for key in ('f0_scaled', 'ld_scaled')], axis=-1)
    found = npy(encoder.compute_z(features['f0_scaled'], features['ld_scaled']))
    np.testing.assert_allclose(found, means @ kernel + bias, atol=1e-5)


@pytest.mark.parametrize('labels', [[1, 4], [[1], [4]], [1.0, 4.0]])
def test_a_label_picks_its_row_of_the_table(labels, made, features):
    table = npy(made['one_hot'].embedding.get_weights()[0])
    z = npy(made['one_hot']({**features, 'instrument': np.array(labels)})['z'])
    np.testing.assert_allclose(z[:, 0], table[[1, 4]])


def test_a_label_may_keep_one_step_and_have_another_name(features):
    encoder = encoders.OneHotEncoder(one_hot_key='player', vocab_size=3, n_dims=2)
    assert encoder.input_keys == ['player', 'f0_scaled']
    z = npy(encoder({'player': np.array([2, 2, 0]), 'f0_scaled': np.zeros([3, 9, 1])})['z'])
    assert z.shape == (3, 1, 2)
    np.testing.assert_array_equal(z[0], z[1])
    assert np.any(z[0] != z[2])


@pytest.mark.parametrize('steps', [63, 125, 250, 500, 1000])
def test_four_seconds_have_the_steps_that_were_asked_for(steps):
    encoder = encoders.MfccTimeDistributedRnnEncoder(rnn_channels=2, z_dims=1, z_time_steps=steps)
    encoder.rnn = nn.Identity()  # what it computes does not matter here
    assert encoder.compute_z(np.zeros([1, 64000], np.float32)).shape == (1, steps, 1)


def test_other_steps_are_refused_with_those_that_exist():
    with pytest.raises(
        ValueError, match=r'z_time_steps is 200; it must be one of \[63, 125, 250, 500, 1000\]'
    ):
        encoders.MfccTimeDistributedRnnEncoder(z_time_steps=200)
    with pytest.raises(ValueError, match="rnn_type is 'vanilla'"):
        encoders.MfccRnnEncoder(rnn_type='vanilla')


def test_own_encoders_write_compute_z_alone(features):
    class Ends(encoders.ZEncoder):
        """Loudness of the first and the last frame: z goes from one to the other."""

        def compute_z(self, ld_scaled):
            return ops.stack([ld_scaled[:, 0], ld_scaled[:, -1]], axis=1)

    encoder = Ends()
    assert encoder.input_keys == ['ld_scaled', 'f0_scaled']
    z = npy(encoder(features)['z'])
    ends = features['ld_scaled'][:, [0, -1]]
    np.testing.assert_allclose(z, npy(core.resample(ends, FRAMES)), atol=1e-6)
    np.testing.assert_allclose(z[:, [0, -1]], ends, atol=1e-6)
    with pytest.raises(NotImplementedError, match=r'ZEncoder must implement compute_z'):
        encoders.ZEncoder(input_keys=['ld_scaled'])(features)


@pytest.mark.parametrize('name', ['every_step', 'mean_z', 'aggregate'])
def test_gradients_reach_the_features(name, made, features, value_and_gradients):
    encoder = made[name]
    keys = ['f0_scaled', 'ld_scaled'] if name == 'aggregate' else ['audio']
    _, gradients = value_and_gradients(
        lambda *x: ops.sum(encoder.compute_z(*x) ** 2), *(features[key] for key in keys)
    )
    for gradient in gradients:
        assert np.isfinite(gradient).all()
        assert np.abs(gradient).max() > 1e-6
