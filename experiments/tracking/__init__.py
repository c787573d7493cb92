"""Runs and models in MLflow: what is written, where it goes, and how it is read."""
