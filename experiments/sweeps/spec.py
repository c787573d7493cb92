"""The description of a sweep: a small YAML or gin file, checked before anything runs."""

from __future__ import annotations

import dataclasses
import difflib
import itertools
import json
import math
import os
import pathlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar, get_args

import pydantic
from pydantic.dataclasses import dataclass as pydantic_dataclass

from ddsp.errors import ConfigError, require
from experiments.metrics import lower_is_better
from experiments.run import params

if TYPE_CHECKING:
    import optuna

T = TypeVar('T')

_MAX_TRIALS, _MAX_STEPS, _MAX_SEED = 10_000, 10**9, 2**32 - 1
_STRICT = pydantic.ConfigDict(strict=True, extra='forbid')


def _number_if_meant(value: Any) -> Any:
    """Text such as '1e-4' as the number that it is: YAML 1.1 takes it for text, people do not."""
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value


def _field(allowed: str, **limits: Any) -> Any:
    """Limits of a value, and what is allowed in words."""
    return pydantic.Field(description=allowed, **limits)


_MEANT = pydantic.BeforeValidator(_number_if_meant)
Number = Annotated[int | pydantic.FiniteFloat, _MEANT, _field('a number')]
OptionalNumber = Annotated[int | pydantic.FiniteFloat | None, _MEANT, _field('a number')]
_COUNT = _field('a whole number of at least 1', ge=1, le=_MAX_STEPS)


@dataclasses.dataclass(frozen=True)
class Choice:
    """A parameter that takes one of some values."""

    values: tuple[Any, ...]

    @property
    def count(self) -> int:
        """How many values there are."""
        return len(self.values)

    @property
    def ends(self) -> list[Any]:
        """Values whose names must be known."""
        return list(self.values)

    def suggest(self, trial: optuna.Trial, name: str) -> Any:
        """A value for a trial."""
        return json.loads(trial.suggest_categorical(name, self.grid()))

    def grid(self) -> list[str]:
        """All values as JSON, since Optuna stores plain values only."""
        return [json.dumps(value) for value in self.values]


@pydantic_dataclass(frozen=True, config=_STRICT)
class Range:
    """A parameter between two numbers, whole ones where both limits (and the step) are whole."""

    low: Number
    high: Number
    step: OptionalNumber = None
    log: Annotated[bool, _field('true or false')] = False

    @pydantic.model_validator(mode='after')
    def _limits(self) -> Range:
        if self.low >= self.high:
            raise ValueError(f'low is {self.low}, which is not below high, {self.high}.')
        if self.step is not None and not 0 < self.step <= self.high - self.low:
            raise ValueError(f'step is {self.step}; it must be above 0 and fit between low and high.')
        if self.log and self.low <= 0:
            raise ValueError(f'low is {self.low}; with log it must be above 0.')
        if self.log and self.step is not None:
            raise ValueError('log and step exclude each other.')
        return self

    @property
    def count(self) -> int:
        """Number of values of a range with a step."""
        assert self.step is not None
        return math.floor((self.high - self.low) / self.step + 1e-9) + 1

    @property
    def ends(self) -> list[Any]:
        """The limits."""
        return [self.low, self.high]

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
        """All values of a range with a step."""
        return [self.low + index * (self.step or 0) for index in range(self.count)]


@pydantic_dataclass(frozen=True, config=_STRICT)
class SweepSpec:
    """A sweep. The fields are the keys of its file; docs/sweeps.md describes them."""

    parameters: Annotated[
        Mapping[str, Choice | Range],
        _field('at least one, such as `Trainer.learning_rate: {low: 0.0001, high: 0.01}`', min_length=1),
    ]
    name: Annotated[
        str, _field('text of letters, digits, spaces and "_.-", for a folder', pattern=r'^\w[\w .-]*$')
    ]
    objective: Annotated[str, _field('a metric of a run')] = 'eval/spectral_loss'
    direction: Literal['', 'minimize', 'maximize'] = ''
    trials: Annotated[int, _field(f'a whole number from 1 to {_MAX_TRIALS}', ge=1, le=_MAX_TRIALS)] = 20
    steps: Annotated[int | None, _COUNT] = None
    batch_size: Annotated[int | None, _COUNT] = None
    preset: Annotated[str, _field('the name of a preset')] = ''
    gin_files: Annotated[Sequence[str], _field('a list of files')] = ()
    fixed: Annotated[
        Mapping[str, Any], _field('names and values, such as `Trainer.learning_rate: 0.001`')
    ] = dataclasses.field(default_factory=dict)
    sampler: Literal['tpe', 'random', 'grid', 'cmaes'] = 'tpe'
    pruner: Literal['none', 'median', 'hyperband', 'asha'] = 'median'
    prune_on: Annotated[str, _field('a metric of a run')] = 'losses/total_loss'
    seed: Annotated[int, _field(f'a whole number from 0 to {_MAX_SEED}', ge=0, le=_MAX_SEED)] = 0

    @pydantic.model_validator(mode='after')
    def _together(self) -> SweepSpec:
        twice = sorted(set(self.fixed) & set(self.parameters))
        if twice:
            raise ValueError(f'{twice[0]} is in fixed and in parameters; give it in one of them.')
        if self.sampler != 'grid':
            return self
        for name, parameter in self.parameters.items():
            if isinstance(parameter, Range) and (parameter.step is None or parameter.log):
                raise ValueError(
                    f'parameters.{name}: the sampler grid needs a list, or a range with `step` and no `log`.'
                )
        points = math.prod(parameter.count for parameter in self.parameters.values())
        if points > _MAX_TRIALS:
            raise ValueError(
                f'the grid of {", ".join(self.parameters)} has {points} points, more than {_MAX_TRIALS}. '
                'Give larger steps or shorter lists, or another sampler.'
            )
        return self

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

    def samples(self) -> list[dict[str, Any]]:
        """A few points in which every choice and every end of a range occurs."""
        ends = {name: parameter.ends for name, parameter in self.parameters.items()}
        return [
            {name: values[index % len(values)] for name, values in ends.items()}
            for index in range(max(map(len, ends.values())))
        ]

    def gin_params(self, values: Mapping[str, Any]) -> list[str]:
        """Bindings of one trial: those fixed for all, then its own."""
        return [f'{name} = {gin_value(value)}' for name, value in {**self.fixed, **values}.items()]


