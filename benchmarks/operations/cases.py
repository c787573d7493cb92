"""The operations that are measured: one function a case, which builds it and returns what is to be timed.

Runs unchanged under ddsp 3.7.0 (Python 3.8, TensorFlow 2.11) and here, so that both do the same work: names,
shapes and random inputs are the same, and nothing here may use what only one of them has.
"""

from __future__ import annotations

import importlib

SAMPLE_RATE = 16000  # Hz
N_SAMPLES = 4 * SAMPLE_RATE
N_FRAMES = 1000
N_HARMONICS = 100
CONTROLS = {'amps': 1, 'harmonic_distribution': 60, 'noise_magnitudes': 65}  # of the solo instrument


class Inputs:
    """Random inputs of one batch size; the same numbers in every process."""

    def __init__(self, batch: int) -> None:
        import numpy as np
        import tensorflow as tf

        self.np, self.tf, self.batch = np, tf, batch
        self.rng = np.random.default_rng(0)
        glide = 110.0 * 4.0 ** np.linspace(0.0, 1.0, N_FRAMES)[None, :, None]  # two octaves from 110 Hz
        self.f0_hz = self.tensor(glide * self.rng.uniform(1.0, 1.1, (batch, 1, 1)))
        self.amplitudes = self.uniform(0.0, 1.0, (batch, N_FRAMES, 1))

    def tensor(self, array):
        """A float32 tensor."""
        return self.tf.constant(self.np.asarray(array, self.np.float32))

    def uniform(self, low, high, shape):
        """Uniform random numbers."""
        # Drawn as float32: a float64 copy of the inputs would be the peak of memory of the small cases.
        return self.tensor(self.rng.random(shape, self.np.float32) * (high - low) + low)

    def normal(self, shape):
        """Normal random numbers."""
        return self.tensor(self.rng.standard_normal(shape, self.np.float32))

    def audio(self):
        """White noise, [batch, 4 s]."""
        return self.uniform(-1.0, 1.0, (self.batch, N_SAMPLES))

    def distribution(self, n_harmonics=N_HARMONICS):
        """Shares of the harmonics, [batch, frames, harmonics]."""
        shares = self.rng.random((self.batch, N_FRAMES, n_harmonics), self.np.float32)
        return self.tensor(shares / shares.sum(-1, keepdims=True))


def with_gradients(inputs, function, arguments, variables=()):
    """`function(*arguments)`, and the gradient of its mean square to the arguments and variables."""
    tf = inputs.tf

    def run():
        with tf.GradientTape() as tape:
            tape.watch(arguments)
            loss = tf.reduce_mean(tf.square(function(*arguments)))
        return [loss, *tape.gradient(loss, [*arguments, *variables])]

    return run


def harmonic(ddsp, inputs, gradients=False, angular=False):
    """100 harmonics, window resampling."""

    def synthesize(amplitudes, distribution):
        return ddsp.core.harmonic_synthesis(
            frequencies=inputs.f0_hz, amplitudes=amplitudes, harmonic_distribution=distribution,
            n_samples=N_SAMPLES, sample_rate=SAMPLE_RATE, amp_resample_method='window',
            use_angular_cumsum=angular,
        )  # fmt: skip

    arguments = [inputs.amplitudes, inputs.distribution()]
    return with_gradients(inputs, synthesize, arguments) if gradients else (lambda: synthesize(*arguments))


def noise(ddsp, inputs, gradients=False):
    """65 bands, window_size=0, as every published model uses it."""
    synth = ddsp.synths.FilteredNoise(n_samples=N_SAMPLES, window_size=0)
    arguments = [inputs.normal((inputs.batch, N_FRAMES, 65))]
    return with_gradients(inputs, synth, arguments) if gradients else (lambda: synth(*arguments))


def reverb(ddsp, inputs, gradients=False):
    """A trainable impulse response of 48,000 taps."""
    effect = ddsp.effects.Reverb(trainable=True, reverb_length=48000)
    audio = inputs.audio()
    effect(audio)  # makes its variable
    if not gradients:
        return lambda: effect(audio)
    variables = [v if isinstance(v, inputs.tf.Variable) else v.value for v in effect.trainable_variables]
    return with_gradients(inputs, effect, [audio], variables)


