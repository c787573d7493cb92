"""Wasserstein, KDE and two-way mismatch against scipy and loops in float64."""

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops

from ddsp import losses
from ddsp.errors import ConfigError

pytestmark = pytest.mark.portable


def sinusoids(seed: int, n: int = 6) -> tuple[np.ndarray, np.ndarray]:
    """Amplitudes and frequencies, [2, 5, n]."""
    rng = np.random.default_rng(seed)
    return rng.uniform(0.01, 1, (2, 5, n)).astype(np.float32), rng.uniform(60, 7000, (2, 5, n)).astype(
        np.float32
    )


def midi(hz):
    return 69 + 12 * np.log2(np.asarray(hz, np.float64) / 440)


@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 10**6), weighted=st.booleans(), scale=st.sampled_from([1.0, 10.0, 1e-3]))
def test_wasserstein_is_scipys(seed, weighted, scale):
    (u_weights, u), (v_weights, v) = sinusoids(seed, 6), sinusoids(seed + 1, 6)
    u[0, 0, :2] = v[0, 0, 0]  # ties
    weights = (u_weights * scale, v_weights) if weighted else (None, None)
    result = ops.convert_to_numpy(losses.wasserstein_distance(u, v, *weights))
    energy = ops.convert_to_numpy(losses.wasserstein_distance(u, v, *weights, p=2.0))
    for index in np.ndindex(2, 5):
        rows = [None if w is None else w[index] for w in weights]
        expected = scipy.stats.wasserstein_distance(u[index], v[index], *rows)
        np.testing.assert_allclose(result[index], expected, rtol=1e-4)
        expected = scipy.stats.energy_distance(u[index], v[index], *rows) / np.sqrt(2)
        np.testing.assert_allclose(energy[index], expected, rtol=1e-4)


def test_wasserstein_of_sets_of_different_size():
    u, v = np.array([[0.0, 1.0, 3.0]], np.float32), np.array([[5.0, 6.0]], np.float32)
    expected = scipy.stats.wasserstein_distance(u[0], v[0])
    np.testing.assert_allclose(losses.wasserstein_distance(u, v), [expected], rtol=1e-6)
    with pytest.raises(ConfigError, match=r'p is 0.5; the order of a distance is at least 1'):
        losses.wasserstein_distance(u, v, p=0.5)


@pytest.mark.parametrize('p', [1.0, 2.0])
def test_wasserstein_gradients(p, value_and_gradients):
    rng = np.random.default_rng(0)
    u, v = rng.uniform(0, 10, 5), rng.uniform(0, 10, 5)
    wu, wv = rng.uniform(0.1, 1, 5), rng.uniform(0.1, 1, 5)

    def function(*args):
        return ops.sum(losses.wasserstein_distance(*args, p=p))

    def in_float64(u, v, wu, wv):
        if p == 1:
            return scipy.stats.wasserstein_distance(u, v, wu, wv)
        return scipy.stats.energy_distance(u, v, wu, wv) / np.sqrt(2)

    _, gradients = value_and_gradients(function, u, v, wu, wv)
    arguments = [u, v, wu, wv]
    for which, gradient in enumerate(gradients):
        for i in range(5):
            shifted = [[a.copy() for a in arguments] for _ in range(2)]
            shifted[0][which][i] += 1e-6
            shifted[1][which][i] -= 1e-6
            expected = (in_float64(*shifted[0]) - in_float64(*shifted[1])) / 2e-6
            np.testing.assert_allclose(gradient[i], expected, rtol=1e-2, atol=1e-3)
    _, gradients = value_and_gradients(function, u, u, wu, wu)
    assert all(np.isfinite(g).all() for g in gradients)


def test_wasserstein_loss_measures_semitones_or_hertz():
    amps, freqs = sinusoids(0)
    loss = losses.WassersteinConsistencyLoss(weight=2.0)
    np.testing.assert_allclose(loss(amps, freqs, 5 * amps, 2 * freqs), 2 * 12.0, rtol=1e-4)
    in_hz = losses.WassersteinConsistencyLoss(midi=False)
    np.testing.assert_allclose(in_hz(amps, freqs, amps, freqs + 30.0), 30.0, rtol=1e-3)
    order = np.random.default_rng(1).permutation(6)
    assert float(loss(amps, freqs, amps[..., order], freqs[..., order])) == pytest.approx(0.0, abs=1e-4)


def kde_nll(amps, freqs, amps_target, freqs_target, scale):
    """Mean over sinusoids of share times negative log likelihood, by loops."""
    result = np.zeros(amps.shape[:2])
    for index in np.ndindex(*result.shape):
        target = np.where(amps_target[index] == 0, 1e-7, amps_target[index]).astype(np.float64)
        target = target / target.sum()
        terms = []
        for amp, freq in zip(amps[index], freqs[index], strict=True):
            density = (target * scipy.stats.norm.pdf(midi(freq), midi(freqs_target[index]), scale)).sum()
            terms.append(-np.log(density) * amp / amps[index].sum())
        result[index] = np.mean(terms)
    return result


