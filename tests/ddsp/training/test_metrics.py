"""Measures and evaluators: what they count, against numbers worked out by hand and tones of known pitch."""

import numpy as np
import pytest

from ddsp import f0
from ddsp.training import evaluators, metrics

RATE = 16000


def tone(hz, seconds=1.0, level=0.3):
    t = np.arange(int(seconds * RATE)) / RATE
    return (level * sum(np.sin(2 * np.pi * k * hz * t) / k for k in range(1, 6))).astype(np.float32)


def batch_of(hz, confidence=1.0, n_frames=250):
    """Tones as a dataset has them: audio, f0 and confidence."""
    hz = np.atleast_1d(hz)
    return {
        'audio': np.stack([tone(value) for value in hz]),
        'f0_hz': np.repeat(hz[:, None], n_frames, 1).astype(np.float32),
        'f0_confidence': np.broadcast_to(np.reshape(confidence, (-1, 1)), (len(hz), n_frames)),
    }


def test_distance_is_over_the_shorter_length():
    np.testing.assert_array_equal(metrics.l1_distance([[1.0, 2.0, 3.0]], [[2.0], [4.0]]), [1.0, 2.0])
    assert metrics.l1_distance(1.0, 3.0).shape == (1,)


def test_midi_of_hz():
    np.testing.assert_allclose(metrics.hz_to_midi([440.0, 220.0, 0.0]), [69.0, 57.0, 0.0])


@pytest.mark.parametrize(('confidence', 'outlier'), [([0.1, 0.84], True), ([0.1, 0.85], False)])
def test_a_reference_is_unsure_below_the_papers_confidence(confidence, outlier):
    assert metrics.is_outlier(confidence) is outlier


def test_pitch_counts_where_the_reference_is_sure():
    reference = np.array([440.0, 440.0, 440.0, 440.0])
    generated = np.array([440.0, 880.0, 466.16, 440.0])
    confidence = np.array([1.0, 0.5, 0.9, 0.85])
    # Frames 0, 2 and 3: 0, 1 and 0 semitones.
    assert metrics.f0_dist_conf_thresh(reference, generated, confidence) == pytest.approx(1 / 3, abs=1e-3)
    assert metrics.f0_dist_conf_thresh(reference, generated, 0.5 * confidence) is None
    assert metrics.f0_dist_conf_thresh(reference, generated, confidence, 0.95) == pytest.approx(0.0)


def test_loudness_difference_is_that_of_the_levels():
    reference = batch_of([220.0, 330.0])
    measure = metrics.LoudnessMetrics(RATE, 250)
    measure.update_state(reference, reference['audio'] * 10 ** (np.array([[-6.0], [-10.0]]) / 20))
    assert measure.flush(0)['loudness_db'] == pytest.approx(8.0, abs=0.05)
    assert measure.flush(0) == {}


def test_pitch_is_taken_from_the_generated_audio():
    """Upstream compares the input with itself; here a wrong sound has a wrong pitch whatever f0 says."""
    reference = batch_of([220.0, 330.0, 247.0])
    measure = metrics.F0CrepeMetrics(RATE, 250, estimator='yin')
    measure.update_state(reference, np.stack([tone(220.0), tone(330.0 * 2 ** (1 / 12)), tone(247.0)]))
    found = measure.flush(0)
    assert found['f0_dist'] == pytest.approx(1 / 3, abs=0.02)
    assert found['outlier_ratio'] == 0.0


def test_more_than_an_octave_is_an_outlier():
    reference = batch_of([220.0] * 3)
    below, above = (220.0 * 2 ** (semitones / 12) for semitones in (11.8, 12.2))
    measure = metrics.F0CrepeMetrics(RATE, 250, estimator='yin')
    measure.update_state(reference, np.stack([tone(220.0), tone(below), tone(above)]))
    found = measure.flush(0)
    assert found['outlier_ratio'] == pytest.approx(1 / 3)
    assert found['f0_dist'] == pytest.approx(11.8 / 2, abs=0.05)


def test_references_without_pitch_are_left_out():
    measure = metrics.F0CrepeMetrics(RATE, 250, estimator='yin')
    measure.update_state(
        batch_of([220.0, 330.0], confidence=[0.3, 0.9]), np.stack([tone(100.0), tone(330.0)])
    )
    assert measure.flush(0) == {'f0_dist': pytest.approx(0.0, abs=0.02), 'outlier_ratio': 0.0}
    measure.update_state(batch_of([220.0], confidence=0.3), tone(220.0)[None])
    assert measure.flush(0) == {}


def test_the_threshold_is_that_of_the_estimator():
    assert f0.voiced_threshold('crepe-full') == 0.7
    assert f0.voiced_threshold('yin') == 0.5
    best = f0.get_estimator('auto').name
    assert f0.voiced_threshold('auto') == f0.voiced_threshold(best)


