"""One tracked training: the run, its folder, its callbacks and its evaluation."""