def mod_delay(ddsp, inputs, gradients=False):
    """Centre 15 ms, depth 10 ms, a new delay at every sample."""
    effect = ddsp.effects.ModDelay(center_ms=15.0, depth_ms=10.0, sample_rate=SAMPLE_RATE)
    np = inputs.np
    vibrato = np.sin(2 * np.pi * 2.0 * np.arange(N_SAMPLES) / SAMPLE_RATE)[None, :, None]
    phase = inputs.tensor(np.repeat(vibrato, inputs.batch, 0))
    arguments = [inputs.audio(), inputs.normal((inputs.batch, N_SAMPLES, 1)), phase]
    return with_gradients(inputs, effect, arguments) if gradients else (lambda: effect(*arguments))


def wavetable(ddsp, inputs, gradients=False):
    """A wavetable of 2048 samples for each frame."""
    synth = ddsp.synths.Wavetable(n_samples=N_SAMPLES, sample_rate=SAMPLE_RATE)
    arguments = [inputs.amplitudes, inputs.normal((inputs.batch, N_FRAMES, 2048))]

    def synthesize(amplitudes, tables):
        return synth(amplitudes, tables, inputs.f0_hz)

    return with_gradients(inputs, synthesize, arguments) if gradients else (lambda: synthesize(*arguments))


def spectral_loss(ddsp, inputs):
    """Six sizes, magnitudes and log magnitudes, with the gradient to the audio."""
    loss = ddsp.losses.SpectralLoss(mag_weight=1.0, logmag_weight=1.0, loss_type='L1')
    tf, target, audio = inputs.tf, inputs.audio(), inputs.audio()

    def run():
        with tf.GradientTape() as tape:
            tape.watch(audio)
            value = loss(target, audio)
        return [value, tape.gradient(value, audio)]

    return run


def loudness(ddsp, inputs, use_tf=True, seconds=60):
    """Loudness of one recording at 250 frames per second."""
    audio = inputs.rng.uniform(-1, 1, seconds * SAMPLE_RATE).astype('float32')
    audio = inputs.tf.constant(audio) if use_tf else audio
    return lambda: ddsp.spectral_ops.compute_loudness(audio, SAMPLE_RATE, 250, use_tf=use_tf)


def instrument_decoder():
    """The network of upstream's models/solo_instrument.gin."""
    training = importlib.import_module('ddsp.training')
    return training.decoders.RnnFcDecoder(
        rnn_channels=512, rnn_type='gru', ch=512, layers_per_stack=3,
        input_keys=('ld_scaled', 'f0_scaled'),
        output_splits=tuple(CONTROLS.items()),
    )  # fmt: skip


def instrument_synthesis(ddsp):
    """Its harmonics, noise and reverb."""
    dag = [
        (
            ddsp.synths.Harmonic(n_samples=N_SAMPLES, sample_rate=SAMPLE_RATE, name='harmonic'),
            ['amps', 'harmonic_distribution', 'f0_hz'],
        ),
        (
            ddsp.synths.FilteredNoise(n_samples=N_SAMPLES, window_size=0, name='filtered_noise'),
            ['noise_magnitudes'],
        ),
        (ddsp.processors.Add(name='add'), ['filtered_noise/signal', 'harmonic/signal']),
        (ddsp.effects.Reverb(name='reverb', reverb_length=48000, trainable=True), ['add/signal']),
    ]
    return ddsp.processors.ProcessorGroup(dag=dag)


def solo_instrument(ddsp):
    """The autoencoder of upstream's models/solo_instrument.gin."""
    training = importlib.import_module('ddsp.training')
    return training.models.Autoencoder(
        preprocessor=training.preprocessing.F0LoudnessPreprocessor(time_steps=N_FRAMES),
        encoder=None,
        decoder=instrument_decoder(),
        processor_group=instrument_synthesis(ddsp),
        losses=[ddsp.losses.SpectralLoss(loss_type='L1', mag_weight=1.0, logmag_weight=1.0)],
    )


def decoder_part(ddsp, inputs):
    """The network of a training step alone, with the gradients of its weights."""
    decoder, shape = instrument_decoder(), (inputs.batch, N_FRAMES, 1)
    features = {'ld_scaled': inputs.uniform(0.0, 1.0, shape), 'f0_scaled': inputs.uniform(0.0, 1.0, shape)}
    decoder(dict(features))  # makes the variables

    def run():
        with inputs.tf.GradientTape() as tape:
            outputs = decoder(dict(features))
            loss = sum(inputs.tf.reduce_mean(inputs.tf.square(outputs[key])) for key in CONTROLS)
        return [loss, *tape.gradient(loss, decoder.trainable_variables)]

    return run


