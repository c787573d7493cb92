"""Tracked training, sweeps, comparison, the demo and the `ddsp` command."""
