"""Kernels of recurrent layers: values and gradients of the Keras layers, on every backend."""

import keras
import numpy as np
import pytest
from keras import ops

from ddsp.core import kernels
from ddsp.errors import ConfigError
from ddsp.training import decoders, nn

pytestmark = pytest.mark.portable
DECODE, GRU = 'ddsp.training.nn.kernels.layers:decode', 'ddsp.training.nn.kernels.layers:gru'


def make_decoder(channels=8, **kwargs):
    return decoders.RnnFcDecoder(
        rnn_channels=channels,
        ch=channels,
        input_keys=('a', 'b'),
        output_splits=(('x', 3), ('y', 2)),
        **kwargs,
    )


def features_of(rng, n_frames):
    return [rng.normal(size=(3, n_frames, channels)).astype(np.float32) for channels in (1, 20)]


def disturb(layer, rng):
    """Biases and scales that are not all alike."""
    for v in layer.trainable_variables:
        v.assign_add(0.1 * rng.normal(size=v.shape))


def with_weights(layer, call):
    """A scalar function of inputs and weights, which are put in the layer's place."""
    variables = layer.trainable_variables

    def loss(*arrays):
        inputs, weights = arrays[: -len(variables)], arrays[-len(variables) :]
        with keras.StatelessScope(state_mapping=list(zip(variables, weights, strict=True))):
            found = ops.cast(call(*inputs), 'float32')
        return ops.sum(ops.sin(3.0 * found))

    return loss, [np.asarray(ops.convert_to_tensor(v)) for v in variables]


def decoder_case(n_frames, layers):
    def make(rng):
        decoder, features = make_decoder(layers_per_stack=layers), features_of(rng, n_frames)
        decoder.decode(features)
        return decoder, lambda *x: decoder.decode(x)[0], features

    return make


def gru_case(with_state):
    def make(rng):
        layer = nn.GRU(4, return_sequences=True)
        inputs = [rng.normal(size=[3, 20, 5]).astype(np.float32)]
        layer(inputs[0])
        if not with_state:
            return layer, layer, inputs
        state = rng.normal(size=[3, 4]).astype(np.float32)
        return layer, lambda x, state: layer(x, initial_state=state), [*inputs, state]

    return make


CASES = {
    # 150 steps are three blocks of 50; 7 steps one; 131 are filled up to three times 44.
    DECODE: [decoder_case(150, 2), decoder_case(131, 1), decoder_case(7, 0)],
    GRU: [gru_case(False), gru_case(True)],
}


def test_every_kernel_is_compared():
    assert set(CASES) == {address for address in kernels.PAIRS if address.startswith('ddsp.training')}


@pytest.mark.parametrize(
    ('address', 'case'), [(a, i) for a, cases in CASES.items() for i in range(len(cases))]
)
def test_values_and_gradients_are_those_of_the_layers(rng, value_and_gradients, monkeypatch, address, case):
    if keras.backend.backend() == 'torch':
        pytest.skip('PyTorch runs the layers of Keras')
    layer, call, inputs = CASES[address][case](rng)
    disturb(layer, rng)
    loss, weights = with_weights(layer, call)
    used = []
    module, name = address.split(':')
    fast = kernels.fast_version(address)
    monkeypatch.setattr(f'{module}.{name}', lambda *x, **k: used.append(fast(*x, **k)) or used[-1])
    value, gradients = value_and_gradients(loss, *inputs, *weights)
    assert used
    assert used[0] is not NotImplemented
    with kernels.switched(False):
        expected, expected_gradients = value_and_gradients(loss, *inputs, *weights)
    assert value == pytest.approx(expected, rel=1e-4, abs=1e-3)
    for found, exact in zip(gradients, expected_gradients, strict=True):
        np.testing.assert_allclose(found, exact, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize('options', [{'dropout': 0.5}, {'reset_after': False}, {'go_backwards': True}])
def test_other_cells_are_those_of_keras(rng, options):
    layer, x = nn.GRU(4, return_sequences=True, **options), rng.normal(size=[2, 6, 5]).astype(np.float32)
    found = layer(x)
    with kernels.switched(False):
        np.testing.assert_array_equal(found, layer(x))


def test_a_feature_of_one_time_step_holds_for_all_frames(rng):
    decoder, (a, b) = make_decoder(layers_per_stack=1), features_of(rng, 12)
    found = decoder({'a': a, 'b': b[:, :1]})['x']
    repeated = decoder({'a': a, 'b': np.repeat(b[:, :1], 12, axis=1)})['x']
    np.testing.assert_allclose(np.asarray(found), np.asarray(repeated), atol=1e-6)


def test_mixed_precision_is_close_and_keeps_weights_and_pitch(rng, value_and_gradients):
    decoder, features = make_decoder(channels=24, layers_per_stack=1), features_of(rng, 40)
    decoder.decode(features)  # makes the weights
    loss, weights = with_weights(decoder, lambda *x: decoder.decode(x)[0])

    def run():
        value = ops.cast(decoder.decode(features)[0], 'float32')
        return np.asarray(value), value_and_gradients(loss, *features, *weights)[1]

    exact, exact_gradients = run()
    nn.set_precision(decoder, 'mixed_bfloat16')
    mixed, mixed_gradients = run()
    assert {v.dtype for v in decoder.trainable_variables} == {'float32'}
    for a, b in zip(mixed_gradients, exact_gradients, strict=True):
        a, b = np.asarray(a), np.asarray(b)
        assert a.dtype == np.float32
        assert np.linalg.norm(a - b) < 0.15 * np.linalg.norm(b) + 1e-3  # 8 bits, through all layers
    # The layer that takes the pitch (one channel) is not rounded to 8 bits.
    assert decoder.input_stacks[0].layers[0].layers[0].compute_dtype == 'float32'
    assert decoder.input_stacks[1].layers[0].layers[0].compute_dtype == 'bfloat16'
    with kernels.switched(False):
        plain = np.asarray(ops.cast(decoder.decode(features)[0], 'float32'))
    assert np.linalg.norm(plain - mixed) < 0.05 * np.linalg.norm(mixed)
    assert np.any(mixed != exact)


def test_precision_is_checked():
    with pytest.raises(
        ConfigError, match="precision is 'float16'; it must be one of float32, mixed_bfloat16"
    ):
        nn.set_precision(make_decoder(), 'float16')
