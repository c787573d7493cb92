"""Adam, averages and warm-up against their formulas, and the seeds, levels and errors of a step."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from ddsp import core
from ddsp.errors import ConfigError
from ddsp.training.optimizers import ScaledAdam, WarmUp, WeightAverages, make_schedule
from ddsp.training.steps import report
from ddsp.training.steps.seeds import StepSeeds

RATE, BETA_1, BETA_2, EPSILON = 0.01, 0.9, 0.999, 1e-7


def adam(weights, gradients, rate=RATE):
    """Weights after each step, by algorithm 1 of Kingma and Ba (2015) in float64, epsilon as in section 2."""
    mean = square = np.zeros_like(weights)
    for step, gradient in enumerate(gradients, 1):
        mean = BETA_1 * mean + (1 - BETA_1) * gradient
        square = BETA_2 * square + (1 - BETA_2) * gradient**2
        alpha = rate * np.sqrt(1 - BETA_2**step) / (1 - BETA_1**step)
        weights = weights - alpha * mean / (np.sqrt(square) + EPSILON)
        yield weights


def made(rng, scales=None, rate=RATE):
    """An optimizer for two variables of different parts."""
    with keras.name_scope('decoder'):
        inner = keras.Variable(rng.normal(size=[3, 2]), dtype='float32', name='kernel')
    with keras.name_scope('reverb'):
        outer = keras.Variable(rng.normal(size=[5]), dtype='float32', name='ir')
    optimizer = ScaledAdam(rate, scales=scales, epsilon=EPSILON)
    optimizer.build([inner, outer])
    return optimizer, [inner, outer]


def values(variables):
    return [np.array(ops.convert_to_numpy(v)) for v in variables]


def gradients_of(rng, variables, n):
    return [[rng.normal(size=v.shape).astype(np.float32) for v in variables] for _ in range(n)]


@pytest.mark.portable
@pytest.mark.parametrize(('scales', 'factors'), [(None, (1, 1)), ({'reverb': 0.1, 'rev': 9.0}, (1, 0.1))])
def test_adam_is_its_algorithm_with_a_rate_for_each_part(scales, factors, rng):
    optimizer, variables = made(rng, scales)
    start, gradients = values(variables), gradients_of(rng, variables, 6)
    for step in gradients:
        optimizer.apply_if(True, [ops.convert_to_tensor(g) for g in step], variables)
    assert int(optimizer.iterations) == 6
    for i, factor in enumerate(factors):
        *_, expected = adam(np.float64(start[i]), [np.float64(g[i]) for g in gradients], RATE * factor)
        np.testing.assert_allclose(values(variables)[i], expected, atol=1e-6)
        assert np.abs(expected - start[i]).max() > factor * RATE  # something was learned


@pytest.mark.portable
@pytest.mark.parametrize('bad', [np.nan, np.inf, 1e30])
def test_a_refused_step_never_was(bad, rng):
    optimizer, variables = made(rng)
    first, second = gradients_of(rng, variables, 2)
    optimizer.apply_if(True, [ops.convert_to_tensor(g) for g in first], variables)
    before = values([*variables, *optimizer.variables])
    optimizer.apply_if(False, [ops.convert_to_tensor(np.full_like(g, bad)) for g in first], variables)
    for a, b in zip(before, values([*variables, *optimizer.variables]), strict=True):
        np.testing.assert_array_equal(a, b)
    start = values(variables)
    optimizer.apply_if(True, [ops.convert_to_tensor(g) for g in second], variables)
    assert int(optimizer.iterations) == 2
    assert all(np.any(a != b) for a, b in zip(start, values(variables), strict=True))


def test_an_error_in_a_step_does_not_stick(rng):
    optimizer, variables = made(rng)
    with pytest.raises(tf.errors.InvalidArgumentError):
        optimizer.apply_if(False, [np.zeros([7, 7], np.float32)] * 2, variables)
    start = values(variables)
    optimizer.apply(gradients_of(rng, variables, 1)[0], variables)  # Keras' own way, without a condition
    assert all(np.all(np.abs(a - b) > 1e-3) for a, b in zip(start, values(variables), strict=True))


def test_a_schedule_gives_each_step_its_rate(rng):
    optimizer, variables = made(rng, rate=make_schedule('exponential', 0.1, 1, 0.5, warmup_steps=0))
    moves = []
    for _ in range(4):
        before = values(variables)[1]
        optimizer.apply_if(True, [np.ones(v.shape, np.float32) for v in variables], variables)
        moves.append(float((before - values(variables)[1])[0]))
    # For a constant gradient Adam moves by the rate.
    np.testing.assert_allclose(moves, [0.1, 0.05, 0.025, 0.0125], rtol=1e-3)


def test_a_warm_up_is_a_line_to_the_schedule_and_can_be_saved():
    decaying = keras.optimizers.schedules.ExponentialDecay(1.0, 10, 0.5)
    warm = WarmUp(decaying, 4)
    found = [float(warm(step)) for step in range(8)]
    expected = [0.5 ** (step / 10) * min(1.0, (step + 1) / 4) for step in range(8)]
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    again = WarmUp.from_config(warm.get_config())
    assert [float(again(step)) for step in range(8)] == found


@pytest.mark.parametrize('decay', [0.5, 0.999])
def test_averages_forget_the_first_weights_soon(decay, rng):
    _, weights = made(rng)
    averages = WeightAverages(tf.distribute.get_strategy(), decay)
    averages.build(weights)
    expected = values(weights)
    for step in range(5):
        for weight in weights:
            weight.assign_add(rng.normal(size=weight.shape))
        averages.update(tf.constant(step), tf.constant(True))
        d = min(decay, (1 + step) / (10 + step))
        expected = [d * a + (1 - d) * w for a, w in zip(expected, values(weights), strict=True)]
        trained = values(weights)
        averages.update(tf.constant(step), tf.constant(False))  # a step that was refused
    for average, wanted in zip(averages.variables, expected, strict=True):
        np.testing.assert_allclose(average, wanted, atol=1e-5)
    with averages.in_model(True):
        for weight, wanted in zip(values(weights), expected, strict=True):
            np.testing.assert_allclose(weight, wanted, atol=1e-5)
        with averages.in_model(True):  # already there
            pass
        np.testing.assert_allclose(values(weights)[0], expected[0], atol=1e-5)
    with pytest.raises(KeyboardInterrupt), averages.in_model(True):
        raise KeyboardInterrupt
    for weight, wanted in zip(values(weights), trained, strict=True):
        np.testing.assert_array_equal(weight, wanted)


def test_without_a_decay_nothing_is_averaged(rng):
    _, weights = made(rng)
    averages = WeightAverages(tf.distribute.get_strategy(), None)
    averages.build(weights)
    before = values(weights)
    averages.update(tf.constant(0), tf.constant(True))
    with averages.in_model(True):
        np.testing.assert_array_equal(values(weights)[0], before[0])
    assert averages.variables == []
    for wrong in (0.0, 1.0, -0.1):
        with pytest.raises(ConfigError, match=f'average_decay is {wrong}; it must lie between 0 and 1'):
            WeightAverages(tf.distribute.get_strategy(), wrong)


@pytest.mark.portable
def test_noise_of_a_step_differs_from_all_other_noise_of_the_training():
    def noise(seed, *place):
        with StepSeeds(seed).at(*place):
            return [ops.convert_to_numpy(core.uniform_noise([64])) for _ in range(2)]

    places = [(0, 5, 0), (1, 5, 0), (0, 6, 0), (0, 5, 1), (0, 5, 2), (0, 6, 1)]
    drawn = [x for place in places for x in noise(*place)]
    for i, one in enumerate(drawn):
        for other in drawn[:i]:
            assert abs(np.corrcoef(one, other)[0, 1]) < 0.5
    np.testing.assert_array_equal(noise(0, 6, 1), drawn[-2:])


@pytest.mark.portable
def test_levels_are_decibels_of_mean_squares():
    half, tiny = np.full([2, 10], 0.5, np.float32), np.zeros([2, 10], np.float32)
    outputs = {'harmonic': {'signal': ops.convert_to_tensor(half)}, 'filtered_noise': {'signal': tiny}}
    found = report.energies(outputs, {'audio': np.ones([2, 10], np.float32)})
    wanted = {'energy/harmonic_db': 20 * np.log10(0.5), 'energy/noise_db': -120, 'energy/target_db': 0}
    assert {key: float(value) for key, value in found.items()} == pytest.approx(wanted, abs=1e-4)
    assert report.energies({'harmonic': half}, {'audio': half}) == {}
    assert report.energies(half, {'audio': half}) == {}
    assert set(report.energies(outputs, {})) == {'energy/harmonic_db', 'energy/noise_db'}


def test_what_is_not_finite_is_named_and_kept():
    named = {f'weight {i}': np.array([1.0, np.nan]) for i in range(8)}
    named |= {'feature audio': np.ones(3), 'loss total': np.array(np.inf), 'weight good': np.ones(2)}
    error = report.non_finite_error(7, named)
    text = str(error)
    assert text.startswith('step 7: not finite: weight 0, weight 1')
    assert 'weight 5 and 3 more. The step is refused' in text
    assert set(error.tensors) == {*(f'weight {i}' for i in range(8)), 'feature audio', 'loss total'}
    assert 'a loss or a gradient of another replica' in str(report.non_finite_error(0, {'x': np.ones(1)}))
    fine = {report.TOTAL_LOSS: 1.0, report.GRADIENT_NORM: tf.constant(2.0)}
    assert report.is_finite(fine)
    assert not any(report.is_finite({**fine, key: x}) for key in fine for x in (np.nan, np.inf))


def test_a_lost_worker_says_how_to_go_on():
    error = report.WorkerLostError.after(12, tf.errors.UnavailableError(None, None, 'socket closed\nmore'))
    assert str(error).startswith('step 12: another worker is gone (socket closed). Start all workers again')
    assert error.exit_code == 75
    assert 'CancelledError' in str(report.WorkerLostError.after(1, tf.errors.CancelledError(None, None, '')))


@pytest.mark.parametrize(
    ('call', 'message'),
    [
        (
            lambda: report.check_positive('train', batch_size=0),
            'train.batch_size is 0.*above 0; the least is 1',
        ),
        (lambda: report.check_positive('T', rate=float('nan')), 'T.rate is nan; it must be above 0$'),
        (lambda: report.check_parts(3, 8), 'accumulate_steps is 3, which does not divide the 8 examples'),
    ],
)
def test_numbers_that_cannot_be_are_refused(call, message):
    with pytest.raises(ConfigError, match=message):
        call()
    report.check_positive('train', batch_size=1, rate=1e-9)
    report.check_parts(4, 8)
