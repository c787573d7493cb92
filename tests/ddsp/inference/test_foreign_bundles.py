"""Bundles from somebody else: every way to make one run code, or read or write elsewhere, is refused.

Each configuration below would leave a trace (a file made, or a file read) if any part of it were carried out.
"""

import json
import shutil
import sys

import gin
import h5py
import numpy as np
import pytest

from ddsp import inference
from ddsp.errors import ConfigError, DDSPError
from ddsp.io.bundle_files import BundleError
from ddsp.training import config, safe_config


class Traces:
    """What an attack could leave: a file made, a module imported, a file opened."""

    def __init__(self, folder):
        self.made = folder / 'canary'
        self.secret = folder / 'secret.gin'
        self.secret.write_text('Harmonic.n_samples = 1\nsecret_password_line\n')
        (folder / 'evil_module.py').write_text(
            f'open({str(self.made)!r}, "w").close()\n'
            f'def call(*args, **kwargs): open({str(self.made)!r}, "w")\n'
        )
        self.opened = []


@pytest.fixture
def traces(tmp_path, monkeypatch):
    """A folder that Python imports from, and the files of it that are opened."""
    found = Traces(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))

    _told[:] = [found.opened.append]
    yield found
    del _told[:]
    sys.modules.pop('evil_module', None)


_WATCHED = ('secret.gin', 'canary', 'evil_module.py', 'solo_instrument.gin', 'passwd', 'stdin')
_told = []  # who wants to know which of these files are opened


@sys.addaudithook
def _audit(event, arguments):
    """Sees every file that Python opens, by whatever function."""
    if event == 'open' and _told and str(arguments[0]).endswith(_WATCHED):
        _told[0](str(arguments[0]))


@pytest.fixture(scope='session')
def session_name():
    """A callable that the user's own session has registered, and a constant."""
    calls = []

    @gin.configurable(module='session')
    def SessionHook(path=None):
        calls.append(path)
        return path

    gin.constant('session.SECRET', lambda: calls.append('constant'))
    return calls


@pytest.fixture
def copy(tiny_bundle, tmp_path):
    """A bundle that a test may change, as bundles were before they had digests."""
    folder = shutil.copytree(tiny_bundle.path, tmp_path / 'bundle')
    metadata = json.loads((folder / 'metadata.json').read_text())
    old = {key: value for key, value in metadata.items() if key not in ('sha256', 'digest')}
    (folder / 'metadata.json').write_text(json.dumps(old))
    return folder


