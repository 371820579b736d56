"""Points on two spirals: what a network learns, seen as a field."""

from ml_collections import ConfigDict

from configs import default


def get_config() -> ConfigDict:
    """A small residual network; --config.data.name is moons, pinwheel, eight_gaussians or swan."""
    c = default.get_config()
    c.data.name = "spiral"
    c.model.name = "mlp"
    c.optimizer.learning_rate = 6e-3
    c.ema.decay = 0.995
    c.train.steps = 4000
    c.train.batch_size = 512
    c.train.log_every = 500
    c.train.heldout_every = 2000
    c.train.sample_every = 0
    c.train.checkpoint_every = 2000
    c.sample.sampler = "heun"
    c.sample.steps = 32
    c.sample.num_images = 2000
    c.sample.batch_size = 4096
    c.evaluate.metrics = "distances,denoising,likelihood,field"
    c.evaluate.extractor = "entries"
    c.evaluate.num_samples = 8192
    c.evaluate.denoising_images = 4096
    c.evaluate.likelihood.num_images = 1024
    return c
