"""Processors, groups, synths and effects: what all of them must do, and what each is for."""

import json

import gin
import keras
import numpy as np
import pytest
from keras import ops

from ddsp import core, dags, effects, processors, synths
from ddsp.errors import DDSPError

pytestmark = pytest.mark.portable
B, F, N, H = 2, 10, 640, 6
RNG = np.random.default_rng(0)


def rand(*shape):
    return RNG.normal(size=shape).astype(np.float32)


F0 = RNG.uniform(100, 400, [B, F, 1]).astype(np.float32)
AUDIO = rand(B, N)
CASES = {
    'harmonic': (lambda: synths.Harmonic(N), [rand(B, F, 1), rand(B, F, H), F0]),
    'inharmonic': (lambda: synths.Harmonic(N), [rand(B, F, 1), rand(B, F, H), F0, 0.01 * rand(B, F, H)]),
    'sinusoidal': (lambda: synths.Sinusoidal(N), [rand(B, F, 5), rand(B, F, 5)]),
    'filtered_noise': (lambda: synths.FilteredNoise(N, window_size=0, seed=3), [rand(B, F, 9)]),
    'wavetable': (lambda: synths.Wavetable(N), [rand(B, F, 1), rand(B, F, 32), F0]),
    'tensor_to_audio': (lambda: synths.TensorToAudio(), [rand(B, N, 1)]),
    'reverb': (lambda: effects.Reverb(), [AUDIO, rand(B, 50)]),
    'trained_reverb': (lambda: effects.Reverb(trainable=True, reverb_length=50), [AUDIO]),
    'exp_decay_reverb': (lambda: effects.ExpDecayReverb(reverb_length=50), [AUDIO, rand(B, 1), rand(B, 1)]),
    'trained_exp_decay': (lambda: effects.ExpDecayReverb(trainable=True, reverb_length=50), [AUDIO]),
    'noise_reverb': (lambda: effects.FilteredNoiseReverb(reverb_length=60), [AUDIO, rand(B, 5, 9)]),
    'trained_noise_reverb': (
        lambda: effects.FilteredNoiseReverb(trainable=True, reverb_length=60, n_frames=5, n_filter_banks=9),
        [AUDIO],
    ),
    'fir_filter': (lambda: effects.FIRFilter(), [AUDIO, rand(B, F, 9)]),
    'mod_delay': (lambda: effects.ModDelay(), [AUDIO, rand(B, N, 1), rand(B, N, 1)]),
    'add': (lambda: processors.Add(), [AUDIO, rand(B, N)]),
    'mix': (lambda: processors.Mix(), [rand(B, N, 1), rand(B, N, 1), rand(B, F, 1)]),
    'crop': (lambda: processors.Crop(64), [AUDIO]),
}
everyone = pytest.mark.parametrize('name', CASES)


def made(name):
    make, inputs = CASES[name]
    keras.utils.set_random_seed(0)
    return make(), [ops.convert_to_tensor(x) for x in inputs]


def npy(x):
    return ops.convert_to_numpy(x)


@everyone
def test_controls_come_with_the_same_signal(name):
    processor, inputs = made(name)
    outputs = processor(*inputs, return_outputs_dict=True)
    assert set(outputs) == {'signal', 'controls'}
    assert np.isfinite(npy(outputs['signal'])).all()
    np.testing.assert_allclose(npy(processor(*inputs)), npy(outputs['signal']), atol=1e-5)


@everyone
def test_compiled_is_eager(name, compiled):
    processor, inputs = made(name)
    # A delay of 400 samples turns rounding of its sigmoid into this much.
    np.testing.assert_allclose(npy(compiled(processor)(*inputs)), npy(processor(*inputs)), atol=3e-4)


@everyone
def test_items_of_a_batch_do_not_meet(name):
    processor, inputs = made(name)
    together, alone = (processor.get_controls(*x) for x in (inputs, [x[:1] for x in inputs]))
    for key, control in together.items():
        np.testing.assert_allclose(npy(alone[key]), npy(control)[:1], rtol=1e-6, atol=1e-6)
    # From the same controls: PyTorch rounds an element by its place; phase adds up a frequency's rounding.
    first = processor.get_signal(**{key: control[:1] for key, control in together.items()})
    np.testing.assert_allclose(npy(first), npy(processor.get_signal(**together))[:1], atol=1e-5)


@everyone
def test_a_saved_configuration_makes_the_same_processor(name, tmp_path):
    processor, inputs = made(name)
    config = json.loads(json.dumps(keras.saving.serialize_keras_object(processor)))
    clone = keras.saving.deserialize_keras_object(config)
    assert type(clone).from_config(clone.get_config()).get_config() == processor.get_config()
    clone.set_weights(processor.get_weights())
    np.testing.assert_allclose(npy(clone(*inputs)), npy(processor(*inputs)), atol=1e-6)


