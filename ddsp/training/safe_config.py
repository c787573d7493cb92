"""Configurations that come with somebody's data are read as data.

In gin's language a file can import modules, include other files and call whatever is registered. That is fine
for files that a user chooses; a bundle, or the folder of a training, may come from anybody. Here gin's own
parser reads the text, and only plain values and parts of a model are handed on: there is no second reading
that could see something else.
"""

from __future__ import annotations

import contextlib
import tokenize
from collections.abc import Iterator
from typing import Any, NamedTuple

import gin
import gin.config as gin_config
from gin import config_parser

from ddsp.errors import ConfigError
from ddsp.training import config

_MAX_CHARS = 200_000  # a model's configuration has about 4,000
_MAX_MACROS = 1000  # in one value, when those within macros are filled in
_MACRO = 'gin.macro'

# Parts of a model: they compute, and touch no file, network or process.
MODEL = {
    f'{module}.{name}'
    for module, names in {
        'ddsp.core': 'angular_cumsum exp_sigmoid frequencies_critical_bands frequencies_sigmoid '
        'frequencies_softmax harmonic_oscillator_bank oscillator_bank sym_exp_sigmoid',
        'ddsp.dags': 'DAGLayer DAGLayer.run_dag',
        'ddsp.effects': 'ExpDecayReverb FIRFilter FilteredNoiseReverb ModDelay Reverb',
        'ddsp.losses': 'EmbeddingLoss FilteredNoiseConsistencyLoss HarmonicConsistencyLoss HmmTranscriber '
        'KDEConsistencyLoss LossGroup ParamLoss PretrainedCREPE PretrainedCREPEEmbeddingLoss SpectralLoss '
        'TWMLoss WassersteinConsistencyLoss',
        'ddsp.processors': 'Add Crop Mix ProcessorGroup',
        'ddsp.spectral_ops': 'compute_f0 compute_logmag compute_logmel compute_loudness compute_mag '
        'compute_mel compute_mfcc',
        'ddsp.synths': 'FilteredNoise Harmonic Sinusoidal TensorToAudio Wavetable',
        'ddsp.training.decoders': 'DilatedConvDecoder RnnFcDecoder',
        'ddsp.training.encoders': 'AggregateFeaturesEncoder MfccRnnEncoder MfccTimeDistributedRnnEncoder '
        'OneHotEncoder',
        'ddsp.training.models': 'Autoencoder get_model',
        'ddsp.training.nn': 'ConditionalNorm ConditionalScaleAndShift DilatedConvStack Fc FcStack FcStackOut '
        'Identity Normalize PolyphaseResample Rnn RnnFc RnnSandwich SingleGru StatelessRnn split_to_dict',
        'ddsp.training.preprocessing': 'F0LoudnessPreprocessor F0PowerPreprocessor OnlineF0PowerPreprocessor',
        # Keras also registers layers that read files, load models or call any function.
        'tf.keras.layers': 'Activation Add Average AveragePooling1D BatchNormalization Concatenate Conv1D '
        'Conv1DTranspose Conv2D Cropping1D Dense DepthwiseConv1D Dropout ELU Embedding Flatten GRU '
        'GaussianNoise GlobalAveragePooling1D GlobalMaxPooling1D GroupNormalization Identity LSTM '
        'LayerNormalization LeakyReLU MaxPooling1D Maximum Minimum Multiply PReLU Permute RMSNormalization '
        'ReLU RepeatVector Reshape SeparableConv1D SimpleRNN Softmax SpatialDropout1D Subtract '
        'UnitNormalization UpSampling1D ZeroPadding1D',
    }.items()
    for name in names.split()
}
# What training uses beside the model: plain values of them are read from a training folder, but for names of
# data.
_DATA = ('ddsp.training.data.', 'ddsp.training.evaluators.')
TRAINING = ('ddsp.training.train_util.', 'ddsp.training.trainers.', 'ddsp.training.eval_util.', *_DATA)


class _Statement(NamedTuple):
    """A statement: where it stands, what it sets (scope, selector, parameter), and why it is not plain."""

    line: int
    key: tuple[str, str, str]
    value: Any = None
    reason: str = ''


class _Foreign(NamedTuple):
    """Stands in a value for a reference to something that is not part of a model."""

    selector: str
    reason: str


def parse_model(text: str, source: object) -> None:
    """Sets the configuration to that of a bundle.

    Args:
      text: Content of the file.
      source: The file, for messages.

    Raises:
      ConfigError: The text cannot be read, or holds something else than plain parameters of a model; the
        message names file, line and reason.
    """
    statements = _read(text, source)
    for statement in statements:
        if statement.reason:
            raise ConfigError(
                f'{source}, line {statement.line}: {statement.reason}. A bundle is data: its configuration '
                'may hold plain values and parts of a model, nothing else'
            )
    gin.clear_config()
    # Bundles of earlier versions also say what the training was set to.
    _bind([statement for statement in statements if not statement.key[1].startswith(TRAINING)], source)
    with _place(str(source)):
        config.check()


