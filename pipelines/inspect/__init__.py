"""What is in a dataset, and whether a model can learn from it."""
