"""Layers of `ddsp.training.nn` against numpy and scipy."""

import keras
import numpy as np
import pytest
import scipy.signal
from keras import ops

from ddsp.training import nn


def sigmoid(x):
    return 1.0 / (1.0 + np.exp(-x))


def disturbed(layer, *inputs):
    """The layer with weights that are not at their start, and their values in float64."""
    layer(*inputs)
    rng = np.random.default_rng(5)
    layer.set_weights([w + 0.3 * rng.normal(size=w.shape).astype(np.float32) for w in layer.get_weights()])
    return layer, [np.float64(w) for w in layer.get_weights()]


@pytest.fixture
def x(rng):
    """[batch 2, time 9, channels 4]."""
    return rng.normal(size=[2, 9, 4]).astype(np.float32)


def normalised(x, axes):
    return (x - x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, keepdims=True) + 1e-5)


@pytest.mark.parametrize('name', ['relu', 'sigmoid', 'tanh', 'leaky_relu', 'softplus', np.abs])
def test_a_fully_connected_layer_is_normalised_and_bent(name, x):
    functions = {
        'relu': lambda y: np.maximum(y, 0.0),
        'sigmoid': sigmoid,
        'tanh': np.tanh,
        'leaky_relu': lambda y: np.maximum(y, 0.2 * y),
        'softplus': lambda y: np.log1p(np.exp(y)),
        np.abs: np.abs,
    }
    layer, (kernel, bias, gain, offset) = disturbed(nn.Fc(5, ops.abs if name is np.abs else name), x)
    y = x @ kernel + bias
    y = (y - y.mean(-1, keepdims=True)) / np.sqrt(y.var(-1, keepdims=True) + 1e-3) * gain + offset
    np.testing.assert_allclose(layer(x), functions[name](y), atol=1e-5)


def test_a_stack_of_no_layers_is_the_identity(x):
    np.testing.assert_array_equal(nn.FcStack(7, 0)(x), x)
    np.testing.assert_array_equal(nn.Identity()(x), x)
    layer, (kernel, bias) = disturbed(nn.FcStackOut(7, 0, 3), x)
    np.testing.assert_allclose(layer(x), x @ kernel + bias, atol=1e-5)
    layer = nn.FcStackOut(6, 2, 3)
    assert layer(x).shape == (2, 9, 3)
    assert layer.count_params() == (4 * 6 + 6 + 12) + (6 * 6 + 6 + 12) + (6 * 3 + 3)


def test_activations_have_names():
    assert nn.get_nonlinearity('leaky_relu') is keras.activations.leaky_relu
    assert nn.get_nonlinearity('square') is ops.square  # what is no activation of Keras, but an operation
    assert nn.get_nonlinearity(abs) is abs
    with pytest.raises(ValueError, match="no activation is called 'reluu'"):
        nn.get_nonlinearity('reluu')


@pytest.mark.parametrize(('shape', 'wide'), [((2, 3), (2, 1, 1, 3)), ((2, 5, 3), (2, 5, 1, 3))])
def test_axes_that_were_added_go_again(shape, wide):
    x = np.arange(np.prod(shape)).reshape(shape)
    four = nn.ensure_4d(x)
    assert four.shape == wide
    np.testing.assert_array_equal(nn.inv_ensure_4d(four, len(shape)), x)
    np.testing.assert_array_equal(nn.inv_ensure_4d(nn.ensure_4d(four), 4), four)


def test_an_lstm_is_that_of_its_formulas(x):
    """Hochreiter and Schmidhuber (1997) with a forget gate; gates in Keras' order i, f, c, o."""
    layer, (kernel, recurrent, bias) = disturbed(nn.Rnn(3, 'lstm'), x)
    state = cell = np.zeros([2, 3])
    expected = []
    for step in np.moveaxis(x, 1, 0):
        i, f, c, o = np.split(step @ kernel + state @ recurrent + bias, 4, axis=-1)
        cell = sigmoid(f) * cell + sigmoid(i) * np.tanh(c)
        state = sigmoid(o) * np.tanh(cell)
        expected.append(state)
    np.testing.assert_allclose(layer(x), np.stack(expected, axis=1), atol=1e-5)