def parse_settings(text: str, source: object) -> list[str]:
    """Adds the plain settings of a training folder to the configuration, which is checked with the rest.

    Names of data and evaluators are left out without a word: they are always the user's to give.

    Args:
      text: Content of the folder's operative configuration.
      source: The file, for messages.

    Returns:
      What else was left out: a phrase for each line.

    Raises:
      ConfigError: The text cannot be read.
    """
    statements = _read(text, source)
    _bind([s for s in statements if not s.reason and not _names_data(s)], source)
    return [
        f'line {s.line}: {s.reason}'
        for s in statements
        if s.reason and not any(f.selector.startswith(_DATA) for f in _leaves(s.value, _Foreign))
    ]


def _read(text: str, source: object) -> list[_Statement]:
    """The statements of a configuration; nothing is imported, included, called or set."""
    config.register_all()
    if len(text) > _MAX_CHARS:
        raise ConfigError(f'{source} has {len(text)} characters; a configuration may have {_MAX_CHARS}')
    try:
        with gin_config._parse_scope():  # a fresh one: dynamic registration is off
            statements = [_statement(found) for found in config_parser.ConfigParser(text, _Delegate())]
            _check_sizes(statements)
    except SyntaxError as error:
        reason = error.msg.splitlines()[-1].strip()
        raise ConfigError(f'{source}, line {error.lineno}: this cannot be read ({reason})') from None
    except tokenize.TokenError as error:
        message, (line, _) = error.args
        raise ConfigError(f'{source}, line {line}: this cannot be read ({message})') from None
    except (RecursionError, MemoryError):
        raise ConfigError(f'{source} cannot be read: a value is nested too deeply') from None
    except ConfigError as error:
        raise ConfigError(f'{source}, {error}') from None
    except (TypeError, ValueError) as error:  # such as a list as a key
        raise ConfigError(f'{source} cannot be read: {(str(error).splitlines() or [""])[0]}') from None
    return statements


class _Delegate(config_parser.ParserDelegate):
    """Makes references to parts of a model and to macros; others are replaced by the reason against them."""

    def configurable_reference(self, scoped_name: str, evaluate: bool) -> Any:
        """For `@scope/name` and `@scope/name()`."""
        scope, _, name = scoped_name.rpartition('/')
        selector, reason = _find(name)
        if selector not in MODEL:
            return _Foreign(selector, reason or f'@{name} is not a part of a model')
        return gin_config.ConfigurableReference(f'{scope}/{selector}' if scope else selector, evaluate)

    def macro(self, name: str) -> Any:
        """For `%name`."""
        if gin_config._CONSTANTS.matching_selectors(name):
            return _Foreign('', f'%{name} is a constant of the program')
        return gin_config.ConfigurableReference(f'{name}/{_MACRO}', True)


def _find(name: str) -> tuple[str, str]:
    """What of this package is meant by a name, and the reason when there is nothing."""
    found = gin_config._REGISTRY.matching_selectors(name)
    ours = [selector for selector in found if selector in MODEL or selector.startswith(TRAINING)]
    if len(ours) == 1:
        return ours[0], ''
    if ours:
        return '', f'{name} can be {" or ".join(sorted(ours))}'
    return '', f'{name} is not a part of a model' if found else f'there is no {config.did_you_mean(name)}'


def _statement(found: Any) -> _Statement:
    """One statement of gin's parser with what speaks against it."""
    line = found.location.line_num
    if isinstance(found, config_parser.ImportStatement):
        return _Statement(line, ('', '', ''), None, f'`{found.format()}` would run code')
    if isinstance(found, config_parser.IncludeStatement):
        return _Statement(line, ('', '', ''), None, '`include` would read another file')
    if isinstance(found, config_parser.BlockDeclaration):  # its bindings follow
        selector, reason = _find(found.selector)
        return _Statement(line, ('', selector, ''), None, reason)
    if not found.arg_name:
        name = f'{found.scope}/{found.selector}' if found.scope else found.selector
        return _Statement(line, (name, _MACRO, 'value'), found.value, _objection(found.value))
    selector, reason = _find(found.selector)
    if found.arg_name.startswith('_'):
        reason = f'{found.arg_name} is not a parameter'
    return _Statement(
        line, (found.scope, selector, found.arg_name), found.value, reason or _objection(found.value)
    )


