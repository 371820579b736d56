"""Quick start: scikit-learn's digits, 8x8 greyscale, class-conditional.

Training takes 59 to 63 s on two CPU cores, 1,797 samples 7 s, compilation included. Three seeds:
99.0 to 99.3% of the samples show the requested class, and the Frechet distance is 0.40 to 0.47
times that of held-out images. Recipes for longer trainings are in `experiments/quick_start`.
"""

from ml_collections import ConfigDict

from configs import default


def get_config() -> ConfigDict:
    """A small transformer over the four quarters of the image, fast on a CPU."""
    c = default.get_config()
    c.model.name = "dit"
    c.model.dit.patch_size = 4
    c.model.dit.hidden_size = 192
    c.model.dit.depth = 3
    c.model.dit.num_heads = 4
    c.model.dit.unroll = 3
    c.optimizer.learning_rate = 4e-3
    c.train.steps = 2000
    c.train.batch_size = 64
    c.train.log_every = 100
    c.train.heldout_every = 500
    c.train.sample_every = 1000
    c.train.checkpoint_every = 500
    c.sample.sampler = "ancestral"
    c.sample.ancestral.variance = "small"
    c.sample.steps = 40
    return c