def test_kde_loss_is_its_formula():
    (amps_a, freqs_a), (amps_b, freqs_b) = sinusoids(0), sinusoids(1, 8)
    amps_b[0, 0, 0] = 0.0
    scales = (2.0, 3.0)  # wide enough for float64 sums of densities
    loss = losses.KDEConsistencyLoss(0.5, 2.0, 3.0, *scales)
    expected = (
        0.5 * kde_nll(amps_a, freqs_a, amps_b, freqs_b, 3.0).mean()
        + 2.0 * kde_nll(amps_b, freqs_b, amps_a, freqs_a, 2.0).mean()
        + 3.0 * np.abs(amps_a.mean(-1) - amps_b.mean(-1)).mean()
    )
    np.testing.assert_allclose(loss(amps_a, freqs_a, amps_b, freqs_b), expected, rtol=1e-4)
    only_mean = losses.KDEConsistencyLoss(0.0, 0.0, 0.0)(amps_a, freqs_a, amps_b, freqs_b)
    assert float(only_mean) == 0.0


def test_the_kernel_density_integrates_to_one():
    amps, freqs = sinusoids(0)
    density = losses.KDEConsistencyLoss().kernel_density_estimate(amps, freqs, 0.5)
    grid = np.linspace(0, 150, 6001, dtype=np.float32)
    log_prob = ops.convert_to_numpy(density.log_prob(np.broadcast_to(grid, (2, 5, len(grid)))))
    np.testing.assert_allclose(np.exp(log_prob).sum(-1) * (grid[1] - grid[0]), 1.0, rtol=1e-3)


def test_kde_and_twm_have_finite_gradients_for_silent_sinusoids(value_and_gradients):
    amps, freqs = sinusoids(0)
    amps[0] = 0.0
    kde = losses.KDEConsistencyLoss()
    value, gradients = value_and_gradients(
        lambda a, f: kde(a, f, ops.flip(a, 0), ops.flip(f, 0)), amps, freqs
    )
    assert np.isfinite(value)
    assert all(np.isfinite(g).all() for g in gradients)
    twm = losses.TWMLoss()
    value, gradients = value_and_gradients(twm, freqs[..., :3] / 4, freqs, amps)
    assert np.isfinite(value)
    assert all(np.isfinite(g).all() for g in gradients)


def test_twm_is_its_formula():
    amps, freqs = sinusoids(0)
    rng = np.random.default_rng(1)
    candidates = rng.uniform(80, 1200, (2, 5, 3)).astype(np.float32)
    loss = losses.TWMLoss(0.5, 2.0, 3.0, 0.4, 7, 12, 2.0, 16000)
    sinusoid_loss, harmonic_loss = (
        ops.convert_to_numpy(x) for x in loss.get_loss_tensors(candidates, freqs, amps)
    )
    for b, t, c in np.ndindex(2, 5, 3):
        f0, share = float(candidates[b, t, c]), amps[b, t] / amps[b, t].sum()
        components = scipy.stats.norm.logpdf(freqs[b, t][:, None] / f0, np.arange(1, 13), 0.4)
        expected = -(share * (scipy.special.logsumexp(components, axis=1) - np.log(12))).sum()
        np.testing.assert_allclose(sinusoid_loss[b, t, c], expected, rtol=1e-3)
        harmonics = f0 * np.arange(1, 8)
        density = (share * scipy.stats.norm.pdf(midi(harmonics)[:, None], midi(freqs[b, t]), 3.0)).sum(1)
        audible = harmonics < 8000
        expected = np.mean(-np.log(density) * np.linspace(1, 1 / 7, 7) * audible / audible.mean())
        np.testing.assert_allclose(harmonic_loss[b, t, c], expected, rtol=1e-3)
    combined = 0.5 * sinusoid_loss + 2.0 * harmonic_loss
    softmin = np.exp(-combined / 2)
    softmin /= softmin.sum(-1, keepdims=True)
    np.testing.assert_allclose(loss(candidates, freqs, amps), (combined * softmin).mean(), rtol=1e-3)
    best = np.take_along_axis(candidates, combined.argmin(-1)[..., None], -1)
    np.testing.assert_array_equal(loss.predict_f0(candidates, freqs, amps), best)


def test_twm_finds_the_fundamental_of_a_full_series():
    freqs = np.tile(220.0 * np.arange(1, 11), (1, 4, 1)).astype(np.float32)
    amps = np.tile(1.0 / np.arange(1, 11), (1, 4, 1)).astype(np.float32)
    candidates = np.tile([165.0, 220.0, 330.0, 440.0], (1, 4, 1)).astype(np.float32)
    np.testing.assert_array_equal(
        losses.TWMLoss().predict_f0(candidates, freqs, amps), np.full((1, 4, 1), 220.0)
    )


def test_candidate_harmonics():
    loss = losses.TWMLoss(n_harmonic_points=3)
    candidates = np.full((1, 1, 1), 220.0, np.float32)
    np.testing.assert_allclose(
        loss.get_candidate_harmonics(candidates, as_midi=False)[0, 0, 0], [220, 440, 660]
    )
    np.testing.assert_allclose(loss.get_candidate_harmonics(candidates)[0, 0, 0, :2], [57, 69], atol=1e-4)