def _objection(value: Any) -> str:
    """Why a value is not plain."""
    for foreign in _leaves(value, _Foreign):
        return foreign.reason
    for mapping in _leaves(value, dict):
        # Keras makes objects of dictionaries that name a class and its module.
        if not all(isinstance(key, str) for key in mapping) or not all(
            isinstance(part, (int, float, type(None))) for part in mapping.values()
        ):
            return 'a dictionary may only hold numbers, by name'
    return ''


def _leaves(value: Any, kind: type | tuple[type, ...]) -> Iterator[Any]:
    """All objects of a class in a value of lists, tuples and dictionaries."""
    if isinstance(value, kind):
        yield value
    elif isinstance(value, (list, tuple)):
        for part in value:
            yield from _leaves(part, kind)
    if isinstance(value, dict):
        yield from _leaves([*value, *value.values()], kind)


def _names_data(statement: _Statement) -> bool:
    """Whether data or evaluators are given a name, such as that of a file; a rate, for one, is not."""
    return statement.key[1].startswith(_DATA) and any(_leaves(statement.value, (str, bytes)))


def _check_sizes(statements: list[_Statement]) -> None:
    """Refuses macros that refer to themselves, or grow beyond measure when they are filled in."""
    macros = {s.key[0]: s for s in statements if s.key[1] == _MACRO}
    sizes: dict[str, int] = {}

    def size(value: Any, opened: tuple[str, ...]) -> int:
        total = 1
        for reference in _leaves(value, gin_config.ConfigurableReference):
            name = '/'.join(reference.scopes)
            if reference.selector != _MACRO or name not in macros:
                continue
            if name in opened:
                raise ConfigError(f'line {macros[name].line}: %{name} refers to itself')
            if name not in sizes:
                sizes[name] = size(macros[name].value, (*opened, name))
            total += sizes[name]
        if total > _MAX_MACROS:
            raise ConfigError(f'more than {_MAX_MACROS} macros are used in one value')
        return total

    for statement in statements:
        size(statement.value, ())


def _bind(statements: list[_Statement], source: object) -> None:
    with gin.unlock_config():
        for statement in statements:
            if statement.key[2]:  # not the head of a block
                with _place(f'{source}, line {statement.line}'):
                    config.guarded(gin.bind_parameter, statement.key, statement.value)


@contextlib.contextmanager
def _place(place: str) -> Iterator[None]:
    """Names the place in the message of an error."""
    try:
        yield
    except ConfigError as error:
        raise ConfigError(f'{place}: {str(error).removeprefix("configuration: ")}') from None


def admit(name: str) -> None:
    """Lets bundles name a part of a model from another package.

    Call it where the part is registered: a bundle can then be saved with it, and opened by whoever has
    imported that package.

    Args:
      name: Complete name under which gin knows it, such as `'mine.MyDecoder'`. Bundles can set all its
        parameters to any plain value, so it should touch no files and run nothing that they name.
    """
    MODEL.add(name)


def check_parts() -> None:
    """Refuses a model that no bundle can describe, before it is trained.

    Raises:
      ConfigError: The configuration of the model uses what is not a part of a model.
    """
    for (_, selector), values in gin_config._CONFIG.items():
        for parameter, value in values.items() if selector in MODEL else ():
            for reference in gin_config.iterate_references(value):
                found = reference.configurable.selector
                if found not in (*MODEL, _MACRO):
                    raise ConfigError(
                        f'{selector.rpartition(".")[2]}.{parameter} uses {found}, which is not a part of a '
                        'model: its bundle could not be opened. If it is harmless, call '
                        f'ddsp.training.safe_config.admit({found!r}) where it is registered'
                    )


def model_config_str() -> str:
    """The configuration in use, as far as a model needs it: without imports, other packages and training."""
    used, imports = gin_config._OPERATIVE_CONFIG.copy(), gin_config._IMPORTS.copy()
    kept = {key: values for key, values in used.items() if key[1] in MODEL}
    kept |= {key: used[key] for key in _macros_of(kept, used)}
    try:
        gin_config._OPERATIVE_CONFIG.clear()
        gin_config._OPERATIVE_CONFIG.update(kept)
        gin_config._IMPORTS.clear()
        return gin.operative_config_str()
    finally:
        gin_config._OPERATIVE_CONFIG.update(used)
        gin_config._IMPORTS.update(imports)


def _macros_of(bindings: Any, used: dict[tuple[str, str], Any]) -> set[tuple[str, str]]:
    """Keys of the macros that bindings use, also by way of others."""
    found: set[tuple[str, str]] = set()
    for reference in gin_config.iterate_references(bindings):
        key = ('/'.join(reference.scopes), _MACRO)
        if reference.selector == _MACRO and key in used and key not in found:
            found |= {key} | _macros_of(used[key], used)
    return found
