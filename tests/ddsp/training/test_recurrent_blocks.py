"""The decoder in blocks of time against the same layers one after the other."""

import numpy as np
import pytest
import tensorflow as tf

from ddsp.errors import ConfigError
from ddsp.training import decoders, nn


def _decoder(channels=8, **kwargs):
    return decoders.RnnFcDecoder(
        rnn_channels=channels,
        ch=channels,
        input_keys=('a', 'b'),
        output_splits=(('x', 3), ('y', 2)),
        **kwargs,
    )


def _features(rng, n_frames):
    return {
        key: tf.constant(rng.normal(size=(3, n_frames, channels)), tf.float32)
        for key, channels in (('a', 1), ('b', 20))
    }


def _value_and_gradients(decoder, features):
    weights = [v.value for v in decoder.trainable_variables]
    with tf.GradientTape() as tape:
        tape.watch(list(features.values()))
        outputs = decoder(features)
        loss = tf.reduce_sum(tf.sin(3 * tf.cast(outputs['x'], tf.float32)))
        loss += tf.reduce_sum(tf.cast(outputs['y'], tf.float32) ** 2)
    return [loss, outputs['x'], *tape.gradient(loss, [*features.values(), *weights])]


def _plain(decoder):
    decoder._has_fast_path = lambda *_: False
    decoder.rnn.rnn.has_fast_path = lambda *_: False
    return decoder


# 150 steps are three blocks of 50; 7 steps one; 131 are filled up to three times 44.
@pytest.mark.parametrize(
    ('n_frames', 'layers', 'mode'),
    [(150, 2, 'graph'), (131, 1, 'graph'), (7, 0, 'eager'), (70, 1, 'xla')],
)
def test_blocks_compute_the_layers_and_their_gradients(rng, n_frames, layers, mode):
    decoder, features = _decoder(layers_per_stack=layers), _features(rng, n_frames)
    decoder(features)
    for v in decoder.trainable_variables:
        v.assign_add(0.1 * rng.normal(size=v.shape))  # biases and scales that are not all alike
    run = lambda: _value_and_gradients(decoder, features)  # noqa: E731
    found = run() if mode == 'eager' else tf.function(run, jit_compile=mode == 'xla')()
    expected = tf.function(lambda: _value_and_gradients(_plain(decoder), features))()
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)


def test_a_feature_of_one_time_step_holds_for_all_frames(rng):
    decoder, features = _decoder(layers_per_stack=1), _features(rng, 12)
    features['b'] = features['b'][:, :1]
    found = decoder(features)['x']
    repeated = {**features, 'b': tf.repeat(features['b'], 12, axis=1)}
    np.testing.assert_allclose(found, decoder(repeated)['x'], atol=1e-6)


def test_mixed_precision_is_close_and_keeps_weights_and_pitch(rng):
    decoder, features = _decoder(channels=24, layers_per_stack=1), _features(rng, 40)
    decoder(features)  # makes the weights
    exact = _value_and_gradients(decoder, features)
    nn.set_precision(decoder, 'mixed_bfloat16')
    mixed = _value_and_gradients(decoder, features)
    assert {v.dtype for v in decoder.trainable_variables} == {'float32'}
    for a, b in zip(mixed[2:], exact[2:], strict=True):
        assert a.dtype == tf.float32
        assert np.linalg.norm(a - b) < 0.15 * np.linalg.norm(b) + 1e-3  # 8 bits, through all layers
    # The layer that takes the pitch (one channel) is not rounded to 8 bits.
    assert decoder.input_stacks[0].layers[0].layers[0].compute_dtype == 'float32'
    assert decoder.input_stacks[1].layers[0].layers[0].compute_dtype == 'bfloat16'
    plain = tf.cast(_value_and_gradients(_plain(decoder), features)[1], tf.float32)
    assert np.linalg.norm(plain - mixed[1]) < 0.05 * np.linalg.norm(mixed[1])
    assert np.any(mixed[1] != exact[1])


def test_precision_is_checked():
    with pytest.raises(
        ConfigError, match="precision is 'float16'; it must be one of float32, mixed_bfloat16"
    ):
        nn.set_precision(_decoder(), 'float16')