IMPORTS = [
    'import evil_module',
    'import  evil_module',
    'import\tevil_module',
    'import evil_module  # harmless',
    'import evil_module as ddsp',
    'from evil_module import call',
    'from evil_module import call as exp_sigmoid',
    'import os.path',
    '# a comment\n\n\nimport evil_module',
    '\n\f\nimport evil_module',
    'import evil_module\r\n',
    "x = 1\nimport evil_module\ny = 2",
    'import \\\n    evil_module',
    'from evil_module \\\n    import call',
    'Harmonic:\n    n_samples = 16000\nimport evil_module',
    'Harmonic:\n    n_samples = 16000\n    import evil_module',
    '  import evil_module',
    "x = '''\nimport evil_module\n'''\nimport evil_module",
    'from __gin__ import dynamic_registration',
    'from __gin__ import dynamic_registration\nimport evil_module\nHarmonic.scale_fn = @evil_module.call()',
    'from __gin__ import dynamic_registration\nimport subprocess\nHarmonic.scale_fn = @subprocess.call()',
    'from __gin__ import dynamic_registration as plain',
]  # fmt: skip
INCLUDES = [
    "include '{secret}'",
    "include 'secret.gin'",
    "include '../secret.gin'",
    "include 'models/solo_instrument.gin'",
    "include 'models/' 'solo_instrument.gin'",
    "include 'gs://bucket/secret.gin'",
    "include 'https://example.com/secret.gin'",
    "include 'file://{secret}'",
    "include r'{secret}'",
    "include '''{secret}'''",
    "include '/dev/stdin'",
    "path = '{secret}'\ninclude %path",
    "include @session.SessionHook()",
    "include '\\x2fetc\\x2fpasswd'",
    "Harmonic.n_samples = 16000\ninclude \\\n    '{secret}'",
]  # fmt: skip
REFERENCES = [
    'Harmonic.scale_fn = @session.SessionHook',
    'Harmonic.scale_fn = @session.SessionHook()',
    'Harmonic.scale_fn = @SessionHook()',
    'Harmonic.scale_fn = @a/b/SessionHook()',
    "SessionHook.path = '{canary}'",
    "a/session.SessionHook.path = '{canary}'",
    "SessionHook:\n    path = '{canary}'",
    'hook = @SessionHook()\nHarmonic.scale_fn = %hook',
    'hook = @SessionHook()\ntwice = %hook\nHarmonic.scale_fn = %twice',
    'hook = [(({{"a": @SessionHook()}},),)]\nHarmonic.scale_fn = %hook',
    'Harmonic.scale_fn = {{@SessionHook(): 1}}',
    'ProcessorGroup.dag = [(@SessionHook(), [])]',
    'train.callbacks = [@SessionHook()]',
    'unused_macro = @SessionHook()',
    'Harmonic.scale_fn = %session.SECRET',
    'Harmonic.scale_fn = %SECRET',
    'Harmonic.scale_fn = @SECRET/gin.constant()',
    'gin.macro.value = @SessionHook()',
    'hook/gin.macro.value = @SessionHook()\nHarmonic.scale_fn = %hook',
    'Harmonic.scale_fn = @hook/gin.singleton()\nhook/gin.singleton.constructor = @SessionHook',
    'hook/singleton.constructor = @SessionHook',
    'Harmonic.scale_fn = @hook/singleton()',
    'Harmonic.scale_fn = @gin.macro()',
    'get_model.model = @SessionHook()',
    'Autoencoder.encoder = @TFRecordProvider()',
    "Autoencoder.encoder = @TFRecordProvider()\nTFRecordProvider.file_pattern = '{secret}'",
    'Autoencoder.encoder = @data.LegacyTFRecordProvider()',
    'Autoencoder.encoder = @TfdsProvider()',
    'Autoencoder.encoder = @DatasetProvider()',
    'Autoencoder.encoder = @train()',
    "Autoencoder.encoder = @train_util.train()\ntrain.save_dir = '{canary}'",
    'Autoencoder.encoder = @evaluate()',
    'Autoencoder.encoder = @eval_util.sample()',
    'Autoencoder.encoder = @BasicEvaluator()',
    'Autoencoder.encoder = @Trainer()',
    "Autoencoder.encoder = @tf.keras.layers.TFSMLayer()\nTFSMLayer.filepath = '{canary}'",
    "Autoencoder.encoder = @StringLookup()\nStringLookup.vocabulary = '{secret}'",
    "IntegerLookup.vocabulary = '{secret}'",
    "TextVectorization.vocabulary = '{secret}'",
    'Autoencoder.encoder = @keras.layers.Lambda()\nLambda.function = @SessionHook',
    'Lambda.function = @exp_sigmoid',
    'JaxLayer.call_fn = @exp_sigmoid',
    'TorchModuleWrapper.module = 1',
]  # fmt: skip
VALUES = [
    "RnnFcDecoder.dtype = {{'module': 'evil_module', 'class_name': 'call', 'config': {{}}}}",
    "Autoencoder.dtype = {{'class_name': 'DTypePolicy', 'module': 'keras'}}",
    "Dense.kernel_initializer = {{'module': 'evil_module', 'class_name': 'call', 'registered_name': 'call'}}",
    "init = {{'module': 'evil_module', 'class_name': 'call'}}\nDense.kernel_initializer = %init",
    "Dense.activation = [({{'class_name': '__lambda__', 'config': {{'value': 'x'}}}})]",
    "Harmonic.n_samples = {{1: 2}}",
    'Harmonic.n_samples = {{[1]: 2}}',
    'ProcessorGroup.__class__ = @Harmonic()',
    'ProcessorGroup._tracker = 1',
    "Harmonic.n_samples = __import__('evil_module')",
    "Harmonic.n_samples = open('{canary}', 'w')",
    "Harmonic.n_samples = f'{{__import__(\"evil_module\")}}'",
    "Harmonic.n_samples = eval('import evil_module')",
    'Harmonic.n_samples = lambda: 1',
    'Harmonic.n_samples = (1).__class__',
    'Harmonic.n_samples = [x for x in (1,)]',
    'Harmonic.n_samples = `ls`',
    'Sinusoidal.n_samples = %undefined',
    'Sinusoidal.n_samples = %Harmonic.n_samples',
    'exec.x = 1',
    'os.system.command = "touch {canary}"',
    'ddsp.os.system.command = 1',
    'Harmonic.nowhere = 1',
    'Harmonic = @SessionHook()',
    'Harmonic()',
    "!Harmonic.n_samples = 1",
    "__builtins__.open.file = '{canary}'",
]  # fmt: skip
ENCODED = [
    '\ufeffimport evil_module',
    '\ufeffx = 1',
    '\uff49mport evil_module',
    'imp\u200bort evil_module',
    'import\u00a0evil_module',
    'import evil\u005fmodule',
    'x = 1\u2028import evil_module',
    'x = 1\x0bimport evil_module',
    'x = 1\rimport evil_module',
    'x = 1; import evil_module',
    'x = 1\x00\nimport evil_module',
    '# -*- coding: utf-7 -*-\n+AGkAbQBwAG8AcgB0 evil_module',
    '# coding: rot13\nimport evil_module',
    '\u202eimport evil_module',
    'x = "\nimport evil_module',
    "x = '''\nimport evil_module",
    'x = (1,\nimport evil_module\n)',
]  # fmt: skip
BOMBS = [
    'x = ' + '[' * 5000 + ']' * 5000,
    'x = ' + '[' * 120 + ']' * 120 + '\nx.y = ' + '(' * 800,
    'x = ' + '{"a": ' * 3000 + '1' + '}' * 3000,
    'x = ' + '9' * 5000,
    'x = "' + 'a' * 300_000 + '"',
    'a = %b\nb = %a\nHarmonic.n_samples = %a',
    'a = [%a]\nHarmonic.n_samples = %a',
    'm0 = 1\n' + '\n'.join(f'm{i + 1} = [%m{i}, %m{i}]' for i in range(60)) + '\nHarmonic.n_samples = %m60',
    '\n'.join(f'm{i} = %m{i + 1}' for i in range(4000)) + '\nm4000 = 1\nHarmonic.n_samples = %m0',
    'Harmonic.scale_fn = @Harmonic()',
    'Harmonic.n_samples = ' + '9' * 400,
    'Harmonic.n_samples = -1e999',
]  # fmt: skip

