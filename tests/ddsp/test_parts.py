"""Graphs of modules, models around them, and what gin, flags and absent packages do to them."""

import argparse
import logging

import gin
import keras
import numpy as np
import pytest
from keras import ops

import ddsp
from ddsp import configurable, dags, losses, processors
from ddsp.errors import ConfigError, DDSPError, MissingDependencyError, require
from ddsp.flags import FlagParser, boolean
from ddsp.training import models

X = np.arange(8.0, dtype=np.float32).reshape(2, 4)


class Halves(keras.layers.Layer):
    """Gives two tensors."""

    def call(self, x):
        return x[:, :2], x[:, 2:]


class Total(keras.layers.Layer):
    """Gives one tensor."""

    def call(self, x):
        return ops.sum(x, axis=1)


def test_modules_that_give_tensors_get_keys():
    dag = [(Halves(name='cut'), ['x'], ['low', 'high']), (Total(name='sum'), ['cut/high'])]
    outputs = dags.DAGLayer(dag)({'x': X})
    np.testing.assert_array_equal(outputs['cut']['low'], X[:, :2])
    np.testing.assert_array_equal(outputs['sum']['sum'], X[:, 2:].sum(1))  # under its own name
    assert outputs['out'] is outputs['sum'] or set(outputs['out']) == {'sum'}
    np.testing.assert_array_equal(outputs['inputs']['x'], outputs['x'])


def test_losses_in_a_graph_give_their_names(caplog):
    dag = [(processors.Add(), ['a', 'b']), (losses.SpectralLoss(fft_sizes=(64,)), ['a', 'add/signal'])]
    audio = {'a': np.ones([1, 640], np.float32), 'b': np.zeros([1, 640], np.float32)}
    layer = dags.DAGLayer(dag)
    with caplog.at_level(logging.INFO):
        outputs = layer.run_dag(audio, verbose=True)
    assert set(outputs['spectral_loss']) == {'spectral_loss'}
    assert float(outputs['out']['spectral_loss']) == pytest.approx(0.0, abs=1e-5)
    assert 'add: [' in caplog.text
    assert '[1, 640]' in caplog.text


def test_a_module_is_used_as_often_as_it_is_named():
    add = processors.Add()
    layer = dags.DAGLayer([(add, ['x', 'x']), ('again', ['add/signal', 'x'])], again=processors.Add(name='n'))
    assert layer.module_names == ['again', 'add']
    np.testing.assert_array_equal(layer({'x': X})['out']['signal'], 3 * X)
    twice = dags.DAGLayer([(add, ['x', 'x']), (add, ['add/signal', 'add/signal'])])
    assert twice.modules == [add]
    np.testing.assert_array_equal(twice({'x': X})['out']['signal'], 4 * X)
    with pytest.raises(ConfigError, match="two modules of the DAG have the name 'add'"):
        dags.DAGLayer([(add, ['x', 'x'])], add=processors.Add(name='other'))


def test_what_a_graph_can_hold_is_told_by_its_methods():
    spectral, add, plain = losses.SpectralLoss(), processors.Add(), keras.layers.Dense(1)
    assert [dags.is_loss(m) for m in (spectral, add, plain)] == [True, False, False]
    assert [dags.is_processor(m) for m in (spectral, add, plain)] == [False, True, False]
    assert [dags.is_module(m) for m in (add, plain, 'add', None)] == [True, True, False, False]
    for_keras, others = dags.split_keras_kwargs({'training': True, 'mask': None, 'gain': 2})
    assert (for_keras, others) == ({'training': True}, {'gain': 2})


class Doubler(models.Model):
    """The audio at twice its level."""

    def __init__(self, loss_objs):
        super().__init__()
        self.loss_objs = loss_objs

    def call(self, features, training=False):
        audio = 2.0 * ops.convert_to_tensor(features['audio'])
        if training:
            self._update_losses_dict(self.loss_objs, features['audio'], audio)
        return {'audio_synth': audio}


class Named:
    """A loss that is a constant under two names."""

    def get_losses_dict(self, *signals):
        return {'one': ops.convert_to_tensor(1.0), 'two': ops.convert_to_tensor(2.0)}


def test_a_model_adds_its_losses_and_watches_their_parts():
    spectral = losses.SpectralLoss(fft_sizes=(64, 32))
    model = Doubler([Named(), spectral])
    audio = np.random.default_rng(0).normal(size=[2, 640]).astype(np.float32)
    outputs, found = model({'audio': audio}, return_losses=True, training=True)
    expected = float(spectral(audio, 2 * audio))
    assert {key: float(value) for key, value in found.items()} == pytest.approx(
        {'one': 1.0, 'two': 2.0, 'spectral_loss': expected, 'total_loss': 3.0 + expected}, rel=1e-5
    )
    assert sum(map(float, model.loss_metrics.values())) == pytest.approx(expected, rel=1e-5)
    np.testing.assert_array_equal(outputs['audio_synth'], 2 * audio)
    assert set(model({'audio': audio})) == {'audio_synth'}
    assert model.loss_metrics == {}  # those of the last call, which computed none


