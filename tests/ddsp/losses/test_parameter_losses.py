"""mean_difference, the losses on synthesizer parameters, and groups of losses."""

import keras
import numpy as np
import pytest
from keras import ops

from ddsp import losses
from ddsp.errors import ConfigError

pytestmark = pytest.mark.portable


@pytest.fixture(scope='module')
def pair() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return tuple(rng.uniform(0.1, 1, (2, 5, 4)).astype(np.float32) for _ in range(2))


def midi(hz):
    return 69 + 12 * np.log2(np.asarray(hz, np.float64) / 440)


def test_mean_difference_is_its_formula(pair):
    t, v = (x.astype(np.float64) for x in pair)
    w = np.linspace(-1, 2, 5)[None, :, None]
    cosine = 1 - (t * v).sum(-1, keepdims=True) / np.linalg.norm(t, axis=-1, keepdims=True) / np.linalg.norm(
        v, axis=-1, keepdims=True
    )
    for loss_type, difference in (('L1', np.abs(t - v)), ('l2', (t - v) ** 2), ('Cosine', cosine)):
        np.testing.assert_allclose(losses.mean_difference(*pair, loss_type), difference.mean(), rtol=1e-5)
        weighted = difference * (np.abs(w) if loss_type == 'L1' else w)
        result = losses.mean_difference(*pair, loss_type, weights=w.astype(np.float32))
        np.testing.assert_allclose(result, weighted.mean(), rtol=1e-4)
    with pytest.raises(ConfigError, match=r"loss_type is 'huber'; it can be 'L1', 'L2', 'COSINE'"):
        losses.mean_difference(*pair, 'huber')


def test_cosine_has_a_finite_gradient_at_zero(value_and_gradients):
    zero, one = np.zeros((1, 3), np.float32), np.ones((1, 3), np.float32)
    value, gradients = value_and_gradients(lambda t, v: losses.mean_difference(t, v, 'COSINE'), zero, one)
    assert float(value) == 1.0
    assert all(np.isfinite(g).all() for g in gradients)


def test_amp_and_freq_loss(pair):
    a, b = pair
    np.testing.assert_allclose(losses.amp_loss(a, b), np.abs(a - b).mean(), rtol=1e-5)
    a[0, 0, 0] = 0.0  # counts as amin
    expected = np.abs(np.log10(np.maximum(a, 1e-5)) - np.log10(b)).mean()
    np.testing.assert_allclose(losses.amp_loss(a, b, log=True), expected, rtol=1e-5)
    f, g = 100 + 1000 * a, 100 + 1000 * b
    np.testing.assert_allclose(losses.freq_loss(f, g), np.abs(midi(f) - midi(g)).mean(), rtol=1e-4)
    np.testing.assert_allclose(losses.freq_loss(f, 2 * f), 12.0, rtol=1e-5)  # an octave is 12 semitones


def test_param_and_noise_loss(pair):
    a, b = pair
    np.testing.assert_allclose(losses.ParamLoss(3.0, 'L2')(a, b), 3 * ((a - b) ** 2).mean(), rtol=1e-5)
    np.testing.assert_allclose(losses.ParamLoss()(a, b, np.zeros_like(a)), 0.0)
    np.testing.assert_allclose(
        losses.FilteredNoiseConsistencyLoss(2.0)(a, b), 2 * np.abs(a - b).mean(), rtol=1e-5
    )


def test_harmonic_consistency_counts_pitch_and_timbre_where_the_target_sounds():
    amp = np.array([[[1.0], [0.5]]], np.float32)
    amp_target = np.array([[[0.8], [0.0]]], np.float32)  # the second frame is silent
    dist, dist_target = np.full((1, 2, 4), 0.25, np.float32), np.array([[[1, 0, 0, 0]] * 2], np.float32)
    f0, f0_target = np.full((1, 2, 1), 440.0, np.float32), np.full((1, 2, 1), 880.0, np.float32)
    loss = losses.HarmonicConsistencyLoss(amp_weight=2.0, dist_weight=3.0, f0_weight=0.5, name='harmonics')
    result = loss(amp, amp_target, dist, dist_target, f0, f0_target)
    np.testing.assert_allclose(result['harm_amp_loss'], 2 * (0.2 + 0.5) / 2, rtol=1e-5)
    np.testing.assert_allclose(result['harm_dist_loss'], 3 * (0.75 + 3 * 0.25) / 8, rtol=1e-5)
    np.testing.assert_allclose(result['f0_hz_loss'], 0.5 * 12 / 2, rtol=1e-5)
    named, metrics = loss.loss_and_metrics(amp, amp_target, dist, dist_target, f0, f0_target)
    assert set(named) == {'harm_amp_loss', 'harm_dist_loss', 'f0_hz_loss'}
    assert metrics == {}