def test_the_estimator_of_the_reference_says_which_of_its_frames_are_sure():
    """At 0.6 yin (0.5) is sure and crepe (0.7) is not, whatever measures the generated audio."""
    batch = batch_of([220.0], confidence=0.6)
    for reference, counts in (('yin', True), ('crepe-full', False)):
        generated = metrics.F0CrepeMetrics(RATE, 250, estimator='yin', reference=reference)
        generated.update_state(batch, tone(220.0)[None])
        predicted = metrics.F0Metrics(RATE, 250, reference=reference)
        predicted.update_state(batch, batch['f0_hz'][..., None])
        evaluator = evaluators.F0LdEvaluator(RATE, 250, estimator='yin')
        evaluator.set_reference(reference)
        evaluator.evaluate(batch, {'audio_gen': batch['audio']}, {})
        for found in (generated.flush(0), predicted.flush(0), evaluator.flush(0)):
            assert ('f0_dist' in found) is counts


def test_sure_frames_without_a_pitch_are_not_compared():
    errors = metrics.pitch_errors([440.0, 0.0], [466.16, 440.0], [1.0, 1.0], 0.5)
    np.testing.assert_allclose(errors, [1.0], atol=1e-3)
    assert metrics.f0_dist_conf_thresh([0.0], [440.0], [1.0]) is None


def test_accuracy_is_that_of_mir_eval(rng):
    mir_eval = pytest.importorskip('mir_eval')
    reference = batch_of([220.0, 440.0])
    guess = reference['f0_hz'] * 2 ** (rng.normal(0, 0.6, (2, 250)) / 12)
    guess[:, ::10] *= 2  # octave errors, which chroma forgives
    measure = metrics.F0Metrics(RATE, 250)
    measure.update_state(reference, guess[..., None])
    found = measure.flush(0)
    times = np.arange(250) / 250
    expected = []
    for truth, estimate in zip(reference['f0_hz'], guess, strict=True):
        scores = mir_eval.melody.evaluate(times, truth.astype(float), times, estimate)
        expected.append((scores['Raw Pitch Accuracy'], scores['Raw Chroma Accuracy']))
    accuracy = (found['raw_pitch_accuracy'], found['raw_chroma_accuracy'])
    np.testing.assert_allclose(accuracy, np.mean(expected, axis=0), atol=0.005)
    assert accuracy[1] > accuracy[0] + 0.02


def test_features_of_audio():
    found = metrics.compute_audio_features(tone(330.0), 250, 'yin')
    assert found['audio'].shape == (1, RATE)
    assert found['f0_hz'].shape == found['f0_confidence'].shape == found['loudness_db'].shape == (251,)
    assert np.median(found['f0_hz']) == pytest.approx(330.0, rel=1e-3)


def test_the_basic_evaluator_averages_losses_and_writes_sound(tmp_path):
    soundfile = pytest.importorskip('soundfile')
    evaluator = evaluators.BasicEvaluator(RATE, 250)
    batch = batch_of([220.0, 330.0])
    outputs = {'audio_gen': 0.5 * batch['audio']}
    evaluator.evaluate(batch, outputs, {'total_loss': 1.0, 'spectral_loss': 0.5})
    evaluator.evaluate(batch, outputs, {'total_loss': 3.0, 'spectral_loss': 1.5})
    assert evaluator.flush(7) == {'losses/total_loss': 2.0, 'losses/spectral_loss': 1.0}
    assert evaluator.flush(8) == {}
    paths = evaluator.sample(batch, outputs, 7, str(tmp_path))
    assert len(paths) == 4
    target, generated = (soundfile.read(path)[0] for path in paths[2:])
    np.testing.assert_allclose(target, batch['audio'][1], atol=1e-4)
    np.testing.assert_allclose(generated, 0.5 * target, atol=1e-4)


def test_the_evaluator_of_pitch_and_loudness():
    batch = batch_of([220.0, 330.0])
    evaluator = evaluators.F0LdEvaluator(RATE, 250, estimator='yin')
    evaluator.evaluate(batch, {'audio_gen': 0.5 * batch['audio']}, {})
    found = evaluator.flush(1)
    assert found['loudness_db'] == pytest.approx(6.02, abs=0.05)
    assert found['f0_dist'] == pytest.approx(0.0, abs=0.02)
    assert found['outlier_ratio'] == 0.0
    quick = evaluators.F0LdEvaluator(RATE, 250, run_f0_crepe=False)
    quick.evaluate(batch, {'audio_gen': batch['audio']}, {})
    assert quick.flush(1) == {'loudness_db': 0.0}