@pytest.mark.parametrize('rnn_type', ['gru', 'lstm'])
def test_both_directions_are_a_forward_and_a_backward_network(rnn_type, x):
    both, weights = disturbed(nn.Rnn(3, rnn_type, bidir=True), x)
    one = nn.Rnn(3, rnn_type)
    one(x)
    one.set_weights(weights[:3])
    forwards = np.asarray(one(x))
    one.set_weights(weights[3:])
    backwards = np.asarray(one(x[:, ::-1]))[:, ::-1]
    np.testing.assert_allclose(both(x), np.concatenate([forwards, backwards], axis=-1), atol=1e-5)


@pytest.mark.parametrize('rnn_type', ['gru', 'lstm'])
def test_the_last_output_alone_is_the_last_of_all(rnn_type, x):
    whole, weights = disturbed(nn.Rnn(3, rnn_type), x)
    last = nn.Rnn(3, rnn_type, return_sequences=False)
    last(x)
    last.set_weights(weights)
    np.testing.assert_allclose(last(x), whole(x)[:, -1], atol=1e-6)


def test_stacks_with_recurrent_layers_in_them(x):
    network, weights = disturbed(nn.RnnFc(3, 2, 'gru', 'sigmoid', n_rnn=2), x)
    first, second, _ = network.layers
    np.testing.assert_allclose(
        network(x), sigmoid(np.float64(second(first(x))) @ weights[-2] + weights[-1]), atol=1e-5
    )
    sandwich = nn.RnnSandwich(fc_stack_ch=5, fc_stack_layers=1, rnn_ch=6, rnn_type='gru')
    assert sandwich(x).shape == (2, 9, 5)
    assert [type(layer) for layer in sandwich.layers] == [nn.FcStack, nn.Rnn, nn.FcStack]
    gru, alone = nn.SingleGru(4), nn.Rnn(4, 'gru')
    gru(x)
    alone(x)
    alone.set_weights(gru.get_weights())
    np.testing.assert_array_equal(gru(x), alone(x))


def test_groups_are_normalised_apart(rng):
    x = rng.normal(2.0, 3.0, size=[2, 7, 1, 64]).astype(np.float32)
    found = nn.normalize_op(x, 'group')
    grouped = normalised(np.float64(x).reshape(2, 7, 32, 2), (1, 3)).reshape(x.shape)
    np.testing.assert_allclose(found, grouped, atol=1e-4)
    np.testing.assert_array_equal(nn.normalize_op(x, None), x)
    with pytest.raises(ValueError, match="norm_type 'group' needs a multiple of 32 channels, there are 5"):
        nn.normalize_op(np.ones([1, 2, 1, 5]), 'group')
    with pytest.raises(ValueError, match="norm_type is 'batch'; it must be 'instance', 'layer', 'group'"):
        nn.normalize_op(x, 'batch')


@pytest.mark.parametrize(('norm_type', 'axes'), [('layer', (1, 2)), ('instance', 1), (None, ())])
@pytest.mark.parametrize('shift_only', [True, False])
def test_normalisation_is_scaled_and_shifted(norm_type, axes, shift_only, x, rng):
    expected = normalised(np.float64(x), axes) if norm_type else x
    learned, (gain, offset) = disturbed(nn.Normalize(norm_type), x)
    np.testing.assert_allclose(learned(x), expected * gain[0, 0] + offset[0, 0], atol=1e-4)
    z = rng.normal(size=[2, 9, 3]).astype(np.float32)
    conditional = nn.ConditionalNorm(norm_type, shift_only)
    conditional, (kernel, bias) = disturbed(conditional, [x, z])
    factors = z @ kernel + bias
    scale, shift = (1.0, factors) if shift_only else (factors[..., :4], factors[..., 4:])
    np.testing.assert_allclose(conditional([x, z]), expected * scale + shift, atol=1e-4)
    assert isinstance(nn.get_norm(norm_type, True, shift_only), nn.ConditionalNorm)


