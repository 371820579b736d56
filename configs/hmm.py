"""Texts of a small language whose entropy is known, by unmasking.

A step took 0.6 s on two CPU cores (600 steps in 347 s).

    python launch.py --config configs/hmm.py --workdir runs/hmm

The same network from left to right, or with uniform noise in place of masks:

    --config.objective.name=autoregressive --config.sample.sampler=left_to_right
    --config.objective.name=replaced --config.sample.sampler=replacement
"""

from ml_collections import ConfigDict

from configs import default


def get_config() -> ConfigDict:
    """A transformer of 1.3 M parameters on windows of 64 letters."""
    c = default.get_config()
    c.data.name = "hmm"
    c.objective.name = "masked"
    c.model.name = "dit"
    c.model.dit.patch_size = 1
    c.model.dit.hidden_size = 128
    c.model.dit.depth = 4
    c.model.dit.num_heads = 4
    c.train.steps = 2000
    c.sample.sampler = "unmasking"
    c.sample.steps = 64
    c.sample.num_images = 20
    c.evaluate.metrics = "bits,texts"
    c.evaluate.num_samples = 512
    return c
