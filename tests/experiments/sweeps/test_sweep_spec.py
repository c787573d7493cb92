"""The description of a sweep: what it says, and what it cannot say."""

from __future__ import annotations

import optuna
import pytest

from ddsp.errors import ConfigError
from experiments.sweeps.spec import Choice, Range, gin_value, load_spec, parse_spec

PARAMETERS = {'Trainer.learning_rate': {'low': 1e-4, 'high': 1e-2, 'log': True}}


def spec(**changes):
    return parse_spec({'parameters': PARAMETERS, **changes})


def test_a_whole_file(tmp_path):
    path = tmp_path / 'violin.yaml'
    path.write_text("""
objective: eval/loudness_l1_db
trials: 12
steps: 300
preset: laptop
sampler: random
pruner: none
parameters:
  Trainer.learning_rate: {low: 1e-4, high: 1e-2, log: true}
  RnnFcDecoder.ch: {low: 64, high: 256, step: 64}
  RnnFcDecoder.rnn_type: [gru, lstm]
fixed:
  train.batch_size: 8
""")
    found = load_spec(path)
    assert (found.name, found.trials, found.steps, found.sampler) == ('violin', 12, 300, 'random')
    assert found.minimize
    assert found.parameters == {
        'Trainer.learning_rate': Range(1e-4, 1e-2, None, True),  # although YAML takes 1e-4 for text
        'RnnFcDecoder.ch': Range(64, 256, 64),
        'RnnFcDecoder.rnn_type': Choice(('gru', 'lstm')),
    }


def test_the_direction_follows_from_the_objective():
    assert spec(objective='speed/steps_per_sec').direction == 'maximize'
    assert spec(objective='eval/f0_l1_midi').direction == 'minimize'
    assert spec(objective='eval/f0_l1_midi', direction='maximize').direction == 'maximize'


def test_suggestions_keep_type_and_range():
    found = spec(
        parameters={'a': {'low': 1, 'high': 9, 'step': 2}, 'b': {'low': 0.5, 'high': 1}, 'c': [[1, 2], [3]]}
    )
    study = optuna.create_study()
    for _ in range(20):
        trial = study.ask()
        values = found.suggest(trial)
        assert values['a'] in (1, 3, 5, 7, 9)
        assert isinstance(values['a'], int)
        assert 0.5 <= values['b'] <= 1
        assert values['c'] in ([1, 2], [3])
        assert found.decode(trial.params) == values


def test_a_grid_is_all_combinations():
    found = spec(sampler='grid', parameters={'a': [1, 'x'], 'b': {'low': 0.1, 'high': 0.3, 'step': 0.1}})
    points = [found.decode(point) for point in found.grid()]
    assert len(points) == 6
    assert {point['a'] for point in points} == {1, 'x'}
    assert sorted({round(point['b'], 9) for point in points}) == [0.1, 0.2, 0.3]


@pytest.mark.parametrize(
    ('value', 'written'),
    [
        (0.001, '0.001'), (8, '8'), ('gru', "'gru'"), (True, 'True'), (None, 'None'),
        ('@Trainer', '@Trainer'),
        ('%batch_size', '%batch_size'), ([1, '@A()'], '[1, @A()]'), ({'k': ['x']}, "{'k': ['x']}"),
    ],
)  # fmt: skip
def test_values_as_gin_writes_them(value, written):
    assert gin_value(value) == written