def synthesis_part(ddsp, inputs):
    """Harmonics, noise and reverb of a training step alone, with the gradients of the controls and taps."""
    group = instrument_synthesis(ddsp)
    controls = [inputs.normal((inputs.batch, N_FRAMES, n)) for n in CONTROLS.values()]

    def synthesize(*controls):
        return group({'f0_hz': inputs.f0_hz, **dict(zip(CONTROLS, controls))})  # noqa: B905 (Python 3.8)

    synthesize(*controls)  # makes the variable
    variables = [v if isinstance(v, inputs.tf.Variable) else v.value for v in group.trainable_variables]
    return with_gradients(inputs, synthesize, controls, variables)


def update_part(ddsp, inputs):
    """Clipping by global norm and Adam of a training step alone."""
    tf, decoder = inputs.tf, instrument_decoder()
    decoder({key: inputs.uniform(0.0, 1.0, (1, 2, 1)) for key in ('ld_scaled', 'f0_scaled')})
    variables = [*decoder.trainable_variables, tf.Variable(tf.zeros([48000]))]
    gradients = [inputs.normal(tuple(v.shape)) for v in variables]
    optimizer = tf.keras.optimizers.Adam(3e-4)
    if hasattr(optimizer, 'build'):
        optimizer.build(variables)

    def run():
        clipped, norm = tf.clip_by_global_norm(gradients, 3.0)
        optimizer.apply_gradients(list(zip(clipped, variables)))  # noqa: B905 (Python 3.8 runs this too)
        return norm

    return run


def train_step(ddsp, inputs, precision=None):
    """Forward, backward, clipping by global norm 3 and Adam; `precision` is for this library alone."""
    tf = inputs.tf
    model = solo_instrument(ddsp)
    features = {
        'audio': inputs.uniform(-0.5, 0.5, (inputs.batch, N_SAMPLES)),
        'f0_hz': inputs.f0_hz,
        'f0_confidence': tf.ones([inputs.batch, N_FRAMES, 1]),
        'loudness_db': inputs.uniform(-80.0, 0.0, (inputs.batch, N_FRAMES, 1)),
    }
    model(dict(features), return_losses=True, training=True)  # makes the variables
    if precision:
        importlib.import_module('ddsp.training.nn').set_precision(model.decoder, precision)
    optimizer = tf.keras.optimizers.Adam(3e-4)
    if hasattr(optimizer, 'build'):
        optimizer.build(model.trainable_variables)

    def step():
        with tf.GradientTape() as tape:
            _, losses = model(dict(features), return_losses=True, training=True)
            loss = losses['total_loss']
        variables = model.trainable_variables
        gradients, _ = tf.clip_by_global_norm(tape.gradient(loss, variables), 3.0)
        optimizer.apply_gradients(list(zip(gradients, variables)))  # noqa: B905 (Python 3.8 runs this too)
        return loss

    return step


# name -> (what makes it, its keyword arguments, batch)
CASES = {
    'harmonic_forward': (harmonic, {}, 16),
    'harmonic_gradients': (harmonic, {'gradients': True}, 16),
    'harmonic_angular_forward': (harmonic, {'angular': True}, 16),
    'noise_gradients': (noise, {'gradients': True}, 16),
    'reverb_gradients': (reverb, {'gradients': True}, 16),
    'mod_delay_forward': (mod_delay, {}, 16),
    'mod_delay_gradients': (mod_delay, {'gradients': True}, 16),
    'wavetable_forward': (wavetable, {}, 16),
    'wavetable_gradients': (wavetable, {'gradients': True}, 16),
    'spectral_loss_gradients': (spectral_loss, {}, 16),
    'loudness_60s': (loudness, {}, 1),
    'loudness_60s_numpy': (loudness, {'use_tf': False}, 1),
    'train_step': (train_step, {}, 16),
    'train_step_bfloat16': (train_step, {'precision': 'mixed_bfloat16'}, 16),
    'train_step_decoder': (decoder_part, {}, 16),
    'train_step_synthesis': (synthesis_part, {}, 16),
    'train_step_update': (update_part, {}, 16),
}
NOT_A_GRAPH = ('loudness_60s_numpy',)  # timed as they are


def build(name: str, batch: int):
    """What is to be timed, a function without arguments."""
    ddsp = importlib.import_module('ddsp')
    make, kwargs, _ = CASES[name]
    return make(ddsp, Inputs(batch), **kwargs)
