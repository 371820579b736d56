"""A spiral of two arms in the plane, whose exact score is known at every noise level.

On two CPU cores 24 s of training, 75 s in all. Root-mean-square error of the learned eps_hat per
dimension, seed 0, 4,096 points: 0.057 (95% interval 0.055 to 0.059) at t = 0.1, 0.015 (0.013 to
0.017) at t = 0.5. The learned and the exact flow take 96% (94 to 97) of 1,000 particles to the
same arm.
"""

from ml_collections import ConfigDict

from configs import default


def get_config() -> ConfigDict:
    """A small residual MLP; data.name can also be moons, pinwheel, eight_gaussians or swan."""
    c = default.get_config()
    c.data.name = "spiral"
    c.model.name = "mlp"
    c.objective.cond_dropout = 0.3  # the unconditional score is evaluated too
    c.optimizer.learning_rate = 6e-3
    c.ema.decay = 0.99
    c.train.steps = 3000
    c.train.batch_size = 512
    c.train.log_every = 500
    c.train.heldout_every = 1500
    c.train.sample_every = 0
    c.train.checkpoint_every = 1500
    c.sample.sampler = "heun"
    c.sample.steps = 64
    c.sample.num_images = 2000
    c.sample.batch_size = 4096
    c.evaluate.metrics = "distances,likelihood,field"
    c.evaluate.extractor = "entries"
    c.evaluate.num_samples = 4096
    return c
