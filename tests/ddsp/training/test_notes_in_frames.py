"""Masks and statistics of notes against loops over frames; choices that let gradients through."""

import itertools

import keras
import numpy as np
import pytest
from keras import ops

from ddsp.training import nn

PITCH = np.array([[60, 60, 62, 0, 0, 62, 62, 60], [0, 55, 55, 55, 57, 57, 57, 57]], np.float32)


def npy(x):
    return ops.convert_to_numpy(x)


def regions_of(pitch):
    """First and last frame of each run of equal pitches, by itertools."""
    start = 0
    for value, run in itertools.groupby(pitch):
        stop = start + len(list(run))
        yield start, stop, value
        start = stop


@pytest.mark.parametrize('sounding', [True, False])
@pytest.mark.parametrize('deep', [True, False])
def test_every_change_of_pitch_begins_a_region(sounding, deep):
    mask = npy(nn.get_note_mask(PITCH[..., None] if deep else PITCH, 6, note_on_only=sounding))
    expected = np.zeros([2, 8, 6])
    for row, pitch in enumerate(PITCH):
        for i, (start, stop, value) in enumerate(regions_of(pitch)):
            expected[row, start:stop, i] = value > 0 or not sounding
    np.testing.assert_array_equal(mask, expected)
    few = npy(nn.get_note_mask(PITCH, 2, note_on_only=sounding))
    np.testing.assert_array_equal(few, expected[..., :2])  # later notes belong to none


def test_an_onset_begins_a_note_of_the_same_pitch():
    onset = np.zeros([2, 8, 1])
    onset[0, [0, 1]], onset[1, [2, 6]] = 1, 1  # an onset in the first frame begins nothing new
    mask = npy(nn.get_note_mask_from_onset(PITCH, onset, 6, note_on_only=False))
    np.testing.assert_array_equal(mask.argmax(-1)[0], [0, 1, 2, 3, 3, 4, 4, 5])
    np.testing.assert_array_equal(mask.argmax(-1)[1], [0, 1, 2, 2, 3, 3, 4, 4])
    np.testing.assert_array_equal(mask.sum(-1), 1)
    sounding = npy(nn.get_note_mask_from_onset(PITCH, onset, 6))
    np.testing.assert_array_equal(sounding.sum(-1), PITCH > 0)


def test_notes_have_the_moments_of_their_frames(rng):
    x = rng.normal(5.0, 2.0, size=[2, 8, 3]).astype(np.float32)
    mask = nn.get_note_mask(PITCH, 6)
    mean, std = map(npy, nn.get_note_moments(x, mask))
    pooled_mean, pooled_std = map(npy, nn.pool_over_notes(x, mask))
    for row, pitch in enumerate(PITCH):
        for i, (start, stop, value) in enumerate(regions_of(pitch)):
            frames = np.float64(x[row, start:stop]) if value else np.zeros([1, 3])
            np.testing.assert_allclose(mean[row, i], frames.mean(0), atol=1e-5)
            np.testing.assert_allclose(std[row, i], frames.std(0), atol=2e-3)
            for pooled, wanted in ((pooled_mean, frames.mean(0)), (pooled_std, frames.std(0))):
                np.testing.assert_allclose(
                    pooled[row, start:stop], np.tile(wanted, (stop - start, 1)), atol=2e-3
                )
    assert not mean[1, 3:].any()  # regions without frames
    np.testing.assert_array_equal(npy(nn.get_note_moments(x, mask, return_std=False)), mean)
    np.testing.assert_array_equal(npy(nn.pool_over_notes(x, mask, return_std=False)), pooled_mean)
    np.testing.assert_allclose(npy(nn.get_note_moments(x[..., 0], mask)[0])[..., 0], mean[..., 0], atol=1e-6)


def test_short_notes_are_marked_where_they_sound():
    mask = nn.get_note_mask(PITCH, 6, note_on_only=False)
    lengths = nn.get_note_lengths(mask)
    np.testing.assert_array_equal(npy(lengths), [[2, 1, 2, 2, 1, 0], [1, 3, 4, 0, 0, 0]])
    pitches = nn.get_note_moments(PITCH, mask, return_std=False)[..., 0]
    found = npy(nn.get_short_note_loss_mask(mask, lengths, pitches, min_length=2))
    np.testing.assert_array_equal(found, [[0, 0, 1, 0, 0, 0, 0, 1], [0] * 8])
    found = npy(nn.get_short_note_loss_mask(mask, lengths, pitches, min_length=4))
    np.testing.assert_array_equal(found, [[1, 1, 1, 0, 0, 1, 1, 1], [0, 1, 1, 1, 0, 0, 0, 0]])


def test_constant_notes_have_finite_gradients(value_and_gradients):
    """The standard deviation of equal frames is 0, where a square root has no slope."""
    mask = nn.get_note_mask(PITCH, 6)
    _, (gradient,) = value_and_gradients(
        lambda x: ops.sum(nn.get_note_moments(x, mask)[1]), np.ones([2, 8, 1], np.float32)
    )
    assert np.isfinite(gradient).all()


def test_a_sample_is_one_hot_and_as_frequent_as_it_is_likely():
    keras.utils.set_random_seed(0)
    logits = np.log(np.float32([0.1, 0.6, 0.3]))
    sample, probabilities = map(npy, nn.straight_through_softmax(np.tile(logits, (4, 1000, 1))))
    np.testing.assert_allclose(probabilities[0, 0], [0.1, 0.6, 0.3], atol=1e-6)
    np.testing.assert_allclose(np.sort(sample, axis=-1), np.broadcast_to([0, 0, 1], sample.shape), atol=1e-6)
    np.testing.assert_allclose(sample.mean((0, 1)), [0.1, 0.6, 0.3], atol=0.03)
    values = npy(nn.straight_through_choice(np.tile(logits, (4, 1000, 1)), np.float32([10.0, 20.0, 40.0])))
    assert values.shape == (4, 1000, 1)
    assert set(np.round(values.ravel(), 3)) == {10.0, 20.0, 40.0}


def test_the_gradient_of_a_choice_is_that_of_its_expected_value(value_and_gradients, rng):
    logits, values = rng.normal(size=[5, 3]).astype(np.float32), np.float32([1.0, -2.0, 4.0])
    _, (found,) = value_and_gradients(lambda x: ops.sum(nn.straight_through_choice(x, values)), logits)
    p = np.exp(np.float64(logits)) / np.exp(np.float64(logits)).sum(-1, keepdims=True)
    # d sum(p v) / d logit_i = p_i (v_i - sum(p v))
    np.testing.assert_allclose(found, p * (values - (p @ values)[:, None]), atol=1e-5)
