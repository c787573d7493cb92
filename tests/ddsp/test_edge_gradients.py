"""Gradients at the edges: zeros, silence, constants, saturated logits, one frame, f0 = 0, Nyquist.

Every public function, processor and loss is here, or is named in `NOT_DIFFERENTIABLE`. Gradients must be
finite; where a function is smooth, they must be those of central differences.
"""

import functools
import inspect

import keras
import numpy as np
import pytest
from keras import ops

from ddsp import core, effects, losses, processors, spectral_ops, synths
from ddsp.training import nn

pytestmark = [pytest.mark.portable]
if keras.backend.backend() == 'jax':
    pytestmark.append(pytest.mark.slow)  # it compiles each case

NOT_DIFFERENTIABLE = {
    core: {
        'DB_RANGE', 'Number', 'Tensor', 'copy_if_tf_function', 'dim', 'get_fft_size', 'leaf_key',
        'make_iterable', 'map_shape', 'nested_keys', 'nested_lookup', 'noise_keys', 'tf_float32', 'to_dict',
        'uniform_noise',
    },
    synths: set(),
    effects: set(),
    losses: {'EmbeddingLoss', 'Loss', 'LossGroup', 'PretrainedCREPE', 'PretrainedCREPEEmbeddingLoss'},
    spectral_ops: {
        'CREPE_FRAME_SIZE', 'CREPE_SAMPLE_RATE', 'DB_RANGE', 'F0_RANGE', 'PretrainedCREPE', 'compute_f0',
        'get_framed_lengths', 'pad_or_trim_to_expected_length', 'reset_crepe', 'stft_np',
    },
}  # fmt: skip

RNG = np.random.default_rng(0)
LOGITS = np.array([-1e4, -200, -100, -17, -1e-8, 0, 1e-8, 1, 17, 100, 200, 1e4], np.float32)
POSITIVE = np.array([0, 1e-30, 1e-12, 1e-7, 1e-5, 0.1, 1, 440, 8000], np.float32)
SILENCE = np.zeros([1, 256], np.float32)
TONE = np.sin(np.arange(256, dtype=np.float32))[None]


def frames(value, n_frames=4, channels=1):
    return np.full([1, n_frames, channels], value, np.float32)


def ramp(low, high, n_frames=4, channels=1):
    return np.linspace(low, high, n_frames * channels, dtype=np.float32).reshape(1, n_frames, channels)


def case(name, function, *inputs, smooth=False):
    return pytest.param(function, inputs, smooth, id=name)


def elementwise():
    for name in (
        'exp_sigmoid',
        'sym_exp_sigmoid',
        'soft_limit',
        'gradient_reversal',
        'nan_to_num',
        'hz_to_erb',
    ):
        yield case(name, getattr(core, name), LOGITS)
    for name in (
        'amplitude_to_db', 'hz_to_bark', 'hz_to_mel', 'hz_to_midi', 'log10', 'logb', 'power_to_db',
        'safe_log', 'safe_sqrt',
    ):  # fmt: skip
        yield case(name, getattr(core, name), POSITIVE)
    for name in ('db_to_amplitude', 'db_to_power'):
        yield case(name, getattr(core, name), np.array([-1e4, -80, 0, 20], np.float32))
    yield case('hz_to_bark at 0', core.hz_to_bark, np.array([0, 1, 50], np.float32), smooth=True)
    yield case('bark_to_hz', core.bark_to_hz, np.array([-0.53, 0, 10, 20], np.float32), smooth=True)
    yield case('mel_to_hz', core.mel_to_hz, np.array([0, 100, 2000], np.float32), smooth=True)
    yield case('midi_to_hz', lambda x: core.midi_to_hz(x, midi_zero_silence=True), np.float32([0, 20, 127]))
    yield case('hz_to_unit', lambda x: core.hz_to_unit(x, 0.0, 8000.0, clip=True), POSITIVE)
    yield case('midi_to_unit', lambda x: core.midi_to_unit(x, clip=True), np.float32([0, 20, 90, 127]))
    yield case('unit_to_hz', lambda x: core.unit_to_hz(x, 0.0, 8000.0, clip=True), np.float32([-1, 0, 1, 2]))
    yield case('unit_to_midi', lambda x: core.unit_to_midi(x, clip=True), np.float32([-1, 0, 1, 2]))
    yield case('log_scale', lambda x: core.log_scale(x, 1e-3, 10.0), np.float32([-1, 0, 1]), smooth=True)
    yield case('safe_divide', core.safe_divide, np.float32([0, 1, 0, 1]), np.float32([0, 0, 1, 1e-7]))
    yield case('sinc', core.sinc, np.float32([0, 1e-30, 1e-19, 1e-9, 1e-4, 0.01, 0.5, 1]), smooth=True)
    for name in ('frequencies_sigmoid', 'frequencies_softmax', 'frequencies_critical_bands'):
        for logit in (-1e3, 0.0, 1e3):
            yield case(
                f'{name} {logit}', functools.partial(getattr(core, name), depth=3), frames(logit, 1, 6)
            )


