"""Features of pieces with context are those of one long analysis, for every estimator."""

import numpy as np
import pytest

from benchmarks.crepe_cost import example_sound
from ddsp.errors import DDSPError
from ddsp.f0 import get_estimator
from pipelines.analysis.features import Analyser
from pipelines.options import PrepareOptions

RATE = 16000


@pytest.fixture(scope='module')
def sound():
    """What makes joints hard: a glide, a quiet part, silence, noise, leaps and two notes at once."""
    rng = np.random.default_rng(3)
    glide = example_sound(7.3)
    leaps = np.concatenate([example_sound(0.4)[: RATE // 4] * level for level in (1, 0.2, 0.6, 0.05)] * 3)
    noise = rng.normal(0, 0.05, 2 * RATE)
    parts = [
        glide,
        0.01 * example_sound(3.1),
        np.zeros(RATE),
        leaps,
        noise,
        glide[::-1] + 0.5 * np.roll(glide, 999),
    ]
    return np.concatenate(parts).astype(np.float32)


def analyse(sound, estimator, **options):
    pieces = list(Analyser(PrepareOptions(**options), estimator, RATE).run([sound]))
    return len(pieces), {
        name: np.concatenate([piece[name] for piece in pieces])
        for name in ('audio', 'f0_hz', 'f0_confidence', 'loudness_db')
    }


@pytest.mark.parametrize('frame_rate', [250, 100, 300])
@pytest.mark.parametrize('name', ['swift', 'yin', 'crepe-tiny'])
def test_no_frame_shows_where_a_piece_ends(sound, name, frame_rate):
    try:
        estimator = get_estimator(name)
    except DDSPError as error:
        pytest.skip(str(error))
    count, whole = analyse(sound, estimator, frame_rate=frame_rate, chunk_secs=60.0)
    assert count == 1
    for chunk_secs in (2.0, 6.0):
        count, pieces = analyse(sound, estimator, frame_rate=frame_rate, chunk_secs=chunk_secs)
        assert count == -(-len(sound) // int(chunk_secs * RATE))
        np.testing.assert_array_equal(pieces['audio'], whole['audio'])
        np.testing.assert_array_equal(pieces['loudness_db'], whole['loudness_db'])
        np.testing.assert_allclose(pieces['f0_confidence'], whole['f0_confidence'], atol=1e-5)
        np.testing.assert_allclose(pieces['f0_hz'], whole['f0_hz'], rtol=1e-5)  # 0.02 cents
