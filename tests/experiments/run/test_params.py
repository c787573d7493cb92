"""Configurations as flat parameters."""

from __future__ import annotations

from experiments.run.params import config_to_params

OPERATIVE = """
import ddsp.training

# Macros:
# ==============================================================================
batch_size = 16
learning_rate = 0.0003

# Parameters for processors.ProcessorGroup:
# ==============================================================================
ProcessorGroup.dag = \\
    [(@synths.Harmonic(),
      ['amps', 'harmonic_distribution', 'f0_hz']),
     (@processors.Add(), ['noise/signal', 'harmonic/signal'])]

# Parameters for evaluate/data.TFRecordProvider:
evaluate/ddsp.training.data.TFRecordProvider.batch_size = %batch_size
ddsp.training.trainers.Trainer.learning_rate = %learning_rate
a.Net.ch = 1
b.Net.ch = 2
"""


def test_names_are_short_and_unique():
    params = config_to_params(OPERATIVE)
    assert params['batch_size'] == '16'
    assert params['Trainer.learning_rate'] == '0.0003'
    assert params['evaluate/TFRecordProvider.batch_size'] == '16'
    assert params['a.Net.ch'] == '1'
    assert params['b.Net.ch'] == '2'


def test_values_over_several_lines_are_joined():
    dag = config_to_params(OPERATIVE)['ProcessorGroup.dag']
    assert dag.startswith('[(@synths.Harmonic(),')
    assert dag.endswith("'harmonic/signal'])]")
    assert '\n' not in dag
    assert '\\' not in dag


def test_macros_are_replaced_wherever_they_stand():
    """MLflow's charts would put %learning_rate on an axis of its own."""
    params = config_to_params(
        "size = 8\nhalf = [%size, 4]\nscope/deep = %half\nNet.a = (%scope/deep, {'x': %size})\n"
        "Net.b = '%size'\nNet.c = %unknown\nloop = %loop\nNet.d = [@scope/make(), @other]\n"
    )
    assert params['Net.a'] == "([8, 4], {'x': 8})"
    assert params['Net.b'] == "'%size'"
    assert params['Net.c'] == '%unknown'
    assert params['Net.d'] == '[@scope/make(), @other]'
    assert params['loop'] == '%loop'


def test_comments_and_imports_are_no_parameters():
    assert set(config_to_params(OPERATIVE)) == {
        'batch_size', 'learning_rate', 'ProcessorGroup.dag', 'evaluate/TFRecordProvider.batch_size',
        'Trainer.learning_rate', 'a.Net.ch', 'b.Net.ch',
    }  # fmt: skip


def test_limits_of_mlflow():
    params = config_to_params(f'{"x" * 300}.y = "{"1" * 7000}"')
    ((name, value),) = params.items()
    assert len(name) == 250
    assert len(value) == 6000
