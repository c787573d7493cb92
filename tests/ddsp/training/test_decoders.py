"""Decoders against the same networks written in numpy, and what their outputs may depend on."""

import keras
import numpy as np
import pytest

from ddsp.training import decoders, nn

FRAMES = 12
SPLITS = (('amps', 1), ('harmonic_distribution', 4), ('noise_magnitudes', 3))


def sigmoid(x):
    return 1.0 / (1.0 + np.exp(-x))


def gru(x, state, kernel, recurrent, bias):
    """Cho et al. (2014), the reset gate behind the product, as in cuDNN; gates in the order z, r, h."""
    outputs = []
    for step in np.moveaxis(x, 1, 0):
        inputs, past = step @ kernel + bias[0], state @ recurrent + bias[1]
        (z, r, h), (past_z, past_r, past_h) = (np.split(part, 3, axis=-1) for part in (inputs, past))
        keep, reset = sigmoid(z + past_z), sigmoid(r + past_r)
        state = keep * state + (1.0 - keep) * np.tanh(h + reset * past_h)
        outputs.append(state)
    return np.stack(outputs, axis=1)


def fully_connected(x, weights):
    """Linear layer, layer normalisation, leaky ReLU; as many times as there are weights."""
    for kernel, bias, gain, offset in zip(*(weights[i::4] for i in range(4)), strict=True):
        x = x @ kernel + bias
        x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-3) * gain + offset
        x = np.where(x > 0, x, 0.2 * x)
    return x


def float64(layer):
    return [np.float64(w) for w in layer.get_weights()]


@pytest.fixture(scope='module')
def features():
    """Pitch and loudness by frame, and a z."""
    rng = np.random.default_rng(0)
    sizes = {'ld_scaled': 1, 'f0_scaled': 1, 'z': 5}
    return {key: rng.normal(size=[2, FRAMES, n]).astype(np.float32) for key, n in sizes.items()}


def made(features, **options):
    """A decoder whose weights, biases included, are random."""
    keras.utils.set_random_seed(0)
    options = {'rnn_channels': 6, 'ch': 7, 'layers_per_stack': 2, 'output_splits': SPLITS, **options}
    decoder = decoders.RnnFcDecoder(**options)
    decoder(features)
    rng = np.random.default_rng(1)
    decoder.set_weights(
        [w + 0.1 * rng.normal(size=w.shape).astype(np.float32) for w in decoder.get_weights()]
    )
    return decoder


@pytest.fixture(scope='module')
def decoder(features):
    """A decoder of pitch, loudness and z."""
    return made(features)


def numpy_decoder(decoder, features):
    stacks = zip(decoder.input_stacks, decoder.input_keys, strict=True)
    parts = [fully_connected(np.float64(features[key]), float64(stack)) for stack, key in stacks]
    together = np.concatenate(parts, axis=-1)
    states = gru(together, np.zeros([len(together), 6]), *float64(decoder.rnn))
    y = fully_connected(np.concatenate([*parts, states], axis=-1), float64(decoder.out_stack))
    kernel, bias = float64(decoder.dense_out)
    return y @ kernel + bias


@pytest.mark.parametrize('layers', [0, 1, 3])
def test_the_network_is_the_one_of_the_paper(layers, features):
    """Engel et al. (2020), appendix B.2: a stack for each input, a GRU, a stack over all, a linear layer."""
    decoder = made(features, layers_per_stack=layers)
    expected = numpy_decoder(decoder, features)
    found = decoder(features)
    assert list(found) == [name for name, _ in SPLITS]
    np.testing.assert_allclose(np.concatenate(list(found.values()), axis=-1), expected, atol=1e-5)


def test_items_of_a_batch_do_not_meet(decoder, features):
    together = decoder(features)
    alone = decoder({key: x[1:] for key, x in features.items()})
    for key, value in together.items():
        np.testing.assert_allclose(alone[key][0], value[1], atol=1e-5)


def test_the_past_does_not_know_the_future(decoder, features):
    changed = {key: x.copy() for key, x in features.items()}
    for x in changed.values():
        x[:, 8:] += 1.0
    before, after = decoder(features), decoder(changed)
    for key, value in before.items():
        np.testing.assert_allclose(after[key][:, :8], value[:, :8], atol=1e-6)
        assert np.abs(after[key][:, 8:] - value[:, 8:]).min(axis=-1).max() > 1e-4


@pytest.mark.parametrize('pieces', [[1] * FRAMES, [5, 4, 3]])
def test_a_stateless_decoder_goes_on_from_its_state(pieces, decoder, features):
    """Frame by frame, or some at a time: what comes out is what one call gives."""
    state = np.zeros([2, 6], np.float32)
    stateless = made({**features, 'state': state}, stateless=True)
    stateless.set_weights(decoder.get_weights())
    assert stateless.input_keys == ['ld_scaled', 'f0_scaled', 'z', 'state']
    outputs, start = [], 0
    for n in pieces:
        piece = {key: x[:, start : start + n] for key, x in features.items()}
        outputs.append(stateless({**piece, 'state': state}))
        state, start = outputs[-1].pop('state'), start + n
    for key, whole in decoder(features).items():
        np.testing.assert_allclose(np.concatenate([o[key] for o in outputs], 1), whole, atol=1e-5)


def test_an_lstm_may_take_the_place_of_the_gru(features):
    decoder = made(features, rnn_type='lstm')
    assert isinstance(decoder.rnn.rnn, keras.layers.LSTM)
    assert decoder(features)['harmonic_distribution'].shape == (2, FRAMES, 4)
    with pytest.raises(ValueError, match="a stateless network needs 'gru'"):
        decoders.RnnFcDecoder(rnn_type='lstm', stateless=True)


