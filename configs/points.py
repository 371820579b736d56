"""A spiral of two arms in the plane, whose exact score is known at every noise level."""

from ml_collections import ConfigDict

from configs import default


def get_config() -> ConfigDict:
    """A small residual network; data.name may be moons, pinwheel, eight_gaussians or swan too."""
    c = default.get_config()
    c.data.name = "spiral"
    c.model.name = "mlp"
    c.objective.cond_dropout = 0.3  # the field is looked at without a condition, too
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
