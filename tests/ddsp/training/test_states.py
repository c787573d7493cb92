"""What a checkpoint holds: names that no backend changes, what does not fit, files of earlier versions."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from ddsp.errors import ConfigError
from ddsp.losses.base import Loss
from ddsp.training import checkpoints, optimizers, states


class Part(keras.layers.Layer):
    """Two layers, one of them in a list, and a weight of its own."""

    def __init__(self, ch=3):
        super().__init__()
        self.stack = [keras.layers.Dense(ch)]
        self.dense_out = keras.layers.Dense(2)
        self._own = self.add_weight(name='own', shape=[2])

    def call(self, x):
        return self.dense_out(self.stack[0](x)) + self._own


class Known(Loss):
    """A loss with a network that is not trained."""

    def __init__(self):
        super().__init__(name='known')
        self.network = keras.layers.Dense(4, trainable=False)

    def call(self, x):
        return self.network(x)


class Net(keras.Model):
    """An encoder, a decoder, and what else may hold weights."""

    def __init__(self, ch=3, encoded=5, loss=True):
        super().__init__()
        self.encoder = keras.Sequential([keras.layers.Dense(encoded)])
        self.decoder = Part(ch)
        self.loss_objs = [Known()] if loss else []
        self.others = {'norm': keras.layers.BatchNormalization(), 'more': ([keras.layers.Dense(1)],)}
        self._hidden = keras.layers.Dense(1)

    def call(self, x):
        y = self.decoder(self.encoder(x))
        for loss in self.loss_objs:
            loss(y)
        return self._hidden(self.others['more'][0][0](self.others['norm'](y)))


def _made(seed=0, **kwargs):
    """A model, an optimizer and averages, with values of their own in every variable."""
    model = Net(**kwargs)
    model(np.zeros([1, 5], np.float32))
    optimizer = optimizers.ScaledAdam(optimizers.make_schedule('constant', 0.1, 1, 1.0, 0))
    optimizer.build(model.trainable_variables)
    averages = [keras.Variable(np.zeros(v.shape, np.float32)) for v in model.trainable_variables]
    rng = np.random.default_rng(seed)
    for v in [*model.weights, *optimizer.variables[1:], *averages]:
        v.assign(rng.normal(size=v.shape).astype(np.float32))
    optimizer.iterations.assign(7 + seed)
    return model, optimizer, averages


def _save(path, *made):
    return checkpoints.save(states.State(*made).copy(), str(path), 7, 3)


def _assert_same(found, expected):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)


NAMES = [
    'decoder/dense_out/bias', 'decoder/dense_out/kernel', 'decoder/own', 'decoder/stack/0/bias',
    'decoder/stack/0/kernel', 'encoder/layers/0/bias', 'encoder/layers/0/kernel', 'hidden/bias',
    'hidden/kernel', 'others/more/0/0/bias', 'others/more/0/0/kernel', 'others/norm/beta',
    'others/norm/gamma', 'others/norm/moving_mean', 'others/norm/moving_variance',
]  # fmt: skip


@pytest.mark.portable
def test_names_are_the_same_on_all_backends_and_in_all_processes():
    for _ in range(2):  # Keras counts layers: the second model's have other paths
        model, optimizer, averages = _made()
        names = list(states.State(model, optimizer, averages).variables)
    assert sorted(name for name in names if name.startswith('model/')) == [f'model/{n}' for n in NAMES]
    trained = [name for name in NAMES if 'moving' not in name]
    expected = {
        f'{kind}/{n}' for n in trained for kind in ('averages', 'optimizer/momentum', 'optimizer/velocity')
    }
    assert {name for name in names if not name.startswith('model/')} == expected | {'optimizer/iteration'}


def test_a_weight_that_no_attribute_leads_to_is_saved_too():
    class Sets(keras.Model):
        def __init__(self):
            super().__init__()
            self.parts = {keras.layers.Dense(1)}

        def call(self, x):
            return next(iter(self.parts))(x)

    model = Sets()
    model(np.zeros([1, 2], np.float32))
    assert len(states.State(model).variables) == len(model.weights) == 2


def test_all_comes_back(tmp_path):
    saved, other = _made(0), _made(1)
    prefix = _save(tmp_path, *saved)
    target = states.State(*other)
    constant = [w.numpy() for w in other[0].loss_objs[0].weights]
    target.read(prefix)
    _assert_same(target.copy(), states.State(*saved).copy())
    assert int(other[1].iterations) == 7
    for weight, value in zip(other[0].loss_objs[0].weights, constant, strict=True):
        np.testing.assert_array_equal(weight.numpy(), value)


def test_a_part_comes_back_whatever_the_rest_is(tmp_path):
    saved, (other, *_) = _made(0, encoded=4), _made(1, encoded=6)
    other_decoder = states.State(other, keys=['decoder'])
    prefix = _save(tmp_path, *saved)
    with pytest.raises(
        states.CheckpointError, match=r'model/decoder/stack/0/kernel is \[4, 3\] in it and \[6, 3\]'
    ):
        other_decoder.read(prefix)
    other, *_ = _made(1, encoded=4, loss=False)
    before = states.State(other).copy()
    states.State(other, keys=['decoder']).read(prefix)
    expected = states.State(*saved).copy()
    for name, value in states.State(other).copy().items():
        source = expected if name.startswith('model/decoder/') else before
        np.testing.assert_array_equal(value, source[name], err_msg=name)
    with pytest.raises(ConfigError, match=r"restore_keys names 'decodr', which is no part.*decoder, encoder"):
        states.State(other, keys=['decodr'])


def _altered(values, change):
    if change == 'missing':
        del values['model/decoder/own']
    elif change == 'renamed':
        values['model/decoder/mine'] = values.pop('model/decoder/own')
    elif change == 'moment':
        del values['optimizer/momentum/decoder/own']
    elif change == 'averages':
        values = {name: value for name, value in values.items() if not name.startswith('averages/')}
    else:
        values = {name: np.zeros([9], np.float32) for name in values}
    return values


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ('missing', r'^it lacks model/decoder/own \[2\]$'),
        (
            'renamed',
            r'^it lacks model/decoder/own \[2\]; it has model/decoder/mine \[2\], which is not here$',
        ),
        ('moment', r'^it lacks optimizer/momentum/decoder/own \[2\]$'),
        ('averages', r'^it lacks averages/.*; and 10 more$'),
        ('all', r'^model/\S+ is \[9\] in it and \[\d.*; and 12 more$'),
    ],
)
def test_what_does_not_fit_is_named_and_nothing_changes(tmp_path, change, message):
    made = _made(0)
    prefix = checkpoints.save(_altered(states.State(*made).copy(), change), str(tmp_path), 7, 3)
    other = states.State(*_made(1))
    before = other.copy()
    with pytest.raises(states.CheckpointError, match=message):
        other.read(prefix)
    _assert_same(other.copy(), before)


def test_a_model_is_refused_with_a_reason(tmp_path):
    prefix = _save(tmp_path, *_made(0))
    with pytest.raises(
        states.CheckpointError, match=r'ckpt-7 cannot be restored into this model: model/decoder/'
    ):
        checkpoints.restore_model(_made(1, ch=8)[0], tmp_path)
    with pytest.raises(states.CheckpointError, match=r'it has model/.* another configuration'):
        checkpoints.restore_model(keras.Model(), prefix)  # not built: it has no weights yet
    with pytest.raises(states.CheckpointError, match=r'no checkpoint can be read: .*ckpt-7: model/decoder/'):
        checkpoints.restore_newest(states.State(*_made(1, ch=8)).read, tmp_path, lambda _: None)


def _of_tensorflow(model, optimizer, averages):
    """As versions before this one wrote it on TensorFlow."""
    return tf.train.Checkpoint(
        model=model, optimizer=optimizer, averages=[tf.Variable(v.value) for v in averages]
    )


def _of_jax(model, optimizer, averages):
    """As versions before this one wrote it on JAX, where there were no averages."""
    return tf.train.Checkpoint(
        weights=[tf.Variable(np.asarray(v.value)) for v in model.weights],
        optimizer=[tf.Variable(np.asarray(v.value)) for v in optimizer.variables],
    )


@pytest.mark.parametrize('write', [_of_tensorflow, _of_jax])
def test_checkpoints_of_earlier_versions(tmp_path, write):
    saved = _made(0)
    prefix = write(*saved).write(str(tmp_path / 'ckpt-7'))
    model, optimizer, averages = _made(1)
    before = states.State(model).copy()
    states.State(model, keys=['decoder']).read(prefix)
    found, expected = states.State(model).copy(), states.State(*saved).copy()
    for name, value in found.items():
        source = expected if name.startswith('model/decoder/') else before
        np.testing.assert_array_equal(value, source[name], err_msg=name)
    with_averages = states.State(model, optimizer, averages)
    if write is _of_jax:
        with pytest.raises(states.CheckpointError, match='it lacks averages/'):
            with_averages.read(prefix)
        averages = []
    target = states.State(model, optimizer, averages)
    target.read(prefix)
    found = target.copy()
    if write is _of_tensorflow:  # these were not seen, as they lie in a dictionary
        for name in ('moving_mean', 'moving_variance'):
            del found[f'model/others/norm/{name}']
    for name, value in found.items():
        np.testing.assert_array_equal(value, expected[name], err_msg=name)


@pytest.mark.parametrize('write', [_of_tensorflow, _of_jax])
def test_an_earlier_checkpoint_of_another_model(tmp_path, write):
    prefix = write(*_made(0)).write(str(tmp_path / 'ckpt-7'))
    with pytest.raises(states.CheckpointError, match=r'kernel is \[5, 3\] in it and \[5, 4\] here'):
        states.State(_made(1, ch=4)[0]).read(prefix)
    small = keras.Sequential([keras.layers.Dense(1)])
    small.build([1, 2])
    with pytest.raises(
        states.CheckpointError, match=r'it has \d+ weights, known by their order.*model has 2'
    ):
        states.State(small).read(prefix)
    foreign = tf.train.Checkpoint(x=tf.Variable(1.0)).write(str(tmp_path / 'other'))
    with pytest.raises(states.CheckpointError, match='it holds no weights that this program knows'):
        states.State(_made(1)[0]).read(foreign)