def frame_functions():
    for n in (1, 4):
        for method in ('nearest', 'linear', 'cubic', 'window'):
            resample = functools.partial(core.resample, n_timesteps=16, method=method)
            yield case(f'resample {method} {n}', resample, ramp(0, 1, n))
        yield case(f'upsample_with_windows {n}', lambda x: core.upsample_with_windows(x, 16), ramp(0, 1, n))
    yield case('center_crop', lambda x: core.center_crop(x, 2), frames(0.0))
    yield case('diff', lambda x: core.diff(x, axis=1), frames(0.0), smooth=True)
    yield case('pad_axis', lambda x: core.pad_axis(x, (1, 2), axis=1), frames(0.0), smooth=True)
    yield case('get_harmonic_frequencies', lambda x: core.get_harmonic_frequencies(x, 3), frames(0.0))
    for value in (0.0, 1e-30, 1e-7, 1.0):
        yield case(f'normalize_harmonics {value}', core.normalize_harmonics, frames(value, 1, 5))
    for f0 in (0.0, 100.0, 8000.0, 1e5):
        near = functools.partial(core.harmonic_to_sinusoidal, sample_rate=16000)
        yield case(f'harmonic_to_sinusoidal {f0}', near, frames(0.0), frames(0.0, 4, 3), frames(f0))
        yield case(f'remove_above_nyquist {f0}', core.remove_above_nyquist, frames(f0), frames(0.0))
        for normalize in (False, True):
            gather = functools.partial(core.sinusoidal_to_harmonic, n_harmonics=3, normalize=normalize)
            inputs = frames(0.0, 2, 4), frames(f0, 2, 4), frames(f0, 2)
            yield case(f'sinusoidal_to_harmonic {f0} {normalize}', gather, *inputs)
    one_note, many = np.ones([1, 4, 1], np.float32), np.eye(4, dtype=np.float32)[None]
    for name, mask in (('constant', one_note), ('one frame', many), ('empty', 0 * one_note)):
        for function in (nn.get_note_moments, nn.pool_over_notes):
            yield case(f'{function.__name__} {name}', lambda x, f=function, m=mask: f(x, m), frames(3.0))
    for name in ('instance', 'layer', 'group'):
        normalize = functools.partial(nn.normalize_op, norm_type=name)
        yield case(f'normalize_op {name}', normalize, np.full([1, 4, 1, 32], 2.0, np.float32))
    yield case('straight_through_softmax', lambda x: nn.straight_through_softmax(x)[1], LOGITS[None])


