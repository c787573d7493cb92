"""The numbers of ddsp 3.7.0: inputs and outputs recorded from it (TensorFlow 2.11, CPU, float32).

`golden/cases.json` says what was called with what: `how` is one of the functions below, `arrays` names the
recorded inputs (`in.NAME`) and outputs (`out...`) in `golden/arrays.npz`.
"""

from __future__ import annotations

import importlib
import json
import pathlib

import numpy as np
import pytest
import tensorflow as tf

FOLDER = pathlib.Path(__file__).with_name('golden')
CASES = json.loads((FOLDER / 'cases.json').read_text())['cases']
# What differs on purpose; docs/upstream-differences.md gives the reasons.
DIFFERENT = {
    'spectral_crepe_activations_to_f0': 'the mean is over nine bins, as in CREPE itself, not ten',
    'synths_Sinusoidal_raw': "ddsp 3.7.0's own phase is 0.04 off",
    'effects_ModDelay_dry0': 'the last sample of delay wrapped to none',
    'grad_variable_length_delay': 'the last sample of delay wrapped to none',
    'processors_Mix': 'both gains were 0 at one end',
}
# These take and give NumPy arrays.
NUMPY = ('ddsp.training.metrics.', 'ddsp.training.postprocessing.')


@pytest.fixture(scope='module')
def recorded():
    with np.load(FOLDER / 'arrays.npz') as arrays:
        return dict(arrays)


@pytest.mark.parametrize('case', CASES, ids=[case['id'] for case in CASES])
def test_numbers_are_those_of_ddsp_3_7_0(case, recorded, request):
    if case['id'] in DIFFERENT:
        request.applymarker(pytest.mark.xfail(reason=DIFFERENT[case['id']], strict=True))
    arrays = {key: recorded[name] for key, name in case['arrays'].items()}
    inputs = {key.removeprefix('in.'): arrays[key] for key in case['inputs']}
    numpy = case['qualname'].startswith(NUMPY) or case['qualname'].endswith('_np')
    if not numpy and case.get('kwargs', {}).get('use_tf') is not False:
        inputs = {key: tf.constant(value) for key, value in inputs.items()}
    results = CALLS[case['how']](case, inputs)
    for key in case['outputs']:
        assert_close(np.asarray(results[key]), arrays[key], case, key)


def assert_close(result, expected, case, key):
    assert result.shape == expected.shape, key
    if expected.dtype.kind not in 'fciu':
        np.testing.assert_array_equal(result, expected, err_msg=key)
        return
    note = case.get('note', '')
    if 'modulo' in note and (key.endswith('[1]') or 'angular' in case['id']):  # phases, in radians
        result = expected + np.angle(np.exp(1j * (result.astype(float) - expected)))
    np.testing.assert_allclose(result, expected, case['rtol'], case['atol'], err_msg=key)


def find(name):
    """The object of a dotted name."""
    module, _, rest = name.rpartition('.')
    try:
        return getattr(importlib.import_module(module), rest)
    except ModuleNotFoundError:  # a method
        return getattr(find(module), rest)


def flat(value, name='out'):
    """Nested results by the names under which they were recorded."""
    if isinstance(value, dict):
        pairs = [(f'{name}.{key}', one) for key, one in value.items()]
    elif isinstance(value, tuple | list):
        pairs = [(f'{name}[{number}]', one) for number, one in enumerate(value)]
    else:
        return {name: value}
    return {key: leaf for path, one in pairs for key, leaf in flat(one, path).items()}


def built(case):
    """The layer of a case; an argument `{"$ref": NAME}` is an object of ours."""
    arguments = case.get('init_kwargs', {})
    refers = {key: find(value['$ref']) for key, value in arguments.items() if '$ref' in str(value)}
    return find(case['qualname'])(**{**arguments, **refers})


def function(case, inputs):
    return flat(find(case['qualname'])(**inputs, **case.get('kwargs', {})))


def method(case, inputs):
    return flat(getattr(built(case), case['method'])(*inputs.values()))


def layer(case, inputs):
    return flat(built(case)(*inputs.values(), **case.get('kwargs', {})))


def controls(case, inputs):
    return flat({'controls': built(case).get_controls(**inputs)})


def processor(case, inputs):
    made = built(case)
    found = made.get_controls(**inputs)
    signal = made.get_signal(**found)
    np.testing.assert_allclose(made(*inputs.values()), signal, rtol=1e-5, atol=1e-6)
    return flat({'controls': found, 'signal': signal})


def shape_only(case, inputs):
    """For signals that are random."""
    made = built(case)
    return {'out.signal_shape': list(made.get_signal(**made.get_controls(**inputs)).shape)}


def group(case, inputs):
    dag = [(find(node['$class'])(**node['kwargs']), keys) for node, keys in case['dag']]
    outputs = find(case['qualname'])(dag=dag)(inputs, return_outputs_dict=True)
    return flat({'signal': outputs['signal'], 'controls': outputs['controls']})


def gradient(case, inputs):
    """Of the mean square of what comes out."""
    call = find(case['qualname'])
    with tf.GradientTape() as tape:
        watched = {key: inputs[key] for key in case['wrt']}
        tape.watch(list(watched.values()))
        if isinstance(call, type):
            audio = built(case)(*inputs.values())
        else:
            audio = call(**inputs, **case.get('kwargs', {}))
        loss = tf.reduce_mean(tf.square(audio))
    return flat({'loss': loss, 'grad': tape.gradient(loss, watched)})


CALLS = {
    call.__name__: call
    for call in (function, method, layer, controls, processor, shape_only, group, gradient)
}
