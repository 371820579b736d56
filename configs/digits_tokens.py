"""scikit-learn's digits as texts of 64 tokens, the 17 levels of their pixels, by unmasking."""

from ml_collections import ConfigDict

from configs import default


def get_config() -> ConfigDict:
    """The network of configs/hmm.py, conditioned on the class."""
    c = default.get_config()
    c.data.name = "digits_tokens"
    c.objective.name = "masked"
    c.model.name = "dit"
    c.model.dit.patch_size = 1
    c.model.dit.hidden_size = 128
    c.model.dit.depth = 4
    c.model.dit.num_heads = 4
    c.train.steps = 2000
    c.sample.sampler = "unmasking"
    c.sample.steps = 64
    c.evaluate.metrics = "bits"
    return c
