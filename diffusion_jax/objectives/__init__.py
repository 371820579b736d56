"""Training objectives: each is a `LossFn`."""
