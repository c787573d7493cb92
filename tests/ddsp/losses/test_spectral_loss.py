"""SpectralLoss: values, terms, gradients, and its quick path against automatic differentiation."""

import keras
import numpy as np
import pytest
import scipy.signal
from keras import ops

from ddsp import losses, spectral_ops
from ddsp.errors import ConfigError

SIZES = (512, 256, 64)
TERMS = ('mag', 'delta_time', 'delta_freq', 'cumsum_freq', 'logmag')


def signals(n_samples: int = 2000) -> tuple[np.ndarray, np.ndarray]:
    """A harmonic tone and a noisy, detuned copy, [2, n_samples]."""
    rng = np.random.default_rng(0)
    t = np.arange(n_samples) / 16000
    target = sum(np.sin(2 * np.pi * f * t) / f for f in (220, 440, 660)) * 100
    value = sum(np.sin(2 * np.pi * 1.01 * f * t) / f for f in (220, 440, 880)) * 80
    noise = 0.01 * rng.standard_normal((2, 2, n_samples))
    return tuple(
        (np.stack([x, x[::-1]]) + e).astype(np.float32) for x, e in zip((target, value), noise, strict=True)
    )


def magnitudes(audio: np.ndarray, size: int) -> np.ndarray:
    """Magnitude spectrogram in float64, frame by frame."""
    hop = size // 4
    padded = np.pad(audio.astype(np.float64), [(0, 0), (0, size)])
    window = scipy.signal.get_window('hann', size)
    frames = [padded[:, i * hop : i * hop + size] * window for i in range(-(-audio.shape[1] // hop))]
    return np.abs(np.fft.rfft(np.stack(frames, axis=1)))


def expected_terms(target: np.ndarray, value: np.ndarray, size: int, power: int = 1) -> dict[str, float]:
    """Every term at one size, in float64."""
    transforms = {
        'mag': lambda s: s,
        'delta_time': lambda s: np.diff(s, axis=1),
        'delta_freq': lambda s: np.diff(s, axis=2),
        'cumsum_freq': lambda s: np.cumsum(s, axis=2),
        'logmag': np.log,
    }
    target, value = magnitudes(target, size), magnitudes(value, size)
    return {name: np.mean(np.abs(f(target) - f(value)) ** power) for name, f in transforms.items()}


def every_term(**kwargs) -> losses.SpectralLoss:
    weights = {f'{term}_weight': i + 1.0 for i, term in enumerate(TERMS)}
    return losses.SpectralLoss(SIZES, **{**weights, 'loudness_weight': 0.5, **kwargs})


@pytest.mark.portable
@pytest.mark.parametrize(('loss_type', 'power'), [('L1', 1), ('l2', 2)])
def test_every_term_is_its_definition(loss_type, power):
    target, value = signals()
    terms = every_term(loss_type=loss_type).get_terms(target, value)
    for size in SIZES:
        expected = expected_terms(target, value, size, power)
        for i, term in enumerate(TERMS):
            np.testing.assert_allclose(terms[size, term], (i + 1) * expected[term], rtol=2e-3)
    loudness = [ops.convert_to_numpy(spectral_ops.compute_loudness(x, n_fft=2048)) for x in (target, value)]
    difference = np.mean(np.abs(loudness[0] - loudness[1]) ** power)
    np.testing.assert_allclose(terms[None, 'loudness'], 0.5 * difference, rtol=1e-5)
    assert len(terms) == len(SIZES) * len(TERMS) + 1


@pytest.mark.portable
@pytest.mark.parametrize(
    'kwargs',
    [
        {},
        {'logmag_weight': 1.0},
        {'mag_weight': 0.0, 'logmag_weight': 2.0},
        {'loudness_weight': 0.1},
        {'loss_type': 'L2'},
    ],
    ids=str,
)
def test_all_ways_to_the_loss_agree(kwargs):
    target, value = signals()
    loss = losses.SpectralLoss(SIZES, **kwargs)
    total = float(loss(target, value))
    np.testing.assert_allclose(total, sum(map(float, loss.get_terms(target, value).values())), rtol=1e-5)
    assert set(loss.get_losses_dict(target, value)) == {'spectral_loss'}
    found, metrics = loss.loss_and_metrics(target, value)
    assert set(found) == {'spectral_loss'}
    by_size = {f'spectral_loss_{size}' for size in SIZES}
    assert set(metrics) == by_size | ({'spectral_loss_loudness'} if 'loudness_weight' in kwargs else set())
    np.testing.assert_allclose(float(found['spectral_loss']), total, rtol=1e-6)
    np.testing.assert_allclose(sum(map(float, metrics.values())), total, rtol=1e-5)
    for size in SIZES:
        one = losses.SpectralLoss((size,), **{**kwargs, 'loudness_weight': 0.0})
        np.testing.assert_allclose(metrics[f'spectral_loss_{size}'], one(target, value), rtol=1e-5)


def test_the_name_leads_the_metrics():
    target, value = signals()
    found, metrics = losses.SpectralLoss((64,), name='recon').loss_and_metrics(target, value)
    assert (set(found), set(metrics)) == ({'recon'}, {'recon_64'})


def test_it_is_zero_for_the_same_sound_symmetric_and_linear_in_level():
    target, value = signals()
    loss = losses.SpectralLoss(SIZES, logmag_weight=1.0)
    assert float(loss(target, target)) == 0.0
    np.testing.assert_allclose(loss(target, value), loss(value, target), rtol=1e-6)
    linear = losses.SpectralLoss(SIZES)
    np.testing.assert_allclose(linear(2 * target, 2 * value), 2 * linear(target, value), rtol=1e-5)
    # The logarithm sees a factor only: ln 2 at each size.
    logarithmic = losses.SpectralLoss(SIZES, mag_weight=0.0, logmag_weight=1.0)
    np.testing.assert_allclose(logarithmic(target, 2 * target), 3 * np.log(2), rtol=1e-5)


@pytest.mark.portable
@pytest.mark.parametrize(
    'kwargs', [{'logmag_weight': 1.0}, {'mag_weight': 0.3}, {'mag_weight': 0.0, 'logmag_weight': 2.0}]
)
@pytest.mark.parametrize('sizes', [(256, 64), (100, 60)])
def test_the_quick_path_has_the_gradient_of_automatic_differentiation(kwargs, sizes, value_and_gradients):
    # Hard cases on purpose: silence in either signal, and a length that no hop divides.
    target, value = signals(2999)
    target[0, :1500] = 0.0
    value[1, 1500:] = 0.0
    loss = losses.SpectralLoss(sizes, **kwargs)
    quick, quick_gradients = value_and_gradients(lambda a, b: 3.0 * loss(a, b), target, value)
    plain, plain_gradients = value_and_gradients(
        lambda a, b: 3.0 * sum(loss.get_terms(a, b).values()), target, value
    )
    np.testing.assert_allclose(quick, plain, rtol=1e-5)
    for ours, theirs in zip(quick_gradients, plain_gradients, strict=True):
        # Where two magnitudes are equal but for rounding, the sign of their difference is anybody's: so not
        # max().
        scale = np.abs(theirs).mean()
        assert scale > 0
        assert np.isfinite(ours).all()
        assert np.median(np.abs(ours - theirs)) < 1e-4 * scale
        assert np.corrcoef(ours.ravel(), theirs.ravel())[0, 1] > 0.999


@pytest.mark.portable
@pytest.mark.parametrize('quick', [True, False])
def test_gradients_against_float64_differences(quick, value_and_gradients):
    target, value = signals(600)
    target, value = target[:1], value[:1]
    loss = losses.SpectralLoss(
        (256, 64), mag_weight=1.0, logmag_weight=1.0, delta_time_weight=0.0 if quick else 0.5
    )
    _, (_, gradient) = value_and_gradients(loss, target, value)
    rng = np.random.default_rng(2)
    names = {'mag': 1.0, 'logmag': 1.0, 'delta_time': loss.delta_time_weight}

    def in_float64(x):
        found = [expected_terms(target, x, size) for size in (256, 64)]
        return sum(weight * terms[name] for terms in found for name, weight in names.items())

    for _ in range(3):
        direction = rng.standard_normal(value.shape) * 1e-6
        expected = in_float64(value + direction) - in_float64(value - direction)
        np.testing.assert_allclose(2 * (gradient * direction).sum(), expected, rtol=1e-2, atol=1e-9)


@pytest.mark.parametrize(
    ('which', 'loss_type'),
    [
        pytest.param('both', 'L1', marks=pytest.mark.portable),
        *[('both', loss_type) for loss_type in ('L2', 'COSINE')],
        *[(which, loss_type) for which in ('target', 'audio') for loss_type in ('L1', 'L2', 'COSINE')],
    ],
)
def test_digital_silence_has_finite_gradients(which, loss_type, value_and_gradients):
    target, value = signals()
    target = np.zeros_like(target) if which in ('target', 'both') else target
    value = np.zeros_like(value) if which in ('audio', 'both') else value
    loss = every_term(loss_type=loss_type)
    for function in (loss, losses.SpectralLoss(SIZES, logmag_weight=1.0, loss_type=loss_type)):
        result, gradients = value_and_gradients(function, target, value)
        assert np.isfinite(result)
        assert all(np.isfinite(g).all() for g in gradients)


def test_weights_choose_examples():
    target, value = signals()
    loss = every_term()
    weights = np.array([1.0, 0.0], np.float32)[:, None, None]
    alone = loss(target[:1], value[:1])
    np.testing.assert_allclose(
        loss(target, value, weights), alone / 2, rtol=1e-5
    )  # the mean counts all elements


@pytest.mark.portable
def test_cosine_sees_the_shape_of_spectra_only():
    target, value = signals()
    loss = losses.SpectralLoss(SIZES, loss_type='COSINE')
    assert float(loss(target, 2 * target)) == pytest.approx(0.0, abs=1e-5)
    a, b = magnitudes(target, 64), magnitudes(value, 64)
    cosine = (a * b).sum(-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1)
    np.testing.assert_allclose(
        losses.SpectralLoss((64,), 'cosine')(target, value), np.mean(1 - cosine), rtol=1e-3
    )


@pytest.mark.portable
@pytest.mark.parametrize('kwargs', [{}, {'delta_time_weight': 1.0}], ids=['quick', 'plain'])
def test_compiled_is_eager(kwargs, compiled):
    target, value = signals()
    loss = losses.SpectralLoss(SIZES, logmag_weight=1.0, **kwargs)
    np.testing.assert_allclose(compiled(loss)(target, value), loss(target, value), rtol=1e-4)


@pytest.mark.skipif(keras.backend.backend() != 'tensorflow', reason='only TensorFlow has unknown sizes')
def test_batch_and_length_may_be_unknown():
    import tensorflow as tf

    loss = losses.SpectralLoss(SIZES, logmag_weight=1.0)

    @tf.function(input_signature=[tf.TensorSpec([None, None])] * 2)
    def loss_and_gradient(target, audio):
        with tf.GradientTape() as tape:
            tape.watch(audio)
            value = loss(target, audio)
        return value, tape.gradient(value, audio)

    for n in (2000, 1501):
        target, audio = (tf.constant(x) for x in signals(n))
        value, gradient = loss_and_gradient(target, audio)
        np.testing.assert_allclose(value, loss(target, audio), rtol=1e-5)
        assert gradient.shape == audio.shape


@pytest.mark.skipif(
    keras.backend.backend() != 'tensorflow', reason='counts the operations of a TensorFlow graph'
)
def test_each_signal_is_transformed_once_a_size():
    import tensorflow as tf

    loss = every_term(loudness_weight=0.0)
    target, value = (tf.constant(x) for x in signals())
    graph = tf.function(loss.__call__).get_concrete_function(target, value).graph
    assert sum(op.type == 'RFFT' for op in graph.get_operations()) == 2 * len(SIZES)


def test_mixed_precision_changes_nothing():
    target, value = signals()
    expected = float(losses.SpectralLoss(SIZES, logmag_weight=1.0)(target, value))
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy('mixed_bfloat16')
    try:
        result = losses.SpectralLoss(SIZES, logmag_weight=1.0)(target, value)
    finally:
        keras.config.set_dtype_policy(before)
    assert keras.backend.standardize_dtype(result.dtype) == 'float32'
    np.testing.assert_allclose(float(result), expected, rtol=1e-6)


def test_it_can_be_cloned():
    target, value = signals()
    loss = every_term(loss_type='l2', name='recon')
    clone = losses.SpectralLoss.from_config(loss.get_config())
    assert clone.get_config() == loss.get_config()
    np.testing.assert_allclose(clone(target, value), loss(target, value))


def test_what_cannot_be_compared_is_named():
    with pytest.raises(ConfigError, match=r'target_audio has shape \(2, 100\) and audio \(2, 90\)'):
        losses.SpectralLoss()(np.zeros((2, 100)), np.zeros((2, 90)))
    with pytest.raises(ConfigError, match=r'target_audio has shape \(100,\)'):
        losses.SpectralLoss()(np.zeros(100), np.zeros(100))
    with pytest.raises(ConfigError, match=r"loss_type is 'L3'; it can be 'L1', 'L2', 'COSINE'"):
        losses.SpectralLoss(loss_type='L3')
    for sizes in ((), (64, 64), (2,), (64.5,)):
        with pytest.raises(
            ConfigError, match=r'fft_sizes is .*; different whole numbers of samples from 4 up'
        ):
            losses.SpectralLoss(sizes)
