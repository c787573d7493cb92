"""The description of a sweep: a small YAML or gin file, checked before anything runs."""

from __future__ import annotations

import dataclasses
import difflib
import itertools
import json
import math
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ddsp.errors import ConfigError, require
from experiments.compare import lower_is_better

if TYPE_CHECKING:
    import optuna

SAMPLERS = ('tpe', 'random', 'grid', 'cmaes')
PRUNERS = ('none', 'median', 'hyperband', 'asha')
_RANGE_KEYS = ('low', 'high', 'step', 'log')
_MAX_TRIALS = 10_000


@dataclasses.dataclass(frozen=True)
class Choice:
    """A parameter that takes one of some values."""

    values: tuple[Any, ...]

    def suggest(self, trial: optuna.Trial, name: str) -> Any:
        """A value for a trial. Optuna keeps only plain values, so lists travel as JSON."""
        chosen = trial.suggest_categorical(name, [json.dumps(value) for value in self.values])
        return json.loads(chosen)

    def grid(self) -> list[Any]:
        """All values, as Optuna stores them."""
        return [json.dumps(value) for value in self.values]


@dataclasses.dataclass(frozen=True)
class Range:
    """A parameter between two numbers, whole ones where both limits (and the step) are whole."""

    low: float
    high: float
    step: float | None = None
    log: bool = False

    @property
    def whole(self) -> bool:
        """Whether the values are integers."""
        return all(isinstance(value, int) for value in (self.low, self.high, self.step) if value is not None)

    def suggest(self, trial: optuna.Trial, name: str) -> float | int:
        """A value for a trial."""
        if self.whole:
            return trial.suggest_int(
                name, int(self.low), int(self.high), step=int(self.step or 1), log=self.log
            )
        return trial.suggest_float(name, self.low, self.high, step=self.step, log=self.log)

    def grid(self) -> list[float | int]:
        """All values; only a range with a step has a list of them."""
        assert self.step is not None
        count = math.floor((self.high - self.low) / self.step + 1e-9) + 1
        return [self.low + index * self.step for index in range(count)]


@dataclasses.dataclass(frozen=True)
class SweepSpec:
    """A sweep. The fields are the keys of its file; docs/experiments.md describes them."""

    parameters: Mapping[str, Choice | Range]
    name: str
    objective: str = 'eval/spectral_loss'
    direction: str = ''
    trials: int = 20
    steps: int | None = None
    batch_size: int | None = None
    preset: str = ''
    gin_files: Sequence[str] = ()
    fixed: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    sampler: str = 'tpe'
    pruner: str = 'median'
    prune_on: str = 'losses/total_loss'
    seed: int = 0

    @property
    def minimize(self) -> bool:
        """Whether less of the objective is better."""
        return self.direction == 'minimize'

    def signature(self) -> dict[str, str]:
        """What stays the same while a sweep goes on: all but its budget and how trials are pruned."""
        kept = dataclasses.asdict(self)
        for name in ('name', 'trials', 'pruner', 'prune_on'):
            del kept[name]
        kept['parameters'] = {name: str(parameter) for name, parameter in sorted(self.parameters.items())}
        return {name: json.dumps(value, default=str) for name, value in kept.items()}

    def suggest(self, trial: optuna.Trial) -> dict[str, Any]:
        """Values of all parameters for a trial."""
        return {name: parameter.suggest(trial, name) for name, parameter in self.parameters.items()}

    def decode(self, stored: Mapping[str, Any]) -> dict[str, Any]:
        """Parameters of a finished trial, from the form in which Optuna keeps them."""
        return {
            name: json.loads(value) if isinstance(self.parameters[name], Choice) else value
            for name, value in stored.items()
        }

    def grid(self) -> list[dict[str, Any]]:
        """All combinations, as Optuna stores them."""
        lists = [parameter.grid() for parameter in self.parameters.values()]
        return [dict(zip(self.parameters, values, strict=True)) for values in itertools.product(*lists)]

    def gin_params(self, values: Mapping[str, Any]) -> list[str]:
        """Bindings of one trial: those fixed for all, then its own."""
        return [f'{name} = {gin_value(value)}' for name, value in {**self.fixed, **values}.items()]