@everyone
def test_signals_stay_float32_under_mixed_precision(name):
    expected = npy(made(name)[0](*made(name)[1]))
    keras.mixed_precision.set_global_policy('mixed_bfloat16')
    try:
        processor, inputs = made(name)
        signal = processor(*inputs)
    finally:
        keras.mixed_precision.set_global_policy('float32')
    assert ops.dtype(signal) == 'float32'
    np.testing.assert_allclose(npy(signal), expected, atol=1e-5)


@everyone
def test_batch_size_may_be_unknown(name):
    if keras.backend.backend() != 'tensorflow':
        pytest.skip('shapes are always known here')
    import tensorflow as tf

    processor, inputs = made(name)
    signature = [tf.TensorSpec([None, *x.shape[1:]], tf.float32) for x in inputs]
    function = tf.function(lambda *x: processor(*x), input_signature=signature)
    np.testing.assert_allclose(function(*inputs), processor(*inputs), atol=2e-4)


def group():
    return processors.ProcessorGroup(
        dag=[
            (synths.Harmonic(N), ['amps', 'hd', 'f0_hz']),
            (synths.FilteredNoise(N, seed=0), ['mags']),
            (processors.Add(), ['harmonic/signal', 'filtered_noise/signal']),
            (effects.Reverb(trainable=True, reverb_length=30), ['add/signal']),
        ]
    )


FEATURES = {'amps': rand(B, F, 1), 'hd': rand(B, F, H), 'f0_hz': F0, 'mags': rand(B, F, 9)}


def test_a_group_is_its_parts():
    whole = group()
    assert whole.processor_names == ['harmonic', 'filtered_noise', 'add', 'reverb']
    outputs = whole.get_controls(FEATURES)
    parts = npy(whole.harmonic(*[FEATURES[k] for k in ('amps', 'hd', 'f0_hz')]))
    parts = parts + npy(whole.filtered_noise(FEATURES['mags']))
    np.testing.assert_allclose(npy(outputs['add']['signal']), parts, atol=1e-5)
    np.testing.assert_allclose(npy(whole(FEATURES)), npy(outputs['out']['signal']), atol=1e-6)
    np.testing.assert_allclose(npy(core.nested_lookup('harmonic/controls/f0_hz', outputs)), F0)
    assert len(whole.trainable_variables) == 1


def test_a_group_is_saved_with_its_processors():
    whole = group()
    config = json.loads(json.dumps(keras.saving.serialize_keras_object(whole)))
    clone = keras.saving.deserialize_keras_object(config)
    clone.set_weights(whole.get_weights())
    np.testing.assert_allclose(npy(clone(FEATURES)), npy(whole(FEATURES)), atol=1e-6)


def test_modules_of_a_dag_may_be_named_by_keyword():
    whole = processors.ProcessorGroup(dag=[('h', ['amps', 'hd', 'f0_hz'])], h=synths.Harmonic(N))
    assert whole.processors == [whole.h]
    assert whole(FEATURES).shape == (B, N)


@pytest.mark.parametrize(
    ('dag', 'message'),
    [
        ([('nobody', ['a'])], "'nobody' is no module; modules given"),
        ([(processors.Add(name='inputs'), ['a', 'b'])], "'inputs' is reserved"),
        (
            [(processors.Add(), ['a', 'b']), (processors.Add(), ['a', 'b'])],
            "two modules of the DAG have the name 'add'",
        ),
        ([(processors.Add(),)], r'a DAG node is \(module, \[input keys\]\)'),
    ],
)
def test_wrong_dags_are_refused(dag, message):
    with pytest.raises(DDSPError, match=message):
        dags.DAGLayer(dag)


def test_a_missing_key_is_named_with_those_that_exist():
    with pytest.raises(KeyError, match="'gain' of the key 'gain' is not there; available keys"):
        processors.ProcessorGroup(dag=[(processors.Add(), ['amps', 'gain'])]).get_controls(FEATURES)


def test_noise_is_new_at_each_call_unless_seeded():
    magnitudes = FEATURES['mags']
    free, seeded = synths.FilteredNoise(N), synths.FilteredNoise(N, seed=5)
    assert np.abs(npy(free(magnitudes)) - npy(free(magnitudes))).max() > 1e-4
    np.testing.assert_array_equal(npy(seeded(magnitudes)), npy(synths.FilteredNoise(N, seed=5)(magnitudes)))
    noise = npy(core.uniform_noise([4, 10000], 1))
    assert abs(noise.mean()) < 0.01
    assert noise.var() == pytest.approx(1 / 3, rel=0.02)