def oscillators():
    hz = ('0', 0.0), ('100', 100.0), ('below Nyquist', 7999.99), ('Nyquist', 8000.0), ('above', 9000.0)
    for name, f0 in hz:
        for amplitude in (0.0, 0.5):
            inputs = frames(f0), frames(amplitude), frames(amplitude, 4, 3)
            label = f'{name} Hz amplitude {amplitude}'

            def harmonic(f, a, d):
                return core.harmonic_synthesis(f, a, harmonic_distribution=d, n_samples=64)

            def shifted_harmonic(f, a, d):
                return core.harmonic_synthesis(f, a, 0.0 * d, d, n_samples=64)

            def streaming_harmonic(f, a, d):
                return core.streaming_harmonic_synthesis(f, a, d, n_samples=64)[0]

            def sinusoidal(f, a, d):
                return core.sinusoidal_synthesis(core.get_harmonic_frequencies(f, 3), a * d, n_samples=64)

            for function in (harmonic, shifted_harmonic, streaming_harmonic, sinusoidal):
                yield case(f'{function.__name__}_synthesis {label}', function, *inputs)
            bank = lambda f, a: core.oscillator_bank(core.get_harmonic_frequencies(f, 3), a)  # noqa: E731
            yield case(f'oscillator_bank {label}', bank, inputs[0], inputs[2])
            yield case(
                f'harmonic_oscillator_bank {label}', lambda f, a: core.harmonic_oscillator_bank(f, a)[0],
                inputs[0], inputs[2],
            )  # fmt: skip
            tables = np.full([1, 8], amplitude, np.float32)
            wavetable = lambda f, a, t: core.wavetable_synthesis(f, a, t, n_samples=64)  # noqa: E731
            yield case(f'wavetable_synthesis {label}', wavetable, inputs[0], inputs[1], tables)
    yield case('angular_cumsum', core.angular_cumsum, frames(0.0, 8))
    one = (frames(0.0, 1), frames(0.0, 1), frames(0.0, 1, 3))
    yield case(
        'harmonic_synthesis, one frame',
        lambda f, a, d: core.harmonic_synthesis(f, a, harmonic_distribution=d, n_samples=64), *one,
    )  # fmt: skip
    yield case('harmonic_distribution_to_wavetable',
               lambda d: core.harmonic_distribution_to_wavetable(d, 8), frames(0.0, 1, 3))  # fmt: skip
    phase = np.array([[0, 0.25, 0.99999, 1.0]], np.float32)
    yield case('linear_lookup', core.linear_lookup, phase, ramp(0, 1, 1, 8)[0])
    delay = functools.partial(core.variable_length_delay, max_length=4)
    yield case('variable_length_delay', delay, ramp(-1, 2, 8), np.zeros([1, 8], np.float32))


def filters():
    for name, audio in (('silence', SILENCE), ('tone', TONE)):
        for level in (0.0, 1.0):
            for window in (0, 5):
                shape = functools.partial(core.frequency_filter, window_size=window)
                yield case(f'frequency_filter {name} {level} {window}', shape, audio, frames(level, 2, 9))
        for cutoff in (0.0, 1e-12, 0.5, 1.0):
            inputs = audio, frames(cutoff, 2)
            yield case(f'sinc_filter {name} {cutoff}', lambda a, c: core.sinc_filter(a, c, 8), *inputs)
        yield case(f'fft_convolve {name}', core.fft_convolve, audio, np.zeros([1, 7], np.float32))
    yield case('frequency_impulse_response', core.frequency_impulse_response, frames(0.0, 1, 9))
    window = functools.partial(core.apply_window_to_impulse_response, window_size=4)
    yield case('apply_window_to_impulse_response', window, frames(0.0, 1, 9))
    for high_pass in (False, True):
        design = functools.partial(core.sinc_impulse_response, window_size=8, high_pass=high_pass)
        yield case(f'sinc_impulse_response {high_pass}', design, ramp(0.01, 1, 2), smooth=True)
    crop = functools.partial(
        core.crop_and_compensate_delay, audio_size=16, ir_size=4, padding='same', delay_compensation=-1
    )
    yield case('crop_and_compensate_delay', crop, np.zeros([1, 19], np.float32))