def gin_value(value: Any) -> str:
    """A value as gin writes it; text that begins with @ or % is a reference, not a string."""
    if isinstance(value, str) and value[:1] in '@%':
        return value
    if isinstance(value, Mapping):
        return '{' + ', '.join(f'{key!r}: {gin_value(item)}' for key, item in value.items()) + '}'
    if isinstance(value, list):
        return '[' + ', '.join(gin_value(item) for item in value) + ']'
    return repr(value)


def load_spec(path: str | os.PathLike[str]) -> SweepSpec:
    """Reads and checks a sweep's file: gin when its name ends so, else YAML.

    Raises:
      ConfigError: The file is missing or cannot be read, or a key or a value in it cannot be; the message
        names it.
    """
    path = pathlib.Path(path)
    try:
        text = path.read_text(encoding='utf-8')
        raw = _from_gin(text) if path.suffix == '.gin' else _from_yaml(text)
        return parse_spec(raw, default_name=path.stem)
    except FileNotFoundError:
        raise ConfigError(f'{path}: no such file.') from None
    except UnicodeDecodeError:
        raise ConfigError(f'{path} is no text.') from None
    except ConfigError as error:
        raise ConfigError(f'{path}: {error}') from None


def _from_yaml(text: str) -> dict[str, Any]:
    """The keys and values of a YAML file."""
    yaml = require('yaml', 'to read the description of a sweep')
    try:
        raw = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f'is no YAML: {" ".join(str(error).split())}') from None
    if not isinstance(raw, dict):
        raise ConfigError(f'expected keys and values such as `trials: 20`, found {type(raw).__name__}.')
    return raw


def _from_gin(text: str) -> dict[str, Any]:
    """The keys of a gin file: those of `sweep.KEY = ...`; every other binding is fixed for all trials."""
    from gin import config_parser

    class Texts(config_parser.ParserDelegate):
        """Keeps references as they are written."""

        def configurable_reference(self, name: str, evaluate: bool) -> str:
            return f'@{name}()' if evaluate else f'@{name}'

        def macro(self, name: str) -> str:
            return f'%{name}'

    raw: dict[str, Any] = {}
    fixed: dict[str, Any] = {}
    try:
        statements = list(config_parser.ConfigParser(text, Texts()))
    except SyntaxError as error:
        raise ConfigError(f'is no gin: line {error.lineno}: {error.msg}') from None
    for statement in statements:
        if not isinstance(statement, config_parser.BindingStatement):
            raise ConfigError('a sweep has no `include` and no `import`; name the files in sweep.gin_files.')
        if statement.selector == 'sweep':
            raw[statement.arg_name] = statement.value
            continue
        name = '.'.join(part for part in (statement.selector, statement.arg_name) if part)
        fixed[f'{statement.scope}/{name}' if statement.scope else name] = statement.value
    return {**raw, 'fixed': {**raw.get('fixed', {}), **fixed}} if fixed else raw


def parse_spec(raw: Mapping[str, Any], default_name: str = 'sweep') -> SweepSpec:
    """A sweep from the contents of its file.

    Raises:
      ConfigError: A key or a value cannot be.
    """
    known = {field.name for field in dataclasses.fields(SweepSpec)}
    for key in raw:
        if key not in known:
            raise ConfigError(f'unknown key {key!r}{_nearest(str(key), known)}')
    parameters = raw.get('parameters')
    if not isinstance(parameters, dict) or not parameters:
        raise ConfigError(
            'parameters: give at least one, such as `Trainer.learning_rate: {low: 0.0001, high: 0.01}`.'
        )
    given = {key: value for key, value in raw.items() if value is not None}
    given['parameters'] = {str(name): _parameter(str(name), value) for name, value in parameters.items()}
    given.setdefault('name', default_name)
    spec = SweepSpec(**given)
    return _checked(dataclasses.replace(spec, direction=spec.direction or _direction(spec.objective)))


def _direction(objective: str) -> str:
    """Whether to minimise or maximise, from the metric's name."""
    return 'maximize' if lower_is_better(objective) is False else 'minimize'


