"""Training objectives: each a `LossFn`."""
