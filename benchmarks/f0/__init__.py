"""How well, and at what cost, the pitch estimators find known pitches."""