def processors_and_effects():
    for logit in (-1e4, -100.0, -17.0, 0.0, 17.0, 100.0, 1e4):
        mix = functools.partial(processors.Mix(), SILENCE + 1.0, TONE)
        yield case(f'Mix {logit}', mix, frames(logit), smooth=abs(logit) != 17)
        for f0 in (0.0, 100.0, 8000.0):
            harmonic = synths.Harmonic(n_samples=64)
            inputs = frames(logit), frames(logit, 4, 3), frames(f0)
            yield case(f'Harmonic {logit} {f0} Hz', harmonic, *inputs)
        sinusoidal = synths.Sinusoidal(n_samples=64)
        yield case(f'Sinusoidal {logit}', sinusoidal, frames(logit, 4, 3), frames(logit, 4, 3))
        noise = synths.FilteredNoise(n_samples=64, window_size=9, seed=0)
        yield case(f'FilteredNoise {logit}', noise, frames(logit, 4, 5))
        table = synths.Wavetable(n_samples=64)
        yield case(f'Wavetable {logit}', table, frames(logit), frames(logit, 4, 8), frames(0.0))
        fir = effects.FIRFilter(window_size=9)
        yield case(f'FIRFilter {logit}', fir, SILENCE, frames(logit, 4, 9))
        delay = effects.ModDelay()
        yield case(f'ModDelay {logit}', delay, TONE, frames(logit, 256), frames(logit, 256))
        logits = np.full([1, 1], logit, np.float32)
        if logit < 100:  # beyond, exp(exp(100)) is the decay that is asked for
            decay = effects.ExpDecayReverb(reverb_length=8)
            yield case(f'ExpDecayReverb {logit}', decay, SILENCE, logits, logits)
        room = effects.FilteredNoiseReverb(reverb_length=8, window_size=5)
        yield case(f'FilteredNoiseReverb {logit}', room, SILENCE, frames(logit, 2, 5))
    yield case('Reverb', effects.Reverb(), SILENCE, np.zeros([1, 8], np.float32))
    yield case('TensorToAudio', synths.TensorToAudio(), frames(0.0, 16))
    yield case('Add', processors.Add(), SILENCE, SILENCE, smooth=True)
    yield case('Crop', processors.Crop(4), SILENCE)


def spectra():
    for name, audio in (('silence', SILENCE), ('constant', SILENCE + 1.0), ('tone', TONE)):
        sizes = {'mag': {'size': 64}, 'logmag': {'size': 64}, 'mel': {'fft_size': 64, 'bins': 8}}
        sizes |= {
            'logmel': {'fft_size': 64, 'bins': 8},
            'mfcc': {'fft_size': 64, 'mel_bins': 8, 'mfcc_bins': 4},
        }
        sizes |= {'loudness': {'n_fft': 64}, 'power': {'frame_size': 64}, 'rms_energy': {'frame_size': 64}}
        for function, options in sizes.items():
            compute = functools.partial(getattr(spectral_ops, f'compute_{function}'), **options)
            yield case(f'compute_{function} {name}', compute, audio)
        yield case(f'stft {name}', lambda x: ops.abs(ops.real(spectral_ops.stft(x, 64))), audio)
    yield case('frame', lambda x: spectral_ops.frame(x, 64, 16), SILENCE, smooth=True)
    yield case('pad', lambda x: spectral_ops.pad(x, 64, 16), SILENCE)
    yield case('to_mono', spectral_ops.to_mono, SILENCE[..., None])