def test_missing_inputs_and_others_are_named(decoder, features):
    with pytest.raises(KeyError, match="'z'"):
        decoder({key: x for key, x in features.items() if key != 'z'})
    with pytest.raises(TypeError, match=r"needs 3 input\(s\) \['ld_scaled', 'f0_scaled', 'z'\]"):
        decoder(features['z'], features['z'])


def convolutional(features, **options):
    """A small decoder of convolutions, built."""
    keras.utils.set_random_seed(0)
    options = {'ch': 4, 'layers_per_stack': 2, 'stacks': 2, 'output_splits': SPLITS, **options}
    decoder = decoders.DilatedConvDecoder(**options)
    decoder(features)
    return decoder


def test_convolutions_hear_their_receptive_field(features):
    """1 frame to either side for the first convolution, and 1 + 2 for each of two stacks."""
    decoder = convolutional(features, norm_type=None, conditioning_keys=None)
    long = {key: np.tile(x, (1, 4, 1)) for key, x in features.items()}
    changed = {**long, 'ld_scaled': long['ld_scaled'].copy()}
    changed['ld_scaled'][:, 24] += 1.0
    difference = np.abs(decoder(changed)['harmonic_distribution'] - decoder(long)['harmonic_distribution'])
    heard = np.flatnonzero(difference.max(axis=(0, 2)))
    assert (heard[0], heard[-1]) == (24 - 7, 24 + 7)


def test_convolutions_do_the_same_at_any_time(features):
    decoder = convolutional(features, norm_type=None, conditioning_keys=None)
    long = {key: np.tile(x, (1, 4, 1)) for key, x in features.items()}
    later = {key: np.roll(x, 5, axis=1) for key, x in long.items()}
    for key, value in decoder(long).items():
        np.testing.assert_allclose(decoder(later)[key][:, 15:-10], value[:, 10:-15], atol=1e-5)


@pytest.mark.parametrize('keys', [('z',), 'z', ('z', 'ld_scaled')])
def test_conditioning_changes_every_frame(keys, features):
    decoder = convolutional(features, conditioning_keys=keys)
    changed = {**features, 'z': features['z'] + 1.0}
    assert decoder.input_keys == ['ld_scaled', 'f0_scaled', *([keys] if keys == 'z' else keys)]
    assert np.abs(decoder(changed)['amps'] - decoder(features)['amps']).min() > 1e-5
    assert decoder.dilated_conv_stack.conv_in.kernel.shape[1] == 2  # what it is conditioned on is no input


@pytest.mark.parametrize('keys', [None, (), []])
def test_without_conditioning_there_is_none(keys, features):
    stack = keras.layers.Dense(2)
    decoder = convolutional(features, conditioning_keys=keys, precondition_stack=stack)
    assert decoder.input_keys == ['ld_scaled', 'f0_scaled']
    assert decoder.precondition_stack is None
    assert not stack.built


def test_a_layer_before_the_conditioning_is_applied(features):
    twice = keras.layers.Rescaling(2.0)
    plain = convolutional(features)
    scaled = convolutional(features, precondition_stack=twice)
    expected = plain({**features, 'z': 2.0 * features['z']})
    for key, value in scaled(features).items():
        np.testing.assert_allclose(value, expected[key], atol=1e-6)


@pytest.mark.parametrize('after', [True, False])
@pytest.mark.parametrize(('stride', 'per', 'times'), [(1, 1, 1), (2, 1, 4), (2, 2, 2), (3, 1, 9)])
def test_upsampling_multiplies_the_frames(stride, per, times, after, features):
    """A group of `per` of the two stacks ends, or begins, with a factor of `stride`."""
    decoder = convolutional(
        features, conditioning_keys=None, resample_stride=stride, stacks_per_resample=per,
        resample_after_convolve=after,
    )  # fmt: skip
    assert decoder(features)['amps'].shape == (2, FRAMES * times, 1)


def test_output_layers_have_to_be_written():
    with pytest.raises(NotImplementedError, match=r'OutputSplitsLayer must implement compute_output'):
        nn.OutputSplitsLayer(input_keys=['x'])(np.ones([1, 2, 3]))


@pytest.mark.parametrize('norm_type', ['instance', 'layer', None])
def test_every_normalisation_has_finite_gradients(norm_type, features, value_and_gradients):
    decoder = convolutional(features, norm_type=norm_type)
    silent = [np.zeros_like(features[key]) for key in decoder.input_keys]  # no variance to divide by
    for inputs in ([features[key] for key in decoder.input_keys], silent):
        _, gradients = value_and_gradients(lambda *x: keras.ops.sum(decoder.compute_output(*x) ** 2), *inputs)
        assert all(np.isfinite(g).all() for g in gradients)


@pytest.mark.parametrize('after', [True, False])
def test_upsampling_comes_after_a_stack_or_before_it(after, features):
    """A layer of the stack sees the frames of before, or those of after."""
    decoder = convolutional(
        features, conditioning_keys=None, resample_stride=2, stacks_per_resample=2,
        resample_after_convolve=after,
    )  # fmt: skip
    stack, seen = decoder.dilated_conv_stack, []
    x = np.concatenate([features['ld_scaled'], features['f0_scaled']], axis=-1)
    y = stack.conv_in(x)
    for step in [0, 1, 2, 3, 'up'] if after else [0, 1, 'up', 2, 3]:  # two stacks of two layers
        seen.append(y.shape[1])
        y = (
            stack.resamplers[0](y)
            if step == 'up'
            else y + stack.norms[step](stack.convs[step](keras.ops.relu(y)))
        )
    np.testing.assert_allclose(stack(x), y, atol=1e-5)
    assert seen == [FRAMES] * (5 if after else 3) + [2 * FRAMES] * (0 if after else 2)
