"""Sweeps: trainings over a space of parameters, shared between any number of workers."""