@pytest.mark.parametrize(
    ('kind', 'fill', 'expected'),
    [
        ('down', 'pad', [[0, 1, 2, 3, 4, 5], [6, 7, 8, 9, 0, 0]]),
        ('down', 'trim', [[0, 1, 2, 3, 4, 5]]),
        ('up', 'pad', [[i] if i >= 0 else [0] for f in range(5) for i in (2 * f, 2 * f + 1, -1)]),
        ('up', 'trim', np.zeros([0, 0])),
    ],
)
def test_polyphase_fills_or_leaves_out_what_is_over(kind, fill, expected):
    x = np.arange(10.0).reshape(1, 5, 2)
    if kind == 'up' and fill == 'trim':
        x, expected = np.arange(15.0).reshape(1, 5, 3), [[3 * f + c] for f in range(5) for c in range(2)]
        found = nn.PolyphaseResample(2, kind, fill)(x)
    else:
        found = nn.PolyphaseResample(3, kind, fill)(x)
    np.testing.assert_array_equal(found[0], expected)


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'resample_type': 'sideways'}, "resample_type is 'sideways'; it must be 'down' or 'up'"),
        ({'trim_or_pad': 'fill'}, "trim_or_pad is 'fill'; it must be 'trim' or 'pad'"),
    ],
)
def test_other_ways_of_resampling_are_refused(options, message, x):
    with pytest.raises(ValueError, match=message):
        nn.polyphase_resample(x, **options)
    with pytest.raises(ValueError, match="resample_type is 'sideways'; it must be 'downsample'"):
        nn.DilatedConvStack(resample_type='sideways')


def convolved(x, kernel, rate):
    """A centred convolution over time, dilated; [batch, time, channels] by [taps, channels, outputs]."""
    taps = np.zeros([(len(kernel) - 1) * rate + 1, *kernel.shape[1:]])
    taps[::rate] = kernel
    y = np.zeros([*x.shape[:2], kernel.shape[2]])
    for b, c, o in np.ndindex(len(x), x.shape[2], kernel.shape[2]):
        y[b, :, o] += scipy.signal.correlate(x[b, :, c], taps[:, c, o], mode='same')
    return y


@pytest.mark.parametrize(('dilation', 'rates'), [(2, [1, 2, 1, 2]), (3, [1, 3, 1, 3]), (-2, [2, 1, 2, 1])])
def test_a_stack_of_convolutions_adds_to_its_input(dilation, rates, rng):
    x = rng.normal(size=[1, 30, 2]).astype(np.float32)
    stack = nn.DilatedConvStack(ch=3, layers_per_stack=2, stacks=2, dilation=dilation)
    stack, _ = disturbed(stack, x)
    y = convolved(x, *stack.conv_in.get_weights()[:1], 1) + stack.conv_in.get_weights()[1]
    for conv, norm, rate in zip(stack.convs, stack.norms, rates, strict=True):
        kernel, bias = conv.get_weights()
        gain, offset = (w[0, 0] for w in norm.get_weights())
        y = y + (convolved(np.maximum(y, 0.0), kernel, rate) + bias) * gain + offset
    np.testing.assert_allclose(stack(x), y, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(('kind', 'frames'), [('downsample', 4), ('upsample', 64), (None, 16)])
def test_stacks_resample_twice(kind, frames):
    stack = nn.DilatedConvStack(ch=2, layers_per_stack=1, stacks=2, resample_type=kind, resample_stride=2)
    assert stack(np.zeros([1, 16, 3], np.float32)).shape == (1, frames, 2)


def test_kernels_can_be_orthogonal_and_of_norm_one(x):
    keras.utils.set_random_seed(0)
    options = {'ch': 4, 'layers_per_stack': 1, 'stacks': 1, 'kernel_size': 1}
    orthogonal = nn.DilatedConvStack(ortho_init=True, **options)
    orthogonal(x)
    kernel = orthogonal.convs[0].get_weights()[0][0]
    np.testing.assert_allclose(kernel @ kernel.T, np.eye(4), atol=1e-5)
    bounded = nn.DilatedConvStack(spectral_norm=True, **options)
    bounded(x)
    layer = bounded.convs[0]
    layer.layer.kernel.assign(5.0 * layer.layer.kernel)
    for _ in range(30):  # of the power iteration
        layer(x, training=True)
    assert np.linalg.norm(np.asarray(layer.layer.kernel)[0], 2) == pytest.approx(1.0, abs=1e-2)


def test_layers_of_keras_are_known_to_gin():
    import gin

    with gin.unlock_config():
        gin.bind_parameter('tf.keras.layers.Dense.units', 3)
        try:
            assert gin.get_configurable('tf.keras.layers.Dense')().units == 3
        finally:
            gin.clear_config()
    table = nn.get_embedding(5, 2)
    assert table(np.array([0, 4])).shape == (2, 2)