def test_a_room_does_not_change_between_calls_unless_asked_to():
    args = [AUDIO, np.full([B, 1], 2.0), np.full([B, 1], 1.0)]
    room = effects.ExpDecayReverb(reverb_length=50)
    np.testing.assert_array_equal(npy(room(*args)), npy(room(*args)))
    changing = effects.ExpDecayReverb(reverb_length=50, seed=None)
    assert np.abs(npy(changing(*args)) - npy(changing(*args))).max() > 1e-3


def test_mix_keeps_the_power():
    ones = np.ones([1, 8, 1], np.float32)
    for level, gains in ((-50.0, (0.0, 1.0)), (0.0, (0.5**0.5, 0.5**0.5)), (50.0, (1.0, 0.0))):
        for on, gain in zip(((1, 0), (0, 1)), gains, strict=True):
            found = processors.Mix()(on[0] * ones, on[1] * ones, np.full([1, 2, 1], level, np.float32))
            np.testing.assert_allclose(npy(found), gain, atol=1e-6)


@pytest.mark.parametrize(
    ('where', 'kept'), [('front', slice(4, 20)), ('center', slice(2, 18)), ('back', slice(0, 16))]
)
def test_crop(where, kept):
    x = np.arange(20, dtype=np.float32)[None]
    np.testing.assert_array_equal(npy(processors.Crop(5, where)(x)), x[:, kept])
    np.testing.assert_array_equal(npy(processors.Crop(1, where)(x)), x)


def test_delay_runs_from_center_to_center_plus_depth():
    impulse = np.zeros([1, 1000], np.float32)
    impulse[0, 100] = 1.0
    delay = effects.ModDelay(gain_scale_fn=None, phase_scale_fn=None, add_dry=False)
    ones = np.ones([1, 1000, 1], np.float32)
    for phase, milliseconds in ((0.0, 15), (0.5, 20), (1.0, 25)):
        found = npy(delay(impulse, ones, phase * ones))[0]
        assert np.argmax(found) == 100 + 16 * milliseconds


def test_reverb_has_no_dry_signal_of_its_own():
    ir = np.zeros([1, 4], np.float32)
    ir[0, 0], ir[0, 2] = 5.0, 0.5
    x = rand(1, 30)
    wet = npy(effects.Reverb(add_dry=False)(x, ir))
    np.testing.assert_allclose(wet[0, 2:], 0.5 * x[0, :-2], atol=1e-6)
    np.testing.assert_allclose(npy(effects.Reverb()(x, ir)), wet + x, atol=1e-6)


@pytest.mark.parametrize(
    ('call', 'message'),
    [
        (lambda: effects.Reverb()(AUDIO), "ir must be given to Reverb 'reverb', or trainable=True"),
        (
            lambda: effects.ExpDecayReverb().get_controls(AUDIO, AUDIO),
            'decay must be given to ExpDecayReverb',
        ),
        (lambda: effects.FilteredNoiseReverb().get_controls(AUDIO), 'magnitudes must be given'),
        (lambda: processors.Crop(4, 'middle'), "crop_location='middle' is unknown: use one of"),
        (lambda: processors.Crop(40).get_signal(rand(1, 40)), 'frame_size=40 leaves nothing of 40 samples'),
        (
            lambda: processors.Mix().get_controls(rand(1, 4, 1), rand(1, 5, 1), rand(1, 2, 1)),
            'signal_one has 4 time steps and signal_two 5',
        ),
    ],
)
def test_errors_say_what_is_missing(call, message):
    with pytest.raises(DDSPError, match=message):
        call()


def test_gin_knows_short_and_qualified_names():
    config = """
        Harmonic.n_samples = 320
        synths.FilteredNoise.n_samples = 320
        ddsp.synths.FilteredNoise.scale_fn = @core.exp_sigmoid
        exp_sigmoid.max_value = 1.0
        effects.ModDelay.depth_ms = 3.0
        oscillator_bank.use_angular_cumsum = True
        processors.ProcessorGroup.dag = [
            (@synths.Harmonic(), ['amps', 'hd', 'f0_hz']),
            (@FilteredNoise(), ['mags']),
            (@processors.Add(), ['harmonic/signal', 'filtered_noise/signal']),
        ]
    """
    with gin.unlock_config():
        try:
            gin.parse_config(config)
            whole = processors.ProcessorGroup()
            assert whole(FEATURES).shape == (B, 320)
            assert float(npy(whole.filtered_noise.scale_fn(50.0))) == pytest.approx(1.0)
        finally:
            gin.clear_config()
