"""A sweep of tiny trainings, from file to summary."""

from __future__ import annotations

import json
import shlex

import pytest

from experiments.sweeps.result import SweepPlace, train_command
from experiments.sweeps.spec import load_spec
from experiments.tracking import store

SPEC = """
name: rates
objective: losses/total_loss
trials: 2
steps: 2
batch_size: 2
preset: laptop
pruner: none
parameters:
  Trainer.learning_rate: {low: 1e-4, high: 1e-2, log: true}
fixed:
  RnnFcDecoder.rnn_channels: 8
  RnnFcDecoder.ch: 8
  RnnFcDecoder.layers_per_stack: 1
  Reverb.reverb_length: 400
"""


@pytest.fixture
def spec_path(workdir):
    path = workdir / 'rates.yaml'
    path.write_text(SPEC)
    return path


def sweep_runs(role: str) -> list:
    return store.search(store.client(), f"tags.sweep_id = 'rates' AND tags.sweep_role = '{role}'")


@pytest.mark.slow
def test_a_finished_sweep_does_nothing_more_and_a_larger_budget_goes_on(spec_path, dataset, ddsp):
    """test_browser.py looks at what one sweep leaves."""
    ddsp('sweep', spec_path, dataset, '--experiment', 'sweeps', '--json')
    again = json.loads(ddsp('sweep', spec_path, dataset, '--experiment', 'sweeps', '--json')[1])
    assert again['total'] == 2
    assert len(sweep_runs('trial')) == 2
    larger = json.loads(
        ddsp('sweep', spec_path, dataset, '--experiment', 'sweeps', '--trials', '3', '--json')[1]
    )
    assert (larger['finished'], larger['total']) == (3, 3)
    assert len(sweep_runs('trial')) == 3
    assert len(sweep_runs('summary')) == 1


@pytest.mark.parametrize(
    ('old', 'new', 'message'),
    [
        ('Trainer.learning_rate:', 'Trainer.lerning_rate:', "did you mean 'learning_rate'?"),
        ('  RnnFcDecoder.ch: 8', '  RnnFcDecodr.ch: 8', "there is no 'RnnFcDecodr'; did you mean"),
        ('  Trainer.learning_rate: {low: 1e-4, high: 1e-2, log: true}',
         "  Autoencoder.decoder: ['@RnnFcDecoder()', '@RnnFcDecodr()']", "no 'RnnFcDecodr'; did you mean"),
        ('steps: 2', 'gin_files: [no.gin]', 'no.gin'),
        ('  RnnFcDecoder.ch: 8', '  train.steps_per_save: 0', 'train.steps_per_save is 0; it must be'),
    ],
)  # fmt: skip
def test_a_mistake_in_a_name_is_found_before_any_trial(spec_path, dataset, ddsp, old, new, message):
    spec_path.write_text(SPEC.replace(old, new))
    status, out, err = ddsp('sweep', spec_path, dataset)
    assert (status, out) == (1, '')
    assert err.startswith('Error: ')
    assert message in err
    assert not (spec_path.parent / 'sweeps').exists()


@pytest.mark.slow
def test_an_objective_that_is_no_metric(spec_path, dataset, ddsp):
    spec_path.write_text(SPEC.replace('losses/total_loss', 'losses/total'))
    status, _, err = ddsp('sweep', spec_path, dataset)
    assert status == 1
    assert "the objective 'losses/total' is not a metric of a run: energy/harmonic_db" in err


def test_the_command_of_a_trial(spec_path, workdir):
    spec = load_spec(spec_path)
    place = SweepPlace.at(spec, spec_path, 'data/x y')
    words = shlex.split(train_command(spec, place, {'Trainer.learning_rate': 0.001}))
    assert words == [
        'ddsp', 'train', 'data/x y', '--preset', 'laptop', '--gin-param', 'RnnFcDecoder.rnn_channels = 8',
        '--gin-param', 'RnnFcDecoder.ch = 8', '--gin-param', 'RnnFcDecoder.layers_per_stack = 1',
        '--gin-param', 'Reverb.reverb_length = 400',
        '--gin-param', 'Trainer.learning_rate = 0.001', '--steps', '2',
        '--batch-size', '2', '--save-dir', 'rates-best',
    ]  # fmt: skip
