"""Layers against Keras, numpy and their own definitions."""

import numpy as np
import pytest
import tensorflow as tf

from ddsp.training import nn


class Affine(nn.DictLayer):
    def call(self, x, gain=2.0) -> ['y']:  # noqa: F821
        return x * gain


@pytest.mark.parametrize(
    'call',
    [
        lambda layer, x: layer(x),
        lambda layer, x: layer({'x': x, 'unused': x}),
        lambda layer, x: layer(x=x),
        lambda layer, x: layer({'x': x, 'gain': 2.0}),
        lambda layer, x: layer({'unused': x}, {'x': x}),
    ],
)
def test_dict_layer_finds_its_inputs_however_they_are_given(call):
    x = np.arange(6.0, dtype=np.float32).reshape(2, 3)
    np.testing.assert_allclose(call(Affine(), x)['y'], 2 * x)


def test_dict_layer_takes_nested_keys_and_names_what_is_missing():
    x = np.ones([1, 2], np.float32)
    layer = Affine(input_keys=['synth/controls/x'])
    np.testing.assert_allclose(layer({'synth': {'controls': {'x': x}}})['y'], 2 * x)
    with pytest.raises(KeyError, match='x'):
        Affine()({'other': x})
    with pytest.raises(TypeError, match=r"needs 1 input\(s\) \['x'\].*got 0 tensor"):
        Affine()()


def test_dict_layer_refuses_another_number_of_outputs():
    class Two(nn.DictLayer):
        def call(self, x):
            return x, x

    with pytest.raises(ValueError, match=r"one tensor for each of \['a', 'b', 'c'\]"):
        Two(output_keys=['a', 'b', 'c'])(np.ones([1, 2], np.float32))


def test_split_to_dict_checks_the_channels():
    parts = nn.split_to_dict(np.arange(5.0)[None], (('a', 2), ('b', 3)))
    np.testing.assert_allclose(parts['b'], [[2, 3, 4]])
    with pytest.raises(ValueError, match='add up to 4, the tensor has 5 channels'):
        nn.split_to_dict(np.zeros([1, 5]), (('a', 2), ('b', 2)))


def test_stateless_rnn_step_by_step_is_the_rnn(rng):
    x = tf.constant(rng.normal(size=[2, 6, 3]), tf.float32)
    whole, stateless = nn.Rnn(5, 'gru'), nn.StatelessRnn(5, 'gru')
    expected = whole(x)
    state = np.zeros([2, 5], np.float32)
    stateless(x[:, :1], state)
    stateless.set_weights(whole.get_weights())
    steps = []
    for i in range(6):
        y, state = stateless(x[:, i : i + 1], state)
        steps.append(y)
    np.testing.assert_allclose(np.concatenate(steps, axis=1), expected, atol=1e-6)


def test_rnn_type_is_checked():
    with pytest.raises(ValueError, match="rnn_type is 'gruu'; it must be one of"):
        nn.Rnn(4, 'gruu')


@pytest.mark.parametrize(('norm_type', 'axes'), [('layer', (1, 2, 3)), ('instance', (1, 2))])
def test_normalize_op_has_no_mean_and_unit_variance(rng, norm_type, axes):
    y = np.asarray(nn.normalize_op(rng.normal(3, 2, size=[2, 30, 1, 4]).astype(np.float32), norm_type))
    np.testing.assert_allclose(y.mean(axes), 0, atol=1e-5)
    np.testing.assert_allclose(y.var(axes), 1, atol=1e-3)


def test_polyphase_up_undoes_down(rng):
    x = rng.normal(size=[2, 12, 3]).astype(np.float32)
    down = nn.polyphase_resample(x, 4, 'down')
    assert down.shape == (2, 3, 12)
    np.testing.assert_array_equal(nn.polyphase_resample(down, 4, 'up'), x)


def test_dilated_convolutions_see_their_receptive_field():
    stack = nn.DilatedConvStack(ch=4, layers_per_stack=3, stacks=1, kernel_size=3, dilation=2)
    x = np.zeros([1, 64, 2], np.float32)
    silent = np.asarray(stack(x))
    x[0, 32] = 1.0
    changed = np.flatnonzero(np.abs(np.asarray(stack(x)) - silent).max(axis=(0, 2)) > 0)
    # One sample to either side for the input convolution, then 1 + 2 + 4.
    assert changed.min() >= 32 - 8
    assert changed.max() <= 32 + 8
    assert changed.max() - changed.min() > 8


def test_note_masks_tell_notes_and_silences_apart():
    pitch = np.array([[0, 0, 60, 60, 60, 0, 62, 62]], np.float32)
    mask = np.asarray(nn.get_note_mask(pitch, max_regions=4))
    np.testing.assert_array_equal(mask[0].sum(0), [0, 3, 0, 2])
    onset = np.array([[0, 0, 1, 0, 1, 0, 1, 0]], np.float32)
    repeated = np.asarray(nn.get_note_mask_from_onset(pitch, onset, max_regions=5))
    np.testing.assert_array_equal(repeated[0].sum(0), [0, 2, 1, 0, 2])
    mean, std = nn.get_note_moments(np.arange(8.0, dtype=np.float32)[None, :, None], mask)
    np.testing.assert_allclose(mean[0, :, 0], [0, 3, 0, 6.5])
    np.testing.assert_allclose(std[0, :, 0], [0, np.std([2, 3, 4]), 0, 0.5], rtol=1e-6)


def test_straight_through_rounds_forward_and_passes_gradients():
    x = tf.constant([0.2, 1.7])
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = nn.straight_through_int_quantization(x)
    np.testing.assert_array_equal(y, [0, 2])
    np.testing.assert_array_equal(tape.gradient(y, x), [1, 1])