def all_losses():
    pairs = ('silence', SILENCE, SILENCE), ('equal', TONE, TONE), ('silent target', SILENCE, TONE)
    for name, target, audio in (*pairs, ('silent audio', TONE, SILENCE)):
        for kind in ('L1', 'L2', 'COSINE'):
            spectral = losses.SpectralLoss(
                fft_sizes=(64, 32), loss_type=kind, mag_weight=1.0, delta_time_weight=1.0,
                delta_freq_weight=1.0, cumsum_freq_weight=1.0, logmag_weight=1.0, loudness_weight=1.0,
            )  # fmt: skip
            yield case(f'SpectralLoss {kind} {name}', spectral, target, audio)
            mean = functools.partial(losses.mean_difference, loss_type=kind)
            yield case(f'mean_difference {kind} {name}', mean,
                       target, audio)  # fmt: skip
            yield case(f'ParamLoss {kind} {name}', losses.ParamLoss(loss_type=kind), target, audio)
            log = functools.partial(losses.amp_loss, loss_type=kind, log=True)
            yield case(f'amp_loss {kind} {name}', log, target, audio)
        quick = losses.SpectralLoss(fft_sizes=(64, 32), logmag_weight=1.0)
        yield case(f'SpectralLoss {name}', quick, target, audio)
    yield case('FilteredNoiseConsistencyLoss', losses.FilteredNoiseConsistencyLoss(), SILENCE, SILENCE)
    for a, b in ((0.0, 0.0), (0.0, 1.0), (1.0, 1.0)):
        for hz in (0.0, 440.0):
            label = f'amplitudes {a} and {b}, {hz} Hz'
            sets = frames(a, 2, 3), frames(hz, 2, 3), frames(b, 2, 4), frames(440.0, 2, 4)
            yield case(f'WassersteinConsistencyLoss {label}', losses.WassersteinConsistencyLoss(), *sets)
            yield case(f'KDEConsistencyLoss {label}', losses.KDEConsistencyLoss(), *sets)
            for p in (1, 1.5, 2):
                distance = functools.partial(losses.wasserstein_distance, p=p)
                yield case(f'wasserstein_distance {p} {label}', distance, sets[1], sets[3], sets[0], sets[2])
            yield case(
                f'TWMLoss {label}', losses.TWMLoss(), frames(hz, 2, 2), frames(440.0, 2, 3), frames(a, 2, 3)
            )
            yield case(f'HmmTranscriber {label}', losses.HmmTranscriber(), frames(hz / 10), frames(a))
            harmonic = (frames(a), frames(b), frames(a, 4, 3), frames(b, 4, 3), frames(hz), frames(440.0))
            yield case(
                f'HarmonicConsistencyLoss {label}',
                lambda *x: list(losses.HarmonicConsistencyLoss()(*x).values()),
                *harmonic,
            )  # fmt: skip
            yield case(f'freq_loss {label}', losses.freq_loss, frames(hz), frames(440.0))


def everything():
    for group in (
        elementwise,
        frame_functions,
        oscillators,
        filters,
        processors_and_effects,
        spectra,
        all_losses,
    ):
        yield from group()


def _projected(function, weights):
    """A scalar: the outputs, each weighted by numbers of its own."""

    def scalar(*inputs):
        found = function(*inputs)
        found = found if isinstance(found, (list, tuple)) else [found]
        total = 0.0
        for x in found:
            x = core.tf_float32(x)
            total = total + ops.sum(ops.reshape(x, [-1]) * weights[: int(np.prod(x.shape))])
        return total

    return scalar


@pytest.mark.parametrize(('function', 'inputs', 'smooth'), everything())
def test_gradients_are_finite(function, inputs, smooth, value_and_gradients):
    rng = np.random.default_rng(0)
    scalar = _projected(function, rng.normal(size=1 << 16).astype(np.float32))
    value, gradients = value_and_gradients(scalar, *inputs)
    assert np.isfinite(value)
    for i, gradient in enumerate(gradients):
        assert np.all(np.isfinite(gradient)), f'argument {i}: {gradient}'
    if smooth:
        step = 1e-2
        directions = [rng.normal(size=np.shape(x)).astype(np.float32) for x in inputs]
        ends = [
            float(ops.convert_to_numpy(scalar(*(x + s * d for x, d in zip(inputs, directions, strict=True)))))
            for s in (step, -step)
        ]
        expected = (ends[0] - ends[1]) / (2 * step)
        found = sum(float(np.sum(g * d)) for g, d in zip(gradients, directions, strict=True))
        assert found == pytest.approx(expected, rel=2e-2, abs=2e-3)


@pytest.mark.parametrize('module', NOT_DIFFERENTIABLE, ids=lambda module: module.__name__)
def test_everything_public_is_here(module):
    public = [n for n, v in vars(module).items() if n[0] != '_' and not inspect.ismodule(v)]
    names = getattr(module, '__all__', public)
    tested = ' '.join(param.id for param in everything()).split()
    assert set(names) - NOT_DIFFERENTIABLE[module] - set(tested) == set()
