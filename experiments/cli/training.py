"""`ddsp train`, `ddsp evaluate`, `ddsp sweep` and `ddsp demo`."""
