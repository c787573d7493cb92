"""Sweeps: trainings over a space of parameters, shared between any number of workers."""

from ddsp.errors import require

for _package in ('optuna', 'pydantic'):
    require(_package, 'to run sweeps')
