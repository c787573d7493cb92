"""The model on any Keras backend."""

import keras
import numpy as np
import pytest
from keras import ops

pytestmark = pytest.mark.portable


def _features():
    rng = np.random.default_rng(0)
    return {
        'audio': 0.1 * rng.normal(size=[2, 1600]).astype(np.float32),
        'f0_hz': rng.uniform(200, 400, [2, 25]).astype(np.float32),
        'loudness_db': rng.uniform(-60, 0, [2, 25]).astype(np.float32),
    }


def _model():
    from ddsp import effects, losses, processors, synths
    from ddsp.training import decoders, encoders, models, preprocessing

    keras.utils.set_random_seed(0)
    group = processors.ProcessorGroup(
        dag=[
            (synths.Harmonic(n_samples=1600), ['amps', 'harmonic_distribution', 'f0_hz']),
            (synths.FilteredNoise(n_samples=1600, window_size=0, seed=1), ['noise_magnitudes']),
            (processors.Add(), ['harmonic/signal', 'filtered_noise/signal']),
            (effects.Reverb(trainable=True, reverb_length=100), ['add/signal']),
        ]
    )
    splits = (('amps', 1), ('harmonic_distribution', 6), ('noise_magnitudes', 9))
    return models.Autoencoder(
        preprocessor=preprocessing.F0LoudnessPreprocessor(time_steps=25),
        encoder=encoders.MfccTimeDistributedRnnEncoder(rnn_channels=8, z_dims=3, z_time_steps=125),
        decoder=decoders.RnnFcDecoder(rnn_channels=8, ch=8, layers_per_stack=1, output_splits=splits),
        processor_group=group,
        losses=[losses.SpectralLoss(fft_sizes=(256, 64), logmag_weight=1.0)],
    )


@pytest.fixture(scope='module')
def called():
    """A model that was called once, with outputs and losses."""
    model = _model()
    return model, *model(_features(), return_losses=True, training=True)


def test_forward_pass_and_losses(called):
    model, outputs, losses = called
    assert tuple(outputs['audio_synth'].shape) == (2, 1600)
    assert set(outputs) >= {'harmonic', 'filtered_noise', 'add', 'reverb', 'audio_synth'}
    assert float(losses['total_loss']) == pytest.approx(float(losses['spectral_loss']))
    assert np.isfinite(float(losses['total_loss']))
    assert set(model.loss_metrics) == {'spectral_loss_256', 'spectral_loss_64'}


def test_gradients_reach_every_weight(called, value_and_gradients):
    model, features = called[0], _features()
    weights = [ops.convert_to_numpy(w) for w in model.trainable_variables]
    frozen = [w.value for w in model.non_trainable_variables]

    def loss(*values):
        outputs, _ = _stateless(model, values, frozen, features)
        return ops.mean(ops.abs(outputs['audio_synth'] - features['audio']))

    _, gradients = value_and_gradients(loss, *weights)
    names = [w.path for w in model.trainable_variables]
    silent = [name for name, g in zip(names, gradients, strict=True) if not np.any(g)]
    assert silent == []
    assert all(np.all(np.isfinite(g)) for g in gradients)


def _stateless(model, values, frozen, features):
    return model.stateless_call(list(values), frozen, features, training=False)