ATTACKS = [*IMPORTS, *INCLUDES, *REFERENCES, *VALUES, *ENCODED]


@pytest.mark.parametrize('text', ATTACKS, ids=[ascii(text)[:60] for text in ATTACKS])
def test_a_configuration_that_is_more_than_data_is_refused(copy, traces, session_name, text):
    plain = text not in ENCODED and '{' in text
    text = text.format(canary=traces.made, secret=traces.secret) if plain else text
    genuine = (copy / 'config.gin').read_text()
    for content in (f'{genuine}\n{text}\n', f'{text}\n{genuine}', text):
        (copy / 'config.gin').write_bytes(content.encode())
        del session_name[:]
        with pytest.raises(BundleError, match=r'bundle/config\.gin') as refused:
            inference.load_bundle(copy)
        message = str(refused.value)
        assert message.count('\n') == 0
        assert (
            'line ' in message
            or 'cannot be read' in message
            or 'has no parameter' in message
            or 'uses %' in message
        )
        assert 'secret_password_line' not in message
        assert not traces.made.exists()
        assert traces.opened == []
        assert session_name == []
        assert 'evil_module' not in sys.modules


@pytest.mark.parametrize('text', BOMBS, ids=range(len(BOMBS)))
def test_a_bomb_is_refused(copy, text):
    genuine = (copy / 'config.gin').read_text()
    (copy / 'config.gin').write_text(f'{genuine}\n{text}\n')
    with pytest.raises(BundleError, match=r'bundle/config\.gin'):
        inference.load_bundle(copy)


def test_every_name_of_the_library_is_either_a_part_of_a_model_or_of_training():
    """A new one has to be put on one side."""
    import gin.config

    config.register_all()
    ours = {name for name in gin.config._REGISTRY._selector_map if name.startswith('ddsp.')}
    training = {name for name in ours if name.startswith(safe_config.TRAINING)}
    parts = {name for name in safe_config.MODEL if name.startswith('ddsp.')}
    assert ours - training == parts
    keras = safe_config.MODEL - parts
    assert all(name.startswith('tf.keras.layers.') for name in keras)
    assert keras <= set(gin.config._REGISTRY._selector_map)