def gin_value(value: Any) -> str:
    """A value as gin writes it; text that begins with @ or % is a reference."""
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
      ConfigError: The file is missing or cannot be read, or a key or a value in it is not allowed; the
        message names it.
    """
    path = pathlib.Path(path)
    try:
        text = path.read_text(encoding='utf-8')
        raw = _from_gin(text) if path.suffix == '.gin' else _from_yaml(text)
        return parse_spec(raw, default_name=path.stem)
    except FileNotFoundError:
        raise ConfigError(f'{path}: no such file.') from None
    except UnicodeDecodeError:
        raise ConfigError(f'{path} is not a text file.') from None
    except ConfigError as error:
        raise ConfigError(f'{path}: {error}') from None


def _from_yaml(text: str) -> dict[str, Any]:
    """The keys and values of a YAML file."""
    yaml = require('yaml', 'to read the description of a sweep')
    try:
        raw = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f'not valid YAML: {" ".join(str(error).split())}') from None
    if not isinstance(raw, dict):
        raise ConfigError(f'expected keys and values such as `trials: 20`, found {type(raw).__name__}.')
    return raw


def _from_gin(text: str) -> dict[str, Any]:
    """The keys of a gin file: those of `sweep.KEY = ...`; every other binding is fixed for all trials."""
    raw: dict[str, Any] = {}
    fixed: dict[str, Any] = {}
    try:
        statements = params.gin_statements(text)
    except SyntaxError as error:
        raise ConfigError(f'not valid gin: line {error.lineno}: {error.msg}') from None
    for statement in statements:
        name = params.binding_name(statement)
        if not name:
            raise ConfigError('a sweep has no `include` and no `import`; name the files in sweep.gin_files.')
        if name.startswith('sweep.'):
            raw[name.removeprefix('sweep.')] = statement.value
        else:
            fixed[name] = statement.value
    return {**raw, 'fixed': {**raw.get('fixed', {}), **fixed}} if fixed else raw


def parse_spec(raw: Mapping[str, Any], default_name: str = 'sweep') -> SweepSpec:
    """A sweep from the contents of its file.

    Raises:
      ConfigError: A key or a value is not allowed; the message names it.
    """
    parameters = raw.get('parameters')
    given = {str(key): value for key, value in raw.items() if value is not None}
    if isinstance(parameters, Mapping):
        given['parameters'] = {str(name): _parameter(str(name), value) for name, value in parameters.items()}
    given.setdefault('name', re.sub(r'[^\w .-]', '_', default_name))
    given.setdefault('parameters', {})
    spec = _built(SweepSpec, given)
    if spec.sampler == 'cmaes':
        require('cmaes', 'for the sampler cmaes')
    lower = lower_is_better(spec.objective)
    direction = spec.direction or ('maximize' if lower is False else 'minimize')
    return dataclasses.replace(spec, direction=direction)


def _parameter(name: str, value: Any) -> Choice | Range:
    """One parameter: a list of values, or a range."""
    where = f'parameters.{name}'
    if isinstance(value, list):
        if not value:
            raise ConfigError(f'{where}: the list is empty.')
        return Choice(tuple(_number_if_meant(item) for item in value))
    if not isinstance(value, dict):
        raise ConfigError(
            f'{where}: {value!r} is one value; a list or {{low: ..., high: ...}} is needed. '
            'What does not vary belongs in `fixed`.'
        )
    return _built(Range, value, where)


def _built(kind: Callable[..., T], given: Mapping[str, Any], where: str = '') -> T:
    """An object of its contents, or the first of pydantic's complaints in our words."""
    fields = kind.__pydantic_fields__  # type: ignore[attr-defined]
    for key in given:
        if key not in fields:
            raise ConfigError(f'{where and where + ": "}unknown key {key!r}{_nearest(str(key), fields)}')
    try:
        return kind(**given)
    except pydantic.ValidationError as refusal:
        error = refusal.errors()[0]
    own = error.get('ctx', {}).get('error')
    if not error['loc'] and own:  # of a check of several keys
        raise ConfigError(f'{where}: {own}' if where else str(own))
    name = str(error['loc'][0])
    key = f'{where}.{name}' if where else name
    if error['type'].startswith('missing'):
        raise ConfigError(f'{key} is missing; it must be {fields[name].description}.')
    choices = [text for text in get_args(fields[name].annotation) if text and isinstance(text, str)]
    if choices:
        raise ConfigError(
            f'{key}: {given[name]!r} is not one of {", ".join(choices)}{_did_you_mean(given[name], choices)}'
        )
    raise ConfigError(f'{key} must be {fields[name].description}, not {given[name]!r}.')


def _did_you_mean(word: object, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(str(word), list(known), n=1)
    return f'. Did you mean {close[0]!r}?' if close else '.'


def _nearest(word: str, known: Iterable[str]) -> str:
    """' Did you mean ...?' or the list of what there is."""
    meant = _did_you_mean(word, known)
    return meant if len(meant) > 1 else f'; there are {", ".join(sorted(known))}.'
