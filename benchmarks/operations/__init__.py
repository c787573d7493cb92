"""What `python -m benchmarks` measures, case by case."""
