"""What the operations cost, beside ddsp 3.7.0: `python -m benchmarks --help`."""