def test_a_trial_overrides_what_is_fixed_for_all():
    found = spec(fixed={'train.batch_size': 8})
    assert found.gin_params({'Trainer.learning_rate': 0.01}) == [
        'train.batch_size = 8',
        'Trainer.learning_rate = 0.01',
    ]


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'trails': 3}, "unknown key 'trails'. Did you mean 'trials'?"),
        ({'trials': 0}, 'trials must be a whole number from 1 to 10000, not 0.'),
        ({'trials': 'many'}, "trials must be a whole number from 1 to 10000, not 'many'."),
        ({'steps': -1}, 'steps must be a whole number of at least 1, not -1.'),
        ({'sampler': 'tpo'}, "sampler: 'tpo' is not one of tpe, random, grid, cmaes. Did you mean 'tpe'?"),
        ({'pruner': 'x'}, "pruner: 'x' is not one of none, median, hyperband, asha."),
        ({'direction': 'up'}, "direction: 'up' is not one of minimize, maximize."),
        ({'parameters': None}, 'parameters must be at least one, such as'),
        ({'parameters': {'a': []}}, 'parameters.a: the list is empty.'),
        (
            {'parameters': {'a': 3}},
            'parameters.a: 3 is one value; a list or {low: ..., high: ...} is needed.',
        ),
        (
            {'parameters': {'a': {'low': 1, 'hihg': 2}}},
            "parameters.a: unknown key 'hihg'. Did you mean 'high'?",
        ),
        ({'parameters': {'a': {'low': 1}}}, 'parameters.a.high is missing; it must be a number.'),
        ({'parameters': {'a': {'low': 2, 'high': 1}}}, 'parameters.a: low is 2, which is not below high, 1.'),
        ({'parameters': {'a': {'low': 0, 'high': 1, 'log': True}}}, 'low is 0; with log it must be above 0.'),
        ({'parameters': {'a': {'low': 1, 'high': 4, 'step': 9}}}, 'step is 9; it must be above 0 and fit'),
        (
            {'parameters': {'a': {'low': 1, 'high': 4, 'step': 1, 'log': True}}},
            'log and step exclude each other.',
        ),
        ({'sampler': 'grid'}, 'the sampler grid needs a list, or a range with `step` and no `log`.'),
        ({'fixed': {'Trainer.learning_rate': 1}}, 'Trainer.learning_rate is in fixed and in parameters'),
        ({'fixed': 3}, 'fixed must be names and values, such as'),
        ({'gin_files': 'x.gin'}, 'gin_files must be a list of files, not'),
        ({'gin_files': [3]}, 'gin_files must be a list of files, not [3].'),
        ({'name': 5}, 'name must be text of letters, digits, spaces and "_.-", for a folder, not 5.'),
        ({'name': '../../x'}, "for a folder, not '../../x'."),
        (
            {'parameters': {'a': {'low': 1, 'high': 2, 'log': 'false'}}},
            "parameters.a.log must be true or false, not 'false'.",
        ),
        (
            {'parameters': {'a': {'low': 1, 'high': float('inf')}}},
            'parameters.a.high must be a number, not inf.',
        ),
        ({'parameters': {'a': {'low': True, 'high': 2}}}, 'parameters.a.low must be a number, not True.'),
        ({'parameters': {'a': {'low': 'x', 'high': 2}}}, "parameters.a.low must be a number, not 'x'."),
        ({'parameters': {'a': {1: 2}}}, 'parameters.a: unknown key 1; there are high, log, low, step.'),
        ({'parameters': 3}, 'parameters must be at least one, such as'),
        ({'seed': 2**40}, 'seed must be a whole number from 0 to 4294967295, not 1099511627776.'),
        ({'seed': True}, 'seed must be a whole number from 0 to'),
        (
            {'sampler': 'grid', 'parameters': {'a': {'low': 0.0, 'high': 1.0, 'step': 1e-9}}},
            'the grid of a has 1000000000 points, more than 10000. Give larger steps or shorter lists',
        ),
    ],
)
def test_what_cannot_be(changes, message):
    with pytest.raises(ConfigError) as error:
        spec(**changes)
    assert message in str(error.value)


def test_the_same_as_a_gin_file(tmp_path):
    (tmp_path / 'violin.yaml').write_text("""
trials: 12
sampler: random
parameters:
  Trainer.learning_rate: {low: 1e-4, high: 1e-2, log: true}
  Autoencoder.preprocessor: ['@A()', '@B()']
fixed: {train.batch_size: 8, batch: 4, eval/train.steps: '%batch'}
""")
    (tmp_path / 'violin.gin').write_text("""
# The same.
sweep.trials = 12
sweep.sampler = 'random'
sweep.parameters = {
    'Trainer.learning_rate': {'low': 1e-4, 'high': 1e-2, 'log': True},
    'Autoencoder.preprocessor': [@A(), @B()],
}
train.batch_size = 8
batch = 4
eval/train.steps = %batch
""")
    found = load_spec(tmp_path / 'violin.gin')
    assert found == load_spec(tmp_path / 'violin.yaml')
    assert found.signature() == load_spec(tmp_path / 'violin.yaml').signature()
    values = {'Trainer.learning_rate': 0.01, 'Autoencoder.preprocessor': '@A()'}
    assert found.gin_params(values)[:3] == ['train.batch_size = 8', 'batch = 4', 'eval/train.steps = %batch']
    assert found.gin_params(values)[4] == 'Autoencoder.preprocessor = @A()'


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('sweep.trials = ', 'not valid gin: line 1: Unable to parse value.'),
        ("include 'x.gin'", 'a sweep has no `include` and no `import`'),
        ('sweep.trails = 3', "unknown key 'trails'. Did you mean 'trials'?"),
    ],
)
def test_messages_of_a_gin_file(tmp_path, ddsp, text, message):
    path = tmp_path / 'sweep.gin'
    path.write_text(text + '\n')
    status, out, err = ddsp('sweep', path, 'nowhere')
    assert (status, out) == (1, '')
    assert err.startswith(f'Error: {path}: ')
    assert message in err


@pytest.mark.parametrize(
    ('text', 'message'),
    [('a: [', 'not valid YAML'), ('- 1', 'expected keys and values'), ('x: 1', "unknown key 'x'")],
)
def test_messages_name_the_file(tmp_path, ddsp, text, message):
    path = tmp_path / 'sweep.yaml'
    path.write_text(text)
    status, out, err = ddsp('sweep', path, 'nowhere')
    assert (status, out) == (1, '')
    assert err.startswith(f'Error: {path}')
    assert message in err


def test_a_missing_file(ddsp):
    assert ddsp('sweep', 'no.yaml', 'nowhere') == (1, '', 'Error: no.yaml: no such file.\n')