def _checked(spec: SweepSpec) -> SweepSpec:
    """The sweep, when all its values can be."""
    _one_of('sampler', spec.sampler, SAMPLERS)
    _one_of('pruner', spec.pruner, PRUNERS)
    _one_of('direction', spec.direction, ('minimize', 'maximize'))
    _whole('trials', spec.trials, 1, _MAX_TRIALS)
    _whole('seed', spec.seed, 0, 2**32 - 1)
    for key in ('steps', 'batch_size'):
        if getattr(spec, key) is not None:
            _whole(key, getattr(spec, key), 1, 10**9)
    if not isinstance(spec.fixed, Mapping):
        raise ConfigError('fixed: expected names and values, such as `Trainer.learning_rate: 0.001`.')
    if isinstance(spec.gin_files, str) or not isinstance(spec.gin_files, Sequence):
        raise ConfigError('gin_files: expected a list of files.')
    twice = sorted(set(spec.fixed) & set(spec.parameters))
    if twice:
        raise ConfigError(f'{twice[0]} is in fixed and in parameters; it can be in one of them only.')
    if spec.sampler == 'grid':
        _check_grid(spec)
    if spec.sampler == 'cmaes':
        require('cmaes', 'for the sampler cmaes')
    return spec


def _check_grid(spec: SweepSpec) -> None:
    """A grid needs parameters that can be counted."""
    for name, parameter in spec.parameters.items():
        if isinstance(parameter, Range) and (parameter.step is None or parameter.log):
            raise ConfigError(
                f'parameters.{name}: the sampler grid needs a list, or a range with `step` and no `log`.'
            )


def _parameter(name: str, value: Any) -> Choice | Range:
    """One parameter: a list of values, or a range."""
    if isinstance(value, list):
        if not value:
            raise ConfigError(f'parameters.{name}: the list is empty.')
        return Choice(tuple(_number_if_meant(item) for item in value))
    if not isinstance(value, dict):
        raise ConfigError(
            f'parameters.{name}: {value!r} is one value; a list or {{low: ..., high: ...}} is needed. '
            'What does not vary belongs into `fixed`.'
        )
    for key in value:
        if key not in _RANGE_KEYS:
            raise ConfigError(f'parameters.{name}: unknown key {key!r}{_nearest(str(key), _RANGE_KEYS)}')
    limits = {key: _number(f'parameters.{name}.{key}', value.get(key)) for key in ('low', 'high')}
    step = None if value.get('step') is None else _number(f'parameters.{name}.step', value['step'])
    return _checked_range(name, Range(limits['low'], limits['high'], step, bool(value.get('log', False))))


def _checked_range(name: str, made: Range) -> Range:
    """The range, when its limits can be."""
    if made.low >= made.high:
        raise ConfigError(f'parameters.{name}: low is {made.low}, which is not below high, {made.high}.')
    if made.step is not None and not 0 < made.step <= made.high - made.low:
        raise ConfigError(
            f'parameters.{name}: step is {made.step}; it must be above 0 and fit between low and high.'
        )
    if made.log and made.low <= 0:
        raise ConfigError(f'parameters.{name}: low is {made.low}; with log it must be above 0.')
    if made.log and made.step is not None:
        raise ConfigError(f'parameters.{name}: log and step cannot be together.')
    return made


def _number(key: str, value: Any) -> float | int:
    """A number; YAML 1.1 takes `1e-4` for text, people do not."""
    value = _number_if_meant(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ConfigError(f'{key}: expected a number, found {value!r}.')
    return value


def _number_if_meant(value: Any) -> Any:
    """Text such as '1e-4' as the number that it is."""
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value


def _whole(key: str, value: Any, low: int, high: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise ConfigError(f'{key}: expected a whole number from {low} to {high}, found {value!r}.')


def _one_of(key: str, value: Any, allowed: Sequence[str]) -> None:
    if value not in allowed:
        raise ConfigError(f'{key}: {value!r} is none of {", ".join(allowed)}.')


def _nearest(word: str, known: Any) -> str:
    """' Did you mean ...?' or the list of what there is."""
    close = difflib.get_close_matches(word, list(known), n=1)
    return f'. Did you mean {close[0]!r}?' if close else f'; there are {", ".join(sorted(known))}.'
