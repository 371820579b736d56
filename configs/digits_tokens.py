"""scikit-learn's digits as texts of 64 tokens, the 17 levels of their pixels, by unmasking."""

from ml_collections import ConfigDict

from configs import hmm


def get_config() -> ConfigDict:
    """The network and training of configs/hmm.py, conditioned on the class."""
    c = hmm.get_config()
    c.data.name = "digits_tokens"
    c.sample.num_images = 100
    c.evaluate.metrics = "bits"
    return c