def test_a_model_says_what_it_lacks():
    with pytest.raises(ConfigError, match=r'Doubler\.losses is empty: nothing would be learned'):
        Doubler([])({'audio': X}, return_losses=True, training=True)
    with pytest.raises(NotImplementedError, match='Doubler must implement get_audio_from_outputs'):
        Doubler([]).get_audio_from_outputs({})
    with pytest.raises(NotImplementedError, match=r'Model must implement call'):
        models.Model()({'audio': X})
    assert float(models.Model().sum_losses({})) == 0.0


def test_an_autoencoder_decodes_what_it_encodes():
    class Plus(keras.layers.Layer):
        def __init__(self, key, amount):
            super().__init__()
            self.key, self.amount = key, amount

        def __call__(self, features, training=False):
            return {self.key: features['audio'] + self.amount}

    group = processors.ProcessorGroup([(processors.Add(), ['z', 'y'])])
    model = models.Autoencoder(Plus('p', 1.0), Plus('z', 2.0), Plus('y', 3.0), group)
    encoded = model.encode({'audio': X})
    assert set(encoded) == {'audio', 'p', 'z'}
    np.testing.assert_array_equal(model.decode(encoded), 2 * X + 5)
    outputs = model({'audio': X}, training=False)
    np.testing.assert_array_equal(model.get_audio_from_outputs(outputs), 2 * X + 5)
    np.testing.assert_array_equal(outputs['add']['signal'], outputs['audio_synth'])


def test_gin_sets_arguments_that_keras_still_sees():
    @configurable.configurable_layer('tests_of_parts')
    class Gain(keras.layers.Layer):
        def __init__(self, gain=2.0, name='gain'):
            super().__init__(name=name)
            self.gain = gain

        def call(self, x):
            return self.gain * x

    with gin.unlock_config():
        try:
            gin.bind_parameter('tests_of_parts.Gain.gain', 5.0)
            np.testing.assert_array_equal(Gain()(X), 5 * X)
            np.testing.assert_array_equal(Gain(3.0)(X), 3 * X)
            assert Gain(gain=7.0).get_config()['gain'] == 7.0  # Keras reads the constructor's signature
        finally:
            gin.clear_config()


@pytest.mark.parametrize(
    ('text', 'value'), [('True', True), ('t', True), ('1', True), ('F', False), ('0', False)]
)
def test_switches_are_words_of_absl(text, value):
    assert boolean(text) is value
    with pytest.raises(argparse.ArgumentTypeError, match="'yes' is neither true nor false"):
        boolean('yes')


@pytest.mark.parametrize(
    ('given', 'on'),
    [([], False), (['--fast'], True), (['--nofast'], False), (['--fast=false'], False),
     (['--fast', 't'], True), (['--fast', '--nofast'], False), (['--alsologtostderr', '--fast'], True)],
)  # fmt: skip
def test_flags_are_read_as_absl_does(given, on):
    parser = FlagParser(prog='tool')
    parser.switch('fast', 'Skip what is slow.')
    assert parser.parse_args(given).fast is on
    with pytest.raises(SystemExit):
        parser.parse_args(['--fas'])  # nothing is abbreviated
    assert 'logtostderr' not in parser.format_help()


def test_an_absent_package_is_named_with_the_command_that_brings_it(tmp_path, monkeypatch):
    assert require('json', 'to read').loads('1') == 1
    (tmp_path / 'needs_another.py').write_text('import not_there_at_all')
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(__import__('sys').modules, 'mlflow', None)
    for module, package in (('not_there', 'not_there'), ('not_there.inside', 'not_there.inside')):
        with pytest.raises(
            MissingDependencyError, match=f"{module} is needed to play .* install '{package}'"
        ):
            require(module, 'to play')
    with pytest.raises(MissingDependencyError, match="install 'mlflow>=3"):
        require('mlflow', 'to track')
    with pytest.raises(ModuleNotFoundError, match='not_there_at_all') as error:
        require('needs_another', 'to play')  # it is installed, and what it imports is not
    assert not isinstance(error.value, DDSPError)
    (tmp_path / 'nameless.py').write_text("raise ModuleNotFoundError('something is not there')")
    with pytest.raises(ModuleNotFoundError, match='something is not there'):
        require('nameless', 'to play')


def test_submodules_load_when_they_are_named():
    assert ddsp.synths.__name__ == 'ddsp.synths'
    assert {'synths', 'training', '__version__'} <= set(dir(ddsp))
    with pytest.raises(AttributeError, match="module 'ddsp' has no attribute 'synth'"):
        ddsp.synth  # noqa: B018