def test_what_training_was_set_to_is_passed_over(copy):
    """As bundles of earlier versions have it."""
    genuine = (copy / 'config.gin').read_text()
    (copy / 'config.gin').write_text(
        genuine + '\nlearning_rate = 1e-3\nTrainer.learning_rate = %learning_rate\ntrain.callbacks = ()\n'
        "DatasetProvider.seed = 0\nTrainer.learning_rate_scales = {'reverb': 0.02}\n"
    )
    assert inference.load_bundle(copy).model.count_params()


def test_a_part_of_another_package_is_admitted_by_its_own_code_alone(tiny_bundle, tone_dataset, copy):
    import gin

    from ddsp import core

    @gin.configurable(module='mine')
    def louder(x):
        return core.exp_sigmoid(x)

    text = (
        (copy / 'config.gin').read_text().replace('scale_fn = @core.exp_sigmoid', 'scale_fn = @mine.louder')
    )
    (copy / 'config.gin').write_text(text)
    with pytest.raises(BundleError, match=r'line \d+: mine\.louder is not a part of a model'):
        inference.load_bundle(copy)
    with config.isolated():
        config.parse_config(bindings='Harmonic.scale_fn = @mine.louder')
        with pytest.raises(ConfigError, match=r'uses mine\.louder.*its bundle could not be opened.*admit'):
            safe_config.check_parts()
    safe_config.admit('mine.louder')
    try:
        bundle = inference.load_bundle(copy)
        inference.save_bundle(copy / 'again', bundle.model, tone_dataset, gin_config=bundle.config)
    finally:
        safe_config.MODEL.remove('mine.louder')


def _digested(folder):
    """What a careful attacker does: the digests fit."""
    from ddsp.io import bundle_files
    from ddsp.io.files import file_sha256

    metadata = json.loads((folder / 'metadata.json').read_text())
    names = ('config.gin', 'weights.weights.h5', 'statistics.json')
    metadata['sha256'] = {name: file_sha256(folder / name) for name in names}
    bundle_files.write_metadata(folder, metadata)


@pytest.mark.parametrize('name', ['config.gin', 'weights.weights.h5', 'statistics.json', 'metadata.json'])
def test_a_file_of_a_bundle_lies_in_it(copy, tmp_path, name):
    outside = tmp_path / 'outside'
    shutil.move(copy / name, outside)
    (copy / name).symlink_to(outside)
    with pytest.raises(DDSPError, match=f'the bundle .* names .{name}., which is a link that leaves'):
        inference.load_bundle(copy)


@pytest.mark.parametrize('kind', ['external link', 'soft link', 'external storage', 'virtual'])
@pytest.mark.parametrize('digests', [False, True])
def test_weights_lie_in_their_file(copy, tmp_path, kind, digests):
    secret = np.arange(16, dtype=np.float32)
    with h5py.File(tmp_path / 'secret.h5', 'w') as file:
        file['x'] = secret
    secret.tofile(tmp_path / 'secret.raw')
    with h5py.File(copy / 'weights.weights.h5', 'r+') as file:
        names = []
        file.visit(lambda name: names.append(name) if isinstance(file[name], h5py.Dataset) else None)
        name = names[0]
        shape = file[name].shape
        del file[name]
        if kind == 'external link':
            file[name] = h5py.ExternalLink(str(tmp_path / 'secret.h5'), '/x')
        elif kind == 'soft link':
            file[name] = h5py.SoftLink(f'/{names[1]}')
        elif kind == 'external storage':
            size = int(np.prod(shape)) * 4
            place = [(str(tmp_path / 'secret.raw'), 0, size)]
            file.create_dataset(name, shape, np.float32, external=place)
        else:
            layout = h5py.VirtualLayout((16,), np.float32)
            layout[:] = h5py.VirtualSource(str(tmp_path / 'secret.h5'), 'x', (16,))
            file.create_virtual_dataset(name, layout)
    if digests:
        _digested(copy)
    with pytest.raises(
        BundleError, match=r'is not a file of weights: .* (link to another place|another file)'
    ):
        inference.load_bundle(copy)