def make_group() -> losses.LossGroup:
    return losses.LossGroup(
        [
            (losses.SpectralLoss((64,), name='recon'), ['audio', 'synth/signal']),
            ('f0_loss', ['f0_hz', 'synth/controls/f0_hz']),
        ],
        f0_loss=losses.ParamLoss(weight=2.0, name='f0_loss'),
    )


def make_outputs() -> dict:
    rng = np.random.default_rng(0)
    return {
        'audio': rng.standard_normal((1, 640)).astype(np.float32),
        'f0_hz': np.ones((1, 10, 1), np.float32),
        'synth': {
            'signal': rng.standard_normal((1, 640)).astype(np.float32),
            'controls': {'f0_hz': np.zeros((1, 10, 1), np.float32)},
        },
    }


def test_a_group_looks_up_what_each_loss_needs():
    group, outputs = make_group(), make_outputs()
    found = group(outputs)
    assert set(found) == set(group.loss_names) == {'recon', 'f0_loss'}
    assert float(found['f0_loss']) == 2.0
    recon = losses.SpectralLoss((64,))(outputs['audio'], outputs['synth']['signal'])
    np.testing.assert_allclose(found['recon'], recon, rtol=1e-6)
    named, metrics = group.loss_and_metrics(outputs)
    assert set(named) == {'recon', 'f0_loss'}
    assert set(metrics) == {'recon_64'}
    assert [loss.name for loss in group.losses] == group.loss_names
    assert set(group.get_losses_dict(outputs)) == {'recon', 'f0_loss'}


def test_a_group_can_be_cloned():
    group, outputs = make_group(), make_outputs()
    clone = losses.LossGroup.from_config(group.get_config())
    for name, value in group(outputs).items():
        np.testing.assert_allclose(clone(outputs)[name], value, rtol=1e-6)


def test_a_group_says_what_is_wrong():
    group, outputs = make_group(), make_outputs()
    del outputs['synth']['controls']
    with pytest.raises(KeyError, match='controls'):
        group.loss_and_metrics(outputs)
    with pytest.raises(ConfigError, match=r"'dense' in a LossGroup is no loss"):
        losses.LossGroup([(keras.layers.Dense(1, name='dense'), ['audio'])])
    twice = losses.LossGroup(
        [(losses.HarmonicConsistencyLoss(name=name), ['a'] * 6) for name in ('one', 'two')]
    )
    with pytest.raises(
        ConfigError, match=r"two losses are called \['f0_hz_loss', 'harm_amp_loss', 'harm_dist_loss'\]"
    ):
        twice.loss_and_metrics({'a': np.ones((1, 3, 1), np.float32)})


def test_a_model_with_a_group_keeps_its_regularisation_losses():
    class Model(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = keras.layers.Dense(1, kernel_regularizer='l2')
            self.group = make_group()

        def call(self, x):
            return self.dense(x)

    model = Model()
    model(ops.ones((1, 3)))
    assert len(model.losses) == 1


def test_losses_are_known_to_gin():
    import gin

    with gin.unlock_config():
        gin.clear_config()
        gin.parse_config('ParamLoss.weight = 7.0\nddsp.losses.SpectralLoss.logmag_weight = 0.5')
        loss = gin.get_configurable('ParamLoss')()
        spectral = gin.get_configurable('ddsp.losses.SpectralLoss')()
        gin.clear_config()
    assert loss.weight == 7.0
    assert spectral.logmag_weight == 0.5


def sinusoids(seed):
    rng = np.random.default_rng(seed)
    return rng.uniform(0.1, 1.0, [1, 5, 4]), rng.uniform(100.0, 900.0, [1, 5, 4])  # amplitudes, Hz


@pytest.mark.parametrize(
    ('loss', 'inputs'),
    [
        (losses.ParamLoss(2.0, 'l2', name='p'), [*sinusoids(0)]),
        (losses.FilteredNoiseConsistencyLoss(0.5), [*sinusoids(0)]),
        (losses.WassersteinConsistencyLoss(2.0, midi=False), [*sinusoids(0), *sinusoids(1)]),
        (losses.KDEConsistencyLoss(1.0, 2.0, 3.0, 0.2, 0.3), [*sinusoids(0), *sinusoids(1)]),
        (losses.TWMLoss(1.0, 2.0, 0.3, 0.1, 5, 20, 0.5, 48000), [sinusoids(0)[1], *sinusoids(1)[::-1]]),
        (
            losses.HmmTranscriber(100, n_pitches=64, weight=0.1),
            [60.0 + np.ones([1, 5, 1]), np.ones([1, 5, 1])],
        ),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_clone_has_the_same_value(loss, inputs):
    inputs = [x.astype(np.float32) for x in inputs]
    clone = type(loss).from_config(loss.get_config())
    value, default = float(loss(*inputs)), float(type(loss)()(*inputs))
    assert float(clone(*inputs)) == value
    assert abs(value - default) > 1e-4 * abs(value)  # so that an argument that is lost would show
