"""Jobs on other machines: one description, and an executor for each engine that runs it."""
